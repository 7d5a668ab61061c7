//! Acknowledged: how many of this node's graves each member is known to know, and since when members are away.
//!
//! Input: what rounds showed, and who is up. Output: up to which grave tombstones may be forgotten. A member that was
//! away for longer than the horizon does not hold them back: it is told what is gone when it returns. What is known here
//! is lost with a restart, which only delays.

use alloc::collections::BTreeMap;
use core::time::Duration;

use crate::clock::Instant;
use crate::id::NodeId;

/// Of each other member, what is known of its knowledge.
#[derive(Clone, Debug, Default)]
pub struct Acknowledged {
    upto: BTreeMap<NodeId, u64>,
    away: BTreeMap<NodeId, Instant>,
}

impl Acknowledged {
    /// Returns up to which grave a member knows all.
    pub fn of(&self, member: &NodeId) -> u64 {
        self.upto.get(member).copied().unwrap_or_default()
    }

    /// Takes in that a member knows all graves up to this one.
    pub fn note(&mut self, member: NodeId, upto: u64) {
        let known = self.upto.entry(member).or_default();
        *known = upto.max(*known);
    }

    /// Returns the last grave that every other member knows, `last` if there is none other; `members` tells who is up.
    pub fn by_all(
        &mut self,
        now: Instant,
        horizon: Duration,
        last: u64,
        members: impl Iterator<Item = (NodeId, bool)>,
    ) -> u64 {
        let mut away = BTreeMap::new();
        let mut least = last;
        for (member, is_up) in members {
            let since = self.away.get(&member).copied().unwrap_or(now);
            if !is_up {
                away.insert(member, since);
            }
            if is_up || now.since(since) < horizon {
                least = least.min(self.of(&member));
            }
        }
        self.away = away;
        least
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_member_counts_unless_it_is_away_for_longer_than_the_horizon() {
        let (one, two) = (NodeId([1; 32]), NodeId([2; 32]));
        let hour = Duration::from_secs(3_600);
        let at = |hours: u32| Instant::default() + hour * hours;
        let mut acknowledged = Acknowledged::default();
        assert_eq!(acknowledged.by_all(at(0), hour * 24, 9, core::iter::empty()), 9);
        acknowledged.note(one, 7);
        assert_eq!(acknowledged.by_all(at(0), hour * 24, 9, [(one, true), (two, false)].into_iter()), 0);
        assert_eq!(acknowledged.by_all(at(23), hour * 24, 9, [(one, true), (two, false)].into_iter()), 0);
        assert_eq!(acknowledged.by_all(at(24), hour * 24, 9, [(one, true), (two, false)].into_iter()), 7);
        assert_eq!(acknowledged.by_all(at(25), hour * 24, 9, [(one, true), (two, true)].into_iter()), 0);
        assert_eq!(acknowledged.by_all(at(26), hour * 24, 9, [(one, true), (two, false)].into_iter()), 0, "from anew");
    }
}
