//! A shoal of three nodes that stands still, but carries out commands on services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use crate::identity::DataKey;
use futures::future::BoxFuture;
use shoal_cluster::NewObject;
use shoal_cluster::clock::Stamp;
use shoal_cluster::crdt::{Actor, Dot};
use shoal_cluster::intent::Intent;
use shoal_cluster::intent::conflict::{Conflict, Rival};
use shoal_cluster::intent::key::Key;
use shoal_cluster::intent::name::Name;
use shoal_cluster::intent::node::NodeIntent;
use shoal_cluster::intent::object::{DataKind, DataSpec, Object, Sealed};
use shoal_cluster::intent::service::{ImageRef, Service, ServiceSpec, TaskSpec};
use shoal_cluster::membership::member::{Member, MemberState, NodeMeta, Role};
use shoal_cluster::plan::addresses::{Addresses, Block};
use shoal_cluster::plan::names::Names;
use shoal_cluster::plan::routes::Routes;
use shoal_cluster::reports::task::{TaskReport, TaskState};
use shoal_cluster::view::{Agreement, PeerAgreement, TaskView};
use shoal_cluster::{Command, CommandError, NodeId, Receipt, ServiceId, TaskId, Views};
use shoal_runtime::image::progress::{Progress, Step};
use shoal_runtime::image::registry::Login;
use shoal_runtime::image::{Digest, ImageStore, Reference};
use tokio::sync::{Notify, mpsc, watch};

use crate::api::status::Traffic;
use crate::api::{About, Applied, ApplyError, NodeHandle, PullError, Request, Sources, Tokens};
use crate::executor::health::HealthBoard;
use crate::reach::tests::{Scripted, line};
use crate::volumes::Volumes;

/// The manifest of `far:1`, which another node has.
pub(super) const FAR_DIGEST: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";
const SHOAL: [u8; 32] = [9; 32];
/// 2026-01-01.
const NOW_MS: u64 = 1_767_225_600_000;

/// The node that is asked, and what it stands on.
pub(super) struct Shoal {
    pub(super) handle: NodeHandle,
    _images: tempfile::TempDir,
}

impl Shoal {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let images = Arc::new(ImageStore::open(&directory.path().join("images")).unwrap());
        let (publish, views) = watch::channel(Arc::new(views()));
        let (commands, requests) = mpsc::channel(8);
        tokio::spawn(carry_out(publish, requests));
        let handle = NodeHandle {
            views,
            commands,
            about: Arc::new(about()),
            volumes: Arc::new(Volumes::open(directory.path().join("volumes")).unwrap()),
            health: Arc::new(HealthBoard::open(directory.path().join("health")).unwrap()),
            images,
            images_changed: Arc::new(Notify::new()),
            sources: Arc::new(Far),
            reach: Arc::new(|on| Arc::new(tasks(on))),
            execs: Arc::default(),
            events: Arc::default(),
            leave: mpsc::channel(1).0,
        };
        Self { handle, _images: directory }
    }
}

/// What the nodes say of their tasks; one of them is down.
fn tasks(on: NodeId) -> Scripted {
    let logs = match on.0[0] {
        1 => vec![
            (TaskId([1; 16]), vec![line(1, "stdout", "one\n")]),
            (TaskId([2; 16]), vec![line(2, "stdout", "two\n"), line(4, "stderr", "four\n")]),
        ],
        2 => vec![(TaskId([3; 16]), vec![line(3, "stdout", "three\n")])],
        _ => panic!("a node that is down is not asked"),
    };
    Scripted { logs: logs.into_iter().collect() }
}

/// Other nodes and registries: they know `far:1`, and `docker.io` takes the password of `anna`.
struct Far;

fn far(reference: &Reference) -> Result<Digest, PullError> {
    match reference.to_string().as_str() {
        "far:1" => Ok(FAR_DIGEST.parse().unwrap()),
        "secret:1" => Err(PullError::Denied("log in with `shoal login`".to_owned())),
        _ => Err(PullError::NotFound("registry docker.io has no image".to_owned())),
    }
}

impl Sources for Far {
    fn find(&self, reference: Reference, _: Option<Login>) -> BoxFuture<'static, Result<Digest, PullError>> {
        Box::pin(std::future::ready(far(&reference)))
    }

    fn pull(
        &self,
        reference: Reference,
        _: Option<Login>,
        progress: Arc<Progress>,
    ) -> BoxFuture<'static, Result<(Digest, bool), PullError>> {
        let found = far(&reference);
        if let Ok(digest) = found {
            progress(Step::Wanted(digest));
            progress(Step::Downloading { digest, done_bytes: 5, total_bytes: 10 });
            progress(Step::Complete(digest));
        }
        Box::pin(std::future::ready(found.map(|digest| (digest, true))))
    }

    fn check_login(&self, registry: String, login: Login) -> BoxFuture<'static, Result<(), PullError>> {
        let is_right = (registry.as_str(), login.password.as_str()) == ("docker.io", "geheim");
        let answer = if is_right { Ok(()) } else { Err(PullError::Denied("refused".to_owned())) };
        Box::pin(std::future::ready(answer))
    }
}

async fn carry_out(publish: watch::Sender<Arc<Views>>, mut requests: mpsc::Receiver<Request>) {
    let mut intent = Intent::new(Actor { node: node(1), epoch: 1 });
    while let Some(Request { command, answer }) = requests.recv().await {
        let mut views = Views::clone(&publish.borrow());
        let result = apply(&mut views, &mut intent, command);
        publish.send_replace(Arc::new(views));
        let applied = |receipt| Applied { receipt, copies: 0, others_up: 0, others: 1 };
        let _ = answer.send(result.map(applied).map_err(ApplyError::from));
    }
}

fn apply(views: &mut Views, intent: &mut Intent, command: Command) -> Result<Receipt, CommandError> {
    match command {
        Command::CreateService(spec) => {
            if views.services.iter().any(|service| service.spec.name == spec.name) {
                return Err(CommandError::NameTaken(spec.name));
            }
            let id = ServiceId([views.services.len() as u8 + 50; 16]);
            views.services.push(Service {
                id,
                version: 1,
                revision: 1,
                created_ms: NOW_MS,
                updated_ms: NOW_MS,
                author: NodeId([1; 32]),
                rollout: None,
                history: Vec::new(),
                spec,
            });
            Ok(Receipt::Service { id, version: 1 })
        }
        Command::ClaimVolume(name) => {
            let holder = *views.volumes.entry(name.clone()).or_insert(node(1));
            match holder == node(1) {
                true => Ok(Receipt::Done),
                false => Err(CommandError::VolumeElsewhere { volume: name, node: holder }),
            }
        }
        Command::ReleaseVolume(name) => {
            views.volumes.remove(&name);
            Ok(Receipt::Done)
        }
        Command::UpdateNode { node, version, spec } => {
            let present = views.nodes.get(&node).map_or(0, |intent| intent.version);
            if present != version {
                return Err(CommandError::NodeOutOfSequence { node, named: version, present });
            }
            views.nodes.insert(node, NodeIntent { node, version: present + 1, removed: false, spec });
            Ok(Receipt::Done)
        }
        Command::RemoveNode(node) => Err(CommandError::NodeIsUp(node)),
        Command::UpdateService { id, version, spec } => {
            let service = views.services.iter_mut().find(|service| service.id == id);
            let service = service.ok_or(CommandError::NoSuchService(id))?;
            if service.version != version {
                let (name, present) = (service.spec.name.clone(), service.version);
                return Err(CommandError::OutOfSequence { name, named: version, present });
            }
            service.version += 1;
            service.spec = spec;
            Ok(Receipt::Service { id, version: service.version })
        }
        Command::RollbackService { id, version: _, to } => {
            let service = views.services.iter_mut().find(|service| service.id == id);
            let service = service.ok_or(CommandError::NoSuchService(id))?;
            let kept = service.history.iter().find(|kept| to.is_none_or(|to| kept.version == to));
            let name = || service.spec.name.clone();
            let spec = kept.ok_or_else(|| CommandError::NotKept { name: name(), version: to })?.spec.clone();
            service.version += 1;
            service.spec = spec;
            Ok(Receipt::Service { id, version: service.version })
        }
        Command::RemoveService(id) => {
            views.services.retain(|service| service.id != id);
            Ok(Receipt::Done)
        }
        Command::CreateNetwork { .. }
        | Command::RemoveNetwork(_)
        | Command::CreateData { .. }
        | Command::LabelData { .. }
        | Command::RemoveData { .. } => {
            write_object(intent, command);
            views.networks = intent.networks().clone();
            views.secrets = intent.data(DataKind::Secret).clone();
            views.configs = intent.data(DataKind::Config).clone();
            views.sealed = intent.sealed().clone();
            Ok(Receipt::Done)
        }
        Command::HandOver | Command::Leave => Ok(Receipt::Done),
    }
}

/// Writes what the core would, had it found nothing against it.
fn write_object(intent: &mut Intent, command: Command) {
    fn object<T>(NewObject { id, name, labels }: NewObject, spec: T) -> Object<T> {
        let author = node(1);
        Object { id, name, version: 1, created_ms: NOW_MS, updated_ms: NOW_MS, author, labels, spec }
    }
    match command {
        Command::CreateNetwork { new, spec } => {
            intent.write_network(NOW_MS, &object(new, spec));
        }
        Command::RemoveNetwork(id) => {
            let found = intent.networks().values().find(|network| network.id == id).map(|network| network.name.clone());
            intent.remove_network(NOW_MS, &found.unwrap());
        }
        Command::CreateData { kind, new, bytes, sealed } => {
            intent.write_parts(NOW_MS, new.id, &sealed);
            intent.write_data(NOW_MS, kind, &object(new, DataSpec { bytes }));
        }
        Command::LabelData { kind, id, version, labels } => {
            let present = intent.data(kind).values().find(|data| data.id == id).unwrap().clone();
            intent.write_data(NOW_MS, kind, &Object { version: version + 1, labels, ..present });
        }
        Command::RemoveData { kind, id } => {
            let found = intent.data(kind).values().find(|data| data.id == id).map(|data| data.name.clone());
            intent.remove_data(NOW_MS, kind, &found.unwrap());
        }
        other => panic!("no object is written by {other:?}"),
    }
}

fn about() -> About {
    About {
        id: node(1),
        name: Name::new("node-a").unwrap(),
        role: Role::Manager,
        shoal: SHOAL,
        ca_pem: "-----BEGIN CERTIFICATE-----\n".to_owned(),
        data_dir: PathBuf::from("/var/lib/shoal"),
        advertised: "192.0.2.1:7946".to_owned(),
        dns: vec!["127.0.0.1:7953".to_owned()],
        started_ms: NOW_MS,
        tokens: Tokens { manager: Some("SHOAL-1-secret".to_owned()), worker: None },
        data_key: DataKey::generate(),
        traffic: Box::new(|| Traffic { sent_bytes: 1, received_bytes: 2 }),
    }
}

fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

fn member(number: u8, name: &str, state: MemberState) -> Member {
    let gossip: SocketAddr = format!("192.0.2.{number}:7946").parse().unwrap();
    let meta = NodeMeta {
        name: Name::new(name).unwrap(),
        gossip,
        tunnel: gossip,
        role: Role::Manager,
        wire_version: 1,
        plan_version: 1,
        labels: BTreeMap::new(),
        leaving: false,
        counts: false,
        software: "0.1.0".to_owned(),
        os: "linux".to_owned(),
        architecture: "amd64".to_owned(),
        nano_cpus: 2_000_000_000,
        memory_bytes: 4 << 30,
    };
    Member { id: node(number), incarnation: 1, state, meta }
}

fn service(number: u8, name: &str, replicas: u32, label: &str) -> Service {
    let image = ImageRef { reference: format!("{name}:latest"), digest: Some(FAR_DIGEST.to_owned()) };
    let labels = BTreeMap::from([("tier".to_owned(), label.to_owned())]);
    let mut spec = ServiceSpec::new(Name::new(name).unwrap(), replicas, TaskSpec::new(image));
    spec.labels = labels;
    let id = ServiceId([number; 16]);
    Service {
        id,
        version: 7,
        revision: 2,
        created_ms: NOW_MS,
        updated_ms: NOW_MS,
        author: NodeId([1; 32]),
        rollout: None,
        history: Vec::new(),
        spec,
    }
}

/// A task of `web`: its number, slot, revision, node and state.
fn task(number: u8, slot: u32, revision: u64, on: u8, state: TaskState) -> TaskView {
    let failed = state == TaskState::Failed;
    let report = TaskReport {
        id: TaskId([number; 16]),
        service: ServiceId([21; 16]),
        slot,
        revision,
        addresses: Addresses { v4: None, v6: Ipv6Addr::LOCALHOST },
        state,
        since_ms: NOW_MS,
        error: String::new(),
        stable: false,
        over: false,
        exit_code: failed.then_some(1),
    };
    let reachable = on != 3;
    TaskView { node: node(on), report, reachable, desired: reachable && !failed }
}

/// `web`, removed on one node while another wrote it.
fn conflict() -> Conflict {
    let stamp = |wall_ms| Stamp { wall_ms, logical: 0 };
    let rival = |number, value: Option<Vec<u8>>| Rival {
        dot: Dot { actor: Actor { node: node(number), epoch: 1 }, counter: 1 },
        author: node(number),
        stamp: stamp(NOW_MS + u64::from(number)),
        value,
    };
    let key = Key::service(&Name::new("web").unwrap());
    Conflict { key, versions: vec![rival(2, Some(b"not a service".to_vec())), rival(9, None)] }
}

pub(crate) fn views() -> Views {
    let members = vec![
        member(1, "node-a", MemberState::Alive),
        member(2, "node-b", MemberState::Suspect),
        member(3, "node-c", MemberState::Down),
    ];
    let blocks: BTreeMap<_, _> =
        members.iter().map(|member| (member.id, Block::derive(&SHOAL, &member.id, Some(3)))).collect();
    let peer = PeerAgreement { intent: [1; 32], plan: [8; 32], behind: 4, age_ms: 100 };
    Views {
        settled: true,
        majority: true,
        rollouts: BTreeMap::new(),
        nodes: BTreeMap::new(),
        assignments: Default::default(),
        completed: Default::default(),
        volumes: BTreeMap::new(),
        bonds: BTreeMap::new(),
        inputs: Arc::default(),
        routes: Routes { own: blocks[&node(1)], peers: BTreeMap::new() },
        blocks,
        members,
        services: vec![service(20, "db", 1, "middle"), service(21, "web", 3, "front")],
        tasks: vec![
            task(1, 1, 1, 1, TaskState::Failed),
            task(2, 1, 2, 1, TaskState::Running),
            task(3, 2, 2, 2, TaskState::Running),
            task(4, 3, 2, 3, TaskState::Running),
        ],
        images: BTreeMap::from([(format!("far:1@{FAR_DIGEST}"), BTreeSet::from([node(2)]))]),
        names: Names::default(),
        networks: Arc::default(),
        secrets: Arc::default(),
        configs: Arc::default(),
        sealed: Sealed::default(),
        agreement: Agreement { intent: [1; 32], plan: [1; 32], peers: BTreeMap::from([(node(2), peer)]) },
        conflicts: vec![conflict()],
    }
}
