//! Asking: what members told of that is not known here, whom it was asked of, and whom to ask next.
//!
//! Input: lines, answers, and time. Output: whom to ask for what. Each piece of news is asked of one member at a time; who
//! does not answer is replaced by another who told of it too. What nobody gives is left to anti-entropy.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

use super::news::{Line, Subject};
use crate::clock::Instant;
use crate::id::NodeId;

/// How long an answer may take: longer than the round trip of a slow link.
const TIMEOUT: Duration = Duration::from_millis(500);
/// How often one piece of news is asked for.
const TRIES_MAX: u32 = 4;
/// Members that are remembered to have told of one piece of news.
const TELLERS_MAX: usize = 4;
/// Pieces of news that are asked for at a time.
pub const ASKS_MAX: usize = 4_096;
/// Pieces of news that are asked of one member at a time.
pub const ASKS_PER_MEMBER_MAX: usize = 1_024;

/// What one node has asked for.
#[derive(Clone, Debug, Default)]
pub struct Asking {
    asks: BTreeMap<Subject, Ask>,
    /// When to ask on.
    due: BTreeSet<(Instant, Subject)>,
    /// How much is asked of each member.
    loads: BTreeMap<NodeId, usize>,
}

#[derive(Clone, Debug)]
struct Ask {
    asked: NodeId,
    until: Instant,
    tries: u32,
    /// Who told of it and what, `asked` among them.
    tellers: Vec<(NodeId, Line)>,
}

impl Asking {
    /// Takes in that a member tells of something that is not known here; tells whether to ask it.
    pub fn told(&mut self, now: Instant, from: NodeId, line: Line) -> bool {
        let subject = line.subject();
        if let Some(ask) = self.asks.get_mut(&subject) {
            if let Some((_, told)) = ask.tellers.iter_mut().find(|(teller, _)| *teller == from) {
                *told = line;
            } else if ask.tellers.len() < TELLERS_MAX {
                ask.tellers.push((from, line));
            }
            return false;
        }
        if self.asks.len() >= ASKS_MAX || self.loads.get(&from).is_some_and(|load| *load >= ASKS_PER_MEMBER_MAX) {
            return false;
        }
        self.ask(now, subject, from, 1, alloc::vec![(from, line)]);
        true
    }

    /// Takes in an answer. Returns whom else to ask, if something that others told is still lacking.
    pub fn answered(
        &mut self,
        now: Instant,
        from: NodeId,
        subject: Subject,
        lacks: impl Fn(&Line) -> bool,
    ) -> Option<NodeId> {
        self.asks.get(&subject).filter(|ask| ask.asked == from)?;
        let ask = self.remove(&subject)?;
        let others = ask.tellers.into_iter().filter(|(teller, line)| *teller != from && lacks(line)).collect();
        self.ask_on(now, subject, ask.tries, others)
    }

    /// Returns whom to ask now for what was not answered in time. `lacks` tells what is still lacking, `is_up` whom it is
    /// worth asking.
    pub fn overdue(
        &mut self,
        now: Instant,
        lacks: impl Fn(&Line) -> bool,
        is_up: impl Fn(&NodeId) -> bool,
    ) -> Vec<(NodeId, Subject)> {
        let mut again = Vec::new();
        while let Some((_, subject)) = self.due.first().copied().filter(|(until, _)| *until <= now) {
            let Some(ask) = self.remove(&subject) else { continue };
            let mut tellers = ask.tellers;
            // Whoever was asked comes last: its answer may only have been lost.
            tellers.sort_by_key(|(teller, _)| *teller == ask.asked);
            tellers.retain(|(teller, line)| is_up(teller) && lacks(line));
            again.extend(self.ask_on(now, subject, ask.tries, tellers).map(|teller| (teller, subject)));
        }
        again
    }

    /// Returns when [`Self::overdue`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|(until, _)| *until)
    }

    /// Returns how much is asked for.
    pub fn len(&self) -> usize {
        self.asks.len()
    }

    /// Tells whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.asks.is_empty()
    }

    fn ask_on(&mut self, now: Instant, subject: Subject, tries: u32, tellers: Vec<(NodeId, Line)>) -> Option<NodeId> {
        let (next, _) = *tellers.first().filter(|_| tries < TRIES_MAX)?;
        self.ask(now, subject, next, tries + 1, tellers);
        Some(next)
    }

    fn ask(&mut self, now: Instant, subject: Subject, asked: NodeId, tries: u32, tellers: Vec<(NodeId, Line)>) {
        let until = now + TIMEOUT;
        self.asks.insert(subject, Ask { asked, until, tries, tellers });
        self.due.insert((until, subject));
        *self.loads.entry(asked).or_default() += 1;
    }

    fn remove(&mut self, subject: &Subject) -> Option<Ask> {
        let ask = self.asks.remove(subject)?;
        self.due.remove(&(ask.until, *subject));
        if let Some(load) = self.loads.get_mut(&ask.asked) {
            *load -= 1;
            if *load == 0 {
                self.loads.remove(&ask.asked);
            }
        }
        Some(ask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reports::Head;
    use crate::sync::news::Short;

    fn line(number: u32, seq: u64) -> Line {
        let mut of = [0; 8];
        of[..4].copy_from_slice(&number.to_be_bytes());
        Line::Report { of: Short(of), head: Head { epoch: 1, edition: 0, seq } }
    }

    fn node(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    fn at(millis: u64) -> Instant {
        Instant::from_micros(millis * 1_000)
    }

    #[test]
    fn one_is_asked_at_a_time_and_a_silent_one_is_replaced() {
        let mut asking = Asking::default();
        assert!(asking.told(at(0), node(1), line(7, 1)));
        assert!(!asking.told(at(1), node(2), line(7, 1)));
        assert!(!asking.told(at(1), node(3), line(7, 1)));
        let subject = line(7, 1).subject();
        assert_eq!(asking.deadline(), Some(at(500)));
        assert_eq!(asking.overdue(at(499), |_| true, |_| true), []);
        assert_eq!(asking.overdue(at(500), |_| true, |member| *member != node(2)), [(node(3), subject)]);
        assert_eq!(asking.overdue(at(1_000), |_| true, |_| true), [(node(1), subject)]);
        assert_eq!(asking.overdue(at(1_500), |_| true, |_| true), [(node(3), subject)]);
        assert_eq!(asking.overdue(at(2_000), |_| true, |_| true), [], "the rest is left to anti-entropy");
        assert!(asking.is_empty() && asking.loads.is_empty() && asking.due.is_empty());
    }

    #[test]
    fn whoever_told_of_more_than_was_given_is_asked_too() {
        let mut asking = Asking::default();
        let subject = line(7, 1).subject();
        asking.told(at(0), node(1), line(7, 1));
        asking.told(at(0), node(2), line(7, 1));
        asking.told(at(0), node(3), line(7, 2));
        let lacks = |told: &Line| *told > line(7, 1);
        assert_eq!(asking.answered(at(1), node(2), subject, lacks), None, "it was not asked");
        assert_eq!(asking.answered(at(1), node(1), subject, lacks), Some(node(3)));
        assert_eq!(asking.answered(at(2), node(3), subject, |_| false), None);
        assert!(asking.is_empty() && asking.loads.is_empty() && asking.due.is_empty());
    }

    #[test]
    fn what_came_another_way_is_not_asked_for_again() {
        let mut asking = Asking::default();
        asking.told(at(0), node(1), line(7, 1));
        assert_eq!(asking.overdue(at(500), |_| false, |_| true), []);
        assert!(asking.is_empty());
    }

    #[test]
    fn asks_are_bounded_whoever_tells_of_whatever() {
        let mut asking = Asking::default();
        for teller in 1..=20 {
            for number in 0..5_000 {
                asking.told(at(0), node(teller), line(u32::from(teller) << 16 | number, 1));
                asking.told(at(0), node(teller), line(number, 1));
            }
        }
        assert_eq!(asking.len(), ASKS_MAX);
        assert!(asking.loads.values().all(|load| *load <= ASKS_PER_MEMBER_MAX));
        assert!(asking.asks.values().all(|ask| ask.tellers.len() <= TELLERS_MAX));
        assert_eq!(asking.loads.values().sum::<usize>(), ASKS_MAX);
        for round in 1..10 {
            asking.overdue(at(500 * round), |_| true, |_| true);
        }
        assert!(asking.is_empty() && asking.loads.is_empty() && asking.due.is_empty());
    }
}
