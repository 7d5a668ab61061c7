//! The world: one queue of events in virtual time, and what each does to the nodes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use shoal_cluster::seed::Stream;
use shoal_cluster::{Action, Cluster, Command, CommandError, Input, NodeId, Receipt, TaskCommand, TaskEvent, TaskId};

use crate::network::Network;
use crate::node::{Node, node_id};
use crate::options::{Options, Sabotage, seed_bytes};
use crate::trace::Trace;
use crate::workload::Ledger;

/// The kinds of messages that carry entries and reports: ranges, pushes and repairs (`docs/protocol.md#wire`).
const DELTA_KINDS: [u16; 3] = [4, 5, 7];
/// How long a host takes to answer with a reset after a process died, in microseconds.
const RESET_US: u64 = 2_000;

/// Something that happens at a point of virtual time.
#[derive(Debug)]
enum Event {
    /// A message arrives.
    Deliver { from: usize, to: usize, bytes: Vec<u8> },
    /// A node's core asked to be woken.
    Timer { node: usize, run: u64 },
    /// A node hears that its connection to another is gone.
    Lost { node: usize, run: u64, peer: usize },
    /// A container has started.
    Started { node: usize, id: TaskId },
    /// A container has ended, asked or not.
    Ended { node: usize, id: TaskId, exit_code: i32 },
    /// A crashed node starts again.
    Restart { node: usize },
}

/// Where an event stands in the queue: time, then order of its making.
type Key = Reverse<(u64, u64)>;

/// The whole simulated world.
#[derive(Debug)]
pub struct World {
    pub(crate) options: Options,
    pub(crate) at_us: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Network,
    pub(crate) trace: Trace,
    pub(crate) ledger: Ledger,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) healed: bool,
    queue: BinaryHeap<(Key, usize)>,
    events: BTreeMap<usize, Event>,
    made: u64,
    containers: Stream,
    index: BTreeMap<NodeId, usize>,
}

impl World {
    /// Makes the world of these options and starts its nodes, the first a little before the others.
    pub fn new(options: Options) -> Self {
        let mut skew = options.stream("skew");
        let range_ms = options.faults.skew.as_millis() as u64;
        let lying = options.sabotage == Some(Sabotage::LoseRecords);
        let nodes: Vec<Node> = (0..options.nodes)
            .map(|index| Node::new(index, skew.below(2 * range_ms + 1) as i64 - range_ms as i64, lying))
            .collect();
        let mut world = Self {
            at_us: 0,
            network: Network::new(options.faults.clone(), options.stream("network")),
            trace: Trace::default(),
            ledger: Ledger::default(),
            counts: BTreeMap::new(),
            healed: false,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            made: 0,
            containers: options.stream("containers"),
            index: (0..options.nodes).map(|index| (node_id(index), index)).collect(),
            nodes,
            options,
        };
        for node in 0..world.nodes.len() {
            world.queue_at(Duration::from_millis(100 * node as u64), Event::Restart { node });
        }
        world
    }

    /// Runs until `end`, in microseconds of virtual time.
    pub(crate) fn run_until(&mut self, end_us: u64) {
        while let Some(&(Reverse((at_us, _)), slot)) = self.queue.peek() {
            if at_us > end_us {
                break;
            }
            self.queue.pop();
            self.at_us = at_us;
            if let Some(event) = self.events.remove(&slot) {
                self.happen(event);
            }
        }
        self.at_us = end_us;
    }

    /// Ends all faults: everything is joined, and what is down starts again.
    pub(crate) fn heal(&mut self) {
        self.healed = true;
        self.network.heal();
        for node in 0..self.nodes.len() {
            (self.nodes[node].crash_in, self.nodes[node].unplugged) = (None, false);
            if self.nodes[node].core.is_none() {
                self.queue_at(Duration::ZERO, Event::Restart { node });
            }
        }
    }

    /// Gives an operator's command to a node. `None`: the node is down, or crashed before it could answer.
    pub(crate) fn command(&mut self, node: usize, command: Command) -> Option<Result<Receipt, CommandError>> {
        self.trace.record(self.at_us, node, "command", format!("{command:?}").as_bytes());
        self.count("commands");
        let run = self.nodes[node].run;
        let now = self.nodes[node].now(self.at_us);
        let answer = self.nodes[node].core.as_mut()?.apply(now, command);
        self.drain(node);
        let survived = self.nodes[node].core.is_some() && self.nodes[node].run == run;
        survived.then_some(answer)
    }

    /// Lets a node crash: at once, or after some of its next actions. Its containers go with it if the plug is pulled.
    pub(crate) fn crash(&mut self, node: usize, after_actions: u64, restart_after: Option<Duration>) {
        if self.nodes[node].core.is_none() {
            return;
        }
        if after_actions == 0 {
            self.stop_node(node);
        } else {
            self.nodes[node].crash_in = Some(after_actions);
        }
        if let Some(delay) = restart_after {
            self.queue_at(delay, Event::Restart { node });
        }
    }

    /// Takes a node out, with its containers, until the world heals.
    pub(crate) fn unplug(&mut self, node: usize) {
        self.crash(node, 0, None);
        self.nodes[node].unplugged = true;
        self.nodes[node].containers.clear();
    }

    /// Lets a container of this node exit by itself.
    pub(crate) fn exit_container(&mut self, node: usize, id: TaskId, exit_code: i32) {
        self.queue_at(Duration::ZERO, Event::Ended { node, id, exit_code });
    }

    /// Counts something for the report.
    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Tells whether this is the node that a deliberate bug sits in.
    fn sabotaged(&self, node: usize, sabotage: Sabotage) -> bool {
        self.options.sabotage == Some(sabotage) && node + 1 == self.nodes.len()
    }

    fn queue_at(&mut self, delay: Duration, event: Event) {
        self.made += 1;
        let slot = self.made as usize;
        let at_us = self.at_us + delay.as_micros() as u64;
        self.queue.push((Reverse((at_us, self.made)), slot));
        self.events.insert(slot, event);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to, bytes } => self.deliver(from, to, bytes),
            Event::Timer { node, run } => self.timer(node, run),
            Event::Lost { node, run, peer } => {
                if self.nodes[node].run == run {
                    self.input(node, Input::PeerLost(node_id(peer)));
                }
            }
            Event::Started { node, id } => self.started(node, id),
            Event::Ended { node, id, exit_code } => self.ended(node, id, exit_code),
            Event::Restart { node } => self.restart(node),
        }
    }

    fn deliver(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        if self.nodes[to].core.is_none() || !self.network.passes(from, to) {
            return;
        }
        self.trace.record(self.at_us, to, "deliver", &bytes);
        self.count("messages delivered");
        if self.network.connect(from, to) {
            self.input(to, Input::PeerConnected(node_id(from)));
            self.input(from, Input::PeerConnected(node_id(to)));
        }
        if self.sabotaged(to, Sabotage::DropDeltas) && carries_deltas(&bytes) {
            return;
        }
        self.input(to, Input::Received { from: node_id(from), message: bytes });
    }

    fn timer(&mut self, node: usize, run: u64) {
        if self.nodes[node].run == run && self.nodes[node].timer_us.is_some_and(|due| due <= self.at_us) {
            self.nodes[node].timer_us = None;
            self.input(node, Input::Timeout);
        }
    }

    fn started(&mut self, node: usize, id: TaskId) {
        if self.nodes[node].containers.run(&id) {
            self.count("containers started");
            self.input(node, Input::Task(TaskEvent::Running(id)));
        }
    }

    fn ended(&mut self, node: usize, id: TaskId, exit_code: i32) {
        if self.nodes[node].containers.end(&id) {
            self.count("containers ended");
            let event = TaskEvent::Ended { id, exit_code: Some(exit_code), error: String::new() };
            self.input(node, Input::Task(event));
        }
    }

    fn restart(&mut self, node: usize) {
        if self.nodes[node].core.is_some() || self.nodes[node].unplugged {
            return;
        }
        let seed = seed_bytes(self.options.seed);
        self.trace.record(self.at_us, node, "start", &[]);
        self.count("node starts");
        if let Err(error) = self.nodes[node].start(self.at_us, &seed) {
            // What a core made durable it must be able to read: this is a finding, not a fault.
            self.ledger.violations.push(format!("node {node} cannot read its own records: {error}"));
            return;
        }
        let found = self.nodes[node].containers.recover();
        self.input(node, Input::Task(TaskEvent::Recovered(found)));
    }

    /// Hands an input to a node's core, if it is up, and carries out what comes back.
    fn input(&mut self, node: usize, input: Input) {
        let now = self.nodes[node].now(self.at_us);
        if let Some(core) = self.nodes[node].core.as_mut() {
            core.handle(now, input);
            self.drain(node);
        }
    }

    /// Carries out a core's actions in order, unless it crashes in between, and queues its next time-out.
    fn drain(&mut self, node: usize) {
        while let Some(action) = self.nodes[node].core.as_mut().and_then(Cluster::poll) {
            if let Some(left) = self.nodes[node].crash_in.as_mut() {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    self.stop_node(node);
                    return;
                }
            }
            self.carry_out(node, action);
        }
        self.compact(node);
        self.queue_timer(node);
    }

    fn carry_out(&mut self, node: usize, action: Action) {
        match action {
            Action::Persist(record) => {
                self.trace.record(self.at_us, node, "persist", &record);
                self.nodes[node].disk.append(record);
            }
            Action::Send { to, message } => self.send(node, to, &message),
            Action::Task(command) => self.task(node, command),
            Action::Notify(event) => self.trace.record(self.at_us, node, "notify", format!("{event:?}").as_bytes()),
        }
    }

    fn send(&mut self, from: usize, to: NodeId, message: &[u8]) {
        assert!(message.len() <= shoal_cluster::limits::MESSAGE_BYTES_MAX, "the core keeps its own bound");
        let Some(&to) = self.index.get(&to) else { return };
        for copy in self.network.carry(from, to, message) {
            let delay = Duration::from_micros(copy.delay_us);
            self.queue_at(delay, Event::Deliver { from, to, bytes: copy.bytes });
        }
    }

    fn task(&mut self, node: usize, command: TaskCommand) {
        self.trace.record(self.at_us, node, "task", format!("{command:?}").as_bytes());
        let slow = if self.options.faults.slow_starts && !self.healed { 5_000 } else { 300 };
        match command {
            TaskCommand::Start(order) => {
                let id = order.id;
                let delay = Duration::from_millis(20 + self.containers.below(slow));
                if self.nodes[node].containers.start(order) {
                    self.queue_at(delay, Event::Started { node, id });
                }
            }
            TaskCommand::Stop(id) => {
                let delay = Duration::from_millis(5 + self.containers.below(200));
                if !self.sabotaged(node, Sabotage::KeepTasks) && self.nodes[node].containers.stop(&id) {
                    self.queue_at(delay, Event::Ended { node, id, exit_code: 0 });
                }
            }
            TaskCommand::Remove(id) => {
                if self.nodes[node].containers.iter().any(|container| container.order.id == id) {
                    self.ledger.violations.push(format!("node {node} removes task {id} which still runs"));
                }
            }
        }
    }

    fn compact(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        if let Some(core) = node.core.as_ref().filter(|_| node.disk.is_long()) {
            let snapshot = core.snapshot();
            node.disk.replace(snapshot);
        }
    }

    fn queue_timer(&mut self, node: usize) {
        if self.options.sabotage == Some(Sabotage::NoTimeouts) && self.healed {
            return;
        }
        let Some(core) = self.nodes[node].core.as_ref() else { return };
        let due_us = core.poll_timeout().as_micros().max(self.at_us);
        if self.nodes[node].timer_us.is_none_or(|queued| due_us < queued) {
            self.nodes[node].timer_us = Some(due_us);
            let run = self.nodes[node].run;
            self.queue_at(Duration::from_micros(due_us - self.at_us), Event::Timer { node, run });
        }
    }

    fn stop_node(&mut self, node: usize) {
        self.trace.record(self.at_us, node, "crash", &[]);
        self.count("node crashes");
        self.nodes[node].core = None;
        self.nodes[node].crash_in = None;
        self.nodes[node].run += 1;
        if self.options.faults.plug {
            self.nodes[node].containers.clear();
        }
        for peer in self.network.disconnect(node) {
            // A host whose plug was pulled is silent; one whose daemon died answers with a reset.
            if !self.options.faults.plug && self.network.passes(node, peer) {
                let run = self.nodes[peer].run;
                self.queue_at(Duration::from_micros(RESET_US), Event::Lost { node: peer, run, peer: node });
            }
        }
    }
}

/// Tells whether a message carries parts of the planes, for the core that drops them on purpose.
fn carries_deltas(bytes: &[u8]) -> bool {
    let opened = shoal_cluster::wire::open(bytes, shoal_cluster::limits::MESSAGE_BYTES_MAX);
    opened.is_ok_and(|envelope| DELTA_KINDS.contains(&envelope.kind))
}
