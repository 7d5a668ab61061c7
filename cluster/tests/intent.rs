//! Intent on a few nodes whose messages are lost, doubled and reordered, and which crash: all become equal, and
//! equal to what a slow oracle says.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use shoal_cluster::NodeId;
use shoal_cluster::crdt::{Actor, Dot, Version};
use shoal_cluster::intent::key::Key;
use shoal_cluster::intent::range::Range;
use shoal_cluster::intent::{Entry, Intent, Learned};
use shoal_cluster::limits::SKEW_MAX_MS;

const NODES: usize = 3;
const KEYS: u16 = 3;

#[derive(Clone, Debug)]
enum Step {
    Write {
        node: usize,
        key: u16,
        tombstone: bool,
        clock_ms: u64,
    },
    /// Any entry ever written reaches a node as a push.
    Push {
        entry: prop::sample::Index,
        to: usize,
    },
    /// One round from `from` to `to`, cut to `bytes`; of the ranges only those whose bit is set arrive.
    Sync {
        from: usize,
        to: usize,
        bytes: usize,
        arrive: u8,
    },
    /// The node starts again from what it made durable.
    Crash {
        node: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let write = (0..NODES, 0..KEYS, any::<bool>(), 0_u64..2_000)
        .prop_map(|(node, key, tombstone, clock_ms)| Step::Write { node, key, tombstone, clock_ms });
    let push = (any::<prop::sample::Index>(), 0..NODES).prop_map(|(entry, to)| Step::Push { entry, to });
    let sync = (0..NODES, 0..NODES, 1_usize..1_000, any::<u8>()).prop_map(|(from, to, bytes, arrive)| Step::Sync {
        from,
        to,
        bytes,
        arrive,
    });
    let crash = (0..NODES).prop_map(|node| Step::Crash { node });
    proptest::collection::vec(prop_oneof![4 => write, 4 => push, 3 => sync, 1 => crash], 1..60)
}

/// A node with what it made durable.
struct Node {
    intent: Intent,
    entries: Vec<Entry>,
    vector: BTreeMap<Actor, u64>,
}

impl Node {
    fn new(number: usize) -> Self {
        let actor = Actor { node: NodeId([number as u8 + 1; 32]), epoch: 1 };
        Self { intent: Intent::new(actor), entries: Vec::new(), vector: BTreeMap::new() }
    }

    fn restart(&mut self) {
        let actor = self.intent.actor();
        self.intent = Intent::new(Actor { epoch: actor.epoch + 1, ..actor });
        for entry in &self.entries {
            self.intent.restore(entry.clone());
        }
        for (&actor, &counter) in &self.vector {
            self.intent.restore_vector(actor, counter);
        }
    }

    fn learn(&mut self, entry: &Entry) {
        if self.intent.learn(0, entry.clone()) == Learned::New {
            self.entries.push(entry.clone());
        }
    }

    fn learn_range(&mut self, range: Range) -> bool {
        let actor = range.actor;
        let learned = self.intent.learn_range(0, range);
        let news = !learned.new.is_empty() || learned.upto.is_some();
        self.entries.extend(learned.new);
        self.vector.extend(learned.upto.map(|upto| (actor, upto)));
        news
    }

    /// What `other` lacks of what is known here.
    fn ranges_for(&self, other: &Intent, bytes: usize) -> Vec<Range> {
        let vector = self.intent.vector();
        let ahead: BTreeMap<Actor, BTreeSet<u64>> =
            other.vector().pending().map(|(actor, ahead)| (actor, ahead.clone())).collect();
        let actors: BTreeSet<Actor> =
            vector.iter().map(|(actor, _)| actor).chain(vector.pending().map(|(actor, _)| actor)).collect();
        let nothing = BTreeSet::new();
        let range = |actor: &Actor| {
            let ahead = ahead.get(actor).unwrap_or(&nothing);
            self.intent.range(*actor, other.vector().counter(actor), ahead, bytes)
        };
        actors.iter().filter_map(range).map(|(range, _)| range).collect()
    }
}

/// What was ever written, and what each write overwrote, kept apart from the contexts of the planes.
#[derive(Default)]
struct Oracle {
    written: Vec<Entry>,
    overwrites: Vec<BTreeSet<usize>>,
}

impl Oracle {
    /// A write overwrites the present survivors at its node and whatever those overwrote.
    fn write(&mut self, entry: &Entry, present: &[Version]) {
        let mut overwrites = BTreeSet::new();
        for version in present {
            let index = self.written.iter().position(|known| known.version.dot == version.dot).unwrap();
            overwrites.insert(index);
            overwrites.extend(self.overwrites[index].iter().copied());
        }
        self.written.push(entry.clone());
        self.overwrites.push(overwrites);
    }

    fn survivors(&self, key: &Key) -> BTreeSet<Vec<u8>> {
        let gone: BTreeSet<usize> = self.overwrites.iter().flatten().copied().collect();
        let alive = self.written.iter().enumerate().filter(|(index, entry)| !gone.contains(index) && entry.key == *key);
        alive.map(|(_, entry)| shoal_cluster::wire::encode(&entry.version)).collect()
    }
}

fn key(number: u16) -> Key {
    Key { kind: 900, name: format!("k{number}") }
}

fn play(steps: &[Step]) -> (Vec<Node>, Oracle) {
    let mut nodes: Vec<Node> = (0..NODES).map(Node::new).collect();
    let mut oracle = Oracle::default();
    for step in steps {
        match step {
            Step::Write { node, key: number, tombstone, clock_ms } => {
                let node = &mut nodes[*node];
                let present = node.intent.versions(&key(*number)).to_vec();
                let value = (!tombstone).then(|| vec![oracle.written.len() as u8; 100]);
                let entry = node.intent.write(*clock_ms, key(*number), value);
                node.entries.push(entry.clone());
                oracle.write(&entry, &present);
            }
            Step::Push { entry, to } => {
                if !oracle.written.is_empty() {
                    let entry = &oracle.written[entry.index(oracle.written.len())];
                    nodes[*to].learn(entry);
                }
            }
            Step::Sync { from, to, bytes, arrive } => {
                let ranges = nodes[*from].ranges_for(&nodes[*to].intent, *bytes);
                for (index, range) in ranges.into_iter().enumerate() {
                    if arrive & (1 << (index % 8)) != 0 {
                        nodes[*to].learn_range(range);
                    }
                }
            }
            Step::Crash { node } => nodes[*node].restart(),
        }
    }
    (nodes, oracle)
}

/// Lets every node ask every other until nobody lacks anything.
fn settle(nodes: &mut [Node]) {
    for _ in 0..1_000 {
        let mut news = false;
        for from in 0..nodes.len() {
            for to in 0..nodes.len() {
                let ranges = nodes[from].ranges_for(&nodes[to].intent, 150);
                for range in ranges {
                    news |= nodes[to].learn_range(range);
                }
            }
        }
        if !news {
            return;
        }
    }
    panic!("the nodes do not settle");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn nodes_converge_on_what_the_oracle_says(steps in steps()) {
        let (mut nodes, oracle) = play(&steps);
        settle(&mut nodes);
        for node in &nodes {
            prop_assert_eq!(node.intent.digest(), nodes[0].intent.digest());
            prop_assert_eq!(node.intent.vector(), nodes[0].intent.vector());
            prop_assert_eq!(node.intent.vector().pending().count(), 0);
            for number in 0..KEYS {
                let held = node.intent.versions(&key(number));
                let held: BTreeSet<Vec<u8>> = held.iter().map(shoal_cluster::wire::encode).collect();
                prop_assert_eq!(held, oracle.survivors(&key(number)));
            }
        }
    }

    #[test]
    fn the_digest_follows_the_entries_whatever_way_they_came(steps in steps()) {
        let (nodes, _) = play(&steps);
        for node in &nodes {
            let mut fresh = Intent::new(Actor { node: NodeId([99; 32]), epoch: 1 });
            for entry in node.intent.entries() {
                fresh.restore(entry);
            }
            prop_assert_eq!(fresh.digest(), node.intent.digest());
        }
    }
}

#[test]
fn a_write_that_waits_for_a_lost_one_still_reaches_everyone() {
    let mut nodes: Vec<Node> = (0..3).map(Node::new).collect();
    let lost = nodes[0].intent.write(1, key(0), Some(vec![1]));
    let known = nodes[0].intent.write(1, key(1), Some(vec![2]));
    nodes[1].learn(&known);
    // The author never comes back: what the second node has lies behind a hole for ever.
    let mut left: Vec<Node> = nodes.drain(1..).collect();
    settle(&mut left);
    assert_eq!(left[0].intent.digest(), left[1].intent.digest());
    assert_eq!(left[1].intent.versions(&known.key).len(), 1);
    assert!(!left[1].intent.vector().knows(&lost.version.dot));
}

#[test]
fn an_entry_from_a_clock_far_ahead_is_refused_and_asked_for_again() {
    let mut ahead = Node::new(0);
    let mut node = Node::new(1);
    let far_ms = SKEW_MAX_MS + 2_000;
    ahead.intent.write(10, key(0), Some(vec![1]));
    ahead.intent.write(far_ms, key(1), Some(vec![2]));
    let ranges = ahead.ranges_for(&node.intent, 10_000);
    let refused: Vec<_> = ranges.into_iter().map(|range| node.intent.learn_range(1_000, range).refused).collect();
    assert!(refused[0].is_some());
    assert_eq!((node.intent.versions(&key(0)).len(), node.intent.versions(&key(1)).len()), (1, 0));
    let ranges = ahead.ranges_for(&node.intent, 10_000);
    assert_eq!(ranges.iter().map(|range| range.entries.len()).sum::<usize>(), 1, "only the refused one is left");
    for range in ranges {
        node.intent.learn_range(far_ms, range);
    }
    assert_eq!(node.intent.digest(), ahead.intent.digest());
}

#[test]
fn the_lower_key_hash_keeps_a_block_that_two_nodes_claim_at_once() {
    let mut nodes: Vec<Node> = (0..2).map(Node::new).collect();
    let claims: Vec<Entry> = nodes.iter_mut().map(|node| node.intent.claim_block(1, 7)).collect();
    nodes[0].learn(&claims[1]);
    nodes[1].learn(&claims[0]);
    let holders: Vec<Vec<(u16, NodeId)>> = nodes.iter().map(|node| node.intent.blocks().collect()).collect();
    assert_eq!(holders[0], holders[1]);
    assert_eq!(holders[0].len(), 1);
    let hash = |node: &NodeId| shoal_cluster::hash::digest("block-claim", &[&node.0]);
    let ids = nodes.iter().map(|node| node.intent.actor().node);
    assert_eq!(Some(holders[0][0].1), ids.min_by_key(hash));
}

#[test]
fn a_claim_for_another_node_does_not_count() {
    let mut node = Node::new(0);
    let victim = shoal_cluster::wire::encode(&NodeId([9; 32]));
    node.intent.write(1, Key::block(7), Some(victim));
    assert_eq!(node.intent.blocks().count(), 0);
}

#[test]
fn a_range_that_claims_the_receivers_own_writes_changes_nothing() {
    let mut node = Node::new(0);
    let actor = node.intent.actor();
    node.intent.learn_range(0, Range { actor, after: 0, upto: u64::MAX, entries: Vec::new(), collected: 0 });
    let entry = node.intent.write(1, key(0), None);
    assert_eq!(entry.version.dot, Dot::new(actor, 1));
}

#[test]
fn nodes_that_know_the_same_writes_and_differ_repair_each_other() {
    let mut nodes: Vec<Node> = (0..2).map(Node::new).collect();
    let entry = nodes[0].intent.write(1, key(0), Some(vec![1]));
    let actor = nodes[0].intent.actor();
    // A broken node vouches for a write that it does not pass on.
    nodes[1].learn_range(Range { actor, after: 0, upto: 1, entries: Vec::new(), collected: 0 });
    assert!(nodes[1].intent.vector().knows(&entry.version.dot));
    assert_eq!(nodes[1].intent.learn(1, entry.clone()), Learned::Known);
    assert_eq!(nodes[1].intent.repair(1, &entry), Learned::New);
    assert_eq!(nodes[1].intent.repair(1, &entry), Learned::Known);
    assert_eq!(nodes[0].intent.digest(), nodes[1].intent.digest());
}
