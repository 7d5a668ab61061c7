//! A version vector with exceptions: which writes of which actors are known here.
//!
//! It advances only without holes: dots that arrive ahead of their turn wait as pending, and a range from an
//! anti-entropy answer vouches for all writes in it, overwritten ones included.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::{Actor, Context, Dot};
use crate::id::NodeId;
use crate::limits::PENDING_DOTS_MAX;
use crate::mutation::{self, Mutation};

/// What is known: for each actor all writes up to a counter, and some beyond.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vector {
    upto: Context,
    pending: BTreeMap<Actor, BTreeSet<u64>>,
}

impl Vector {
    /// Tells whether the write is known, in turn or ahead of it.
    pub fn knows(&self, dot: &Dot) -> bool {
        self.upto.covers(dot) || self.pending.get(&dot.actor).is_some_and(|ahead| ahead.contains(&dot.counter))
    }

    /// Tells whether [`Self::note`] would take this dot.
    pub fn has_room(&self, dot: &Dot) -> bool {
        dot.counter <= self.counter(&dot.actor).saturating_add(1)
            || self.pending.get(&dot.actor).is_none_or(|ahead| ahead.len() < PENDING_DOTS_MAX)
    }

    /// Takes in one known write, in any order. Does nothing if too many of its actor are pending.
    pub fn note(&mut self, dot: Dot) {
        if self.upto.covers(&dot) || !self.has_room(&dot) {
            return;
        }
        if mutation::on(Mutation::VectorOverHole) {
            self.upto.add(dot);
        }
        self.pending.entry(dot.actor).or_default().insert(dot.counter);
        self.absorb(dot.actor);
    }

    /// Takes in that all writes of `actor` in `after+1..=upto` are known. Does nothing and returns false if those
    /// up to `after` are not.
    pub fn advance(&mut self, actor: Actor, after: u64, upto: u64) -> bool {
        if self.counter(&actor) < after {
            return false;
        }
        if upto > 0 {
            self.upto.add(Dot::new(actor, upto));
        }
        self.absorb(actor);
        true
    }

    /// Returns the last write of `actor` up to which all are known, 0 if none.
    pub fn counter(&self, actor: &Actor) -> u64 {
        self.upto.counter(actor)
    }

    /// Returns each actor with the last write up to which all are known, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Actor, u64)> {
        self.upto.iter()
    }

    /// Returns the actors of one epoch of which anything is known, of the nodes from `first` to `last`, in order.
    pub fn actors(&self, first: NodeId, last: NodeId, epoch: u64) -> Vec<Actor> {
        let (first, last) = (Actor { node: first, epoch: 0 }, Actor { node: last, epoch: u64::MAX });
        let mut actors: Vec<Actor> = self.upto.actors(first, last).filter(|actor| actor.epoch == epoch).collect();
        for (actor, _) in self.pending.range(first..=last).filter(|(actor, _)| actor.epoch == epoch) {
            if let Err(place) = actors.binary_search(actor) {
                actors.insert(place, *actor);
            }
        }
        actors
    }

    /// Returns the known writes of one actor beyond a hole, if there are any.
    pub fn ahead(&self, actor: &Actor) -> Option<&BTreeSet<u64>> {
        self.pending.get(actor)
    }

    /// Returns the known writes beyond a hole, in order.
    pub fn pending(&self) -> impl Iterator<Item = (Actor, &BTreeSet<u64>)> {
        self.pending.iter().map(|(&actor, ahead)| (actor, ahead))
    }

    /// Moves pending dots that are in turn now.
    fn absorb(&mut self, actor: Actor) {
        let Some(ahead) = self.pending.get_mut(&actor) else { return };
        let mut upto = self.upto.counter(&actor);
        while let Some(&next) = ahead.first()
            && next <= upto.saturating_add(1)
        {
            ahead.remove(&next);
            upto = upto.max(next);
        }
        if ahead.is_empty() {
            self.pending.remove(&actor);
        }
        if upto > 0 {
            self.upto.add(Dot::new(actor, upto));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Actor = Actor { node: NodeId([1; 32]), epoch: 1 };

    #[test]
    fn dots_out_of_order_leave_no_hole() {
        let mut vector = Vector::default();
        for counter in [3, 1, 5] {
            vector.note(Dot::new(A, counter));
        }
        assert_eq!(vector.counter(&A), 1);
        assert!(vector.knows(&Dot::new(A, 5)) && !vector.knows(&Dot::new(A, 2)));
        vector.note(Dot::new(A, 2));
        assert_eq!(vector.counter(&A), 3);
        assert!(vector.advance(A, 3, 4));
        assert_eq!((vector.counter(&A), vector.pending().count()), (5, 0));
    }

    #[test]
    fn a_range_after_a_hole_is_refused() {
        let mut vector = Vector::default();
        assert!(!vector.advance(A, 1, 7));
        assert_eq!(vector.counter(&A), 0);
        assert!(vector.advance(A, 0, 7));
        assert_eq!(vector.counter(&A), 7);
    }

    #[test]
    fn a_flood_of_dots_ahead_is_bounded() {
        let mut vector = Vector::default();
        for counter in 0..10_000 {
            vector.note(Dot::new(A, 10 + 2 * counter));
        }
        assert_eq!(vector.pending().map(|(_, ahead)| ahead.len()).sum::<usize>(), PENDING_DOTS_MAX);
    }
}
