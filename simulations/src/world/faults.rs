//! Doing the steps of a schedule.

use std::collections::BTreeSet;
use std::time::Duration;

use shoal_cluster::crdt::{Actor, Dot, Version};
use shoal_cluster::intent::Entry;
use shoal_cluster::intent::key::Key;
use shoal_cluster::record::Record;
use shoal_cluster::seed::Stream;
use shoal_cluster::{Command, Input, TaskId, clock, wire};

use super::{Event, World};
use crate::checkers;
use crate::checkers::fenced::LEASE;
use crate::node::Node;
use crate::step::Step;
use crate::workload;

/// The kind of the entries that only newer binaries know.
pub(crate) const FUTURE_KIND: u16 = 900;
/// Longest garbage, in bytes.
const GARBAGE_MAX: u64 = 600;
/// How long a node that leaves waits for others to run what it runs.
const HAND_OVER: Duration = Duration::from_secs(5);
/// How long a node that leaves goes on, so that its goodbye is heard.
const GOODBYE: Duration = Duration::from_millis(500);

impl World {
    /// Does one step. What it names may be gone or down by now; then it does nothing.
    pub(crate) fn step(&mut self, step: &Step) {
        let nodes = self.options.nodes;
        let wrap = |node: usize| node % nodes;
        match *step {
            Step::Write { service, node, roll } => workload::write(self, service, wrap(node), roll),
            Step::Object { object, node, roll } => workload::objects::write(self, object, wrap(node), roll),
            Step::Want { node, at, roll } => workload::want(self, wrap(node), wrap(at), roll),
            Step::Leave { node, back_ms } => self.leave(wrap(node), back_ms),
            Step::Split { ref side } => {
                self.network.split(side.iter().copied().map(wrap).collect());
                self.count("partitions");
            }
            Step::Halve => {
                self.network.split((0..self.nodes.len() / 2).collect());
                self.count("partitions");
            }
            Step::Cut { from, to } => {
                self.network.cut(wrap(from), wrap(to));
                self.count("directions cut");
            }
            Step::Sever { a, b } => {
                let (a, b) = (wrap(a), wrap(b));
                self.network.cut(a, b);
                self.network.cut(b, a);
                self.count("pairs severed");
            }
            Step::Join => self.network.join(),
            Step::Crash { node, after, down_ms, power } => self.crash(wrap(node), after, down_ms, power),
            Step::Flap { node, times, every_ms } => self.flap(wrap(node), times, every_ms),
            Step::Roll { every_ms, down_ms } => self.roll(every_ms, down_ms),
            Step::Pause { node, ms } => self.pause(wrap(node), ms),
            Step::Slow { node, delay_ms, ms } => {
                self.nodes[wrap(node)].slow = (self.at_us + ms * 1_000, delay_ms * 1_000);
                self.count("nodes slowed");
            }
            Step::Storm { .. } => self.storm(),
            Step::LeaveAll { first, count, back_ms } => {
                (first..first + count).for_each(|node| self.leave(wrap(node), back_ms));
            }
            Step::LoseDisk { node, down_ms } => self.lose_disk(wrap(node), down_ms),
            Step::FillDisk { node, ms } => {
                self.nodes[wrap(node)].disk.full_until_us = self.at_us + ms * 1_000;
                self.count("disks filled");
            }
            Step::FailSync { node } => self.nodes[wrap(node)].disk.sync_fails = true,
            Step::Drift { node, ppm } => self.drift(wrap(node), ppm),
            Step::SetClock { node, off_ms } => {
                self.nodes[wrap(node)].clock.set(off_ms);
                self.count("wall clocks set");
            }
            Step::Exit { pick, code } => self.exit(pick, code),
            Step::Hang { pick } => self.hang(pick),
            Step::Refuse { node, ms } => self.nodes[wrap(node)].refuses_until_us = self.at_us + ms * 1_000,
            Step::Downgrade { node } => self.downgrade(wrap(node)),
            Step::Garbage { from, to, roll } => self.garble(wrap(from), wrap(to), roll),
            Step::Replay { pick } => self.replay(pick),
            Step::Poke { node, roll } => self.poke(wrap(node), roll),
        }
    }

    fn lose_disk(&mut self, node: usize, down_ms: u64) {
        if let Err(what) = checkers::copies::check(self, node) {
            self.ledger.violations.push(format!("copies: node {node} {what}"));
        }
        workload::forget_unshared(self, node);
        self.stop_node(node, true);
        self.nodes[node].disk.lose();
        self.nodes[node].lost_us = self.at_us;
        self.nodes[node].told = 0;
        self.count("disks lost");
        self.queue_at(Duration::from_millis(down_ms), Event::Restart { node });
    }

    fn drift(&mut self, node: usize, ppm: i64) {
        let at_us = self.at_us;
        self.nodes[node].clock.drift(at_us, ppm);
        self.nodes[node].timer_us = None;
        self.queue_timer(node);
        self.count("clocks that drift");
    }

    fn exit(&mut self, pick: u64, code: i32) {
        if let Some((node, id)) = self.pick_container(pick) {
            self.queue_at(Duration::ZERO, Event::Ended { node, id, exit_code: Some(code), error: "" });
            self.count("containers that exited by themselves");
        }
    }

    fn hang(&mut self, pick: u64) {
        if let Some((node, id)) = self.pick_container(pick) {
            self.nodes[node].containers.hang(&id);
            self.count("containers that hang");
        }
    }

    fn garble(&mut self, from: usize, to: usize, roll: u64) {
        if from != to && self.nodes[from].core.is_some() {
            self.send_bytes(from, to, garbage(roll));
            self.count("hostile messages");
        }
    }

    fn replay(&mut self, pick: u64) {
        let place = pick as usize % self.remembered.len().max(1);
        if let Some((from, to, bytes)) = self.remembered.get(place).cloned() {
            self.send_bytes(from, to, bytes);
            self.count("messages replayed");
        }
    }

    fn crash(&mut self, node: usize, after: u64, down_ms: u64, power: bool) {
        if self.nodes[node].core.is_none() {
            return;
        }
        if after == 0 {
            self.stop_node(node, power);
        } else {
            self.nodes[node].crash_in = Some((after, power));
        }
        self.queue_at(Duration::from_millis(down_ms), Event::Restart { node });
    }

    fn flap(&mut self, node: usize, times: u64, every_ms: u64) {
        self.count("nodes that flap");
        for turn in 0..times {
            let at = Duration::from_millis(turn * every_ms);
            self.queue_at(at, Event::Stop { node, power: false });
            self.queue_at(at + Duration::from_millis(every_ms / 2), Event::Restart { node });
        }
    }

    fn roll(&mut self, every_ms: u64, down_ms: u64) {
        for node in 0..self.nodes.len() {
            let at = Duration::from_millis(node as u64 * every_ms);
            self.queue_at(at, Event::Stop { node, power: false });
            self.queue_at(at + Duration::from_millis(down_ms), Event::Restart { node });
        }
    }

    fn pause(&mut self, node: usize, ms: u64) {
        if self.nodes[node].core.is_some() && self.nodes[node].paused_until_us <= self.at_us {
            self.nodes[node].paused_until_us = self.at_us + ms * 1_000;
            self.queue_at(Duration::from_millis(ms), Event::Resume { node });
            if Duration::from_millis(ms) > LEASE {
                let Node { run, paused_until_us, .. } = self.nodes[node];
                self.queue_at(LEASE, Event::Lease { node, run, paused_until_us });
            }
            self.count("nodes paused");
        }
    }

    fn storm(&mut self) {
        for node in std::mem::take(&mut self.kept_out) {
            self.queue_at(Duration::ZERO, Event::Restart { node });
            self.count("nodes that joined in a storm");
        }
    }

    /// Lets a node hand over its tasks, and leave after a while.
    fn leave(&mut self, node: usize, back_ms: u64) {
        if self.nodes[node].hears(self.at_us) && self.up().count() > 1 {
            let _answered = self.command(node, Command::HandOver);
            self.queue_at(HAND_OVER, Event::Leave { node, back_ms });
        }
    }

    /// Lets a node say goodbye; its containers end with it.
    pub(super) fn say_goodbye(&mut self, node: usize, back_ms: u64) {
        if self.nodes[node].core.is_some() && !self.healed {
            // One that stands still is ended without a word.
            if self.nodes[node].hears(self.at_us) {
                let _answered = self.command(node, Command::Leave);
                self.count("nodes that left");
            }
            self.queue_at(GOODBYE, Event::Stop { node, power: true });
            self.queue_at(GOODBYE + Duration::from_millis(back_ms), Event::Restart { node });
        }
    }

    /// Sets a node back: what it ran before knew a kind of intent that it does not, and wrote an entry of it.
    fn downgrade(&mut self, node: usize) {
        if self.nodes[node].core.is_none() {
            return;
        }
        self.stop_node(node, false);
        let at_us = self.at_us;
        let machine = &mut self.nodes[node];
        let actor = Actor { node: machine.id, epoch: machine.disk.starts() };
        let counter = 1 + last_counter(machine.disk.records(), actor);
        let wall_ms = machine.now(at_us).wall_ms;
        let entry = Entry {
            key: Key { kind: FUTURE_KIND, name: format!("node{node}-{counter}") },
            version: Version {
                dot: Dot::new(actor, counter),
                context: shoal_cluster::crdt::Context::default(),
                stamp: clock::Stamp { wall_ms, logical: 0 },
                value: Some(vec![1, 2, 3]),
                author: Vec::new(),
                signature: Vec::new(),
            },
        };
        let written = machine.disk.append(at_us, vec![Record::Entry(entry).encode()]);
        if written.is_ok() {
            self.ledger.future_entries += 1;
            self.count("nodes set back to an older binary");
        }
        self.queue_at(Duration::from_millis(100), Event::Restart { node });
    }

    /// Does something that must be harmless at any moment.
    fn poke(&mut self, node: usize, roll: u64) {
        if !self.nodes[node].hears(self.at_us) {
            return;
        }
        self.count("pokes");
        let peer = (roll >> 8) as usize % self.nodes.len();
        match roll % 5 {
            0 => self.input(node, Input::Timeout),
            1 => (0..3).for_each(|_| self.input(node, Input::Timeout)),
            2 => self.compact_now(node),
            3 if peer != node && self.network.connected(node, peer) => {
                self.input(node, Input::PeerLost(self.nodes[peer].id));
                self.input(node, Input::PeerConnected(self.nodes[peer].id));
            }
            _ => {
                if let Some(core) = self.core(node) {
                    let _looked = core.views();
                }
            }
        }
    }

    fn pick_container(&self, pick: u64) -> Option<(usize, TaskId)> {
        let running: Vec<(usize, TaskId)> = self
            .nodes
            .iter()
            .enumerate()
            .flat_map(|(node, machine)| machine.containers.running().map(move |order| (node, order.id)))
            .collect();
        running.get(pick as usize % running.len().max(1)).copied()
    }
}

/// Returns the last write of an actor that a log tells of.
fn last_counter(records: &[Vec<u8>], actor: Actor) -> u64 {
    let counters = records.iter().filter_map(|record| match Record::decode(record).ok()? {
        Record::Entry(entry) if entry.version.dot.actor == actor => Some(entry.version.dot.counter),
        Record::Vector(known) => known.into_iter().find(|(known, _)| *known == actor).map(|(_, counter)| counter),
        Record::Start(_) | Record::Entry(_) | Record::Member(_) | Record::Collected(_) | Record::Gone(_) => None,
    });
    counters.max().unwrap_or(0)
}

/// Returns bytes that no core would send: nothing but noise, noise in an envelope, or a kind of the future.
fn garbage(roll: u64) -> Vec<u8> {
    let mut random = Stream::new(&[7; 32], &format!("garbage {roll}"));
    let length = random.below(GARBAGE_MAX) as usize;
    let noise: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
    match random.below(3) {
        0 => noise,
        1 => wire::encode(&(wire::WIRE_VERSION, 1 + random.below(10) as u16, noise)),
        _ => wire::encode(&(wire::WIRE_VERSION + 1, 70 + random.below(10) as u16, noise)),
    }
}

/// Returns the nodes that a schedule keeps out at first.
pub(crate) fn kept_out<'a>(steps: impl Iterator<Item = &'a Step>, nodes: usize) -> BTreeSet<usize> {
    let first = steps.filter_map(|step| if let Step::Storm { first } = step { Some((*first).max(1)) } else { None });
    first.min().map_or(BTreeSet::new(), |first| (first..nodes).collect())
}
