//! Rumours: what was just written or learnt, and to whom it is pushed.
//!
//! Each node passes a rumour on when it hears it first, to a few random members, and a bounded number of times in a
//! row; who is missed learns of it by anti-entropy.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::message::Push;
use crate::id::NodeId;
use crate::intent::Entry;
use crate::limits::{BATCH_BYTES_MAX, FANOUT};
use crate::reports::ReportRange;
use crate::seed::Stream;

/// What happens to all rumours of one kind: how often they may still be passed on, and who has them already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    hops: u8,
    heard_from: Option<NodeId>,
    author: NodeId,
}

/// What this turn has to pass on.
#[derive(Clone, Debug)]
pub struct Rumours {
    random: Stream,
    waiting: BTreeMap<Way, (Vec<Entry>, Vec<ReportRange>)>,
}

impl Rumours {
    /// Makes an empty list.
    pub fn new(random: Stream) -> Self {
        Self { random, waiting: BTreeMap::new() }
    }

    /// Adds an entry; `heard_from` is absent for this node's own.
    pub fn entry(&mut self, hops: u8, heard_from: Option<NodeId>, entry: Entry) {
        let author = entry.version.dot.actor.node;
        self.waiting.entry(Way { hops, heard_from, author }).or_default().0.push(entry);
    }

    /// Adds a part of a report; `heard_from` is absent for this node's own.
    pub fn report(&mut self, hops: u8, heard_from: Option<NodeId>, range: ReportRange) {
        let author = range.node;
        self.waiting.entry(Way { hops, heard_from, author }).or_default().1.push(range);
    }

    /// Tells whether there is nothing to pass on.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Returns what to send to whom, of the other members that are up, and forgets it.
    pub fn flush(&mut self, up: &[NodeId]) -> Vec<(NodeId, Push)> {
        let mut sends = Vec::new();
        for (way, (entries, reports)) in core::mem::take(&mut self.waiting) {
            let mut targets = self.random.choose(up, FANOUT + 2);
            targets.retain(|node| Some(*node) != way.heard_from && *node != way.author);
            targets.truncate(FANOUT);
            let pushes = batches(way.hops, entries, reports);
            sends.extend(targets.iter().flat_map(|target| pushes.iter().map(|push| (*target, push.clone()))));
        }
        sends
    }
}

/// Returns how often news may be passed on whole among `nodes` nodes. In a small shoal: enough to reach all of them, and
/// twice more. In a larger one only as often as it hardly ever meets a node that has it; the rest hear of it in short.
pub fn hops(nodes: usize) -> u8 {
    let hops =
        if nodes <= NODES_WHOLE { nodes.checked_ilog2().unwrap_or_default() + 3 } else { nodes.ilog(FANOUT) - 2 };
    u8::try_from(hops.max(1)).unwrap_or(u8::MAX)
}

/// Among so many nodes everything is pushed whole.
const NODES_WHOLE: usize = 8;

/// Cuts what is to be pushed into messages.
fn batches(hops: u8, entries: Vec<Entry>, reports: Vec<ReportRange>) -> Vec<Push> {
    let mut pushes = Vec::new();
    let (mut push, mut used) = (Push { hops, entries: Vec::new(), reports: Vec::new() }, 0);
    let mut make_room = |push: &mut Push, used: &mut usize, weight: usize| {
        if *used > 0 && *used + weight > BATCH_BYTES_MAX {
            pushes.push(core::mem::replace(push, Push { hops, entries: Vec::new(), reports: Vec::new() }));
            *used = 0;
        }
        *used += weight;
    };
    for entry in entries {
        make_room(&mut push, &mut used, entry.weight());
        push.entries.push(entry);
    }
    for range in reports {
        let weight = 96 + range.items.iter().map(crate::reports::item::Item::weight).sum::<usize>();
        make_room(&mut push, &mut used, weight);
        push.reports.push(range);
    }
    pushes.push(push);
    pushes
}
