//! The command `shoal-simulations membership`: prints the figures of one scenario.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::ours::Ours;
use super::{Scenario, run};

/// What to simulate.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Simulate this many nodes
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(2..=5000))]
    nodes: u16,
    /// Draw everything from this seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Lose so many of a hundred messages
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    loss: u8,
    /// Make so many of a hundred nodes slow: up to 5 s more for each message to or from them
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    slow: u8,
    /// Crash so many nodes, one after the other
    #[arg(long, default_value_t = 0)]
    crashes: usize,
    /// Let the hosts of crashed nodes answer with resets
    #[arg(long)]
    reset: bool,
    /// Run so many hours without crashes first
    #[arg(long, default_value_t = 0)]
    hours: u64,
    /// Fail if a p99 of detection exceeds so many milliseconds
    #[arg(long)]
    detect_within_ms: Option<u64>,
    /// Fail if an idle node sends more bytes per second, framing included
    #[arg(long)]
    idle_bytes: Option<u64>,
    /// Fail if any node is declared down while it runs
    #[arg(long)]
    no_false_deaths: bool,
}

/// Runs it and prints the figures; exit status 1 if a bound that was asked for does not hold.
#[expect(clippy::print_stdout, reason = "the command's output")]
pub fn command(args: &Args) -> ExitCode {
    let began = Instant::now();
    let scenario = args.scenario();
    println!(
        "membership: {} nodes, seed {}, loss {} %, {} slow, {} crashes{}, {} s idle",
        scenario.nodes,
        scenario.seed,
        args.loss,
        scenario.slow,
        scenario.crashes,
        if scenario.reset { " with resets" } else { "" },
        scenario.idle.as_secs(),
    );
    let figures = run::<Ours>(&scenario);
    println!("{figures}\n  wall                   {:>6.1} s", began.elapsed().as_secs_f64());
    let late = args
        .detect_within_ms
        .is_some_and(|within| figures.missed > 0 || figures.spread().percentile(99) > Duration::from_millis(within));
    let loud = args.idle_bytes.is_some_and(|bytes| figures.idle_bytes_per_second() > bytes);
    let wrong = args.no_false_deaths && figures.false_deaths > 0;
    for (broken, what) in [(late, "detection is too slow"), (loud, "idle nodes say too much"), (wrong, "false deaths")]
    {
        if broken {
            println!("WRONG: {what}");
        }
    }
    ExitCode::from(u8::from(late || loud || wrong))
}

impl Args {
    fn scenario(&self) -> Scenario {
        let nodes = usize::from(self.nodes);
        Scenario {
            nodes,
            seed: self.seed,
            loss_permille: u64::from(self.loss) * 10,
            slow: nodes * usize::from(self.slow) / 100,
            crashes: self.crashes,
            reset: self.reset,
            idle: Duration::from_secs((self.hours * 3_600).max(60)),
            ..Scenario::default()
        }
    }
}
