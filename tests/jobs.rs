//! Jobs, with real containers: tasks that end when they have done their work, each once.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::support::{Lab, docker, has_docker, skip, tools, until};

/// The image of tools.
const TOOLS: &str = "tools:1";

/// A directory that the containers of all nodes have at `/out`, with what they run in it, and the flag that mounts it.
fn directory(lab: &Lab, name: &str, script: &str) -> Result<(PathBuf, String)> {
    let directory = lab.nodes[0].directory.with_file_name(format!("jobs-{name}"));
    fs::create_dir_all(&directory)?;
    let archive = tools::archive(&directory, TOOLS, &json!({}))?;
    lab.ok(&format!("image load {}", archive.display()))?;
    fs::write(directory.join("run"), script)?;
    fs::write(directory.join("runs"), "")?;
    let mount = format!("--mount type=bind,source={},target=/out", directory.display());
    Ok((directory, mount))
}

/// Returns how many tasks have written their line.
fn runs(directory: &Path) -> Result<usize> {
    Ok(fs::read_to_string(directory.join("runs"))?.lines().count())
}

/// Returns what a node says of a job in a list: running, wanted at once, completed.
fn counts(lab: &Lab, node: usize, name: &str) -> Result<[u64; 3]> {
    let (_, services) = lab.nodes[node].api("GET", "/services?status=true", b"")?;
    let services = services.as_array().context("a list")?;
    let job = services.iter().find(|service| service["Spec"]["Name"] == name).context("the job")?;
    let count = |field: &str| job["ServiceStatus"][field].as_u64().context("a count");
    Ok([count("RunningTasks")?, count("DesiredTasks")?, count("CompletedTasks")?])
}

pub(crate) fn a_job_runs_each_of_its_tasks_once(lab: &mut Lab) -> Result<()> {
    let script = "test -e /out/tried || { echo > /out/tried; exit 3; }\nsleep 0.3\necho done >> /out/runs\n";
    let (out, mount) = directory(lab, "once", script)?;
    let create =
        "service create --name count --mode replicated-job --replicas 9 --max-concurrent 3 --restart-delay 100ms";
    // Returns when the job is done; one task fails at first, and is tried again.
    lab.ok(&format!("{create} {mount} {TOOLS} /bin/sh /out/run"))?;
    ensure!(runs(&out)? == 9, "{} tasks did their work", runs(&out)?);
    until("all nodes know that it is done", || {
        for node in 0..3 {
            let counts = counts(lab, node, "count")?;
            ensure!(counts == [0, 3, 9], "{counts:?}");
        }
        Ok(())
    })?;
    let listed = lab.ok("service ls")?;
    ensure!(listed.contains("replicated-job") && listed.contains("0/3 (9/9 completed)"), "{listed}");
    // Desired and present state of each.
    let shown = lab.ok("service ps count")?;
    ensure!(shown.matches("Complete").count() == 18, "{shown}");
    // Once more, and more of it; then nothing more.
    lab.ok("service update --force --replicas 4 count")?;
    ensure!(runs(&out)? == 13, "{} tasks did their work", runs(&out)?);
    let said = lab.fails("service update --restart-condition any count")?;
    ensure!(said.contains("on-failure"), "{said}");
    let said = lab.fails("service update --update-delay 1s count")?;
    ensure!(said.contains("begins anew"), "{said}");
    std::thread::sleep(Duration::from_secs(1));
    ensure!(runs(&out)? == 13, "{} tasks did their work", runs(&out)?);
    lab.ok(&format!("service create --name each --mode global-job {mount} {TOOLS} /bin/sh /out/run"))?;
    ensure!(runs(&out)? == 16, "{} tasks did their work", runs(&out)?);
    ensure!(lab.ok("service ls")?.contains("0/3 (3/3 completed)"), "{}", lab.ok("service ls")?);
    lab.ok("service rm count each").map(drop)
}

pub(crate) fn dockers_client_runs_jobs_and_waits_for_them(lab: &mut Lab) -> Result<()> {
    if !has_docker() {
        return skip("the docker client is not installed");
    }
    let (out, mount) = directory(lab, "docker", "echo done >> /out/runs\n")?;
    let create = format!(
        "service create --name batch --mode replicated-job --replicas 5 --max-concurrent 2 {mount} {TOOLS} /bin/sh /out/run"
    );
    let said = docker(&lab.nodes[1], &create.split(' ').collect::<Vec<_>>())?;
    ensure!(said.contains("job complete") && runs(&out)? == 5, "{said}");
    let listed = docker(&lab.nodes[2], &["service", "ls"])?;
    ensure!(listed.contains("(5/5 completed)"), "{listed}");
    let shown: Value = serde_json::from_str(&docker(&lab.nodes[0], &["service", "inspect", "batch"])?)?;
    ensure!(shown[0]["JobStatus"]["JobIteration"]["Index"].is_u64(), "{shown}");
    ensure!(shown[0]["Spec"]["TaskTemplate"]["RestartPolicy"]["Condition"] == "on-failure", "{shown}");
    let said = docker(&lab.nodes[0], &["service", "update", "--force", "batch"])?;
    ensure!(said.contains("job complete") && runs(&out)? == 10, "{said}");
    let create = format!("service create --name all --mode global-job {mount} {TOOLS} /bin/sh /out/run");
    let said = docker(&lab.nodes[2], &create.split(' ').collect::<Vec<_>>())?;
    ensure!(said.contains("job complete") && runs(&out)? == 13, "{said}");
    docker(&lab.nodes[0], &["service", "rm", "batch", "all"]).map(drop)
}

pub(crate) fn what_a_job_did_while_its_daemon_was_dead_counts(lab: &mut Lab) -> Result<()> {
    let (out, mount) = directory(lab, "dead", "echo begun > /out/begun\nsleep 2\necho done >> /out/runs\n")?;
    let create = "service create --detach --name slow --mode replicated-job --constraint node.hostname==node2";
    lab.ok(&format!("{create} {mount} {TOOLS} /bin/sh /out/run"))?;
    until("it works", || ensure_exists(&out.join("begun")))?;
    let node = lab.nodes[1].clone();
    node.kill()?;
    until("it has done its work", || {
        ensure!(runs(&out)? == 1);
        Ok(())
    })?;
    std::thread::sleep(Duration::from_millis(500));
    node.start()?;
    until("it counts as done", || {
        let counts = counts(lab, 0, "slow")?;
        ensure!(counts[2] == 1, "{counts:?}");
        Ok(())
    })?;
    ensure!(runs(&out)? == 1, "it was done {} times", runs(&out)?);
    lab.ok("service rm slow")?;
    lab.settle("web", 3)
}

fn ensure_exists(path: &Path) -> Result<()> {
    ensure!(path.exists(), "there is no {}", path.display());
    Ok(())
}
