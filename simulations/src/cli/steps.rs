//! `steps`: one rollout, killed at every step.

#![expect(clippy::print_stdout, reason = "the command's output")]

use std::process::ExitCode;
use std::time::Instant;

use shoal_cluster::intent::update::UpdateOrder;
use shoal_simulations::steps::{self, Ending};

/// What to run.
#[derive(Debug, clap::Args)]
pub(crate) struct StepsArgs {
    /// Simulate this many nodes
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(3..=30))]
    nodes: u16,
    /// Draw the network and the containers from this seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Take every n-th event only
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    stride: u16,
}

/// Kills each role at each event of rollouts that complete, are paused, and are rolled back.
pub(crate) fn steps(args: &StepsArgs) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let (mut cases, mut wrong) = (0, 0);
    for ending in [Ending::Success, Ending::Pause, Ending::Rollback] {
        for order in [UpdateOrder::StopFirst, UpdateOrder::StartFirst] {
            let kind = steps::run_kind(ending, order, usize::from(args.nodes), args.seed, usize::from(args.stride));
            println!(
                "{:<9} {:<10}  {:>3} events  {:>4} cases  {:>3} wrong  fewest slots running, nobody dead: {}",
                format!("{ending:?}"),
                format!("{order:?}"),
                kind.events,
                kind.cases,
                kind.wrong.len(),
                kind.least,
            );
            kind.wrong.iter().for_each(|(case, what)| println!("    {case}: {what}"));
            cases += kind.cases;
            wrong += kind.wrong.len();
        }
    }
    println!("{} of {cases} cases ended as they must, in {:.1} s", cases - wrong, began.elapsed().as_secs_f64());
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
