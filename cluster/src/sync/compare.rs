//! Comparing: what this node knows, what a peer lacks, and whether the peer knows more. Pure.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use super::message::{ActorKnown, Cursor, Digests, Known, PARTS_MAX, Parts, Ranges, Repair, Sketch, Span};
use crate::crdt::{Actor, Dot};
use crate::hash;
use crate::id::NodeId;
use crate::intent::key::Key;
use crate::intent::{Entry, Intent};
use crate::limits::BATCH_BYTES_MAX;
use crate::reports::item::Item;
use crate::reports::{Head, Reports};
use crate::wire;

/// The planes that are compared, and the digest of the plan made from them.
#[derive(Clone, Copy, Debug)]
pub struct Planes<'a> {
    /// Intent.
    pub intent: &'a Intent,
    /// Reports.
    pub reports: &'a Reports,
    /// Digest of the plan.
    pub plan: [u8; 32],
}

impl Planes<'_> {
    /// Returns what this node has, as hashes.
    pub fn digests(&self) -> Digests {
        let all = Parts::default();
        let (actors, heads) = (self.actors(&Span::ALL, &all), self.heads(&Span::ALL, &all));
        let actors: Vec<&ActorKnown> = actors.values().collect();
        let actors = wire::encode(&actors);
        let writes = hash::digest("writes", &[&actors]);
        let known = hash::digest("known", &[&actors, &wire::encode(&heads)]);
        Digests { intent: self.intent.digest(), plan: self.plan, known, writes }
    }

    /// Returns what this node has, part by part, if it is too much to be told in full; no more parts than there are
    /// nodes to tell of.
    pub fn sketch(&self) -> Option<Sketch> {
        let all = Parts::default();
        let (actors, heads) = (self.actors(&Span::ALL, &all), self.heads(&Span::ALL, &all));
        let lines = actors.len().max(heads.len());
        if lines < LINES_IN_FULL {
            return None;
        }
        Some(Sketch { hashes: sketched(&actors, &heads, lines.next_power_of_two().min(PARTS_MAX)) })
    }

    /// Returns the parts in which this node has something else than the sender of the sketch; none if the sketch is
    /// malformed or there is no difference.
    pub fn differing(&self, theirs: &Sketch) -> Option<Parts> {
        let count = theirs.hashes.len();
        if !count.is_power_of_two() || count > PARTS_MAX {
            return None;
        }
        let all = Parts::default();
        let ours = sketched(&self.actors(&Span::ALL, &all), &self.heads(&Span::ALL, &all), count);
        let differ = ours.iter().zip(&theirs.hashes).enumerate().filter(|(_, (ours, theirs))| ours != theirs);
        let numbers: Vec<u16> = differ.filter_map(|(number, _)| u16::try_from(number).ok()).collect();
        (!numbers.is_empty()).then_some(Parts { of: u16::try_from(count).ok()?, numbers })
    }

    /// Returns what this node knows of the nodes in `span` and `parts`, in as many messages as it takes; `digests` are
    /// its own.
    pub fn known(&self, digests: Digests, span: Span, parts: &Parts, asks: bool) -> Vec<Known> {
        let (actors, heads) = (self.actors(&span, parts), self.heads(&span, parts));
        let mut weights: BTreeMap<NodeId, usize> = heads.keys().map(|node| (*node, HEAD_BYTES_MAX)).collect();
        for known in actors.values() {
            *weights.entry(known.actor.node).or_default() += weight(known);
        }
        pieces(span, &weights)
            .into_iter()
            .map(|span| Known {
                digests,
                span,
                parts: parts.clone(),
                asks,
                actors: actors_within(&actors, &span),
                reports: heads.range(span.first..=span.last).map(|(&node, &head)| (node, head)).collect(),
            })
            .collect()
    }

    /// Returns what a peer lacks that knows this much, cut to one message; none if it lacks nothing.
    pub fn lacking(&self, theirs: &Known) -> Option<Ranges> {
        let mut ranges = Ranges {
            span: theirs.span,
            parts: theirs.parts.clone(),
            intent: Vec::new(),
            reports: Vec::new(),
            more: false,
        };
        let mut budget = BATCH_BYTES_MAX;
        let known = by_actor(theirs);
        let nothing = BTreeSet::new();
        for actor in self.actors(&theirs.span, &theirs.parts).into_keys() {
            let (upto, ahead) = known.get(&actor).map_or((0, &nothing), |known| (known.upto, &known.ahead));
            let Some((range, complete)) = self.intent.range(actor, upto, ahead, budget) else { continue };
            let weight = 64 + range.entries.iter().map(Entry::weight).sum::<usize>();
            budget = budget.saturating_sub(weight);
            ranges.intent.push(range);
            if !complete || budget == 0 {
                ranges.more = true;
                return Some(ranges);
            }
        }
        let heads: BTreeMap<NodeId, Head> = theirs.reports.iter().copied().collect();
        for node in self.heads(&theirs.span, &theirs.parts).into_keys() {
            let head = heads.get(&node).copied().unwrap_or_default();
            let Some(range) = self.reports.range(&node, head, budget) else { continue };
            let weight = 96 + range.items.iter().map(Item::weight).sum::<usize>();
            budget = budget.saturating_sub(weight);
            let complete = range.complete;
            ranges.reports.push(range);
            if !complete || budget == 0 {
                ranges.more = true;
                return Some(ranges);
            }
        }
        (!ranges.intent.is_empty() || !ranges.reports.is_empty()).then_some(ranges)
    }

    /// Tells whether a peer that knows this much knows something that is not known here.
    pub fn lacks_of(&self, theirs: &Known) -> bool {
        let vector = self.intent.vector();
        let own = self.intent.actor();
        let writes = theirs.actors.iter().filter(|known| known.actor != own).any(|known| {
            let beyond = |counter: &u64| !vector.knows(&Dot::new(known.actor, *counter));
            vector.counter(&known.actor) < known.upto || known.ahead.iter().any(beyond)
        });
        writes || theirs.reports.iter().any(|(node, theirs)| *node != own.node && self.reports.head(node) < *theirs)
    }

    /// Returns how many writes known here a peer does not know, of the nodes of which it told.
    pub fn behind(&self, theirs: &Known) -> u64 {
        let known = by_actor(theirs);
        let told = |node: &NodeId| theirs.span.contains(node) && theirs.parts.contains(node);
        let inside = self.intent.vector().iter().filter(|(actor, _)| told(&actor.node));
        inside
            .map(|(actor, counter)| counter.saturating_sub(known.get(&actor).map_or(0, |known| known.upto)))
            .fold(0, u64::saturating_add)
    }

    /// Returns the entries from a cursor on, cut to one message.
    pub fn repair(&self, from: Option<&Cursor>) -> Repair {
        let mut repair = Repair { entries: Vec::new(), next: None };
        let (mut used, mut cursor) = (0, Cursor { key: Key { kind: 0, name: String::new() }, versions: 0 });
        for entry in self.intent.entries_from(from.map(|from| &from.key)) {
            cursor.versions = if cursor.key == entry.key { cursor.versions.saturating_add(1) } else { 0 };
            cursor.key = entry.key.clone();
            if from.is_some_and(|from| from.key == cursor.key && cursor.versions < from.versions) {
                continue;
            }
            if used > BATCH_BYTES_MAX {
                repair.next = Some(cursor);
                return repair;
            }
            used += entry.weight();
            repair.entries.push(entry);
        }
        repair
    }

    fn actors(&self, span: &Span, parts: &Parts) -> BTreeMap<Actor, ActorKnown> {
        let vector = self.intent.vector();
        let told = |node: &NodeId| span.contains(node) && parts.contains(node);
        let fresh = |actor, upto| ActorKnown { actor, upto, ahead: BTreeSet::new() };
        let mut actors: BTreeMap<Actor, ActorKnown> = vector
            .iter()
            .filter(|(actor, _)| told(&actor.node))
            .map(|(actor, upto)| (actor, fresh(actor, upto)))
            .collect();
        for (actor, ahead) in vector.pending().filter(|(actor, _)| told(&actor.node)) {
            actors.entry(actor).or_insert_with(|| fresh(actor, 0)).ahead.clone_from(ahead);
        }
        actors
    }

    fn heads(&self, span: &Span, parts: &Parts) -> BTreeMap<NodeId, Head> {
        self.reports.heads().filter(|(node, _)| span.contains(node) && parts.contains(node)).collect()
    }
}

/// Below so many actors or nodes, what is known is told in full at once.
const LINES_IN_FULL: usize = 64;

/// Returns a hash of what is known of the nodes in each of `count` parts.
fn sketched(actors: &BTreeMap<Actor, ActorKnown>, heads: &BTreeMap<NodeId, Head>, count: usize) -> Vec<u32> {
    let of = u16::try_from(count).unwrap_or(1);
    let mut parts: Vec<Vec<u8>> = alloc::vec![Vec::new(); count];
    for known in actors.values() {
        parts[usize::from(Parts::number(of, &known.actor.node))].extend(wire::encode(known));
    }
    for line in heads {
        parts[usize::from(Parts::number(of, line.0))].extend(wire::encode(&line));
    }
    parts.iter().map(|part| (hash::rank64("part", &[part]) >> 32) as u32).collect()
}

fn by_actor(known: &Known) -> BTreeMap<Actor, &ActorKnown> {
    known.actors.iter().map(|known| (known.actor, known)).collect()
}

/// What one line of [`Known::reports`] takes in a message at most, in bytes.
const HEAD_BYTES_MAX: usize = 56;

/// Returns the bytes that one line of [`Known::actors`] takes in a message at most.
fn weight(known: &ActorKnown) -> usize {
    64 + 9 * known.ahead.len()
}

/// Returns the actors in a span. One node that has more of them than a message holds is cut short: what is left out
/// is at worst sent again.
fn actors_within(actors: &BTreeMap<Actor, ActorKnown>, span: &Span) -> Vec<ActorKnown> {
    let mut left = 2 * BATCH_BYTES_MAX;
    let inside = actors.values().filter(|known| span.contains(&known.actor.node));
    let fits = inside.take_while(|known| {
        let fits = weight(known) <= left;
        left = left.saturating_sub(weight(known));
        fits
    });
    fits.cloned().collect()
}

/// Cuts a span into pieces that fit into one message each and leave nothing out.
fn pieces(span: Span, weights: &BTreeMap<NodeId, usize>) -> Vec<Span> {
    let mut pieces = Vec::new();
    let (mut first, mut used) = (span.first, 0);
    for (&node, &weight) in weights {
        if used > 0 && used + weight > 2 * BATCH_BYTES_MAX {
            pieces.push(Span { first, last: before(node) });
            (first, used) = (node, 0);
        }
        used += weight;
    }
    pieces.push(Span { first, last: span.last });
    pieces
}

/// Returns the greatest id below one that is not the least.
fn before(node: NodeId) -> NodeId {
    let mut bytes = node.0;
    for byte in bytes.iter_mut().rev() {
        let (less, borrowed) = byte.overflowing_sub(1);
        *byte = less;
        if !borrowed {
            break;
        }
    }
    NodeId(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_span_without_a_gap() {
        let weights: BTreeMap<NodeId, usize> = (0..5_000_u32)
            .map(|number| {
                let mut bytes = [0; 32];
                bytes[..4].copy_from_slice(&(number * 7 + 256).to_be_bytes());
                (NodeId(bytes), 60)
            })
            .collect();
        let pieces = pieces(Span::ALL, &weights);
        assert_eq!(pieces.len(), 3);
        assert_eq!((pieces[0].first, pieces[2].last), (Span::ALL.first, Span::ALL.last));
        for pair in pieces.windows(2) {
            assert_eq!(pair[0].last, before(pair[1].first));
        }
        for piece in &pieces {
            let nodes = weights.keys().filter(|node| piece.contains(node)).count();
            assert!(nodes * 60 <= 2 * BATCH_BYTES_MAX);
        }
    }
}
