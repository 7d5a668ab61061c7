//! Dots and contexts: which write, and which writes its author had seen.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crdts::{CmRDT, CvRDT, VClock};
use serde::{Deserialize, Serialize};

use crate::id::NodeId;

/// Who writes: a node in one of its runs. A node that lost its disk starts a new epoch, so no dot is used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Actor {
    /// The node.
    pub node: NodeId,
    /// Which of its starts.
    pub epoch: u64,
}

/// Names one write: the `counter`-th of `actor`, from 1.
pub type Dot = crdts::Dot<Actor>;

/// The writes that an author had seen: all of each actor up to a counter.
///
/// Encoded in one way only: actors ascend, counters are not zero. Anything else does not decode.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Grouped", into = "Grouped")]
pub struct Context {
    clock: VClock<Actor>,
}

/// The encoded form: per node, its epochs and counters.
type Grouped = Vec<(NodeId, Vec<(u64, u64)>)>;

impl Context {
    /// Tells whether the write that `dot` names had been seen.
    pub fn covers(&self, dot: &Dot) -> bool {
        self.counter(&dot.actor) >= dot.counter
    }

    /// Returns the last counter seen of `actor`, 0 if none.
    pub fn counter(&self, actor: &Actor) -> u64 {
        self.clock.get(actor)
    }

    /// Adds one write and all before it by its actor.
    pub fn add(&mut self, dot: Dot) {
        self.clock.apply(dot);
    }

    /// Adds all that `other` has seen.
    pub fn merge(&mut self, other: &Self) {
        self.clock.merge(other.clock.clone());
    }

    /// Returns each actor with its last counter, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Actor, u64)> {
        self.clock.dots.iter().map(|(&actor, &counter)| (actor, counter))
    }

    /// Returns the actors from `first` to `last`, in order.
    pub(super) fn actors(&self, first: Actor, last: Actor) -> impl Iterator<Item = Actor> {
        self.clock.dots.range(first..=last).map(|(&actor, _)| actor)
    }

    /// Returns how many actors there are.
    pub fn len(&self) -> usize {
        self.clock.dots.len()
    }

    /// Tells whether nothing had been seen.
    pub fn is_empty(&self) -> bool {
        self.clock.is_empty()
    }

    /// Keeps at most `count` actors: those of the last writes in `keep`, then those of the youngest epochs.
    /// What is left out can at worst show up again as a concurrent version with an older stamp.
    pub(super) fn cut(&mut self, count: usize, keep: &Self) {
        if self.len() <= count {
            return;
        }
        let mut actors: Vec<Actor> = self.clock.dots.keys().copied().collect();
        actors.sort_by_key(|actor| (keep.counter(actor) == 0, core::cmp::Reverse(actor.epoch), *actor));
        for actor in actors.drain(count..) {
            self.clock.dots.remove(&actor);
        }
    }
}

impl From<Context> for Grouped {
    fn from(context: Context) -> Self {
        let mut groups: Grouped = Vec::new();
        for (actor, counter) in context.iter() {
            match groups.last_mut() {
                Some((node, epochs)) if *node == actor.node => epochs.push((actor.epoch, counter)),
                _ => groups.push((actor.node, alloc::vec![(actor.epoch, counter)])),
            }
        }
        groups
    }
}

/// A context is not encoded in the one valid way. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a context's actors do not ascend, or a counter is zero")]
pub struct ContextError;

impl TryFrom<Grouped> for Context {
    type Error = ContextError;

    fn try_from(groups: Grouped) -> Result<Self, ContextError> {
        let mut dots = BTreeMap::new();
        let mut last: Option<Actor> = None;
        for (node, epochs) in groups {
            if epochs.is_empty() || last.is_some_and(|actor| actor.node >= node) {
                return Err(ContextError);
            }
            for (epoch, counter) in epochs {
                let actor = Actor { node, epoch };
                if counter == 0 || last.is_some_and(|last| last >= actor) {
                    return Err(ContextError);
                }
                last = Some(actor);
                dots.insert(actor, counter);
            }
        }
        Ok(Self { clock: VClock { dots } })
    }
}

impl FromIterator<(Actor, u64)> for Context {
    fn from_iter<I: IntoIterator<Item = (Actor, u64)>>(pairs: I) -> Self {
        let mut context = Self::default();
        for (actor, counter) in pairs.into_iter().filter(|(_, counter)| *counter > 0) {
            context.add(Dot::new(actor, counter));
        }
        context
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn actor(node: u8, epoch: u64) -> Actor {
        Actor { node: NodeId([node; 32]), epoch }
    }

    #[test]
    fn a_context_survives_its_encoded_form() {
        let context: Context = [(actor(1, 1), 4), (actor(1, 2), 9), (actor(3, 1), 1)].into_iter().collect();
        let groups = Grouped::from(context.clone());
        assert_eq!(groups.len(), 2);
        assert_eq!(Context::try_from(groups), Ok(context));
    }

    #[test]
    fn a_context_in_any_other_form_is_refused() {
        let (one, two) = (NodeId([1; 32]), NodeId([2; 32]));
        for bad in [
            vec![(two, vec![(1, 1)]), (one, vec![(1, 1)])],
            vec![(one, vec![(1, 1)]), (one, vec![(2, 1)])],
            vec![(one, vec![(2, 1), (1, 1)])],
            vec![(one, vec![(1, 0)])],
            vec![(one, vec![])],
        ] {
            assert_eq!(Context::try_from(bad), Err(ContextError));
        }
    }

    #[test]
    fn a_cut_keeps_the_writes_that_are_overwritten_now() {
        let mut context: Context = (1..=9).map(|epoch| (actor(1, epoch), 1)).collect();
        let keep: Context = [(actor(1, 2), 1)].into_iter().collect();
        context.cut(3, &keep);
        let epochs: Vec<u64> = context.iter().map(|(actor, _)| actor.epoch).collect();
        assert_eq!(epochs, [2, 8, 9]);
    }
}
