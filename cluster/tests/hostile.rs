//! Bytes from broken and hostile peers: nothing panics, nothing is believed that must not be.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use shoal_cluster::limits::{MESSAGE_BYTES_MAX, RECORD_BYTES_MAX};
use shoal_cluster::record::Record;
use shoal_cluster::sync::message::Message;
use shoal_cluster::wire;
use shoal_cluster::{Command, Event, Input, NodeId};
use support::{World, node_id, spec};

/// Real messages of every kind that a small shoal exchanges.
fn corpus() -> Vec<Vec<u8>> {
    let mut world = World::new(3);
    world.run(Duration::from_secs(5));
    for name in ["a", "b", "c"] {
        world.apply(1, Command::CreateService(spec(name, 2))).unwrap();
    }
    world.crash(2);
    world.apply(1, Command::CreateService(spec("d", 2))).unwrap();
    world.run(Duration::from_secs(20));
    world.start(2);
    world.run(Duration::from_secs(5));
    world.messages
}

/// What to do to a message: set a byte, cut it, or append to it.
#[derive(Clone, Debug)]
enum Harm {
    Set(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Append(Vec<u8>),
}

fn harm() -> impl Strategy<Value = Vec<Harm>> {
    let set = (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Harm::Set(at, byte));
    let cut = any::<prop::sample::Index>().prop_map(Harm::Cut);
    let append = proptest::collection::vec(any::<u8>(), 0..40).prop_map(Harm::Append);
    proptest::collection::vec(prop_oneof![6 => set, 1 => cut, 1 => append], 1..6)
}

fn harmed(message: &[u8], harms: &[Harm]) -> Vec<u8> {
    let mut bytes = message.to_vec();
    for harm in harms {
        match harm {
            Harm::Set(at, byte) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Harm::Cut(at) if !bytes.is_empty() => bytes.truncate(at.index(bytes.len())),
            Harm::Set(..) | Harm::Cut(_) => {}
            Harm::Append(more) => bytes.extend(more),
        }
    }
    bytes
}

/// Hands `count` harmed messages to the nodes in turn, always the same ones.
fn harm_world(world: &mut World, corpus: &[Vec<u8>], count: usize) {
    let mut runner = proptest::test_runner::TestRunner::new_with_rng(
        ProptestConfig::default(),
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let strategy = (any::<prop::sample::Index>(), harm());
    for round in 0..count {
        let (index, harms) = strategy.new_tree(&mut runner).unwrap().current();
        let message = harmed(&corpus[index.index(corpus.len())], &harms);
        world.input(round % 3, Input::Received { from: node_id((round + 1) % 3), message });
    }
    let dropped = |event: &Event| matches!(event, Event::MessageDropped { .. });
    assert!(world.nodes[0].events.iter().any(dropped));
}

#[test]
fn harmed_messages_of_every_kind_never_panic() {
    let corpus = corpus();
    let kinds: std::collections::BTreeSet<u16> = corpus.iter().map(|message| kind(message)).collect();
    assert!(kinds.is_superset(&[1, 2, 3, 4, 5].into()), "{kinds:?}");
    let mut world = World::new(3);
    world.run(Duration::from_secs(5));
    harm_world(&mut world, &corpus, 2_000);
}

/// What a member says of intent and reports is believed, so the planes hold nonsense afterwards; but all hold the
/// same nonsense, and go on.
#[test]
fn after_harmed_messages_the_nodes_agree_and_work() {
    let corpus: Vec<Vec<u8>> = corpus().into_iter().filter(|message| kind(message) != 1).collect();
    let mut world = World::new(3);
    world.run(Duration::from_secs(5));
    harm_world(&mut world, &corpus, 2_000);
    world.apply(0, Command::CreateService(spec("after", 1))).unwrap();
    world.run_until("all have the new service", |world| {
        (0..3).all(|number| world.services(number).iter().any(|(name, ..)| name == "after"))
    });
    world.run_until("all agree", World::agreed);
}

fn kind(message: &[u8]) -> u16 {
    wire::open(message, MESSAGE_BYTES_MAX).unwrap().kind
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = Message::decode(&bytes);
        let _ = Record::decode(&bytes);
    }

    #[test]
    fn random_bodies_of_every_kind_never_panic(kind in 0_u16..12, body in proptest::collection::vec(any::<u8>(), 0..600)) {
        let bytes = wire::encode(&(wire::WIRE_VERSION, kind, body));
        let _ = Message::decode(&bytes);
        let _ = Record::decode(&bytes);
    }
}

#[test]
fn a_message_that_is_too_long_is_dropped_unread() {
    let mut world = World::new(1);
    let from = NodeId([200; 32]);
    world.input(0, Input::Received { from, message: vec![0; MESSAGE_BYTES_MAX + 1] });
    let event = Event::MessageDropped { from, reason: "message is too long" };
    assert!(world.nodes[0].events.contains(&event));
}

#[test]
fn a_message_of_an_unknown_kind_is_ignored() {
    let mut world = World::new(1);
    let events = world.nodes[0].events.len();
    let message = wire::seal(4_000, &"from the future");
    world.input(0, Input::Received { from: NodeId([200; 32]), message });
    assert_eq!(world.nodes[0].events.len(), events);
}

#[test]
fn a_record_that_does_not_decode_stops_the_start_and_says_which() {
    let record = Record::Start(1).encode();
    for bad in [vec![], vec![9; 5], record[..record.len() - 1].to_vec(), vec![0; RECORD_BYTES_MAX + 1]] {
        let now = World::new(1).now();
        let config = shoal_cluster::Config::new([3; 32], 1, support::meta(0), Vec::new());
        let records = [record.clone(), bad].into_iter();
        let error = shoal_cluster::Cluster::restore(node_id(0), config, [0; 32], now, records);
        let text = error.map(|_| ()).map_err(|error| error.to_string());
        assert!(text.is_err_and(|text| text.starts_with("record 1 of the store does not decode")));
    }
}
