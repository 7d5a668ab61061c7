//! Images: kept by digest, read from archives, built from an executable, and unpacked for overlayfs.
//!
//! Input: archives (`docker save`, OCI layout), registries, blobs that another node sent, or an executable on disk.
//! Output: verified
//! blobs, and layer directories that can be stacked. Everything that comes in is hostile: sizes, counts and paths are
//! bounded by [`Limits`], and every byte is checked against the digest that names it before anything refers to it.
//! All calls block; asynchronous callers wrap them in `spawn_blocking`.

mod ahead;
mod archive;
mod build;
mod compression;
mod digest;
mod document;
mod layer;
mod limits;
mod platform;
pub mod progress;
mod reference;
pub mod registry;
mod save;
mod store;
mod tar_stream;

pub use archive::{LoadError, Loaded};
pub use build::{BuildConfig, BuildError, Built, build_from_executable};
pub use compression::CompressionError;
pub use digest::{Digest, DigestError, Hasher, HashingReader, HashingWriter};
pub use document::{Descriptor, DockerConfig, DocumentError, Image, ImageHealth, Layer};
pub use layer::{LayerError, Unpacked};
pub use limits::Limits;
pub use reference::{Reference, ReferenceError};
pub use save::SaveError;
pub use store::{BlobError, BlobWriter, Growing, Held, ImageStore, ImageSummary, Pruned, StoreError, UnpackError};
pub use tar_stream::TarError;
