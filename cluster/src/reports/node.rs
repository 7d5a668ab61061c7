//! One node's report: what it runs and has, and which change made each part what it is.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use super::item::{Body, Item, ItemKey};
use super::task::TaskReport;
use super::{Followed, Head, ReportRange};
use crate::id::{NodeId, TaskId};
use crate::limits::{IMAGE_BYTES_MAX, IMAGES_PER_NODE_MAX, ITEMS_PER_NODE_MAX, TASKS_PER_NODE_MAX};
use crate::wire;

/// What one node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// Its tasks, finished ones that it still remembers included.
    pub tasks: BTreeMap<TaskId, TaskReport>,
    /// The images that it can run, as [`crate::Input::Images`] names them.
    pub images: BTreeSet<String>,
    /// Items of kinds that this code does not know.
    others: BTreeMap<(u16, Vec<u8>), Vec<u8>>,
    head: Head,
    /// The last change of each item, withdrawn ones included, and the items by it.
    seqs: BTreeMap<ItemKey, u64>,
    order: BTreeMap<u64, ItemKey>,
    /// Withdrawals up to this change are forgotten.
    floor: u64,
    /// After a reset: what was here before it and was not confirmed since.
    unconfirmed: BTreeSet<ItemKey>,
}

impl NodeReport {
    /// Makes an empty report of a node's `epoch`-th run.
    pub(super) fn new(epoch: u64) -> Self {
        Self {
            tasks: BTreeMap::new(),
            images: BTreeSet::new(),
            others: BTreeMap::new(),
            head: Head { epoch, seq: 0 },
            seqs: BTreeMap::new(),
            order: BTreeMap::new(),
            floor: 0,
            unconfirmed: BTreeSet::new(),
        }
    }

    /// Returns which run of the node this is of, and the number of its last change.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Makes a change that says nothing.
    pub(super) fn touch(&mut self) {
        self.head.seq += 1;
    }

    /// Adds or replaces an item of this node's own report.
    pub(super) fn put(&mut self, mut item: Item) {
        self.touch();
        item.seq = self.head.seq;
        let (key, body) = item.read().expect("an item of one's own decodes");
        self.set(key, item.seq, body);
    }

    /// Withdraws an item of this node's own report; tells whether it was there.
    pub(super) fn withdraw(&mut self, key: &ItemKey) -> bool {
        if !self.holds(key) {
            return false;
        }
        self.touch();
        self.set(key.clone(), self.head.seq, Body::Withdrawn);
        true
    }

    /// Replaces the images of this node's own report; tells whether they changed.
    pub(super) fn put_images(&mut self, images: &BTreeSet<String>) -> bool {
        let bounded = images.iter().filter(|image| image.len() <= IMAGE_BYTES_MAX);
        let wanted: BTreeSet<String> = bounded.take(IMAGES_PER_NODE_MAX).cloned().collect();
        let gone: Vec<String> = self.images.difference(&wanted).cloned().collect();
        let new: Vec<String> = wanted.difference(&self.images).cloned().collect();
        for digest in &gone {
            self.withdraw(&ItemKey::Image(digest.clone()));
        }
        for digest in &new {
            self.put(Item::make(0, &ItemKey::Image(digest.clone()), Some(Vec::new())));
        }
        !gone.is_empty() || !new.is_empty()
    }

    /// Returns what somebody with `theirs` lacks (see [`super::Reports::range`]).
    pub(super) fn range(&self, node: NodeId, theirs: Head, bytes: usize) -> Option<(ReportRange, bool)> {
        if theirs >= self.head {
            return None;
        }
        let follows = theirs.epoch == self.head.epoch;
        let reset = follows && theirs.seq < self.floor;
        let after = if follows && !reset { theirs.seq } else { 0 };
        let mut range = ReportRange {
            node,
            epoch: self.head.epoch,
            after,
            upto: self.head.seq,
            items: Vec::new(),
            reset,
            signature: Vec::new(),
        };
        let mut used = 0;
        for (&seq, key) in self.order.range(after + 1..) {
            let item = Item::make(seq, key, self.value(key));
            used += item.weight();
            if used > bytes && !range.items.is_empty() {
                range.upto = seq - 1;
                return Some((range, false));
            }
            range.items.push(item);
        }
        Some((range, true))
    }

    /// Takes in a range of this report from its node or a relay.
    pub(super) fn follow(&mut self, range: &ReportRange) -> Followed {
        let items = match check(range) {
            Ok(items) => items,
            Err(reason) => return Followed::Refused(reason),
        };
        let upto = Head { epoch: range.epoch, seq: range.upto };
        if upto <= self.head {
            return Followed::Known;
        }
        if range.epoch > self.head.epoch {
            if range.after > 0 {
                return Followed::Gap;
            }
            *self = Self::new(range.epoch);
        } else if range.after > self.head.seq {
            return Followed::Gap;
        }
        if range.reset {
            self.unconfirmed = self.seqs.keys().cloned().collect();
        }
        for (seq, key, body) in items {
            self.unconfirmed.remove(&key);
            if seq > self.head.seq && self.has_room(&key, &body) {
                self.set(key, seq, body);
            }
        }
        self.head = upto;
        Followed::New
    }

    /// Tells whether an item that is not withdrawn is here.
    fn holds(&self, key: &ItemKey) -> bool {
        match key {
            ItemKey::Task(id) => self.tasks.contains_key(id),
            ItemKey::Image(digest) => self.images.contains(digest),
            ItemKey::Other(kind, key) => self.others.contains_key(&(*kind, key.clone())),
        }
    }

    fn has_room(&self, key: &ItemKey, body: &Body) -> bool {
        self.holds(key)
            || match body {
                Body::Task(_) => self.tasks.len() < TASKS_PER_NODE_MAX,
                Body::Image => self.images.len() < IMAGES_PER_NODE_MAX,
                Body::Other(_) => self.others.len() < IMAGES_PER_NODE_MAX,
                Body::Withdrawn => true,
            }
    }

    /// Returns the encoded value of an item; none if it was withdrawn.
    fn value(&self, key: &ItemKey) -> Option<Vec<u8>> {
        match key {
            ItemKey::Task(id) => self.tasks.get(id).map(wire::encode),
            ItemKey::Image(digest) => self.images.contains(digest).then(Vec::new),
            ItemKey::Other(kind, key) => self.others.get(&(*kind, key.clone())).cloned(),
        }
    }

    fn set(&mut self, key: ItemKey, seq: u64, body: Body) {
        match (&key, body) {
            (ItemKey::Task(id), Body::Task(mut report)) => {
                // A task only moves forward, whatever order its node's reports were made in.
                if let Some(before) = self.tasks.remove(id)
                    && before.state > report.state
                {
                    report = before;
                }
                self.tasks.insert(*id, report);
            }
            (ItemKey::Task(id), Body::Withdrawn) => drop(self.tasks.remove(id)),
            (ItemKey::Image(digest), Body::Image) => drop(self.images.insert(digest.clone())),
            (ItemKey::Image(digest), Body::Withdrawn) => drop(self.images.remove(digest)),
            (ItemKey::Other(kind, name), Body::Other(value)) => {
                self.others.insert((*kind, name.clone()), value);
            }
            (ItemKey::Other(kind, name), Body::Withdrawn) => drop(self.others.remove(&(*kind, name.clone()))),
            (ItemKey::Task(_) | ItemKey::Image(_) | ItemKey::Other(..), _) => {
                debug_assert!(false, "a body is of its key's kind");
            }
        }
        if let Some(before) = self.seqs.insert(key.clone(), seq) {
            self.order.remove(&before);
        }
        self.order.insert(seq, key);
        self.forget();
    }

    /// Forgets the oldest withdrawals if there are too many items.
    fn forget(&mut self) {
        while self.order.len() > ITEMS_PER_NODE_MAX {
            let withdrawn = self.order.iter().find(|(_, key)| !self.holds(key));
            let Some((&seq, key)) = withdrawn else { return };
            let key = key.clone();
            self.order.remove(&seq);
            self.seqs.remove(&key);
            self.floor = self.floor.max(seq);
        }
    }
}

/// Reads the items of a range, which must ascend and lie in it.
fn check(range: &ReportRange) -> Result<Vec<(u64, ItemKey, Body)>, &'static str> {
    let mut last = range.after;
    let mut items = Vec::with_capacity(range.items.len());
    for item in &range.items {
        if item.seq <= last || item.seq > range.upto {
            return Err("a report's items are out of order");
        }
        last = item.seq;
        let (key, body) = item.read()?;
        items.push((item.seq, key, body));
    }
    Ok(items)
}
