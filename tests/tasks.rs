//! What runs, seen and reached from any node: logs, commands, counters, events, with the real client of Docker.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use shoal_runtime::image::{BuildConfig, build_from_executable};

use crate::support::{Lab, Node, PROGRAM, skip, text, until};

/// What the tasks run: a line five times a second, one in four on standard error.
const TALK: &str = "trap 'exit 0' TERM; exec 9<> <(:); n=0; while :; do \
    if [ $((n % 4)) = 3 ]; then echo \"slot $SHOAL_SLOT says $n\" >&2; else echo \"slot $SHOAL_SLOT says $n\"; fi; \
    n=$((n + 1)); read -t 0.2 -u 9; done";
/// How long a stream may take to bring what is awaited.
const PATIENCE: Duration = Duration::from_secs(30);

/// The service `talk` with a task on each node, as long as this lives.
struct Talk<'a> {
    lab: &'a Lab,
}

impl<'a> Talk<'a> {
    fn start(lab: &'a Lab) -> Result<Self> {
        let archive = lab.nodes[0].directory.join("shell.tar");
        let config = BuildConfig { entrypoint: vec!["/bin/sh".to_owned(), "-c".to_owned()], ..BuildConfig::default() };
        build_from_executable(
            Path::new("/bin/bash"),
            "/bin/sh",
            "shell:latest",
            &config,
            &mut File::create(&archive)?,
        )?;
        lab.ok(&format!("image load {}", archive.display()))?;
        let talk = Self { lab };
        let create =
            "service create --detach --name talk --replicas 3 --replicas-max-per-node 1 shell:latest".split(' ');
        let output = command(&lab.nodes[0], &create.chain([TALK]).collect::<Vec<_>>()).output()?;
        ensure!(output.status.success(), "{}", text(&output));
        lab.settle("talk", 3)?;
        Ok(talk)
    }

    /// Returns the id of its task on a node.
    fn task_on(&self, node: &Node) -> Result<String> {
        let (_, nodes) = self.lab.nodes[0].api("GET", "/nodes", b"")?;
        let of_name = |found: &&Value| found["Description"]["Hostname"] == node.name;
        let id = nodes.as_array().context("a list")?.iter().find(of_name).context("the node")?["ID"].clone();
        let tasks = self.lab.nodes[0].running("talk")?;
        let task = tasks.iter().find(|task| task["NodeID"] == id).context("a task on the node")?;
        Ok(task["ID"].as_str().context("an id")?.to_owned())
    }
}

impl Drop for Talk<'_> {
    fn drop(&mut self) {
        // Whoever looks for services afterwards sees whether it is gone.
        let _ = self.lab.ok("service rm talk");
    }
}

fn command(node: &Node, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("--socket").arg(node.socket()).args(arguments).stdin(Stdio::null());
    command
}

fn docker(node: &Node, arguments: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command.arg("-H").arg(format!("unix://{}", node.socket().display())).args(arguments).stdin(Stdio::null());
    command.env_remove("DOCKER_HOST").env_remove("DOCKER_CONTEXT");
    command
}

fn has_docker() -> bool {
    Command::new("docker").arg("--version").output().is_ok()
}

/// Returns what a command prints, which must succeed.
fn printed(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    ensure!(output.status.success(), "{command:?}: {}", text(&output));
    Ok(text(&output))
}

/// Runs a command with this input, to its end.
fn with_input(command: &mut Command, input: &str) -> Result<Output> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("piped")?.write_all(input.as_bytes())?;
    Ok(child.wait_with_output()?)
}

/// A command that prints until it is killed.
struct Followed {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Followed {
    fn start(command: &mut Command) -> Result<Self> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let reader = BufReader::new(child.stdout.take().context("piped")?);
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || reader.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Ok(Self { child, lines })
    }

    /// Waits until a line fits, and returns it.
    fn until(&self, what: &str, fits: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).with_context(|| format!("waited for {what}: {seen:#?}"))?;
            if fits(&line) {
                return Ok(line);
            }
            seen.push(line);
        }
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn logs_of_three_nodes_are_merged_and_followed(lab: &mut Lab) -> Result<()> {
    let talk = Talk::start(lab)?;
    let node = &lab.nodes[1];
    let says = |text: &str, slot: usize| text.contains(&format!("slot {slot} says "));
    let followed =
        Followed::start(&mut command(node, &["service", "logs", "--follow", "--timestamps", "--raw", "talk"]))?;
    for slot in 1..=3 {
        followed.until("each slot", |line| says(line, slot))?;
    }
    drop(followed);
    let all = until("enough is said", || {
        let all = printed(&mut command(node, &["service", "logs", "--timestamps", "--raw", "talk"]))?;
        ensure!(all.lines().count() >= 30, "{all}");
        Ok(all)
    })?;
    let out: Vec<&str> = all.lines().filter(|line| line.starts_with("20")).collect();
    ensure!((1..=3).all(|slot| says(&all, slot)), "{all}");
    // Standard output and error come through two pipes; each is in order.
    for errors in [false, true] {
        let is_error =
            |line: &&&str| line.rsplit(' ').next().and_then(|n| n.parse::<u64>().ok()).is_some_and(|n| n % 4 == 3);
        let times: Vec<&str> =
            out.iter().filter(|line| is_error(line) == errors).filter_map(|line| line.split(' ').next()).collect();
        ensure!(times.len() >= 3 && times.is_sorted(), "{times:#?}");
    }
    let last = printed(&mut command(node, &["service", "logs", "--tail", "1", "talk"]))?;
    // Each task may say one more while it is read.
    ensure!(
        (3..=6).contains(&last.lines().count()) && last.contains("@node1    | ") && last.contains("talk.2."),
        "{last}"
    );
    let task = talk.task_on(&lab.nodes[2])?;
    let one = printed(&mut command(node, &["logs", "--tail", "2", &task]))?;
    ensure!((2..=3).contains(&one.lines().count()), "{one}");
    if !has_docker() {
        return skip("the docker client is not installed");
    }
    let followed = Followed::start(&mut docker(node, &["service", "logs", "--follow", "--tail", "1", "talk"]))?;
    for name in ["@node1 ", "@node2 ", "@node3 "] {
        followed.until("each node", |line| line.contains(name) && line.contains(" says "))?;
    }
    let one = printed(&mut docker(node, &["logs", "--timestamps", "--tail", "3", &task]))?;
    ensure!((3..=4).contains(&one.lines().count()) && one.lines().all(|line| line.starts_with("20")), "{one}");
    let none = printed(&mut docker(node, &["logs", "--since", "2099-01-01T00:00:00Z", &task]))?;
    ensure!(none.is_empty(), "{none}");
    Ok(())
}

/// The daemon of the third node dies and comes back, its task runs on: who follows is told, and misses nothing.
pub(crate) fn a_killed_daemon_is_said_and_its_logs_come_again(lab: &mut Lab) -> Result<()> {
    let _talk = Talk::start(lab)?;
    let followed =
        Followed::start(&mut command(&lab.nodes[1], &["service", "logs", "--follow", "--tail", "1", "talk"]))?;
    followed.until("each node", |line| line.contains("@node3 ") && line.contains(" says "))?;
    lab.nodes[2].kill()?;
    let note = |line: &str| line.contains("the logs on node3 are missing");
    let all = until("the loss is said", || {
        let said = printed(&mut command(&lab.nodes[1], &["service", "logs", "--tail", "1", "talk"]))?;
        ensure!(note(&said), "{said}");
        Ok(said)
    })?;
    ensure!(all.contains("@node1") && all.contains("@node2"), "the others go on: {all}");
    lab.nodes[2].start()?;
    followed.until("node3 again", |line| line.contains("@node3 ") && line.contains(" says "))?;
    lab.settle("talk", 3)
}

pub(crate) fn commands_run_in_tasks_of_other_nodes(lab: &mut Lab) -> Result<()> {
    let talk = Talk::start(lab)?;
    let (asked, task) = (&lab.nodes[0], talk.task_on(&lab.nodes[2])?);
    let script = "read line; echo \"got $line\"; echo oops >&2; echo $A $SHOAL_NODE; exit 5";
    let arguments = ["exec", "-i", "-e", "A=b", "-w", "/tmp", &task, "/bin/sh", "-c", script];
    let mut clients = vec![command(asked, &arguments)];
    if has_docker() {
        clients.push(docker(asked, &arguments));
    }
    for client in &mut clients {
        let output = with_input(client, "hello\n")?;
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.code() == Some(5), "{client:?}: {}: {}", output.status, text(&output));
        ensure!(out == "got hello\nb node3\n", "{client:?}: {out:?}");
        ensure!(output.stderr == b"oops\n", "{client:?}: {}", text(&output));
    }
    // A megabyte each way, which is more than all buffers hold.
    let echo = ["exec", "-i", &task, "/bin/sh", "-c", "while read -r line; do echo \"$line\"; done"];
    let long = format!("{}\n", "x".repeat(1023)).repeat(1024);
    let child = command(asked, &echo).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let output = feed(child, long.clone())?;
    ensure!(output.stdout == long.as_bytes(), "{} bytes came back, {}", output.stdout.len(), output.status);
    for (line, code) in [("/no/such/command", 127), ("/tmp", 126)] {
        let output = command(asked, &["exec", &task, line]).output()?;
        ensure!(output.status.code() == Some(code), "{line}: {}: {}", output.status, text(&output));
    }
    let refused = text(&command(asked, &["exec", "nobody", "/bin/sh"]).output()?);
    ensure!(refused.contains("No such container: nobody"), "{refused}");
    a_terminal_has_size_and_exit_status(asked, &task)
}

/// Feeds a child from a thread of its own, as a pipe does.
pub(crate) fn dockers_client_attaches_to_tasks_of_other_nodes(lab: &mut Lab) -> Result<()> {
    if !has_docker() {
        return skip("the docker client is not installed");
    }
    let talk = Talk::start(lab)?;
    let asked = &lab.nodes[0];
    let task = talk.task_on(&lab.nodes[1])?;
    let attached = Followed::start(&mut docker(asked, &["attach", "--no-stdin", &task]))?;
    let first = attached.until("a line", |line| line.contains("says"))?;
    attached.until("another one", |line| line.contains("says") && line != first)?;
    drop(attached);
    let spec = json!({
        "Name": "answer",
        "TaskTemplate": {
            "ContainerSpec": { "Image": "shell:latest", "Args": ["read line; echo \"heard $line\"; exit 5"], "OpenStdin": true },
            "RestartPolicy": { "Condition": "none" },
            "Placement": { "Constraints": ["node.hostname==node2"] },
        },
        "Mode": { "Replicated": { "Replicas": 1 } },
    });
    let (status, said) = asked.api("POST", "/services/create", spec.to_string().as_bytes())?;
    ensure!(status == 201, "{said}");
    let task = until("it waits for a line", || {
        let running = asked.running("answer")?;
        running.first().and_then(|task| task["ID"].as_str().map(str::to_owned)).context("it does not run")
    })?;
    let output = with_input(&mut docker(asked, &["attach", &task]), "hello\n")?;
    let said = text(&output);
    lab.ok("service rm answer")?;
    ensure!(said.contains("heard hello") && output.status.code() == Some(5), "{}: {said}", output.status);
    ensure!(talk.task_on(&lab.nodes[1]).is_ok(), "who was attached to has ended");
    Ok(())
}

fn feed(mut child: Child, input: String) -> Result<Output> {
    let mut stdin = child.stdin.take().context("piped")?;
    let writing = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output()?;
    let _ = writing.join();
    Ok(output)
}

fn a_terminal_has_size_and_exit_status(asked: &Node, task: &str) -> Result<()> {
    // `script` makes a terminal; its size changes while the command waits for that.
    let inside = "shopt -s checkwinsize; test -t 0 && echo terminal; (:); echo first ${LINES}x$COLUMNS; exec 9<> <(:); \
                  for size in 33x77 40x90; do while (:); [ ${LINES}x$COLUMNS != $size ]; do read -t 0.1 -u 9; done; \
                  echo size $size; done; exit 9";
    let mut clients = vec![format!("{PROGRAM} --socket {}", asked.socket().display())];
    if has_docker() {
        clients.push(format!("docker -H unix://{}", asked.socket().display()));
    }
    for client in clients {
        let line = format!(
            "stty rows 33 cols 77; (sleep 2; stty rows 40 cols 90 </dev/tty) & {client} exec -it {task} /bin/sh -c '{inside}'"
        );
        let mut script = Command::new("script");
        let output = script.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output()?;
        let said = text(&output);
        ensure!(output.status.code() == Some(9), "{client}: {}: {said}", output.status);
        ensure!(
            ["terminal", "first 33x77", "size 33x77", "size 40x90"].iter().all(|part| said.contains(part)),
            "{client}: {said}"
        );
    }
    Ok(())
}

pub(crate) fn containers_are_shown_measured_and_ended(lab: &mut Lab) -> Result<()> {
    let begun = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs().to_string();
    let talk = Talk::start(lab)?;
    let task = talk.task_on(&lab.nodes[2])?;
    let (near, far) = (&lab.nodes[2], &lab.nodes[0]);
    let stats = printed(&mut command(far, &["stats", "--all"]))?;
    ensure!(["talk.1", "talk.2", "talk.3", "web.1"].iter().all(|name| stats.contains(name)), "{stats}");
    let row = stats.lines().find(|line| line.starts_with("talk.1")).context("a row")?;
    let memory = row.split_whitespace().nth(3);
    ensure!(row.contains('%') && memory.is_some_and(|memory| memory != "0B"), "{row}");
    if !has_docker() {
        return skip("the docker client is not installed");
    }
    let listed = printed(&mut docker(near, &["ps", "--filter", "label=com.docker.swarm.service.name=talk"]))?;
    ensure!(listed.lines().count() == 2 && listed.contains(&task[..12]) && listed.contains("Up "), "{listed}");
    let format = "{{.State.Status}} {{.Path}} {{index .Config.Labels \"com.docker.swarm.task.id\"}}";
    for node in [near, far] {
        let shown = printed(&mut docker(node, &["inspect", "--type", "container", "--format", format, &task]))?;
        ensure!(shown == format!("running /bin/sh {task}\n"), "{shown}");
        let top = printed(&mut docker(node, &["top", &task]))?;
        ensure!(top.contains("CMD") && top.contains("/bin/sh -c"), "{top}");
        let used = printed(&mut docker(node, &["stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", &task]))?;
        ensure!(used.contains("iB / ") && !used.starts_with("0B"), "{used}");
    }
    let events = Followed::start(&mut docker(near, &["events", "--filter", "type=container"]))?;
    // Events of the past have no beginning of their own to wait for.
    std::thread::sleep(Duration::from_millis(500));
    let waiting = Followed::start(&mut docker(far, &["wait", &task]))?;
    std::thread::sleep(Duration::from_millis(300));
    printed(&mut docker(far, &["kill", "--signal", "KILL", &task]))?;
    ensure!(waiting.until("the end", |_| true)? == "137", "the exit status of SIGKILL");
    let died = events.until("the end", |line| line.contains("container die") && line.contains(&task))?;
    ensure!(died.contains("exitCode=137") && died.contains("com.docker.swarm.service.name=talk"), "{died}");
    events.until("its successor", |line| line.contains("container start"))?;
    lab.settle("talk", 3)?;
    let successor = talk.task_on(near)?;
    ensure!(successor != task, "a task that ended is another task");
    printed(&mut docker(far, &["stop", &successor]))?;
    let gone = docker(far, &["exec", &successor, "/bin/sh"]).output()?;
    ensure!(text(&gone).contains("is not running"), "{}", text(&gone));
    let shown =
        printed(&mut docker(far, &["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", &successor]))?;
    ensure!(shown == "exited 0\n", "{shown}");
    let past = printed(&mut command(near, &["events", "--until", "0s", "--since", &rfc3339(&begun)?]))?;
    for part in ["service create ", "container die ", "name=talk"] {
        ensure!(past.contains(part), "{part}: {past}");
    }
    lab.settle("talk", 3)
}

/// Returns seconds since 1970 as a time that the command line takes.
fn rfc3339(seconds: &str) -> Result<String> {
    let output = Command::new("date").args(["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%dT%H:%M:%SZ"]).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
