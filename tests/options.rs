//! What services ask for their containers, with real containers: options by Docker's client, health checks, volumes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::support::{Lab, Node, dns, docker, has_docker, skip, text, tools, until};

/// The image of tools, without a command of its own.
const TOOLS: &str = "tools:1";
/// The same with a health check, which looks for a file.
const CHECKED: &str = "checked:1";

/// A directory that containers of all nodes can mount, with the images loaded on the first node.
fn directory(lab: &Lab, name: &str) -> Result<PathBuf> {
    let directory = lab.nodes[0].directory.with_file_name(format!("options-{name}"));
    fs::create_dir_all(&directory)?;
    std::os::unix::fs::chown(&directory, Some(0), Some(0))?;
    let check = json!({ "Test": ["CMD-SHELL", "test -e /out/ok"], "Interval": 300_000_000, "Retries": 2 });
    for (image, config) in [(TOOLS, json!({})), (CHECKED, json!({ "Healthcheck": check }))] {
        let archive = tools::archive(&directory, image, &config)?;
        lab.ok(&format!("image load {}", archive.display()))?;
    }
    Ok(directory)
}

/// Writes what a container is to run into the directory that it has at `/out`.
fn script(directory: &Path, text: &str) -> Result<()> {
    Ok(fs::write(directory.join("run"), text)?)
}

/// Returns all tasks of a service, the newest first, as a node sees them.
fn tasks(node: &Node, service: &str) -> Result<Vec<Value>> {
    let (_, tasks) = node.api("GET", &format!("/tasks?filters=%7B%22service%22%3A%5B%22{service}%22%5D%7D"), b"")?;
    Ok(tasks.as_array().context("a list of tasks")?.clone())
}

fn in_state<'a>(tasks: &'a [Value], state: &str) -> Vec<&'a Value> {
    tasks.iter().filter(|task| task["Status"]["State"] == state).collect()
}

/// Waits for a file that a container writes last, and returns it.
fn written(path: &Path) -> Result<String> {
    until(&format!("{} is written", path.display()), || Ok(fs::read_to_string(path)?))
}

pub(crate) fn what_dockers_client_asks_for_is_what_the_container_sees(lab: &mut Lab) -> Result<()> {
    if !has_docker() {
        return skip("the docker client is not installed");
    }
    let out = directory(lab, "seen")?;
    script(
        &out,
        "cat /proc/self/status > /out/status\n\
         ulimit -n > /out/soft; ulimit -Hn > /out/hard\n\
         cat /etc/hosts > /out/hosts; cat /etc/resolv.conf > /out/resolv; cat /proc/self/mounts > /out/mounts\n\
         cat /proc/sys/net/core/somaxconn > /out/sysctl; cat /proc/1/comm > /out/first; id -G > /out/groups\n\
         touch /x 2>/dev/null && echo writable > /out/root || echo read-only > /out/root\n\
         dd if=/dev/zero of=/t/big bs=1024 count=2048 2>/dev/null && echo all > /out/tmpfs || echo full > /out/tmpfs\n\
         touch /ro/x 2>/dev/null && echo writable > /out/bind || echo read-only > /out/bind\n\
         (while :; do echo 0123456789012345678901234567890123456789; done | dd bs=4096 count=1024 2>/dev/null)\n\
         echo > /out/done; exec sleep 600\n",
    )?;
    let bind = format!("type=bind,source={},target=/out", out.display());
    let only = format!("type=bind,source={},target=/ro,readonly", out.display());
    let create = [
        "service",
        "create",
        "--detach",
        "--name",
        "seen",
        "--constraint",
        "node.hostname==node1",
        "--mount",
        &bind,
        "--mount",
        &only,
        "--mount",
        "type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=0700",
        "--cap-drop",
        "CHOWN",
        "--cap-add",
        "SYS_TIME",
        "--ulimit",
        "nofile=77:99",
        "--sysctl",
        "net.core.somaxconn=77",
        "--host",
        "db:10.9.8.7",
        "--dns-search",
        "example.org",
        "--dns-option",
        "timeout:7",
        "--group",
        "logs",
        "--init",
        "--read-only",
        "--log-driver",
        "json-file",
        "--log-opt",
        "max-size=8k",
        "--log-opt",
        "max-file=2",
        TOOLS,
        "/bin/sh",
        "/out/run",
    ];
    docker(&lab.nodes[0], &create)?;
    written(&out.join("done"))?;
    let seen = |name: &str| fs::read_to_string(out.join(name)).with_context(|| name.to_owned());
    let status = seen("status")?;
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).context("a bounding set")?;
    let bounding = u64::from_str_radix(bounding.trim(), 16)?;
    ensure!(bounding & 1 == 0, "CAP_CHOWN is there: {bounding:x}");
    ensure!(bounding & (1 << 25) != 0, "CAP_SYS_TIME is not there: {bounding:x}");
    ensure!(status.contains("NoNewPrivs:\t1"), "{status}");
    ensure!((seen("soft")?.trim(), seen("hard")?.trim()) == ("77", "99"), "{} {}", seen("soft")?, seen("hard")?);
    ensure!(seen("hosts")?.contains("10.9.8.7\tdb"), "{}", seen("hosts")?);
    let resolv = seen("resolv")?;
    ensure!(resolv.contains("search shoal.internal example.org") && resolv.contains("options timeout:7"), "{resolv}");
    let mounts = seen("mounts")?;
    ensure!(mounts.lines().any(|line| line.contains(" /t tmpfs ") && line.contains("size=1024k")), "{mounts}");
    ensure!(seen("sysctl")?.trim() == "77", "{}", seen("sysctl")?);
    ensure!(seen("first")?.trim() != "sh", "the command is the first process in spite of --init");
    ensure!(seen("groups")?.split_whitespace().any(|group| group == "1300"), "{}", seen("groups")?);
    ensure!(seen("root")?.trim() == "read-only" && seen("bind")?.trim() == "read-only");
    ensure!(seen("tmpfs")?.trim() == "full", "two megabytes fitted into one");
    // What was kept of 4 MiB of output: two files of 8 kB, and what one write may add to each.
    let logged = log_bytes(&lab.nodes[0].directory.join("data/containers"), &lab.nodes[0].running("seen")?)?;
    ensure!((1..256 * 1024).contains(&logged), "{logged} bytes of output are kept");
    lab.ok("service rm seen").map(drop)
}

/// Returns how many bytes of output a node keeps of the first of these tasks.
fn log_bytes(containers: &Path, tasks: &[Value]) -> Result<u64> {
    let id = tasks.first().and_then(|task| task["ID"].as_str()).context("a task")?;
    let mut total = 0;
    for entry in fs::read_dir(containers.join("containers").join(id))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().contains("log") && entry.metadata()?.is_file() {
            total += entry.metadata()?.len();
        }
    }
    Ok(total)
}

pub(crate) fn a_task_counts_once_it_is_healthy_and_is_replaced_when_it_is_not(lab: &mut Lab) -> Result<()> {
    let out = directory(lab, "health")?;
    let bind = format!("type=bind,source={},target=/out", out.display());
    // Once by the service's own check, once by the image's.
    let own = "--health-cmd /out/check --health-interval 300ms --health-retries 2";
    script(&out, "exec sleep 600\n")?;
    fs::write(out.join("check"), "#!/bin/sh\ntest -e /out/ok\n")?;
    fs::set_permissions(out.join("check"), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    for (name, image, check) in [("checked", TOOLS, own), ("inherits", CHECKED, "")] {
        let _ = fs::remove_file(out.join("ok"));
        // It must not be found unhealthy before the test has seen it start.
        let patient = format!("--health-start-period 20s --restart-delay 100ms --mount {bind}");
        lab.ok(&format!("service create --detach --name {name} {check} {patient} {image} /bin/sh /out/run"))?;
        let node = &lab.nodes[1];
        until("it starts", || {
            let tasks = tasks(node, name)?;
            ensure!(in_state(&tasks, "starting").len() == 1, "{tasks:#?}");
            Ok(())
        })?;
        ensure!(dns::ask(node, name)?.addresses.is_empty(), "{name} has a name before it is healthy");
        fs::write(out.join("ok"), "")?;
        lab.settle(name, 1)?;
        let first = lab.nodes[0].running(name)?[0]["ID"].clone();
        until("it has a name", || {
            ensure!(dns::ask(node, name)?.addresses.len() == 1, "{name} has no name");
            Ok(())
        })?;
        fs::remove_file(out.join("ok"))?;
        until("it is found unhealthy and ended", || {
            let tasks = tasks(node, name)?;
            let failed = in_state(&tasks, "failed");
            let ended = failed.iter().find(|task| task["ID"] == first).context("it has not failed")?;
            ensure!(ended["Status"]["Err"] == "task: unhealthy container", "{ended:#?}");
            ensure!(tasks.iter().any(|task| task["ID"] != first), "nothing follows it");
            Ok(())
        })?;
        fs::write(out.join("ok"), "")?;
        lab.settle(name, 1)?;
        lab.ok(&format!("service rm {name}"))?;
    }
    // With the image's check switched off it runs, whatever the check would say.
    fs::remove_file(out.join("ok"))?;
    lab.ok(&format!("service create --detach --name off --no-healthcheck --mount {bind} {CHECKED} /bin/sh /out/run"))?;
    lab.settle("off", 1)?;
    lab.ok("service rm off").map(drop)
}

pub(crate) fn a_port_that_answers_is_healthy_and_one_that_does_not_is_not(lab: &mut Lab) -> Result<()> {
    lab.ok("service create --detach --name http --replicas 3 --health-http 80/any --health-interval 1s whoami:latest")?;
    lab.ok("service create --detach --name tcp --replicas 3 --health-tcp 80 --health-interval 1s whoami:latest")?;
    let never = "--health-tcp 81 --health-interval 200ms --health-retries 2 --restart-condition none";
    lab.ok(&format!("service create --detach --name never {never} whoami:latest"))?;
    lab.settle("http", 3)?;
    lab.settle("tcp", 3)?;
    until("the one without a port is given up", || {
        let tasks = tasks(&lab.nodes[2], "never")?;
        let failed = in_state(&tasks, "failed");
        ensure!(failed.len() == 1 && failed[0]["Status"]["Err"] == "task: unhealthy container", "{tasks:#?}");
        Ok(())
    })?;
    ensure!(lab.nodes[2].running("never")?.is_empty());
    ["http", "tcp", "never"].iter().try_for_each(|name| lab.ok(&format!("service rm {name}")).map(drop))
}

/// A restarted daemon must not take tasks out of the names that were healthy before.
pub(crate) fn a_healthy_task_still_counts_when_its_daemon_comes_back(lab: &mut Lab) -> Result<()> {
    let check = "--health-http 80/ --health-interval 1s --constraint node.hostname==node2";
    lab.ok(&format!("service create --detach --name kept {check} whoami:latest"))?;
    lab.settle("kept", 1)?;
    let before = lab.nodes[0].running("kept")?[0]["ID"].clone();
    // Any node tells how a task of another is.
    let path = format!("/containers/{}/json", before.as_str().context("an id")?);
    let health = lab.nodes[0].api("GET", &path, b"")?.1["State"]["Health"].clone();
    ensure!(health["Status"] == "healthy" && health["FailingStreak"] == 0, "{health}");
    let last = health["Log"].as_array().and_then(|log| log.last()).context("a try")?;
    ensure!(last["ExitCode"] == 0 && last["Output"].as_str().is_some_and(|said| said.contains("200")), "{last}");
    lab.nodes[1].kill()?;
    lab.nodes[1].start()?;
    lab.settle("kept", 1)?;
    let after = lab.nodes[0].running("kept")?[0]["ID"].clone();
    ensure!(before == after, "another task runs: {before} became {after}");
    lab.ok("service rm kept").map(drop)
}

pub(crate) fn the_end_of_a_task_is_told_truly(lab: &mut Lab) -> Result<()> {
    let out = directory(lab, "ends")?;
    let bind = format!("type=bind,source={},target=/out", out.display());
    for (name, script_text, limit, expected) in [
        ("code", "exit 7\n", "", "task: non-zero exit (7)"),
        ("signal", "kill -9 $$\n", "--init", "task: non-zero exit (137)"),
        ("memory", "exec dd if=/dev/zero of=/dev/null bs=128M count=1\n", "--limit-memory 16m", "OOM killed"),
    ] {
        script(&out, script_text)?;
        let create = format!("service create --detach --name {name} --restart-condition none {limit} --mount {bind}");
        lab.ok(&format!("{create} {TOOLS} /bin/sh /out/run"))?;
        until("its end is told", || {
            let tasks = tasks(&lab.nodes[1], name)?;
            let failed = in_state(&tasks, "failed");
            let error = failed.first().and_then(|task| task["Status"]["Err"].as_str()).unwrap_or_default();
            ensure!(error.contains(expected), "{name}: {error:?}, {tasks:#?}");
            Ok(())
        })?;
        lab.ok(&format!("service rm {name}"))?;
    }
    Ok(())
}

pub(crate) fn a_volume_keeps_its_data_and_its_tasks_wait_for_its_node(lab: &mut Lab) -> Result<()> {
    let out = directory(lab, "volumes")?;
    let bind = format!("type=bind,source={},target=/out", out.display());
    script(&out, "cat /data/seed /data/kept > /out/found 2>/dev/null; echo kept >> /data/kept; exec sleep 600\n")?;
    let volume = "type=volume,source=store,target=/data,volume-label=tier=one";
    let placed = "--constraint node.hostname!=node1 --replicas 1";
    lab.ok(&format!(
        "service create --detach --name store {placed} --mount {volume} --mount {bind} {TOOLS} /bin/sh /out/run"
    ))?;
    lab.settle("store", 1)?;
    ensure!(written(&out.join("found"))? == "from the image\n", "{}", written(&out.join("found"))?);
    let first = lab.nodes[0].running("store")?[0].clone();
    let holder = lab.nodes[1..].iter().find(|node| volumes(node).is_ok_and(|names| names == ["store"])).cloned();
    let holder = holder.context("no node has the volume")?;

    // A replacement finds what its predecessor left.
    lab.ok("service update --detach --force store")?;
    until("a replacement runs", || {
        let running = lab.nodes[0].running("store")?;
        ensure!(running.len() == 1 && running[0]["ID"] != first["ID"], "{running:#?}");
        ensure!(fs::read_to_string(out.join("found"))? == "from the image\nkept\n");
        Ok(())
    })?;
    // All further slots are where the volume is.
    lab.ok("service scale --detach store=3")?;
    lab.settle("store", 3)?;
    let nodes: Vec<Value> = lab.nodes[0].running("store")?.iter().map(|task| task["NodeID"].clone()).collect();
    ensure!(nodes.iter().all(|node| *node == nodes[0]), "{nodes:?}");
    lab.ok("service scale --detach store=1")?;
    lab.settle("store", 1)?;

    let said = text(&holder.command("volume rm store")?);
    ensure!(said.contains("in use"), "{said}");
    let said = lab.fails("volume rm --force store")?;
    ensure!(said.contains("in use") || said.contains("lives on node"), "{said}");

    lab.ok(&format!("node update --availability drain {}", holder.name))?;
    let waits = format!("waits for volume store on node {}, which is drained", holder.name);
    until("its task waits for the volume", || {
        let said = lab.ok("service ps --no-trunc store")?;
        ensure!(said.contains(&waits), "{said}");
        let why = lab.ok("why store.1")?;
        ensure!(why.contains(&waits), "{why}");
        ensure!(lab.nodes[0].running("store")?.is_empty(), "it runs elsewhere");
        Ok(())
    })?;
    lab.ok(&format!("node update --availability active {}", holder.name))?;
    lab.settle("store", 1)?;
    ensure!(fs::read_to_string(out.join("found"))?.starts_with("from the image\nkept\nkept\n"));

    lab.ok("service rm store")?;
    until("nothing runs", || {
        ensure!(tasks(&lab.nodes[0], "store").is_err() || lab.nodes[0].running("store")?.is_empty());
        Ok(())
    })?;
    let inspected = text(&holder.command("volume inspect store")?);
    ensure!(inspected.contains("\"tier\": \"one\"") && inspected.contains("_data"), "{inspected}");
    until("the volume goes", || {
        let output = holder.command("volume prune --all")?;
        ensure!(output.status.success() && volumes(&holder)?.is_empty(), "{}", text(&output));
        Ok(())
    })
}

fn volumes(node: &Node) -> Result<Vec<String>> {
    let output = node.command("volume ls --quiet")?;
    ensure!(output.status.success(), "{}", text(&output));
    Ok(text(&output).lines().map(str::to_owned).collect())
}

pub(crate) fn dockers_client_manages_the_volumes_of_the_node_it_asks(lab: &mut Lab) -> Result<()> {
    if !has_docker() {
        return skip("the docker client is not installed");
    }
    let (one, two) = (&lab.nodes[0], &lab.nodes[1]);
    docker(one, &["volume", "create", "--label", "a=b", "mine"])?;
    ensure!(docker(one, &["volume", "ls", "--quiet"])?.trim() == "mine");
    ensure!(docker(one, &["volume", "inspect", "mine"])?.contains("/volumes/mine/_data"));
    until("the other node knows of it", || {
        let output = two.command("volume create mine")?;
        let said = text(&output);
        ensure!(!output.status.success() && said.contains("lives on node"), "{said}");
        Ok(())
    })?;
    // A service that mounts it runs there, whichever node would be its first choice.
    lab.ok("service create --detach --name near --mount source=mine,target=/mine whoami:latest")?;
    lab.settle("near", 1)?;
    let (_, info) = one.api("GET", "/info", b"")?;
    ensure!(one.running("near")?[0]["NodeID"] == info["Swarm"]["NodeID"]);
    lab.ok("service rm near")?;
    until("it is not used any more", || docker(one, &["volume", "rm", "mine"]))?;
    ensure!(docker(one, &["volume", "ls", "--quiet"])?.trim().is_empty());
    docker(one, &["volume", "prune", "--force"]).map(drop)
}
