//! A small world for the core's own tests: a few cores, an in-memory network, disks that keep what was persisted.
//!
//! The simulator proper is `simulations/`; this one has no faults but crashes and lost messages.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use shoal_cluster::intent::name::Name;
use shoal_cluster::intent::service::{ImageRef, ServiceSpec, TaskSpec};
use shoal_cluster::limits::MESSAGE_BYTES_MAX;
use shoal_cluster::membership::member::{NodeMeta, Role};
use shoal_cluster::seed::Stream;
use shoal_cluster::{
    Action, Cluster, Command, CommandError, Config, Event, Input, Instant, NodeId, Now, Receipt, TaskCommand,
    TaskEvent, TaskId, TaskOrder, wire,
};

/// Wall clock at the start of the world.
const START_MS: u64 = 1_700_000_000_000;
/// How long a message and a container's start take.
const DELAY: Duration = Duration::from_millis(1);

pub struct World {
    pub nodes: Vec<Node>,
    now: Instant,
    queue: BTreeMap<(Instant, u64), (usize, Input)>,
    queued: u64,
    random: Stream,
    /// Messages in a thousand that are lost.
    pub loss_permille: u64,
    /// Messages of these kinds are lost.
    pub lost_kinds: BTreeSet<u16>,
    /// Bytes of messages sent, by node.
    pub sent_bytes: Vec<u64>,
    /// Every message ever sent.
    pub messages: Vec<Vec<u8>>,
    /// From whom to whom each of them went.
    pub ways: Vec<(NodeId, NodeId)>,
    /// Changes the knobs of each node that starts.
    tune: fn(&mut Config),
}

pub struct Node {
    pub id: NodeId,
    pub core: Option<Cluster>,
    pub disk: Vec<Vec<u8>>,
    pub containers: BTreeMap<TaskId, TaskOrder>,
    pub events: Vec<Event>,
    /// Crash right after this many more records are durable.
    pub crash_after_persists: Option<usize>,
    epoch: u64,
    contacts: Vec<(NodeId, SocketAddr)>,
}

pub fn node_id(number: usize) -> NodeId {
    NodeId([number as u8 * 10 + 1; 32])
}

pub fn meta(number: usize) -> NodeMeta {
    let address = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, number as u8 + 1)), port);
    NodeMeta {
        name: Name::new(&format!("node-{number}")).unwrap(),
        gossip: address(7946),
        tunnel: address(7947),
        role: Role::Manager,
        wire_version: 1,
        plan_version: 1,
        labels: BTreeMap::new(),
        leaving: false,
        counts: false,
        software: "0.1.0".to_string(),
        os: "linux".to_string(),
        architecture: "amd64".to_string(),
        nano_cpus: 2_000_000_000,
        memory_bytes: 1 << 32,
    }
}

pub fn spec(name: &str, replicas: u32) -> ServiceSpec {
    let digest = Some("sha256:00".to_string());
    let task = TaskSpec::new(ImageRef { reference: "web:latest".to_string(), digest });
    ServiceSpec::new(Name::new(name).unwrap(), replicas, task)
}

impl World {
    /// Makes `count` nodes: the first founds the shoal, the others know the first.
    pub fn new(count: usize) -> Self {
        Self::tuned(count, |_| {})
    }

    /// As [`Self::new`], with other knobs.
    pub fn tuned(count: usize, tune: fn(&mut Config)) -> Self {
        let mut world = Self {
            nodes: Vec::new(),
            now: Instant::from_micros(1_000_000),
            queue: BTreeMap::new(),
            queued: 0,
            random: Stream::new(&[7; 32], "world"),
            loss_permille: 0,
            lost_kinds: BTreeSet::new(),
            sent_bytes: vec![0; count],
            messages: Vec::new(),
            ways: Vec::new(),
            tune,
        };
        for number in 0..count {
            let contacts = if number == 0 { Vec::new() } else { vec![(node_id(0), meta(0).gossip)] };
            world.nodes.push(Node {
                id: node_id(number),
                core: None,
                disk: Vec::new(),
                containers: BTreeMap::new(),
                events: Vec::new(),
                crash_after_persists: None,
                epoch: 0,
                contacts,
            });
            world.start(number);
        }
        world
    }

    pub fn now(&self) -> Now {
        Now { mono: self.now, wall_ms: START_MS + self.now.as_micros() / 1_000 }
    }

    /// Starts a node from its disk.
    pub fn start(&mut self, number: usize) {
        let now = self.now();
        let node = &mut self.nodes[number];
        node.epoch += 1;
        let mut config = Config::new([3; 32], node.epoch, meta(number), node.contacts.clone());
        (self.tune)(&mut config);
        let mut seed = [number as u8; 32];
        seed[0] = node.epoch as u8;
        node.core = Some(Cluster::restore(node.id, config, seed, now, node.disk.clone().into_iter()).unwrap());
        let found = node.containers.values().cloned().collect();
        self.drain(number);
        self.input(number, Input::Images(BTreeSet::from(["web:latest@sha256:00".to_string()])));
        self.input(number, Input::Task(TaskEvent::Recovered { running: found, starting: Vec::new() }));
        let id = self.nodes[number].id;
        for other in (0..self.nodes.len()).filter(|other| *other != number) {
            if self.nodes[other].core.is_some() {
                let peer = self.nodes[other].id;
                self.later(number, Input::PeerConnected(peer));
                self.later(other, Input::PeerConnected(id));
            }
        }
    }

    /// Ends a node as SIGKILL does; its containers run on, its disk keeps what was durable.
    pub fn crash(&mut self, number: usize) {
        self.nodes[number].core = None;
        self.nodes[number].crash_after_persists = None;
        let id = self.nodes[number].id;
        self.queue.retain(|_, (to, _)| *to != number);
        for other in 0..self.nodes.len() {
            if self.nodes[other].core.is_some() {
                self.later(other, Input::PeerLost(id));
            }
        }
    }

    /// Puts an old disk back into a node that is not running, the count of its starts included.
    pub fn set_back(&mut self, number: usize, disk: Vec<Vec<u8>>) {
        self.nodes[number].disk = disk;
        self.nodes[number].epoch = 0;
    }

    /// Replaces a node's disk by its core's snapshot, as the store does now and then.
    pub fn compact(&mut self, number: usize) {
        self.nodes[number].disk = self.core(number).snapshot();
    }

    pub fn core(&self, number: usize) -> &Cluster {
        self.nodes[number].core.as_ref().unwrap()
    }

    pub fn views(&mut self, number: usize) -> &shoal_cluster::Views {
        self.nodes[number].core.as_mut().unwrap().views()
    }

    pub fn apply(&mut self, number: usize, command: Command) -> Result<Receipt, CommandError> {
        let now = self.now();
        let receipt = self.nodes[number].core.as_mut().unwrap().apply(now, command);
        self.drain(number);
        receipt
    }

    pub fn input(&mut self, number: usize, input: Input) {
        let now = self.now();
        if let Some(core) = &mut self.nodes[number].core {
            core.handle(now, input);
            self.drain(number);
        }
    }

    fn later(&mut self, number: usize, input: Input) {
        self.queued += 1;
        self.queue.insert((self.now + DELAY, self.queued), (number, input));
    }

    fn drain(&mut self, number: usize) {
        while let Some(action) = self.nodes[number].core.as_mut().and_then(Cluster::poll) {
            match action {
                Action::Persist(record) => {
                    let node = &mut self.nodes[number];
                    node.disk.push(record);
                    if let Some(left) = &mut node.crash_after_persists {
                        *left -= 1;
                        if *left == 0 {
                            return self.crash(number);
                        }
                    }
                }
                Action::Send { to, message } => self.send(number, to, message),
                Action::Task(command) => self.task(number, command),
                Action::Notify(event) => self.nodes[number].events.push(event),
            }
        }
    }

    fn send(&mut self, number: usize, to: NodeId, message: Vec<u8>) {
        self.sent_bytes[number] += message.len() as u64;
        self.messages.push(message.clone());
        self.ways.push((self.nodes[number].id, to));
        let kind = wire::open(&message, MESSAGE_BYTES_MAX).unwrap().kind;
        let lost = self.random.below(1_000) < self.loss_permille || self.lost_kinds.contains(&kind);
        let target = self.nodes.iter().position(|node| node.id == to && node.core.is_some());
        if let Some(target) = target.filter(|_| !lost) {
            let from = self.nodes[number].id;
            self.later(target, Input::Received { from, message });
        }
    }

    fn task(&mut self, number: usize, command: TaskCommand) {
        match command {
            TaskCommand::Start(order) => {
                let id = order.id;
                self.nodes[number].containers.insert(id, order);
                self.later(number, Input::Task(TaskEvent::Starting(id)));
                self.later(number, Input::Task(TaskEvent::Running(id)));
            }
            TaskCommand::Stop(id) | TaskCommand::Drain(id) => {
                self.nodes[number].containers.remove(&id);
                let ended = TaskEvent::Ended { id, exit_code: Some(0), error: String::new() };
                self.later(number, Input::Task(ended));
            }
            TaskCommand::Remove(id) => drop(self.nodes[number].containers.remove(&id)),
        }
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// Lets time pass until `done`, or fails after a minute.
    pub fn run_until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) -> Duration {
        let start = self.now;
        while !done(self) {
            assert!(self.now.since(start) < Duration::from_secs(60), "after a minute still not: {what}");
            let end = self.now + Duration::from_millis(20);
            while self.step(end) {}
            self.now = end;
        }
        self.now.since(start)
    }

    /// Does the next thing that happens up to `end`.
    fn step(&mut self, end: Instant) -> bool {
        let due = |node: &Node| node.core.as_ref().map(Cluster::poll_timeout);
        let timer = self.nodes.iter().enumerate().filter_map(|(number, node)| Some((due(node)?, number))).min();
        let message = self.queue.first_key_value().map(|(key, _)| *key);
        match (timer, message) {
            (timer, Some(key)) if key.0 <= end && timer.is_none_or(|(at, _)| key.0 <= at) => {
                self.now = self.now.max(key.0);
                let (number, input) = self.queue.remove(&key).unwrap();
                self.input(number, input);
                true
            }
            (Some((at, number)), _) if at <= end => {
                self.now = self.now.max(at);
                self.input(number, Input::Timeout);
                let next = self.nodes[number].core.as_ref().map(Cluster::poll_timeout);
                assert!(next.is_none_or(|next| next > at), "node {number} is due again at once");
                true
            }
            _ => false,
        }
    }

    /// Tells whether all running nodes have the same intent and the same plan, and know it of each other.
    pub fn agreed(&mut self) -> bool {
        let agreements: Vec<_> = self
            .nodes
            .iter_mut()
            .filter_map(|node| node.core.as_mut())
            .map(|core| core.views().agreement.clone())
            .collect();
        let first = &agreements[0];
        agreements.iter().all(|agreement| {
            let peers = agreement.peers.values();
            agreement.intent == first.intent
                && agreement.plan == first.plan
                && agreement.peers.len() + 1 == agreements.len()
                && peers
                    .into_iter()
                    .all(|peer| peer.intent == first.intent && peer.plan == first.plan && peer.behind == 0)
        })
    }

    pub fn services(&mut self, number: usize) -> Vec<(String, u64, u32)> {
        let service = |service: &shoal_cluster::intent::service::Service| {
            (service.spec.name.to_string(), service.version, service.spec.replicas)
        };
        self.views(number).services.iter().map(service).collect()
    }
}
