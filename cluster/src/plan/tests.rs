//! What the tests of the plan and of the agent share, and the situations of the plan. Input: planes made by hand.

extern crate std;

use alloc::string::ToString;
use core::time::Duration;
use std::format;

use proptest::prelude::*;

use super::addresses::Addresses;
use super::*;
use crate::clock::Instant;
use crate::config::MembershipConfig;
use crate::crdt::Actor;
use crate::id::{ServiceId, TaskId};
use crate::intent::name::Name;
use crate::intent::service::{ImageRef, Service, ServiceSpec, TaskSpec};
use crate::membership::member::{Member, MemberState, NodeMeta, Role};
use crate::reports::Head;
use crate::reports::task::{TaskReport, TaskState};
use crate::seed::Stream;

pub(crate) const SHOAL: [u8; 32] = [9; 32];

pub(crate) fn id(number: u8) -> NodeId {
    NodeId([number; 32])
}

pub(crate) fn member(number: u8, state: MemberState) -> Member {
    let meta = NodeMeta {
        name: Name::new(&format!("n{number}")).expect("a valid name"),
        gossip: ([10, 0, 0, number], 7946).into(),
        tunnel: ([10, 0, 1, number], 7946).into(),
        role: Role::Manager,
        wire_version: 1,
        plan_version: 1,
        labels: BTreeMap::new(),
        leaving: false,
        counts: false,
        software: "0.1.0".into(),
        os: "linux".into(),
        architecture: "amd64".into(),
        nano_cpus: 1,
        memory_bytes: 1,
    };
    Member { id: id(number), incarnation: 1, state, meta }
}

/// The membership of node 0, which says this of itself, alone.
pub(crate) fn own_membership(meta: NodeMeta) -> Membership {
    let random = Stream::new(&[0; 32], "membership");
    Membership::new(id(0), meta, 1, Vec::new(), MembershipConfig::default(), random, Instant::default())
}

/// The membership of node 0 with these others.
pub(crate) fn membership(others: &[(u8, MemberState)]) -> Membership {
    let mut membership = own_membership(member(0, MemberState::Alive).meta);
    for (number, state) in others {
        membership.restore(member(*number, *state));
    }
    membership
}

pub(crate) fn service(number: u8, name: &str, replicas: u32, revision: u64) -> Service {
    let image = ImageRef { reference: "web".into(), digest: None };
    let spec = ServiceSpec::new(Name::new(name).expect("a valid name"), replicas, TaskSpec::new(image));
    Service {
        id: ServiceId([number; 16]),
        version: revision,
        revision,
        created_ms: 0,
        updated_ms: 0,
        author: id(0),
        rollout: None,
        history: Vec::new(),
        spec,
    }
}

/// Intent with these services, in which these nodes claimed these blocks.
pub(crate) fn intent(services: &[Service], blocks: &[(u8, u16)]) -> Intent {
    let mut intent = Intent::new(Actor { node: id(99), epoch: 1 });
    for service in services {
        intent.write_service(1, service);
    }
    let mut authors: BTreeMap<u8, Intent> = BTreeMap::new();
    for (number, block) in blocks {
        let author = authors.entry(*number).or_insert_with(|| Intent::new(Actor { node: id(*number), epoch: 1 }));
        intent.learn(1, author.claim_block(1, *block));
    }
    intent
}

/// Takes the tasks of node `number` into the reports.
pub(crate) fn report(reports: &mut Reports, number: u8, epoch: u64, tasks: impl IntoIterator<Item = TaskReport>) {
    let mut theirs = Reports::new(id(number), epoch);
    theirs.begin();
    tasks.into_iter().for_each(|task| theirs.report_task(task));
    let range = theirs.range(&id(number), Head::default(), usize::MAX).expect("there is something");
    reports.follow(&range);
}

pub(crate) fn task(number: u8, service: u8, slot: u32, state: TaskState, addresses: Addresses) -> TaskReport {
    TaskReport {
        id: TaskId([number; 16]),
        service: ServiceId([service; 16]),
        slot,
        revision: 1,
        addresses,
        state,
        stable: false,
        over: false,
        since_ms: 0,
        error: "".into(),
        exit_code: None,
    }
}

fn host(node: u8, number: u16, host: u8) -> Addresses {
    Block::derive(&SHOAL, &id(node), Some(number)).host(host)
}

#[test]
fn names_answer_with_running_tasks_of_nodes_that_are_up_in_order_of_slot() {
    let membership = membership(&[(1, MemberState::Alive), (2, MemberState::Down), (3, MemberState::Left)]);
    let intent = intent(&[service(1, "Web", 3, 1), service(2, "db", 1, 1)], &[(0, 10), (1, 11), (2, 12)]);
    let mut reports = Reports::new(id(9), 1);
    let own = [
        task(1, 1, 2, TaskState::Running, host(0, 10, 2)),
        task(2, 1, 1, TaskState::Stopping, host(0, 10, 3)),
        task(3, 1, 4, TaskState::Running, host(0, 10, 4)),
        task(4, 1, 0, TaskState::Running, host(0, 10, 5)),
        task(5, 7, 1, TaskState::Running, host(0, 10, 6)),
        task(6, 2, 1, TaskState::Failed, host(0, 10, 7)),
    ];
    report(&mut reports, 0, 1, own);
    let theirs = [
        task(11, 1, 1, TaskState::Running, host(1, 11, 2)),
        task(12, 1, 2, TaskState::Running, host(1, 11, 3)),
        task(13, 1, 3, TaskState::Running, host(0, 10, 9)),
    ];
    report(&mut reports, 1, 1, theirs);
    report(&mut reports, 2, 1, [task(21, 1, 3, TaskState::Running, host(2, 12, 2))]);
    let plan = plan(&SHOAL, &intent, &membership, &reports);
    let web = [host(1, 11, 2), host(0, 10, 2), host(1, 11, 3)].to_vec();
    assert_eq!(plan.names.services, BTreeMap::from([("web".to_string(), web), ("db".to_string(), Vec::new())]));
    assert!(plan.assignments.iter().all(|(_, node)| [id(0), id(1)].contains(&node)));
    assert_eq!(plan.assignments.len(), 4);
}

#[test]
fn routes_lead_to_the_others_that_are_up() {
    let membership = membership(&[(1, MemberState::Alive), (2, MemberState::Down)]);
    let intent = intent(&[], &[(0, 10), (1, 20), (1, 12)]);
    let plan = plan(&SHOAL, &intent, &membership, &Reports::new(id(0), 1));
    let routes = routes(&id(0), &plan, &membership);
    assert_eq!(routes.own, Block::derive(&SHOAL, &id(0), Some(10)));
    assert_eq!(routes.peers.keys().copied().collect::<Vec<_>>(), [id(1)]);
    let peer = routes.peers[&id(1)];
    assert_eq!(peer.endpoint, ([10, 0, 1, 1], 7946).into());
    assert_eq!(peer.block, Block::derive(&SHOAL, &id(1), Some(12)), "of two blocks the least counts");
}

#[test]
fn suspects_keep_their_slots_and_names() {
    let services = [service(1, "web", 4, 1)];
    let intent = intent(&services, &[(0, 10), (1, 11)]);
    let alive = membership(&[(1, MemberState::Alive)]);
    let mut suspect = alive.clone();
    suspect.peer_lost(Instant::default(), id(1));
    suspect.timeout(Instant::default() + Duration::from_millis(400));
    assert_eq!(suspect.members()[&id(1)].state, MemberState::Suspect);
    let mut reports = Reports::new(id(0), 1);
    report(&mut reports, 1, 1, [task(11, 1, 1, TaskState::Running, host(1, 11, 2))]);
    let plans = [&alive, &suspect].map(|membership| plan(&SHOAL, &intent, membership, &reports));
    assert_eq!(plans[0], plans[1]);
}

proptest! {
    /// The digest tells plans apart exactly as they are; the order in which things were learnt, and whether the plan
    /// was computed at once or followed earlier ones, leave no trace.
    #[test]
    fn equal_planes_give_equal_plans_and_digests(
        replicas in prop::collection::vec(0..5_u32, 0..4),
        states in prop::collection::vec(0..8_u8, 0..6),
        swap in any::<bool>(),
    ) {
        let services: Vec<Service> = replicas.iter().enumerate()
            .map(|(number, replicas)| service(number as u8, &format!("s{number}"), *replicas, 1)).collect();
        let members = membership(&[(1, MemberState::Alive), (2, MemberState::Alive)]);
        let tasks: Vec<TaskReport> = states.iter().enumerate().map(|(number, state)| {
            let states = [TaskState::Accepted, TaskState::Preparing, TaskState::Starting, TaskState::Running,
                TaskState::Stopping, TaskState::Complete, TaskState::Failed, TaskState::Shutdown];
            task(number as u8, (number % 3) as u8, 1 + (number as u32 % 2), states[usize::from(*state)], host(1, 11, 2 + number as u8))
        }).collect();
        let compute = |backwards: bool| {
            let (mut services, mut tasks) = (services.clone(), tasks.clone());
            if backwards {
                services.reverse();
                tasks.reverse();
            }
            let mut reports = Reports::new(id(0), 1);
            report(&mut reports, 1, 1, tasks);
            let intent = self::intent(&services, &[(1, 11)]);
            if backwards {
                // By way of other planes: half the services, fewer nodes, no reports.
                let fewer = self::intent(&services[..services.len() / 2], &[(1, 12)]);
                let before = plan(&SHOAL, &fewer, &membership(&[(1, MemberState::Down)]), &Reports::new(id(0), 1));
                let unheard = follow(before, &SHOAL, &intent, &members, &Reports::new(id(0), 1));
                return follow_reports(unheard, &intent, &members, &reports);
            }
            plan(&SHOAL, &intent, &members, &reports)
        };
        let (one, other) = (compute(false), compute(swap));
        prop_assert_eq!(&one, &other);
        if !one.assignments.is_empty() {
            let elsewhere: Assignments = one.assignments.iter().map(|(slot, _)| (slot, id(77))).collect();
            prop_assert_ne!(digest(&digest_placed(VERSION, &elsewhere.digest(), &one.owned), &one.names), one.digest);
        }
    }
}

#[test]
fn the_rules_in_force_are_those_of_the_oldest_binary_that_is_up() {
    let members = membership(&[(1, MemberState::Alive), (2, MemberState::Down)]);
    let of =
        |members: &Membership| plan(&SHOAL, &intent(&[service(1, "web", 3, 1)], &[]), members, &Reports::new(id(9), 1));
    let newest = of(&members);
    assert_eq!(newest.version, VERSION);
    for (number, state, expected) in [(3, MemberState::Alive, 0), (4, MemberState::Down, VERSION)] {
        let mut members = members.clone();
        let mut old = member(number, state);
        old.meta.plan_version = 0;
        members.restore(old);
        let found = of(&members);
        assert_eq!(found.version, expected);
    }
    let mut members = members.clone();
    let mut newer = member(1, MemberState::Alive);
    newer.incarnation = 2;
    newer.meta.plan_version = VERSION + 1;
    members.restore(newer);
    assert_eq!(of(&members), newest, "what only others can compute is not in force");
}
