//! Health: whether a task that runs also works, found out by its node.
//!
//! Input: a task's check, complete. Output: that it is healthy for the first time, and that it is unhealthy; between
//! them, what `inspect` shows. Tries begin at once and come quickly until the first that succeeds. Failures count once
//! the start period, and at least one interval, are over, as if the first try had come when Docker's does.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shoal_cluster::intent::service::health::{HealthCheck, HealthTest};
use shoal_cluster::{TaskId, TaskOrder};
use shoal_runtime::container::Runtime;
use shoal_runtime::image::DockerConfig;
use tokio::time::Instant;

mod probe;

pub use probe::{OUTPUT_BYTES_MAX, Probe};

/// Docker's default of [`HealthCheck::interval_ms`] and [`HealthCheck::timeout_ms`].
const INTERVAL_MS: u64 = 30_000;
/// Docker's default of [`HealthCheck::start_interval_ms`].
const START_INTERVAL_MS: u64 = 5_000;
/// Docker's default of [`HealthCheck::retries`].
const RETRIES: u32 = 3;
/// Tries that are remembered of each task, as in Docker.
pub const PROBES_KEPT: usize = 5;
/// Pause after the first try of a task that starts; doubles from try to try, up to the interval.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Docker's shell for command lines.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// What is known of a task's health.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// How it is.
    pub status: HealthStatus,
    /// Failures in a row that count.
    pub failing_streak: u32,
    /// The last tries, the oldest first.
    pub probes: VecDeque<Probe>,
}

/// How a task is. Docker's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthStatus {
    /// No try has succeeded yet. Entered at the start.
    #[default]
    Starting,
    /// Entered by a try that succeeds.
    Healthy,
    /// Entered by as many failures in a row as the check allows; the task is ended.
    Unhealthy,
}

impl HealthStatus {
    /// Returns Docker's word in an inspection.
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl std::fmt::Display for HealthStatus {
    /// As `docker ps` has it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Starting => "health: starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        })
    }
}

/// What is known of the health of this node's tasks.
#[derive(Debug)]
pub struct HealthBoard {
    /// Keeps an empty file for each task that has been healthy, so that a restarted node knows that it counts as running.
    directory: PathBuf,
    tasks: Mutex<BTreeMap<TaskId, Health>>,
}

impl HealthBoard {
    /// Opens the board whose memory is this directory, making it if needed.
    pub fn open(directory: PathBuf) -> std::io::Result<Self> {
        std::fs::create_dir_all(&directory)?;
        Ok(Self { directory, tasks: Mutex::default() })
    }

    /// Returns what is known of a task's health, if it has a check and has not been removed.
    pub fn of(&self, id: &TaskId) -> Option<Health> {
        self.tasks().get(id).cloned()
    }

    /// Tells whether a task has ever been healthy, by this run of the node or an earlier one.
    pub(super) fn was_healthy(&self, id: &TaskId) -> bool {
        self.mark(id).exists()
    }

    /// Forgets a task.
    pub(super) fn forget(&self, id: &TaskId) {
        self.tasks().remove(id);
        // Of most tasks there is none.
        let _ = std::fs::remove_file(self.mark(id));
    }

    /// Forgets all tasks but these.
    pub(super) fn retain(&self, tasks: &[TaskId]) {
        let kept: Vec<String> = tasks.iter().map(TaskId::to_string).collect();
        for entry in std::fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            if kept.iter().all(|task| entry.file_name() != task.as_str()) {
                // It would only lie there.
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    fn begin(&self, id: TaskId, status: HealthStatus) {
        self.tasks().insert(id, Health { status, ..Health::default() });
    }

    /// Takes in a try; returns the status that it leads to.
    fn take(&self, id: &TaskId, probe: Probe, counts: bool, retries: u32) -> HealthStatus {
        let mut tasks = self.tasks();
        let health = tasks.entry(*id).or_default();
        health.take(probe, counts, retries);
        let status = health.status;
        drop(tasks);
        if status == HealthStatus::Healthy
            && !self.was_healthy(id)
            && let Err(error) = std::fs::write(self.mark(id), "")
        {
            tracing::warn!(task = %id, %error, "cannot note that a task is healthy: a restart will ask anew");
        }
        status
    }

    fn mark(&self, id: &TaskId) -> PathBuf {
        Path::new(&self.directory).join(id.to_string())
    }

    fn tasks(&self) -> MutexGuard<'_, BTreeMap<TaskId, Health>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Health {
    fn take(&mut self, probe: Probe, counts: bool, retries: u32) {
        if probe.exit_code == 0 {
            self.status = HealthStatus::Healthy;
            self.failing_streak = 0;
        } else if counts || self.status != HealthStatus::Starting {
            self.failing_streak = self.failing_streak.saturating_add(1);
            if self.failing_streak >= retries {
                self.status = HealthStatus::Unhealthy;
            }
        }
        self.probes.push_back(probe);
        while self.probes.len() > PROBES_KEPT {
            self.probes.pop_front();
        }
    }
}

/// Returns the check of a task, complete: what the service leaves open is as the image says, or else by default. None
/// if there is nothing to try.
pub(super) fn complete(wanted: Option<&HealthCheck>, image: &DockerConfig) -> Option<HealthCheck> {
    let of_image = image.healthcheck.clone().unwrap_or_default();
    let wanted = wanted.cloned().unwrap_or_else(|| HealthCheck::new(HealthTest::Image));
    let test = match wanted.test {
        HealthTest::Image => test_of_image(of_image.test.as_deref().unwrap_or_default(), image)?,
        HealthTest::None => return None,
        HealthTest::Shell(line) => in_shell(line, image),
        test @ (HealthTest::Command(_) | HealthTest::Http { .. } | HealthTest::Tcp { .. }) => test,
    };
    let ms = |own: Option<u64>, ns: Option<i64>, default| {
        let of_image = ns.and_then(|ns| u64::try_from(ns).ok()).map(|ns| ns.div_ceil(1_000_000));
        own.or(of_image.filter(|ms| *ms > 0)).or(Some(default))
    };
    let retries = of_image.retries.and_then(|retries| u32::try_from(retries).ok()).filter(|retries| *retries > 0);
    Some(HealthCheck {
        test,
        interval_ms: ms(wanted.interval_ms, of_image.interval, INTERVAL_MS),
        timeout_ms: ms(wanted.timeout_ms, of_image.timeout, INTERVAL_MS),
        start_period_ms: ms(wanted.start_period_ms, of_image.start_period, 0),
        start_interval_ms: ms(wanted.start_interval_ms, of_image.start_interval, START_INTERVAL_MS),
        retries: wanted.retries.or(retries).or(Some(RETRIES)),
    })
}

fn test_of_image(words: &[String], image: &DockerConfig) -> Option<HealthTest> {
    match words.split_first() {
        Some((kind, command)) if kind == "CMD" && !command.is_empty() => Some(HealthTest::Command(command.to_vec())),
        Some((kind, line)) if kind == "CMD-SHELL" && !line.is_empty() => Some(in_shell(line.join(" "), image)),
        Some(_) | None => None,
    }
}

fn in_shell(line: String, image: &DockerConfig) -> HealthTest {
    let shell = image.shell.clone().filter(|shell| !shell.is_empty());
    let shell = shell.unwrap_or_else(|| SHELL.map(str::to_owned).to_vec());
    HealthTest::Command([shell, vec![line]].concat())
}

/// Tries a running task until it is unhealthy, and then returns; for ever if it has no check. `healthy` is called once,
/// when it is healthy for the first time.
pub(super) async fn watch(board: &HealthBoard, runtime: &Runtime, order: &TaskOrder, healthy: impl FnOnce()) {
    let Some(check) = &order.spec.health else { return std::future::pending().await };
    let interval = Duration::from_millis(check.interval_ms.unwrap_or(INTERVAL_MS));
    let start_interval = Duration::from_millis(check.start_interval_ms.unwrap_or(START_INTERVAL_MS)).min(interval);
    let grace = Duration::from_millis(check.start_period_ms.unwrap_or_default()).max(interval);
    let (begun, mut pause, mut healthy) = (Instant::now(), FIRST_PAUSE, Some(healthy));
    let mut status = HealthStatus::Starting;
    if board.was_healthy(&order.id) {
        (status, healthy) = (HealthStatus::Healthy, None);
    }
    board.begin(order.id, status);
    loop {
        let probe = probe::run(runtime, order, check).await;
        let counts = begun.elapsed() >= grace;
        status = board.take(&order.id, probe, counts, check.retries.unwrap_or(RETRIES));
        match status {
            HealthStatus::Unhealthy => return,
            HealthStatus::Healthy => {
                if let Some(healthy) = healthy.take() {
                    healthy();
                }
                tokio::time::sleep(interval).await;
            }
            HealthStatus::Starting => {
                let next = pause.min(start_interval);
                // The first try that counts comes when Docker's would.
                let until_counting = grace.saturating_sub(begun.elapsed());
                let quick = !until_counting.is_zero();
                tokio::time::sleep(if quick { next.min(until_counting) } else { interval }).await;
                pause = pause.saturating_mul(2);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use shoal_runtime::image::ImageHealth;

    use super::*;

    fn probe(exit_code: i32) -> Probe {
        Probe { started_at_ms: 1, ended_at_ms: 2, exit_code, output: String::new() }
    }

    #[test]
    fn failures_count_in_a_row_and_only_once_they_count() {
        let mut health = Health::default();
        for _ in 0..9 {
            health.take(probe(1), false, 2);
        }
        assert_eq!((health.status, health.failing_streak, health.probes.len()), (HealthStatus::Starting, 0, 5));
        health.take(probe(0), false, 2);
        assert_eq!(health.status, HealthStatus::Healthy);
        // Once it has been healthy, the start is over.
        health.take(probe(1), false, 2);
        health.take(probe(0), true, 2);
        health.take(probe(1), true, 2);
        assert_eq!((health.status, health.failing_streak), (HealthStatus::Healthy, 1));
        health.take(probe(1), true, 2);
        assert_eq!(health.status, HealthStatus::Unhealthy);
        let mut never = Health::default();
        never.take(probe(1), true, 1);
        assert_eq!(never.status, HealthStatus::Unhealthy);
    }

    #[test]
    fn what_the_service_leaves_open_is_as_the_image_says() {
        let words = |words: &[&str]| Some(words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>());
        let of_image = ImageHealth {
            test: words(&["CMD-SHELL", "curl localhost"]),
            interval: Some(1_500_000),
            retries: Some(7),
            ..ImageHealth::default()
        };
        let image = DockerConfig { healthcheck: Some(of_image), shell: words(&["/bin/bash", "-ec"]) };
        let check = complete(None, &image).unwrap();
        assert_eq!(check.test, HealthTest::Command(words(&["/bin/bash", "-ec", "curl localhost"]).unwrap()));
        assert_eq!((check.interval_ms, check.timeout_ms, check.retries), (Some(2), Some(INTERVAL_MS), Some(7)));
        let own = HealthCheck { interval_ms: Some(9), ..HealthCheck::new(HealthTest::Tcp { port: 80 }) };
        let check = complete(Some(&own), &image).unwrap();
        assert_eq!((check.test, check.interval_ms), (HealthTest::Tcp { port: 80 }, Some(9)));
        assert_eq!(complete(Some(&HealthCheck::new(HealthTest::None)), &image), None);
        assert_eq!(complete(None, &DockerConfig::default()), None);
        let none = ImageHealth { test: words(&["NONE"]), ..ImageHealth::default() };
        assert_eq!(complete(None, &DockerConfig { healthcheck: Some(none), shell: None }), None);
    }

    #[test]
    fn a_restarted_node_knows_who_was_healthy() {
        let directory = tempfile::tempdir().unwrap();
        let (one, other) = (TaskId([1; 16]), TaskId([2; 16]));
        let board = HealthBoard::open(directory.path().join("health")).unwrap();
        board.begin(one, HealthStatus::Starting);
        assert_eq!(board.take(&one, probe(1), false, 1), HealthStatus::Starting);
        assert!(!board.was_healthy(&one));
        assert_eq!(board.take(&one, probe(0), false, 1), HealthStatus::Healthy);
        let again = HealthBoard::open(directory.path().join("health")).unwrap();
        assert!(again.was_healthy(&one) && !again.was_healthy(&other) && again.of(&one).is_none());
        again.retain(&[one]);
        assert!(again.was_healthy(&one));
        again.retain(&[other]);
        assert!(!again.was_healthy(&one));
    }
}
