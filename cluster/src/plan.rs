//! The plan: pure functions of the three planes, the same on every node to the bit.

pub mod addresses;
pub mod names;
pub mod routes;
