//! The binary `shoal`: decides what this process is, before any thread, runtime or logger exists.

#![allow(unreachable_pub, reason = "in a binary, `pub` marks what a module offers to the others")]

mod api;
mod blobs;
mod cli;
mod client;
mod compose;
mod demo;
mod driver;
mod executor;
mod host;
mod identity;
mod images;
mod lease;
mod levels;
mod reach;
mod store;
mod telemetry;
mod transport;
mod up;
mod volumes;
mod whoami;

use std::process::ExitCode;

use cli::{Cli, Command};

/// The first argument with which a node starts a container's shim.
const SHIM: &str = "shim";

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|word| word == SHIM) {
        return shoal_runtime::container::shim_main(std::env::args_os().skip(2));
    }
    if let Some(arguments) = whoami::arguments(std::env::args_os()) {
        return whoami::run(&arguments);
    }
    let Cli { socket, command } = Cli::read();
    let done = match command {
        Command::Up(args) => run_node(*args),
        Command::Demo(args) => demo::run(&args),
        Command::Simulate(args) => cli::simulate::run(&args),
        Command::Stack(command) => cli::stack::run(command, &socket),
        Command::Client(command) => cli::run(command, &socket),
    };
    done.unwrap_or_else(|error| cli::report(&error))
}

fn run_node(args: cli::up::UpArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(up::run(args));
    // Nothing that still waits for a peer or a file may hold up the exit.
    runtime.shutdown_background();
    done.map(|()| ExitCode::SUCCESS)
}
