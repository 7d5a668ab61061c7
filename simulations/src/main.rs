//! The command `shoal-simulations`: runs many seeds, repeats one, plays scripts, makes failures smaller.

mod cli;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use shoal_simulations::{dissemination, membership};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Simulate whole shoals under faults, deterministically.
///
/// Exit status: 0 all came right, 1 a result was wrong, 2 the command or a file is wrong, 3 something did not come right
/// in time, 4 the core panicked, 5 one seed gave two traces.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run seeds, or one seed twice, or a script
    Run(cli::run::RunArgs),
    /// Run a recorded script once more
    Replay(cli::replay::ReplayArgs),
    /// Make a failing seed or script as small as is cheap, and write it down
    Shrink(cli::replay::ShrinkArgs),
    /// Run the scenarios in a folder
    Plans(cli::replay::FolderArgs),
    /// Run what once found a bug: the seeds in seeds.txt and the scripts beside it
    Regressions(cli::replay::RegressionArgs),
    /// Switch deliberate bugs of the core on, one by one: each must be caught
    #[cfg(feature = "mutations")]
    Mutations(cli::mutations::MutationArgs),
    /// Kill each role at each event of a rollout, in all ways that a rollout can end
    Steps(cli::steps::StepsArgs),
    /// Simulate membership alone: detection times, false deaths, bytes
    Membership(membership::command::Args),
    /// Simulate the spread of changes among many nodes: bytes per node and second
    Dissemination(dissemination::Args),
}

fn main() -> ExitCode {
    let code = match Cli::parse().command {
        Command::Run(args) => cli::run::run(&args),
        Command::Replay(args) => cli::replay::replay(&args),
        Command::Shrink(args) => cli::replay::shrink(&args),
        Command::Plans(args) => cli::replay::plans(&args),
        Command::Regressions(args) => cli::replay::regressions(&args),
        #[cfg(feature = "mutations")]
        Command::Mutations(args) => cli::mutations::mutations(&args),
        Command::Steps(args) => cli::steps::steps(&args),
        Command::Membership(args) => return membership::command::command(&args),
        Command::Dissemination(args) => return dissemination::command(&args),
    };
    code.unwrap_or_else(|error| {
        eprintln!("shoal-simulations: {error:#}");
        ExitCode::from(2)
    })
}
