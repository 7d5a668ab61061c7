//! Reports: what each node says of itself, with that node as the only writer.
//!
//! Input: this node's own changes, and ranges of others' changes by way of any relay. Output: each node's tasks and
//! images. A report is a numbered list of items; a range of numbers applies only where it leaves no gap. A newer
//! edition, such as after a restart of its node, replaces the one before as soon as all of it has come. See `docs/protocol.md#reports`.

pub mod item;
pub mod node;
pub mod task;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use self::item::{Failures, Item, ItemKey};
use self::node::Effect;
pub use self::node::NodeReport;
use self::task::TaskReport;
use crate::id::{Leg, NodeId, ServiceId, TaskId};
use crate::limits::{CLAIM_JUMP_MAX, ERROR_BYTES_MAX, NODES_MAX, TASKS_PER_NODE_MAX};
use crate::plan::addresses::Addresses;
use crate::wire;

/// Which state of one node's report somebody has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Head {
    /// Which of the node's starts.
    pub epoch: u64,
    /// Counts how often the node numbered its report anew in this run.
    pub edition: u32,
    /// The number of the last change in it.
    pub seq: u64,
}

/// The items of one edition of a report that changed last in `after+1..=upto`, in order of number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportRange {
    /// Whose report.
    pub node: NodeId,
    /// The receiver has all up to here.
    pub after: u64,
    /// It will have all up to here.
    pub upto: Head,
    /// What changed.
    pub items: Vec<Item>,
    /// Whether this is all that the sender has of the report.
    pub complete: bool,
    /// Room for the signature of its node; empty so far.
    #[serde(with = "crate::bytes")]
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
    /// Newer editions of which not all has come yet; what they replace counts until then.
    coming: BTreeMap<NodeId, NodeReport>,
    /// Nodes that came up, of which it is not known yet whether they still stand by what they said before.
    doubted: BTreeSet<NodeId>,
    /// The nodes that have said themselves, since they came up, how far their reports go, when that was known here.
    spoken: BTreeSet<NodeId>,
    changes: u64,
    /// As many of the changes as plan and agent depend on.
    answering: u64,
    /// As many of the changes as a rollout may come further by.
    proving: u64,
    /// The tasks that run, of each node that runs any.
    running: BTreeMap<NodeId, Vec<Running>>,
}

/// A task that runs, as far as names are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// Whose it is.
    pub service: ServiceId,
    /// Which replica.
    pub slot: u32,
    /// Which task.
    pub id: TaskId,
    /// Where it answers.
    pub addresses: Addresses,
}

impl Reports {
    /// Makes a plane in which node `own`, in its `epoch`-th run, has reported nothing yet.
    pub fn new(own: NodeId, epoch: u64) -> Self {
        let report = NodeReport::new(Head { epoch, edition: 0, seq: 0 });
        Self {
            own,
            begun: false,
            nodes: BTreeMap::from([(own, report)]),
            coming: BTreeMap::new(),
            doubted: BTreeSet::new(),
            spoken: BTreeSet::new(),
            changes: 0,
            answering: 0,
            proving: 0,
            running: BTreeMap::new(),
        }
    }

    /// Returns what this node said of itself last; a node that has said nothing has no report.
    pub fn of(&self, node: &NodeId) -> Option<&NodeReport> {
        self.nodes.get(node)
    }

    /// Notes that a node has come up: it may have lost everything that it reported before.
    pub fn doubt(&mut self, node: NodeId) {
        if node != self.own {
            self.spoken.remove(&node);
            self.doubted.insert(node);
        }
    }

    /// Notes that a node has said itself how far its report goes: if no further than is known here, it stands by it.
    pub fn confirm(&mut self, node: &NodeId, theirs: Head) {
        if self.head(node) < theirs {
            return;
        }
        self.spoken.insert(*node);
        if self.doubted.remove(node) {
            (self.changes, self.answering, self.proving) = (self.changes + 1, self.answering + 1, self.proving + 1);
        }
    }

    /// Tells whether a node has said something since it came up, or confirmed what it said before. Names may follow an
    /// unconfirmed report for a moment; a task must not be ended because of one.
    pub fn is_confirmed(&self, node: &NodeId) -> bool {
        !self.doubted.contains(node)
    }

    /// Tells whether all was known here that a node had to report when it spoke last, and that was since it came up: more than
    /// [`Self::is_confirmed`], for which what others pass on is enough, whatever they lack.
    pub fn has_spoken(&self, node: &NodeId) -> bool {
        self.spoken.contains(node)
    }

    /// Returns every report, in order of node.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, &NodeReport)> {
        self.nodes.iter()
    }

    /// Returns a number that grows with each change.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Returns a number that grows whenever a task of any node comes to run or runs no longer, or a report that was in
    /// doubt is confirmed.
    pub fn answering(&self) -> u64 {
        self.answering
    }

    /// Returns a number that grows whenever a rollout may have come further, or failed, by what a node reports.
    pub fn proving(&self) -> u64 {
        self.proving
    }

    /// Returns the slots of a service that failed in one direction of a rollout, on any node, up or not, and the task
    /// with the least id of those that failed first on theirs.
    pub fn failures(&self, service: &ServiceId, leg: Leg) -> (BTreeSet<u32>, Option<TaskId>) {
        let told = self.nodes.values().filter_map(|report| report.failures.get(&(*service, leg)));
        let mut all = (BTreeSet::new(), None);
        for failures in told {
            all.0.extend(&failures.slots);
            all.1 = Some(all.1.map_or(failures.task, |task: TaskId| task.min(failures.task)));
        }
        all
    }

    /// Returns the nodes that report tasks that run, in order, with these.
    pub fn running(&self) -> impl Iterator<Item = (&NodeId, &[Running])> {
        self.running.iter().map(|(node, tasks)| (node, tasks.as_slice()))
    }

    /// Returns the state of each report here, in order of node; this node's only once it has begun.
    pub fn heads(&self) -> impl Iterator<Item = (NodeId, Head)> {
        let told = self.nodes.iter().filter(|(node, _)| self.begun || **node != self.own);
        let mut heads: Vec<(NodeId, Head)> = told.map(|(&node, report)| (node, report.head())).collect();
        for (node, report) in &self.coming {
            match heads.binary_search_by_key(node, |(node, _)| *node) {
                Ok(place) => heads[place].1 = report.head(),
                Err(place) => heads.insert(place, (*node, report.head())),
            }
        }
        heads.into_iter()
    }

    /// Returns the state of each report here of the nodes from `first` to `last`, as [`Self::heads`].
    pub fn within(&self, first: NodeId, last: NodeId) -> impl Iterator<Item = (NodeId, Head)> {
        let (nodes, coming) = (self.nodes.range(first..=last), self.coming.range(first..=last));
        let told = nodes.filter(|(node, _)| self.begun || **node != self.own).map(|(node, _)| node);
        let new = coming.map(|(node, _)| node).filter(|node| !self.nodes.contains_key(node));
        told.chain(new).map(|node| (*node, self.head(node)))
    }

    /// Begins to tell others this node's report: it replaces what it said in earlier runs.
    pub fn begin(&mut self) {
        if !self.begun {
            self.begun = true;
            self.own().touch();
            self.changes += 1;
        }
    }

    /// Adds or replaces one task of this node. Does nothing if it has as many as it may have, or if the task had come
    /// further before: it only moves forward, and others take the last change for the truth.
    pub fn report_task(&mut self, mut report: TaskReport) {
        let own = self.own();
        if own.tasks.get(&report.id).is_some_and(|before| before.state > report.state) {
            return;
        }
        if own.tasks.len() >= TASKS_PER_NODE_MAX && !own.tasks.contains_key(&report.id) {
            return;
        }
        cut(&mut report.error, ERROR_BYTES_MAX);
        let effect = own.put(&Item::task(0, report));
        self.count_change(self.own, effect);
    }

    /// Withdraws one task of this node.
    pub fn retract_task(&mut self, id: &TaskId) {
        if let Some(effect) = self.own().withdraw(&ItemKey::Task(*id)) {
            self.count_change(self.own, effect);
        }
    }

    /// Tells which slots failed here in one direction of a rollout; none withdraws what was told.
    pub fn report_failures(&mut self, service: ServiceId, leg: Leg, failures: Option<&Failures>) {
        let key = ItemKey::Failures(service, leg);
        let effect = match failures {
            Some(failures) => Some(self.own().put(&Item::make(0, &key, Some(wire::encode(failures))))),
            None => self.own().withdraw(&key),
        };
        if let Some(effect) = effect {
            self.count_change(self.own, effect);
        }
    }

    /// Replaces this node's images.
    pub fn report_images(&mut self, images: &BTreeSet<String>) {
        if self.own().put_images(images) {
            self.changes += 1;
        }
    }

    /// Numbers this node's report anew if somebody claims to have more of it than there is: this node's disk was
    /// set back, or the other is broken. Tells whether it did.
    pub fn outdo(&mut self, theirs: Head) -> bool {
        let own = self.own();
        let beyond = theirs > own.head() && theirs.epoch.saturating_sub(own.head().epoch) <= CLAIM_JUMP_MAX;
        if beyond {
            own.renew(theirs);
            self.changes += 1;
        }
        beyond
    }

    /// Returns the state of one report here.
    pub fn head(&self, node: &NodeId) -> Head {
        let report = self.coming.get(node).or_else(|| self.nodes.get(node));
        report.map(NodeReport::head).unwrap_or_default()
    }

    /// Returns what somebody with `theirs` lacks of a report, in at most `bytes` bytes (at least one item).
    pub fn range(&self, node: &NodeId, theirs: Head, bytes: usize) -> Option<ReportRange> {
        let told = self.begun || *node != self.own;
        self.nodes.get(node).filter(|_| told)?.range(*node, theirs, bytes)
    }

    /// Takes in a range of another node's report.
    pub fn follow(&mut self, range: &ReportRange) -> Followed {
        let (node, upto) = (range.node, range.upto);
        if node == self.own {
            return Followed::Known;
        }
        let present = self.nodes.get(&node).map(NodeReport::head);
        if present.is_none() && self.nodes.len() + self.coming.len() >= 2 * NODES_MAX {
            return Followed::Refused("more nodes report than a shoal may have");
        }
        if upto.epoch.saturating_sub(present.unwrap_or_default().epoch) > CLAIM_JUMP_MAX {
            return Followed::Refused("a report jumps too far");
        }
        let followed = match self.nodes.get_mut(&node) {
            Some(report) if upto.same_edition(&report.head()) => {
                let (followed, effect) = report.follow(range);
                if followed == Followed::New {
                    self.count_change(node, effect);
                }
                followed
            }
            Some(report) if upto < report.head() => Followed::Known,
            Some(_) | None => self.follow_edition(range),
        };
        if followed == Followed::New && !self.coming.contains_key(&node) {
            self.answering += u64::from(self.doubted.remove(&node));
        }
        followed
    }

    /// Takes in a range of a newer edition than the one that counts; it replaces that once it is complete.
    fn follow_edition(&mut self, range: &ReportRange) -> Followed {
        let (node, upto) = (range.node, range.upto);
        let fresh = match self.coming.get(&node).map(NodeReport::head) {
            Some(coming) if upto.same_edition(&coming) => false,
            Some(coming) if upto < coming => return Followed::Known,
            Some(_) | None if range.after > 0 => return Followed::Gap,
            Some(_) | None => true,
        };
        let mut report = if fresh { NodeReport::new(upto) } else { self.coming[&node].clone() };
        let (followed, _) = report.follow(range);
        if followed != Followed::New {
            return followed;
        }
        if range.complete {
            self.coming.remove(&node);
            self.nodes.insert(node, report);
        } else {
            self.coming.insert(node, report);
        }
        self.count_change(node, Effect { answers: range.complete, proves: range.complete });
        followed
    }

    /// Counts a change of a node's report.
    fn count_change(&mut self, node: NodeId, effect: Effect) {
        self.changes += 1;
        self.proving += u64::from(effect.proves);
        if effect.answers {
            self.answering += 1;
            let running: Vec<Running> = self.nodes.get(&node).into_iter().flat_map(NodeReport::running).collect();
            if running.is_empty() {
                self.running.remove(&node);
            } else {
                self.running.insert(node, running);
            }
        }
    }

    fn own(&mut self) -> &mut NodeReport {
        self.nodes.get_mut(&self.own).expect("this node's report is made with the plane and never removed")
    }
}

impl Head {
    /// Tells whether two states are of one edition, so that their numbers compare.
    pub fn same_edition(&self, other: &Self) -> bool {
        (self.epoch, self.edition) == (other.epoch, other.edition)
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
