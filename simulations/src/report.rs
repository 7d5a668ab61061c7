//! The report of a run: how it ended, what happened in it, and how to repeat it.

use core::fmt;
use std::time::Duration;

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
    /// From its return until everything was right with it.
    pub rejoined: Option<Duration>,
    /// What happened, by kind.
    pub counts: Vec<(&'static str, u64)>,
    /// Simulated time.
    pub simulated: Duration,
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
            rejoined: None,
            counts: Vec::new(),
            simulated: Duration::ZERO,
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
        self.counts.push(("writes tried", world.ledger.tried));
        self.counts.push(("writes acknowledged", world.ledger.acknowledged));
        self.counts.push(("messages sent", world.network.sent.0));
        self.counts.push(("bytes sent", world.network.sent.1));
        self.counts.push(("messages lost", world.network.lost));
        self.simulated = Duration::from_micros(world.at_us);
        self.events = world.trace.events();
        self.hash = world.trace.hash();
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
        match &self.outcome {
            Outcome::Right => Ok(()),
            Outcome::Wrong(what) | Outcome::NoProgress(what) => {
                what.iter().try_for_each(|line| write!(f, "\n    {line}"))
            }
            Outcome::Crashed(text) => write!(f, "\n    the core panicked: {text}"),
        }
    }
}
