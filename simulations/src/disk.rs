//! Disks: what is on them when a node crashes is what it was told to make durable, and nothing else.

/// One node's durable records.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    records: Vec<Vec<u8>>,
    /// Starts of the node, durable before its core is made.
    epoch: u64,
    /// A deliberate bug: appends are forgotten.
    lying: bool,
}

/// Records beyond which a node replaces them by a snapshot, as the real store does.
const COMPACT_ABOVE: usize = 400;

impl Disk {
    /// Returns an empty disk; a lying one says that records are durable and forgets them.
    pub(crate) fn new(lying: bool) -> Self {
        Self { lying, ..Self::default() }
    }

    /// Makes a record durable.
    pub(crate) fn append(&mut self, record: Vec<u8>) {
        if !self.lying {
            self.records.push(record);
        }
    }

    /// Tells whether it is time to compact.
    pub(crate) fn is_long(&self) -> bool {
        self.records.len() > COMPACT_ABOVE
    }

    /// Replaces everything by a snapshot, atomically.
    pub(crate) fn replace(&mut self, records: Vec<Vec<u8>>) {
        if !self.lying {
            self.records = records;
        }
    }

    /// Counts a start, durably, and returns its number.
    pub(crate) fn bump_epoch(&mut self) -> u64 {
        self.epoch += 1;
        self.epoch
    }

    /// Returns what a restart reads.
    pub(crate) fn records(&self) -> Vec<Vec<u8>> {
        self.records.clone()
    }
}
