//! The network: what becomes of a message between two nodes, and who has a connection to whom.

use std::collections::BTreeSet;

use shoal_cluster::seed::Stream;

use crate::options::Faults;

/// Shortest delay between two nodes, in microseconds.
const LAN_DELAY_US: u64 = 200;
/// How much the LAN alone adds to it.
const LAN_JITTER_US: u64 = 800;

/// The state of all links.
#[derive(Debug)]
pub(crate) struct Network {
    random: Stream,
    faults: Faults,
    healed: bool,
    /// Nodes on the other side of the split, if there is one.
    split: BTreeSet<usize>,
    /// Directions that carry nothing.
    cut: BTreeSet<(usize, usize)>,
    /// Pairs (lower first) that have exchanged a message since both started.
    connected: BTreeSet<(usize, usize)>,
    /// Messages and bytes handed in.
    pub(crate) sent: (u64, u64),
    /// Messages that the faults ate.
    pub(crate) lost: u64,
}

/// One copy of a message under way.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) delay_us: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Network {
    pub(crate) fn new(faults: Faults, random: Stream) -> Self {
        Self {
            random,
            faults,
            healed: false,
            split: BTreeSet::new(),
            cut: BTreeSet::new(),
            connected: BTreeSet::new(),
            sent: (0, 0),
            lost: 0,
        }
    }

    /// Splits the nodes: `side` and the rest do not hear each other.
    pub(crate) fn split(&mut self, side: BTreeSet<usize>) {
        self.split = side;
    }

    /// Cuts one direction.
    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    /// Joins what was split and cut.
    pub(crate) fn join(&mut self) {
        self.split.clear();
        self.cut.clear();
    }

    /// Ends all faults for good.
    pub(crate) fn heal(&mut self) {
        self.join();
        self.healed = true;
    }

    /// Tells whether messages can pass at all.
    pub(crate) fn passes(&self, from: usize, to: usize) -> bool {
        self.split.contains(&from) == self.split.contains(&to) && !self.cut.contains(&(from, to))
    }

    /// Returns the copies of this message that will arrive: none, one or two.
    pub(crate) fn carry(&mut self, from: usize, to: usize, bytes: &[u8]) -> Vec<Delivery> {
        self.sent = (self.sent.0 + 1, self.sent.1 + bytes.len() as u64);
        if !self.passes(from, to) || self.strikes(self.faults.loss_permille) {
            self.lost += 1;
            return Vec::new();
        }
        let copies = if self.strikes(self.faults.duplicate_permille) { 2 } else { 1 };
        (0..copies).map(|_| self.copy(bytes)).collect()
    }

    fn copy(&mut self, bytes: &[u8]) -> Delivery {
        let mut bytes = bytes.to_vec();
        if self.strikes(self.faults.truncate_permille) {
            let length = self.random.below(bytes.len() as u64 + 1) as usize;
            bytes.truncate(length);
        }
        let jitter = if self.healed { 0 } else { self.faults.jitter.as_micros() as u64 };
        let delay_us = LAN_DELAY_US + self.random.below(LAN_JITTER_US + jitter);
        Delivery { delay_us, bytes }
    }

    fn strikes(&mut self, permille: u64) -> bool {
        // The number is drawn in any case, so that healing does not shift what comes after.
        let drawn = self.random.below(1_000);
        !self.healed && drawn < permille
    }

    /// Notes that the pair has a connection; tells whether it is new.
    pub(crate) fn connect(&mut self, a: usize, b: usize) -> bool {
        self.connected.insert((a.min(b), a.max(b)))
    }

    /// Drops all connections of `node` and returns who had one.
    pub(crate) fn disconnect(&mut self, node: usize) -> Vec<usize> {
        let (gone, kept): (BTreeSet<_>, BTreeSet<_>) =
            core::mem::take(&mut self.connected).into_iter().partition(|&(a, b)| a == node || b == node);
        self.connected = kept;
        gone.into_iter().map(|(a, b)| if a == node { b } else { a }).collect()
    }
}
