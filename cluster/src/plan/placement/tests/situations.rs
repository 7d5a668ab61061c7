//! Situations that users of small shoals know.

use super::*;

fn nodes(count: u16) -> Vec<NodeInput> {
    (0..count).map(|number| node(number, 4, &[])).collect()
}

fn placed(services: &[ServiceInput], nodes: &[NodeInput]) -> Placement {
    Placement::of(Inputs { services: services.to_vec(), nodes: nodes.to_vec(), pinned: BTreeMap::new() })
}

fn loads(placement: &Placement, service: &ServiceInput, nodes: &[NodeInput]) -> Vec<usize> {
    let assignments = placement.assignments();
    let load = |node: &NodeInput| assignments.of(&node.id).filter(|(of, _)| *of == service.id).count();
    nodes.iter().map(load).collect()
}

#[test]
fn up_to_32_replicas_are_spread_exactly_over_few_nodes() {
    for count in 1..12 {
        let nodes = nodes(count);
        for replicas in 0..=STRICT_SLOTS {
            for number in 0..4 {
                let service = service(number, replicas);
                let loads = loads(&placed(core::slice::from_ref(&service), &nodes), &service, &nodes);
                assert_eq!(loads.iter().sum::<usize>(), replicas as usize);
                let spread = loads.iter().max().unwrap() - loads.iter().min().unwrap();
                assert!(spread <= 1, "{replicas} on {count}: {loads:?}");
            }
        }
    }
}

#[test]
fn many_replicas_are_spread_within_the_root_of_a_share() {
    let nodes = nodes(3);
    for number in 0..20 {
        let service = service(number, 300);
        let loads = loads(&placed(core::slice::from_ref(&service), &nodes), &service, &nodes);
        assert_eq!(loads.iter().sum::<usize>(), 300);
        assert!(*loads.iter().max().unwrap() <= 111, "{loads:?}");
    }
}

#[test]
fn scaling_moves_nothing_that_runs() {
    for count in [1, 2, 3, 5, 9, 40] {
        for number in 0..2 {
            let all = placed(&[service(number, 90)], &nodes(count)).assignments();
            for replicas in (0..90).step_by(7) {
                let few = placed(&[service(number, replicas)], &nodes(count)).assignments();
                assert!(few.iter().all(|(slot, node)| all.get(&slot) == Some(&node)), "{replicas} on {count}");
            }
        }
    }
}

#[test]
fn scaling_what_reserves_little_moves_nothing_that_runs() {
    for count in [1, 2, 3, 5, 9, 40] {
        let service = |replicas| ServiceInput {
            reserved: Amounts { nano_cpus: 30_000_000, memory_bytes: GIB / 64 },
            ..service(count, replicas)
        };
        let all = placed(&[service(90)], &nodes(count)).assignments();
        for replicas in (0..90).step_by(7) {
            let few = placed(&[service(replicas)], &nodes(count)).assignments();
            assert!(few.iter().all(|(slot, node)| all.get(&slot) == Some(&node)), "{replicas} on {count}");
        }
    }
}

/// Slots of four sizes on 60 nodes: no node carries much more than the mean, few slots are away from home for that, and
/// the small ones are not among them.
#[test]
fn small_slots_are_weighed_and_the_largest_of_them_give_way() {
    let nodes: Vec<NodeInput> = (0..60).map(|number| node(number, 16, &[])).collect();
    let milli = [10, 20, 40, 80];
    let services: Vec<ServiceInput> = (0..100)
        .map(|number| ServiceInput {
            reserved: Amounts { nano_cpus: milli[usize::from(number % 4)] * 1_000_000, memory_bytes: 0 },
            ..service(number, 60 + u32::from(number))
        })
        .collect();
    let placement = placed(&services, &nodes);
    let used = used(placement.inputs(), &placement.assignments());
    let cpus = || used.values().map(|used| used.nano_cpus);
    let (most, mean) = (cpus().max().unwrap(), cpus().sum::<u64>() / 60);
    assert!(most * 100 <= mean * 115, "{most} of {mean}");
    let away: Vec<usize> = (0..placement.slots.node.len()).filter(|slot| placement.slots.position[*slot] > 0).collect();
    assert!(!away.is_empty() && away.len() * 50 < placement.slots.node.len(), "{} are away", away.len());
    let service = |slot: &usize| &placement.services[usize::from(placement.slots.service[*slot])];
    assert!(away.iter().all(|slot| service(slot).reserved.nano_cpus >= 40_000_000));
}

/// Of three nodes with up to 12 replicas, a loss moves what was lost and at most about as much again.
#[test]
fn losing_one_of_three_nodes_moves_little_else() {
    for replicas in [3, 6, 12] {
        let (mut moved, mut needed) = (0, 0);
        for number in 0..200 {
            let three = nodes(3);
            let before = placed(&[service(number, replicas)], &three).assignments();
            let gone = three[usize::from(number % 3)].id;
            let two: Vec<NodeInput> = three.into_iter().filter(|node| node.id != gone).collect();
            let after = placed(&[service(number, replicas)], &two).assignments();
            moved += before.iter().filter(|(slot, node)| after.get(slot) != Some(node)).count();
            needed += before.iter().filter(|(_, node)| *node == gone).count();
        }
        assert!(moved * 10 <= needed * 18, "{moved} of {needed} needed with {replicas} replicas");
    }
}

#[test]
fn zones_are_even_whatever_their_sizes() {
    let zones = ["a", "a", "a", "a", "b", "c"];
    let nodes: Vec<NodeInput> =
        zones.iter().zip(0..).map(|(zone, number)| node(number, 16, &[("zone", zone)])).collect();
    let spread = Spread::parse("spread=node.labels.zone").unwrap();
    let service = ServiceInput { spread: vec![spread], ..service(1, 9) };
    let loads = loads(&placed(core::slice::from_ref(&service), &nodes), &service, &nodes);
    assert_eq!([loads[..4].iter().sum::<usize>(), loads[4], loads[5]], [3, 3, 3]);
    assert!(loads[..4].iter().all(|load| *load <= 1), "{loads:?}");
}

/// A service that fits nowhere moves nothing of the others, whatever their size.
#[test]
fn what_cannot_be_placed_disturbs_nobody_smaller() {
    let nodes = nodes(3);
    let sized = |number, replicas, milli: u64| ServiceInput {
        reserved: Amounts { nano_cpus: milli * 1_000_000, memory_bytes: 0 },
        ..service(number, replicas)
    };
    let small = [sized(1, 6, 200), sized(2, 3, 500), service(3, 9)];
    let before = placed(&small, &nodes).assignments();
    let with = placed(&[small.to_vec(), vec![sized(4, 5, 3_900)]].concat(), &nodes);
    assert!(
        before
            .iter()
            .filter(|((service, _), _)| *service == small[2].id)
            .all(|(slot, node)| { with.assignments().get(&slot) == Some(&node) })
    );
    let huge = placed(&[small.to_vec(), vec![sized(5, 2, 9_000)]].concat(), &nodes);
    assert_eq!(before, huge.assignments());
    let Some(Why::Pending(obstacles)) = huge.why(&sized(5, 2, 9_000).id, 1) else { panic!("it is pending") };
    assert_eq!(obstacles.too_small, 3);
    assert_eq!(obstacles.to_string(), "no suitable node (more reserved than the node has on 3 nodes)");
}

#[test]
fn reservations_bound_what_a_node_takes_and_the_rest_is_pending_with_a_reason() {
    let nodes = nodes(3);
    let reserved = Amounts { nano_cpus: 1_500_000_000, memory_bytes: 0 };
    let service = ServiceInput { reserved, ..service(1, 8) };
    let placement = placed(core::slice::from_ref(&service), &nodes);
    assert_eq!(loads(&placement, &service, &nodes), [2, 2, 2]);
    assert_eq!(placement.pending(), 2);
    let pending = (1..=8).filter_map(|slot| placement.why(&service.id, slot));
    let pending: Vec<String> =
        pending.filter(|why| matches!(why, Why::Pending(_))).map(|why| why.to_string()).collect();
    assert_eq!(pending, vec!["no suitable node (insufficient resources on 3 nodes)"; 2]);
}

#[test]
fn a_global_service_runs_once_on_every_node_that_may_run_it() {
    let mut nodes = nodes(5);
    nodes[1].active = false;
    nodes[2].labels.insert("gpu".into(), "none".into());
    let constraints = vec![Constraint::parse("node.labels.gpu!=none").unwrap()];
    let service = ServiceInput { global: true, constraints, ..service(1, 0) };
    let placement = placed(core::slice::from_ref(&service), &nodes);
    assert_eq!(loads(&placement, &service, &nodes), [1, 0, 0, 1, 1]);
    let before = placement.assignments();
    let after = placed(core::slice::from_ref(&service), &nodes[..4]).assignments();
    assert!(after.iter().all(|(slot, node)| before.get(&slot) == Some(&node)));
}

#[test]
fn what_runs_on_a_paused_node_stays_and_nothing_comes() {
    let mut nodes = nodes(3);
    let service = service(1, 6);
    let before = placed(core::slice::from_ref(&service), &nodes).assignments();
    nodes[0].active = false;
    let held: BTreeMap<(ServiceId, u32), NodeId> = before.iter().filter(|(_, node)| *node == nodes[0].id).collect();
    let inputs = Inputs { services: vec![ServiceInput { replicas: 9, ..service }], nodes, pinned: held.clone() };
    let after = Placement::of(inputs.clone());
    let at_paused: BTreeMap<_, _> =
        after.assignments().iter().filter(|(_, node)| *node == inputs.nodes[0].id).collect();
    assert_eq!(at_paused, held);
    assert!(held.keys().all(|(service, slot)| after.why(service, *slot) == Some(Why::Pinned)));
    assert_eq!(after.pending(), 0);
}

#[test]
fn absurd_numbers_of_replicas_are_bounded_by_what_nodes_can_report() {
    let nodes = nodes(2);
    let placement = placed(&[service(1, u32::MAX), service(2, u32::MAX)], &nodes);
    assert_eq!(placement.assignments().len(), 2 * TASKS_PER_NODE_MAX);
}

#[test]
fn values_and_architectures_are_compared_as_docker_does() {
    let mut node = node(2, 1, &[("Disk", "SSD")]);
    node.engine_labels.insert("rack".into(), "r1".into());
    for (text, meets) in [
        ("node.labels.Disk==ssd", true),
        ("node.labels.disk==ssd", false),
        ("node.labels.disk!=ssd", true),
        ("node.hostname==N2", true),
        ("node.role==manager", true),
        ("node.platform.arch==aarch64", true),
        ("node.platform.os!=linux", false),
        ("engine.labels.rack==r1", true),
    ] {
        assert_eq!(node.meets(&Constraint::parse(text).unwrap()), meets, "{text}");
    }
}

#[test]
fn without_any_node_every_slot_is_pending_with_a_reason() {
    let service = service(1, 2);
    let placement = placed(core::slice::from_ref(&service), &[]);
    assert_eq!(placement.pending(), 2);
    let why = placement.why(&service.id, 2).map(|why| why.to_string());
    assert_eq!(why.as_deref(), Some("no suitable node (no node is up)"));
    assert_eq!(placement.why(&service.id, 3), None);
}
