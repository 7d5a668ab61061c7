//! The network of the membership harness: a LAN that loses messages, slow nodes, crashes with and without a reset.

use std::collections::BTreeSet;
use std::time::Duration;

use shoal_cluster::Instant;
use shoal_cluster::seed::Stream;

use super::queue::Queue;
use super::{Figures, Output, Place, Protocol, Scenario};

/// Delay of a message on a LAN: from the first, up to the second more.
const DELAY_MICROS: (u64, u64) = (200, 1_800);
/// A connection that was idle for this long is closed, as the transport does.
const CONNECTION_IDLE: Duration = Duration::from_secs(60);
/// Time between a crashed node's return and the next crash.
const RETURN: Duration = Duration::from_secs(20);
/// Time that a crashed node stays away after all know.
const AWAY: Duration = Duration::from_secs(5);
/// Nodes through which a returning node joins.
const CONTACTS: usize = 3;

enum Event<M> {
    Message { from: usize, to: usize, message: M },
    Lost { peer: usize, to: usize },
    Timer { node: usize },
}

struct Node<P: Protocol> {
    running: Option<P>,
    disk: P::Disk,
    run: u64,
    timer: Instant,
    slow: bool,
}

struct Network<'a, P: Protocol> {
    scenario: &'a Scenario,
    now: Instant,
    random: Stream,
    queue: Queue<Event<P::Message>>,
    nodes: Vec<Node<P>>,
    /// When each pair spoke last, in one direction, by sender and receiver; `None` for never.
    spoke: Vec<Option<Instant>>,
    /// Who has yet to learn of the crash under way.
    unaware: BTreeSet<usize>,
    crashed: Option<usize>,
    figures: Figures,
}

/// Runs a scenario with a protocol.
pub fn run<P: Protocol>(scenario: &Scenario) -> Figures {
    let mut network: Network<'_, P> = Network::new(scenario);
    network.advance(scenario.idle / 2);
    let before = (network.figures.messages, network.figures.bytes);
    network.advance(scenario.idle / 2);
    network.figures.idle = (network.figures.messages - before.0, network.figures.bytes - before.1);
    network.figures.idle_time = scenario.idle / 2;
    for _ in 0..scenario.crashes {
        network.crash();
    }
    network.figures.simulated = network.now.since(Instant::default());
    network.figures
}

impl<'a, P: Protocol> Network<'a, P> {
    fn new(scenario: &'a Scenario) -> Self {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&scenario.seed.to_be_bytes());
        let count = scenario.nodes;
        let mut network = Self {
            scenario,
            now: Instant::default(),
            random: Stream::new(&seed, "membership-network"),
            queue: Queue::new(),
            nodes: Vec::with_capacity(count),
            spoke: vec![None; count * count],
            unaware: BTreeSet::new(),
            crashed: None,
            figures: Figures { nodes: count, ..Figures::default() },
        };
        for number in 0..count {
            let node = Node {
                running: None,
                disk: P::Disk::default(),
                run: 0,
                timer: Instant::from_micros(u64::MAX),
                slow: number < scenario.slow,
            };
            network.nodes.push(node);
            network.start(number, Vec::new());
        }
        network
    }

    fn start(&mut self, number: usize, contacts: Vec<usize>) {
        let mut seed = [0; 32];
        for part in seed.chunks_mut(8) {
            part.copy_from_slice(&self.random.next().to_be_bytes());
        }
        let (count, now) = (self.scenario.nodes, self.now);
        let node = &mut self.nodes[number];
        node.run += 1;
        let place = Place { number, count, run: node.run, seed, contacts };
        node.running = Some(P::start(&place, &mut node.disk, now));
        node.timer = Instant::from_micros(u64::MAX);
        self.carry_out(number);
    }

    /// One node crashes; when all know, or patience ends, it comes back.
    fn crash(&mut self) {
        let victim = self.random.below(self.nodes.len() as u64) as usize;
        let since = self.now;
        self.nodes[victim].running = None;
        self.crashed = Some(victim);
        self.unaware = (0..self.nodes.len()).filter(|number| *number != victim).collect();
        if self.scenario.reset {
            for to in 0..self.nodes.len() {
                if to != victim && self.connected(victim, to) {
                    let at = self.now + self.delay(victim, to);
                    self.queue.push(at, Event::Lost { peer: victim, to });
                }
            }
        }
        self.run_until(since + self.scenario.patience, |network| network.unaware.is_empty());
        if self.unaware.is_empty() {
            self.figures.detected.push(self.now.since(since));
        } else {
            self.figures.missed += 1;
        }
        self.advance(AWAY);
        self.crashed = None;
        let others: Vec<usize> = (0..self.nodes.len()).filter(|number| *number != victim).collect();
        let contacts = self.random.choose(&others, CONTACTS);
        self.start(victim, contacts);
        self.advance(RETURN);
    }

    fn connected(&self, one: usize, other: usize) -> bool {
        let count = self.nodes.len();
        let recent = |at: Option<Instant>| at.is_some_and(|at| self.now.since(at) < CONNECTION_IDLE);
        recent(self.spoke[one * count + other]) || recent(self.spoke[other * count + one])
    }

    fn advance(&mut self, time: Duration) {
        self.run_until(self.now + time, |_| false);
        // Nothing else was due.
    }

    /// Runs until `end`, or until `done`, whichever is first.
    fn run_until(&mut self, end: Instant, done: impl Fn(&Self) -> bool) {
        while let Some((at, event)) = self.queue.pop(end) {
            self.now = at;
            self.deliver(event);
            if done(self) {
                return;
            }
        }
        self.now = end;
    }

    fn deliver(&mut self, event: Event<P::Message>) {
        let now = self.now;
        let number = match event {
            Event::Message { from, to, message } => {
                match &mut self.nodes[to].running {
                    Some(running) => running.handle(now, from, message),
                    None => self.refuse(from, to),
                }
                to
            }
            Event::Lost { peer, to } => {
                if let Some(running) = &mut self.nodes[to].running {
                    running.lost(now, peer);
                }
                to
            }
            Event::Timer { node: number } => {
                let node = &mut self.nodes[number];
                if node.timer <= now {
                    node.timer = Instant::from_micros(u64::MAX);
                }
                match &mut node.running {
                    Some(running) if running.due() <= now => running.timeout(now),
                    Some(_) | None => {}
                }
                number
            }
        };
        self.carry_out(number);
    }

    /// A crashed node's host answers a dial, if it answers at all.
    fn refuse(&mut self, from: usize, to: usize) {
        if self.scenario.reset && self.crashed == Some(to) {
            let at = self.now + self.delay(to, from);
            self.queue.push(at, Event::Lost { peer: to, to: from });
        }
    }

    fn carry_out(&mut self, number: usize) {
        loop {
            let node = &mut self.nodes[number];
            let Some(running) = &mut node.running else { return };
            let Some(output) = running.poll(&mut node.disk) else { break };
            match output {
                Output::Send { to, message, bytes } => self.send(number, to, message, bytes),
                Output::Up(_) => {}
                Output::Suspect(of) => self.figures.false_suspicions += u64::from(self.nodes[of].running.is_some()),
                Output::Down(of) if self.crashed == Some(of) => {
                    self.unaware.remove(&number);
                }
                Output::Down(_) => self.figures.false_deaths += 1,
            }
        }
        let Some(running) = &self.nodes[number].running else { return };
        let due = running.due().max(self.now);
        if due < self.nodes[number].timer {
            self.nodes[number].timer = due;
            self.queue.push(due, Event::Timer { node: number });
        }
    }

    fn send(&mut self, from: usize, to: usize, message: P::Message, bytes: u64) {
        self.figures.messages += 1;
        self.figures.bytes += bytes;
        if self.random.below(1_000) < self.scenario.loss_permille {
            return;
        }
        let at = self.now + self.delay(from, to);
        let count = self.nodes.len();
        self.spoke[from * count + to] = Some(self.now);
        self.queue.push(at, Event::Message { from, to, message });
    }

    fn delay(&mut self, from: usize, to: usize) -> Duration {
        let (least, more) = DELAY_MICROS;
        let mut micros = least + self.random.below(more);
        for end in [from, to] {
            if self.nodes[end].slow {
                micros += self.random.below(self.scenario.slow_delay.as_micros() as u64 + 1);
            }
        }
        Duration::from_micros(micros)
    }
}
