//! `shoal conflicts`: objects that were written on several nodes at once, with authors and times.

use std::process::ExitCode;

use clap::Args;

use super::output::Output;
use super::table::table;
use super::words::ago;
use crate::api::status::{Conflict, Rival};
use crate::api::time::rfc3339;
use crate::client::Client;

/// How to show them.
#[derive(Debug, Args)]
pub struct ConflictsArgs {
    /// Print JSON, with all that was written.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &ConflictsArgs, client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    let conflicts: Vec<Conflict> = client.ask("/shoal/conflicts").await?;
    if args.json {
        output.json(&conflicts)?;
        return Ok(ExitCode::SUCCESS);
    }
    for line in table(["KIND", "NAME", "AUTHOR", "WRITTEN", "WHAT", "COUNTS"], &rows(&conflicts)) {
        output.line(&line)?;
    }
    if !conflicts.is_empty() {
        output.note("a conflict ends when the object is written again, for example by `shoal service update`");
    }
    Ok(ExitCode::SUCCESS)
}

fn rows(conflicts: &[Conflict]) -> Vec<[String; 6]> {
    let versions = |conflict: &Conflict| {
        let row = |(number, rival): (usize, &Rival)| {
            [
                conflict.kind.clone(),
                conflict.name.clone(),
                rival.author_name.clone().unwrap_or_else(|| rival.author.clone()),
                ago(Some(&rfc3339(rival.written_ms))),
                if rival.removed { "removed" } else { "written" }.to_owned(),
                if number == 0 { "yes" } else { "no" }.to_owned(),
            ]
        };
        conflict.versions.iter().enumerate().map(row).collect::<Vec<_>>()
    };
    conflicts.iter().flat_map(versions).collect()
}
