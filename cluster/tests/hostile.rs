//! Bytes from broken and hostile peers: nothing panics, nothing is believed that must not be.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use shoal_cluster::clock::Stamp;
use shoal_cluster::crdt::{Actor, Context, Dot, Version};
use shoal_cluster::id::RolloutId;
use shoal_cluster::intent::Entry;
use shoal_cluster::intent::key::Key;
use shoal_cluster::intent::name::Name;
use shoal_cluster::limits::{MESSAGE_BYTES_MAX, RECORD_BYTES_MAX};
use shoal_cluster::record::Record;
use shoal_cluster::sync::message::{Message, Push};
use shoal_cluster::wire;
use shoal_cluster::{Command, Event, Input, NodeId, ServiceId};
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

/// One message, record and value of every kind, as the golden vectors write them down.
fn golden() -> Vec<(&'static str, Vec<u8>)> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let lines = include_str!("golden.txt").lines().map(|line| line.split_once(": ").unwrap());
    lines.map(|(name, hex)| (name, hex.as_bytes().chunks(2).map(byte).collect())).collect()
}

fn golden_records() -> Vec<Vec<u8>> {
    golden().into_iter().filter(|(name, _)| name.starts_with("record")).map(|(_, bytes)| bytes).collect()
}

/// The values of registers that are understood, with keys that they fit.
fn golden_values() -> Vec<(Key, Vec<u8>)> {
    let value = |wanted: &str| golden().into_iter().find(|(name, _)| *name == wanted).unwrap().1;
    let node = NodeId([0x11; 32]);
    let web = Name::new("web").unwrap();
    vec![
        (Key::service(&web), value("service")),
        (Key::node(&node), value("node intent")),
        (Key::verdict(&ServiceId([0x22; 16]), RolloutId(7)), value("verdict")),
        (Key::block(7), value("block claim")),
    ]
}

fn golden_messages() -> Vec<Vec<u8>> {
    let values = ["service", "node intent", "network", "secret", "part", "verdict", "volume claim", "block claim"];
    let messages = golden().into_iter().filter(|(name, _)| !name.starts_with("record") && !values.contains(name));
    messages.map(|(_, bytes)| bytes).collect()
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
    let mut corpus = corpus();
    // The rarer kinds would drown among the others.
    (0..corpus.len() / 20).for_each(|_| corpus.extend(golden_messages()));
    let kinds: BTreeSet<u16> = corpus.iter().map(|message| kind(message)).collect();
    assert_eq!(kinds, (1..=MESSAGE_KINDS).collect());
    let mut world = World::new(3);
    world.run(Duration::from_secs(5));
    harm_world(&mut world, &corpus, 4_000);
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

/// Message kinds that there are, from 1; and record kinds.
const MESSAGE_KINDS: u16 = 13;
const RECORD_KINDS: u16 = 6;

#[test]
fn there_is_a_golden_message_and_record_of_every_kind() {
    let kinds = |golden: Vec<Vec<u8>>| golden.iter().map(|bytes| kind(bytes)).collect::<BTreeSet<u16>>();
    assert_eq!(kinds(golden_messages()), (1..=MESSAGE_KINDS).collect());
    assert_eq!(kinds(golden_records()), (1..=RECORD_KINDS).collect());
    // Whoever adds a kind adds its golden vector, and so its share of what is done here.
    assert!(matches!(Message::decode(&wire::seal(MESSAGE_KINDS + 1, &0)), Ok(None)));
    assert!(Record::decode(&wire::seal(RECORD_KINDS + 1, &0)).is_err_and(|error| error.contains("newer")));
}

proptest! {
    #[test]
    fn harmed_messages_and_records_of_every_kind_decode_to_what_they_encode_or_not_at_all(
        index in any::<prop::sample::Index>(), harms in harm(),
    ) {
        let golden: Vec<Vec<u8>> = golden_messages().into_iter().chain(golden_records()).collect();
        let bytes = harmed(&golden[index.index(golden.len())], &harms);
        if let Ok(Some(message)) = Message::decode(&bytes) {
            let again = message.encode();
            prop_assert_eq!(Message::decode(&again).unwrap().unwrap().encode(), again);
        }
        if let Ok(record) = Record::decode(&bytes) {
            let again = record.encode();
            prop_assert_eq!(Record::decode(&again).unwrap(), record);
        }
    }

    /// A store that was written by something broken: the start is refused, or the node works.
    #[test]
    fn a_store_of_harmed_records_never_panics(
        picks in proptest::collection::vec((any::<prop::sample::Index>(), harm(), any::<bool>()), 1..8),
    ) {
        let golden = golden_records();
        let records = picks.iter().map(|(index, harms, whole)| {
            let record = &golden[index.index(golden.len())];
            if *whole { record.clone() } else { harmed(record, harms) }
        });
        let config = shoal_cluster::Config::new([3; 32], 1, support::meta(0), Vec::new());
        let now = World::new(1).now();
        if let Ok(mut core) = shoal_cluster::Cluster::restore(node_id(0), config, [0; 32], now, records) {
            core.handle(now, Input::Timeout);
            let created = core.apply(now, Command::CreateService(spec("works", 1)));
            prop_assert!(created.is_ok(), "{:?}", created);
            prop_assert!(core.views().services.iter().any(|service| service.spec.name.folded() == "works"));
        }
    }

    /// Values of registers that an author garbled: they are kept and passed on, and what of them counts makes sense.
    #[test]
    fn harmed_values_of_every_kind_never_panic(
        picks in proptest::collection::vec((any::<prop::sample::Index>(), harm()), 1..6),
    ) {
        let values = golden_values();
        let author = NodeId([0x11; 32]);
        let entries = picks.iter().zip(1..).map(|((index, harms), counter)| {
            let (key, value) = &values[index.index(values.len())];
            let version = Version {
                dot: Dot::new(Actor { node: author, epoch: 1 }, counter),
                context: Context::default(),
                stamp: Stamp { wall_ms: 1_700_000_000_000, logical: counter as u32 },
                value: Some(harmed(value, harms)),
                author: Vec::new(),
                signature: Vec::new(),
            };
            Entry { key: key.clone(), version }
        });
        let push = Message::Push(Push { hops: 0, entries: entries.collect(), reports: Vec::new() });
        let mut world = World::new(1);
        world.input(0, Input::Received { from: author, message: push.encode() });
        world.apply(0, Command::CreateService(spec("works", 1))).unwrap();
        prop_assert!(world.services(0).iter().any(|(name, ..)| name == "works"));
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = Message::decode(&bytes);
        let _ = Record::decode(&bytes);
    }

    #[test]
    fn random_bodies_of_every_kind_never_panic(kind in 0_u16..MESSAGE_KINDS + 2, body in proptest::collection::vec(any::<u8>(), 0..600)) {
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
