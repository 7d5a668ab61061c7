//! What can go wrong with a registry, said so that an operator knows what to do.

use std::{io, time::Duration};

use super::credentials::CredentialsError;
use crate::image::{
    digest::Digest,
    document::DocumentError,
    reference::Reference,
    store::{BlobError, StoreError},
};

/// Why an image did not come from a registry. Nothing is registered; blobs that came whole are kept for another try.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// TLS cannot be set up on this machine.
    #[error("cannot set up TLS for registries: is the package ca-certificates installed?")]
    Setup(#[source] reqwest::Error),
    /// Docker's file of logins cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The registry cannot be reached, or the connection broke too often.
    #[error("cannot reach registry {host}: {cause}")]
    Unreachable {
        /// The registry.
        host: String,
        /// What happened.
        cause: String,
    },
    /// 401 or 403: it wants a login, or another one.
    #[error("registry {host} refuses access to {what}{detail}: log in with `shoal login {host}`, or check the name")]
    Denied {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
        /// The registry's words, after a colon.
        detail: String,
    },
    /// 404.
    #[error("registry {host} has no {what}")]
    NotFound {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
    },
    /// 429: it limits how often it may be asked.
    #[error("registry {host} is asked too often (429): try again in {}, log in, or name a mirror", shown(*wait))]
    TooMany {
        /// The registry.
        host: String,
        /// How long it wants us to wait, if it said so.
        wait: Option<Duration>,
    },
    /// Any other answer that is no success.
    #[error("registry {host} answers {status} for {what}{detail}")]
    Status {
        /// The registry.
        host: String,
        /// The status.
        status: u16,
        /// What was asked for.
        what: String,
        /// The registry's words, after a colon.
        detail: String,
    },
    /// It sends more or less than it announced.
    #[error("registry {host} lies about the size of {what}: it announces {announced} bytes and sends {sent}")]
    Size {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
        /// What the manifest or its header says.
        announced: u64,
        /// What came, or was about to come.
        sent: String,
    },
    /// Its bytes are not those that the digest names.
    #[error("registry {host} sends wrong bytes for {what}: they have the digest {found}")]
    Digest {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
        /// What its bytes have.
        found: Digest,
    },
    /// It has the image for other machines only.
    #[error("the registry has no image for {wanted}, it has {found}")]
    Platform {
        /// This machine's platform.
        wanted: String,
        /// Those of the index.
        found: String,
    },
    /// A manifest or index is not usable.
    #[error("the registry's image cannot be used")]
    Document(#[from] DocumentError),
    /// A blob could not be stored, or has the wrong digest.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Writing failed in the middle.
    #[error("cannot write the image to disk")]
    Io(#[source] io::Error),
    /// It took longer than it may.
    #[error("{what} did not come within {} minutes", time.as_secs() / 60)]
    Slow {
        /// The image.
        what: String,
        /// The bound.
        time: Duration,
    },
}

fn shown(wait: Option<Duration>) -> String {
    wait.map_or_else(|| "some minutes".to_owned(), |wait| format!("{} s", wait.as_secs()))
}

impl RegistryError {
    /// Tells whether asking again soon may help, at the same place.
    pub(super) const fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TooMany { .. } => true,
            Self::Status { status, .. } => *status >= 500,
            Self::Setup(_)
            | Self::Credentials(_)
            | Self::Denied { .. }
            | Self::NotFound { .. }
            | Self::Size { .. }
            | Self::Digest { .. }
            | Self::Platform { .. }
            | Self::Document(_)
            | Self::Blob(_)
            | Self::Store(_)
            | Self::Io(_)
            | Self::Slow { .. } => false,
        }
    }

    /// Tells whether another place that serves the same image is worth asking. What is wrong with our own disk is not.
    pub(super) const fn may_be_elsewhere(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Denied { .. }
            | Self::NotFound { .. }
            | Self::TooMany { .. }
            | Self::Status { .. }
            | Self::Size { .. }
            | Self::Digest { .. } => true,
            Self::Setup(_)
            | Self::Credentials(_)
            | Self::Platform { .. }
            | Self::Document(_)
            | Self::Blob(_)
            | Self::Store(_)
            | Self::Io(_)
            | Self::Slow { .. } => false,
        }
    }

    /// Keeps what says most: the last place asked is the registry itself, but that it cannot be reached by one of its
    /// two schemes says less than any answer.
    pub(super) fn keep_first(kept: &mut Option<Self>, next: Self) {
        if kept.is_none() || !matches!(next, Self::Unreachable { .. }) {
            *kept = Some(next);
        }
    }

    pub(super) fn nowhere(reference: &Reference) -> Self {
        Self::no_such(reference.domain())
    }

    pub(super) fn no_such(registry: &str) -> Self {
        Self::Unreachable { host: registry.chars().take(255).collect(), cause: "it is no host name".to_owned() }
    }

    pub(super) fn slow(reference: &Reference, time: Duration) -> Self {
        Self::Slow { what: reference.to_string(), time }
    }

    /// A part of the work panicked or was ended.
    pub(super) fn broken(error: tokio::task::JoinError) -> Self {
        Self::Io(io::Error::other(error))
    }
}
