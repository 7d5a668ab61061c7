//! News in short: how far a node knows something, what another lacks of it and asks for, and what it is given. Pure.
//!
//! A line takes some fifteen bytes where what it tells of takes hundreds, so that it may be heard of from several members
//! and come whole from one. See `docs/protocol.md#sync`.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::compare::Planes;
use super::message::{Given, Span};
use crate::crdt::{Actor, Dot};
use crate::id::NodeId;
use crate::intent::Entry;
use crate::limits::{BATCH_BYTES_MAX, MESSAGE_BYTES_MAX};
use crate::reports::Head;
use crate::reports::item::Item;

/// Lines or wishes in one message at most.
pub const LINES_MAX: usize = 1_024;
/// Writes beyond a hole that one wish names; those left out are at worst given once more.
pub const AHEAD_MAX: usize = 16;

const _: () = assert!(LINES_MAX * (40 + AHEAD_MAX * 9) < MESSAGE_BYTES_MAX, "a message holds as many wishes as lines");

/// The first bytes of a node's id. Where two nodes were alike in them, and to find such a key takes 2⁶⁴ tries, who
/// tells of either says no more than it knows of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Short(pub [u8; 8]);

/// Whose news.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// What a node wrote in one of its runs.
    Writes(Short, u64),
    /// What a node reports.
    Report(Short),
}

/// How far the sender knows something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Line {
    /// What a node wrote in one of its runs: all up to a counter, and the last known is so many further.
    Writes {
        /// Which node.
        of: Short,
        /// Which run.
        epoch: u64,
        /// All up to here,
        upto: u64,
        /// and that one which is so many further; 0 if there is none beyond a hole.
        beyond: u64,
    },
    /// What a node reports.
    Report {
        /// Which node.
        of: Short,
        /// Up to which change.
        head: Head,
    },
}

/// What the sender lacks of something: all beyond this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wish {
    /// What a node wrote in one of its runs.
    Writes {
        /// Which node.
        of: Short,
        /// Which run.
        epoch: u64,
        /// The sender knows all up to here,
        upto: u64,
        /// and these beyond a hole, at most [`AHEAD_MAX`].
        ahead: BTreeSet<u64>,
    },
    /// What a node reports.
    Report {
        /// Which node.
        of: Short,
        /// The sender knows all up to here.
        head: Head,
    },
}

impl Short {
    /// Returns the first bytes of an id.
    pub fn of(node: &NodeId) -> Self {
        Self(*node.0.first_chunk().expect("an id is longer"))
    }

    /// Returns the span of all ids that begin so.
    fn span(self) -> Span {
        let all = |fill: u8| {
            let mut bytes = [fill; 32];
            bytes[..8].copy_from_slice(&self.0);
            NodeId(bytes)
        };
        Span { first: all(0), last: all(0xff) }
    }
}

impl Subject {
    /// Returns the writes of an actor.
    pub fn writes(actor: &Actor) -> Self {
        Self::Writes(Short::of(&actor.node), actor.epoch)
    }

    /// Returns the report of a node.
    pub fn report(node: &NodeId) -> Self {
        Self::Report(Short::of(node))
    }
}

impl Line {
    /// Returns whose news it is.
    pub fn subject(&self) -> Subject {
        match *self {
            Self::Writes { of, epoch, .. } => Subject::Writes(of, epoch),
            Self::Report { of, .. } => Subject::Report(of),
        }
    }

    /// Tells whether whoever says this knows all that whoever says `other` of the same subject does.
    pub fn covers(&self, other: &Self) -> bool {
        match (*self, *other) {
            (Self::Writes { upto, beyond, .. }, Self::Writes { upto: others, beyond: further, .. }) => {
                upto >= others && upto.saturating_add(beyond) >= others.saturating_add(further)
            }
            (Self::Report { head, .. }, Self::Report { head: others, .. }) => head >= others,
            (Self::Writes { .. }, Self::Report { .. }) | (Self::Report { .. }, Self::Writes { .. }) => false,
        }
    }
}

impl Planes<'_> {
    /// Returns how far something is known here; none if nothing is known of it.
    pub fn line(&self, subject: &Subject) -> Option<Line> {
        match *subject {
            Subject::Writes(of, epoch) => {
                let vector = self.intent.vector();
                let known = self.actors_of(of, epoch).into_iter().map(|actor| {
                    let upto = vector.counter(&actor);
                    (upto, vector.ahead(&actor).and_then(BTreeSet::last).map_or(upto, |last| upto.max(*last)))
                });
                let (upto, last) = known.reduce(|one, other| (one.0.min(other.0), one.1.min(other.1)))?;
                Some(Line::Writes { of, epoch, upto, beyond: last.saturating_sub(upto) })
            }
            Subject::Report(of) => self.heads_of(of).map(|(_, head)| head).min().map(|head| Line::Report { of, head }),
        }
    }

    /// Tells whether something is not known here as far as a line says.
    pub fn lacks(&self, line: &Line) -> bool {
        let own = self.intent.actor();
        match *line {
            Line::Writes { of, epoch, upto, beyond } => {
                let last = upto.saturating_add(beyond);
                let actors = self.actors_of(of, epoch);
                if Subject::writes(&own) == line.subject() && actors.len() <= 1 {
                    return false;
                }
                let vector = self.intent.vector();
                let knows = |actor: &Actor| vector.counter(actor) >= upto && vector.knows(&Dot::new(*actor, last));
                last > 0 && (actors.is_empty() || !actors.iter().all(knows))
            }
            Line::Report { of, head } if of == Short::of(&own.node) => {
                self.heads_of(of).any(|(node, known)| node != own.node && known < head)
            }
            Line::Report { of, head } => self.heads_of(of).map(|(_, known)| known).min().unwrap_or_default() < head,
        }
    }

    /// Returns what to ask for.
    pub fn wish(&self, subject: &Subject) -> Wish {
        match *subject {
            Subject::Writes(of, epoch) => {
                let vector = self.intent.vector();
                let actors = self.actors_of(of, epoch);
                let upto = actors.iter().map(|actor| vector.counter(actor)).min().unwrap_or_default();
                let ahead = actors.first().filter(|_| actors.len() == 1).and_then(|actor| vector.ahead(actor));
                let ahead = ahead.into_iter().flatten().copied().take(AHEAD_MAX).collect();
                Wish::Writes { of, epoch, upto, ahead }
            }
            Subject::Report(of) => {
                Wish::Report { of, head: self.heads_of(of).map(|(_, head)| head).min().unwrap_or_default() }
            }
        }
    }

    /// Returns what is wished for, cut to one message; none if there is nothing of it here.
    pub fn give(&self, wishes: &[Wish]) -> Option<Given> {
        let mut given = Given { intent: Vec::new(), reports: Vec::new() };
        let mut budget = BATCH_BYTES_MAX;
        for wish in wishes.iter().take(LINES_MAX) {
            match wish {
                Wish::Writes { of, epoch, upto, ahead } => {
                    for actor in self.actors_of(*of, *epoch) {
                        let Some((range, _)) = self.intent.range(actor, *upto, ahead, budget) else { continue };
                        budget = budget.saturating_sub(64 + range.entries.iter().map(Entry::weight).sum::<usize>());
                        given.intent.push(range);
                    }
                }
                Wish::Report { of, head } => {
                    for (node, _) in self.heads_of(*of) {
                        let Some(range) = self.reports.range(&node, *head, budget) else { continue };
                        budget = budget.saturating_sub(96 + range.items.iter().map(Item::weight).sum::<usize>());
                        given.reports.push(range);
                    }
                }
            }
            if budget == 0 {
                break;
            }
        }
        (!given.intent.is_empty() || !given.reports.is_empty()).then_some(given)
    }

    fn actors_of(&self, of: Short, epoch: u64) -> Vec<Actor> {
        let Span { first, last } = of.span();
        self.intent.vector().actors(first, last, epoch)
    }

    fn heads_of(&self, of: Short) -> impl Iterator<Item = (NodeId, Head)> {
        let Span { first, last } = of.span();
        self.reports.within(first, last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crdt::{Context, Version};
    use crate::intent::Intent;
    use crate::intent::key::Key;
    use crate::reports::Reports;

    const OWN: NodeId = NodeId([1; 32]);
    const OTHER: Actor = Actor { node: NodeId([7; 32]), epoch: 5 };
    /// Alike in as many bytes as lines name nodes by.
    const ALIKE: Actor = Actor {
        node: NodeId([7, 7, 7, 7, 7, 7, 7, 7, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3]),
        epoch: 5,
    };

    fn intent(writes: &[(Actor, u64)]) -> Intent {
        let mut intent = Intent::new(Actor { node: OWN, epoch: 1 });
        for (actor, counter) in writes {
            let version = Version {
                dot: Dot::new(*actor, *counter),
                context: Context::default(),
                stamp: Default::default(),
                value: Some(alloc::vec![1]),
                author: Vec::new(),
                signature: Vec::new(),
            };
            let name = alloc::format!("{counter}-{}", actor.node.0[9]);
            intent.restore(Entry { key: Key { kind: 9, name }, version });
        }
        intent
    }

    fn with<T>(writes: &[(Actor, u64)], question: impl FnOnce(&Planes<'_>) -> T) -> T {
        let (intent, reports) = (intent(writes), Reports::new(OWN, 1));
        question(&Planes { intent: &intent, reports: &reports, plan: [0; 32] })
    }

    fn line(upto: u64, beyond: u64) -> Line {
        Line::Writes { of: Short([7; 8]), epoch: 5, upto, beyond }
    }

    #[test]
    fn a_hole_is_told_noticed_and_filled_with_nothing_that_is_known() {
        let subject = Subject::writes(&OTHER);
        let all: Vec<_> = (1..=4).map(|counter| (OTHER, counter)).collect();
        assert_eq!(with(&[], |planes| planes.line(&subject)), None);
        assert_eq!(with(&all, |planes| planes.line(&subject)), Some(line(4, 0)));
        let holey = [(OTHER, 1), (OTHER, 3)];
        assert_eq!(with(&holey, |planes| planes.line(&subject)), Some(line(1, 2)));
        for (told, lacks) in [(line(0, 0), false), (line(1, 2), false), (line(2, 0), true), (line(1, 3), true)] {
            assert_eq!(with(&holey, |planes| planes.lacks(&told)), lacks, "{told:?}");
            assert_eq!(with(&[], |planes| planes.lacks(&told)), told != line(0, 0), "{told:?}");
        }
        let wish = with(&holey, |planes| planes.wish(&subject));
        let given = with(&all, |planes| planes.give(&[wish])).expect("there is something to give");
        let counters: Vec<u64> = given.intent[0].entries.iter().map(|entry| entry.version.dot.counter).collect();
        assert_eq!((counters, given.intent[0].after, given.intent[0].upto), (alloc::vec![2, 4], 1, 4));
    }

    #[test]
    fn a_line_covers_what_goes_no_further_in_any_way() {
        assert!(line(3, 0).covers(&line(3, 0)) && line(3, 2).covers(&line(2, 3)) && line(4, 0).covers(&line(2, 2)));
        assert!(!line(3, 0).covers(&line(2, 2)) && !line(2, 9).covers(&line(3, 0)));
        assert!(line(u64::MAX, u64::MAX).covers(&line(u64::MAX, 1)));
    }

    #[test]
    fn what_a_node_wrote_itself_it_never_lacks() {
        let told = Line::Writes { of: Short::of(&OWN), epoch: 1, upto: 9, beyond: 0 };
        assert!(!with(&[], |planes| planes.lacks(&told)));
        assert!(!with(&[], |planes| planes
            .lacks(&Line::Report { of: Short::of(&OWN), head: Head { epoch: 9, ..Head::default() } })));
        let earlier = Line::Writes { of: Short::of(&OWN), epoch: 0, upto: 9, beyond: 0 };
        assert!(with(&[], |planes| planes.lacks(&earlier)), "in a run that it lost it did");
    }

    #[test]
    fn of_two_that_are_alike_no_more_is_told_than_is_known_of_both() {
        let subject = Subject::writes(&OTHER);
        assert_eq!(subject, Subject::writes(&ALIKE));
        let both = [(OTHER, 1), (OTHER, 2), (ALIKE, 1)];
        assert_eq!(with(&both, |planes| planes.line(&subject)), Some(line(1, 0)));
        assert!(with(&[(OTHER, 1), (OTHER, 2)], |planes| !planes.lacks(&line(2, 0))));
        assert!(with(&both, |planes| planes.lacks(&line(2, 0))));
        let given = with(&both, |planes| {
            planes.give(&[Wish::Writes { of: Short([7; 8]), epoch: 5, upto: 0, ahead: BTreeSet::new() }])
        });
        assert_eq!(given.map(|given| given.intent.len()), Some(2), "whoever asks is given both");
    }

    #[test]
    fn wishes_for_the_impossible_are_given_nothing() {
        let wishes = [
            Wish::Writes { of: Short([7; 8]), epoch: 5, upto: u64::MAX, ahead: BTreeSet::from([0, u64::MAX]) },
            Wish::Writes { of: Short([8; 8]), epoch: 5, upto: 0, ahead: BTreeSet::new() },
            Wish::Report { of: Short([8; 8]), head: Head::default() },
        ];
        assert_eq!(with(&[(OTHER, 1)], |planes| planes.give(&wishes)), None);
    }
}
