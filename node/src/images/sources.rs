//! What the API asks of this node's images, with errors in its words.

use std::sync::Arc;

use futures::future::BoxFuture;
use shoal_runtime::image::progress::Progress;
use shoal_runtime::image::registry::{Login, RegistryError};
use shoal_runtime::image::{Digest, Reference};

use super::{Images, PullError, chain};
use crate::api;

/// The way from the API to this node's images.
#[derive(Clone)]
pub struct ImageSources(pub Arc<Images>);

impl api::Sources for ImageSources {
    fn find(&self, reference: Reference, login: Option<Login>) -> BoxFuture<'static, Result<Digest, api::PullError>> {
        let images = Arc::clone(&self.0);
        Box::pin(async move { images.find(&reference, login.as_ref()).await.map_err(|error| told(&error)) })
    }

    fn pull(
        &self,
        reference: Reference,
        login: Option<Login>,
        progress: Arc<Progress>,
    ) -> BoxFuture<'static, Result<(Digest, bool), api::PullError>> {
        let images = Arc::clone(&self.0);
        Box::pin(async move {
            let pulled = images.pull(&reference, login.as_ref(), &progress).await;
            pulled.map_err(|error| match error {
                PullError::Registry(error) => told(&error),
                PullError::Image(error) => api::PullError::Failed(chain(&error)),
            })
        })
    }

    fn check_login(&self, registry: String, login: Login) -> BoxFuture<'static, Result<(), api::PullError>> {
        let images = Arc::clone(&self.0);
        Box::pin(async move {
            let checked = images.registries().check_login(&registry, &login).await;
            checked.map_err(|error| told(&error))
        })
    }
}

fn told(error: &RegistryError) -> api::PullError {
    let text = chain(error);
    match error {
        RegistryError::NotFound { .. } | RegistryError::Platform { .. } => api::PullError::NotFound(text),
        RegistryError::Denied { .. } => api::PullError::Denied(text),
        RegistryError::Setup(_)
        | RegistryError::Credentials(_)
        | RegistryError::Unreachable { .. }
        | RegistryError::TooMany { .. }
        | RegistryError::Status { .. }
        | RegistryError::Size { .. }
        | RegistryError::Digest { .. }
        | RegistryError::Document(_)
        | RegistryError::Blob(_)
        | RegistryError::Store(_)
        | RegistryError::Io(_)
        | RegistryError::Slow { .. } => api::PullError::Failed(text),
    }
}
