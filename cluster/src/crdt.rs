//! The replicated types that the planes are built of: dots, contexts, version vectors, multi-value registers.
//!
//! Built on the `Dot` and `VClock` of the `crdts` crate. Its `Map` is not used: an operation applied out of order
//! loses data there, removals take no dot, and its encoding is not canonical. See `docs/protocol.md#intent`.

mod dot;
mod register;
mod vector;

pub use dot::{Actor, Context, Dot};
pub use register::{Joined, Register, Version, VersionError};
pub use vector::Vector;
