//! Whom nodes ask for images, and for which images they are heirs: the same questions, asked of all nodes at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::sync::Arc;

use shoal_cluster::intent::name::Name;
use shoal_cluster::intent::object::Sealed;
use shoal_cluster::intent::service::{ImageRef, Service, ServiceSpec, TaskSpec};
use shoal_cluster::intent::update::Verdict;
use shoal_cluster::membership::member::{Member, MemberState, NodeMeta, Role};
use shoal_cluster::plan::addresses::{Addresses, Block};
use shoal_cluster::plan::names::Names;
use shoal_cluster::plan::placement::{Amounts, Inputs, NodeInput, Placement, ServiceInput};
use shoal_cluster::plan::routes::Routes;
use shoal_cluster::reports::task::{TaskReport, TaskState};
use shoal_cluster::view::{Agreement, RolloutView, TaskView};
use shoal_cluster::{NodeId, ServiceId, TaskId, Views};
use shoal_runtime::image::Digest;

use super::{ahead, order, space};

fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

fn image() -> Digest {
    Digest::of(b"image")
}

fn member(number: u8) -> Member {
    let gossip = format!("192.0.2.{number}:7946").parse().unwrap();
    let meta = NodeMeta {
        name: Name::new(&format!("n{number}")).unwrap(),
        gossip,
        tunnel: gossip,
        role: Role::Manager,
        wire_version: 1,
        plan_version: 1,
        labels: std::collections::BTreeMap::new(),
        leaving: false,
        counts: false,
        software: String::new(),
        os: "linux".to_owned(),
        architecture: "amd64".to_owned(),
        nano_cpus: 1,
        memory_bytes: 1,
    };
    Member { id: node(number), incarnation: 1, state: MemberState::Alive, meta }
}

fn input(number: u8) -> NodeInput {
    NodeInput {
        id: node(number),
        hostname: format!("n{number}"),
        manager: true,
        os: "linux".to_owned(),
        architecture: "amd64".to_owned(),
        labels: BTreeMap::new(),
        engine_labels: BTreeMap::new(),
        capacity: Amounts::default(),
        active: true,
    }
}

/// A shoal of ten nodes with one service of `replicas`, placed by the plan; `holders` have its image.
fn views(replicas: u32, holders: &[u8]) -> Views {
    let image_ref = ImageRef { reference: "web:1".to_owned(), digest: Some(image().to_string()) };
    let spec = ServiceSpec::new(Name::new("web").unwrap(), replicas, TaskSpec::new(image_ref));
    let id = ServiceId([7; 16]);
    let service = Service {
        id,
        version: 1,
        revision: 1,
        created_ms: 0,
        updated_ms: 0,
        author: NodeId([0; 32]),
        rollout: None,
        history: Vec::new(),
        spec,
    };
    let task = |slot: u32, on: NodeId| TaskView {
        node: on,
        report: TaskReport {
            id: TaskId([slot as u8; 16]),
            service: id,
            slot,
            revision: 1,
            addresses: Addresses { v4: None, v6: Ipv6Addr::LOCALHOST },
            state: TaskState::Accepted,
            since_ms: 0,
            error: String::new(),
            stable: false,
            over: false,
            exit_code: None,
        },
        reachable: true,
        desired: true,
    };
    let members: Vec<Member> = (1..=10).map(member).collect();
    let inputs = Inputs {
        services: vec![ServiceInput::plain(id, replicas)],
        nodes: (1..=10).map(input).collect(),
        pinned: BTreeMap::new(),
    };
    let placed = Placement::of(inputs.clone()).assignments();
    let nodes: BTreeSet<NodeId> = holders.iter().copied().map(node).collect();
    let images =
        if nodes.is_empty() { BTreeMap::new() } else { BTreeMap::from([(format!("web:1@{}", image()), nodes)]) };
    Views {
        settled: true,
        majority: true,
        members,
        blocks: BTreeMap::new(),
        services: vec![service],
        rollouts: BTreeMap::new(),
        nodes: BTreeMap::new(),
        assignments: placed.clone(),
        completed: Default::default(),
        volumes: BTreeMap::new(),
        bonds: BTreeMap::new(),
        inputs: Arc::new(inputs),
        tasks: placed.iter().map(|((_, slot), on)| task(slot, on)).collect(),
        images,
        names: Names::default(),
        networks: Arc::default(),
        secrets: Arc::default(),
        configs: Arc::default(),
        sealed: Sealed::default(),
        routes: Routes { own: Block::derive(&[9; 32], &node(1), None), peers: BTreeMap::new() },
        agreement: Agreement { intent: [0; 32], plan: [0; 32], peers: BTreeMap::new() },
        conflicts: Vec::new(),
    }
}

/// All that want an image stand in one line for each of its blobs, so that its holder is asked by one; and in another
/// line for another blob.
#[test]
fn one_node_alone_asks_the_holder_and_all_others_the_one_ahead() {
    let views = views(10, &[1]);
    let mut firsts = BTreeSet::new();
    for blob in (0..20u8).map(|number| Digest::of(&[number])) {
        let orders: BTreeMap<u8, _> = (2..=10).map(|n| (n, order::order(&views, node(n), &image(), &blob))).collect();
        let mut lengths: Vec<usize> = orders.values().map(|order| order.ahead.len()).collect();
        lengths.sort_unstable();
        assert_eq!(lengths, (0..9).collect::<Vec<_>>(), "a line, without a circle");
        for (own, order) in &orders {
            assert_eq!(order.holders, [node(1)]);
            // The nearest ahead has all the others ahead of it too.
            if let Some(nearest) = order.ahead.first() {
                assert_eq!(orders[&nearest.0[0]].ahead, order.ahead[1..], "node {own}");
            }
        }
        firsts.extend(orders.iter().filter(|(_, order)| order.ahead.is_empty()).map(|(own, _)| *own));
    }
    assert!(firsts.len() > 3, "blobs travel along different lines: {firsts:?}");
}

/// All nodes begin at once, before any has told of its task: then too the holder is asked by one. While slots move to an image
/// one after the other nobody waits for nodes whose turn has not come.
#[test]
fn the_line_is_that_of_the_plan_and_while_slots_move_that_of_those_that_have_begun() {
    let told = views(10, &[1]);
    let mut planned = views(10, &[1]);
    planned.tasks.clear();
    let line = |views: &Views, own| order::order(views, node(own), &image(), &image());
    assert!((2..=10).all(|own| line(&planned, own) == line(&told, own)));
    let mut moving = views(10, &[1]);
    moving.tasks.truncate(2);
    let began: BTreeSet<NodeId> = moving.tasks.iter().map(|task| task.node).collect();
    let (verdict, task, ruled_ms) = (Verdict::Progressing, None, None);
    let rollout = RolloutView { verdict, task, ruled_ms, slots: 10, arrived: 1, failed: 0 };
    moving.rollouts.insert(moving.services[0].id, rollout);
    assert!((2..=10).all(|own| line(&moving, own).ahead.iter().all(|ahead| began.contains(ahead))));
}

#[test]
fn of_several_holders_not_all_ask_the_same() {
    let views = views(10, &[1, 2, 3]);
    let first = |own| order::order(&views, node(own), &image(), &image()).holders[0];
    assert!((4..=10).map(first).collect::<BTreeSet<_>>().len() > 1);
    let keeper = order::keeper(&views, &image()).unwrap();
    assert!([1, 2, 3].map(node).contains(&keeper));
    assert_eq!(order::keeper(&views, &Digest::of(b"other")), None);
    assert_eq!(space::wanted(&views), BTreeSet::from([image()]));
}

/// The heir of a slot is who gets it when its node goes down: tried for every node.
#[test]
fn whoever_gets_a_slot_when_a_node_goes_down_was_its_heir() {
    for replicas in [1, 3, 9] {
        let views = views(replicas, &[1]);
        let heirs: BTreeSet<NodeId> =
            (1..=10).map(node).filter(|own| ahead::heirs(&views, *own).contains_key(&image())).collect();
        for lost in views.tasks.iter().map(|task| task.node) {
            let mut left = Inputs::clone(&views.inputs);
            left.nodes.retain(|node| node.id != lost);
            let left = Placement::of(left).assignments();
            assert!(left.iter().all(|(_, node)| heirs.contains(&node)), "{replicas} replicas");
        }
        assert!(replicas > 1 || heirs.len() <= 2, "one replica has one heir: {}", heirs.len());
    }
}
