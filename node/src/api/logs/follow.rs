//! The logs of a service or a task, gathered from the nodes that have them.
//!
//! Each node is asked once for all of its tasks. When following, tasks that begin later are added as the views show
//! them, and a node that was lost is asked again when it is back, from the last line on that it said.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use shoal_cluster::reports::task::TaskState;
use shoal_cluster::view::TaskView;
use shoal_cluster::{NodeId, ServiceId, TaskId, Views};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::options::Options;
use super::{Owner, STDERR, STDOUT, frame};
use crate::api::NodeHandle;
use crate::api::time::now_ms;
use crate::reach::merge::{Feed, Merged, Order, REORDER_WINDOW};
use crate::reach::{LOG_TASKS_MAX, LogAsk, ReachError, TaskLine};

/// How soon a node whose logs failed is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// Whose logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Service(ServiceId),
    Task(TaskId),
}

impl Scope {
    fn holds(self, task: &TaskView) -> bool {
        match self {
            Self::Service(id) => task.report.service == id,
            Self::Task(id) => task.report.id == id,
        }
    }

    /// Tells whether there may be more than is known now.
    fn lasts(self, views: &Views) -> bool {
        match self {
            Self::Service(id) => views.services.iter().any(|service| service.id == id),
            Self::Task(_) => false,
        }
    }
}

/// One request for logs.
struct Gathering {
    node: NodeHandle,
    scope: Scope,
    options: Options,
    tty: bool,
    begun_ms: u64,
    feed: Feed,
    tasks: BTreeMap<TaskId, Seen>,
    /// What each source of the feed is.
    sources: BTreeMap<u64, (NodeId, Vec<TaskId>)>,
    /// Nodes that failed, and when they may be asked again.
    failed: BTreeMap<NodeId, Instant>,
    /// Nodes that were said to be missing.
    noted: BTreeSet<NodeId>,
    out: BytesMut,
}

/// A task that was asked for.
struct Seen {
    owner: Owner,
    /// Whether its source failed before it had said all.
    is_lost: bool,
    /// The time of its last line, and how many lines have that time.
    last: (String, usize),
    /// What was said before its source failed, as `last`, and comes again.
    repeated: (String, usize),
}

impl Seen {
    fn new(task: &TaskView) -> Self {
        Self { owner: task.into(), is_lost: false, last: Default::default(), repeated: Default::default() }
    }

    /// Notes a line; tells whether it was said before.
    fn is_repeated(&mut self, line: &TaskLine) -> bool {
        let time = &line.line.time;
        match time.cmp(&self.repeated.0) {
            Ordering::Less => return true,
            Ordering::Equal if self.repeated.1 > 0 => {
                self.repeated.1 -= 1;
                return true;
            }
            Ordering::Equal | Ordering::Greater => {}
        }
        if *time == self.last.0 {
            self.last.1 += 1;
        } else {
            self.last = (time.clone(), 1);
        }
        false
    }
}

/// Sends frames until all is said, or the client is gone.
pub(super) async fn follow(node: NodeHandle, scope: Scope, options: Options, tty: bool, frames: mpsc::Sender<Bytes>) {
    let order = if options.follow { Order::Following(REORDER_WINDOW) } else { Order::Strict };
    let mut views = node.views.clone();
    let mut gathering = Gathering {
        node,
        scope,
        options,
        tty,
        begun_ms: now_ms(),
        feed: Feed::new(order),
        tasks: BTreeMap::new(),
        sources: BTreeMap::new(),
        failed: BTreeMap::new(),
        noted: BTreeSet::new(),
        out: BytesMut::new(),
    };
    loop {
        let present = Arc::clone(&views.borrow_and_update());
        gathering.begin(&present);
        if !gathering.out.is_empty() && frames.send(gathering.out.split().freeze()).await.is_err() {
            return;
        }
        let lasts = gathering.options.follow && (scope.lasts(&present) || !gathering.failed.is_empty());
        if gathering.feed.is_over() && !lasts {
            return;
        }
        let retry = gathering.failed.values().min().copied();
        let more = async {
            tokio::select! {
                changed = views.changed() => changed.is_ok(),
                () = sleep_until(retry) => true,
            }
        };
        tokio::select! {
            merged = gathering.feed.next(), if !gathering.feed.is_over() => {
                merged.into_iter().for_each(|merged| gathering.take(merged));
            }
            goes_on = more, if lasts => if !goes_on { return },
            () = frames.closed() => return,
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Gathering {
    /// Asks for the tasks that were not asked for yet and can be: a node once for all of them.
    fn begin(&mut self, views: &Views) {
        let now = Instant::now();
        let mut wanted: BTreeMap<(NodeId, bool), Vec<&TaskView>> = BTreeMap::new();
        for task in views.tasks.iter().filter(|task| self.scope.holds(task) && has_log(task)) {
            match self.tasks.get(&task.report.id) {
                None => wanted.entry((task.node, false)).or_default().push(task),
                Some(seen) if seen.is_lost && self.options.follow => {
                    wanted.entry((task.node, true)).or_default().push(task);
                }
                Some(_) => {}
            }
        }
        for ((node, again), tasks) in wanted {
            if !tasks[0].reachable {
                self.failed.entry(node).and_modify(|at| *at = now + RETRY);
                if self.noted.insert(node) {
                    self.note(views, tasks[0], &ReachError::Unreachable("it is down".to_owned()));
                }
            } else if self.failed.get(&node).is_none_or(|at| *at <= now) {
                self.failed.remove(&node);
                self.noted.remove(&node);
                tasks.chunks(LOG_TASKS_MAX).for_each(|tasks| self.ask(node, tasks, again));
            }
        }
    }

    /// Asks a node for tasks that are new, or again for those whose source failed, from where it was.
    fn ask(&mut self, node: NodeId, tasks: &[&TaskView], again: bool) {
        let mut since = None;
        for task in tasks {
            let seen = self.tasks.entry(task.report.id).or_insert_with(|| Seen::new(task));
            seen.is_lost = false;
            seen.repeated = seen.last.clone();
            let last = (!seen.last.0.is_empty()).then(|| seen.last.0.clone());
            since = if task.report.id == tasks[0].report.id { last } else { last.min(since) };
        }
        // What begins later is wanted from its beginning.
        let is_old = tasks.iter().all(|task| task.report.since_ms < self.begun_ms);
        let ids: Vec<TaskId> = tasks.iter().map(|task| task.report.id).collect();
        let ask = LogAsk {
            tasks: ids.clone(),
            tail: self.options.tail.filter(|_| is_old && !again),
            since: since.max(self.options.since.clone()),
            until: self.options.until.clone(),
            stdout: self.options.stdout,
            stderr: self.options.stderr,
            follow: self.options.follow,
        };
        let number = self.sources.keys().next_back().map_or(0, |last| last + 1);
        self.feed.add(number, (self.node.reach)(node).logs(ask), ids.len() == 1);
        self.sources.insert(number, (node, ids));
    }

    fn take(&mut self, merged: Merged) {
        match merged {
            Merged::Lines(lines) => lines.iter().for_each(|line| self.line(line)),
            // Removed by now: whoever asked for that task alone was told before.
            Merged::Missing(..) | Merged::Quiet(_) => {}
            Merged::Failed(number, error) => {
                let Some((node, tasks)) = self.sources.get(&number).cloned() else { return };
                for id in &tasks {
                    self.tasks.entry(*id).and_modify(|seen| seen.is_lost = true);
                }
                if self.options.follow {
                    self.failed.insert(node, Instant::now() + RETRY);
                }
                let views = self.node.views();
                let first = tasks.iter().find_map(|id| views.task(id));
                if let Some(task) = first
                    && self.noted.insert(node)
                {
                    self.note(&views, task, &error);
                }
            }
        }
    }

    fn line(&mut self, line: &TaskLine) {
        let Some(seen) = self.tasks.get_mut(&line.task) else { return };
        if !seen.is_repeated(line) {
            let (owner, stream) = (seen.owner, if line.line.stream == "stderr" { STDERR } else { STDOUT });
            self.render(stream, &owner, &line.line.time, line.line.log.as_bytes(), false);
        }
    }

    /// Says that the logs of a node are missing, as a line of one of its tasks.
    fn note(&mut self, views: &Views, task: &TaskView, error: &ReachError) {
        let name =
            views.member(&task.node).map_or_else(|| task.node.to_string(), |member| member.meta.name.to_string());
        let text = format!("shoal: the logs on {name} are missing: {error}\n");
        let time = shoal_runtime::log::rfc3339(std::time::SystemTime::now());
        self.render(STDERR, &Owner::from(task), &time, text.as_bytes(), true);
    }

    fn render(&mut self, stream: u8, owner: &Owner, time: &str, text: &[u8], is_note: bool) {
        let time = if self.options.timestamps { format!("{time} ") } else { String::new() };
        let details = if self.options.details { format!("{} ", owner.details(is_note)) } else { String::new() };
        frame(&mut self.out, stream, self.tty, &[time.as_bytes(), details.as_bytes(), text]);
    }
}

/// Tells whether a task's container was made, and so has a log.
fn has_log(task: &TaskView) -> bool {
    match task.report.state {
        TaskState::Accepted | TaskState::Preparing | TaskState::Starting => false,
        TaskState::Running | TaskState::Stopping | TaskState::Complete | TaskState::Failed | TaskState::Shutdown => {
            true
        }
    }
}
