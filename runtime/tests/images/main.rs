//! Images from archive to root file system: what is good must survive the way unchanged, what is bad must leave nothing.

#![allow(clippy::print_stdout, reason = "a test that cannot run says so")]
#![allow(clippy::unwrap_used, reason = "in a test, a panic with its place is the best message")]

mod archives;
mod build;
mod layers;
mod mutations;
mod registry;
mod store;
mod support;
