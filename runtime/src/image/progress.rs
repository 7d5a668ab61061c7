//! Progress: what a fetch tells while it runs, whether it fetches from a registry or from peers.

use super::digest::Digest;

/// One thing that happened to one blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is needed and not here.
    Wanted(Digest),
    /// It is here already.
    Exists(Digest),
    /// Some of it has come.
    Downloading {
        /// The blob.
        digest: Digest,
        /// Bytes that are here.
        done_bytes: u64,
        /// Bytes that it has.
        total_bytes: u64,
    },
    /// It is here, verified.
    Complete(Digest),
}

/// Told of each [`Step`]; must not block.
pub type Progress = dyn Fn(Step) + Send + Sync;
