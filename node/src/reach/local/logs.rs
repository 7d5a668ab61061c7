//! Logs of this node's tasks: read on a task of their own each, and merged.

use std::time::{Duration, SystemTime};

use shoal_cluster::TaskId;
use shoal_runtime::container::{LogStream, Runtime};
use shoal_runtime::log::{LogQuery, rfc3339};
use tokio::sync::mpsc;

use super::super::merge::{Feed, Merged, Order};
use super::super::{LogAsk, ReachError, Said, TaskLine, WAITING_MAX};
use super::refusal;
use crate::api::time::{now_ms, parse_rfc3339};

/// A log that says nothing for so long has said what it had.
const QUIET_AFTER: Duration = Duration::from_millis(50);

/// Reads these logs; the stream ends with the last of them.
pub(super) fn read(runtime: &Runtime, ask: LogAsk) -> mpsc::Receiver<Said> {
    if let [task] = ask.tasks[..] {
        return one(runtime.clone(), task, &ask);
    }
    // What is written later goes on at once: whoever asked puts it in order with that of other nodes.
    let mut feed = Feed::new(if ask.follow { Order::Following(Duration::ZERO) } else { Order::Strict });
    for (number, task) in (0..).zip(&ask.tasks) {
        feed.add(number, one(runtime.clone(), *task, &ask), true);
    }
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    tokio::spawn(async move {
        while let Some(merged) = next(&mut feed, &sender).await {
            let said = match merged {
                Merged::Lines(lines) => Said::Lines(lines),
                Merged::Missing(task, error) => Said::Missing(task, error),
                Merged::Quiet(time) => Said::Quiet(time),
                Merged::Failed(number, error) => {
                    let task = usize::try_from(number).ok().and_then(|number| ask.tasks.get(number));
                    let Some(task) = task else { continue };
                    Said::Missing(*task, error)
                }
            };
            if sender.send(said).await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// Returns what is next, or nothing if nobody listens any more.
async fn next(feed: &mut Feed, sender: &mpsc::Sender<Said>) -> Option<Merged> {
    tokio::select! {
        merged = feed.next() => merged,
        () = sender.closed() => None,
    }
}

fn one(runtime: Runtime, task: TaskId, ask: &LogAsk) -> mpsc::Receiver<Said> {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    let query = LogQuery {
        tail: ask.tail.map(|lines| usize::try_from(lines).unwrap_or(usize::MAX)),
        since: ask.since.clone(),
        until: ask.until.clone(),
        stdout: ask.stdout,
        stderr: ask.stderr,
        follow: ask.follow,
    };
    let left = ask.until.as_deref().and_then(parse_rfc3339).map(|until| until.saturating_sub(now_ms()));
    let left = left.filter(|_| ask.follow).map(Duration::from_millis);
    tokio::spawn(async move {
        let said = match runtime.logs(&task.to_string(), query).await {
            Ok(stream) => tokio::select! {
                failed = follow(task, stream, &sender) => failed,
                () = async { tokio::time::sleep(left.unwrap_or_default()).await }, if left.is_some() => None,
                () = sender.closed() => None,
            },
            Err(error) => Some(Said::Missing(task, refusal(task, &error))),
        };
        if let Some(said) = said {
            // Nobody needs to know if nobody listens.
            let _ = sender.send(said).await;
        }
    });
    receiver
}

/// Says what comes, until the end, which may be a failure.
async fn follow(task: TaskId, mut stream: LogStream, sender: &mpsc::Sender<Said>) -> Option<Said> {
    loop {
        let since = rfc3339(SystemTime::now());
        let mut next = std::pin::pin!(stream.next());
        let batch = tokio::select! {
            batch = &mut next => batch,
            () = tokio::time::sleep(QUIET_AFTER) => {
                if sender.send(Said::Quiet(since)).await.is_err() {
                    return None;
                }
                next.await
            }
        };
        match batch? {
            Ok(lines) => {
                let lines = lines.into_iter().map(|line| TaskLine { task, line }).collect();
                if sender.send(Said::Lines(lines)).await.is_err() {
                    return None;
                }
            }
            Err(error) => {
                let text = format!("the log of task {task} cannot be read: {error}");
                return Some(Said::Missing(task, ReachError::Refused(text)));
            }
        }
    }
}
