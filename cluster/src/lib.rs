//! The pure core of shoal: three replicated planes, the plan derived from them, and this node's agent.

#![no_std]

extern crate alloc;

pub mod hash;
pub mod id;
pub mod plan;
