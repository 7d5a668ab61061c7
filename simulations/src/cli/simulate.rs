//! `simulate`: an operator's own services on their own nodes.

#![expect(clippy::print_stdout, reason = "the command's output")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use shoal_simulations::drill::{self, Kill};

/// What to try.
#[derive(Debug, clap::Args)]
pub(crate) struct SimulateArgs {
    /// The services: `[[service]]` with name and replicas
    #[arg(long, value_name = "FILE")]
    services: PathBuf,
    /// The nodes: `[[node]]` with name, cpus and memory_mib
    #[arg(long, value_name = "FILE")]
    nodes: PathBuf,
    /// Whom to lose: `any:2` for every two nodes, or names
    #[arg(long, default_value = "any:1")]
    kill: Kill,
    /// Longest time in seconds that a service may be without any replica
    #[arg(long, default_value_t = 15)]
    down_max: u64,
    /// Where all randomness comes from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Holds the drill; fails if a service stays below its replicas or is gone for too long.
pub(crate) fn simulate(args: &SimulateArgs) -> anyhow::Result<ExitCode> {
    let (services, nodes) = (drill::read(&args.services)?, drill::read(&args.nodes)?);
    let drill = drill::drill(&services, &nodes, &args.kill, args.seed)?;
    print!("{drill}");
    let holds = drill.holds(Duration::from_secs(args.down_max));
    println!("{}", if holds { "every service holds" } else { "some services do not hold" });
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
