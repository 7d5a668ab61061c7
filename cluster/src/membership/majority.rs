//! The majority: whether this node is on the greater side of whatever keeps the members apart.
//!
//! Input: the members, and how well this node hears. Output: [`Membership::has_majority`], which fenced services ask. A shoal
//! has no list of voters. The node that founds it counts; one that joins counts once it sees the majority of those that
//! count, and says so of itself ([`super::member::NodeMeta::counts`]). So nodes that join the lesser side of a split never make it the greater.
//! See `docs/design/0032-fenced-services.md`.

use super::Membership;
use super::member::MemberState;
use super::probe::Cause;
use crate::clock::Instant;
use crate::id::NodeId;

/// As many of the last [`SAMPLE`] random members must have failed to answer for a node to be cut off from most.
const FAILED_MAX: u32 = 3;
/// How many random members are remembered.
const SAMPLE: u32 = 4;

/// Whether the last random members that were probed answered, a bit for each that did not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reach(u32);

impl Reach {
    fn note(&mut self, reached: bool) {
        self.0 = (self.0 << 1 | u32::from(!reached)) & ((1 << SAMPLE) - 1);
    }

    fn is_bad(self) -> bool {
        self.0.count_ones() >= FAILED_MAX
    }
}

impl Membership {
    /// Tells whether more than half of the members that count and have not left are alive here. Half is none. Suspects do
    /// not count, nor does anyone while hardly a probe of this node is answered, or few random members do: a node that is
    /// cut off, alone or with few, needs minutes to find many others down, and seconds to find that it reaches hardly any.
    pub fn has_majority(&self) -> bool {
        if self.health.is_worst() || self.reach.is_bad() {
            return false;
        }
        let counts = self.members.values().filter(|member| member.meta.counts && member.state != MemberState::Left);
        let (mut all, mut alive) = (0, 0);
        for member in counts {
            all += 1;
            alive += usize::from(member.state == MemberState::Alive && !self.unconfirmed.contains(&member.id));
        }
        2 * alive > all
    }

    /// Takes in whether a member answered a probe. Neighbours are no sample: on a side of few they are of the same side.
    pub(super) fn note_reach(&mut self, target: &NodeId, cause: Cause, reached: bool) {
        let neighbour = |nth| self.up.neighbour(&self.own.id, nth).as_ref() == Some(target);
        if cause == Cause::Turn && !neighbour(0) && !neighbour(1) {
            self.reach.note(reached);
        }
    }

    /// Makes this node count once it sees the majority.
    pub(super) fn count_if_due(&mut self, now: Instant) {
        if !self.own.meta.counts && self.joined && self.has_majority() {
            self.own.meta.counts = true;
            self.own.incarnation = self.own.incarnation.saturating_add(1);
            self.tell_own(now);
        }
    }
}
