//! News: what is lost on the way whole is heard of in short and asked for, of whoever is there to give it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::time::Duration;

use shoal_cluster::clock::Stamp;
use shoal_cluster::crdt::{Actor, Context, Dot, Version};
use shoal_cluster::intent::Entry;
use shoal_cluster::intent::key::Key;
use shoal_cluster::reports::Head;
use shoal_cluster::sync::message::{Message, Push};
use shoal_cluster::sync::news::{LINES_MAX, Line, Short, Wish};
use shoal_cluster::{Command, Config, Input, NodeId};
use support::{World, node_id, spec};

const PUSH: u16 = 5;
const TOLD: u16 = 11;

/// Nobody compares with anybody, once all have met.
fn no_rounds(config: &mut Config) {
    config.sync_interval = Duration::from_secs(3_600);
}

fn met(count: usize, tune: fn(&mut Config)) -> World {
    let mut world = World::tuned(count, tune);
    world.run(Duration::from_secs(20));
    world
}

fn all_have(world: &mut World, name: &str) -> bool {
    (0..world.nodes.len()).all(|number| world.services(number).iter().any(|(held, ..)| held == name))
}

/// Returns the wishes that `from` sent to `to` since the world had sent so many messages.
fn wishes(world: &World, since: usize, from: usize, to: usize) -> Vec<Wish> {
    let sent = world.messages[since..].iter().zip(&world.ways[since..]);
    let between = sent.filter(|(_, way)| **way == (node_id(from), node_id(to)));
    let wishes = between.filter_map(|(message, _)| match Message::decode(message) {
        Ok(Some(Message::Wanted(wishes))) => Some(wishes),
        _ => None,
    });
    wishes.flatten().collect()
}

fn stranger_writes() -> Entry {
    let dot = Dot::new(Actor { node: NodeId([99; 32]), epoch: 3 }, 1);
    let stamp = Stamp { wall_ms: 1_700_000_000_000, logical: 0 };
    let version =
        Version { dot, context: Context::default(), stamp, value: None, author: Vec::new(), signature: Vec::new() };
    Entry { key: Key { kind: 40_000, name: "of-the-stranger".into() }, version }
}

fn knows_stranger(world: &World, number: usize) -> bool {
    world.core(number).intent().vector().knows(&stranger_writes().version.dot)
}

fn tell_of_stranger(world: &mut World, from: usize, to: usize) {
    let line = Line::Writes { of: Short([99; 8]), epoch: 3, upto: 1, beyond: 0 };
    world.input(to, Input::Received { from: node_id(from), message: Message::Told(vec![line]).encode() });
}

#[test]
fn a_change_that_is_lost_whole_on_every_way_is_asked_for() {
    for count in [12, 20] {
        let mut world = met(count, no_rounds);
        world.lost_kinds.insert(PUSH);
        world.apply(0, Command::CreateService(spec("web", 3))).unwrap();
        let took = world.run_until("all have it", |world| all_have(world, "web"));
        assert!(took < Duration::from_secs(1), "{count}: {took:?}");
        world.run_until("all have all reports", |world| {
            let head = |world: &World, number: usize, of: usize| world.core(number).reports().head(&node_id(of));
            let nodes = 0..world.nodes.len();
            nodes.clone().all(|of| nodes.clone().all(|number| head(world, number, of) == head(world, of, of)))
        });
        let write = world.core(0).written();
        assert!(world.core(0).copies(write) > 0, "whoever was given a write by its author has it on its disk");
    }
}

#[test]
fn without_loss_little_comes_twice() {
    let mut world = met(20, no_rounds);
    let since = world.messages.len();
    for round in 0..20 {
        world.apply(round, Command::CreateService(spec(&format!("s{round}"), 1))).unwrap();
        world.run(Duration::from_secs(1));
        assert!(all_have(&mut world, &format!("s{round}")));
    }
    let of_intent = |message: &Vec<u8>| match Message::decode(message) {
        Ok(Some(Message::Push(push))) => push.entries.iter().filter(|entry| entry.key.kind == 1).count(),
        Ok(Some(Message::Given(given))) => {
            given.intent.iter().flat_map(|range| &range.entries).filter(|entry| entry.key.kind == 1).count()
        }
        _ => 0,
    };
    let copies: usize = world.messages[since..].iter().map(of_intent).sum();
    assert!((19 * 20..23 * 20).contains(&copies), "19 others were sent each of 20 services, {copies} copies in all");
}

#[test]
fn who_was_asked_and_does_not_answer_is_replaced_by_another() {
    let mut world = met(3, no_rounds);
    world.lost_kinds = [PUSH, TOLD].into();
    let push = Push { hops: 0, entries: vec![stranger_writes()], reports: Vec::new() };
    world.input(2, Input::Received { from: NodeId([99; 32]), message: Message::Push(push).encode() });
    let since = world.messages.len();
    // Node 1 tells of it and has not got it to give.
    tell_of_stranger(&mut world, 1, 0);
    tell_of_stranger(&mut world, 2, 0);
    assert_eq!((wishes(&world, since, 0, 1).len(), wishes(&world, since, 0, 2).len()), (1, 0), "one at a time");
    world.run(Duration::from_millis(400));
    assert!(!knows_stranger(&world, 0));
    world.run(Duration::from_millis(200));
    assert!(knows_stranger(&world, 0) && !knows_stranger(&world, 1));
    assert_eq!((wishes(&world, since, 0, 1).len(), wishes(&world, since, 0, 2).len()), (1, 1));
    world.run(Duration::from_secs(10));
    assert_eq!(wishes(&world, since, 0, 2).len(), 1, "what has come is not asked for again");
}

#[test]
fn who_is_down_is_not_asked_again() {
    let mut world = met(3, no_rounds);
    world.lost_kinds = [PUSH, TOLD].into();
    let since = world.messages.len();
    tell_of_stranger(&mut world, 1, 0);
    world.crash(1);
    world.run(Duration::from_secs(10));
    assert_eq!(wishes(&world, since, 0, 1).len(), 2, "once more while it was thought to be up");
}

#[test]
fn a_member_that_tells_of_things_that_are_not_is_asked_for_a_bounded_number_of_them() {
    let mut world = met(3, no_rounds);
    let since = world.messages.len();
    for round in 0..50_u64 {
        let line = |number: u64| {
            let of = Short((round << 32 | number).to_be_bytes());
            if number.is_multiple_of(2) {
                Line::Report { of, head: Head { epoch: u64::MAX, edition: u32::MAX, seq: u64::MAX } }
            } else {
                Line::Writes { of, epoch: number, upto: u64::MAX, beyond: u64::MAX }
            }
        };
        let message = Message::Told((0..4_000).map(line).collect()).encode();
        world.input(0, Input::Received { from: node_id(1), message });
    }
    assert_eq!(wishes(&world, since, 0, 1).len(), LINES_MAX);
    // Others are heard all the same.
    world.apply(2, Command::CreateService(spec("web", 1))).unwrap();
    let took = world.run_until("all have it", |world| all_have(world, "web"));
    assert!(took < Duration::from_secs(1), "{took:?}");
    world.run(Duration::from_secs(10));
    assert!(wishes(&world, since, 0, 1).len() <= 4 * LINES_MAX, "and nothing is asked for ever");
}

#[test]
fn only_members_that_are_up_are_listened_to() {
    let mut world = met(2, no_rounds);
    let since = world.messages.len();
    let line = Line::Writes { of: Short([99; 8]), epoch: 3, upto: 1, beyond: 0 };
    let from = NodeId([98; 32]);
    world.input(0, Input::Received { from, message: Message::Told(vec![line]).encode() });
    assert!(world.ways[since..].iter().all(|(_, to)| *to != from));
}

#[test]
fn changes_arrive_soon_though_every_fifth_message_is_lost() {
    let mut world = met(20, |_| {});
    world.loss_permille = 200;
    let mut late = 0;
    for round in 0..20 {
        world.apply(round, Command::CreateService(spec(&format!("s{round}"), 1))).unwrap();
        let took = world.run_until("all have it", |world| all_have(world, &format!("s{round}")));
        // What is lost on every way waits for a comparison, every two seconds or so, whose messages are lost as well.
        assert!(took < Duration::from_secs(10), "{round}: {took:?}");
        late += u32::from(took >= Duration::from_secs(5));
    }
    assert!(late <= 1, "{late} of 20 took five seconds or more");
}
