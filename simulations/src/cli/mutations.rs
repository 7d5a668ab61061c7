//! `mutations`: switches one deliberate bug of the core on after the other, and runs seeds until it is caught.

#![expect(clippy::print_stdout, reason = "the command's output")]

use std::panic;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use shoal_cluster::mutation::{self, Mutation};
use shoal_simulations::options::Options;
use shoal_simulations::report::Outcome;
use shoal_simulations::script::Script;
use shoal_simulations::workers;

/// How long to look.
#[derive(Debug, clap::Args)]
pub(crate) struct MutationArgs {
    /// Seeds within which each mutation must be caught
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// Simulate this many nodes
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(2..=100))]
    nodes: u16,
    /// Try the recorded runs in this folder after the seeds
    #[arg(long, value_name = "FOLDER", default_value = "simulations/regressions")]
    recorded: PathBuf,
    /// Try only mutations whose name contains this
    #[arg(long)]
    only: Option<String>,
}

/// Returns the scripts that come right without repair, which is off while a mutation is on: nodes that were away for longer
/// than tombstones are kept need it.
fn sound(scripts: Vec<Script>) -> Vec<Script> {
    mutation::set(Some(Mutation::NoRepair));
    let reports = workers::run_all(&scripts, false, |_| {}, |_| {});
    mutation::set(None);
    let count = scripts.len();
    let right = scripts.into_iter().zip(reports).filter(|(_, report)| report.outcome == Outcome::Right);
    let right: Vec<Script> = right.map(|(script, _)| script).collect();
    println!("{} of {count} seeds come right without repair and are used", right.len());
    right
}

/// Runs each mutation until it is caught.
pub(crate) fn mutations(args: &MutationArgs) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    // A core may panic at what a mutation does to it: that is one way to be caught, and needs no backtrace.
    panic::set_hook(Box::new(|_| {}));
    let seeds = (1..=args.seeds).map(|seed| Script::drawn(Options::draw(seed, usize::from(args.nodes))));
    let recorded = Script::folder(&args.recorded)?.into_iter().map(|(_, script)| script);
    let scripts: Vec<Script> = seeds.chain(recorded).collect();
    let scripts = sound(scripts);
    let (mut tried, mut missed) = (0, Vec::new());
    for mutation in Mutation::ALL {
        let name = format!("{mutation:?}");
        if args.only.as_ref().is_some_and(|only| !name.to_lowercase().contains(&only.to_lowercase())) {
            continue;
        }
        tried += 1;
        mutation::set(Some(mutation));
        let reports = workers::run_all(&scripts, true, |_| {}, |_| {});
        mutation::set(None);
        match reports.iter().find(|report| report.outcome != Outcome::Right) {
            Some(report) => println!("{name:<26} caught by seed {:>3}: {}", report.options.seed, report.outcome.kind()),
            None => {
                println!("{name:<26} NOT CAUGHT by {} seeds", scripts.len());
                missed.push(name);
            }
        }
    }
    println!("{} of {tried} mutations caught in {:.1} s", tried - missed.len(), began.elapsed().as_secs_f64());
    Ok(if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
