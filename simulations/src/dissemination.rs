//! Dissemination at scale: what it costs to tell a thousand nodes of each change.
//!
//! Whole cores, which keep and pass on the planes but compute no plan (its cost is measured elsewhere), on a LAN that
//! loses nothing unless asked to. Operators update services on random nodes; each update also changes the reports of two
//! nodes, as their tasks would. Output: bytes per node and second by kind of message, and how soon all are equal. See
//! `docs/testing.md#dissemination-at-scale`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::Duration;

use shoal_cluster::clock::Now;
use shoal_cluster::crdt::Dot;
use shoal_cluster::intent::name::Name;
use shoal_cluster::intent::service::{ImageRef, ServiceSpec, TaskSpec};
use shoal_cluster::limits::MESSAGE_BYTES_MAX;
use shoal_cluster::membership::member::{Member, MemberState};
use shoal_cluster::record::Record;
use shoal_cluster::seed::Stream;
use shoal_cluster::{Action, Cluster, Command, Config, Input, Instant, TaskEvent, wire};

use crate::membership::FRAMING_BYTES;
use crate::membership::ours::{id, meta, number};
use crate::membership::queue::Queue;

/// Wall clock at the start, in milliseconds.
const START_MS: u64 = 1_700_000_000_000;
/// Time in which the nodes meet before anything is counted.
const WARM_UP: Duration = Duration::from_secs(40);
/// Kinds of messages that news travels in: push, stored, told, wanted, given.
const NEWS: [u16; 5] = [5, 8, 11, 12, 13];
/// Kinds of messages that nodes compare by.
const COMPARING: [u16; 7] = [2, 3, 4, 6, 7, 9, 10];
/// Kinds of messages by which a node can learn of a write.
const BRINGING: [u16; 4] = [4, 5, 7, 13];
/// How long equality after the last update may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// What to simulate.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Simulate this many nodes
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(2..=5000))]
    nodes: u16,
    /// Declare this many services beforehand
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u16).range(1..=10000))]
    services: u16,
    /// Update so many services per second
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    updates: u16,
    /// For so many seconds
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Lose so many of a hundred messages
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=50))]
    loss: u8,
    /// Draw everything from this seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Fail if a node sends more bytes of news per second, framing included
    #[arg(long)]
    news_bytes: Option<u64>,
    /// Fail if a node sends more bytes of anti-entropy per second, framing included
    #[arg(long)]
    comparing_bytes: Option<u64>,
    /// Fail if it takes longer than so many milliseconds until all nodes know of 99 in 100 updates
    #[arg(long)]
    within_ms: Option<u64>,
}

enum Event {
    Message { from: usize, to: usize, bytes: Vec<u8> },
    Timer { node: usize },
}

struct World {
    now: Instant,
    random: Stream,
    queue: Queue<Event>,
    cores: Vec<Cluster>,
    timers: Vec<Instant>,
    images: Vec<BTreeSet<String>>,
    loss_percent: u64,
    /// Messages and bytes by kind on the wire.
    sent: BTreeMap<u16, (u64, u64)>,
    spreading: Vec<Spreading>,
    /// How long each update took to half of the nodes, and to all.
    spread: Vec<(Duration, Duration)>,
}

/// An update that some nodes do not know of yet.
struct Spreading {
    dot: Dot,
    since: Instant,
    half: Option<Instant>,
    /// By number of node.
    unaware: Vec<bool>,
    unaware_count: usize,
}

/// Runs it and prints the figures; exit status 1 if a bound that was asked for does not hold, 3 if the nodes do not
/// become equal.
#[expect(clippy::print_stdout, reason = "the command's output")]
pub fn command(args: &Args) -> ExitCode {
    let began = std::time::Instant::now();
    println!(
        "dissemination: {} nodes, {} services, {} updates/s for {} s, loss {} %, seed {}",
        args.nodes, args.services, args.updates, args.seconds, args.loss, args.seed
    );
    let mut world = World::new(args);
    world.run(WARM_UP);
    world.sent.clear();
    world.update(args);
    let sent = std::mem::take(&mut world.sent);
    let last = world.now;
    let equal = world.run_until_equal();
    let rate = |kinds: &[u16]| {
        let total: u64 =
            kinds.iter().filter_map(|kind| sent.get(kind)).map(|(count, bytes)| bytes + count * FRAMING_BYTES).sum();
        total / (u64::from(args.nodes) * args.seconds.max(1))
    };
    let (news, comparing) = (rate(&NEWS), rate(&COMPARING));
    println!("  per node and second, framing included:");
    println!("    news                         {news:>8} B/s");
    println!("    anti-entropy                 {comparing:>8} B/s");
    println!("    membership                   {:>8} B/s", rate(&[1]));
    for (kind, (count, bytes)) in &sent {
        println!(
            "    kind {kind:>2}: {:>9.2} messages/s, {:>6} B each",
            *count as f64 / (f64::from(args.nodes) * args.seconds.max(1) as f64),
            bytes / (*count).max(1)
        );
    }
    let late = world.print_spread();
    match equal {
        Some(at) => println!("  all equal {:.2} s after the last update", at.since(last).as_secs_f64()),
        None => println!("  NOT EQUAL {} s after the last update", PATIENCE.as_secs()),
    }
    println!("  wall {:.1} s", began.elapsed().as_secs_f64());
    let wrong = args.news_bytes.is_some_and(|most| news > most)
        || args.comparing_bytes.is_some_and(|most| comparing > most)
        || args.within_ms.is_some_and(|most| late > Duration::from_millis(most));
    ExitCode::from(if equal.is_none() { 3 } else { u8::from(wrong) })
}

impl World {
    fn new(args: &Args) -> Self {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&args.seed.to_be_bytes());
        let records = declared(args);
        let count = usize::from(args.nodes);
        let mut world = Self {
            now: Instant::default(),
            random: Stream::new(&seed, "dissemination"),
            queue: Queue::new(),
            cores: Vec::with_capacity(count),
            timers: vec![Instant::from_micros(u64::MAX); count],
            images: vec![BTreeSet::new(); count],
            loss_percent: u64::from(args.loss),
            sent: BTreeMap::new(),
            spreading: Vec::new(),
            spread: Vec::new(),
        };
        for node in 0..count {
            seed[8..16].copy_from_slice(&(node as u64).to_be_bytes());
            // Of itself each node remembers one incarnation less than the others do of it: that is the one it starts with,
            // so that nobody has to hear of a thousand restarts.
            let own = Record::Member(member(node, 0)).encode();
            let records = records.iter().cloned().chain([own]);
            let core = Cluster::restore(id(node), config(node, 2), seed, world.wall(), records);
            world.cores.push(core.expect("records of a core restore"));
            world.input(node, Input::Task(TaskEvent::Recovered { running: Vec::new(), starting: Vec::new() }));
        }
        world
    }

    fn wall(&self) -> Now {
        Now { mono: self.now, wall_ms: START_MS + self.now.as_micros() / 1_000 }
    }

    fn input(&mut self, node: usize, input: Input) {
        let now = self.wall();
        self.cores[node].handle(now, input);
        self.drain(node);
    }

    fn drain(&mut self, node: usize) {
        while let Some(action) = self.cores[node].poll() {
            match action {
                Action::Send { to, message } => self.send(node, number(to), message),
                Action::Persist(_) | Action::Task(_) | Action::Notify(_) => {}
            }
        }
        let due = self.cores[node].poll_timeout().max(self.now);
        if due < self.timers[node] {
            self.timers[node] = due;
            self.queue.push(due, Event::Timer { node });
        }
    }

    fn send(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        let (count, total) = self.sent.entry(kind(&bytes)).or_default();
        *count += 1;
        *total += bytes.len() as u64;
        if self.random.below(100) >= self.loss_percent {
            let delay = Duration::from_micros(200 + self.random.below(1_800));
            self.queue.push(self.now + delay, Event::Message { from, to, bytes });
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some((at, event)) = self.queue.pop(end) {
            self.now = at;
            match event {
                Event::Message { from, to, bytes } => {
                    let brings = BRINGING.contains(&kind(&bytes));
                    self.input(to, Input::Received { from: id(from), message: bytes });
                    if brings {
                        self.note_spread(to);
                    }
                }
                Event::Timer { node } => {
                    if self.timers[node] <= at {
                        self.timers[node] = Instant::from_micros(u64::MAX);
                    }
                    if self.cores[node].poll_timeout() <= at {
                        self.input(node, Input::Timeout);
                    } else {
                        self.drain(node);
                    }
                }
            }
        }
        self.now = end;
    }

    fn update(&mut self, args: &Args) {
        let spacing = Duration::from_micros(1_000_000 / u64::from(args.updates));
        for round in 0..args.seconds * u64::from(args.updates) {
            let node = self.random.below(self.cores.len() as u64) as usize;
            let name = service_name(self.random.below(u64::from(args.services)));
            let now = self.wall();
            let service = self.cores[node].intent().service_named(&name).cloned().expect("it was declared");
            let mut spec = service.spec;
            spec.replicas = 1 + (round % 5) as u32;
            let update = Command::UpdateService { id: service.id, version: service.version, spec };
            self.cores[node].apply(now, update).expect("an update of the version that this node sees is accepted");
            let core = &self.cores[node];
            let dot = Dot::new(core.intent().actor(), core.written());
            let unaware = vec![true; self.cores.len()];
            self.spreading.push(Spreading {
                dot,
                since: self.now,
                half: None,
                unaware,
                unaware_count: self.cores.len(),
            });
            self.note_spread(node);
            self.drain(node);
            for _ in 0..2 {
                let reporter = self.random.below(self.cores.len() as u64) as usize;
                let image = format!("web:{}@sha256:{:064x}", round % 3, round % 3);
                if !self.images[reporter].remove(&image) {
                    self.images[reporter].insert(image);
                }
                let images = self.images[reporter].clone();
                self.input(reporter, Input::Images(images));
            }
            self.run(spacing);
        }
    }

    /// Looks which updates a node knows of by now.
    fn note_spread(&mut self, node: usize) {
        let (now, half) = (self.now, self.cores.len() / 2);
        let vector = self.cores[node].intent().vector();
        for update in self.spreading.iter_mut().filter(|update| update.unaware[node] && vector.knows(&update.dot)) {
            update.unaware[node] = false;
            update.unaware_count -= 1;
            if update.unaware_count == half {
                update.half = Some(now);
            }
        }
        let spread = &mut self.spread;
        self.spreading.retain(|update| {
            if update.unaware_count == 0 {
                let half = update.half.unwrap_or(now).since(update.since);
                spread.push((half, now.since(update.since)));
            }
            update.unaware_count > 0
        });
    }

    /// Prints how long updates took; returns how long 99 of 100 did to all nodes.
    #[expect(clippy::print_stdout, reason = "the command's output")]
    fn print_spread(&mut self) -> Duration {
        let (mut half, mut all): (Vec<Duration>, Vec<Duration>) = self.spread.iter().copied().unzip();
        all.extend(self.spreading.iter().map(|_| PATIENCE));
        half.sort_unstable();
        all.sort_unstable();
        let of = |times: &[Duration], percent: usize| {
            times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
        };
        println!(
            "  an update is known to half of the nodes after {:.3} s (p50) and {:.3} s (p99), to all after {:.3} s and {:.3} s",
            of(&half, 50).as_secs_f64(),
            of(&half, 99).as_secs_f64(),
            of(&all, 50).as_secs_f64(),
            of(&all, 99).as_secs_f64()
        );
        of(&all, 99)
    }

    fn run_until_equal(&mut self) -> Option<Instant> {
        let end = self.now + PATIENCE;
        while self.now < end {
            let digest = self.cores[0].intent().digest();
            let writes = self.cores[0].intent().vector().iter().map(|(_, counter)| counter).sum::<u64>();
            let equal = self.cores.iter().all(|core| {
                let known: u64 = core.intent().vector().iter().map(|(_, counter)| counter).sum();
                core.intent().digest() == digest && known == writes
            });
            if equal {
                return Some(self.now);
            }
            self.run(Duration::from_millis(100));
        }
        None
    }
}

fn kind(bytes: &[u8]) -> u16 {
    wire::open(bytes, MESSAGE_BYTES_MAX).map_or(0, |envelope| envelope.kind)
}

fn config(node: usize, epoch: u64) -> Config {
    Config { plans: false, ..Config::new([3; 32], epoch, meta(node), Vec::new()) }
}

fn member(node: usize, incarnation: u64) -> Member {
    Member { id: id(node), incarnation, state: MemberState::Alive, meta: meta(node) }
}

fn service_name(number: u64) -> Name {
    Name::new(&format!("service-{number:05}")).expect("letters, a dash and digits")
}

/// Returns the records of a shoal in which all services are declared, on several nodes, and all members are known.
fn declared(args: &Args) -> Vec<Vec<u8>> {
    let now = Now { mono: Instant::default(), wall_ms: START_MS - 60_000 };
    let mut records = Vec::new();
    let authors = usize::from(args.nodes).min(50);
    for author in 0..authors {
        let core = Cluster::restore(id(author), config(author, 1), [author as u8; 32], now, std::iter::empty());
        let mut core = core.expect("no records restore");
        for service in (0..u64::from(args.services)).filter(|service| *service % authors as u64 == author as u64) {
            let image = ImageRef { reference: "web:latest".to_owned(), digest: Some(format!("sha256:{service:064x}")) };
            let mut task = TaskSpec::new(image);
            task.args = vec!["serve".to_owned(), "--port".to_owned(), "80".to_owned()];
            let labels = BTreeMap::from([("com.example.stack".to_owned(), format!("stack-{}", service / 10))]);
            let spec = ServiceSpec { labels, ..ServiceSpec::new(service_name(service), 3, task) };
            core.apply(now, Command::CreateService(spec)).expect("a new name is accepted");
        }
        let snapshot = core.snapshot();
        let planes = |record: &Vec<u8>| matches!(Record::decode(record), Ok(Record::Entry(_) | Record::Vector(_)));
        records.extend(snapshot.into_iter().filter(planes));
    }
    records.extend((0..usize::from(args.nodes)).map(|node| Record::Member(member(node, 1)).encode()));
    records
}
