//! `runc` or `crun` as the driver, by the command line that both have (github.com/opencontainers/runc, man/).
//!
//! Its processes become children of the shim, which is a subreaper: the program itself leaves when they are made.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::Pid;

use super::super::protocol::Failure;
use super::super::{ContainerSpec, FailureKind, bundle};
use super::{ExecOrder, Streams};

const PID_FILE: &str = "pid";
const ERROR_LOG: &str = "runtime.log";

/// Most of the program's own words in an error message, in bytes.
const WORDS_BYTES_MAX: usize = 600;

/// A container between `create` and `start`.
pub(super) struct Waiting {
    runtime: PathBuf,
    id: String,
}

pub(super) fn create(runtime: &Path, spec: &ContainerSpec, streams: &Streams) -> Result<(Pid, Waiting), Failure> {
    let mut command = base(runtime);
    command.args(["create", "--bundle", ".", "--pid-file", PID_FILE]);
    let pid = run(runtime, command, streams, &spec.id)?;
    Ok((pid, Waiting { runtime: runtime.to_path_buf(), id: spec.id.clone() }))
}

pub(super) fn exec(runtime: &Path, order: &ExecOrder<'_>) -> Result<Pid, Failure> {
    let mut command = base(runtime);
    command.args(["exec", "--detach", "--pid-file", PID_FILE, "--process"]).arg(&order.process);
    run(runtime, command, &order.streams, &order.spec.id)
}

impl Waiting {
    pub(super) fn start(&mut self) -> Result<(), Failure> {
        let mut command = base(&self.runtime);
        command.arg("start").arg(&self.id).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        finish(&self.runtime, command)
    }
}

fn base(runtime: &Path) -> Command {
    let _ = fs::remove_file(ERROR_LOG);
    let mut command = Command::new(runtime);
    command.args(["--root", bundle::LIBCONTAINER, "--log", ERROR_LOG, "--log-format", "json"]);
    command
}

fn run(runtime: &Path, mut command: Command, streams: &Streams, id: &str) -> Result<Pid, Failure> {
    let failed = Failure::doing(FailureKind::Host, "open the streams of the container");
    let _ = fs::remove_file(PID_FILE);
    match streams.cloned_pipes().map_err(failed)? {
        Some([stdin, stdout, stderr]) => command.stdin(stdin).stdout(stdout).stderr(stderr),
        None => {
            // By its name in the bundle: the whole path may be longer than a socket's address can hold.
            let socket = streams.console().unwrap_or_default();
            command.arg("--console-socket").arg(socket.file_name().unwrap_or_default());
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
        }
    };
    command.arg(id);
    finish(runtime, command)?;
    let text = fs::read_to_string(PID_FILE).unwrap_or_default();
    let pid = text.trim().parse().ok().filter(|pid| *pid > 1);
    pid.map(Pid::from_raw).ok_or_else(|| Failure::host(format!("{} named no process", runtime.display())))
}

fn finish(runtime: &Path, mut command: Command) -> Result<(), Failure> {
    let status = command.status().map_err(|error| {
        let hint = if error.kind() == io::ErrorKind::NotFound { "; install it or use the native runtime" } else { "" };
        Failure::host(format!("cannot run {}: {error}{hint}", runtime.display()))
    })?;
    if status.success() { Ok(()) } else { Err(explain(runtime, &last_words())) }
}

/// The last error in the program's log, which is one JSON value per line.
fn last_words() -> String {
    let log = fs::read(ERROR_LOG).unwrap_or_default();
    let text = String::from_utf8_lossy(&log);
    let mut messages = text.lines().filter_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        line["msg"].as_str().map(str::to_owned)
    });
    let mut words = messages.next_back().unwrap_or_else(|| text.trim().to_owned());
    while words.len() > WORDS_BYTES_MAX {
        words.pop();
    }
    words
}

/// Sorts a failure into Docker's classes by the words that both programs use.
fn explain(runtime: &Path, words: &str) -> Failure {
    let lower = words.to_lowercase();
    let has = |text: &str| lower.contains(text);
    let kind = if has("exec format error") {
        FailureKind::CommandNotExecutable
    } else if has("executable file") && has("not found") || has("no such file or directory") && has("exec") {
        FailureKind::CommandNotFound
    } else if has("permission denied") && has("exec") {
        FailureKind::CommandNotExecutable
    } else {
        FailureKind::Host
    };
    Failure::new(kind, format!("{}: {words}", runtime.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_runc_and_crun_become_dockers_codes() {
        let code = |words| explain(Path::new("runc"), words).kind.exit_code();
        assert_eq!(code("exec: \"foo\": executable file not found in $PATH"), 127);
        assert_eq!(code("executable file `foo` not found in $PATH: No such file or directory"), 127);
        assert_eq!(code("exec /etc/passwd: permission denied"), 126);
        assert_eq!(code("exec: \"/x\": exec format error"), 126);
        assert_eq!(code("unable to apply cgroup configuration"), 125);
    }
}
