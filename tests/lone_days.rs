//! Bad days of the containers of one node: its daemon, their shims or the host end in the middle of something.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::support::lone::Lone;
use crate::support::{signal, until};

/// How many moments of a container's life the daemon is killed at, and how far apart they are.
const STAGES: u32 = 24;
const STAGE: Duration = Duration::from_millis(25);

/// Replicas come and go, and the daemon is killed at one moment after the other: in the end each runs once.
pub(crate) fn a_daemon_killed_at_every_stage_loses_and_doubles_nothing() -> Result<()> {
    let mut node = Lone::start()?;
    node.ok("service create --detach --name web --replicas 0 tiny:1")?;
    for stage in 0..STAGES {
        let replicas = if stage % 2 == 0 { 4 } else { 1 };
        node.ok(&format!("service scale --detach web={replicas}"))?;
        thread::sleep(STAGE * stage);
        node.kill()?;
        // Once more, while it looks for what outlived it.
        if stage % 4 == 0 {
            node.launch()?;
            thread::sleep(STAGE * stage / 2);
            node.kill()?;
        }
        node.up()?;
        if stage % 6 == 5 {
            node.settle(replicas).with_context(|| format!("after stage {stage}"))?;
        }
    }
    node.ok("service scale --detach web=3")?;
    let before = node.settle(3)?;
    node.kill()?;
    node.up()?;
    ensure!(node.settle(3)? == before, "a daemon that is killed in peace loses nothing");
    node.ok("service rm web")?;
    node.settle(0)?;
    node.stop()
}

pub(crate) fn a_killed_shim_is_told_and_its_task_replaced() -> Result<()> {
    let node = Lone::start()?;
    node.ok("service create --detach --name web --replicas 2 tiny:1")?;
    let before = node.settle(2)?;
    signal(*node.shims().first().context("a shim")?, Signal::SIGKILL)?;
    until("another task runs", || {
        let now = node.running()?;
        ensure!(now.len() == 2 && now != before, "{now:?}");
        Ok(())
    })?;
    let after = node.settle(2)?;
    ensure!(before.intersection(&after).count() == 1, "{before:?} {after:?}");
    let said = node.ok("service ps --no-trunc web")?;
    ensure!(said.contains("shim was killed"), "{said}");
    Ok(())
}

/// A restart of the host leaves files, and neither processes nor groups nor interfaces; and what was not synced may be
/// empty.
pub(crate) fn after_a_restart_of_the_host_all_tasks_run_again() -> Result<()> {
    let mut node = Lone::start()?;
    node.ok("service create --detach --name web --replicas 3 tiny:1")?;
    let before = node.settle(3)?;
    node.kill()?;
    for shim in node.shims() {
        signal(shim, Signal::SIGKILL)?;
    }
    node.remove_groups()?;
    let layers = node.path("data/images/layers");
    for layer in fs::read_dir(&layers)?.flatten() {
        fs::write(layer.path().join("bin/sh"), "")?;
    }
    fs::write(node.path("data/images/layers.boot"), "the boot before")?;
    node.up()?;
    let after = node.settle(3)?;
    ensure!(before.is_disjoint(&after), "a task is one-shot: {before:?} {after:?}");
    let said = node.ok("service ps --no-trunc web")?;
    ensure!(said.lines().filter(|line| line.contains("Running")).count() == 3, "{said}");
    node.ok("service rm web")?;
    node.settle(0).map(drop)
}

/// `shoal up` that is told to stop while it makes containers leaves none.
pub(crate) fn a_node_that_stops_while_tasks_start_leaves_nothing() -> Result<()> {
    let mut node = Lone::start()?;
    for pause in [0, 100, 300] {
        node.ok("service create --detach --name web --replicas 12 tiny:1")?;
        thread::sleep(Duration::from_millis(pause));
        node.stop()?;
        let (counts, running): (_, BTreeSet<i32>) = (node.counts()?, node.shims().into_iter().collect());
        ensure!(counts.bundles == 0 && counts.shims == 0 && counts.groups == 0, "{counts:?}, shims {running:?}");
        node.up()?;
        node.ok("service rm web")?;
        node.settle(0)?;
    }
    Ok(())
}

/// The last node does not leave by accident; when it does it forgets its shoal, and keeps its images.
pub(crate) fn a_node_that_leaves_for_good_forgets_its_shoal() -> Result<()> {
    let mut node = Lone::start()?;
    node.ok("service create --detach --name web --replicas 2 tiny:1")?;
    node.settle(2)?;
    let refused = node.ok("leave").expect_err("what the shoal knows would be gone").to_string();
    ensure!(refused.contains("no other node of this shoal is up") && refused.contains("--force"), "{refused}");
    node.settle(2)?;
    let before = node.api("GET", "/shoal/status")?["node"]["id"].clone();
    node.ok("leave --force")?;
    node.ended()?;
    let counts = node.counts()?;
    ensure!(counts.bundles == 0 && counts.shims == 0 && counts.groups == 0, "{counts:?}");
    ensure!(!node.path("data/identity").exists() && !node.path("data/state").exists(), "it knows who it was");
    node.up()?;
    ensure!(node.api("GET", "/shoal/status")?["node"]["id"] != before, "it is another node");
    ensure!(node.ok("service ls")?.lines().count() == 1, "{}", node.ok("service ls")?);
    ensure!(node.ok("image ls")?.contains("tiny"), "{}", node.ok("image ls")?);
    node.stop()
}
