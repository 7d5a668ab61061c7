//! Disks: what is on them when a node crashes is what they said was durable, a part of what was being written, and
//! nothing else.
//!
//! As in the real store, records are appended in batches, and a batch is durable once its sync returned. Whole records
//! of a batch whose sync did not return may be there at the next start; half a record is recognised and dropped.

use shoal_cluster::seed::Stream;

/// One node's durable records.
#[derive(Debug)]
pub(crate) struct Disk {
    records: Vec<Vec<u8>>,
    /// How many records the last snapshot had.
    snapshot: usize,
    /// Starts of the node since its disk was lost, durable before its core is made.
    epoch: u64,
    /// Starts of the node, whatever became of its disk.
    starts: u64,
    /// A deliberate bug: appends are forgotten.
    lying: bool,
    /// Records beyond twice the last snapshot's at which a node replaces all by another, as the real store does.
    compact_above: usize,
    /// Takes nothing more until then, in microseconds of virtual time.
    pub(crate) full_until_us: u64,
    /// The next sync fails.
    pub(crate) sync_fails: bool,
    random: Stream,
}

/// The disk failed: the daemon must stop, because nobody knows what is on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DiskFailed;

impl Disk {
    /// Returns an empty disk; a lying one says that records are durable and forgets them.
    pub(crate) fn new(lying: bool, compact_above: usize, random: Stream) -> Self {
        Self {
            records: Vec::new(),
            snapshot: 0,
            epoch: 0,
            starts: 0,
            lying,
            compact_above,
            full_until_us: 0,
            sync_fails: false,
            random,
        }
    }

    /// Makes a batch of records durable.
    pub(crate) fn append(&mut self, at_us: u64, batch: Vec<Vec<u8>>) -> Result<(), DiskFailed> {
        if at_us < self.full_until_us {
            return Err(DiskFailed);
        }
        if self.sync_fails {
            self.sync_fails = false;
            self.tear(batch);
            return Err(DiskFailed);
        }
        if !self.lying {
            self.records.extend(batch);
        }
        Ok(())
    }

    /// Takes a part of a batch: the node crashed while it was written.
    pub(crate) fn tear(&mut self, mut batch: Vec<Vec<u8>>) {
        let kept = self.random.below(batch.len() as u64 + 1) as usize;
        batch.truncate(kept);
        if !self.lying {
            self.records.extend(batch);
        }
    }

    /// Tells whether it is time to compact.
    pub(crate) fn is_long(&self) -> bool {
        self.records.len() > 2 * self.snapshot + self.compact_above
    }

    /// Replaces everything by a snapshot, atomically.
    pub(crate) fn replace(&mut self, records: Vec<Vec<u8>>) {
        if !self.lying {
            self.snapshot = records.len();
            self.records = records;
        }
    }

    /// Counts a start, durably, and returns its number.
    pub(crate) fn bump_epoch(&mut self, at_us: u64) -> Result<u64, DiskFailed> {
        if at_us < self.full_until_us {
            return Err(DiskFailed);
        }
        self.epoch += 1;
        self.starts += 1;
        Ok(self.epoch)
    }

    /// Loses everything, the count of starts included: the core must find an epoch that it never had by itself.
    pub(crate) fn lose(&mut self) {
        self.records.clear();
        (self.snapshot, self.epoch) = (0, 0);
    }

    /// Ends what ails it.
    pub(crate) fn heal(&mut self) {
        (self.full_until_us, self.sync_fails) = (0, false);
    }

    /// Returns what a restart reads.
    pub(crate) fn records(&self) -> &[Vec<u8>] {
        &self.records
    }

    /// Returns how often the node was started, which it may not know itself.
    pub(crate) fn starts(&self) -> u64 {
        self.starts
    }
}
