//! One node that is a whole shoal, in a network of its own, with a tiny image; all that it runs can be counted.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{PROGRAM, http, inside, shoal, signal, text, traces, until};

/// The node. Dropped, it is killed with all that it runs.
pub(crate) struct Lone {
    directory: tempfile::TempDir,
    namespace: String,
    id: String,
    daemon: Option<Child>,
}

/// What is there of a node's containers, by whom one can ask.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) bundles: usize,
    pub(crate) shims: usize,
    pub(crate) groups: usize,
    pub(crate) links: usize,
}

impl Lone {
    /// Starts a node and loads the image `tiny:1`, whose command waits for SIGTERM.
    pub(crate) fn start() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("shoal-lone-").tempdir()?;
        let namespace = format!("shoal-lone-{}", std::process::id());
        run("ip", &["netns", "add", &namespace])?;
        let mut lone = Self { directory, namespace, id: String::new(), daemon: None };
        run("ip", &["-n", &lone.namespace, "link", "set", "lo", "up"])?;
        lone.up()?;
        lone.id = lone.api("GET", "/shoal/status")?["node"]["id"].as_str().context("an id")?.to_owned();
        let archive = lone.path("tiny.tar");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/bench/tiny-image");
        run(script.to_str().context("a plain path")?, &[archive.to_str().context("a plain path")?, "tiny:1"])?;
        lone.ok(&format!("image load {}", archive.display()))?;
        Ok(lone)
    }

    /// A path in its directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts the daemon, and waits until it answers.
    pub(crate) fn up(&mut self) -> Result<()> {
        self.launch()?;
        until("the node answers", || self.api("GET", "/shoal/status").map(drop)).with_context(|| self.said())
    }

    /// Starts the daemon.
    pub(crate) fn launch(&mut self) -> Result<()> {
        let log = fs::File::options().create(true).append(true).open(self.path("log"))?;
        let mut command = Command::new(PROGRAM);
        command.arg("--socket").arg(self.path("sock")).args(["up", "--name", "lone", "--upstream", "127.0.0.1:9"]);
        command.args(["--listen", "127.0.0.1:7946", "--dns-listen", "127.0.0.1:0"]);
        command.arg("--data-dir").arg(self.path("data"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.daemon = Some(inside(&self.namespace, move || command.spawn())??);
        Ok(())
    }

    /// Kills the daemon, and it alone.
    pub(crate) fn kill(&mut self) -> Result<()> {
        let mut daemon = self.daemon.take().context("it runs")?;
        daemon.kill()?;
        daemon.wait()?;
        Ok(())
    }

    /// Tells the daemon to stop, and waits until it has.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let mut daemon = self.daemon.take().context("it runs")?;
        signal(i32::try_from(daemon.id())?, Signal::SIGTERM)?;
        let status = daemon.wait()?;
        ensure!(status.success(), "{status}: {}", self.said());
        Ok(())
    }

    /// Waits until the daemon has ended by itself, as it should.
    pub(crate) fn ended(&mut self) -> Result<()> {
        let status = self.daemon.take().context("it runs")?.wait()?;
        ensure!(status.success(), "{status}: {}", self.said());
        Ok(())
    }

    /// Runs a command against it, and returns what it printed.
    pub(crate) fn ok(&self, line: &str) -> Result<String> {
        let socket = self.path("sock");
        let socket = socket.to_str().context("a plain path")?;
        let arguments: Vec<&str> = ["--socket", socket].into_iter().chain(line.split_whitespace()).collect();
        let output = shoal(&arguments)?;
        ensure!(output.status.success(), "shoal {line}: {}", text(&output));
        Ok(text(&output))
    }

    /// Asks its API.
    pub(crate) fn api(&self, method: &str, path: &str) -> Result<Value> {
        let (status, answer) = http::call(&self.path("sock"), method, path, b"")?;
        ensure!(status < 300, "{method} {path}: {status} {answer}");
        Ok(answer)
    }

    /// Returns the ids of the tasks that it says run.
    pub(crate) fn running(&self) -> Result<BTreeSet<String>> {
        let tasks = self.api("GET", "/tasks")?;
        let runs = |task: &&Value| task["Status"]["State"] == "running";
        let tasks = tasks.as_array().context("a list of tasks")?.iter().filter(runs);
        Ok(tasks.filter_map(|task| task["ID"].as_str().map(str::to_owned)).collect())
    }

    /// Waits until exactly so many tasks run, and nothing is there of any other but what their slots' history keeps.
    pub(crate) fn settle(&self, replicas: usize) -> Result<BTreeSet<String>> {
        until(&format!("{replicas} tasks, each once"), || {
            let (running, counts) = (self.running()?, self.counts()?);
            let wanted = Counts { bundles: counts.bundles, shims: replicas, groups: replicas, links: replicas };
            ensure!(running.len() == replicas && counts == wanted, "{} run, {counts:?}", running.len());
            let bundles: BTreeSet<String> = names(&self.bundles()).collect();
            ensure!(running.is_subset(&bundles), "bundles {bundles:?}, tasks {running:?}");
            ensure!(replicas > 0 || bundles.is_empty(), "bundles {bundles:?}");
            Ok(running)
        })
        .with_context(|| self.said())
    }

    /// The directory that holds one bundle for each container.
    pub(crate) fn bundles(&self) -> PathBuf {
        self.path("data/containers/containers")
    }

    /// Counts what is there of its containers.
    pub(crate) fn counts(&self) -> Result<Counts> {
        let links = {
            let output =
                Command::new("ip").args(["-n", &self.namespace, "-o", "link", "show", "type", "veth"]).output()?;
            String::from_utf8_lossy(&output.stdout).lines().count()
        };
        let groups: BTreeSet<String> = self.groups().iter().flat_map(|group| directories(group)).collect();
        let bundles = names(&self.bundles()).count();
        Ok(Counts { bundles, shims: self.shims().len(), groups: groups.len(), links })
    }

    /// Returns its own group in each hierarchy, in which those of its tasks are.
    pub(crate) fn groups(&self) -> Vec<PathBuf> {
        let mut groups = traces::cgroups();
        groups.retain(|group| group.file_name().is_some_and(|name| *name == *self.id));
        groups
    }

    /// Removes its groups and those of its tasks, whose processes are about to be gone.
    pub(crate) fn remove_groups(&self) -> Result<()> {
        until("the groups can be removed", || {
            for group in self.groups() {
                for task in directories(&group) {
                    fs::remove_dir(group.join(&task)).with_context(|| task.clone())?;
                }
                fs::remove_dir(&group)?;
            }
            Ok(())
        })
    }

    /// Returns the processes of its shims.
    pub(crate) fn shims(&self) -> Vec<i32> {
        let bundles = self.bundles().display().to_string();
        let is_shim = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = line.split(|byte| *byte == 0);
            words.nth(1) == Some(b"shim") && words.next().is_some_and(|word| word.starts_with(bundles.as_bytes()))
        };
        traces::pids().into_iter().filter(is_shim).collect()
    }

    /// Returns what it said so far.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

impl Drop for Lone {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        for shim in self.shims() {
            let _ = signal(shim, Signal::SIGKILL);
        }
        let _ = self.remove_groups();
        let _ = run("ip", &["netns", "del", &self.namespace]);
    }
}

fn names(directory: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

fn directories(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let entries = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output().with_context(|| program.to_owned())?;
    ensure!(output.status.success(), "{program} {arguments:?}: {}", text(&output));
    Ok(())
}
