//! Stacks, with real containers: a Compose file as people have them, deployed by us and by Docker's client.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::support::{Lab, Node, docker, has_docker, skip, tools, until};

/// What nobody but the tasks that get it may ever see.
const PASSWORD: &str = "correct-horse-battery-staple-7261";
/// The image of tools.
const TOOLS: &str = "tools:1";

/// In the shape of Docker's voting app: a page, a worker, a cache, and a database that keeps its data and has a secret.
const COMPOSE: &str = r#"
x-idle: &idle
  image: tools:1
  command: ["/bin/sleep", "600"]
  stop_grace_period: 1s
services:
  vote:
    image: whoami:latest
    networks: [front, back]
    deploy: { replicas: "${VOTES:-2}", update_config: { parallelism: 1, order: start-first } }
    healthcheck: { test: ["TCP", "80"], interval: 1s }
  worker:
    <<: *idle
    networks: [back]
    configs: [{ source: settings, target: /etc/worker.conf, mode: 0440 }]
    deploy: { mode: global }
  redis:
    <<: *idle
    networks: { back: { aliases: [cache] } }
  db:
    <<: *idle
    volumes: ["db-data:/data"]
    networks: [back]
    secrets: [{ source: password, uid: "1234", mode: 0400 }]
    environment: { PASSWORD_FILE: /run/secrets/password }
networks: { front: {}, back: {} }
volumes: { db-data: {} }
secrets: { password: { file: ./password.txt } }
configs: { settings: { file: ./settings.conf } }
"#;

/// Writes the files of the stack, loads its image, and returns where they are.
fn files(lab: &Lab, name: &str) -> Result<PathBuf> {
    let directory = lab.nodes[0].directory.with_file_name(format!("stack-{name}"));
    fs::create_dir_all(&directory)?;
    fs::write(directory.join("compose.yml"), COMPOSE)?;
    fs::write(directory.join("password.txt"), PASSWORD)?;
    fs::write(directory.join("settings.conf"), "colour = blue\n")?;
    let archive = tools::archive(&directory, TOOLS, &json!({}))?;
    lab.ok(&format!("image load {}", archive.display()))?;
    Ok(directory)
}

/// Runs a command in a task of a service, whichever node it is on.
fn exec(lab: &Lab, service: &str, command: &str) -> Result<String> {
    let running = lab.nodes[0].running(service)?;
    ensure!(!running.is_empty(), "no task of {service} runs");
    let id = running[0]["ID"].as_str().unwrap_or_default().to_owned();
    lab.ok(&format!("exec {id} {command}"))
}

/// Waits until the stack of this name runs as the file says, with so many pages.
fn runs(lab: &Lab, stack: &str, votes: usize) -> Result<()> {
    for (service, replicas) in [("vote", votes), ("redis", 1), ("db", 1)] {
        lab.settle(&format!("{stack}_{service}"), replicas)?;
    }
    until("a worker runs on each node", || {
        let workers = lab.nodes[2].running(&format!("{stack}_worker"))?;
        ensure!(workers.len() == 3, "{} workers", workers.len());
        Ok(())
    })
}

/// Checks what the tasks of the stack find: each other, their secret, their config.
fn is_whole(lab: &Lab, stack: &str) -> Result<()> {
    for name in ["db", "cache", "redis", "vote", &format!("{stack}_db")] {
        let found = exec(lab, &format!("{stack}_worker"), &format!("getent ahostsv4 {name}"))?;
        ensure!(found.contains("10."), "worker asks for {name}: {found}");
    }
    let worker = lab.nodes[0].running(&format!("{stack}_worker"))?;
    let id = worker[0]["ID"].as_str().unwrap_or_default().to_owned();
    // The demo's own service is on the built-in network, which the stack is not on.
    let denied = lab.fails(&format!("exec {id} getent ahostsv4 web"))?;
    ensure!(!denied.contains("10."), "{denied}");
    let secret = exec(lab, &format!("{stack}_db"), "cat /run/secrets/password")?;
    ensure!(secret == PASSWORD, "{secret}");
    let mounts = exec(lab, &format!("{stack}_db"), "cat /proc/self/mounts")?;
    let line = mounts.lines().find(|line| line.contains(" /run/secrets/password ")).unwrap_or_default().to_owned();
    ensure!(line.contains(" tmpfs ro,") && line.contains("noexec"), "{mounts}");
    let config = exec(lab, &format!("{stack}_worker"), "cat /etc/worker.conf")?;
    ensure!(config == "colour = blue\n", "{config}");
    for node in &lab.nodes {
        ensure!(!holds(&node.directory, PASSWORD)?, "the secret is on the disk of {}", node.name);
    }
    Ok(())
}

/// Tells whether any file below a directory has these bytes. Images are left out: they are large, and came as they are.
fn holds(directory: &Path, text: &str) -> Result<bool> {
    for entry in fs::read_dir(directory)? {
        let (path, kind) = (entry.as_ref().map(fs::DirEntry::path), entry.as_ref().map(fs::DirEntry::file_type));
        let (Ok(path), Ok(Ok(kind))) = (path, kind) else { continue };
        // Files come and go while the node runs.
        let found = if kind.is_dir() {
            !path.ends_with("data/images") && holds(&path, text).unwrap_or(false)
        } else {
            kind.is_file()
                && fs::read(&path).is_ok_and(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes()))
        };
        if found {
            println!("found in {}", path.display());
            return Ok(true);
        }
    }
    Ok(false)
}

/// Checks that nothing of the stack is left in the shoal.
fn is_gone(node: &Node, stack: &str) -> Result<()> {
    for path in ["/services", "/networks", "/secrets", "/configs"] {
        let (_, found) = node.api("GET", path, b"")?;
        ensure!(!found.to_string().contains(&format!("{stack}_")), "{path}: {found}");
    }
    Ok(())
}

pub(crate) fn a_stack_is_deployed_changed_and_removed(lab: &mut Lab) -> Result<()> {
    let directory = files(lab, "shoal")?;
    let file = directory.join("compose.yml");
    let deploy = |options: &str| lab.ok(&format!("stack deploy {options} -c {} vote", file.display()));
    let planned = deploy("--dry-run")?;
    ensure!(planned.contains("vote_db") && planned.contains("vote_password"), "{planned}");
    ensure!(!planned.contains(PASSWORD), "the plan shows the secret");
    is_gone(&lab.nodes[0], "vote")?;
    deploy("--detach")?;
    runs(lab, "vote", 2)?;
    is_whole(lab, "vote")?;
    // It runs already, so there is nothing to wait for.
    deploy("--quiet")?;
    let again = deploy("--dry-run")?;
    ensure!(again.contains("0 to create, 0 to update, 8 to leave, 0 to remove"), "nothing differs: {again}");
    ensure!(lab.ok("stack ls")?.lines().any(|line| line.starts_with("vote")));
    ensure!(lab.ok("stack services vote")?.contains("vote_vote"));
    ensure!(lab.ok("stack ps vote")?.contains("vote_db.1"));
    // One service less, one page more.
    let less = fs::read_to_string(&file)?.replace("\"${VOTES:-2}\"", "3");
    let (before, cache) = less.split_once("  redis:").context("the cache")?;
    let (_, after) = cache.split_once("  db:").context("the database")?;
    fs::write(&file, format!("{before}  db:{after}"))?;
    deploy("--prune --detach")?;
    lab.settle("vote_vote", 3)?;
    until("the cache is gone", || {
        let (_, services) = lab.nodes[1].api("GET", "/services", b"")?;
        ensure!(!services.to_string().contains("vote_redis"), "it is there");
        Ok(())
    })?;
    lab.ok("stack rm vote")?;
    is_gone(&lab.nodes[0], "vote")?;
    until("nothing of it is anywhere", || lab.nodes.iter().try_for_each(|node| is_gone(node, "vote")))
}

pub(crate) fn dockers_client_deploys_a_stack_and_removes_it(lab: &mut Lab) -> Result<()> {
    if !has_docker() {
        return skip("the docker client is not installed");
    }
    let directory = files(lab, "docker")?;
    let file = directory.join("compose.yml").display().to_string().replace("/compose.yml", "/docker.yml");
    // Docker's client knows neither our health checks nor the defaults of merge keys in `deploy`.
    let text = COMPOSE
        .replace("    healthcheck: { test: [\"TCP\", \"80\"], interval: 1s }\n", "")
        .replace("\"${VOTES:-2}\"", "2");
    fs::write(&file, format!("version: \"3.9\"\n{text}"))?;
    let deploy = ["stack", "deploy", "--detach=true", "-c", &file, "poll"];
    docker(&lab.nodes[1], &deploy)?;
    runs(lab, "poll", 2)?;
    is_whole(lab, "poll")?;
    let listed = docker(&lab.nodes[2], &["stack", "ls"])?;
    ensure!(listed.lines().any(|line| line.starts_with("poll") && line.contains('4')), "{listed}");
    let services = docker(&lab.nodes[2], &["stack", "services", "poll"])?;
    ensure!(services.contains("poll_vote") && services.contains("2/2"), "{services}");
    ensure!(docker(&lab.nodes[0], &["stack", "ps", "poll"])?.contains("poll_db.1"));
    fs::write(&file, fs::read_to_string(&file)?.replace("replicas: 2", "replicas: 3"))?;
    docker(&lab.nodes[0], &deploy)?;
    runs(lab, "poll", 3)?;
    docker(&lab.nodes[0], &["stack", "rm", "poll"])?;
    is_gone(&lab.nodes[0], "poll")?;
    // Its name is free at once.
    docker(&lab.nodes[0], &deploy)?;
    runs(lab, "poll", 3)?;
    is_whole(lab, "poll")?;
    docker(&lab.nodes[0], &["stack", "rm", "poll"])?;
    until("nothing of it is anywhere", || lab.nodes.iter().try_for_each(|node| is_gone(node, "poll")))
}
