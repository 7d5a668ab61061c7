//! The lab of the namespace tests: a kept demo, its nodes, and the ways to talk to them.

pub(crate) mod dns;
pub(crate) mod http;
pub(crate) mod lone;
pub(crate) mod tools;
pub(crate) mod traces;

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;

/// How long anything may take: generous, because a busy machine is no failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// Where the demo notes its directory.
pub(crate) const RECORD: &str = "/run/shoal-demo";

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_shoal");

/// Runs the program to its end.
pub(crate) fn shoal(arguments: &[&str]) -> Result<Output> {
    Ok(Command::new(PROGRAM).args(arguments).stdin(Stdio::null()).output()?)
}

/// Returns what a process printed, on both streams.
pub(crate) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs Docker's client against a node.
pub(crate) fn docker(node: &Node, arguments: &[&str]) -> Result<String> {
    let socket = format!("unix://{}", node.socket().display());
    let output = Command::new("docker").args(["-H", &socket]).args(arguments).output()?;
    ensure!(output.status.success(), "docker {arguments:?}: {}", text(&output));
    Ok(text(&output))
}

/// Tells whether Docker's client is installed.
pub(crate) fn has_docker() -> bool {
    Command::new("docker").arg("--version").output().is_ok()
}

/// Waits until `look` succeeds, and returns what it found.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() > deadline => return Err(error.context(format!("waited in vain: {what}"))),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Runs `work` on a thread in the network namespace of this name.
pub(crate) fn inside<T: Send + 'static>(namespace: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let file = fs::File::open(Path::new("/run/netns").join(namespace)).context(namespace.to_owned())?;
    let thread = thread::spawn(move || -> Result<T> {
        setns(file.as_fd(), CloneFlags::CLONE_NEWNET)?;
        Ok(work())
    });
    thread.join().map_err(|_| anyhow::anyhow!("the work inside {namespace} panicked"))?
}

/// Says why a test cannot run here; with `CI` set that is a failure.
pub(crate) fn skip(why: &str) -> Result<()> {
    ensure!(std::env::var_os("CI").is_none(), "skipped, which CI must not: {why}");
    println!("     (skipped: {why})");
    Ok(())
}

/// Sends a signal to one process.
pub(crate) fn signal(pid: i32, signal: nix::sys::signal::Signal) -> Result<()> {
    Ok(nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal)?)
}

/// A node of the lab.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) address: String,
    pub(crate) directory: PathBuf,
}

/// A kept demo; removed when dropped.
pub(crate) struct Lab {
    pub(crate) nodes: Vec<Node>,
    extra: Vec<Child>,
}

impl Lab {
    /// Runs `shoal demo --keep`.
    pub(crate) fn start() -> Result<Self> {
        let output = shoal(&["demo", "--keep"])?;
        ensure!(output.status.success(), "{}", text(&output));
        let directory = PathBuf::from(fs::read_to_string(Path::new(RECORD).join("directory"))?);
        let node = |number: u8| Node {
            name: format!("node{number}"),
            namespace: format!("shoal-demo-{number}"),
            address: format!("198.51.100.{number}"),
            directory: directory.join(format!("node{number}")),
        };
        Ok(Self { nodes: (1..=3).map(node).collect(), extra: Vec::new() })
    }

    /// Runs a command against the first node, and returns what it printed if it succeeded.
    pub(crate) fn ok(&self, line: &str) -> Result<String> {
        let output = self.nodes[0].command(line)?;
        ensure!(output.status.success(), "shoal {line}: {}", text(&output));
        Ok(text(&output))
    }

    /// Runs a command against the first node that must fail, and returns what it said.
    pub(crate) fn fails(&self, line: &str) -> Result<String> {
        let output = self.nodes[0].command(line)?;
        ensure!(!output.status.success(), "shoal {line} succeeded: {}", text(&output));
        let said = text(&output);
        ensure!(!said.contains("panicked"), "shoal {line} panicked: {said}");
        Ok(said)
    }

    /// Waits until every node sees the service with exactly these slots running, once each.
    pub(crate) fn settle(&self, service: &str, replicas: usize) -> Result<()> {
        until(&format!("{replicas} of {service} on every node"), || {
            for node in &self.nodes {
                let running = node.running(service)?;
                let mut slots: Vec<i64> = running.iter().filter_map(|task| task["Slot"].as_i64()).collect();
                slots.sort_unstable();
                ensure!(slots == (1..=replicas as i64).collect::<Vec<_>>(), "{} sees {slots:?}", node.name);
            }
            Ok(())
        })
    }

    /// Starts `shoal up` in a node's network with these arguments, and a directory of its own.
    pub(crate) fn up(&mut self, node: usize, name: &str, arguments: &[&str]) -> Result<Stranger> {
        self.up_with(node, name, arguments, &[])
    }

    /// The same, with these variables in its environment.
    pub(crate) fn up_with(
        &mut self,
        node: usize,
        name: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Stranger> {
        let directory = self.nodes[0].directory.with_file_name(name);
        fs::create_dir_all(&directory)?;
        let (log, socket) = (directory.join("log"), directory.join("shoal.sock"));
        let mut command = Command::new(PROGRAM);
        command.arg("--socket").arg(&socket).args(["up", "--name", name, "--interface", "stranger0"]);
        command.args(["--dns-listen", "127.0.0.1:0"]).arg("--data-dir").arg(directory.join("data")).args(arguments);
        command.envs(environment.iter().copied());
        let file = fs::File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = inside(&self.nodes[node].namespace, move || command.spawn())??;
        let pid = i32::try_from(child.id())?;
        self.extra.push(child);
        Ok(Stranger { pid, log, socket, index: self.extra.len() - 1 })
    }

    /// Tells whether such a node has ended, and how.
    pub(crate) fn ended(&mut self, stranger: &Stranger) -> Result<Option<bool>> {
        Ok(self.extra[stranger.index].try_wait()?.map(|status| status.success()))
    }

    /// Tells such a node to stop, unless it has, and waits until it has.
    pub(crate) fn stop(&mut self, stranger: &Stranger) -> Result<()> {
        if self.ended(stranger)?.is_none() {
            signal(stranger.pid, nix::sys::signal::Signal::SIGTERM)?;
        }
        until("it stops", || self.ended(stranger)?.context("it still runs").map(drop))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for child in &mut self.extra {
            let _ = child.kill();
            let _ = child.wait();
        }
        // A failure of this is seen by the last test, which looks for traces.
        let _ = shoal(&["demo", "--clean"]);
    }
}

/// A node beside the lab's own.
pub(crate) struct Stranger {
    pub(crate) pid: i32,
    pub(crate) log: PathBuf,
    pub(crate) socket: PathBuf,
    index: usize,
}

impl Stranger {
    /// Returns what it said so far.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Node {
    /// The socket of its API.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.join("shoal.sock")
    }

    /// Runs a command against it.
    pub(crate) fn command(&self, line: &str) -> Result<Output> {
        let socket = self.socket();
        let arguments: Vec<&str> =
            ["--socket", socket.to_str().context("a plain path")?].into_iter().chain(line.split_whitespace()).collect();
        shoal(&arguments)
    }

    /// Asks its API.
    pub(crate) fn api(&self, method: &str, path: &str, body: &[u8]) -> Result<(u16, Value)> {
        http::call(&self.socket(), method, path, body)
    }

    /// Returns the tasks of a service that are wanted and run, as it sees them.
    pub(crate) fn running(&self, service: &str) -> Result<Vec<Value>> {
        let (_, services) = self.api("GET", "/services", b"")?;
        let services = services.as_array().context("a list of services")?;
        let id = services.iter().find(|found| found["Spec"]["Name"] == service).map(|found| found["ID"].clone());
        let (_, tasks) = self.api("GET", "/tasks", b"")?;
        let tasks = tasks.as_array().context("a list of tasks")?.clone();
        let runs = |task: &Value| {
            Some(&task["ServiceID"]) == id.as_ref()
                && task["DesiredState"] == "running"
                && task["Status"]["State"] == "running"
        };
        Ok(tasks.into_iter().filter(runs).collect())
    }

    /// Returns the node's process: the one in its network that runs `up` with its directory.
    pub(crate) fn pid(&self) -> Result<i32> {
        let data = self.directory.join("data").display().to_string();
        let is_node = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
            words.iter().any(|word| word == "up") && words.iter().any(|word| **word == *data)
        };
        // The newest: one that was just killed may still be there.
        traces::pids().into_iter().filter(is_node).max().with_context(|| format!("{} has no process", self.name))
    }

    /// Kills its process alone.
    pub(crate) fn kill(&self) -> Result<()> {
        let pid = self.pid()?;
        signal(pid, nix::sys::signal::Signal::SIGKILL)?;
        until("the process is gone", || {
            // Its sockets and locks are free once it is a zombie, not when its command line is gone.
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            ensure!(stat.is_empty() || stat.contains(") Z "), "{stat}");
            Ok(())
        })
    }

    /// Starts it again, as it was, and waits until it answers. Its process ends with the lab.
    pub(crate) fn start(&self) -> Result<()> {
        let log = fs::File::options().append(true).open(self.directory.join("log"))?;
        let mut command = Command::new(PROGRAM);
        command.arg("--socket").arg(self.socket()).args(["up", "--name", &self.name]);
        command
            .args(["--listen", &format!("{}:7946", self.address)])
            .arg("--data-dir")
            .arg(self.directory.join("data"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut child = inside(&self.namespace, move || command.spawn())??;
        thread::spawn(move || child.wait());
        until("it answers", || self.api("GET", "/shoal/status", b"").map(drop))
    }
}
