//! One node's report: what it runs and has, and which change made each part what it is.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use super::item::{Body, Failures, Item, ItemKey};
use super::task::{TaskReport, TaskState};
use super::{Followed, Head, ReportRange, Running};
use crate::id::{Leg, NodeId, ServiceId, TaskId};
use crate::limits::{CLAIM_JUMP_MAX, IMAGE_BYTES_MAX, IMAGES_PER_NODE_MAX, ITEMS_PER_NODE_MAX, TASKS_PER_NODE_MAX};
use crate::wire;

/// What one node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// Its tasks, finished ones that it still remembers included.
    pub tasks: BTreeMap<TaskId, TaskReport>,
    /// The images that it can run, as [`crate::Input::Images`] names them.
    pub images: BTreeSet<String>,
    /// The slots that failed in rollouts.
    pub failures: BTreeMap<(ServiceId, Leg), Failures>,
    /// Items of kinds that this code does not know.
    others: BTreeMap<(u16, Vec<u8>), Vec<u8>>,
    head: Head,
    /// The last change of each item, withdrawn ones included, and the items by it.
    seqs: BTreeMap<ItemKey, u64>,
    order: BTreeMap<u64, ItemKey>,
}

impl NodeReport {
    /// Makes an empty report.
    pub(super) fn new(head: Head) -> Self {
        Self {
            tasks: BTreeMap::new(),
            images: BTreeSet::new(),
            failures: BTreeMap::new(),
            others: BTreeMap::new(),
            head: Head { seq: 0, ..head },
            seqs: BTreeMap::new(),
            order: BTreeMap::new(),
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
    pub(super) fn put(&mut self, item: &Item) -> Effect {
        self.touch();
        let (key, body) = item.read().expect("an item of one's own decodes");
        let effect = self.set(key, self.head.seq, body);
        self.forget();
        effect
    }

    /// Withdraws an item of this node's own report; none if it was not there.
    pub(super) fn withdraw(&mut self, key: &ItemKey) -> Option<Effect> {
        if !self.holds(key) {
            return None;
        }
        self.touch();
        let effect = self.set(key.clone(), self.head.seq, Body::Withdrawn);
        self.forget();
        Some(effect)
    }

    /// Replaces the images of this node's own report; tells whether they changed.
    pub(super) fn put_images(&mut self, images: &BTreeSet<String>) -> bool {
        let bounded = images.iter().filter(|image| image.len() <= IMAGE_BYTES_MAX);
        let wanted: BTreeSet<String> = bounded.take(IMAGES_PER_NODE_MAX).cloned().collect();
        let gone: Vec<String> = self.images.difference(&wanted).cloned().collect();
        let new: Vec<String> = wanted.difference(&self.images).cloned().collect();
        for image in &gone {
            self.withdraw(&ItemKey::Image(image.clone()));
        }
        for image in &new {
            self.put(&Item::make(0, &ItemKey::Image(image.clone()), Some(Vec::new())));
        }
        !gone.is_empty() || !new.is_empty()
    }

    /// Numbers this node's own report anew, as an edition that replaces every one before and the one at `beyond`.
    pub(super) fn renew(&mut self, beyond: Head) {
        let last = self.head.max(beyond);
        let head = match last.edition.checked_add(1) {
            Some(edition) => Head { edition, seq: 0, ..last },
            None => Head { epoch: last.epoch.saturating_add(1), edition: 0, seq: 0 },
        };
        let keys: Vec<ItemKey> = self.order.values().filter(|key| self.holds(key)).cloned().collect();
        (self.seqs, self.order) = (BTreeMap::new(), BTreeMap::new());
        self.head = head;
        for key in keys {
            self.touch();
            self.seqs.insert(key.clone(), self.head.seq);
            self.order.insert(self.head.seq, key);
        }
        self.touch();
    }

    /// Begins a new edition without the withdrawn items if there are too many of them to remember.
    fn forget(&mut self) {
        if self.order.len() > ITEMS_PER_NODE_MAX {
            self.renew(self.head);
        }
    }

    /// Returns what somebody with `theirs` lacks (see [`super::Reports::range`]).
    pub(super) fn range(&self, node: NodeId, theirs: Head, bytes: usize) -> Option<ReportRange> {
        if theirs >= self.head {
            return None;
        }
        let after = if theirs.same_edition(&self.head) { theirs.seq } else { 0 };
        let mut range =
            ReportRange { node, after, upto: self.head, items: Vec::new(), complete: true, signature: Vec::new() };
        let mut used = 0;
        for (&seq, key) in self.order.range(after + 1..) {
            let item = Item::make(seq, key, self.value(key));
            used += item.weight();
            if used > bytes && !range.items.is_empty() {
                range.upto.seq = seq - 1;
                range.complete = false;
                return Some(range);
            }
            range.items.push(item);
        }
        Some(range)
    }

    /// Takes in a range of this edition from its node or a relay.
    pub(super) fn follow(&mut self, range: &ReportRange) -> (Followed, Effect) {
        let none = Effect::default();
        debug_assert!(range.upto.same_edition(&self.head), "the plane picks the edition");
        if range.upto <= self.head {
            return (Followed::Known, none);
        }
        if range.after > self.head.seq {
            return (Followed::Gap, none);
        }
        if range.upto.seq - self.head.seq > CLAIM_JUMP_MAX {
            return (Followed::Refused("a report jumps too far"), none);
        }
        let items = match check(range) {
            Ok(items) => items,
            Err(reason) => return (Followed::Refused(reason), none),
        };
        if self.order.len() + items.len() > 2 * ITEMS_PER_NODE_MAX {
            return (Followed::Refused("a report has too many items"), none);
        }
        let mut effect = Effect::default();
        for (seq, key, body) in items {
            if seq > self.head.seq && self.has_room(&key, &body) {
                effect.add(self.set(key, seq, body));
            }
        }
        self.head = range.upto;
        (Followed::New, effect)
    }

    /// Tells whether an item that is not withdrawn is here.
    fn holds(&self, key: &ItemKey) -> bool {
        match key {
            ItemKey::Task(id) => self.tasks.contains_key(id),
            ItemKey::Image(image) => self.images.contains(image),
            ItemKey::Failures(service, leg) => self.failures.contains_key(&(*service, *leg)),
            ItemKey::Other(kind, key) => self.others.contains_key(&(*kind, key.clone())),
        }
    }

    fn has_room(&self, key: &ItemKey, body: &Body) -> bool {
        self.holds(key)
            || match body {
                Body::Task(_) => self.tasks.len() < TASKS_PER_NODE_MAX,
                Body::Image => self.images.len() < IMAGES_PER_NODE_MAX,
                Body::Failures(_) => self.failures.len() < IMAGES_PER_NODE_MAX,
                Body::Other(_) => self.others.len() < IMAGES_PER_NODE_MAX,
                Body::Withdrawn => true,
            }
    }

    /// Returns the encoded value of an item; none if it was withdrawn.
    fn value(&self, key: &ItemKey) -> Option<Vec<u8>> {
        match key {
            ItemKey::Task(id) => self.tasks.get(id).map(wire::encode),
            ItemKey::Image(image) => self.images.contains(image).then(Vec::new),
            ItemKey::Failures(service, leg) => self.failures.get(&(*service, *leg)).map(wire::encode),
            ItemKey::Other(kind, key) => self.others.get(&(*kind, key.clone())).cloned(),
        }
    }

    /// Puts an item at its place, and tells what follows.
    fn set(&mut self, key: ItemKey, seq: u64, body: Body) -> Effect {
        let before = (self.answer(&key), self.proof(&key));
        match (&key, body) {
            (ItemKey::Task(id), Body::Task(report)) => drop(self.tasks.insert(*id, report)),
            (ItemKey::Task(id), Body::Withdrawn) => drop(self.tasks.remove(id)),
            (ItemKey::Image(image), Body::Image) => drop(self.images.insert(image.clone())),
            (ItemKey::Image(image), Body::Withdrawn) => drop(self.images.remove(image)),
            (ItemKey::Failures(service, leg), Body::Failures(failures)) => {
                self.failures.insert((*service, *leg), failures);
            }
            (ItemKey::Failures(service, leg), Body::Withdrawn) => drop(self.failures.remove(&(*service, *leg))),
            (ItemKey::Other(kind, name), Body::Other(value)) => {
                self.others.insert((*kind, name.clone()), value);
            }
            (ItemKey::Other(kind, name), Body::Withdrawn) => drop(self.others.remove(&(*kind, name.clone()))),
            (ItemKey::Task(_) | ItemKey::Image(_) | ItemKey::Failures(..) | ItemKey::Other(..), _) => {
                debug_assert!(false, "a body is of its key's kind");
            }
        }
        let effect = Effect { answers: self.answer(&key) != before.0, proves: self.proof(&key) != before.1 };
        if let Some(before) = self.seqs.insert(key.clone(), seq) {
            self.order.remove(&before);
        }
        self.order.insert(seq, key);
        effect
    }

    /// Returns its tasks that run.
    pub(super) fn running(&self) -> impl Iterator<Item = Running> {
        self.tasks.values().filter_map(running)
    }

    /// Returns what a rollout can see in an item, its running apart.
    fn proof(&self, key: &ItemKey) -> Option<Proof> {
        match key {
            ItemKey::Task(id) => self.tasks.get(id).and_then(proof),
            ItemKey::Failures(service, leg) => {
                self.failures.get(&(*service, *leg)).map(|failures| Proof::Failed(failures.slots.len()))
            }
            ItemKey::Image(_) | ItemKey::Other(..) => None,
        }
    }

    /// Returns what names can say of an item.
    fn answer(&self, key: &ItemKey) -> Option<Running> {
        let ItemKey::Task(id) = key else { return None };
        self.tasks.get(id).and_then(running)
    }
}

/// What a change of a report means to others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Effect {
    /// Whether a task came to run, or runs no longer.
    pub(super) answers: bool,
    /// Whether a rollout may have come further.
    pub(super) proves: bool,
}

impl Effect {
    fn add(&mut self, other: Self) {
        self.answers |= other.answers;
        self.proves |= other.proves;
    }
}

/// What a rollout can see in an item.
#[derive(PartialEq, Eq)]
enum Proof {
    /// A task has run for long enough.
    Stable,
    /// A task has done its work.
    Complete,
    /// So many slots have failed.
    Failed(usize),
}

fn proof(task: &TaskReport) -> Option<Proof> {
    match task.state {
        TaskState::Running if task.stable => Some(Proof::Stable),
        TaskState::Complete => Some(Proof::Complete),
        TaskState::Accepted
        | TaskState::Preparing
        | TaskState::Starting
        | TaskState::Running
        | TaskState::Stopping
        | TaskState::Failed
        | TaskState::Shutdown => None,
    }
}

fn running(task: &TaskReport) -> Option<Running> {
    let TaskReport { id, service, slot, addresses, state, .. } = *task;
    (state == TaskState::Running).then_some(Running { service, slot, id, addresses })
}

/// Reads the items of a range, which must ascend and lie in it.
fn check(range: &ReportRange) -> Result<Vec<(u64, ItemKey, Body)>, &'static str> {
    let mut last = range.after;
    let mut items = Vec::with_capacity(range.items.len());
    for item in &range.items {
        if item.seq <= last || item.seq > range.upto.seq {
            return Err("a report's items are out of order");
        }
        last = item.seq;
        let (key, body) = item.read()?;
        items.push((item.seq, key, body));
    }
    Ok(items)
}
