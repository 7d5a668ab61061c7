//! `run`: many seeds, one seed twice, or a script.

#![expect(clippy::print_stdout, reason = "the command's output")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use shoal_simulations::options::{Fault, Options, Sabotage};
use shoal_simulations::report::Report;
use shoal_simulations::script::Script;
use shoal_simulations::workers;

use super::{NOT_DETERMINISTIC, Outputs, conclude, run_scripts};

/// What to run.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Repeat exactly this seed, twice, and compare the trace hashes
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Run this many seeds
    #[arg(long, default_value_t = 50)]
    seeds: u64,
    /// Begin with this seed [default: 1, so that every run of CI is the same]
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Simulate this many nodes; several numbers, separated by commas, run every seed with each
    #[arg(long, default_value = "12", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=2000))]
    nodes: Vec<u16>,
    /// Run this script instead of seeds
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "seeds"])]
    plan: Option<PathBuf>,
    /// Switch on exactly these faults instead of a random subset; `none` for none
    #[arg(long, value_delimiter = ',', value_parser = fault_or_none)]
    faults: Option<Vec<Option<Fault>>>,
    /// Switch these faults off
    #[arg(long, value_enum, value_delimiter = ',')]
    without: Vec<Fault>,
    /// Run every n-th seed twice and compare the trace hashes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    twice_every: Option<u64>,
    /// Write the script of the first seed to this file, every step spelled out
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Break the shoal on purpose: the run must fail
    #[arg(long, value_enum)]
    sabotage: Option<Sabotage>,
    #[command(flatten)]
    outputs: Outputs,
}

fn fault_or_none(text: &str) -> Result<Option<Fault>, String> {
    if text == "none" { Ok(None) } else { <Fault as clap::ValueEnum>::from_str(text, true).map(Some) }
}

/// Runs what was asked for.
pub(crate) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let scripts = scripts(args)?;
    if let (Some(path), Some(script)) = (&args.record, scripts.first()) {
        script.write(path)?;
    }
    let reports = run_scripts(&scripts);
    let code = conclude(&reports, began, &args.outputs)?;
    let twice: Vec<usize> = match (args.seed, args.twice_every) {
        (Some(_), _) => (0..scripts.len()).collect(),
        (None, Some(every)) => (0..scripts.len()).step_by(usize::try_from(every)?).collect(),
        (None, None) => Vec::new(),
    };
    if !repeats(&scripts, &reports, &twice) {
        return Ok(ExitCode::from(NOT_DETERMINISTIC));
    }
    Ok(code)
}

fn scripts(args: &RunArgs) -> anyhow::Result<Vec<Script>> {
    if let Some(path) = &args.plan {
        return Ok(vec![Script::read(path)?]);
    }
    let seeds = match args.seed {
        Some(seed) => seed..seed.saturating_add(1),
        None => args.first..args.first.saturating_add(args.seeds),
    };
    let drawn = args.nodes.iter().flat_map(|nodes| seeds.clone().map(move |seed| (seed, usize::from(*nodes))));
    Ok(drawn
        .map(|(seed, nodes)| {
            let mut options = Options::draw(seed, nodes);
            if let Some(faults) = &args.faults {
                options.faults = faults.iter().copied().flatten().collect();
            }
            options.faults.retain(|fault| !args.without.contains(fault));
            options.sabotage = args.sabotage;
            Script::drawn(options)
        })
        .collect())
}

/// Runs some of the scripts once more and compares the trace hashes.
fn repeats(scripts: &[Script], reports: &[Report], places: &[usize]) -> bool {
    if places.is_empty() {
        return true;
    }
    let again: Vec<Script> = places.iter().map(|place| scripts[*place].clone()).collect();
    let again = workers::run_all(&again, false, |_| {}, |_| {});
    let mut same = true;
    for (place, report) in places.iter().zip(&again) {
        let first = &reports[*place];
        if first.hash != report.hash {
            let (seed, nodes) = (report.options.seed, report.options.nodes);
            println!(
                "NOT DETERMINISTIC: seed {seed} nodes {nodes} gave two traces, {} and {}",
                first.hash, report.hash
            );
            same = false;
        }
    }
    println!("{} runs were repeated{}", again.len(), if same { " and gave the same traces" } else { "" });
    same
}
