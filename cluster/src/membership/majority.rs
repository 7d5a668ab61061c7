//! The majority: whether this node is on the greater side of whatever keeps the members apart.
//!
//! Input: the members, and how well this node hears. Output: [`Membership::has_majority`], which fenced services ask. A shoal
//! has no list of voters. The node that founds it counts; one that joins counts once it sees the majority of those that
//! count, and says so of itself ([`super::member::NodeMeta::counts`]). So nodes that join the lesser side of a split never make it the greater.
//! See `docs/design/0032-fenced-services.md`.

use super::Membership;
use super::member::MemberState;
use crate::clock::Instant;

impl Membership {
    /// Tells whether more than half of the members that count and have not left are alive here. Half is none. Suspects do
    /// not count, nor does anyone while hardly a probe of this node is answered: a node that is cut off needs minutes to
    /// find many others down by itself, and a few seconds to find that it hears nothing.
    pub fn has_majority(&self) -> bool {
        if self.health.is_worst() {
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

    /// Makes this node count once it sees the majority.
    pub(super) fn count_if_due(&mut self, now: Instant) {
        if !self.own.meta.counts && self.joined && self.has_majority() {
            self.own.meta.counts = true;
            self.own.incarnation = self.own.incarnation.saturating_add(1);
            self.tell_own(now);
        }
    }
}
