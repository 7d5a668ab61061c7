//! Membership: which nodes are in and which are up (SWIM).

pub mod member;
