//! Turns: the driver of each node. It hands an input to the core and carries out what comes back, as the real one
//! does: first what must be durable, with one sync, then the rest in order; a node may crash between any two.

use std::time::Duration;

use shoal_cluster::intent::key::Kind;
use shoal_cluster::io::DRAIN;
use shoal_cluster::record::Record;
use shoal_cluster::{Action, Cluster, Input, NodeId, TaskCommand, TaskEvent, TaskId, TaskOrder};

use super::{Event, REMEMBERED, RETRY, World};
use crate::containers::Phase;
use crate::options::{Fault, Sabotage};
use crate::workload::{self, Flaw};

/// The kinds of messages that carry entries and reports: ranges, pushes and repairs (`docs/protocol.md#wire`).
const DELTA_KINDS: [u16; 3] = [4, 5, 7];
/// How long a container may take to end before it is killed, in milliseconds: Docker's ten seconds.
const KILL_MS: u64 = 10_000;
/// How long a container takes to start at most, in milliseconds, and how long one whose image comes slowly.
const START_MS: u64 = 300;
/// How long one of a bad image runs at most.
const FLAWED_MS: u64 = 200;
/// How long a task of a job works at most.
const JOB_MS: u64 = 2_000;
const SLOW_START_MS: u64 = 8_000;
/// How long a container waits for the bytes of its secrets and configs, in microseconds, and how often it looks.
const FILES_US: u64 = 5_000_000;
const FILES_LOOK: Duration = Duration::from_millis(500);

impl World {
    pub(super) fn deliver(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        if self.nodes[to].core.is_none() || !self.network.passes(from, to) {
            return;
        }
        self.trace.record(self.at_us, to, "deliver", &bytes);
        self.count("messages delivered");
        if self.network.connect(from, to) {
            self.input(to, Input::PeerConnected(self.nodes[from].id));
            if self.nodes[from].hears(self.at_us) {
                self.input(from, Input::PeerConnected(self.nodes[to].id));
            }
        }
        if self.sabotaged(to, Sabotage::DropDeltas) && carries_deltas(&bytes) {
            return;
        }
        self.input(to, Input::Received { from: self.nodes[from].id, message: bytes });
    }

    pub(super) fn timer(&mut self, node: usize, run: u64) {
        if self.nodes[node].run == run && self.nodes[node].timer_us.is_some_and(|due| due <= self.at_us) {
            self.nodes[node].timer_us = None;
            self.input(node, Input::Timeout);
        }
    }

    pub(super) fn started(&mut self, node: usize, id: TaskId) {
        if self.nodes[node].refuses_until_us > self.at_us {
            self.count("containers that did not start");
            self.ended(node, id, None, "the machine cannot start containers");
            return;
        }
        let Some(order) = self.nodes[node].containers.find(&id).map(|container| container.order.clone()) else {
            return;
        };
        if self.waits_for_files(node, &id) {
            return;
        }
        let image = workload::flaw(&order);
        if image == Some(Flaw::Start) {
            self.count("containers of bad images");
            self.ended(node, id, None, "the image is bad");
            return;
        }
        if !self.nodes[node].containers.run(self.at_us, &id) {
            return;
        }
        if image == Some(Flaw::Exit) {
            self.count("containers of bad images");
            let delay = Duration::from_millis(20 + self.containers.below(FLAWED_MS));
            self.queue_at(delay, Event::Ended { node, id, exit_code: Some(1), error: "" });
        }
        if workload::is_of_job(&order) && image.is_none() {
            let delay = Duration::from_millis(50 + self.containers.below(JOB_MS));
            self.queue_at(delay, Event::Ended { node, id, exit_code: Some(0), error: "" });
        }
        self.count("containers started");
        if let Some(container) = self.nodes[node].containers.find(&id) {
            let service = container.order.service;
            self.note(node, service);
        }
        if let Some(order) = self.nodes[node].containers.find(&id).map(|container| container.order.clone())
            && let Err(what) = self.watch.runs(&self.nodes, node, &order)
        {
            self.ledger.violations.push(format!("addresses: {what}"));
        }
        if let Some(order) = self.nodes[node].containers.find(&id).map(|container| &container.order)
            && let Err(what) = self.watch.fenced.runs(&self.nodes, node, order)
        {
            self.ledger.violations.push(format!("fenced: {what}"));
        }
        self.input(node, Input::Task(TaskEvent::Running(id)));
    }

    /// Lets a container wait for the bytes of its secrets and configs, and fail if they do not come.
    fn waits_for_files(&mut self, node: usize, id: &TaskId) -> bool {
        let machine = &self.nodes[node];
        let (Some(core), Some(container)) = (&machine.core, machine.containers.find(id)) else { return false };
        if !workload::objects::lacks_files(core, &container.order.spec) {
            return false;
        }
        if self.at_us - container.ordered_us < FILES_US {
            self.queue_at(FILES_LOOK, Event::Started { node, id: *id });
        } else {
            self.count("containers without their secrets");
            self.ended(node, *id, None, "a secret is missing");
        }
        true
    }

    pub(super) fn ended(&mut self, node: usize, id: TaskId, exit_code: Option<i32>, error: &'static str) {
        if let Some(container) = self.nodes[node].containers.end(&id) {
            self.count("containers ended");
            self.note(node, container.order.service);
            let by_itself = container.phase != Phase::Stopping;
            self.watch.ended(self.at_us, node, &container, by_itself);
            if by_itself && exit_code == Some(0) && workload::is_of_job(&container.order) {
                self.did_work(node, container.order);
            }
            self.hears_of_end(node, id, exit_code, error);
        }
    }

    pub(super) fn hears_of_end(&mut self, node: usize, id: TaskId, exit_code: Option<i32>, error: &'static str) {
        self.input(node, Input::Task(TaskEvent::Ended { id, exit_code, error: error.to_owned() }));
    }

    /// Ends the containers of fenced services on a machine whose daemon has not been heard since its lease began.
    pub(super) fn end_leases(&mut self, node: usize, run: u64, paused_until_us: u64) {
        let machine = &self.nodes[node];
        let silent = machine.core.is_none() || paused_until_us > 0;
        if machine.run != run || machine.paused_until_us != paused_until_us || !silent {
            return;
        }
        for id in self.watch.fenced.running(machine) {
            if let Some(container) = self.nodes[node].containers.end(&id) {
                self.count("containers whose lease ended");
                self.watch.ended(self.at_us, node, &container, container.phase != Phase::Stopping);
                self.queue_at(Duration::ZERO, Event::Gone { node, id });
            }
        }
    }

    /// A task of a job has done its work, whether there is a daemon that can tell or not.
    fn did_work(&mut self, node: usize, order: TaskOrder) {
        self.count("tasks of jobs that did their work");
        if self.watch.done.add(&order) {
            self.count("tasks of jobs that did what another had done");
        }
        if self.nodes[node].core.is_none() {
            self.nodes[node].containers.leave(order);
        }
    }

    /// Hands an input to a node's core, if it is up, and carries out what comes back.
    pub(super) fn input(&mut self, node: usize, input: Input) {
        let now = self.nodes[node].now(self.at_us);
        if let Some(core) = self.nodes[node].core.as_mut() {
            core.handle(now, input);
            self.drain(node);
        }
    }

    /// Carries out a core's actions, unless it crashes in between, and queues its next time-out.
    pub(super) fn drain(&mut self, node: usize) {
        loop {
            let Some(core) = self.nodes[node].core.as_mut() else { return };
            let mut records = Vec::new();
            let mut others = Vec::new();
            while let Some(action) = core.poll() {
                match action {
                    Action::Persist(record) => records.push(record),
                    Action::Send { .. } | Action::Task(_) | Action::Notify(_) => others.push(action),
                }
            }
            if records.is_empty() && others.is_empty() {
                break;
            }
            self.note_verdicts(node, &records);
            if !self.persist(node, records) {
                return;
            }
            for action in others {
                if self.crashes_now(node) {
                    return;
                }
                self.carry_out(node, action);
            }
        }
        if let Some(core) = &self.nodes[node].core {
            let incarnation = core.membership().own().incarnation;
            self.nodes[node].told = incarnation;
        }
        self.compact(node);
        self.queue_timer(node);
    }

    /// Notes verdicts that a node makes durable, if a rollout is watched.
    fn note_verdicts(&mut self, node: usize, records: &[Vec<u8>]) {
        let Some((id, ..)) = self.noted else { return };
        let verdict = |record: &Vec<u8>| match Record::decode(record) {
            Ok(Record::Entry(entry)) => entry.key.kind() == Some(Kind::Verdict),
            Ok(_) | Err(_) => false,
        };
        if records.iter().any(verdict) {
            self.note(node, id);
        }
    }

    /// Makes a batch durable; tells whether the daemon lives on.
    fn persist(&mut self, node: usize, records: Vec<Vec<u8>>) -> bool {
        for record in &records {
            self.trace.record(self.at_us, node, "persist", record);
            if self.crashes_now(node) {
                if self.options.has(Fault::TornWrite) {
                    self.count("writes torn by a crash");
                    self.nodes[node].disk.tear(records);
                }
                return false;
            }
        }
        if records.is_empty() || self.nodes[node].disk.append(self.at_us, records).is_ok() {
            return true;
        }
        self.count("daemons stopped by their disk");
        self.stop_node(node, false);
        self.queue_at(RETRY, Event::Restart { node });
        false
    }

    /// Counts down to a crash that is due; tells whether it came.
    fn crashes_now(&mut self, node: usize) -> bool {
        let Some((left, power)) = self.nodes[node].crash_in else { return false };
        if left > 1 {
            self.nodes[node].crash_in = Some((left - 1, power));
            return false;
        }
        self.stop_node(node, power);
        true
    }

    fn carry_out(&mut self, node: usize, action: Action) {
        match action {
            // Persisted before, with the whole batch.
            Action::Persist(_) => {}
            Action::Send { to, message } => self.send(node, to, message),
            Action::Task(command) => self.task(node, command),
            Action::Notify(event) => self.trace.record(self.at_us, node, "notify", format!("{event:?}").as_bytes()),
        }
    }

    fn send(&mut self, from: usize, to: NodeId, message: Vec<u8>) {
        assert!(message.len() <= shoal_cluster::limits::MESSAGE_BYTES_MAX, "the core keeps its own bound");
        let Some(&to) = self.index.get(&to) else { return };
        self.send_bytes(from, to, message);
    }

    /// Sends bytes that a core, or a hostile member, wants to send.
    pub(super) fn send_bytes(&mut self, from: usize, to: usize, message: Vec<u8>) {
        if self.options.has(Fault::Hostile) && !self.healed {
            self.remember(from, to, &message);
        }
        let late_us = self.lateness(from) + self.lateness(to);
        for copy in self.network.carry(from, to, message).into_iter().flatten() {
            let delay = Duration::from_micros(copy.delay_us + late_us);
            self.queue_at(delay, Event::Deliver { from, to, bytes: copy.bytes });
        }
    }

    /// Keeps some messages of the past, each for a random time.
    fn remember(&mut self, from: usize, to: usize, message: &[u8]) {
        let place = self.delays.below(8 * REMEMBERED as u64) as usize;
        if self.remembered.len() < REMEMBERED {
            self.remembered.push((from, to, message.to_vec()));
        } else if let Some(kept) = self.remembered.get_mut(place) {
            *kept = (from, to, message.to_vec());
        }
    }

    /// Returns by how much a slow node is late this time, in microseconds.
    fn lateness(&mut self, node: usize) -> u64 {
        let (until_us, most_us) = self.nodes[node].slow;
        if until_us > self.at_us { self.delays.below(most_us + 1) } else { 0 }
    }

    fn task(&mut self, node: usize, command: TaskCommand) {
        self.trace.record(self.at_us, node, "task", format!("{command:?}").as_bytes());
        let drains = matches!(command, TaskCommand::Drain(_));
        let slow = if self.options.has(Fault::SlowPull) && !self.healed { SLOW_START_MS } else { START_MS };
        match command {
            TaskCommand::Start(order) => {
                let id = order.id;
                self.note(node, order.service);
                let delay = Duration::from_millis(20 + self.containers.below(slow));
                self.watch.fenced.starts(&self.nodes[node], &order);
                if let Err(what) = self.watch.starts(self.at_us, &self.nodes, node, &order) {
                    self.ledger.violations.push(format!("moves: node {node} {what}"));
                }
                if self.nodes[node].containers.start(self.at_us, order) {
                    self.queue_at(delay, Event::Started { node, id });
                }
            }
            TaskCommand::Stop(id) | TaskCommand::Drain(id) => {
                if self.sabotaged(node, Sabotage::KeepTasks) {
                    return;
                }
                let Some(container) = self.nodes[node].containers.stop(&id) else { return };
                self.note(node, container.order.service);
                if container.phase == Phase::Running
                    && let Err(what) = self.watch.stops(self.at_us, &self.nodes, node, &container.order)
                {
                    self.ledger.violations.push(format!("moves: node {node} {what}"));
                }
                let hangs = container.hangs && !self.healed;
                let delay = if hangs { KILL_MS } else { 5 + self.containers.below(200) };
                let drain = if drains { DRAIN } else { Duration::ZERO };
                self.queue_at(
                    drain + Duration::from_millis(delay),
                    Event::Ended { node, id, exit_code: Some(0), error: "" },
                );
            }
            TaskCommand::Remove(id) => {
                if self.nodes[node].containers.find(&id).is_some() {
                    self.ledger.violations.push(format!("moves: node {node} removes task {id} which still runs"));
                }
            }
        }
    }

    fn compact(&mut self, node: usize) {
        if self.nodes[node].disk.is_long() {
            self.compact_now(node);
        }
    }

    /// Replaces a node's log by a snapshot.
    pub(super) fn compact_now(&mut self, node: usize) {
        let at_us = self.at_us;
        let node = &mut self.nodes[node];
        if let Some(core) = node.core.as_ref().filter(|_| node.disk.full_until_us <= at_us) {
            let snapshot = core.snapshot();
            node.disk.replace(snapshot);
        }
    }

    pub(super) fn queue_timer(&mut self, node: usize) {
        if self.options.sabotage == Some(Sabotage::NoTimeouts) && self.healed {
            return;
        }
        let Some(core) = self.nodes[node].core.as_ref() else { return };
        let due_us = self.nodes[node].clock.reached(core.poll_timeout()).max(self.at_us);
        if self.nodes[node].timer_us.is_none_or(|queued| due_us < queued) {
            self.nodes[node].timer_us = Some(due_us);
            let (run, late_us) = (self.nodes[node].run, self.lateness(node));
            self.queue_at(Duration::from_micros(due_us - self.at_us + late_us), Event::Timer { node, run });
        }
    }

    /// Returns a node's core, if it is up.
    pub(crate) fn core(&mut self, node: usize) -> Option<&mut Cluster> {
        self.nodes[node].core.as_mut()
    }
}

/// Tells whether a message carries parts of the planes, for the core that drops them on purpose.
fn carries_deltas(bytes: &[u8]) -> bool {
    let opened = shoal_cluster::wire::open(bytes, shoal_cluster::limits::MESSAGE_BYTES_MAX);
    opened.is_ok_and(|envelope| DELTA_KINDS.contains(&envelope.kind))
}
