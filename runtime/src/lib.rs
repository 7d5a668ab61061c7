//! OCI images and containers for shoal: this crate knows Linux, not clusters.
//!
//! [`image`] keeps images by digest and unpacks them; [`container`] runs one task's process from unpacked layers,
//! in a small shim process of its own that outlives the daemon.

pub mod container;
pub mod image;
pub mod log;
