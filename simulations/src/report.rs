//! The report of a run: how it ended, what happened in it, and how to repeat it.

use core::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::options::Options;
use crate::world::World;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything became right and stayed so.
    Right,
    /// Something was wrong that no time mends.
    Wrong(Vec<String>),
    /// Something did not become right within its bound.
    NoProgress(Vec<String>),
    /// The core panicked.
    Crashed(String),
}

impl Outcome {
    /// Returns the exit status that stands for it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Right => 0,
            Self::Wrong(_) => 1,
            Self::NoProgress(_) => 3,
            Self::Crashed(_) => 4,
        }
    }

    /// Returns its word, and the checkers that found something: what two runs share that fail alike.
    pub fn kind(&self) -> String {
        let checker = |lines: &[String]| {
            let first = lines.first().and_then(|line| line.split(':').next());
            first.unwrap_or("unknown").to_owned()
        };
        match self {
            Self::Right => "right".to_owned(),
            Self::Wrong(lines) => format!("wrong, found by {}", checker(lines)),
            Self::NoProgress(lines) => format!("no progress, found by {}", checker(lines)),
            Self::Crashed(_) => "crashed".to_owned(),
        }
    }

    fn lines(&self) -> Vec<String> {
        match self {
            Self::Right => Vec::new(),
            Self::Wrong(lines) | Self::NoProgress(lines) => lines.clone(),
            Self::Crashed(text) => vec![format!("the core panicked: {text}")],
        }
    }
}

/// Tasks that started when a node was lost, and how many had to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// How many started anywhere.
    pub started: u64,
    /// How many ran on the lost node.
    pub needed: u64,
}

/// What is known of a run afterwards.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was run.
    pub options: Options,
    /// How it ended.
    pub outcome: Outcome,
    /// From heal until everything was right.
    pub converged: Option<Duration>,
    /// From the loss of a node until all others knew.
    pub detected: Option<Duration>,
    /// From the loss of a node until everything was right without it.
    pub replaced: Option<Duration>,
    /// Tasks that started because of it.
    pub moved: Option<Moved>,
    /// From its return until everything was right with it.
    pub rejoined: Option<Duration>,
    /// From the loss of all others until the last node ran everything.
    pub survived: Option<Duration>,
    /// Bytes that a node sent in a second while all was right.
    pub idle_bytes: f64,
    /// Longest time, while faults lasted, that some node answered a name with a task that was gone, in microseconds.
    pub stale_us: u64,
    /// What happened, by kind.
    pub counts: Vec<(&'static str, u64)>,
    /// Simulated time.
    pub simulated: Duration,
    /// Real time.
    pub wall: Duration,
    /// Events in the trace.
    pub events: u64,
    /// The trace's hash.
    pub hash: String,
}

impl Report {
    /// Returns the report of a run that has not begun.
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            options: options.clone(),
            outcome: Outcome::Right,
            converged: None,
            detected: None,
            replaced: None,
            moved: None,
            rejoined: None,
            survived: None,
            idle_bytes: 0.0,
            stale_us: 0,
            counts: Vec::new(),
            simulated: Duration::ZERO,
            wall: Duration::ZERO,
            events: 0,
            hash: String::new(),
        }
    }

    /// Returns the report of a run in which the core panicked with this text.
    pub fn crashed(options: &Options, text: String) -> Self {
        Self { outcome: Outcome::Crashed(text), ..Self::new(options) }
    }

    /// Takes in what the world counted.
    pub(crate) fn close(&mut self, world: &World) {
        self.counts = world.counts.iter().map(|(what, count)| (*what, *count)).collect();
        let network = &world.network;
        self.counts.extend([
            ("writes tried", world.ledger.tried),
            ("writes acknowledged", world.ledger.acknowledged),
            ("messages sent", network.sent.0),
            ("bytes sent", network.sent.1),
            ("messages lost", network.lost),
            ("messages doubled", network.doubled),
            ("messages cut short", network.truncated),
        ]);
        self.simulated = Duration::from_micros(world.at_us);
        self.events = world.trace.events();
        self.hash = world.trace.hash();
    }

    /// Returns the times that a run measures, by name.
    pub fn times(&self) -> [(&'static str, Option<Duration>); 6] {
        [
            ("converged after heal", self.converged),
            ("loss of a node known to all", self.detected),
            ("loss of a node made good", self.replaced),
            ("return of a node made good", self.rejoined),
            ("the last node runs everything", self.survived),
            ("oldest stale answer under faults", Some(Duration::from_micros(self.stale_us))),
        ]
    }

    /// Returns the simulated hours of all its nodes together.
    pub fn node_hours(&self) -> f64 {
        self.simulated.as_secs_f64() * self.options.nodes as f64 / 3_600.0
    }

    /// Returns the command that repeats the run.
    pub fn repeat(&self) -> String {
        let Options { seed, nodes, sabotage, .. } = &self.options;
        let sabotage = sabotage.map_or(String::new(), |sabotage| {
            let value = clap::ValueEnum::to_possible_value(&sabotage)
                .map_or(String::new(), |value| value.get_name().to_owned());
            format!(" --sabotage {value}")
        });
        format!("cargo run --release -p shoal-simulations -- run --seed {seed} --nodes {nodes}{sabotage}")
    }

    /// Returns it as JSON.
    pub fn json(&self) -> Value {
        let times = self.times().into_iter().filter_map(|(name, time)| Some((name.to_owned(), time?.as_secs_f64())));
        let counts = self.counts.iter().map(|(name, count)| ((*name).to_owned(), *count));
        json!({
            "seed": self.options.seed,
            "nodes": self.options.nodes,
            "faults": self.options.faults,
            "outcome": self.outcome.kind(),
            "found": self.outcome.lines(),
            "seconds": times.collect::<std::collections::BTreeMap<_, _>>(),
            "moved": self.moved.map(|moved| json!({"started": moved.started, "needed": moved.needed})),
            "idle_bytes_per_node_second": self.idle_bytes,
            "counts": counts.collect::<std::collections::BTreeMap<_, _>>(),
            "simulated_seconds": self.simulated.as_secs_f64(),
            "wall_seconds": self.wall.as_secs_f64(),
            "events": self.events,
            "trace": self.hash,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds =
            |time: Option<Duration>| time.map_or("-".to_owned(), |time| format!("{:.2}s", time.as_secs_f64()));
        write!(
            f,
            "seed {:>6}  {}  converged {:>7}  loss known {:>7}  replaced {:>7}  rejoined {:>7}  events {:>8}  trace {}",
            self.options.seed,
            match &self.outcome {
                Outcome::Right => "right",
                Outcome::Wrong(_) => "WRONG",
                Outcome::NoProgress(_) => "NO PROGRESS",
                Outcome::Crashed(_) => "CRASHED",
            },
            seconds(self.converged),
            seconds(self.detected),
            seconds(self.replaced),
            seconds(self.rejoined),
            self.events,
            self.hash,
        )?;
        self.outcome.lines().iter().try_for_each(|line| write!(f, "\n    {line}"))
    }
}
