//! Reports: what each node says of itself, with that node as the only writer.
//!
//! Input: this node's own changes, and ranges of others' changes by way of any relay. Output: each node's tasks and
//! images. A report is a numbered list of items; a range of numbers applies only where it leaves no gap. A greater
//! epoch, which is a restart of its node, replaces all. See `docs/protocol.md#reports`.

pub mod item;
pub mod node;
pub mod task;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use self::item::{Item, ItemKey};
pub use self::node::NodeReport;
use self::task::TaskReport;
use crate::id::{NodeId, TaskId};
use crate::limits::{ERROR_BYTES_MAX, NODES_MAX, TASKS_PER_NODE_MAX};

/// Which state of one node's report somebody has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Head {
    /// Which of the node's starts.
    pub epoch: u64,
    /// The number of the last change in it.
    pub seq: u64,
}

/// The items of one report that changed last in `after+1..=upto`, in order of number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportRange {
    /// Whose report.
    pub node: NodeId,
    /// Which of its starts.
    pub epoch: u64,
    /// The receiver has all up to here.
    pub after: u64,
    /// It will have all up to here.
    pub upto: u64,
    /// What changed.
    pub items: Vec<Item>,
    /// Whether the receiver must drop what it has that is not confirmed by the ranges from this one on: the
    /// sender no longer knows what was withdrawn since `after`. Only with `after` 0.
    pub reset: bool,
    /// Room for the signature of its node; empty so far.
    pub signature: Vec<u8>,
}

/// What became of a range from another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    /// It was news: pass it on.
    New,
    /// It was known, or replaced already.
    Known,
    /// Changes before it are missing: ask for them.
    Gap,
    /// It was not taken, with the reason. Nothing was changed.
    Refused(&'static str),
}

/// The reports plane of one node.
#[derive(Clone, Debug)]
pub struct Reports {
    own: NodeId,
    /// Whether this node's report is told to others.
    begun: bool,
    nodes: BTreeMap<NodeId, NodeReport>,
    changes: u64,
}

impl Reports {
    /// Makes a plane in which node `own`, in its `epoch`-th run, has reported nothing yet.
    pub fn new(own: NodeId, epoch: u64) -> Self {
        Self { own, begun: false, nodes: BTreeMap::from([(own, NodeReport::new(epoch))]), changes: 0 }
    }

    /// Returns what this node said of itself last; a node that has said nothing has no report.
    pub fn of(&self, node: &NodeId) -> Option<&NodeReport> {
        self.nodes.get(node)
    }

    /// Returns every report, in order of node.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, &NodeReport)> {
        self.nodes.iter()
    }

    /// Returns a number that grows with each change.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Returns the state of each report here, in order of node; this node's only once it has begun.
    pub fn heads(&self) -> impl Iterator<Item = (NodeId, Head)> {
        let told = self.nodes.iter().filter(|(node, _)| self.begun || **node != self.own);
        told.map(|(&node, report)| (node, report.head()))
    }

    /// Begins to tell others this node's report: it replaces what it said in earlier runs.
    pub fn begin(&mut self) {
        if !self.begun {
            self.begun = true;
            self.own().touch();
            self.changes += 1;
        }
    }

    /// Adds or replaces one task of this node. Does nothing if it has as many as it may have.
    pub fn report_task(&mut self, mut report: TaskReport) {
        let own = self.own();
        if own.tasks.len() >= TASKS_PER_NODE_MAX && !own.tasks.contains_key(&report.id) {
            return;
        }
        cut(&mut report.error, ERROR_BYTES_MAX);
        own.put(Item::task(0, report));
        self.changes += 1;
    }

    /// Withdraws one task of this node.
    pub fn retract_task(&mut self, id: &TaskId) {
        if self.own().withdraw(&ItemKey::Task(*id)) {
            self.changes += 1;
        }
    }

    /// Replaces this node's images.
    pub fn report_images(&mut self, images: &BTreeSet<String>) {
        if self.own().put_images(images) {
            self.changes += 1;
        }
    }

    /// Returns what somebody with `theirs` lacks of a report, in at most `bytes` bytes (at least one item), and
    /// whether that is all.
    pub fn range(&self, node: &NodeId, theirs: Head, bytes: usize) -> Option<(ReportRange, bool)> {
        let told = self.begun || *node != self.own;
        self.nodes.get(node).filter(|_| told)?.range(*node, theirs, bytes)
    }

    /// Takes in a range of another node's report.
    pub fn follow(&mut self, range: &ReportRange) -> Followed {
        if range.node == self.own {
            return Followed::Known;
        }
        if self.nodes.len() >= NODES_MAX && !self.nodes.contains_key(&range.node) {
            return Followed::Refused("more nodes report than a shoal may have");
        }
        let followed = match self.nodes.get_mut(&range.node) {
            Some(report) => report.follow(range),
            None => {
                let mut report = NodeReport::new(range.epoch);
                let followed = report.follow(range);
                if followed == Followed::New {
                    self.nodes.insert(range.node, report);
                }
                followed
            }
        };
        if followed == Followed::New {
            self.changes += 1;
        }
        followed
    }

    fn own(&mut self) -> &mut NodeReport {
        self.nodes.get_mut(&self.own).expect("this node's report is made with the plane and never removed")
    }
}

/// Cuts a text to at most `bytes` bytes, between two characters.
fn cut(text: &mut String, bytes: usize) {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}
