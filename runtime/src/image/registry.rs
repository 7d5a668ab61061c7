//! Registries: images by name, from wherever the name says.
//!
//! Input: a [`Reference`], what may be asked instead of its registry, and how to log in. Output: the image in the store,
//! or a [`RegistryError`] that says what the registry did. A registry is a stranger: documents are bounded, every blob is
//! checked against its digest and its announced length, and nothing waits for ever. (OCI distribution specification,
//! "Pull".) The login dance is `oci-client`'s; the requests are ours, because that crate reads answers of any length
//! into memory and hides how long a busy registry asks us to wait.

mod credentials;
mod download;
mod endpoint;
mod error;
mod session;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::Semaphore, task::JoinSet};

pub use credentials::{CredentialsError, Login};
pub use error::RegistryError;

use super::{
    digest::Digest,
    document::{Descriptor, parse_json},
    platform,
    progress::{Progress, Step},
    reference::Reference,
    store::{Held, ImageStore},
};
use endpoint::Endpoint;
use session::Session;

/// Layers of one image that are fetched side by side; Docker has three.
const LAYERS_AT_ONCE: usize = 4;
/// How long a whole pull may take. A registry that drips must not hold a task for ever.
const PULL_TIME_MAX: Duration = Duration::from_secs(2 * 60 * 60);
/// How long it may take to say which image a name means.
const RESOLVE_TIME_MAX: Duration = Duration::from_secs(45);

/// How registries are reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryConfig {
    /// Asked before Docker Hub for its images, in this order: `host[:port]`, or a URL without a path.
    pub mirrors: Vec<String>,
    /// Registries that may be asked without TLS, as `host[:port]`. Those on the loopback always may.
    pub insecure: Vec<String>,
    /// Docker's file of logins. Read at each use, so that a login counts at once. Default: none.
    pub logins: Option<PathBuf>,
}

/// The way to all registries. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Registries {
    config: Arc<RegistryConfig>,
    http: reqwest::Client,
}

/// What a name means at its registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The digest of the manifest, or of the index where one name stands for several platforms.
    pub digest: Digest,
    /// Length of that document in bytes, if the registry said it.
    pub size_bytes: Option<u64>,
}

/// What a pull brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The digest by which the registry names it: of its manifest or index.
    pub digest: Digest,
    /// Whether anything had to be fetched.
    pub is_newer: bool,
}

impl Registries {
    /// Makes the way to registries. Nothing is asked yet.
    ///
    /// # Errors
    /// [`RegistryError::Setup`] if TLS cannot be set up.
    pub fn new(config: RegistryConfig) -> Result<Self, RegistryError> {
        Ok(Self { config: Arc::new(config), http: session::http()? })
    }

    /// Asks the registry which digest a name has now. `login` counts before Docker's file of logins.
    ///
    /// # Errors
    /// As [`Registries::pull`].
    pub async fn resolve(&self, reference: &Reference, login: Option<&Login>) -> Result<Resolved, RegistryError> {
        let resolving = async {
            let mut last = None;
            for session in self.sessions(reference, login).await? {
                match session.resolve(&which(reference)).await {
                    Err(error) if error.may_be_elsewhere() => RegistryError::keep_first(&mut last, error),
                    answered => return answered,
                }
            }
            Err(last.unwrap_or_else(|| RegistryError::nowhere(reference)))
        };
        tokio::time::timeout(RESOLVE_TIME_MAX, resolving)
            .await
            .unwrap_or_else(|_| Err(RegistryError::slow(reference, RESOLVE_TIME_MAX)))
    }

    /// Fetches an image as far as it is not here, and registers it under the reference.
    ///
    /// # Errors
    /// [`RegistryError`] says what went wrong, and what to do. Blobs that came whole stay until the next pruning, so
    /// that another try goes on from there; nothing half is registered.
    pub async fn pull(
        &self,
        store: &Arc<ImageStore>,
        reference: &Reference,
        login: Option<&Login>,
        progress: &Arc<Progress>,
    ) -> Result<Pulled, RegistryError> {
        let pulling = async {
            let mut last = None;
            for session in self.sessions(reference, login).await? {
                match pull_from(Arc::new(session), store, reference, progress).await {
                    Err(error) if error.may_be_elsewhere() => RegistryError::keep_first(&mut last, error),
                    pulled => return pulled,
                }
            }
            Err(last.unwrap_or_else(|| RegistryError::nowhere(reference)))
        };
        tokio::time::timeout(PULL_TIME_MAX, pulling)
            .await
            .unwrap_or_else(|_| Err(RegistryError::slow(reference, PULL_TIME_MAX)))
    }

    /// Shows a login to a registry.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] if the registry does not take it, others as [`Registries::pull`].
    pub async fn check_login(&self, registry: &str, login: &Login) -> Result<(), RegistryError> {
        let mut last = None;
        for endpoint in Endpoint::of_registry(registry, &self.config) {
            match Session::new(self.http.clone(), endpoint, String::new(), Some(login.clone())).check().await {
                Err(error) if error.may_be_elsewhere() => RegistryError::keep_first(&mut last, error),
                answered => return answered,
            }
        }
        Err(last.unwrap_or_else(|| RegistryError::no_such(registry)))
    }

    async fn sessions(&self, reference: &Reference, login: Option<&Login>) -> Result<Vec<Session>, RegistryError> {
        let mut sessions = Vec::new();
        for endpoint in Endpoint::of(reference, &self.config) {
            let login = match (login, &self.config.logins) {
                // A login is for the registry that the name names, not for its mirrors.
                (Some(login), _) if endpoint.is_origin => Some(login.clone()),
                (_, Some(file)) => credentials::find(file, &endpoint.host).await?,
                (_, None) => None,
            };
            sessions.push(Session::new(self.http.clone(), endpoint, reference.path().to_owned(), login));
        }
        Ok(sessions)
    }
}

/// Returns the login that Docker's file of logins has for a registry, if there is one.
///
/// # Errors
/// [`CredentialsError`] if the file, or the helper that it names, cannot be used.
pub async fn find_login(file: &Path, registry: &str) -> Result<Option<Login>, CredentialsError> {
    credentials::find(file, registry).await
}

/// Returns what to ask for: the digest if there is one, else the tag.
fn which(reference: &Reference) -> String {
    let digest = reference.digest().map(|digest| digest.to_string());
    digest.unwrap_or_else(|| reference.tag().unwrap_or("latest").to_owned())
}

async fn pull_from(
    session: Arc<Session>,
    store: &Arc<ImageStore>,
    reference: &Reference,
    progress: &Arc<Progress>,
) -> Result<Pulled, RegistryError> {
    let bytes_max = store.limits().document_bytes_max;
    let (digest, document) = session.manifest(&which(reference), bytes_max).await?;
    // Not pruned meanwhile, though nothing refers to it yet.
    let _held = Held::new(store, digest);
    download::put(store, digest, &document).await?;
    if let Some(part) = part(&document)? {
        let (part, document) = session.manifest(&part.to_string(), bytes_max).await?;
        download::put(store, part, &document).await?;
    }
    let missing = missing(store, digest).await?;
    let is_newer = !missing.is_empty();
    fetch_all(&session, store, missing, progress).await?;
    let (store, reference) = (Arc::clone(store), reference.clone());
    download::blocking(move || Ok(store.register(digest, Some(reference))?)).await?;
    Ok(Pulled { digest, is_newer })
}

/// Returns the manifest for this machine, if the document is an index.
fn part(document: &[u8]) -> Result<Option<Digest>, RegistryError> {
    if !platform::is_index(document)? {
        return Ok(None);
    }
    let index = parse_json("image index", document)?;
    let part = platform::choose(&index).ok_or_else(|| RegistryError::Platform {
        wanted: platform::host(),
        found: platform::listed(index.manifests().iter().filter_map(platform::shown).collect()),
    })?;
    Ok(Some(super::document::digest_of("image index", part)?))
}

async fn missing(store: &Arc<ImageStore>, digest: Digest) -> Result<Vec<Descriptor>, RegistryError> {
    let store = Arc::clone(store);
    download::blocking(move || Ok(store.missing(&digest)?)).await
}

/// Fetches all blobs, some at a time. The first failure ends the others.
async fn fetch_all(
    session: &Arc<Session>,
    store: &Arc<ImageStore>,
    blobs: Vec<Descriptor>,
    progress: &Arc<Progress>,
) -> Result<(), RegistryError> {
    blobs.iter().for_each(|blob| progress(Step::Wanted(blob.digest)));
    let slots = Arc::new(Semaphore::new(LAYERS_AT_ONCE));
    let mut fetches = JoinSet::new();
    for blob in blobs {
        let (session, store, progress) = (Arc::clone(session), Arc::clone(store), Arc::clone(progress));
        let slots = Arc::clone(&slots);
        fetches.spawn(async move {
            // Never closed.
            let _slot = slots.acquire().await;
            download::blob(&session, &store, blob, &progress).await
        });
    }
    let mut result = Ok(());
    while let Some(fetched) = fetches.join_next().await {
        result = fetched.map_err(RegistryError::broken).and_then(|fetched| fetched);
        if result.is_err() {
            break;
        }
    }
    // What one of them writes at this moment is thrown away a little later, with its writer.
    fetches.shutdown().await;
    result
}
