//! `shoal demo`: a shoal of three nodes on this machine, made from nothing, shown, and taken away again.
//!
//! Three network namespaces are the hosts; in each runs a real node of this very executable. Nothing is simulated but
//! the cables. Whatever happens, a failure, Ctrl-C, SIGTERM, nothing stays behind; what a demo left that was killed
//! itself, the next one removes first.

mod dns;
mod lab;
mod namespace;
mod preflight;
mod process;
mod remains;
mod show;
mod steps;
mod view;
mod wire;

use std::io;
use std::process::ExitCode;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::DemoArgs;
use lab::Lab;
use remains::Remains;
use show::Show;

/// Exit status after Ctrl-C, as shells have it: 128 and the number of the signal.
const INTERRUPTED: u8 = 130;

/// How the steps ended.
enum End {
    Done(anyhow::Result<()>),
    Interrupted,
}

/// Runs the demo, or removes a kept one.
///
/// # Errors
/// What is missing on this machine, or what did not work; all that was made is removed then.
pub fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(demonstrate(args));
    runtime.shutdown_background();
    done
}

async fn demonstrate(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let show = Show::new();
    if args.clean {
        let removed = Remains::claim()?.clear()?;
        show.print(if removed {
            "The kept demo is gone: nodes, containers, namespaces, files."
        } else {
            "There is no kept demo."
        });
        return Ok(ExitCode::SUCCESS);
    }
    show.step("what the demo needs: root, TUN, overlayfs, cgroups, network namespaces");
    if !nix::unistd::geteuid().is_root() {
        return Ok(lacking(&show, &preflight::missing(&std::env::temp_dir())));
    }
    let mut stop = Stop::listen().context("cannot listen for signals")?;
    let mut remains = Remains::claim()?;
    anyhow::ensure!(!remains.is_kept(), "a kept demo is still up: `shoal demo --clean` ends it");
    if remains.clear()? {
        show.detail("(removed what an earlier demo had left)");
    }
    let directory = remains.make_directory()?;
    let missing = preflight::missing(&directory);
    if !missing.is_empty() {
        remains.clear()?;
        return Ok(lacking(&show, &missing));
    }
    let mut lab = Lab::new(directory);
    let end = tokio::select! {
        done = steps::run(&mut lab, &show) => End::Done(done),
        () = stop.told() => End::Interrupted,
    };
    finish(args, &show, end, &mut lab, remains)
}

/// Shows how it ended, and takes everything away unless it is to be kept.
fn finish(args: &DemoArgs, show: &Show, end: End, lab: &mut Lab, mut remains: Remains) -> anyhow::Result<ExitCode> {
    if args.keep && matches!(end, End::Done(Ok(()))) {
        remains.keep()?;
        lab.explain(show);
        return Ok(ExitCode::SUCCESS);
    }
    match &end {
        End::Done(Ok(())) => show.step("cleaning up: nodes, containers, namespaces, files"),
        End::Done(Err(error)) => {
            show.step(format!("FAILED: {error:#}"));
            lab.show_logs(show);
            show.step("cleaning up");
        }
        End::Interrupted => show.step("stopped: cleaning up"),
    }
    remains.clear().context("cleaning up after the demo")?;
    lab.reap();
    match end {
        End::Done(Ok(())) => {
            show.step("nothing is left behind");
            Ok(ExitCode::SUCCESS)
        }
        End::Done(Err(error)) => Err(error.context("the demo failed, and was cleaned up")),
        End::Interrupted => Ok(ExitCode::from(INTERRUPTED)),
    }
}

fn lacking(show: &Show, missing: &[String]) -> ExitCode {
    show.print("The demo cannot run here. It lacks:");
    for thing in missing {
        show.print(&format!("  - {thing}"));
    }
    show.print("Nothing was started.");
    ExitCode::FAILURE
}

/// Ctrl-C and SIGTERM, heard from the moment this is made: the handlers stay, so a second one does not cut the cleaning
/// short.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Returns when one of them comes.
    async fn told(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
