//! Deterministic simulation of whole shoals: N real cores in one world with one seed and one event queue.
//!
//! A run has a safety phase, in which steps drawn from the seed or written in a script are done, then the world heals,
//! then a liveness phase, in which everything must become right within a bound. The same seed always gives the same
//! trace hash. See `docs/testing.md`.

pub mod checkers;
mod clock;
mod containers;
mod disk;
pub mod dissemination;
pub mod drill;
pub mod membership;
mod network;
mod node;
pub mod options;
pub mod page;
pub mod report;
pub mod run;
pub mod schedule;
pub mod script;
pub mod shrink;
pub mod step;
pub mod steps;
pub mod summary;
mod trace;
pub mod workers;
mod workload;
pub mod world;
