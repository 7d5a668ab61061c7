//! The world: one queue of events in virtual time, and what each does to the nodes.
//!
//! [`turns`] is the driver of each node: it hands inputs to cores and carries out what they want. [`faults`] does the
//! steps of the schedule.

mod faults;
mod turns;

pub(crate) use faults::{FUTURE_KIND, kept_out};

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use shoal_cluster::plan::placement::NodeInput;
use shoal_cluster::seed::Stream;
use shoal_cluster::{Cluster, Command, CommandError, Input, NodeId, Receipt, ServiceId, TaskEvent, TaskId, TaskOrder};

use crate::checkers::fenced::LEASE;
use crate::checkers::watch::Watch;
use crate::disk::Disk;
use crate::network::Network;
use crate::node::{Node, StartError, node_id};
use crate::options::{Options, Sabotage, seed_bytes};
use crate::steps::{self, Noted};
use crate::trace::Trace;
use crate::workload::Ledger;

/// How long a host takes to answer with a reset after a process died, in microseconds.
const RESET_US: u64 = 2_000;
/// How soon a daemon that could not start is started again.
const RETRY: Duration = Duration::from_secs(1);
/// Events at one instant beyond which time is held to stand still: a core wants to be woken again and again at once.
const INSTANT_EVENTS_MAX: u64 = 1_000_000;
/// Messages that are remembered, to be replayed.
const REMEMBERED: usize = 256;

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
    Ended { node: usize, id: TaskId, exit_code: Option<i32>, error: &'static str },
    /// A node that is down starts again.
    Restart { node: usize },
    /// A node goes down.
    Stop { node: usize, power: bool },
    /// The containers of fenced services end unless their daemon is back: it died, or has stood still until then.
    Lease { node: usize, run: u64, paused_until_us: u64 },
    /// A node hears that a container has ended some time ago.
    Gone { node: usize, id: TaskId },
    /// A node that has handed its tasks over leaves.
    Leave { node: usize, back_ms: u64 },
    /// A paused node goes on.
    Resume { node: usize },
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
    pub(crate) watch: Watch,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) healed: bool,
    /// Of a service whose rollout is to be killed at every step: what happened, and the fewest slots that ran.
    pub(crate) noted: Option<(ServiceId, Vec<Noted>, usize)>,
    /// Nodes that have not joined yet.
    pub(crate) kept_out: BTreeSet<usize>,
    queue: BinaryHeap<(Key, u64)>,
    events: BTreeMap<u64, Event>,
    made: u64,
    /// Events that have happened at this instant.
    instant_events: u64,
    disks: Stream,
    containers: Stream,
    delays: Stream,
    index: BTreeMap<NodeId, usize>,
    /// What happened to paused nodes, in order, until they go on.
    held: BTreeMap<usize, Vec<Event>>,
    /// Some messages of the past.
    remembered: Vec<(usize, usize, Vec<u8>)>,
}

/// Makes the disk of the machine numbered `index`.
fn disk(options: &Options, disks: &mut Stream, index: usize) -> Disk {
    let lying = options.sabotage == Some(Sabotage::LoseRecords);
    let random = Stream::new(&[disks.next() as u8; 32], &format!("disk {index}"));
    Disk::new(lying, options.compact_above, random)
}

impl World {
    /// Makes the world of these options and starts its nodes, the first a little before the others. Those in
    /// `kept_out` stay out until a step lets them in.
    pub(crate) fn new(options: Options, kept_out: BTreeSet<usize>) -> Self {
        let mut disks = options.stream("disks");
        let nodes: Vec<Node> =
            (0..options.nodes).map(|index| Node::new(index, disk(&options, &mut disks, index))).collect();
        let mut world = Self {
            at_us: 0,
            network: Network::new(&options),
            trace: Trace::default(),
            ledger: Ledger::default(),
            watch: Watch::default(),
            counts: BTreeMap::new(),
            healed: false,
            noted: None,
            kept_out,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            made: 0,
            instant_events: 0,
            disks,
            containers: options.stream("containers"),
            delays: options.stream("delays"),
            index: (0..options.nodes).map(|index| (node_id(index), index)).collect(),
            held: BTreeMap::new(),
            remembered: Vec::new(),
            nodes,
            options,
        };
        // All are started within ten seconds, however many they are.
        let spacing = Duration::from_millis(100).min(Duration::from_secs(10) / world.nodes.len().max(1) as u32);
        for node in 0..world.nodes.len() {
            if !world.kept_out.contains(&node) {
                world.queue_at(spacing * node as u32, Event::Restart { node });
            }
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
            self.instant_events = if at_us == self.at_us { self.instant_events + 1 } else { 0 };
            assert!(self.instant_events < INSTANT_EVENTS_MAX, "time stands still at {at_us} us");
            self.at_us = at_us;
            if let Some(event) = self.events.remove(&slot) {
                self.happen(event);
            }
        }
        self.at_us = end_us;
    }

    /// Ends all faults: everything is joined, and what is down or away starts again.
    pub(crate) fn heal(&mut self) {
        self.healed = true;
        self.network.heal();
        self.kept_out.clear();
        for node in 0..self.nodes.len() {
            self.nodes[node].heal(self.at_us);
            self.resume(node);
            self.nodes[node].timer_us = None;
            self.queue_timer(node);
            // One that was about to leave is brought back at once.
            if self.nodes[node].core.as_ref().is_some_and(|core| core.membership().own().meta.leaving) {
                self.stop_node(node, true);
            }
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

    /// Takes a node out, with its containers, until the world heals.
    pub(crate) fn unplug(&mut self, node: usize) {
        self.stop_node(node, true);
        self.nodes[node].unplugged = true;
    }

    /// Kills a daemon, whose containers live on, and starts it again after a while.
    pub(crate) fn kill(&mut self, node: usize, down: Duration) {
        self.stop_node(node, false);
        self.queue_at(down, Event::Restart { node });
    }

    /// Notes an event of the rollout that is watched.
    pub(crate) fn note(&mut self, node: usize, service: ServiceId) {
        let Some((id, ..)) = self.noted.as_ref().filter(|(id, ..)| *id == service) else { return };
        let runs = steps::running(self, *id).len();
        if let Some((_, noted, least)) = &mut self.noted {
            noted.push(Noted { at_us: self.at_us, node });
            *least = runs.min(*least);
        }
    }

    /// Lets a node join for good that was not there before.
    pub(crate) fn admit(&mut self, foreseen: &NodeInput) {
        let node = self.nodes.len();
        let disk = disk(&self.options, &mut self.disks, node);
        self.nodes.push(Node::joining(node, foreseen, disk));
        self.network.admit();
        self.index.insert(foreseen.id, node);
        self.queue_at(Duration::ZERO, Event::Restart { node });
    }

    /// Counts something for the report.
    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Returns the cores that are up, with their nodes' numbers.
    pub(crate) fn up(&self) -> impl Iterator<Item = (usize, &Cluster)> {
        self.nodes.iter().enumerate().filter_map(|(index, node)| Some((index, node.core.as_ref()?)))
    }

    /// Tells whether this is the node that a deliberate bug sits in.
    fn sabotaged(&self, node: usize, sabotage: Sabotage) -> bool {
        self.options.sabotage == Some(sabotage) && node + 1 == self.nodes.len()
    }

    fn queue_at(&mut self, delay: Duration, event: Event) {
        self.made += 1;
        let at_us = self.at_us + delay.as_micros() as u64;
        self.queue.push((Reverse((at_us, self.made)), self.made));
        self.events.insert(self.made, event);
    }

    fn happen(&mut self, event: Event) {
        if let Some(node) = event.heard_by()
            && self.nodes[node].paused_until_us > self.at_us
        {
            self.held.entry(node).or_default().push(event);
            return;
        }
        match event {
            Event::Deliver { from, to, bytes } => self.deliver(from, to, bytes),
            Event::Timer { node, run } => self.timer(node, run),
            Event::Lost { node, run, peer } => {
                if self.nodes[node].run == run {
                    self.input(node, Input::PeerLost(self.nodes[peer].id));
                }
            }
            Event::Started { node, id } => self.started(node, id),
            Event::Ended { node, id, exit_code, error } => self.ended(node, id, exit_code, error),
            Event::Lease { node, run, paused_until_us } => self.end_leases(node, run, paused_until_us),
            Event::Gone { node, id } => self.hears_of_end(node, id, Some(143), ""),
            Event::Restart { node } => self.restart(node),
            Event::Stop { node, power } => self.stop_node(node, power),
            Event::Leave { node, back_ms } => self.say_goodbye(node, back_ms),
            Event::Resume { node } => {
                if self.nodes[node].paused_until_us <= self.at_us {
                    self.resume(node);
                }
            }
        }
    }

    /// Lets a paused node hear what happened in the meantime.
    fn resume(&mut self, node: usize) {
        self.nodes[node].paused_until_us = 0;
        for event in self.held.remove(&node).unwrap_or_default() {
            self.happen(event);
        }
    }

    fn restart(&mut self, node: usize) {
        let machine = &self.nodes[node];
        if machine.core.is_some() || machine.unplugged || self.kept_out.contains(&node) {
            return;
        }
        let seed = seed_bytes(self.options.seed);
        self.trace.record(self.at_us, node, "start", &[]);
        self.count("node starts");
        match self.nodes[node].start(self.at_us, &seed, &self.options) {
            Ok(()) => {}
            Err(StartError::Disk) => {
                self.count("starts refused by a full disk");
                self.queue_at(RETRY, Event::Restart { node });
                return;
            }
            Err(StartError::Restore(error)) => {
                // What a core made durable it must be able to read: this is a finding, not a fault.
                self.ledger.violations.push(format!("restore: node {node} cannot read its own records: {error}"));
                return;
            }
        }
        if let Err(what) = self.watch.started(&self.nodes[node]) {
            self.ledger.violations.push(format!("incarnations: node {node} {what}"));
        }
        let (mut found, untold) = (self.nodes[node].containers.recover(), self.nodes[node].containers.take_untold());
        found.extend(untold.iter().cloned());
        self.input(node, Input::Task(TaskEvent::Recovered { running: found, starting: Vec::new() }));
        for TaskOrder { id, .. } in untold {
            self.input(node, Input::Task(TaskEvent::Ended { id, exit_code: Some(0), error: String::new() }));
        }
    }

    fn stop_node(&mut self, node: usize, power: bool) {
        if power {
            for container in self.nodes[node].containers.clear() {
                self.watch.ended(self.at_us, node, &container, false);
            }
        }
        if self.nodes[node].core.is_none() {
            return;
        }
        self.trace.record(self.at_us, node, if power { "power" } else { "crash" }, &[]);
        self.count(if power { "machines that lost their power" } else { "daemons that died" });
        let machine = &mut self.nodes[node];
        (machine.core, machine.crash_in, machine.paused_until_us) = (None, None, 0);
        machine.run += 1;
        let run = machine.run;
        self.held.remove(&node);
        if !self.watch.fenced.running(&self.nodes[node]).is_empty() {
            self.queue_at(LEASE, Event::Lease { node, run, paused_until_us: 0 });
        }
        for peer in self.network.disconnect(node) {
            // A machine without power is silent; one whose daemon died answers with a reset.
            if !power && self.network.passes(node, peer) {
                let run = self.nodes[peer].run;
                self.queue_at(Duration::from_micros(RESET_US), Event::Lost { node: peer, run, peer: node });
            }
        }
    }
}

impl Event {
    /// Returns the node whose daemon hears of this, if one does.
    fn heard_by(&self) -> Option<usize> {
        match self {
            Self::Deliver { to, .. } => Some(*to),
            Self::Timer { node, .. } | Self::Lost { node, .. } => Some(*node),
            // Containers come and go whether or not the daemon stands still.
            Self::Started { node, .. } | Self::Ended { node, .. } | Self::Gone { node, .. } => Some(*node),
            Self::Lease { .. }
            | Self::Restart { .. }
            | Self::Stop { .. }
            | Self::Leave { .. }
            | Self::Resume { .. } => None,
        }
    }
}
