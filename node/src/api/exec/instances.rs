//! Commands that were announced: what they are, whether they run, how they ended.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shoal_cluster::NodeId;
use tokio::sync::mpsc;

use super::Detach;
use crate::api::error::{ApiError, shown};
use crate::identity::random;
use crate::reach::{ExecAsk, Input};

/// Commands that are kept; those that run count.
const INSTANCES_MAX: usize = 1_000;
/// How long one is kept that was not started, or has ended.
const KEPT: Duration = Duration::from_secs(5 * 60);

/// All commands that this node was asked for and has not forgotten.
#[derive(Debug, Default)]
pub struct Instances(Mutex<BTreeMap<String, Instance>>);

/// One command.
#[derive(Debug)]
pub(super) struct Instance {
    on: NodeId,
    ask: ExecAsk,
    has_input: bool,
    has_output: bool,
    detach: Detach,
    since: Instant,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Entered by `create`, ended by `start` or time.
    Announced,
    /// Entered by `start`, ended by the answer of the task's node.
    Starting,
    /// Entered when it runs, ended by its end or the loss of its node.
    Running { pid: i32, input: mpsc::Sender<Input> },
    /// Ended by time.
    Ended { code: i32 },
}

impl Instance {
    /// `streams` says whether it has input, and output.
    pub(super) fn new(on: NodeId, ask: ExecAsk, streams: (bool, bool), detach: Detach) -> Self {
        let (has_input, has_output) = streams;
        Self { on, ask, has_input, has_output, detach, since: Instant::now(), state: State::Announced }
    }

    fn is_over(&self, now: Instant) -> bool {
        matches!(self.state, State::Announced | State::Ended { .. }) && now.saturating_duration_since(self.since) > KEPT
    }
}

impl Instances {
    /// Keeps a new one, and returns its id.
    pub(super) fn announce(&self, instance: Instance) -> Result<String, ApiError> {
        self.announce_at(Instant::now(), instance)
    }

    fn announce_at(&self, now: Instant, instance: Instance) -> Result<String, ApiError> {
        let mut all = self.lock();
        all.retain(|_, instance| !instance.is_over(now));
        if all.len() >= INSTANCES_MAX {
            return Err(ApiError::Conflict(format!(
                "{INSTANCES_MAX} commands were asked of this node in the last minutes: try again, or ask another node"
            )));
        }
        let id = random::<32>().iter().fold(String::new(), |mut id, byte| {
            // Writing to a String cannot fail.
            let _ = write!(id, "{byte:02x}");
            id
        });
        all.insert(id.clone(), instance);
        Ok(id)
    }

    /// Takes one that is about to start: its node, what to ask of it, whether it has input, and what lets go of it.
    pub(super) fn take(&self, id: &str) -> Result<(NodeId, ExecAsk, bool, Detach), ApiError> {
        let mut all = self.lock();
        let instance = all.get_mut(id).ok_or_else(|| missing(id))?;
        if !matches!(instance.state, State::Announced) {
            return Err(ApiError::Conflict(format!("exec {} has been started before", shown(id))));
        }
        instance.state = State::Starting;
        Ok((instance.on, instance.ask.clone(), instance.has_input, instance.detach.clone()))
    }

    /// Notes that one runs.
    pub(super) fn runs(&self, id: &str, pid: i32, input: mpsc::Sender<Input>) {
        if let Some(instance) = self.lock().get_mut(id) {
            instance.state = State::Running { pid, input };
        }
    }

    /// Notes how one ended. The first word counts.
    pub(super) fn ended(&self, id: &str, code: i32) {
        if let Some(instance) = self.lock().get_mut(id)
            && !matches!(instance.state, State::Ended { .. })
        {
            instance.state = State::Ended { code };
            instance.since = Instant::now();
        }
    }

    /// Returns the way to one that runs.
    pub(super) fn input(&self, id: &str) -> Result<mpsc::Sender<Input>, ApiError> {
        match &self.lock().get(id).ok_or_else(|| missing(id))?.state {
            State::Running { input, .. } => Ok(input.clone()),
            State::Announced | State::Starting | State::Ended { .. } => {
                Err(ApiError::Conflict(format!("exec {} is not running", shown(id))))
            }
        }
    }

    /// Shows one as Docker does.
    pub(super) fn show(&self, id: &str) -> Result<Value, ApiError> {
        let all = self.lock();
        let instance = all.get(id).ok_or_else(|| missing(id))?;
        let (running, code, pid) = match &instance.state {
            State::Announced | State::Starting => (false, None, 0),
            State::Running { pid, .. } => (true, None, *pid),
            State::Ended { code } => (false, Some(*code), 0),
        };
        let spec = &instance.ask.spec;
        Ok(json!({
            "ID": id,
            "ContainerID": instance.ask.task.to_string(),
            "Running": running,
            "ExitCode": code,
            "Pid": pid,
            "OpenStdin": instance.has_input,
            "OpenStdout": instance.has_output,
            "OpenStderr": instance.has_output && !spec.tty,
            "CanRemove": false,
            "DetachKeys": "",
            "ProcessConfig": {
                "entrypoint": spec.args.first(),
                "arguments": spec.args.get(1..),
                "tty": spec.tty,
                "privileged": spec.privileged,
                "user": spec.user,
            },
        }))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Instance>> {
        // Every change is one call; a panic elsewhere leaves the map whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn missing(id: &str) -> ApiError {
    ApiError::NotFound(format!("No such exec instance: {}", shown(id)))
}

#[cfg(test)]
mod tests {
    use shoal_cluster::TaskId;
    use shoal_runtime::container::ExecSpec;

    use super::*;

    fn instance() -> Instance {
        let ask = ExecAsk { task: TaskId([1; 16]), spec: ExecSpec::default(), size: None };
        Instance::new(NodeId([1; 32]), ask, (false, true), Detach::read(None).unwrap())
    }

    #[test]
    fn commands_are_bounded_and_forgotten_and_started_once() {
        let all = Instances::default();
        let id = all.announce(instance()).unwrap();
        assert!(all.take(&id).is_ok());
        assert!(matches!(all.take(&id), Err(ApiError::Conflict(_))));
        all.runs(&id, 7, mpsc::channel(1).0);
        assert_eq!(all.show(&id).unwrap()["Running"], true);
        for _ in 1..INSTANCES_MAX {
            all.announce(instance()).unwrap();
        }
        assert!(matches!(all.announce(instance()), Err(ApiError::Conflict(_))));
        let later = Instant::now() + KEPT * 2;
        all.announce_at(later, instance()).unwrap();
        assert_eq!(all.lock().len(), 2, "the one that runs is kept");
        all.ended(&id, 3);
        all.ended(&id, 4);
        assert_eq!(all.show(&id).unwrap()["ExitCode"], 3);
        all.announce_at(later, instance()).unwrap();
        assert!(matches!(all.show(&id), Err(ApiError::NotFound(_))));
    }
}
