//! Waiting until a service's tasks run and its rollout has ended, with a bar per task; Ctrl-C stops the waiting, not the
//! work.

use std::process::ExitCode;
use std::time::Duration;

use bollard::models::{Service, ServiceUpdateStatusStateEnum as UpdateState, Task, TaskSpec, TaskState};
use serde_json::json;

use super::{WaitArgs, ask, find, mode};
use crate::cli::output::Output;
use crate::client::{Client, encoded};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(200);
/// The exit status after Ctrl-C, as shells have it.
pub(super) const INTERRUPTED: u8 = 130;
/// Tasks up to which each has a bar.
const BARS_MAX: usize = 20;
/// Characters of a bar.
const BAR_CHARS: usize = 50;

/// How far a service has come.
#[derive(Debug, PartialEq, Eq)]
struct Progress {
    wanted: usize,
    /// Tasks of the present revision that run.
    running: usize,
    /// Tasks of earlier revisions, or beyond the number wanted, that have not ended.
    leftover: usize,
    /// What the newest failure said.
    error: Option<String>,
    /// Whether a rollout goes on.
    rolls: bool,
    /// Why a rollout was paused, if it was.
    paused: Option<String>,
    /// Whether it is a job: its tasks are to end, and those that did their work count as running.
    job: bool,
    /// Of each slot of a replicated service, the state of its newest task of the present revision.
    slots: Vec<Option<TaskState>>,
}

/// Waits until a service has converged, unless the operator does not want to.
pub(super) async fn converge(
    args: WaitArgs,
    id: &str,
    client: &Client,
    output: &mut Output,
) -> anyhow::Result<ExitCode> {
    if args.detach {
        return Ok(ExitCode::SUCCESS);
    }
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let (service, tasks) = look(id, client).await?;
        let progress = progress(&service, &tasks);
        if let Some(reason) = &progress.paused {
            output.note(&format!("service {reason}"));
            output.note("Use `shoal service update` to go on or to try another, `shoal service rollback` to go back.");
            return Ok(ExitCode::FAILURE);
        }
        let name = service.spec.and_then(|spec| spec.name).unwrap_or_else(|| id.to_owned());
        if progress.is_done() {
            if !args.quiet {
                output.line(&format!("verify: Service {name} converged"))?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        if !args.quiet {
            output.progress(&progress.text());
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            _ = &mut interrupt => {
                output.note("Operation continuing in background.");
                output.note(&format!("Use `shoal service ps {name}` to check progress."));
                return Ok(INTERRUPTED.into());
            }
        }
    }
}

async fn look(id: &str, client: &Client) -> anyhow::Result<(Service, Vec<Task>)> {
    let service = find(client, id).await?;
    let filters = json!({ "service": [id] }).to_string();
    let tasks = ask(client, &format!("/tasks?filters={}", encoded(&filters))).await?;
    Ok((service, tasks))
}

fn progress(service: &Service, tasks: &[Task]) -> Progress {
    let progress = progress_of(service, tasks);
    let Some((completed, total)) = mode::job_counts(service) else { return progress };
    let (wanted, running) = (total as usize, completed as usize);
    Progress { wanted, running, leftover: 0, job: true, slots: Vec::new(), ..progress }
}

fn progress_of(service: &Service, tasks: &[Task]) -> Progress {
    let spec = service.spec.as_ref();
    let replicated = spec.and_then(|spec| spec.mode.as_ref()?.replicated.as_ref());
    let replicas = replicated.and_then(|replicated| replicated.replicas).unwrap_or_default();
    let global = spec.and_then(|spec| spec.mode.as_ref()).is_some_and(|mode| mode.global.is_some());
    let expected = || tasks.iter().filter(|task| task.desired_state == Some(TaskState::RUNNING)).count();
    let wanted = if global { expected() } else { usize::try_from(replicas).unwrap_or_default() };
    let template = spec.and_then(|spec| spec.task_template.as_ref()).map(without_networks);
    let state = |task: &Task| task.status.as_ref().and_then(|status| status.state);
    let is_running = |task: &&Task| state(task) == Some(TaskState::RUNNING);
    let is_wanted = |task: &&Task| {
        task.desired_state == Some(TaskState::RUNNING) && task.spec.as_ref().map(without_networks) == template
    };
    let running = tasks.iter().filter(is_running).filter(is_wanted).count();
    // A task on a node that is down counts as gone: nobody can wait for it.
    let is_gone =
        |task: &&Task| task.status.as_ref().is_some_and(|status| status.err.as_deref() == Some("its node is down"));
    let leftover = tasks.iter().filter(is_running).filter(|task| !is_wanted(task) && !is_gone(task)).count();
    let failed = tasks.iter().filter(|task| matches!(state(task), Some(TaskState::FAILED | TaskState::REJECTED)));
    let newest = failed.max_by_key(|task| task.status.as_ref().and_then(|status| status.timestamp.clone()));
    let error = newest.and_then(|task| task.status.as_ref()?.err.clone());
    let status = service.update_status.as_ref();
    let update = status.and_then(|status| status.state);
    let rolls = matches!(update, Some(UpdateState::UPDATING | UpdateState::ROLLBACK_STARTED));
    let stopped = status.filter(|_| matches!(update, Some(UpdateState::PAUSED | UpdateState::ROLLBACK_PAUSED)));
    let paused = stopped.map(|status| status.message.clone().unwrap_or_default());
    let newest = |slot: usize| {
        let here = |task: &&Task| task.slot == i64::try_from(slot).ok();
        let wanted = tasks.iter().filter(here).filter(is_wanted).max_by_key(|task| task.created_at.clone());
        wanted.and_then(state)
    };
    let slots = if global { Vec::new() } else { (1..=wanted.min(BARS_MAX + 1)).map(newest).collect() };
    Progress { wanted, running, leftover, error, rolls, paused, job: false, slots }
}

/// Returns what a task's revision is made of: a service that joins another network goes on with the same tasks.
fn without_networks(template: &TaskSpec) -> TaskSpec {
    TaskSpec { networks: None, ..template.clone() }
}

/// Returns a bar that is longer the further a task has come.
fn bar(state: Option<TaskState>) -> String {
    let (word, stage) = match state {
        None => ("waiting", 0),
        Some(TaskState::PENDING) => ("pending", 1),
        Some(TaskState::ACCEPTED) => ("accepted", 2),
        Some(TaskState::PREPARING) => ("preparing", 3),
        Some(TaskState::STARTING) => ("starting", 4),
        Some(TaskState::RUNNING) => ("running", 5),
        Some(_) => ("ended", 0),
    };
    let filled = "=".repeat(BAR_CHARS * stage / 5);
    format!("{word:<9} [{:<width$}]", format!("{filled}>"), width = BAR_CHARS + 1)
}

impl Progress {
    fn is_done(&self) -> bool {
        self.running >= self.wanted && self.leftover == 0 && !self.rolls
    }

    /// Returns the line, and below it a bar for each task if they are few.
    fn text(&self) -> String {
        let mut text = self.line();
        if !self.job && self.slots.len() <= BARS_MAX {
            for (slot, state) in (1..).zip(&self.slots) {
                text.push_str(&format!("\n{slot}/{}: {}", self.slots.len(), bar(*state)));
            }
        }
        text
    }

    fn line(&self) -> String {
        let what = if self.job { "job progress" } else { "overall progress" };
        let complete = if self.job { " complete" } else { "" };
        let mut line = format!("{what}: {} out of {}{complete} tasks", self.running, self.wanted);
        if self.leftover > 0 {
            line.push_str(&format!(", {} to stop", self.leftover));
        }
        if let Some(error) = self.error.as_ref().filter(|_| self.running < self.wanted) {
            line.push_str(&format!(" (last failure: {error})"));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::{
        NetworkAttachmentConfig, ServiceSpec, ServiceSpecMode, ServiceSpecModeReplicated, TaskStatus,
    };

    use super::*;

    fn service(replicas: i64) -> Service {
        let replicated = Some(ServiceSpecModeReplicated { replicas: Some(replicas) });
        let spec = ServiceSpec {
            mode: Some(ServiceSpecMode { replicated, ..Default::default() }),
            task_template: Some(TaskSpec::default()),
            ..Default::default()
        };
        Service { spec: Some(spec), ..Default::default() }
    }

    fn task(state: TaskState, desired: TaskState, spec: TaskSpec, err: &str) -> Task {
        let err = (!err.is_empty()).then(|| err.to_owned());
        let status = Some(TaskStatus { state: Some(state), err, ..Default::default() });
        Task { status, desired_state: Some(desired), spec: Some(spec), ..Default::default() }
    }

    #[test]
    fn a_service_has_converged_when_the_wanted_tasks_run_and_no_others() {
        use TaskState::{FAILED, RUNNING, SHUTDOWN};
        let new = TaskSpec::default;
        let old = || TaskSpec { force_update: Some(7), ..TaskSpec::default() };
        for (tasks, done) in [
            (vec![], false),
            (vec![task(RUNNING, RUNNING, new(), "")], false),
            (vec![task(RUNNING, RUNNING, new(), ""), task(RUNNING, RUNNING, new(), "")], true),
            (vec![task(RUNNING, RUNNING, new(), ""), task(RUNNING, RUNNING, old(), "")], false),
            (
                vec![
                    task(RUNNING, RUNNING, new(), ""),
                    task(RUNNING, RUNNING, new(), ""),
                    task(RUNNING, SHUTDOWN, old(), ""),
                ],
                false,
            ),
            (
                vec![
                    task(RUNNING, RUNNING, new(), ""),
                    task(RUNNING, RUNNING, new(), ""),
                    task(FAILED, SHUTDOWN, old(), "x"),
                ],
                true,
            ),
            (
                vec![
                    task(RUNNING, RUNNING, new(), ""),
                    task(RUNNING, RUNNING, new(), ""),
                    task(RUNNING, SHUTDOWN, new(), "its node is down"),
                ],
                true,
            ),
        ] {
            assert_eq!(progress(&service(2), &tasks).is_done(), done, "{tasks:?}");
        }
        assert!(progress(&service(0), &[]).is_done());
    }

    #[test]
    fn a_rollout_is_waited_for_and_a_pause_ends_the_waiting() {
        let mut service = service(1);
        let mut status =
            bollard::models::ServiceUpdateStatus { state: Some(UpdateState::UPDATING), ..Default::default() };
        service.update_status = Some(status.clone());
        let tasks = [task(TaskState::RUNNING, TaskState::RUNNING, TaskSpec::default(), "")];
        assert!(!progress(&service, &tasks).is_done());
        (status.state, status.message) = (Some(UpdateState::PAUSED), Some("update paused".to_owned()));
        service.update_status = Some(status.clone());
        assert_eq!(progress(&service, &tasks).paused.as_deref(), Some("update paused"));
        status.state = Some(UpdateState::COMPLETED);
        service.update_status = Some(status);
        assert!(progress(&service, &tasks).is_done());
    }

    #[test]
    fn tasks_stay_wanted_when_their_service_joins_a_network() {
        let mut service = service(1);
        let networks = vec![NetworkAttachmentConfig { target: Some("back".to_owned()), ..Default::default() }];
        service.spec.as_mut().unwrap().task_template.as_mut().unwrap().networks = Some(networks);
        let tasks = [task(TaskState::RUNNING, TaskState::RUNNING, TaskSpec::default(), "")];
        assert!(progress(&service, &tasks).is_done());
    }

    #[test]
    fn bars_are_longer_the_further_a_task_has_come() {
        let filled = |state| bar(state).chars().filter(|character| *character == '=').count();
        let states = [None, Some(TaskState::PENDING), Some(TaskState::PREPARING), Some(TaskState::RUNNING)];
        assert!(states.windows(2).all(|pair| filled(pair[0]) < filled(pair[1])));
        assert_eq!(bar(None).chars().count(), bar(Some(TaskState::RUNNING)).chars().count());
    }

    #[test]
    fn the_line_names_the_last_failure() {
        let tasks = [task(TaskState::FAILED, TaskState::SHUTDOWN, TaskSpec::default(), "no such command")];
        let line = progress(&service(1), &tasks).line();
        assert_eq!(line, "overall progress: 0 out of 1 tasks (last failure: no such command)");
    }
}
