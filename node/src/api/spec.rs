//! Specs: Docker's `ServiceSpec` to and from shoal's.
//!
//! What shoal has is carried over in both directions. What shoal does not have is refused by its name when it says
//! something, and accepted when it is what Docker's client sends for an option that was not given.

mod accept;
mod container;
mod health;
mod mode;
mod mount;
mod place;
mod refuse;
mod rolling;
mod show;
mod spelling;
#[cfg(test)]
mod tests;
mod uses;

pub use accept::accept_outline;
pub(super) use accept::{AcceptError, accept};
pub(super) use mode::word as mode_word;
pub(super) use show::{image_text, show, show_template_of};
pub(super) use spelling::Spelt;
pub use spelling::of_models;
pub(super) use uses::{Known, not_served, with_network_ids};

/// Nanoseconds in a millisecond: Docker's durations and shoal's.
const NS_PER_MS: i64 = 1_000_000;
