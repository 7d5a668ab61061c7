//! The pure core of shoal: three replicated planes, the plan derived from them, and this node's agent.
//!
//! Sans-IO: the caller owns sockets, disks, clocks and containers, hands in what happened and carries out what
//! comes back. See [`Cluster`] for the contract.

#![no_std]

extern crate alloc;

pub mod clock;
pub mod config;
pub mod crdt;
pub mod hash;
pub mod id;
pub mod intent;
pub mod io;
pub mod limits;
pub mod membership;
pub mod plan;
pub mod reports;
pub mod seed;
pub mod view;
pub mod wire;

use alloc::vec::Vec;

pub use clock::{Instant, Now};
pub use config::Config;
pub use id::{NodeId, ServiceId, TaskId};
pub use io::{Action, Command, CommandError, Event, Input, Receipt, TaskCommand, TaskEvent, TaskOrder};
pub use view::Views;

/// One node's core.
///
/// The contract: (1) `now.mono` never goes back within a run; (2) the same seed, inputs and times give the same
/// actions, byte for byte; (3) an action may rely on those before it: after [`Action::Persist`], nothing later
/// leaves until the record is durable; (4) [`Input::Timeout`] early or twice is harmless; (5) one input does bounded
/// work; (6) views are levels, not edges: the edge compares and reconciles.
#[derive(Debug)]
pub struct Cluster {}

/// What was made durable cannot be read back. The node must not start: it would break promises it made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// A record does not decode.
    #[error("record {index} of the store does not decode ({reason}): restore the data directory from a backup, or remove it and join again")]
    Record {
        /// Its position, from 0.
        index: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl Cluster {
    /// Makes the core of a node, from the records that its earlier runs made durable (none at first), in order.
    pub fn restore(
        id: NodeId,
        config: Config,
        seed: [u8; 32],
        now: Now,
        records: impl Iterator<Item = Vec<u8>>,
    ) -> Result<Self, RestoreError> {
        let _ = (id, config, seed, now, records);
        unimplemented!()
    }

    /// Takes in what happened. Never fails and never blocks; hostile bytes are counted and dropped.
    pub fn handle(&mut self, now: Now, input: Input) {
        let _ = (now, input);
        unimplemented!()
    }

    /// Takes in what an operator wants, or says why not.
    pub fn apply(&mut self, now: Now, command: Command) -> Result<Receipt, CommandError> {
        let _ = (now, command);
        unimplemented!()
    }

    /// Returns what to do next: drain after each `handle` and `apply`, carry out in order.
    pub fn poll(&mut self) -> Option<Action> {
        unimplemented!()
    }

    /// Returns when [`Input::Timeout`] is due at the latest.
    pub fn poll_timeout(&self) -> Instant {
        unimplemented!()
    }

    /// Returns the present views, and recomputes them if anything changed.
    pub fn views(&mut self) -> &Views {
        unimplemented!()
    }

    /// Returns the records that a restart needs, complete: the store may replace all it has by these.
    pub fn snapshot(&self) -> Vec<Vec<u8>> {
        unimplemented!()
    }
}
