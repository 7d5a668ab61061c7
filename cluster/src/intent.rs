//! Intent: what operators want, one register per key, replicated to every node.

pub mod name;
pub mod service;
