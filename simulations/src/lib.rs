//! Deterministic simulation of whole shoals: N real cores in one world with one seed and one event queue.
//!
//! A run has a safety phase, in which a random subset of the faults happens while operators give commands, then
//! the world heals, then a liveness phase, in which everything must become right within a bound. The same seed
//! always gives the same trace hash. See `docs/testing.md`.

pub mod checkers;
mod containers;
mod disk;
mod faults;
mod network;
mod node;
pub mod options;
pub mod report;
pub mod run;
mod trace;
mod workload;
pub mod world;
