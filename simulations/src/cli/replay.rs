//! `replay`, `shrink`, `plans`, `regressions`: runs that are written down.

#![expect(clippy::print_stdout, reason = "the command's output")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use shoal_simulations::options::Options;
use shoal_simulations::script::{NODES_MAX, Script};
use shoal_simulations::shrink;

use super::{Outputs, conclude, run_scripts};

/// Which script to run.
#[derive(Debug, clap::Args)]
pub(crate) struct ReplayArgs {
    /// The script, as `run --record` or `shrink` wrote it
    file: PathBuf,
    #[command(flatten)]
    outputs: Outputs,
}

/// What to make smaller.
#[derive(Debug, clap::Args)]
pub(crate) struct ShrinkArgs {
    /// A script that fails; a drawn seed otherwise
    file: Option<PathBuf>,
    /// The seed that fails
    #[arg(long, required_unless_present = "file")]
    seed: Option<u64>,
    /// With how many nodes it fails
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=2000))]
    nodes: u16,
    /// Stop looking for a smaller one after this many seconds
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// Where to write the smaller script
    #[arg(long, short, value_name = "FILE", default_value = "shrunk.toml")]
    output: PathBuf,
}

/// Which folder of scripts.
#[derive(Debug, clap::Args)]
pub(crate) struct FolderArgs {
    /// The folder
    #[arg(default_value = "simulations/plans")]
    folder: PathBuf,
    #[command(flatten)]
    outputs: Outputs,
}

/// Where regressions are.
#[derive(Debug, clap::Args)]
pub(crate) struct RegressionArgs {
    /// The folder, which has seeds.txt (`SEED NODES what was found`) and scripts
    #[arg(default_value = "simulations/regressions")]
    folder: PathBuf,
    #[command(flatten)]
    outputs: Outputs,
}

/// Runs one script.
pub(crate) fn replay(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let reports = run_scripts(&[Script::read(&args.file)?]);
    conclude(&reports, began, &args.outputs)
}

/// Makes a failing run smaller.
pub(crate) fn shrink(args: &ShrinkArgs) -> anyhow::Result<ExitCode> {
    let script = match (&args.file, args.seed) {
        (Some(path), _) => Script::read(path)?,
        (None, Some(seed)) => Script::drawn(Options::draw(seed, usize::from(args.nodes))),
        (None, None) => bail!("name a script or a seed that fails"),
    };
    let Some(shrunk) = shrink::shrink(&script, Duration::from_secs(args.seconds)) else {
        println!("this run comes right: there is nothing to make smaller");
        return Ok(ExitCode::SUCCESS);
    };
    let (from, to) = (&script, &shrunk.script);
    println!(
        "from {} nodes, {} faults, {} steps to {}, {}, {}, in {} runs",
        from.options.nodes,
        from.options.faults.len(),
        from.steps.len(),
        to.options.nodes,
        to.options.faults.len(),
        to.steps.len(),
        shrunk.tried
    );
    to.write(&args.output)?;
    let reports = run_scripts(std::slice::from_ref(to));
    println!("repeat it: shoal-simulations replay {}", args.output.display());
    Ok(ExitCode::from(reports.first().map_or(0, |report| report.outcome.exit_code())))
}

/// Runs the scenarios of a folder, and prints what each measured.
pub(crate) fn plans(args: &FolderArgs) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let plans = Script::folder(&args.folder)?;
    let scripts: Vec<Script> = plans.iter().map(|(_, script)| script.clone()).collect();
    let reports = run_scripts(&scripts);
    println!();
    for ((path, script), report) in plans.iter().zip(&reports) {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        println!("{name}: {}", script.about);
        println!(
            "  {} with {} nodes, {:.0} s simulated",
            report.outcome.kind(),
            report.options.nodes,
            report.simulated.as_secs_f64()
        );
        if script.options.pace > 1 {
            println!("  with timers, and so the times below, stretched {} times", script.options.pace);
        }
        for (what, time) in report.times() {
            if let Some(time) = time {
                println!("  {what:<34} {:>12.2} s", time.as_secs_f64());
            }
        }
        println!("  {:<34} {:>12.0} B/s", "a node says, all right", report.idle_bytes);
        if let Some(moved) = report.moved {
            println!("  {:<34} {:>12} for {}", "tasks started for those lost", moved.started, moved.needed);
        }
    }
    conclude(&reports, began, &args.outputs)
}

/// Runs everything that once found a bug.
pub(crate) fn regressions(args: &RegressionArgs) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let path = args.folder.join("seeds.txt");
    let text = std::fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let mut scripts = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        let mut words = line.split_whitespace();
        let seed = words.next().and_then(|word| word.parse().ok());
        let nodes = words.next().and_then(|word| word.parse().ok()).filter(|nodes| (1..=NODES_MAX).contains(nodes));
        let (Some(seed), Some(nodes)) = (seed, nodes) else {
            bail!("{}: expected `SEED NODES what was found`, not `{line}`", path.display());
        };
        scripts.push(Script::drawn(Options::draw(seed, nodes)));
    }
    scripts.extend(Script::folder(&args.folder)?.into_iter().map(|(_, script)| script));
    let reports = run_scripts(&scripts);
    conclude(&reports, began, &args.outputs)
}
