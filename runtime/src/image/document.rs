//! Documents: manifests and configurations, parsed and checked against each other.
//!
//! Input: JSON bytes whose digest was verified already, so they are what they claim to be, but not yet sensible.
//! Output: [`Image`], whose layers and diff ids agree in number and are within [`Limits`].

use std::collections::BTreeSet;

use oci_spec::image::{Descriptor as OciDescriptor, ImageConfiguration, ImageManifest, Os};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{
    digest::{Digest, DigestError},
    limits::Limits,
    reference::Reference,
};

/// A blob's name and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Descriptor {
    /// The digest of its bytes.
    pub digest: Digest,
    /// Its length in bytes as the manifest states it. For a manifest that is not here yet: the most that it may be.
    pub size_bytes: u64,
}

/// One layer of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The layer as stored, perhaps compressed.
    pub blob: Descriptor,
    /// The digest of the uncompressed tar.
    pub diff_id: Digest,
}

/// An image that is complete in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The digest of its manifest, which is how nodes name it to each other.
    pub digest: Digest,
    /// The digest of its configuration, which Docker shows as the image id.
    pub config_digest: Digest,
    /// What to run, with which environment, as what user.
    pub config: ImageConfiguration,
    /// What Docker's images say beyond that.
    pub docker: DockerConfig,
    /// Its layers, the lowest first.
    pub layers: Vec<Layer>,
    /// Bytes of configuration and layers as stored.
    pub size_bytes: u64,
    /// The names it goes by in this store.
    pub references: BTreeSet<Reference>,
    /// Digests of the indexes by which it was fetched, and by which it goes too.
    pub indexes: BTreeSet<Digest>,
}

/// What Docker writes into an image's configuration beyond the OCI specification.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DockerConfig {
    /// How a container is found to be well.
    pub healthcheck: Option<ImageHealth>,
    /// What runs a command line; `/bin/sh -c` unless given.
    pub shell: Option<Vec<String>>,
}

/// An image's `HEALTHCHECK`. Times are in nanoseconds; what is 0 or absent is as by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ImageHealth {
    /// `NONE`, `CMD` and a command, or `CMD-SHELL` and a command line.
    pub test: Option<Vec<String>>,
    /// Time between two tries.
    pub interval: Option<i64>,
    /// How long one may take.
    pub timeout: Option<i64>,
    /// For how long after the start failures do not count.
    pub start_period: Option<i64>,
    /// Time between two tries in that period.
    pub start_interval: Option<i64>,
    /// Failures in a row that make it unhealthy.
    pub retries: Option<i64>,
}

/// The part of a configuration that [`DockerConfig`] is in.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Extended {
    config: Option<DockerConfig>,
}

/// Why a manifest or configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Longer than [`Limits::document_bytes_max`].
    #[error("the {what} is {bytes} bytes long, at most {max} are allowed")]
    TooLong {
        /// Which document.
        what: &'static str,
        /// Its length.
        bytes: u64,
        /// The bound.
        max: u64,
    },
    /// Not the JSON that it should be.
    #[error("the {what} is malformed")]
    Json {
        /// Which document.
        what: &'static str,
        /// What the parser found.
        #[source]
        source: serde_json::Error,
    },
    /// A digest in it is none.
    #[error("the {what} holds an invalid digest")]
    Digest {
        /// Which document.
        what: &'static str,
        /// What is wrong with it.
        #[source]
        source: DigestError,
    },
    /// More than [`Limits::layers_max`].
    #[error("the image has {layers} layers, at most {max} are allowed")]
    Layers {
        /// How many it has.
        layers: usize,
        /// The bound.
        max: usize,
    },
    /// A blob is longer than [`Limits::blob_bytes_max`].
    #[error("the manifest names a blob of {bytes} bytes, at most {max} are allowed")]
    Blob {
        /// The stated length.
        bytes: u64,
        /// The bound.
        max: u64,
    },
    /// Manifest and configuration disagree.
    #[error("the manifest lists {layers} layers but the configuration {diff_ids} diff ids")]
    Mismatch {
        /// Layers in the manifest.
        layers: usize,
        /// Diff ids in the configuration.
        diff_ids: usize,
    },
    /// An image for another operating system.
    #[error("the image is for {0}, only linux images can run here")]
    Os(Os),
}

/// What a manifest refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

pub(super) fn parse_json<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, DocumentError> {
    serde_json::from_slice(bytes).map_err(|source| DocumentError::Json { what, source })
}

impl Manifest {
    pub(super) fn parse(bytes: &[u8], limits: &Limits) -> Result<Self, DocumentError> {
        let manifest: ImageManifest = parse_json("manifest", bytes)?;
        let layers = manifest.layers().len();
        if layers > limits.layers_max {
            return Err(DocumentError::Layers { layers, max: limits.layers_max });
        }
        let config = descriptor(manifest.config(), limits.document_bytes_max)?;
        let layers = manifest.layers().iter().map(|layer| descriptor(layer, limits.blob_bytes_max));
        Ok(Self { config, layers: layers.collect::<Result<_, _>>()? })
    }

    /// Everything it refers to, the configuration first.
    pub(super) fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        std::iter::once(&self.config).chain(&self.layers)
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.blobs().fold(0, |sum, blob| sum.saturating_add(blob.size_bytes))
    }

    /// Puts a manifest and its configuration together.
    pub(super) fn into_image(self, digest: Digest, config: &[u8]) -> Result<Image, DocumentError> {
        let docker = parse_json::<Extended>("image configuration", config)?.config.unwrap_or_default();
        let (config, diff_ids) = parse_config(config)?;
        if diff_ids.len() != self.layers.len() {
            return Err(DocumentError::Mismatch { layers: self.layers.len(), diff_ids: diff_ids.len() });
        }
        let size_bytes = self.size_bytes();
        let layers = self.layers.into_iter().zip(diff_ids).map(|(blob, diff_id)| Layer { blob, diff_id }).collect();
        Ok(Image {
            digest,
            config_digest: self.config.digest,
            config,
            docker,
            layers,
            size_bytes,
            references: BTreeSet::new(),
            indexes: BTreeSet::new(),
        })
    }
}

/// Parses a configuration and its diff ids.
pub(super) fn parse_config(bytes: &[u8]) -> Result<(ImageConfiguration, Vec<Digest>), DocumentError> {
    let what = "image configuration";
    let config: ImageConfiguration = parse_json(what, bytes)?;
    if *config.os() != Os::Linux {
        return Err(DocumentError::Os(config.os().clone()));
    }
    let diff_ids = config.rootfs().diff_ids().iter().map(|id| id.parse());
    let diff_ids = diff_ids.collect::<Result<_, _>>().map_err(|source| DocumentError::Digest { what, source })?;
    Ok((config, diff_ids))
}

pub(super) fn descriptor(from: &OciDescriptor, bytes_max: u64) -> Result<Descriptor, DocumentError> {
    let digest = digest_of("manifest", from)?;
    if from.size() > bytes_max {
        return Err(DocumentError::Blob { bytes: from.size(), max: bytes_max });
    }
    Ok(Descriptor { digest, size_bytes: from.size() })
}

pub(super) fn digest_of(what: &'static str, from: &OciDescriptor) -> Result<Digest, DocumentError> {
    from.digest().as_ref().parse().map_err(|source| DocumentError::Digest { what, source })
}
