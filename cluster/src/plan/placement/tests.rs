//! Tests of placement: against a slow oracle, against itself in other orders, and the situations that users know.

extern crate std;

mod oracle;
mod situations;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::intent::constraint::{Constraint, Spread};

pub(super) const GIB: u64 = 1 << 30;

pub(super) fn node(number: u16, cpus: u64, labels: &[(&str, &str)]) -> NodeInput {
    let mut id = [7; 32];
    id[..2].copy_from_slice(&number.to_be_bytes());
    NodeInput {
        id: NodeId(id),
        hostname: std::format!("n{number}"),
        manager: number.is_multiple_of(2),
        os: "linux".into(),
        architecture: if number % 3 == 2 { "arm64" } else { "amd64" }.into(),
        labels: labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
        engine_labels: BTreeMap::new(),
        capacity: Amounts { nano_cpus: cpus * 1_000_000_000, memory_bytes: cpus * 2 * GIB },
        active: true,
    }
}

pub(super) fn service(number: u16, replicas: u32) -> ServiceInput {
    let mut id = [3; 16];
    id[..2].copy_from_slice(&number.to_be_bytes());
    ServiceInput::plain(ServiceId(id), replicas)
}

/// A node of some size in some zone.
fn any_node() -> impl Strategy<Value = NodeInput> {
    (0..500_u16, 1..5_u64, 0..4_u8, any::<bool>(), 0..12_u8).prop_map(|(number, cpus, zone, ssd, paused)| {
        let zone = zone.to_string();
        let mut labels = vec![("disk", if ssd { "ssd" } else { "hdd" })];
        if zone != "3" {
            labels.push(("zone", zone.as_str()));
        }
        NodeInput { active: paused > 0, ..node(number, cpus, &labels) }
    })
}

fn any_service() -> impl Strategy<Value = ServiceInput> {
    let constraint = prop::sample::select(vec![
        vec![],
        vec![],
        vec!["node.labels.disk==ssd"],
        vec!["node.labels.disk!=ssd", "node.labels.zone!=1"],
        vec!["node.role==manager"],
    ]);
    let spread = prop::sample::select(vec![
        vec![],
        vec![],
        vec!["node.labels.zone"],
        vec!["node.labels.zone", "node.labels.disk"],
    ]);
    // Large, small, and both.
    let unit = prop::sample::select(vec![(200, GIB / 2), (10, GIB / 64), (10, GIB / 2), (40, 0)]);
    let size = (0..6_u64, 0..4_u64, unit);
    (0..500_u16, 0..40_u32, constraint, spread, size, 0..4_u32, 0..8_u8).prop_map(
        |(number, replicas, constraints, spread, (cpu, memory, unit), most, kind)| ServiceInput {
            global: kind == 0,
            reserved: Amounts { nano_cpus: cpu * unit.0 * 1_000_000, memory_bytes: memory * unit.1 },
            constraints: constraints.into_iter().map(|text| Constraint::parse(text).unwrap()).collect(),
            platforms: if kind == 1 { vec![("linux".into(), "amd64".into())] } else { vec![] },
            spread: spread.into_iter().map(|text| Spread::parse(text).unwrap()).collect(),
            replicas_per_node_max: if most == 3 { 2 } else { 0 },
            ..service(number, replicas)
        },
    )
}

fn any_inputs(nodes: usize) -> impl Strategy<Value = Inputs> {
    let nodes = prop::collection::vec(any_node(), 0..nodes);
    let services = prop::collection::vec(any_service(), 0..7);
    (nodes, services).prop_map(|(nodes, services)| {
        let nodes: BTreeMap<NodeId, NodeInput> = nodes.into_iter().map(|node| (node.id, node)).collect();
        let services: BTreeMap<ServiceId, ServiceInput> = services.into_iter().map(|one| (one.id, one)).collect();
        let (nodes, services): (Vec<NodeInput>, Vec<ServiceInput>) =
            (nodes.into_values().collect(), services.into_values().collect());
        // A paused node keeps the first slot of the first service.
        let paused = nodes.iter().find(|node| !node.active);
        let held = services.iter().find(|service| !service.global && service.reserved == Amounts::default());
        let pinned = paused.zip(held).map(|(node, service)| ((service.id, 1), node.id)).into_iter().collect();
        Inputs { services, nodes, pinned }
    })
}

/// What is reserved on each node, by what was assigned.
fn used(inputs: &Inputs, assignments: &Assignments) -> BTreeMap<NodeId, Amounts> {
    let services: BTreeMap<ServiceId, &ServiceInput> =
        inputs.services.iter().map(|service| (service.id, service)).collect();
    let mut used: BTreeMap<NodeId, Amounts> = BTreeMap::new();
    for ((service, _), node) in assignments.iter() {
        let sum = used.entry(node).or_default();
        *sum = sum.plus(services[&service].reserved);
    }
    used
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_slow_rule_agrees(inputs in any_inputs(14)) {
        let placed: BTreeMap<_, _> = Placement::of(inputs.clone()).assignments().iter().collect();
        let slow = oracle::place(&inputs);
        prop_assert_eq!(placed, slow);
    }

    #[test]
    fn offers_in_any_order_come_to_the_same(inputs in any_inputs(10), seed in any::<u64>()) {
        let placement = Placement::of(inputs);
        prop_assert_eq!(oracle::offered_in_any_order(&placement, seed), placement.slots.node);
    }

    #[test]
    fn the_order_of_the_input_does_not_matter(inputs in any_inputs(14)) {
        let mut backwards = inputs.clone();
        backwards.nodes.reverse();
        backwards.services.reverse();
        prop_assert_eq!(Placement::of(inputs).assignments(), Placement::of(backwards).assignments());
    }

    #[test]
    fn no_rule_is_broken(inputs in any_inputs(14)) {
        let placement = Placement::of(inputs.clone());
        let assignments = placement.assignments();
        for node in &inputs.nodes {
            let used = used(&inputs, &assignments).remove(&node.id).unwrap_or_default();
            prop_assert!(used.fits(&node.capacity), "{used:?} of {:?}", node.capacity);
        }
        let nodes: BTreeMap<NodeId, &NodeInput> = inputs.nodes.iter().map(|node| (node.id, node)).collect();
        for service in &inputs.services {
            let mut loads: BTreeMap<NodeId, u32> = BTreeMap::new();
            for ((_, slot), id) in assignments.iter().filter(|((of, _), _)| *of == service.id) {
                let pinned = inputs.pinned.get(&(service.id, slot)) == Some(&id);
                let node = nodes[&id];
                let right = node.active && service.constraints.iter().all(|constraint| node.meets(constraint));
                prop_assert!(pinned || right && node.runs(&service.platforms));
                *loads.entry(id).or_default() += u32::from(!pinned);
            }
            let most = loads.values().max().copied().unwrap_or(0);
            prop_assert!(service.replicas_per_node_max == 0 || most <= service.replicas_per_node_max);
            prop_assert!(!service.global || most <= 1);
        }
    }

    /// A slot is pending only if no node has room for it.
    #[test]
    fn what_is_pending_fits_nowhere(inputs in any_inputs(14)) {
        let placement = Placement::of(inputs.clone());
        let (assignments, used) = (placement.assignments(), used(&inputs, &placement.assignments()));
        for service in inputs.services.iter().filter(|service| !service.global) {
            for slot in (1..=service.replicas).filter(|slot| assignments.get(&(service.id, *slot)).is_none()) {
                prop_assert!(matches!(placement.why(&service.id, slot), Some(Why::Pending(_))));
                for node in inputs.nodes.iter().filter(|node| node.active) {
                    let mates = assignments.of(&node.id).filter(|(of, _)| *of == service.id).count() as u32;
                    let free = node.capacity.minus(used.get(&node.id).copied().unwrap_or_default());
                    let fits = service.reserved.fits(&free)
                        && service.may_run_on(node)
                        && (service.replicas_per_node_max == 0 || mates < service.replicas_per_node_max);
                    prop_assert!(!fits, "slot {slot} fits on {}", node.hostname);
                }
            }
        }
    }

    /// Enough nodes that rounded numbers stay as they are, so that losses are followed and not computed anew.
    #[test]
    fn following_losses_is_computing_anew(inputs in any_inputs(120), lost in prop::collection::vec(any::<u16>(), 1..5)) {
        let mut followed = Placement::of(inputs.clone());
        let mut rest = inputs;
        for pick in lost {
            if rest.nodes.is_empty() {
                break;
            }
            let gone = rest.nodes.remove(usize::from(pick) % rest.nodes.len()).id;
            followed.without(&gone);
            let anew = Placement::of(rest.clone());
            prop_assert_eq!(followed.assignments(), anew.assignments());
            prop_assert_eq!(followed.inputs(), anew.inputs());
        }
    }
}

/// The property above says nothing unless losses are really followed, under pressure too.
#[test]
fn losses_are_followed_under_pressure() {
    let mut follows = 0;
    for round in 0..12_u16 {
        let zones = ["a", "b", "c"];
        let nodes: Vec<NodeInput> =
            (0..153).map(|number| node(number, 4, &[("zone", zones[usize::from(number % 3)])])).collect();
        let services: Vec<ServiceInput> = (0..30)
            .map(|number| {
                let cpu = [100, 200, 400, 1_000][usize::from(number % 4)];
                let spread = if number % 2 == 0 { vec!["node.labels.zone"] } else { vec![] };
                ServiceInput {
                    reserved: Amounts { nano_cpus: cpu * 1_000_000, memory_bytes: 0 },
                    spread: spread.into_iter().map(|text| Spread::parse(text).unwrap()).collect(),
                    ..service(1_000 * round + number, 38 + u32::from(number))
                }
            })
            .collect();
        let inputs = Inputs { services, nodes, pinned: BTreeMap::new() };
        let mut followed = Placement::of(inputs.clone());
        let gone = inputs.nodes[usize::from(round) * 7].id;
        let index = followed.node_index(&gone).unwrap();
        follows += u32::from(followed.clone().follow(index));
        followed.without(&gone);
        let mut rest = inputs.clone();
        rest.nodes.retain(|node| node.id != gone);
        assert_eq!(followed.assignments(), Placement::of(rest).assignments(), "round {round}");
        assert!(followed.slots.position.iter().any(|position| *position > 0), "nothing was ever displaced");
    }
    assert!(follows >= 8, "only {follows} of 12 losses were followed");
}
