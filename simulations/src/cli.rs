//! The command's parts: what is asked for, and what is printed.

#![expect(clippy::print_stdout, reason = "the command's output")]

#[cfg(feature = "mutations")]
pub(crate) mod mutations;
pub(crate) mod replay;
pub(crate) mod run;
pub(crate) mod steps;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use shoal_simulations::page;
use shoal_simulations::report::{Outcome, Report};
use shoal_simulations::script::Script;
use shoal_simulations::summary::Summary;
use shoal_simulations::workers;

/// Exit status when one seed gave two traces.
const NOT_DETERMINISTIC: u8 = 5;

/// Where reports go besides the terminal.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Outputs {
    /// Write every run and the summary to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<std::path::PathBuf>,
    /// Write a page with plots to this file, as HTML
    #[arg(long, value_name = "FILE")]
    html: Option<std::path::PathBuf>,
}

/// Runs the scripts, prints options first and reports after, and returns the reports.
fn run_scripts(scripts: &[Script]) -> Vec<Report> {
    workers::run_all(scripts, false, |script| println!("run {}", script.options), |report| println!("{report}"))
}

/// Prints the summary, writes the files, and ends with the command that repeats the first failure.
fn conclude(reports: &[Report], began: Instant, outputs: &Outputs) -> anyhow::Result<ExitCode> {
    let summary = Summary::new(reports, began.elapsed());
    println!("\n{}", summary.text().trim_end());
    let write = |path: &Path, text: String| {
        std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
    };
    if let Some(path) = &outputs.json {
        write(path, serde_json::to_string_pretty(&summary.json())?)?;
    }
    if let Some(path) = &outputs.html {
        write(path, page::page(reports, &summary))?;
    }
    let Some(failed) = reports.iter().find(|report| report.outcome != Outcome::Right) else {
        return Ok(ExitCode::SUCCESS);
    };
    println!("repeat the first that did not: {}", failed.repeat());
    Ok(ExitCode::from(failed.outcome.exit_code()))
}
