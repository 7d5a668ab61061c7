//! `shoal simulate`: loses nodes of a simulated shoal that runs the operator's own services on their own nodes. Asks no
//! node and changes nothing.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use shoal_simulations::drill::{self, Kill};

/// What to try.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// The services, in TOML: `[[service]]` with name, replicas and what service create takes for placement.
    #[arg(long, value_name = "FILE", alias = "services")]
    stack: PathBuf,
    /// The nodes, in TOML: `[[node]]` with name, cpus, memory_mib and labels.
    #[arg(long, value_name = "FILE")]
    nodes: PathBuf,
    /// Whom to lose: any:2 for every two nodes, or names separated by commas.
    #[arg(long, value_name = "WHOM", default_value = "any:1")]
    kill: Kill,
    /// Fail if a service is without any replica for longer than this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    down_max: u64,
    /// Where all randomness comes from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Simulates each loss; fails if a service stays below its replicas or is gone for too long.
#[expect(clippy::print_stdout, reason = "the command's output")]
pub fn run(args: &SimulateArgs) -> anyhow::Result<ExitCode> {
    let (services, nodes) = (drill::read(&args.stack)?, drill::read(&args.nodes)?);
    let drill = drill::drill(&services, &nodes, &args.kill, args.seed)?;
    print!("{drill}");
    let holds = drill.holds(Duration::from_secs(args.down_max));
    println!("{}", if holds { "every service holds" } else { "some services do not hold" });
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
