//! Named situations in a small network of memberships: virtual time, loss, delay, cut links, crashes, pauses.

extern crate std;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;
use std::format;

use super::*;
use crate::intent::name::Name;
use crate::membership::member::Role;

mod hostile;
mod majority;
mod situations;

const SECOND: Duration = Duration::from_secs(1);

fn id(number: usize) -> NodeId {
    let mut bits = [0; 32];
    bits[..8].copy_from_slice(&(number as u64 + 1).to_be_bytes());
    NodeId(bits)
}

fn meta(number: usize) -> NodeMeta {
    NodeMeta {
        name: Name::new(&format!("n{number}")).expect("a valid name"),
        gossip: ([10, 0, (number >> 8) as u8, number as u8], 7946).into(),
        tunnel: ([10, 0, (number >> 8) as u8, number as u8], 7946).into(),
        role: Role::Manager,
        wire_version: 1,
        plan_version: 1,
        labels: BTreeMap::new(),
        leaving: false,
        counts: number == 0,
        software: "0.1.0".into(),
        os: "linux".into(),
        architecture: "amd64".into(),
        nano_cpus: 2_000_000_000,
        memory_bytes: 1 << 30,
    }
}

enum Delivery {
    Message { from: usize, to: usize, run: u64, message: MembershipMessage },
    Lost { peer: usize, to: usize },
    Timer { node: usize },
}

/// A node of the network; its disk outlives its runs.
struct Node {
    running: Option<Membership>,
    paused: bool,
    inbox: Vec<(usize, MembershipMessage)>,
    disk: BTreeMap<NodeId, Member>,
    runs: u64,
    meta: NodeMeta,
    timer: Instant,
    events: Vec<(Instant, Event)>,
}

struct Network {
    now: Instant,
    random: Stream,
    queue: BTreeMap<(Instant, u64), Delivery>,
    sequence: u64,
    nodes: Vec<Node>,
    loss_permille: u64,
    cut: BTreeSet<(usize, usize)>,
    sent: u64,
}

impl Network {
    /// `count` nodes; all but the first begin with the first as contact.
    fn new(seed: u8, count: usize) -> Self {
        let random = Stream::new(&[seed; 32], "network");
        let node = |number| Node {
            running: None,
            paused: false,
            inbox: Vec::new(),
            disk: BTreeMap::new(),
            runs: 0,
            meta: meta(number),
            timer: NEVER,
            events: Vec::new(),
        };
        let mut network = Self {
            now: Instant::from_micros(1_000_000),
            random,
            queue: BTreeMap::new(),
            sequence: 0,
            nodes: (0..count).map(node).collect(),
            loss_permille: 0,
            cut: BTreeSet::new(),
            sent: 0,
        };
        for number in 0..count {
            network.start(number);
        }
        network
    }

    /// As [`Self::new`], after all have met.
    fn settled(seed: u8, count: usize) -> Self {
        let mut network = Self::new(seed, count);
        network.run(SECOND * 15);
        network.assert_agreed(count);
        network
    }

    fn start(&mut self, number: usize) {
        let contacts = if number == 0 { vec![] } else { vec![(id(0), meta(0).gossip)] };
        let seed = Stream::new(&[self.random.next() as u8; 32], &format!("{number}"));
        let node = &mut self.nodes[number];
        node.runs += 1;
        let config = MembershipConfig::default();
        let mut membership = Membership::new(id(number), node.meta.clone(), 0, contacts, config, seed, self.now);
        for member in node.disk.values().cloned().collect::<Vec<_>>() {
            membership.restore(member);
        }
        node.running = Some(membership);
        self.carry_out(number);
    }

    fn post(&mut self, at: Instant, delivery: Delivery) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), delivery);
    }

    fn carry_out(&mut self, number: usize) {
        loop {
            let node = &mut self.nodes[number];
            let Some(action) = node.running.as_mut().and_then(Membership::poll) else { break };
            match action {
                MembershipAction::Persist(member) => {
                    node.disk.insert(member.id, member);
                }
                MembershipAction::Notify(event) => node.events.push((self.now, event)),
                MembershipAction::Send { to, message } => self.send(number, to, message),
            }
        }
        let Some(membership) = &self.nodes[number].running else { return };
        let due = membership.poll_timeout().max(self.now);
        if self.nodes[number].timer > due || self.nodes[number].timer < self.now {
            self.nodes[number].timer = due;
            self.post(due, Delivery::Timer { node: number });
        }
    }

    fn send(&mut self, from: usize, to: NodeId, message: MembershipMessage) {
        assert!(message.flaw().is_none(), "{message:?}");
        let own = &self.nodes[from].disk[&id(from)];
        let told = message.updates.iter().find(|update| update.member.id == own.id);
        assert!(told.is_none_or(|told| told.member.incarnation <= own.incarnation || told.accuser != own.id));
        self.sent += 1;
        let to = (0..self.nodes.len()).find(|number| id(*number) == to).expect("a node of the network");
        let lost = self.random.below(1_000) < self.loss_permille || self.cut.contains(&(from, to));
        let delay = Duration::from_micros(500 + self.random.below(1_500));
        let run = self.nodes[to].runs;
        if !lost {
            self.post(self.now + delay, Delivery::Message { from, to, run, message });
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some((&(at, sequence), _)) = self.queue.first_key_value() {
            if at > end {
                break;
            }
            self.now = at;
            let delivery = self.queue.remove(&(at, sequence)).expect("it was there");
            self.deliver(delivery);
        }
        self.now = end;
    }

    fn deliver(&mut self, delivery: Delivery) {
        let now = self.now;
        let number = match delivery {
            Delivery::Message { from, to, run, message } => {
                let node = &mut self.nodes[to];
                if node.paused {
                    node.inbox.push((from, message));
                } else if let Some(membership) = node.running.as_mut().filter(|_| run == node.runs) {
                    membership.handle(now, id(from), message);
                }
                to
            }
            Delivery::Lost { peer, to } => {
                if let Some(membership) = self.nodes[to].running.as_mut() {
                    membership.peer_lost(now, id(peer));
                }
                to
            }
            Delivery::Timer { node: number } => {
                let node = &mut self.nodes[number];
                if node.timer <= now {
                    node.timer = NEVER;
                }
                match node.running.as_mut() {
                    Some(membership) if !node.paused && membership.poll_timeout() <= now => membership.timeout(now),
                    Some(_) | None => {}
                }
                number
            }
        };
        if !self.nodes[number].paused {
            self.carry_out(number);
        }
    }

    /// Kills a node; with `evidence` the others' connections to it are reset.
    fn kill(&mut self, number: usize, evidence: bool) {
        self.nodes[number].running = None;
        if evidence {
            for to in (0..self.nodes.len()).filter(|to| *to != number) {
                self.post(self.now + Duration::from_millis(1), Delivery::Lost { peer: number, to });
            }
        }
    }

    fn resume(&mut self, number: usize) {
        self.nodes[number].paused = false;
        let inbox = core::mem::take(&mut self.nodes[number].inbox);
        // The timer first: the worst order for a node that slept.
        let now = self.now;
        if let Some(membership) = self.nodes[number].running.as_mut() {
            membership.timeout(now);
            for (from, message) in inbox {
                membership.handle(now, id(from), message);
            }
        }
        self.carry_out(number);
    }

    fn cut_between(&mut self, left: &[usize], right: &[usize]) {
        for &one in left {
            for &other in right {
                self.cut.insert((one, other));
                self.cut.insert((other, one));
            }
        }
    }

    fn membership(&self, number: usize) -> &Membership {
        self.nodes[number].running.as_ref().expect("the node runs")
    }

    fn state(&self, at: usize, of: usize) -> Option<MemberState> {
        self.membership(at).members().get(&id(of)).map(|member| member.state)
    }

    fn running(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|number| self.nodes[*number].running.is_some()).collect()
    }

    /// All that run hold the same list, with `up` members up.
    fn assert_agreed(&self, up: usize) {
        let digests: BTreeSet<[u8; 32]> = self.running().iter().map(|at| self.membership(*at).list_digest()).collect();
        for at in self.running() {
            let members = self.membership(at).members().values();
            let found = members.filter(|member| member.state.is_up()).count();
            assert_eq!(found, up, "at {at}: {:?}", self.membership(at).members());
        }
        assert_eq!(digests.len(), 1);
    }

    /// When the last running node first thought what `wanted` says after `since`.
    fn last_to_notice(&self, since: Instant, wanted: &Event) -> Option<Duration> {
        let first = |at: &usize| {
            let mut events = self.nodes[*at].events.iter();
            events.find(|(when, event)| *when >= since && event == wanted).map(|(when, _)| when.since(since))
        };
        self.running().iter().map(first).collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    fn deaths(&self) -> Vec<(usize, Instant, Event)> {
        let all =
            self.nodes.iter().enumerate().flat_map(|(at, node)| node.events.iter().map(move |(w, e)| (at, *w, e)));
        all.filter(|(_, _, event)| matches!(event, Event::NodeDown(_))).map(|(at, w, e)| (at, w, e.clone())).collect()
    }
}
