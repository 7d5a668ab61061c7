//! The roster: which other members are up, in order of id, as a ring on which each node watches those after it.
//!
//! Input: who came up and who is gone. Output: random choices in constant time each, and this node's neighbours.

use alloc::vec::Vec;

use crate::id::NodeId;
use crate::seed::Stream;

/// The others that are up, in order of id.
#[derive(Clone, Debug, Default)]
pub(super) struct Roster(Vec<NodeId>);

impl Roster {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn contains(&self, id: &NodeId) -> bool {
        self.0.binary_search(id).is_ok()
    }

    pub(super) fn insert(&mut self, id: NodeId) {
        if let Err(place) = self.0.binary_search(&id) {
            self.0.insert(place, id);
        }
    }

    pub(super) fn remove(&mut self, id: &NodeId) {
        if let Ok(place) = self.0.binary_search(id) {
            self.0.remove(place);
        }
    }

    /// Returns all, in order.
    pub(super) fn all(&self) -> &[NodeId] {
        &self.0
    }

    /// Returns up to `count` random members, but not `except`.
    pub(super) fn choose(&self, random: &mut Stream, count: usize, except: Option<NodeId>) -> Vec<NodeId> {
        let mut chosen = random.choose(&self.0, count + usize::from(except.is_some()));
        chosen.retain(|id| Some(*id) != except);
        chosen.truncate(count);
        chosen
    }

    /// Returns the `nth` member, from 0, after `own` on the ring of ids.
    pub(super) fn neighbour(&self, own: &NodeId, nth: usize) -> Option<NodeId> {
        let after = self.0.binary_search(own).map_or_else(|place| place, |place| place + 1);
        let place = (after + nth).checked_rem(self.0.len())?;
        self.0.get(place).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    #[test]
    fn neighbours_are_those_after_a_node_around_the_ring() {
        let mut roster = Roster::default();
        assert_eq!(roster.neighbour(&id(5), 0), None);
        for number in [9, 1, 7, 1] {
            roster.insert(id(number));
        }
        let ring: Vec<_> = (0..4).map(|nth| roster.neighbour(&id(5), nth)).collect();
        assert_eq!(ring, [Some(id(7)), Some(id(9)), Some(id(1)), Some(id(7))]);
        roster.remove(&id(7));
        assert_eq!(
            roster.neighbour(&id(9), 0),
            Some(id(1)),
            "a member of the roster itself is no neighbour of its own"
        );
    }

    #[test]
    fn a_choice_is_distinct_fair_and_leaves_out_whom_it_should() {
        let mut roster = Roster::default();
        (0..10).for_each(|number| roster.insert(id(number)));
        let mut random = Stream::new(&[1; 32], "choice");
        let mut seen = [0_u32; 10];
        for _ in 0..3_000 {
            let mut chosen = roster.choose(&mut random, 3, Some(id(4)));
            chosen.iter().for_each(|id| seen[usize::from(id.0[0])] += 1);
            chosen.sort_unstable();
            chosen.dedup();
            assert_eq!(chosen.len(), 3);
        }
        assert_eq!(seen[4], 0);
        assert!(seen.iter().enumerate().all(|(number, seen)| number == 4 || (800..1_200).contains(seen)), "{seen:?}");
        assert_eq!(roster.choose(&mut random, 99, None).len(), 10);
    }
}
