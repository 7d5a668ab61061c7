//! Keeping: writes on other disks, tombstones that are forgotten and resurrect nothing, conflicts that are shown, and
//! entries of unknown kinds.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::time::Duration;

use shoal_cluster::crdt::{Actor, Context, Dot, Version};
use shoal_cluster::intent::Entry;
use shoal_cluster::intent::key::Key;
use shoal_cluster::record::Record;
use shoal_cluster::sync::message::{Message, Push};
use shoal_cluster::{Command, Config, Event, Input, NodeId, Receipt, ServiceId};
use support::{World, node_id, spec};

/// Tombstones are kept for ten minutes here.
fn short(config: &mut Config) {
    config.tombstone_horizon = Duration::from_secs(600);
}

fn create(world: &mut World, number: usize, name: &str) -> ServiceId {
    match world.apply(number, Command::CreateService(spec(name, 1))) {
        Ok(Receipt::Service { id, .. }) => id,
        other => panic!("{other:?}"),
    }
}

fn names(world: &mut World, number: usize) -> Vec<String> {
    world.services(number).into_iter().map(|(name, ..)| name).collect()
}

fn graves(world: &World) -> Vec<usize> {
    world.nodes.iter().filter_map(|node| node.core.as_ref()).map(|core| core.intent().grave_count()).collect()
}

/// Three nodes on which `count` services were made and removed again.
fn with_graves(count: usize) -> World {
    let mut world = World::tuned(3, short);
    world.run(Duration::from_secs(10));
    create(&mut world, 0, "stays");
    for number in 0..count {
        let id = create(&mut world, number % 3, &format!("gone-{number}"));
        world.apply(number % 3, Command::RemoveService(id)).unwrap();
    }
    world.run_until("all agree", World::agreed);
    world
}

#[test]
fn tombstones_go_once_all_know_them_and_the_horizon_has_passed() {
    let mut world = with_graves(5);
    world.run(Duration::from_secs(500));
    assert_eq!(graves(&world), [5, 5, 5], "the horizon has not passed");
    world.run(Duration::from_secs(300));
    assert_eq!(graves(&world), [0, 0, 0]);
    assert!(world.agreed());
    for number in 0..3 {
        assert_eq!(names(&mut world, number), ["stays"]);
    }
}

#[test]
fn tombstones_wait_for_a_member_that_is_away_for_less_than_the_horizon() {
    let mut world = with_graves(0);
    let id = create(&mut world, 0, "gone");
    world.run_until("all agree", World::agreed);
    world.crash(2);
    world.apply(0, Command::RemoveService(id)).unwrap();
    world.run(Duration::from_secs(580));
    assert_eq!(graves(&world), [1, 1]);
    world.start(2);
    world.run(Duration::from_secs(5));
    assert_eq!(names(&mut world, 2), ["stays"]);
    world.run(Duration::from_secs(120));
    assert_eq!(graves(&world), [0, 0, 0]);
}

#[test]
fn a_node_away_for_longer_than_the_horizon_resurrects_nothing_and_keeps_what_only_it_knows() {
    for compacted in [false, true] {
        let mut world = with_graves(0);
        let ids = [create(&mut world, 0, "gone"), create(&mut world, 2, "its-own")];
        world.run_until("all agree", World::agreed);
        // A write that reached no other node before the lights went out.
        world.loss_permille = 1_000;
        create(&mut world, 2, "unheard");
        world.crash(2);
        world.loss_permille = 0;
        for id in ids {
            world.apply(0, Command::RemoveService(id)).unwrap();
        }
        world.run(Duration::from_secs(2_000));
        assert_eq!(graves(&world), [0, 0], "who is away for that long is not waited for");
        for number in 0..2 {
            if compacted {
                world.compact(number);
            }
            // What was forgotten stays known over a restart.
            world.crash(number);
            world.start(number);
        }
        world.run(Duration::from_secs(20));
        world.start(2);
        world.run(Duration::from_millis(300));
        for number in 0..2 {
            assert!(names(&mut world, number).iter().all(|name| !["gone", "its-own"].contains(&name.as_str())));
        }
        world.run_until("all agree", World::agreed);
        for number in 0..3 {
            assert_eq!(names(&mut world, number), ["stays", "unheard"]);
        }
        // Its own restart does not bring them back either.
        world.crash(2);
        world.start(2);
        assert_eq!(names(&mut world, 2), ["stays", "unheard"]);
        world.run(Duration::from_secs(30));
        assert!(world.agreed());
    }
}

#[test]
fn what_is_removed_for_ever_takes_no_room_in_a_snapshot() {
    let mut world = with_graves(0);
    let before = world.core(0).snapshot().len();
    for round in 0..40 {
        let id = create(&mut world, round % 3, &format!("s{round}"));
        world.run(Duration::from_secs(1));
        world.apply(round % 3, Command::RemoveService(id)).unwrap();
    }
    world.run_until("all agree", World::agreed);
    assert!(world.core(0).snapshot().len() >= before + 40);
    world.run(Duration::from_secs(900));
    // One record more says what was forgotten.
    assert!(
        world.core(0).snapshot().len() <= before + 2,
        "{} records, {before} before",
        world.core(0).snapshot().len()
    );
}

#[test]
fn a_worker_cannot_make_others_forget() {
    let mut world = with_graves(0);
    let entry = world.core(1).intent().entries().find(|entry| entry.key.kind == 1).unwrap();
    let stranger = NodeId([99; 32]);
    let gone = shoal_cluster::sync::message::Gone { writes: vec![(entry.key.clone(), entry.version.dot)] };
    world.input(1, Input::Received { from: stranger, message: Message::Gone(gone).encode() });
    assert_eq!(names(&mut world, 1), ["stays"]);
    let reason = "only a manager may say what was removed";
    assert!(world.nodes[1].events.contains(&Event::MessageDropped { from: stranger, reason }));
}

#[test]
fn a_write_is_known_to_be_on_another_disk_within_a_second_though_half_of_all_messages_are_lost() {
    let mut world = World::new(3);
    world.run(Duration::from_secs(10));
    world.loss_permille = 500;
    for round in 0..20 {
        create(&mut world, round % 3, &format!("s{round}"));
        let write = world.core(round % 3).written();
        assert_eq!(world.core(round % 3).copies(write), 0, "nobody can have said so yet");
        let took = world.run_until("a copy", |world| world.core(round % 3).copies(write) > 0);
        assert!(took < Duration::from_secs(3), "{took:?}");
    }
}

#[test]
fn a_lone_node_knows_that_it_is_alone_with_its_write() {
    let mut world = World::new(1);
    create(&mut world, 0, "web");
    world.run(Duration::from_secs(10));
    assert_eq!((world.core(0).others_up_count(), world.core(0).copies(world.core(0).written())), (0, 0));
}

#[test]
fn who_left_might_not_store_a_write_and_who_is_down_might() {
    let mut world = World::new(3);
    world.run(Duration::from_secs(10));
    assert_eq!(world.core(0).others_count(), 2);
    world.apply(2, Command::Leave).expect("a member may leave");
    world.crash(1);
    world.run_until("both are gone", |world| world.core(0).others_up_count() == 0);
    assert_eq!(world.core(0).others_count(), 1);
}

#[test]
fn a_copy_survives_the_writer() {
    let mut world = World::new(2);
    world.run(Duration::from_secs(10));
    create(&mut world, 0, "web");
    let write = world.core(0).written();
    world.run_until("a copy", |world| world.core(0).copies(write) > 0);
    world.crash(0);
    world.nodes[0].disk.clear();
    world.crash(1);
    world.start(1);
    assert_eq!(names(&mut world, 1), ["web"], "it was durable there when it said so");
}

#[test]
fn conflicts_are_alike_on_all_nodes_until_someone_writes_again() {
    let mut world = World::new(3);
    world.run(Duration::from_secs(10));
    create(&mut world, 0, "web");
    create(&mut world, 2, "web");
    world.run_until("all agree", World::agreed);
    let conflicts = world.views(0).conflicts.clone();
    assert_eq!(conflicts.len(), 1);
    assert_eq!(conflicts[0].key.name, "web");
    let authors: Vec<NodeId> = conflicts[0].versions.iter().map(|rival| rival.author).collect();
    assert!(authors.contains(&node_id(0)) && authors.contains(&node_id(2)) && authors.len() == 2);
    let ranks: Vec<_> = conflicts[0].versions.iter().map(|rival| (rival.stamp, rival.dot.actor)).collect();
    assert!(ranks[0] > ranks[1], "the later one counts");
    for number in 1..3 {
        assert_eq!(world.views(number).conflicts, conflicts);
    }
    let service = world.views(1).services[0].clone();
    world.apply(1, Command::UpdateService { id: service.id, version: service.version, spec: spec("web", 2) }).unwrap();
    world.run_until("it is settled", |world| (0..3).all(|number| world.views(number).conflicts.is_empty()));
}

/// An entry of a kind that no binary of today knows.
fn from_the_future() -> Entry {
    let dot = Dot::new(Actor { node: NodeId([77; 32]), epoch: 3 }, 1);
    let stamp = shoal_cluster::clock::Stamp { wall_ms: 1_700_000_000_000, logical: 0 };
    let value = Some(vec![0xff, 0, 1, 2]);
    let version = Version { dot, context: Context::default(), stamp, value, author: vec![1], signature: vec![2] };
    Entry { key: Key { kind: 40_000, name: "teleporter".into() }, version }
}

#[test]
fn entries_of_unknown_kinds_are_kept_and_passed_on_as_they_are() {
    let mut world = World::new(3);
    world.run(Duration::from_secs(10));
    let entry = from_the_future();
    let push = Message::Push(Push { hops: 1, entries: vec![entry.clone()], reports: Vec::new() });
    world.input(0, Input::Received { from: NodeId([77; 32]), message: push.encode() });
    world.run_until("all agree", World::agreed);
    for number in [1, 2] {
        world.crash(number);
        world.start(number);
        assert!(world.core(number).intent().entries().any(|held| held == entry));
    }
    let kept = world.nodes[2].disk.iter().any(|record| Record::decode(record) == Ok(Record::Entry(entry.clone())));
    assert!(kept, "byte for byte");
}
