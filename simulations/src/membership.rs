//! Membership alone, at scale: how soon all know of a crash, who is wrongly declared down, and what it costs.
//!
//! Input: a [`Scenario`] and a [`Protocol`]. Output: [`Figures`]. Only the membership plane of the core runs, so that
//! a thousand nodes and a simulated day are cheap; any other implementation of [`Protocol`] runs in the very same
//! network, with the same seed (`simulations/tests/foca.rs`). See `docs/testing.md#membership-at-scale`.

pub mod command;
mod figures;
mod network;
pub mod ours;
pub(crate) mod queue;

use std::time::Duration;

use shoal_cluster::Instant;

pub use figures::{Figures, Spread};
pub use network::run;

/// Bytes that a message takes on a LAN besides its own: length prefix 4, yamux 12, TLS 1.3 record 22, TCP with
/// timestamps 32, IPv4 20. Messages that share a segment take less.
pub const FRAMING_BYTES: u64 = 90;

/// One node's side of a membership protocol, as the harness drives it: nodes are numbers.
pub trait Protocol: Sized {
    /// What the nodes say to each other.
    type Message: Clone;
    /// What outlives a crash.
    type Disk: Clone + Default;

    /// Starts a node. All nodes up to `place.count` are known to each other at the very beginning; a node that
    /// starts again knows a few.
    fn start(place: &Place, disk: &mut Self::Disk, now: Instant) -> Self;
    /// Takes in a message.
    fn handle(&mut self, now: Instant, from: usize, message: Self::Message);
    /// Takes in that the connection to a node was reset or refused.
    fn lost(&mut self, now: Instant, peer: usize);
    /// Takes in that [`Self::due`] has come.
    fn timeout(&mut self, now: Instant);
    /// Returns when something is due.
    fn due(&self) -> Instant;
    /// Returns what to do next.
    fn poll(&mut self, disk: &mut Self::Disk) -> Option<Output<Self::Message>>;
}

/// Which node starts, and how.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its number.
    pub number: usize,
    /// How many there are.
    pub count: usize,
    /// Which of its runs this is, from 1.
    pub run: u64,
    /// Seeds its randomness.
    pub seed: [u8; 32],
    /// Nodes that run already, to join through; none at the very beginning.
    pub contacts: Vec<usize>,
}

/// What a node wants or says.
#[derive(Clone, Debug)]
pub enum Output<M> {
    /// Send a message of so many bytes.
    Send {
        /// To which node.
        to: usize,
        /// What.
        message: M,
        /// Its length.
        bytes: u64,
    },
    /// It holds another node up now.
    Up(usize),
    /// It holds another node suspect now.
    Suspect(usize),
    /// It holds another node down now.
    Down(usize),
}

/// What happens in a run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// How many nodes there are.
    pub nodes: usize,
    /// Seeds everything.
    pub seed: u64,
    /// Messages lost, of a thousand.
    pub loss_permille: u64,
    /// How many nodes are slow: each message to or from one takes up to `slow_delay` longer, in any order.
    pub slow: usize,
    /// The longest extra delay of a slow node.
    pub slow_delay: Duration,
    /// How often a node crashes, is noticed, and starts again.
    pub crashes: usize,
    /// Whether a crashed node's host resets its connections and refuses new ones; otherwise there is silence.
    pub reset: bool,
    /// Time to run without crashes before the first.
    pub idle: Duration,
    /// How long a crash may take to be known by all.
    pub patience: Duration,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            nodes: 100,
            seed: 1,
            loss_permille: 0,
            slow: 0,
            slow_delay: Duration::from_secs(5),
            crashes: 0,
            reset: false,
            idle: Duration::from_secs(60),
            patience: Duration::from_secs(120),
        }
    }
}
