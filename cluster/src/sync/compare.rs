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
    /// Returns what this node has, as hashes. Of `same`, if given, the writes are still the same.
    pub fn digests(&self, same: Option<Digests>) -> Digests {
        let all = Parts::default();
        let (intent, writes) = match same {
            Some(same) => (same.intent, same.writes),
            None => (self.intent.digest(), hash::digest("writes", &[&wire::encode(&self.actors(&Span::ALL, &all))])),
        };
        let known = hash::digest("known", &[&writes, &wire::encode(&self.heads(&Span::ALL, &all))]);
        Digests { intent, plan: self.plan, known, writes }
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
        let mut weights: BTreeMap<NodeId, usize> = heads.iter().map(|(node, _)| (*node, HEAD_BYTES_MAX)).collect();
        for known in &actors {
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
                reports: heads.iter().filter(|(node, _)| span.contains(node)).copied().collect(),
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
        for own in self.actors(&theirs.span, &theirs.parts) {
            let (upto, ahead) = find(&known, &own.actor).map_or((0, &nothing), |known| (known.upto, &known.ahead));
            if own.upto <= upto && own.ahead.is_empty() {
                continue;
            }
            let Some((range, complete)) = self.intent.range(own.actor, upto, ahead, budget) else { continue };
            let weight = 64 + range.entries.iter().map(Entry::weight).sum::<usize>();
            budget = budget.saturating_sub(weight);
            ranges.intent.push(range);
            if !complete || budget == 0 {
                ranges.more = true;
                return Some(ranges);
            }
        }
        let mut heads = theirs.reports.clone();
        heads.sort_by_key(|(node, _)| *node);
        for (node, _) in self.heads(&theirs.span, &theirs.parts) {
            let head = heads.binary_search_by_key(&node, |(node, _)| *node).map_or(Head::default(), |at| heads[at].1);
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
            .map(|(actor, counter)| counter.saturating_sub(find(&known, &actor).map_or(0, |known| known.upto)))
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

    /// Returns what is known of each actor in `span` and `parts`, in order.
    fn actors(&self, span: &Span, parts: &Parts) -> Vec<ActorKnown> {
        let vector = self.intent.vector();
        let told = |node: &NodeId| span.contains(node) && parts.contains(node);
        let fresh = |actor, upto| ActorKnown { actor, upto, ahead: BTreeSet::new() };
        let known = vector.iter().filter(|(actor, _)| told(&actor.node));
        let mut actors: Vec<ActorKnown> = known.map(|(actor, upto)| fresh(actor, upto)).collect();
        for (actor, ahead) in vector.pending().filter(|(actor, _)| told(&actor.node)) {
            let place = actors.binary_search_by_key(&actor, |known| known.actor).unwrap_or_else(|place| {
                actors.insert(place, fresh(actor, 0));
                place
            });
            actors[place].ahead.clone_from(ahead);
        }
        actors
    }

    /// Returns how far each report in `span` and `parts` goes, in order of node.
    fn heads(&self, span: &Span, parts: &Parts) -> Vec<(NodeId, Head)> {
        self.reports.heads().filter(|(node, _)| span.contains(node) && parts.contains(node)).collect()
    }
}

/// Below so many actors or nodes, what is known is told in full at once.
const LINES_IN_FULL: usize = 64;

/// Returns a hash of what is known of the nodes in each of `count` parts: the sum of the hashes of its lines.
fn sketched(actors: &[ActorKnown], heads: &[(NodeId, Head)], count: usize) -> Vec<u32> {
    let of = u16::try_from(count).unwrap_or(1);
    let mut parts = alloc::vec![0_u64; count];
    let mut add = |node: &NodeId, line: u64| {
        let part = &mut parts[usize::from(Parts::number(of, node))];
        *part = part.wrapping_add(line);
    };
    for ActorKnown { actor, upto, ahead } in actors {
        let words = [1, actor.epoch, *upto].into_iter().chain(ahead.iter().copied());
        add(&actor.node, hash::quick(actor.node.words().into_iter().chain(words)));
    }
    for (node, Head { epoch, edition, seq }) in heads {
        let words = [2, *epoch, u64::from(*edition), *seq];
        add(node, hash::quick(node.words().into_iter().chain(words)));
    }
    parts.iter().map(|part| (part >> 32) as u32).collect()
}

/// Returns what was told of each actor, in order.
fn by_actor(known: &Known) -> Vec<&ActorKnown> {
    let mut actors: Vec<&ActorKnown> = known.actors.iter().collect();
    actors.sort_by_key(|known| known.actor);
    actors
}

fn find<'a>(actors: &[&'a ActorKnown], actor: &Actor) -> Option<&'a ActorKnown> {
    actors.binary_search_by_key(actor, |known| known.actor).ok().map(|place| actors[place])
}

/// What one line of [`Known::reports`] takes in a message at most, in bytes.
const HEAD_BYTES_MAX: usize = 56;

/// Returns the bytes that one line of [`Known::actors`] takes in a message at most.
fn weight(known: &ActorKnown) -> usize {
    64 + 9 * known.ahead.len()
}

/// Returns the actors in a span. One node that has more of them than a message holds is cut short: what is left out
/// is at worst sent again.
fn actors_within(actors: &[ActorKnown], span: &Span) -> Vec<ActorKnown> {
    let mut left = 2 * BATCH_BYTES_MAX;
    let inside = actors.iter().filter(|known| span.contains(&known.actor.node));
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
