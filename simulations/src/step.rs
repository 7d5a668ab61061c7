//! Steps: everything that is done to a world, as plain values. A run is its options and its steps, so that it can be
//! written down, replayed, and made smaller.
//!
//! Numbers of nodes are taken modulo the number of nodes there are, so that a plan fits a world of any size.

use serde::{Deserialize, Serialize};

/// One step and when it is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timed {
    /// Milliseconds from the start of the safety phase.
    pub at_ms: u64,
    /// What is done.
    #[serde(flatten)]
    pub step: Step,
}

/// What can be done to a world.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// An operator writes or removes a service; `roll` decides what.
    Write {
        /// Which service.
        service: u64,
        /// At which node, for services that everybody writes.
        node: usize,
        /// Decides between create, update, scale and remove, and with which values.
        roll: u64,
    },
    /// An operator makes a network, secret or config, or removes it; `roll` decides its id and bytes.
    Object {
        /// Which.
        object: u64,
        /// At which node, for objects that everybody writes.
        node: usize,
        /// Decides what is made.
        roll: u64,
    },
    /// An operator writes what is wanted of a node; `roll` decides between availabilities and labels.
    Want {
        /// Of which.
        node: usize,
        /// At which node it is written.
        at: usize,
        /// Decides what.
        roll: u64,
    },
    /// An operator lets a node leave, and brings it back.
    Leave {
        /// Which.
        node: usize,
        /// When it starts again.
        back_ms: u64,
    },
    /// The network is split: these on one side, the others on the other.
    Split {
        /// One side.
        side: Vec<usize>,
    },
    /// The network is split in halves: the lower numbers, and the others.
    Halve,
    /// Nothing gets from one node to another.
    Cut {
        /// The sender.
        from: usize,
        /// The receiver.
        to: usize,
    },
    /// Two nodes do not hear each other, while others hear both.
    Sever {
        /// One.
        a: usize,
        /// The other.
        b: usize,
    },
    /// What was split, cut and severed is joined.
    Join,
    /// A node goes down, at once or after some of its next actions, and starts again.
    Crash {
        /// Which.
        node: usize,
        /// After how many actions.
        after: u64,
        /// When it starts again.
        down_ms: u64,
        /// Whether the machine loses its power, its containers included.
        power: bool,
    },
    /// A node goes down and comes back several times.
    Flap {
        /// Which.
        node: usize,
        /// How often.
        times: u64,
        /// Time between two starts.
        every_ms: u64,
    },
    /// All nodes are restarted one after the other.
    Roll {
        /// Time between two of them.
        every_ms: u64,
        /// How long each is down.
        down_ms: u64,
    },
    /// A daemon stands still.
    Pause {
        /// Which.
        node: usize,
        /// How long.
        ms: u64,
    },
    /// A node sends, hears and wakes late.
    Slow {
        /// Which.
        node: usize,
        /// By how much at most.
        delay_ms: u64,
        /// How long.
        ms: u64,
    },
    /// Nodes that were kept out until now all join.
    Storm {
        /// The first of them; all after it join too.
        first: usize,
    },
    /// Nodes leave at one moment and come back.
    LeaveAll {
        /// The first of them.
        first: usize,
        /// How many.
        count: usize,
        /// When they start again.
        back_ms: u64,
    },
    /// A machine loses its power and comes back with an empty log.
    LoseDisk {
        /// Which.
        node: usize,
        /// When it starts again.
        down_ms: u64,
    },
    /// A disk takes no more records for a while.
    FillDisk {
        /// Whose.
        node: usize,
        /// How long.
        ms: u64,
    },
    /// The next write of a disk cannot be made durable.
    FailSync {
        /// Whose.
        node: usize,
    },
    /// Both clocks of a node run fast, or slow.
    Drift {
        /// Whose.
        node: usize,
        /// By how much, in millionths.
        ppm: i64,
    },
    /// A wall clock is set.
    SetClock {
        /// Whose.
        node: usize,
        /// How far from the true time.
        off_ms: i64,
    },
    /// A running container exits by itself.
    Exit {
        /// Which, modulo their number.
        pick: u64,
        /// With which code.
        code: i32,
    },
    /// A running container will not end before it is killed.
    Hang {
        /// Which, modulo their number.
        pick: u64,
    },
    /// A machine can start no containers.
    Refuse {
        /// Which.
        node: usize,
        /// How long.
        ms: u64,
    },
    /// A node is set back to an older binary: its log holds an entry of a kind that it does not know.
    Downgrade {
        /// Which.
        node: usize,
    },
    /// A member sends random bytes, in an envelope or not.
    Garbage {
        /// The sender.
        from: usize,
        /// The receiver.
        to: usize,
        /// Decides the bytes.
        roll: u64,
    },
    /// A message that was sent before arrives again.
    Replay {
        /// Which, modulo the number of those remembered.
        pick: u64,
    },
    /// Something harmless happens at a bad moment.
    Poke {
        /// Where.
        node: usize,
        /// Decides what.
        roll: u64,
    },
}
