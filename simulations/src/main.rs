//! The command `shoal-simulations`: runs many seeds, or repeats one.

use std::collections::BTreeMap;
use std::panic;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use shoal_simulations::options::{Options, Sabotage};
use shoal_simulations::report::{Outcome, Report};
use shoal_simulations::run::run;

/// Simulate whole shoals under faults, deterministically.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run seeds; exit 0 if all came right, 1 if a result was wrong, 3 without progress, 4 after a panic.
    Run(RunArgs),
    /// Run the seeds that once found a bug, each with as many nodes as then.
    Regressions,
}

/// Seeds that once found a bug: seed, nodes, and what was found.
const REGRESSIONS: &str = include_str!("../regressions/seeds.txt");

#[derive(clap::Args)]
struct RunArgs {
    /// Repeat exactly this seed, twice, and compare the trace hashes
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Run this many seeds
    #[arg(long, default_value_t = 50)]
    seeds: u64,
    /// Begin with this seed [default: 1, so that every run of CI is the same]
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Simulate this many nodes
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=2000))]
    nodes: u16,
    /// Break the shoal on purpose: the run must fail
    #[arg(long, value_enum)]
    sabotage: Option<Sabotage>,
}

#[expect(clippy::print_stdout, reason = "the command's output")]
fn main() -> ExitCode {
    let began = Instant::now();
    let args = match Cli::parse().command {
        Command::Run(args) => args,
        Command::Regressions => return regressions(began),
    };
    let seeds: Vec<u64> = match args.seed {
        Some(seed) => vec![seed, seed],
        None => (args.first..args.first.saturating_add(args.seeds)).collect(),
    };
    let drawn = seeds.iter().map(|&seed| {
        let mut options = Options::draw(seed, usize::from(args.nodes));
        options.sabotage = args.sabotage;
        options
    });
    let reports = run_all(&drawn.collect::<Vec<_>>());
    for report in &reports {
        println!("{report}");
    }
    summary(&reports, began.elapsed());
    if let Some((first, again)) = args.seed.and(reports.first().zip(reports.get(1)))
        && first.hash != again.hash
    {
        println!("NOT DETERMINISTIC: the same seed gave two traces, {} and {}", first.hash, again.hash);
        return ExitCode::from(1);
    }
    verdict(&reports)
}

/// Runs the seeds on all processors; each world is single-threaded. Results come in the order of the seeds.
#[expect(clippy::print_stdout, reason = "the options of a run are printed before it starts")]
fn run_all(drawn: &[Options]) -> Vec<Report> {
    let next = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(drawn.len().max(1));
    let work = || {
        let mut done = Vec::new();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(options) = drawn.get(place).cloned() else { break };
            println!("run {options}");
            done.push((place, run_one(options)));
        }
        done
    };
    let mut reports: Vec<(usize, Report)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("workers catch panics")).collect()
    });
    reports.sort_by_key(|(place, _)| *place);
    reports.into_iter().map(|(_, report)| report).collect()
}

#[expect(clippy::print_stdout, reason = "the command's output")]
fn regressions(began: Instant) -> ExitCode {
    let mut drawn = Vec::new();
    for line in REGRESSIONS.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace().map(str::parse);
        let (Some(Ok(seed)), Some(Ok(nodes))) = (words.next(), words.next()) else {
            println!("regressions/seeds.txt: expected `SEED NODES what was found`, not `{line}`");
            return ExitCode::from(2);
        };
        drawn.push(Options::draw(seed, nodes as usize));
    }
    let reports = run_all(&drawn);
    reports.iter().for_each(|report| println!("{report}"));
    summary(&reports, began.elapsed());
    verdict(&reports)
}

fn run_one(options: Options) -> Report {
    let copy = options.clone();
    panic::catch_unwind(panic::AssertUnwindSafe(|| run(options))).unwrap_or_else(|cause| {
        let text =
            cause.downcast_ref::<String>().cloned().or_else(|| cause.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Report::crashed(&copy, text.unwrap_or_default())
    })
}

#[expect(clippy::print_stdout, reason = "the command's output")]
fn summary(reports: &[Report], wall: Duration) {
    let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
    for (what, count) in reports.iter().flat_map(|report| &report.counts) {
        *totals.entry(what).or_default() += count;
    }
    println!("\nwhat happened in {} runs:", reports.len());
    for (what, count) in &totals {
        println!("  {what:<38} {count:>12}");
    }
    let node_hours: f64 =
        reports.iter().map(|report| report.simulated.as_secs_f64() * report.options.nodes as f64 / 3_600.0).sum();
    println!("  {:<38} {node_hours:>12.1}", "simulated node-hours");
    println!("  {:<38} {:>12.1}", "wall seconds", wall.as_secs_f64());
    for (what, pick) in [
        ("converged after heal", (|report: &Report| report.converged) as fn(&Report) -> Option<Duration>),
        ("loss of a node known to all", |report| report.detected),
        ("loss of a node made good", |report| report.replaced),
        ("return of a node made good", |report| report.rejoined),
    ] {
        let mut times: Vec<f64> = reports.iter().filter_map(pick).map(|time| time.as_secs_f64()).collect();
        times.sort_by(f64::total_cmp);
        if let (Some(median), Some(worst)) = (times.get(times.len() / 2), times.last()) {
            println!("  {what:<38} median {median:>6.2} s, worst {worst:>6.2} s");
        }
    }
}

#[expect(clippy::print_stdout, reason = "the command's output")]
fn verdict(reports: &[Report]) -> ExitCode {
    let failed: Vec<&Report> = reports.iter().filter(|report| report.outcome != Outcome::Right).collect();
    println!("\n{} of {} runs came right", reports.len() - failed.len(), reports.len());
    let Some(first) = failed.first() else { return ExitCode::SUCCESS };
    println!("repeat the first that did not: {}", first.repeat());
    ExitCode::from(match first.outcome {
        Outcome::Right => 0,
        Outcome::Wrong(_) => 1,
        Outcome::NoProgress(_) => 3,
        Outcome::Crashed(_) => 4,
    })
}
