//! `shoal join-token`: how another node joins.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};

use super::output::Output;
use crate::api::status::Join;
use crate::client::Client;

/// How to print the token.
#[derive(Debug, Args)]
pub struct JoinTokenArgs {
    /// What the new node may do.
    #[arg(value_enum, default_value_t = TokenRole::Manager)]
    role: TokenRole,
    /// Print the token only.
    #[arg(short, long)]
    quiet: bool,
}

/// What a new node may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TokenRole {
    /// Accept commands, admit nodes, and run tasks.
    Manager,
    /// Run tasks.
    Worker,
}

pub(super) async fn run(args: &JoinTokenArgs, client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    let join: Join = client.ask("/shoal/join").await?;
    let (token, word) = match args.role {
        TokenRole::Manager => (&join.manager, "manager"),
        TokenRole::Worker => (&join.worker, "worker"),
    };
    let token = token.as_deref().with_context(|| format!("this node has no token for a {word}: ask another node"))?;
    if args.quiet {
        output.line(token)?;
    } else {
        let command = join.command(token);
        output.line(&format!("To add a {word} to this shoal, run the following command on it:\n\n    {command}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}
