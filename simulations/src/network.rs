//! The network: what becomes of a message between two nodes, and who has a connection to whom.

use std::collections::BTreeSet;

use shoal_cluster::seed::Stream;

use crate::options::{Fault, Options};

/// Shortest delay between two nodes, in microseconds.
const LAN_DELAY_US: u64 = 200;
/// How much the LAN alone adds to it.
const LAN_JITTER_US: u64 = 800;
/// What [`Fault::Delay`] adds to every message.
const FAR_DELAY_US: u64 = 40_000;
/// What [`Fault::Reorder`] adds to it at most.
const REORDER_US: u64 = 80_000;
/// Messages lost, doubled and cut short, per thousand, if they are at all.
const LOSS_PERMILLE: u64 = 50;
const DUPLICATE_PERMILLE: u64 = 30;
const TRUNCATE_PERMILLE: u64 = 5;

/// The state of all links.
#[derive(Debug)]
pub(crate) struct Network {
    random: Stream,
    loss: u64,
    duplicate: u64,
    truncate: u64,
    delay_us: u64,
    jitter_us: u64,
    /// Nodes on the other side of the split, if there is one.
    split: BTreeSet<usize>,
    /// Directions that carry nothing.
    cut: BTreeSet<(usize, usize)>,
    /// For each node, with whom it has exchanged a message since both started.
    connected: Vec<BTreeSet<usize>>,
    /// Messages and bytes handed in.
    pub(crate) sent: (u64, u64),
    /// Messages that the faults ate, doubled and cut short.
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) truncated: u64,
}

/// One copy of a message under way.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) delay_us: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Network {
    pub(crate) fn new(options: &Options) -> Self {
        let only = |fault, value| if options.has(fault) { value } else { 0 };
        Self {
            random: options.stream("network"),
            loss: only(Fault::Loss, LOSS_PERMILLE),
            duplicate: only(Fault::Duplicate, DUPLICATE_PERMILLE),
            truncate: only(Fault::Truncate, TRUNCATE_PERMILLE),
            delay_us: LAN_DELAY_US + only(Fault::Delay, FAR_DELAY_US),
            jitter_us: LAN_JITTER_US + only(Fault::Reorder, REORDER_US),
            split: BTreeSet::new(),
            cut: BTreeSet::new(),
            connected: vec![BTreeSet::new(); options.nodes],
            sent: (0, 0),
            lost: 0,
            doubled: 0,
            truncated: 0,
        }
    }

    /// Makes room for one more node.
    pub(crate) fn admit(&mut self) {
        self.connected.push(BTreeSet::new());
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
        (self.loss, self.duplicate, self.truncate) = (0, 0, 0);
        (self.delay_us, self.jitter_us) = (LAN_DELAY_US, LAN_JITTER_US);
    }

    /// Tells whether messages can pass at all.
    pub(crate) fn passes(&self, from: usize, to: usize) -> bool {
        self.split.contains(&from) == self.split.contains(&to) && !self.cut.contains(&(from, to))
    }

    /// Returns the copies of this message that will arrive: none, one or two.
    pub(crate) fn carry(&mut self, from: usize, to: usize, bytes: Vec<u8>) -> [Option<Delivery>; 2] {
        self.sent = (self.sent.0 + 1, self.sent.1 + bytes.len() as u64);
        if !self.passes(from, to) || self.strikes(self.loss) {
            self.lost += 1;
            return [None, None];
        }
        let twin = self.strikes(self.duplicate).then(|| bytes.clone());
        self.doubled += u64::from(twin.is_some());
        [Some(self.copy(bytes)), twin.map(|bytes| self.copy(bytes))]
    }

    fn copy(&mut self, mut bytes: Vec<u8>) -> Delivery {
        if self.strikes(self.truncate) {
            let length = self.random.below(bytes.len() as u64 + 1) as usize;
            bytes.truncate(length);
            self.truncated += 1;
        }
        let delay_us = self.delay_us + self.random.below(self.jitter_us);
        Delivery { delay_us, bytes }
    }

    fn strikes(&mut self, permille: u64) -> bool {
        permille > 0 && self.random.below(1_000) < permille
    }

    /// Notes that the pair has a connection; tells whether it is new.
    pub(crate) fn connect(&mut self, a: usize, b: usize) -> bool {
        self.connected[b].insert(a);
        self.connected[a].insert(b)
    }

    /// Tells whether the pair has a connection.
    pub(crate) fn connected(&self, a: usize, b: usize) -> bool {
        self.connected[a].contains(&b)
    }

    /// Drops all connections of `node` and returns who had one.
    pub(crate) fn disconnect(&mut self, node: usize) -> Vec<usize> {
        let peers: Vec<usize> = std::mem::take(&mut self.connected[node]).into_iter().collect();
        for peer in &peers {
            self.connected[*peer].remove(&node);
        }
        peers
    }
}
