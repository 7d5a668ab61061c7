//! Placement in a small world: availability, constraints, global services, and forecasts that come true.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shoal_cluster::intent::constraint::Constraint;
use shoal_cluster::intent::node::{Availability, NodeSpec};
use shoal_cluster::intent::service::{Mode, Reserved, ServiceSpec};
use shoal_cluster::plan::forecast::{Change, Forecast};
use shoal_cluster::plan::placement::{Assignments, Inputs, Placement};
use shoal_cluster::{Command, CommandError, NodeId, Receipt, ServiceId};
use support::{World, node_id, spec};

fn joined() -> World {
    let mut world = World::new(3);
    world.run_until("all know all", |world| (0..3).all(|number| world.views(number).members.len() == 3));
    world.run_until("all agree", World::agreed);
    world
}

fn create(world: &mut World, spec: ServiceSpec) -> ServiceId {
    match world.apply(1, Command::CreateService(spec)) {
        Ok(Receipt::Service { id, .. }) => id,
        other => panic!("{other:?}"),
    }
}

/// Which node runs each slot of a service, by its containers.
fn running(world: &World, service: ServiceId) -> BTreeMap<u32, Vec<usize>> {
    let mut slots: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (number, node) in world.nodes.iter().enumerate().filter(|(_, node)| node.core.is_some()) {
        for order in node.containers.values().filter(|order| order.service == service) {
            slots.entry(order.slot).or_default().push(number);
        }
    }
    slots
}

fn on(world: &World, service: ServiceId, node: usize) -> usize {
    running(world, service).values().flatten().filter(|at| **at == node).count()
}

fn runs(world: &mut World, service: ServiceId, count: usize) {
    world.run_until("every slot runs once", |world| {
        let running = running(world, service);
        running.len() == count && running.values().all(|at| at.len() == 1)
    });
    world.run_until("all agree", World::agreed);
}

fn update(world: &mut World, node: usize, version: u64, availability: Availability, labels: &[(&str, &str)]) {
    let labels = labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    let spec = NodeSpec { availability, labels };
    assert_eq!(world.apply(0, Command::UpdateNode { node: node_id(node), version, spec }), Ok(Receipt::Done));
}

fn assignments(world: &mut World) -> Assignments {
    Placement::of(Inputs::clone(&world.views(0).inputs)).assignments()
}

/// Every slot runs somewhere all the time: the new task runs before the old one stops.
#[test]
fn a_drained_node_empties_without_a_gap_and_fills_again() {
    let mut world = joined();
    let service = create(&mut world, spec("web", 6));
    runs(&mut world, service, 6);
    assert_eq!((0..3).map(|node| on(&world, service, node)).collect::<Vec<_>>(), [2, 2, 2]);
    update(&mut world, 2, 0, Availability::Drain, &[]);
    world.run_until("it is empty", |world| {
        assert_eq!(running(world, service).len(), 6, "a slot has nothing that runs");
        on(world, service, 2) == 0
    });
    runs(&mut world, service, 6);
    update(&mut world, 2, 1, Availability::Active, &[]);
    world.run_until("it is back", |world| on(world, service, 2) == 2);
    runs(&mut world, service, 6);
}

#[test]
fn a_paused_node_keeps_what_runs_and_takes_nothing_new() {
    let mut world = joined();
    let service = create(&mut world, spec("web", 3));
    runs(&mut world, service, 3);
    let before: BTreeSet<_> = world.nodes[0].containers.keys().copied().collect();
    update(&mut world, 0, 0, Availability::Pause, &[]);
    world.run_until("all agree", World::agreed);
    let version = world.views(1).services[0].version;
    world.apply(1, Command::UpdateService { id: service, version, spec: spec("web", 9) }).unwrap();
    runs(&mut world, service, 9);
    world.run(Duration::from_secs(5));
    let after: BTreeSet<_> = world.nodes[0].containers.keys().copied().collect();
    assert_eq!(after, before);
    assert_eq!(on(&world, service, 1) + on(&world, service, 2), 8);
}

#[test]
fn labels_and_constraints_choose_nodes_and_follow_changes() {
    let mut world = joined();
    update(&mut world, 1, 0, Availability::Active, &[("disk", "ssd")]);
    let mut bound = spec("db", 2);
    bound.placement.constraints = vec![Constraint::parse("node.labels.disk==ssd").unwrap()];
    let service = create(&mut world, bound);
    runs(&mut world, service, 2);
    assert_eq!(on(&world, service, 1), 2);
    update(&mut world, 2, 0, Availability::Active, &[("disk", "ssd")]);
    world.run_until("they are spread", |world| on(world, service, 2) == 1 && on(world, service, 1) == 1);
}

#[test]
fn a_global_service_runs_on_every_node_and_leaves_those_that_are_drained() {
    let mut world = joined();
    let mut everywhere = spec("agent", 0);
    everywhere.mode = Mode::Global;
    let service = create(&mut world, everywhere);
    runs(&mut world, service, 3);
    assert!((0..3).all(|node| on(&world, service, node) == 1));
    update(&mut world, 1, 0, Availability::Drain, &[]);
    world.run_until("it left", |world| on(world, service, 1) == 0);
    runs(&mut world, service, 2);
    assert_eq!(world.views(0).assignments.slots(&service).count(), 2);
}

#[test]
fn what_does_not_fit_waits_and_runs_when_there_is_room() {
    let mut world = joined();
    let capacity = world.views(0).members[0].meta.nano_cpus;
    let mut large = spec("large", 3);
    large.reserved = Reserved { nano_cpus: capacity, memory_bytes: 0 };
    let first = create(&mut world, large.clone());
    runs(&mut world, first, 3);
    large.name = spec("other", 1).name;
    let second = create(&mut world, large);
    world.run(Duration::from_secs(10));
    let placed = assignments(&mut world);
    assert_eq!([first, second].map(|id| placed.slots(&id).count()).iter().sum::<usize>(), 3, "no more than fit");
    let mut waits = |id| placed.slots(&id).filter(|(slot, _)| world.views(0).waits(&placed, &(id, *slot))).count();
    assert_eq!(waits(first), 0, "they run");
    assert_eq!(waits(second), placed.slots(&second).count(), "what runs is not ended for what does not");
    assert!(placed.slots(&second).count() > 0, "or this shows nothing");
    world.apply(0, Command::RemoveService(first)).unwrap();
    runs(&mut world, second, 3);
}

/// `shoal plan --fail` is not an estimate: when the node fails, the plan is that very one.
#[test]
fn a_forecast_comes_true() {
    let mut world = joined();
    let service = create(&mut world, spec("web", 7));
    runs(&mut world, service, 7);
    let inputs = Inputs::clone(&world.views(0).inputs);
    for (number, change) in [(2, Change::Fail(node_id(2))), (1, Change::Drain(node_id(1)))] {
        let forecast = Forecast::of(inputs.clone(), &[change]).after.assignments();
        let mut world = joined();
        let again = create(&mut world, spec("web", 7));
        runs(&mut world, again, 7);
        if number == 2 {
            world.crash(2);
        } else {
            update(&mut world, 1, 0, Availability::Drain, &[]);
        }
        let gone: NodeId = node_id(number);
        world.run_until("the plan is without it", |world| assignments(world).of(&gone).next().is_none());
        assert_eq!(again, service, "the same world twice");
        assert_eq!(assignments(&mut world).digest(), forecast.digest());
    }
}

#[test]
fn what_is_wanted_of_nodes_is_checked() {
    let mut world = World::new(1);
    let update = |node, version, labels| Command::UpdateNode {
        node,
        version,
        spec: NodeSpec { availability: Availability::Active, labels },
    };
    let unknown = world.apply(0, update(NodeId([9; 32]), 0, BTreeMap::new()));
    assert_eq!(unknown, Err(CommandError::NoSuchNode(NodeId([9; 32]))));
    assert_eq!(world.apply(0, update(node_id(0), 0, BTreeMap::new())), Ok(Receipt::Done));
    let stale = world.apply(0, update(node_id(0), 0, BTreeMap::new())).map_err(|error| error.to_string());
    assert!(stale.is_err_and(|text| text.ends_with("update out of sequence")));
    let long = BTreeMap::from([("k".to_string(), "v".repeat(1_000))]);
    assert!(matches!(world.apply(0, update(node_id(0), 1, long)), Err(CommandError::NodeSpec(_))));
    assert_eq!(world.views(0).nodes[&node_id(0)].version, 1);
}
