//! This node's own tasks, reached through the runtime.

mod exec;
mod logs;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use shoal_cluster::TaskId;
use shoal_runtime::container::{ContainerState, Runtime, RuntimeError, StartError};
use tokio::sync::mpsc;

use super::{Answer, AttachAsk, Details, ExecAsk, LogAsk, Question, ReachError, Said, Sample, Session, Tasks};
use crate::executor::health::HealthBoard;
use crate::executor::{self, ORDER_LABEL};
use crate::host;
use crate::images::chain;

/// Nanoseconds in one tick of `/proc/stat`: `USER_HZ` is 100 on all Linux platforms.
const TICK_NS: u64 = 10_000_000;
/// Numbers of the line `cpu` that count time once: `guest` is part of `user`.
const CPU_FIELDS: usize = 8;
/// Longest grace that a client may ask for.
const GRACE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The tasks of this node.
#[derive(Clone, Debug)]
pub struct Local {
    runtime: Runtime,
    health: Arc<HealthBoard>,
}

impl Local {
    /// Reaches the containers of this runtime, whose health is told on this board.
    pub fn new(runtime: Runtime, health: Arc<HealthBoard>) -> Self {
        Self { runtime, health }
    }

    async fn answer(self, task: TaskId, question: Question) -> Result<Answer, ReachError> {
        let id = task.to_string();
        let failed = |error: RuntimeError| refusal(task, &error);
        match question {
            Question::Details => self.details(task).await.map(|details| Answer::Details(Box::new(details))),
            Question::Sample => {
                self.running(task)?;
                let stats = self.runtime.stats(&id).await.map_err(failed)?;
                Ok(Answer::Sample(Box::new(Sample { stats, ..machine() })))
            }
            Question::Processes => {
                self.running(task)?;
                self.runtime.processes(&id).await.map(Answer::Processes).map_err(failed)
            }
            Question::Signal(signal) => {
                self.running(task)?;
                self.runtime.signal(&id, signal).await.map(|()| Answer::Done).map_err(failed)
            }
            Question::Stop { signal, grace_ms } => {
                let status = self.runtime.status(&id).ok_or(ReachError::Missing(task))?;
                let (own_signal, own_grace) = executor::stop_of(&status);
                let grace = grace_ms.map_or(own_grace, Duration::from_millis).min(GRACE_MAX);
                self.runtime.stop(&id, signal.unwrap_or(own_signal), grace).await.map(Answer::Ended).map_err(failed)
            }
            Question::Resize(size) => {
                self.running(task)?;
                self.runtime.resize(&id, size).await.map(|()| Answer::Done).map_err(failed)
            }
            Question::Wait => self.runtime.wait(&id).await.map(Answer::Ended).map_err(failed),
        }
    }

    async fn join(self, ask: AttachAsk) -> Result<Session, ReachError> {
        let (task, id) = (ask.task, ask.task.to_string());
        let pid = self.running(task)?;
        let failed = |error: RuntimeError| refusal(task, &error);
        let spec = self.runtime.spec(&id).await.map_err(failed)?;
        let stdin = match ask.stdin && spec.stdin {
            true => Some(self.runtime.attach(&id).await.map_err(failed)?),
            false => None,
        };
        let streams = self.runtime.tap(&id, spec.tty).await.map_err(failed)?;
        let runtime = self.runtime.clone();
        let end = async move { runtime.wait(&id).await.map_or(exec::KILLED, |exit| exit.code) };
        Ok(exec::join(pid, stdin, streams, end))
    }

    fn running(&self, task: TaskId) -> Result<i32, ReachError> {
        let status = self.runtime.status(&task.to_string()).ok_or(ReachError::Missing(task))?;
        match status.state {
            ContainerState::Running { pid } => Ok(pid),
            ContainerState::Created { .. } | ContainerState::Exited(_) => Err(ReachError::NotRunning(task)),
        }
    }

    async fn details(&self, task: TaskId) -> Result<Details, ReachError> {
        let id = task.to_string();
        let status = self.runtime.status(&id).ok_or(ReachError::Missing(task))?;
        let mut spec = self.runtime.spec(&id).await.map_err(|error| refusal(task, &error))?;
        spec.layers.clear();
        spec.labels.remove(ORDER_LABEL);
        let (pid, exit) = match status.state {
            ContainerState::Created { .. } => (None, None),
            ContainerState::Running { pid } => (Some(pid), None),
            ContainerState::Exited(exit) => (None, Some(exit)),
        };
        let health = self.health.of(&task);
        Ok(Details { spec, pid, started_at_ms: status.started_at_ms, exit, health })
    }
}

impl Tasks for Local {
    fn logs(&self, ask: LogAsk) -> mpsc::Receiver<Said> {
        logs::read(&self.runtime, ask)
    }

    fn exec(&self, ask: ExecAsk) -> BoxFuture<'static, Result<Session, ReachError>> {
        let runtime = self.runtime.clone();
        async move {
            let task = ask.task;
            let begun = runtime.exec(&task.to_string(), &ask.spec, ask.size).await;
            begun.map(exec::carry).map_err(|error| match error {
                StartError::Missing(_) => ReachError::Missing(task),
                StartError::NotRunning(_) => ReachError::NotRunning(task),
                error => ReachError::NotRun { exit_code: error.exit_code(), message: chain(&error) },
            })
        }
        .boxed()
    }

    fn attach(&self, ask: AttachAsk) -> BoxFuture<'static, Result<Session, ReachError>> {
        self.clone().join(ask).boxed()
    }

    fn ask(&self, task: TaskId, question: Question) -> BoxFuture<'static, Result<Answer, ReachError>> {
        self.clone().answer(task, question).boxed()
    }
}

fn refusal(task: TaskId, error: &RuntimeError) -> ReachError {
    match error {
        RuntimeError::Missing(_) => ReachError::Missing(task),
        RuntimeError::InUse(_) | RuntimeError::Shim { .. } | RuntimeError::Io { .. } => {
            ReachError::Refused(chain(error))
        }
    }
}

/// Returns what this machine has.
fn machine() -> Sample {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or_default();
    let ticks = line.split_whitespace().skip(1).take(CPU_FIELDS).filter_map(|field| field.parse::<u64>().ok());
    Sample {
        machine_cpu_ns: ticks.sum::<u64>().saturating_mul(TICK_NS),
        cpus: u32::try_from(stat.lines().filter(|line| is_processor(line)).count()).unwrap_or(1).max(1),
        memory_bytes: host::memory_bytes(),
        ..Sample::default()
    }
}

/// Tells whether a line of `/proc/stat` is that of one processor.
fn is_processor(line: &str) -> bool {
    line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|character: char| character.is_ascii_digit()))
}
