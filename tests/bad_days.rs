//! Bad days of a node: tasks that fail, strangers, a daemon or a disk that breaks off.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{Lab, Node, has_docker, signal, skip, text, traces, until};

pub(crate) fn a_missing_command_is_shown_and_backed_off(lab: &mut Lab) -> Result<()> {
    shown_and_backed_off(
        lab,
        "missing",
        "service create --detach --name missing --entrypoint /no/such/command whoami:latest",
        "/no/such/command",
    )
}

pub(crate) fn a_task_that_exits_at_once_is_backed_off(lab: &mut Lab) -> Result<()> {
    shown_and_backed_off(
        lab,
        "exits",
        "service create --detach --name exits whoami:latest --nonsense",
        "non-zero exit (1)",
    )
}

/// Creates a service that cannot run, and looks for its error and for the pauses between attempts.
fn shown_and_backed_off(lab: &Lab, name: &str, create: &str, error: &str) -> Result<()> {
    lab.ok(create)?;
    until("the error is shown", || {
        let said = lab.ok(&format!("service ps --no-trunc {name}"))?;
        ensure!(said.contains(error), "{said}");
        Ok(())
    })?;
    std::thread::sleep(std::time::Duration::from_secs(5));
    let (_, tasks) = lab.nodes[1].api("GET", "/tasks", b"")?;
    let (_, services) = lab.nodes[1].api("GET", "/services", b"")?;
    let services = services.as_array().context("a list")?;
    let id = &services.iter().find(|service| service["Spec"]["Name"] == name).context("the service")?["ID"];
    let attempts = tasks.as_array().context("a list")?.iter().filter(|task| &task["ServiceID"] == id).count();
    ensure!(attempts <= 12, "{attempts} attempts in a few seconds: nothing slows them down");
    lab.ok(&format!("service rm {name}")).map(drop)
}

pub(crate) fn a_token_of_another_shoal_is_refused(lab: &mut Lab) -> Result<()> {
    let founder = lab.up(2, "other", &["--listen", "198.51.100.3:8946"])?;
    let socket = founder.socket.clone();
    let token = until("the other shoal has a token", || {
        let output = crate::support::shoal(&["--socket", socket.to_str().context("plain")?, "join-token", "--quiet"])?;
        ensure!(output.status.success(), "{}", founder.said());
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    })?;
    let arguments = ["--listen", "198.51.100.2:8946", "--seed", "198.51.100.1:7946", "--token", &token];
    let foreigner = lab.up(1, "foreigner", &arguments)?;
    until("the foreigner is refused", || {
        let said = foreigner.said();
        let refused = ["another shoal", "fingerprint", "CA"].iter().any(|word| said.contains(word));
        ensure!(refused, "{said}");
        Ok(())
    })?;
    ensure!(!foreigner.socket.exists() || !foreigner.said().contains("member"), "{}", foreigner.said());
    let said = lab.ok("node ls")?;
    ensure!(!said.contains("foreigner") && !said.contains("other"), "a stranger is a member:\n{said}");
    ensure!(founder.said().contains("belongs to interface"), "{}", founder.said());
    for stranger in [&founder, &foreigner] {
        lab.stop(stranger)?;
    }
    let route = ["-n", &lab.nodes[2].namespace, "-4", "route", "show", "10.64.0.0/10"];
    let route = text(&std::process::Command::new("ip").args(route).output()?);
    ensure!(route.contains("shoal0"), "the stranger took the route to the tasks of node3: {route:?}");
    Ok(())
}

pub(crate) fn a_joiner_whose_clock_is_far_off_is_refused(lab: &mut Lab) -> Result<()> {
    // Shifts the wall clock of a process that it is loaded into.
    let faketime = format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH);
    if !Path::new(&faketime).exists() {
        return skip("libfaketime is not installed, so no process can have another clock");
    }
    let token = lab.ok("join-token --quiet")?.trim().to_owned();
    for (name, shift) in [("ahead", "+2h"), ("behind", "-2h")] {
        let arguments = ["--listen", "198.51.100.3:8948", "--seed", "198.51.100.1:7946", "--token", &token];
        let clock = [("LD_PRELOAD", faketime.as_str()), ("FAKETIME", shift), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
        let stranger = lab.up_with(2, name, &arguments, &clock)?;
        until("both sides name the clock", || {
            let (here, there) = (stranger.said(), fs::read_to_string(lab.nodes[0].directory.join("log"))?);
            ensure!(here.contains("clock") && there.contains("clock"), "joiner:\n{here}\nseed:\n{there}");
            Ok(())
        })?;
        let nodes = lab.ok("node ls")?;
        ensure!(!nodes.contains(name), "{nodes}");
        lab.stop(&stranger)?;
    }
    Ok(())
}

pub(crate) fn what_two_halves_wrote_is_shown_until_someone_writes_again(lab: &mut Lab) -> Result<()> {
    let written = lab.ok("service scale --detach web=3")?;
    ensure!(written.contains("stored on 2 nodes") || written.contains("stored on 3 nodes"), "{written}");
    cable("down")?;
    for (node, line) in [(0, "service scale --detach web=5"), (2, "service scale --detach web=4")] {
        until("the halves know that they are split", || {
            let status = text(&lab.nodes[node].command("node ls")?);
            ensure!(status.matches("Down").count() == if node == 0 { 1 } else { 2 }, "{status}");
            Ok(())
        })?;
        let said = text(&lab.nodes[node].command(line)?);
        let alone = said.contains("stored on this node's disk only: no other node is up");
        ensure!(alone == (node == 2) && said.contains("web scaled to"), "{}: {said}", lab.nodes[node].name);
    }
    cable("up")?;
    until("the conflict is shown everywhere", || {
        for node in &lab.nodes {
            let said = text(&node.command("conflicts")?);
            ensure!(said.contains("node3") && said.matches("web").count() >= 2, "{}: {said}", node.name);
        }
        let inspected = lab.ok("service inspect web")?;
        ensure!(inspected.contains("\"Conflict\"") && inspected.matches("\"author_name\"").count() == 2, "{inspected}");
        Ok(())
    })?;
    lab.settle("web", 4)?;
    lab.ok("service scale --detach web=3")?;
    until("a write settles it", || {
        let said = lab.nodes[1].command("conflicts")?;
        ensure!(!text(&said).contains("web"), "{}", text(&said));
        Ok(())
    })
}

pub(crate) fn a_fenced_service_runs_on_one_side_of_a_split_only(lab: &mut Lab) -> Result<()> {
    let create = "service create --detach --name safe --replicas 3 --partition fenced --stop-grace-period 1s";
    lab.ok(&format!("{create} --replicas-max-per-node 2 whoami:latest"))?;
    lab.settle("safe", 3)?;
    let (_, status) = lab.nodes[2].api("GET", "/shoal/status", b"")?;
    let tasks = lab.nodes[2].running("safe")?;
    let cut: Vec<&str> = tasks
        .iter()
        .filter(|task| task["NodeID"] == status["node"]["id"])
        .filter_map(|task| task["ID"].as_str())
        .collect();
    ensure!(!cut.is_empty(), "node3 runs none of it");
    cable("down")?;
    let begun = std::time::Instant::now();
    let runs = || cut.iter().any(|id| processes_of_tasks().contains_key(*id));
    until("what node3 ran has ended", || {
        ensure!(!runs());
        Ok(())
    })?;
    println!("     stopped on the lesser side after {:.1} s", begun.elapsed().as_secs_f32());
    // Nobody runs it instead before that; what waits says why.
    let there = |task: &Value| task["NodeID"] == status["node"]["id"];
    let others = || Ok::<_, anyhow::Error>(lab.nodes[0].running("safe")?.iter().filter(|task| !there(task)).count());
    // One of them may have to move on the greater side, and then waits, too.
    ensure!(others()? <= 3 - cut.len(), "{} others run already", others()?);
    until("those that wait say why", || {
        let said = lab.ok("service ps --no-trunc safe")?;
        ensure!(said.contains("fenced"), "{said}");
        Ok(())
    })?;
    until("the majority runs all of it", || {
        ensure!(others()? == 3, "{} run", others()?);
        Ok(())
    })?;
    println!("     all run on the greater side after {:.1} s", begun.elapsed().as_secs_f32());
    ensure!(!runs(), "it runs on both sides");
    cable("up")?;
    lab.settle("safe", 3)?;
    lab.ok("service rm safe")?;
    lab.settle("web", 3)
}

pub(crate) fn a_node_that_is_gone_is_removed_and_may_come_back(lab: &mut Lab) -> Result<()> {
    let said = lab.fails("node rm node3")?;
    ensure!(said.contains("is up and can't be removed"), "{said}");
    lab.nodes[2].kill()?;
    let listed = |node: &Node| Ok::<_, anyhow::Error>(text(&node.command("node ls")?));
    until("it is down", || {
        let said = listed(&lab.nodes[0])?;
        ensure!(said.contains("Down"), "{said}");
        Ok(())
    })?;
    lab.ok("node rm node3")?;
    until("nobody lists it any more", || {
        for node in &lab.nodes[..2] {
            let said = listed(node)?;
            ensure!(!said.contains("node3"), "{said}");
        }
        Ok(())
    })?;
    lab.nodes[2].start()?;
    until("it is back", || {
        for node in &lab.nodes {
            let said = listed(node)?;
            ensure!(said.matches("Ready").count() == 3, "{said}");
        }
        Ok(())
    })?;
    lab.settle("web", 3)
}

/// Sets the cable of the third node up or down.
fn cable(state: &str) -> Result<()> {
    let set = ["netns", "exec", "shoal-demo-hub", "ip", "link", "set", "port3", state];
    let output = std::process::Command::new("ip").args(set).output()?;
    ensure!(output.status.success(), "{}", text(&output));
    Ok(())
}

pub(crate) fn a_node_that_leaves_for_good_is_another_when_it_joins_again(lab: &mut Lab) -> Result<()> {
    let token = lab.ok("join-token --quiet")?.trim().to_owned();
    let arguments = ["--listen", "198.51.100.3:8948", "--seed", "198.51.100.1:7946", "--token", &token];
    let mut ids = BTreeSet::new();
    for _ in 0..2 {
        let guest = lab.up(2, "guest", &arguments)?;
        let id = until("the guest is a member", || {
            let (_, nodes) = lab.nodes[0].api("GET", "/nodes", b"")?;
            let is_guest = |node: &&Value| node["Description"]["Hostname"] == "guest";
            let guest = nodes.as_array().and_then(|nodes| nodes.iter().find(is_guest)).context("no guest")?;
            ensure!(guest["Status"]["State"] == "ready", "{guest}");
            guest["ID"].as_str().map(str::to_owned).context("it has no id")
        })?;
        ids.insert(id);
        let socket = guest.socket.to_str().context("plain")?;
        if has_docker() {
            let host = format!("unix://{socket}");
            let said = std::process::Command::new("docker").args(["--host", &host, "swarm", "leave"]).output()?;
            ensure!(said.status.success() && text(&said).contains("Node left the swarm."), "{}", text(&said));
        } else {
            let said = crate::support::shoal(&["--socket", socket, "leave"])?;
            ensure!(said.status.success(), "{}", text(&said));
        }
        until("its process has ended", || {
            ensure!(lab.ended(&guest)? == Some(true), "{}", guest.said());
            Ok(())
        })?;
        until("the others know", || lab.ok("node rm guest").map(drop))?;
    }
    ensure!(ids.len() == 2, "it came back as the same node: {ids:?}");
    Ok(())
}

pub(crate) fn an_unreachable_seed_is_tried_until_told_to_stop(lab: &mut Lab) -> Result<()> {
    let token = lab.ok("join-token --quiet")?.trim().to_owned();
    let seed = "198.51.100.77:7946";
    let lonely = lab.up(2, "lonely", &["--listen", "198.51.100.3:8947", "--seed", seed, "--token", &token])?;
    until("it says so more than once", || {
        let said = lonely.said();
        ensure!(said.matches(seed).count() >= 2, "{said}");
        Ok(())
    })?;
    ensure!(lab.ended(&lonely)?.is_none(), "it gave up: {}", lonely.said());
    lab.stop(&lonely)
}

/// Returns the tasks that have processes, each with its oldest process.
fn processes_of_tasks() -> BTreeMap<String, i32> {
    let mut found = BTreeMap::new();
    for pid in traces::pids() {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let task = groups.lines().find_map(|line| line.split_once("/shoal/")?.1.split('/').nth(1).map(str::to_owned));
        if let Some(task) = task {
            let oldest = found.entry(task).or_insert(pid);
            *oldest = pid.min(*oldest);
        }
    }
    found
}

/// Returns the process of the task of `web` that runs on a node.
fn own_task(node: &Node) -> Result<(String, i32)> {
    let (_, status) = node.api("GET", "/shoal/status", b"")?;
    let tasks = node.running("web")?;
    let own = tasks.iter().find(|task| task["NodeID"] == status["node"]["id"]).context("the node runs no task")?;
    let id = own["ID"].as_str().context("an id")?.to_owned();
    let pid = *processes_of_tasks().get(&id).with_context(|| format!("task {id} has no process"))?;
    Ok((id, pid))
}

pub(crate) fn a_daemon_killed_alone_leaves_its_tasks_running(lab: &mut Lab) -> Result<()> {
    let node = lab.nodes[1].clone();
    let (id, pid) = own_task(&node)?;
    node.kill()?;
    ensure!(processes_of_tasks().get(&id) == Some(&pid), "the task died with the daemon");
    node.start()?;
    lab.settle("web", 3)?;
    // If the others had replaced the task before the node was back, it is another one; what runs must be adopted.
    let (after, adopted) = own_task(&node)?;
    ensure!(after != id || adopted == pid, "task {id} was started again as process {adopted}, it was {pid}");
    until("replaced tasks have ended", || {
        let processes = processes_of_tasks();
        ensure!(processes.len() == 3, "{processes:?}");
        Ok(())
    })
}

/// The kernel takes a moment to take down what a killed process held: lock, ports and interface, one after the other.
pub(crate) fn a_node_started_right_after_its_death_comes_up(lab: &mut Lab) -> Result<()> {
    let node = lab.nodes[1].clone();
    for _ in 0..5 {
        signal(node.pid()?, Signal::SIGKILL)?;
        node.start()?;
    }
    lab.settle("web", 3)
}

pub(crate) fn a_torn_last_record_is_cut_off_and_nothing_lost(lab: &mut Lab) -> Result<()> {
    let node = lab.nodes[2].clone();
    let (_, before) = node.api("GET", "/shoal/status", b"")?;
    node.kill()?;
    let log = node.directory.join("data/state/log");
    let mut bytes = fs::read(&log).with_context(|| log.display().to_string())?;
    // The beginning of a record whose end never came.
    bytes.extend_from_slice(&[0x40, 0, 0, 0, 0xde, 0xad]);
    fs::write(&log, bytes)?;
    node.start()?;
    lab.settle("web", 3)?;
    let (_, after) = node.api("GET", "/shoal/status", b"")?;
    ensure!(before["node"]["id"] == after["node"]["id"] && before["shoal"] == after["shoal"], "{before}\n{after}");
    until("all agree", || {
        let said = lab.ok("node ls")?;
        ensure!(said.matches("Ready").count() == 3, "{said}");
        Ok(())
    })
}
