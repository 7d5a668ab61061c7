//! Telling: which news this node has yet to tell its neighbours of in short, when, and who the neighbours are.
//!
//! Input: what was learnt or written, and who has it anyway. Output: a set of subjects now and then. Neighbours are those
//! after a node on several rings, each with all members in an order of its own: everybody is told by as many as it tells,
//! and no two are far apart. See `docs/protocol.md#sync`.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use super::news::Subject;
use crate::clock::Instant;
use crate::hash;
use crate::id::NodeId;

/// Rings, and so neighbours in a large shoal.
const RINGS: u64 = 3;
/// Members that are remembered to have a piece of news.
const HAVE_MAX: usize = 8;
/// The time between two tellings grows by one interval for each so many others: there is more news the more there are, and
/// to gather more lines in a message saves most where there are most.
const OTHERS_PER_INTERVAL: u32 = 2_000;

/// What one node has yet to tell.
#[derive(Clone, Debug)]
pub struct Telling {
    interval: Duration,
    /// News, and who has it.
    fresh: BTreeMap<Subject, Vec<NodeId>>,
    /// When to tell it at the earliest.
    next: Instant,
    /// This node's neighbours, and the standing of the members for which they are.
    neighbours: (u64, Vec<NodeId>),
}

impl Telling {
    /// Makes one with nothing to tell.
    pub fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, fresh: BTreeMap::new(), next: now, neighbours: (0, Vec::new()) }
    }

    /// Takes in that something was written or learnt, and who has it.
    pub fn learnt(&mut self, subject: Subject, have: Vec<NodeId>) {
        self.fresh.insert(subject, have);
    }

    /// Takes in that somebody else has it too.
    pub fn has(&mut self, subject: &Subject, member: NodeId) {
        if let Some(have) = self.fresh.get_mut(subject).filter(|have| have.len() < HAVE_MAX) {
            have.push(member);
        }
    }

    /// Tells whether there is news of this.
    pub fn is_fresh(&self, subject: &Subject) -> bool {
        self.fresh.contains_key(subject)
    }

    /// Returns the news, each with those who have it, if it is time to tell it to `others` others.
    pub fn take(&mut self, now: Instant, others: usize) -> BTreeMap<Subject, Vec<NodeId>> {
        if now < self.next || self.fresh.is_empty() {
            return BTreeMap::new();
        }
        let others = u32::try_from(others).unwrap_or(u32::MAX);
        self.next = now + self.interval + self.interval.saturating_mul(others) / OTHERS_PER_INTERVAL;
        core::mem::take(&mut self.fresh)
    }

    /// Returns when [`Self::take`] has something to say.
    pub fn deadline(&self) -> Option<Instant> {
        (!self.fresh.is_empty()).then_some(self.next)
    }

    /// Returns whom to tell; `standing` is a number that changes whenever `others`, in order, do.
    pub fn neighbours(&mut self, own: NodeId, standing: u64, others: &[NodeId]) -> &[NodeId] {
        if self.neighbours.0 != standing {
            let mut found: Vec<NodeId> = (0..RINGS).filter_map(|ring| after(ring, own, others)).collect();
            found.sort_unstable();
            found.dedup();
            self.neighbours = (standing, found);
        }
        &self.neighbours.1
    }
}

/// Returns who comes after a node on one ring.
fn after(ring: u64, own: NodeId, others: &[NodeId]) -> Option<NodeId> {
    let place = |node: &NodeId| (hash::quick(core::iter::once(ring).chain(node.words())), *node);
    let own = place(&own);
    let ahead = |node: &NodeId| {
        let place = place(node);
        (place < own, place)
    };
    others.iter().copied().min_by_key(ahead)
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use super::*;
    use crate::sync::news::Short;

    fn nodes(count: u32) -> Vec<NodeId> {
        let node = |number: u32| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            NodeId(bytes)
        };
        (0..count).map(node).collect()
    }

    fn neighbours(own: NodeId, all: &[NodeId]) -> Vec<NodeId> {
        let others: Vec<NodeId> = all.iter().copied().filter(|node| *node != own).collect();
        Telling::new(Duration::ZERO, Instant::default()).neighbours(own, 1, &others).to_vec()
    }

    #[test]
    fn everybody_is_told_by_as_many_as_it_tells_and_all_are_reached_within_few_steps() {
        let all = nodes(1_000);
        let mut told: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
        for own in &all {
            for neighbour in neighbours(*own, &all) {
                assert_ne!(neighbour, *own);
                told.entry(neighbour).or_default().push(*own);
            }
        }
        assert!(told.values().all(|by| by.len() <= RINGS as usize));
        assert!(told.values().filter(|by| by.len() == RINGS as usize).count() > 980, "rings hardly ever coincide");
        let mut reached: BTreeSet<NodeId> = BTreeSet::from([all[0]]);
        let mut steps = 0;
        while reached.len() < all.len() {
            reached = reached.iter().flat_map(|node| neighbours(*node, &all)).chain(reached.iter().copied()).collect();
            steps += 1;
        }
        assert!(steps <= 12, "{steps}");
    }

    #[test]
    fn in_a_small_shoal_everybody_is_reached_too() {
        for count in 1..12 {
            let all = nodes(count);
            let mut reached: BTreeSet<NodeId> = BTreeSet::from([all[0]]);
            for _ in 0..count {
                reached =
                    reached.iter().flat_map(|node| neighbours(*node, &all)).chain(reached.iter().copied()).collect();
            }
            assert_eq!(reached.len(), all.len());
        }
    }

    #[test]
    fn the_first_news_after_a_pause_is_told_at_once_and_what_follows_is_gathered() {
        let subject = |number: u8| Subject::Report(Short([number; 8]));
        let at = |millis: u64| Instant::from_micros(millis * 1_000);
        let mut telling = Telling::new(Duration::from_millis(100), at(0));
        assert_eq!(telling.deadline(), None);
        telling.learnt(subject(1), Vec::new());
        assert_eq!(telling.take(at(5), 0).len(), 1);
        telling.learnt(subject(2), Vec::new());
        telling.learnt(subject(3), Vec::new());
        assert_eq!((telling.deadline(), telling.take(at(104), 10).len()), (Some(at(105)), 0));
        assert_eq!(telling.take(at(105), 1_000).len(), 2);
        telling.learnt(subject(1), Vec::new());
        assert_eq!(telling.deadline(), Some(at(255)), "it takes longer among many");
    }

    #[test]
    fn who_has_an_older_state_is_told_of_the_newer_one() {
        let (subject, one, two) = (Subject::Report(Short([1; 8])), NodeId([1; 32]), NodeId([2; 32]));
        let mut telling = Telling::new(Duration::ZERO, Instant::default());
        telling.learnt(subject, alloc::vec![one]);
        telling.learnt(subject, Vec::new());
        telling.has(&subject, two);
        assert_eq!(telling.take(Instant::default(), 2)[&subject], [two]);
    }
}
