//! Three cores in a small world: they join, agree, and come back from their disks.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use shoal_cluster::reports::task::TaskState;
use shoal_cluster::{Command, CommandError, Event, Receipt};
use support::{World, node_id, spec};

fn joined() -> World {
    let mut world = World::new(3);
    world.run_until("all know all", |world| (0..3).all(|number| world.views(number).members.len() == 3));
    world.run_until("all agree", World::agreed);
    world
}

fn create(world: &mut World, number: usize, name: &str) -> shoal_cluster::ServiceId {
    match world.apply(number, Command::CreateService(spec(name, 3))) {
        Ok(Receipt::Service { id, version: 1 }) => id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lone_node_acts_at_once() {
    let mut world = World::new(1);
    assert!(world.nodes[0].events.contains(&Event::Settled));
    create(&mut world, 0, "web");
    assert_eq!(world.services(0), [("web".to_string(), 1, 3)]);
}

#[test]
fn a_service_made_on_one_node_is_known_on_all() {
    let mut world = joined();
    create(&mut world, 1, "web");
    let took = world.run_until("all have it", |world| (0..3).all(|number| world.services(number).len() == 1));
    assert!(took < Duration::from_secs(1), "a push, not a round: {took:?}");
    world.run_until("all agree", World::agreed);
}

#[test]
fn a_service_reaches_all_though_half_of_all_messages_are_lost() {
    let mut world = joined();
    world.loss_permille = 500;
    for name in ["a", "b", "c", "d"] {
        create(&mut world, 2, name);
    }
    world.run(Duration::from_secs(10));
    world.loss_permille = 0;
    world.run_until("all have them", |world| (0..3).all(|number| world.services(number).len() == 4));
    world.run_until("all agree", World::agreed);
}

#[test]
fn commands_are_refused_with_a_reason() {
    let mut world = World::new(1);
    let id = create(&mut world, 0, "web");
    let taken = world.apply(0, Command::CreateService(spec("WEB", 1)));
    assert!(matches!(taken, Err(CommandError::NameTaken(name)) if name.as_str() == "web"));
    let renamed = world.apply(0, Command::UpdateService { id, version: 1, spec: spec("other", 1) });
    assert!(matches!(renamed, Err(CommandError::Rename { .. })));
    let updated = world.apply(0, Command::UpdateService { id, version: 1, spec: spec("web", 5) });
    assert_eq!(updated, Ok(Receipt::Service { id, version: 2 }));
    let stale = world.apply(0, Command::UpdateService { id, version: 1, spec: spec("web", 6) });
    let text = stale.map_err(|error| error.to_string());
    assert!(text.is_err_and(|text| text.ends_with("update out of sequence")));
    let service = world.views(0).services[0].clone();
    assert_eq!(
        (service.revision, service.spec.replicas),
        (spec("web", 3).task.revision(), 5),
        "scaling is no revision"
    );
    let mut forced = spec("web", 5);
    forced.task.force_update = 1;
    assert!(world.apply(0, Command::UpdateService { id, version: 2, spec: forced }).is_ok());
    assert_ne!(world.views(0).services[0].revision, service.revision);
    assert_eq!(world.apply(0, Command::RemoveService(id)), Ok(Receipt::Done));
    assert_eq!(world.apply(0, Command::RemoveService(id)), Err(CommandError::NoSuchService(id)));
    let again = create(&mut world, 0, "web");
    assert_ne!(again, id, "a new service under an old name has a new id");
}

#[test]
fn two_creations_of_one_name_meet_in_one_service() {
    let mut world = joined();
    let first = create(&mut world, 0, "web");
    let second = create(&mut world, 1, "web");
    world.run_until("all agree", World::agreed);
    let served: Vec<_> = (0..3).map(|number| world.views(number).services[0].id).collect();
    assert_eq!(served, [served[0]; 3]);
    assert!(served[0] == first || served[0] == second);
    // Whoever writes next overwrites both.
    let version = world.views(2).services[0].version;
    world.apply(2, Command::UpdateService { id: served[0], version, spec: spec("web", 9) }).unwrap();
    world.run_until("all see it", |world| (0..3).all(|number| world.services(number)[0].2 == 9));
}

#[test]
fn a_node_that_was_away_catches_up_and_resurrects_nothing() {
    let mut world = joined();
    let gone = create(&mut world, 2, "gone");
    world.run_until("all have it", |world| (0..3).all(|number| world.services(number).len() == 1));
    world.crash(2);
    world.apply(0, Command::RemoveService(gone)).unwrap();
    create(&mut world, 0, "new");
    world.run(Duration::from_secs(30));
    world.start(2);
    world.run_until("all have the new one only", |world| {
        (0..3).all(|number| world.services(number) == [("new".to_string(), 1, 3)])
    });
    world.run_until("all agree", World::agreed);
}

#[test]
fn all_nodes_killed_at_once_come_back_with_everything() {
    for compacted in [false, true] {
        let mut world = joined();
        for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
            create(&mut world, number, name);
        }
        world.run_until("all have them", |world| (0..3).all(|number| world.services(number).len() == 3));
        world.run_until("all agree", World::agreed);
        let before = world.views(0).agreement.intent;
        for number in 0..3 {
            if compacted {
                world.compact(number);
            }
            world.crash(number);
        }
        for number in 0..3 {
            world.start(number);
            assert_eq!(world.services(number).len(), 3, "its own disk is enough");
        }
        world.run_until("all agree", World::agreed);
        assert_eq!(world.views(0).services.len(), 3);
        let blocks_moved = world.views(0).agreement.intent != before;
        assert!(!blocks_moved, "a restart writes nothing");
        // The next write is a new one: no dot is used twice.
        create(&mut world, 0, "d");
        world.run_until("all have it", |world| (0..3).all(|number| world.services(number).len() == 4));
    }
}

#[test]
fn a_node_killed_at_any_record_loses_nothing_acknowledged() {
    for victim in 0..2 {
        for boundary in 1.. {
            let mut world = joined();
            world.nodes[victim].crash_after_persists = Some(boundary);
            let mut acknowledged = Vec::new();
            for name in ["a", "b", "c"] {
                let writer = if name == "b" { 1 } else { 0 };
                if world.nodes[writer].core.is_some() {
                    create(&mut world, writer, name);
                    if world.nodes[writer].core.is_some() {
                        acknowledged.push(name.to_string());
                    }
                }
                world.run(Duration::from_millis(100));
            }
            world.run(Duration::from_secs(3));
            let crashed = world.nodes[victim].core.is_none();
            if crashed {
                world.start(victim);
            }
            world.nodes[victim].crash_after_persists = None;
            world.run_until("all agree", World::agreed);
            for number in 0..3 {
                let names: Vec<String> = world.services(number).into_iter().map(|(name, ..)| name).collect();
                assert!(acknowledged.iter().all(|name| names.contains(name)), "{victim} {boundary}: {names:?}");
            }
            if !crashed {
                break;
            }
        }
    }
}

#[test]
fn a_node_waits_for_the_others_before_it_acts_but_not_for_ever() {
    let mut world = World::new(3);
    assert!(!world.nodes[1].events.contains(&Event::Settled));
    world.run_until("it has settled", |world| world.nodes[1].events.contains(&Event::Settled));
    world.run_until("all agree", World::agreed);
    for number in 0..3 {
        world.crash(number);
    }
    world.nodes[1].events.clear();
    world.start(1);
    assert!(!world.views(1).settled);
    // The last node standing takes commands at once, and acts when it has waited long enough.
    create(&mut world, 1, "web");
    let took = world.run_until("it has given up waiting", |world| world.views(1).settled);
    assert!(took > Duration::from_secs(3), "{took:?}");
    assert_eq!(world.nodes[1].events.iter().filter(|event| **event == Event::Settled).count(), 1);
}

/// Returns how many tasks of the only service run on nodes that are up, as node `number` sees it.
fn running(world: &mut World, number: usize) -> usize {
    let counts = |task: &&shoal_cluster::view::TaskView| task.reachable && task.report.state == TaskState::Running;
    world.views(number).tasks.iter().filter(counts).count()
}

#[test]
fn replicas_of_a_dead_node_run_elsewhere_and_its_name_follows() {
    let mut world = joined();
    create(&mut world, 0, "web");
    let all = |world: &mut World| {
        let live: Vec<usize> = (0..3).filter(|number| world.nodes[*number].core.is_some()).collect();
        live.iter().all(|number| running(world, *number) == 3 && world.views(*number).names.services["web"].len() == 3)
    };
    let took = world.run_until("three run", all);
    assert!(took < Duration::from_secs(2), "{took:?}");
    world.run_until("all agree", World::agreed);
    let victim = (0..3).find(|number| !world.nodes[*number].containers.is_empty()).unwrap();
    world.crash(victim);
    let id = world.nodes[victim].id;
    let took = world.run_until("three run elsewhere", |world| {
        let (one, two) = ((victim + 1) % 3, (victim + 2) % 3);
        [one, two].into_iter().all(|number| !world.views(number).member(&id).unwrap().state.is_up()) && all(world)
    });
    assert!(took < Duration::from_secs(10), "{took:?}");
    world.start(victim);
    world.run_until("three run, and no more containers than that", |world| {
        let containers: usize = world.nodes.iter().map(|node| node.containers.len()).sum();
        world.agreed() && all(world) && containers == 3
    });
}

#[test]
fn a_node_whose_disk_was_set_back_is_not_ignored() {
    let mut world = joined();
    let old = world.nodes[0].disk.clone();
    for name in ["a", "b", "c"] {
        create(&mut world, 0, name);
    }
    world.run_until("all have them", |world| (0..3).all(|number| world.services(number).len() == 3));
    // An old backup, and with it the old epoch: the others know more of this node than it does itself.
    world.crash(0);
    world.set_back(0, old);
    world.start(0);
    create(&mut world, 0, "d");
    world.run_until("all have everything", |world| (0..3).all(|number| world.services(number).len() == 4));
    world.run_until("all agree", World::agreed);
    create(&mut world, 0, "e");
    world.run_until("all have the next one", |world| (0..3).all(|number| world.services(number).len() == 5));
}

#[test]
fn an_idle_shoal_of_three_says_little() {
    let mut world = joined();
    world.run(Duration::from_secs(10));
    let before = world.sent_bytes.clone();
    world.run(Duration::from_secs(60));
    for (sent, before) in world.sent_bytes.iter().zip(before) {
        let rate = (sent - before) / 60;
        println!("{rate} bytes per second");
        assert!(rate < 1_000, "{rate} bytes per second");
    }
}

#[test]
fn the_same_seed_and_inputs_give_the_same_messages() {
    let play = || {
        let mut world = joined();
        create(&mut world, 0, "web");
        world.run(Duration::from_secs(5));
        world.crash(1);
        world.run(Duration::from_secs(5));
        world.messages
    };
    assert!(play() == play());
}

#[test]
fn a_node_that_says_goodbye_is_known_to_have_left() {
    let mut world = joined();
    world.apply(2, Command::Leave).unwrap();
    world.run_until("the others know", |world| {
        let member = world.views(0).member(&node_id(2)).unwrap().clone();
        !member.state.is_up()
    });
}

#[test]
fn a_node_that_hands_over_stops_a_task_only_when_another_node_runs_its_slot() {
    let mut world = World::new(3);
    world.run(Duration::from_secs(5));
    world.apply(0, Command::CreateService(spec("web", 6))).unwrap();
    world.run_until("all run", |world| slots_running(world, 0) == 6);
    world.apply(2, Command::HandOver).unwrap();
    let leaving = node_id(2);
    world.run_until("nothing runs on the node that leaves", |world| {
        assert!(slots_running(world, 0) >= 6, "a slot was without a task");
        let tasks = &world.views(2).tasks;
        tasks.iter().all(|task| task.node != leaving || task.report.state.is_final())
    });
    world.apply(2, Command::Leave).unwrap();
    world.run_until("six run on the others", |world| slots_running(world, 0) == 6);
    // Back again it takes its part.
    world.crash(2);
    world.start(2);
    world.run_until("it runs some", |world| {
        let tasks = &world.views(0).tasks;
        tasks.iter().any(|task| task.node == leaving && task.report.state == TaskState::Running)
    });
}

/// How many slots of all services run somewhere, as a node sees it.
fn slots_running(world: &mut World, node: usize) -> usize {
    let running =
        world.views(node).tasks.iter().filter(|task| task.reachable && task.report.state == TaskState::Running);
    running.map(|task| (task.report.service, task.report.slot)).collect::<BTreeSet<_>>().len()
}
