//! The encodings, byte for byte: whoever changes one of these breaks every shoal that runs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use shoal_cluster::clock::Stamp;
use shoal_cluster::crdt::{Actor, Context, Dot, Version};
use shoal_cluster::id::{Leg, RolloutId};
use shoal_cluster::intent::Entry;
use shoal_cluster::intent::constraint::{Constraint, Spread};
use shoal_cluster::intent::history::{Ended, Kept};
use shoal_cluster::intent::key::Key;
use shoal_cluster::intent::name::Name;
use shoal_cluster::intent::node::{Availability, NodeIntent, NodeSpec};
use shoal_cluster::intent::object::{DataKind, DataSpec, NetworkSpec, Object, ObjectName, Part};
use shoal_cluster::intent::range::Range;
use shoal_cluster::intent::service::container::{Host, Log, Mount, MountSource, Ulimit, VolumeName};
use shoal_cluster::intent::service::file::FileMount;
use shoal_cluster::intent::service::health::{HealthCheck, HealthTest};
use shoal_cluster::intent::service::network::{Attachment, Endpoint, EndpointMode, Port, Protocol, PublishMode};
use shoal_cluster::intent::service::{ImageRef, PlacementSpec, Reserved, Service, ServiceSpec, TaskSpec};
use shoal_cluster::intent::update::{FailureAction, Rollout, Ruling, UpdateConfig, UpdateOrder, Verdict};
use shoal_cluster::membership::MembershipMessage;
use shoal_cluster::membership::member::{Member, MemberState, NodeMeta, Role};
use shoal_cluster::membership::message::{Body, Update};
use shoal_cluster::plan::addresses::Addresses;
use shoal_cluster::record::Record;
use shoal_cluster::reports::item::{Failures, Item};
use shoal_cluster::reports::task::{TaskReport, TaskState};
use shoal_cluster::reports::{Head, ReportRange};
use shoal_cluster::sync::message::{
    ActorKnown, Cursor, Digests, Given, Gone, Known, Message, Parts, Push, Ranges, Repair, RepairAsk, Sketch, Span,
    Summary,
};
use shoal_cluster::sync::news::{Line, Short, Wish};
use shoal_cluster::{NodeId, ObjectId, ServiceId, TaskId, wire};

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

fn object<T>(name: &str, spec: T) -> Object<T> {
    let (id, name, author) = (ObjectId([0x44; 16]), ObjectName::new(name).unwrap(), NodeId([0x11; 32]));
    let labels = BTreeMap::from([("k".into(), "v".into())]);
    let (created_ms, updated_ms) = (1_700_000_000_000, 1_700_000_000_001);
    Object { id, name, version: 2, created_ms, updated_ms, author, labels, spec }
}

fn part() -> (Key, Part) {
    let id = ObjectId([0x44; 16]);
    (Key::part(&id, 8), Part { id, number: 8, count: 9, sealed: vec![0x55; 3] })
}

fn actor() -> Actor {
    Actor { node: NodeId([0x11; 32]), epoch: 300 }
}

fn service() -> Service {
    let mut task =
        TaskSpec::new(ImageRef { reference: "web:1".into(), digest: Some(format!("sha256:{}", "ab".repeat(32))) });
    task.args = vec!["-v".into()];
    task.env = vec!["A=1".into()];
    let source = MountSource::Volume { name: VolumeName::new("data").ok(), no_copy: true, labels: BTreeMap::new() };
    task.container.mounts = vec![Mount { target: "/data".into(), read_only: false, source }];
    task.container.hosts = vec![Host { address: [10, 9, 8, 7].into(), names: vec!["db".into()] }];
    task.container.ulimits = vec![Ulimit { name: "nofile".into(), soft: 1024, hard: -1 }];
    let (id, name) = (ObjectId([0x44; 16]), ObjectName::new("key").unwrap());
    let target = "/k".into();
    task.container.files = vec![FileMount { kind: DataKind::Config, id, name, target, uid: 7, gid: 8, mode: 0o400 }];
    task.container.log = Some(Log { file_bytes_max: Some(1 << 20), files_max: None });
    task.health = Some(HealthCheck::new(HealthTest::Http { port: 8080, path: "/".into() }));
    let mut spec = ServiceSpec::new(Name::new("Web").unwrap(), 3, task);
    spec.labels = BTreeMap::from([("k".into(), "v".into())]);
    spec.reserved = Reserved { nano_cpus: 500_000_000, memory_bytes: 1 << 20 };
    spec.placement = PlacementSpec {
        constraints: vec![Constraint::parse("node.labels.disk==ssd").unwrap()],
        spread: vec![Spread::parse("node.labels.zone").unwrap()],
        replicas_per_node_max: 2,
        platforms: vec![("linux".into(), "amd64".into())],
    };
    let (network, aliases) = (ObjectName::new("back").unwrap(), vec![Name::new("db").unwrap()]);
    spec.networks = vec![Attachment { network, aliases }];
    let (protocol, mode) = (Protocol::Udp, PublishMode::Host);
    let ports = vec![Port { name: "http".into(), protocol, target: 80, published: 8080, mode }];
    spec.endpoint = Endpoint { mode: EndpointMode::DnsRr, ports };
    spec.update = UpdateConfig {
        parallelism: 2,
        delay_ms: 1_000,
        monitor_ms: 300,
        failure_action: FailureAction::Rollback,
        failure_ratio_max_ppm: 250_000,
        order: UpdateOrder::StartFirst,
    };
    spec.into_service()
}

trait IntoService {
    fn into_service(self) -> Service;
}

impl IntoService for ServiceSpec {
    fn into_service(self) -> Service {
        let id = ServiceId([0x22; 16]);
        Service {
            id,
            version: 2,
            revision: 1,
            created_ms: 1_700_000_000_000,
            updated_ms: 1_700_000_000_001,
            author: NodeId([0x11; 32]),
            rollout: Some(Rollout { id: RolloutId(7), started_ms: 1_700_000_000_001, backward: true }),
            history: vec![Kept {
                version: 1,
                revision: 9,
                author: NodeId([0x12; 32]),
                written_ms: 1_700_000_000_000,
                ended: Ended::Completed,
                spec: ServiceSpec::new(Name::new("Web").unwrap(), 1, self.task.clone()),
            }],
            spec: self,
        }
    }
}

fn entry() -> Entry {
    let other = Actor { node: NodeId([0x10; 32]), epoch: 1 };
    Entry {
        key: Key { kind: 1, name: "web".into() },
        version: Version {
            dot: Dot::new(actor(), 7),
            context: [(other, 3), (actor(), 6)].into_iter().collect::<Context>(),
            stamp: Stamp { wall_ms: 1_700_000_000_000, logical: 1 },
            value: Some(vec![0xaa, 0xbb]),
            author: Vec::new(),
            signature: Vec::new(),
        },
    }
}

fn tombstone() -> Entry {
    let mut entry = entry();
    entry.version.value = None;
    entry.version.context = Context::default();
    entry
}

fn task() -> TaskReport {
    TaskReport {
        id: TaskId([0x33; 16]),
        service: ServiceId([0x22; 16]),
        slot: 2,
        revision: 1,
        addresses: Addresses { v4: Some(Ipv4Addr::new(10, 64, 3, 2)), v6: Ipv6Addr::LOCALHOST },
        state: TaskState::Failed,
        stable: true,
        over: false,
        since_ms: 1_700_000_000_000,
        error: "exit".into(),
        exit_code: Some(-1),
    }
}

fn report() -> ReportRange {
    let node = NodeId([0x11; 32]);
    let failures = Item {
        seq: 10,
        kind: 3,
        key: wire::encode(&(ServiceId([0x22; 16]), Leg(7))),
        value: Some(wire::encode(&Failures { slots: BTreeSet::from([2, 300]), task: TaskId([0x33; 16]) })),
    };
    let gone = Item { seq: 9, kind: 2, key: wire::encode(&"sha256:ab"), value: None };
    ReportRange {
        node,
        after: 7,
        upto: Head { epoch: 300, edition: 1, seq: 10 },
        items: vec![Item::task(8, task()), gone, failures],
        complete: true,
        signature: Vec::new(),
    }
}

fn member() -> Member {
    let address = |port| (Ipv4Addr::new(192, 0, 2, 1), port).into();
    let meta = NodeMeta {
        name: Name::new("node-1").unwrap(),
        gossip: address(7946),
        tunnel: address(7946),
        role: Role::Manager,
        wire_version: 1,
        plan_version: 1,
        labels: BTreeMap::new(),
        leaving: false,
        counts: true,
        software: "0.1.0".into(),
        os: "linux".into(),
        architecture: "amd64".into(),
        nano_cpus: 2_000_000_000,
        memory_bytes: 1 << 32,
    };
    Member { id: NodeId([0x11; 32]), incarnation: 4, state: MemberState::Suspect, meta }
}

fn node_intent() -> NodeIntent {
    let labels = BTreeMap::from([("zone".into(), "a".into())]);
    NodeIntent {
        node: NodeId([0x11; 32]),
        version: 2,
        removed: false,
        spec: NodeSpec { availability: Availability::Drain, labels },
    }
}

fn ruling() -> Ruling {
    Ruling {
        service: ServiceId([0x22; 16]),
        rollout: RolloutId(7),
        verdict: Verdict::RolledBack,
        task: Some(TaskId([0x33; 16])),
    }
}

fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let digests = Digests { intent: [1; 32], plan: [2; 32], known: [3; 32], writes: [4; 32] };
    let node = NodeId([0x11; 32]);
    let update = Update { member: member(), accuser: NodeId([0x12; 32]) };
    let known = Known {
        digests,
        span: Span::ALL,
        parts: Parts { of: 4, numbers: vec![1, 3] },
        asks: true,
        actors: vec![ActorKnown { actor: actor(), upto: 7, ahead: BTreeSet::from([9, 300]) }],
        reports: vec![(node, Head { epoch: 300, edition: 1, seq: 9 })],
    };
    let range = Range { actor: actor(), after: 5, upto: 7, entries: vec![entry()], collected: 6 };
    let (of, head) = (Short::of(&node), Head { epoch: 300, edition: 1, seq: 9 });
    let given = Given { intent: vec![range.clone()], reports: vec![report()] };
    let ranges = Ranges {
        span: Span::only(node),
        parts: Parts::default(),
        intent: vec![range],
        reports: vec![report()],
        more: false,
    };
    let cursor = Cursor { key: Key { kind: 2, name: "00007".into() }, versions: 1 };
    let ping = MembershipMessage { body: Body::Ping { number: 5 }, updates: vec![update] };
    vec![
        ("membership", Message::Membership(ping).encode()),
        ("summary", Message::Summary(Summary { digests, asks: true }).encode()),
        ("known", Message::Known(known).encode()),
        ("ranges", Message::Ranges(ranges).encode()),
        (
            "push",
            Message::Push(Push { hops: 3, entries: vec![entry(), tombstone()], reports: vec![report()] }).encode(),
        ),
        ("repair ask", Message::RepairAsk(RepairAsk { from: Some(cursor.clone()) }).encode()),
        ("repair", Message::Repair(Repair { entries: vec![entry()], next: Some(cursor) }).encode()),
        ("stored", Message::Stored(ActorKnown { actor: actor(), upto: 7, ahead: BTreeSet::from([9]) }).encode()),
        ("sketch", Message::Sketch(Sketch { hashes: vec![1, 70_000] }).encode()),
        (
            "told",
            Message::Told(vec![Line::Writes { of, epoch: 300, upto: 7, beyond: 2 }, Line::Report { of, head }])
                .encode(),
        ),
        (
            "wanted",
            Message::Wanted(vec![
                Wish::Writes { of, epoch: 300, upto: 5, ahead: BTreeSet::from([7]) },
                Wish::Report { of, head },
            ])
            .encode(),
        ),
        ("given", Message::Given(given).encode()),
        ("gone", Message::Gone(Gone { writes: vec![(entry().key, entry().version.dot)] }).encode()),
        ("record start", Record::Start(300).encode()),
        ("record entry", Record::Entry(entry()).encode()),
        ("record vector", Record::Vector(vec![(actor(), 7)]).encode()),
        ("record collected", Record::Collected(vec![(actor(), 6)]).encode()),
        ("record gone", Record::Gone(vec![(entry().key, entry().version.dot)]).encode()),
        ("record member", Record::Member(member()).encode()),
        ("service", wire::encode(&service())),
        ("node intent", wire::encode(&node_intent())),
        ("network", wire::encode(&object("back", NetworkSpec { attachable: true, internal: false }))),
        ("secret", wire::encode(&object("key", DataSpec { bytes: 500 * 1024 }))),
        ("part", wire::encode(&part())),
        ("verdict", wire::encode(&ruling())),
        ("volume claim", wire::encode(&(Key::volume(&VolumeName::new("Data").unwrap()), NodeId([0x11; 32])))),
        ("block claim", wire::encode(&NodeId([0x11; 32]))),
    ]
}

#[test]
fn encodings_are_what_they_were() {
    let golden = include_str!("golden.txt");
    let present: String = messages().iter().map(|(name, bytes)| format!("{name}: {}\n", hex(bytes))).collect();
    assert!(present == golden, "the encodings are now:\n{present}");
}

#[test]
fn every_encoding_reads_back_as_itself() {
    for (name, bytes) in messages() {
        if let Ok(Some(message)) = Message::decode(&bytes).map_err(|error| (name, error))
            && !name.starts_with("record")
        {
            assert_eq!(message.encode(), bytes, "{name}");
        }
    }
    for (_, bytes) in messages().into_iter().filter(|(name, _)| name.starts_with("record")) {
        assert_eq!(Record::decode(&bytes).map(|record| record.encode()), Ok(bytes));
    }
    assert_eq!(wire::decode::<Service>(&wire::encode(&service())), Ok(service()));
}
