//! Merging: log lines of many sources in the order of time.
//!
//! Input: what each source says ([`Said`]), and the present time. Output: lines. A line is handed out once no source
//! can have an older one: each has ended, or has said a later line, or that it was quiet at a later time. That is exact
//! while sources tell what they have. What they write later comes as it is written, from many nodes: there a line waits
//! for [`REORDER_WINDOW`], and one that comes still later than that is handed out late. Nothing is ever lost.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{ReachError, Said, TaskLine};
use shoal_cluster::TaskId;

/// How long a line of a follower waits for older ones of others: longer than a shim's line needs to be seen, which is
/// 160 ms, and to come from another node.
pub const REORDER_WINDOW: Duration = Duration::from_millis(300);
/// How long a line waits for a source that says nothing at all, not even that it is quiet.
const SILENCE_MAX: Duration = Duration::from_secs(6);
/// Bytes of lines that wait; a source that has so many is not read on.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// Lines handed out at once, and bytes after which there are no more.
const BATCH_LINES_MAX: usize = 500;
const BATCH_BYTES_MAX: usize = 64 << 10;
/// What a line takes beside its text.
const LINE_OVERHEAD_BYTES: usize = 64;

/// What is merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Everything in order, however long a source takes.
    Strict,
    /// The sources go on for ever: a line that is written from now on waits so long for older ones.
    Following(Duration),
}

#[derive(Debug, Default)]
struct Source {
    waiting_bytes: usize,
    /// Nothing older comes any more.
    said_until: String,
    quiet: bool,
    /// Whether it stays in order after it was quiet: it is one log.
    sorted: bool,
}

/// The lines that wait. Pure: time is an argument.
#[derive(Debug)]
struct Merge {
    order: Order,
    /// By time, source and number.
    lines: BTreeMap<(String, u64, u64), (Instant, TaskLine)>,
    open: BTreeMap<u64, Source>,
    number: u64,
}

fn weight(line: &TaskLine) -> usize {
    line.line.log.len() + LINE_OVERHEAD_BYTES
}

impl Merge {
    fn new(order: Order) -> Self {
        Self { order, lines: BTreeMap::new(), open: BTreeMap::new(), number: 0 }
    }

    fn wants(&self, source: u64) -> bool {
        self.open.get(&source).is_some_and(|source| source.waiting_bytes < WAITING_BYTES_MAX)
    }

    fn take(&mut self, id: u64, lines: Vec<TaskLine>, now: Instant) {
        let Some(source) = self.open.get_mut(&id) else { return };
        for line in lines {
            source.waiting_bytes += weight(&line);
            if source.sorted || !source.quiet {
                source.said_until = source.said_until.as_str().max(&line.line.time).to_owned();
            }
            self.lines.insert((line.line.time.clone(), id, self.number), (now, line));
            self.number += 1;
        }
    }

    fn quiet(&mut self, id: u64, since: String) {
        if let Some(source) = self.open.get_mut(&id) {
            source.quiet = true;
            source.said_until = since.max(std::mem::take(&mut source.said_until));
        }
    }

    /// Returns when the first line may go, if that is known; `now` or earlier means at once.
    fn due(&self, now: Instant) -> Option<Instant> {
        let ((time, ..), (arrived, _)) = self.lines.first_key_value()?;
        if self.open.values().all(|source| source.said_until >= *time) {
            return Some(now);
        }
        match self.order {
            Order::Strict => None,
            Order::Following(window) if self.open.values().all(|source| source.quiet) => Some(*arrived + window),
            Order::Following(_) => Some(*arrived + SILENCE_MAX),
        }
    }

    fn pop(&mut self, now: Instant) -> Option<TaskLine> {
        if self.due(now)? > now {
            return None;
        }
        let ((_, id, _), (_, line)) = self.lines.pop_first()?;
        if let Some(source) = self.open.get_mut(&id) {
            source.waiting_bytes = source.waiting_bytes.saturating_sub(weight(&line));
        }
        Some(line)
    }
}

/// What comes out of merged logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Merged {
    /// Lines, at least one.
    Lines(Vec<TaskLine>),
    /// There is no log of this task.
    Missing(TaskId, ReachError),
    /// This source has failed; the others go on.
    Failed(u64, ReachError),
    /// When following: all sources have said what they had at this time, and nothing waits. Said once for each time.
    Quiet(String),
}

/// Sources that are read and merged.
#[derive(Debug)]
pub struct Feed {
    merge: Merge,
    inputs: BTreeMap<u64, mpsc::Receiver<Said>>,
    notes: VecDeque<Merged>,
    quiet_said: String,
}

impl Feed {
    /// Merges nothing yet.
    pub fn new(order: Order) -> Self {
        Self { merge: Merge::new(order), inputs: BTreeMap::new(), notes: VecDeque::new(), quiet_said: String::new() }
    }

    /// Adds a source under a number of the caller's, which is not used twice. `sorted`: it is one log.
    pub fn add(&mut self, number: u64, input: mpsc::Receiver<Said>, sorted: bool) {
        self.inputs.insert(number, input);
        self.merge.open.insert(number, Source { sorted, ..Source::default() });
    }

    /// Tells whether nothing more comes: all sources have ended, and all that they said was handed out.
    pub fn is_over(&self) -> bool {
        self.inputs.is_empty() && self.notes.is_empty() && self.merge.lines.is_empty()
    }

    /// Returns what is next; `None` once all sources have ended. May be cancelled.
    pub async fn next(&mut self) -> Option<Merged> {
        loop {
            if let Some(note) = self.notes.pop_front() {
                return Some(note);
            }
            let now = Instant::now();
            let lines = self.batch(now);
            if !lines.is_empty() {
                return Some(Merged::Lines(lines));
            }
            if self.inputs.is_empty() {
                return None;
            }
            if let Some(quiet) = self.quiet() {
                return Some(Merged::Quiet(quiet));
            }
            let due = self.merge.due(now);
            tokio::select! {
                (number, said) = poll_fn(|context| self.poll(context)) => self.take(number, said),
                () = async { tokio::time::sleep_until(due.unwrap_or(now)).await }, if due.is_some() => {}
            }
        }
    }

    fn batch(&mut self, now: Instant) -> Vec<TaskLine> {
        let (mut lines, mut bytes) = (Vec::new(), 0);
        while lines.len() < BATCH_LINES_MAX
            && bytes < BATCH_BYTES_MAX
            && let Some(line) = self.merge.pop(now)
        {
            bytes += weight(&line);
            lines.push(line);
        }
        lines
    }

    /// Returns the time until which all has been said, if that is news.
    fn quiet(&mut self) -> Option<String> {
        let mut sources = self.merge.open.values();
        if self.merge.order == Order::Strict || !self.merge.lines.is_empty() || !sources.all(|source| source.quiet) {
            return None;
        }
        let until = self.merge.open.values().map(|source| &source.said_until).min()?;
        if *until <= self.quiet_said {
            return None;
        }
        self.quiet_said.clone_from(until);
        Some(until.clone())
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<(u64, Option<Said>)> {
        for (number, input) in &mut self.inputs {
            if self.merge.wants(*number)
                && let Poll::Ready(said) = input.poll_recv(context)
            {
                return Poll::Ready((*number, said));
            }
        }
        Poll::Pending
    }

    fn take(&mut self, number: u64, said: Option<Said>) {
        match said {
            Some(Said::Lines(lines)) => self.merge.take(number, lines, Instant::now()),
            Some(Said::Quiet(since)) => self.merge.quiet(number, since),
            Some(Said::Missing(task, error)) => self.notes.push_back(Merged::Missing(task, error)),
            Some(Said::Failed(error)) => {
                self.notes.push_back(Merged::Failed(number, error));
                self.end(number);
            }
            None => self.end(number),
        }
    }

    fn end(&mut self, number: u64) {
        self.inputs.remove(&number);
        self.merge.open.remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shoal_runtime::log::LogLine;

    use super::*;

    fn line(source: u8, time: u64) -> TaskLine {
        let line = LogLine { log: format!("{source}\n"), stream: "stdout".to_owned(), time: format!("{time:020}") };
        TaskLine { task: TaskId([source; 16]), line }
    }

    /// Says all lines of a source in pieces of `piece`, through a channel, and returns its end.
    fn source(number: u8, times: Vec<u64>, piece: usize, quiet: Option<u64>) -> mpsc::Receiver<Said> {
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            for piece in times.chunks(piece.max(1)) {
                let lines = piece.iter().map(|time| line(number, *time)).collect();
                let _ = sender.send(Said::Lines(lines)).await;
                tokio::task::yield_now().await;
            }
            if let Some(time) = quiet {
                let _ = sender.send(Said::Quiet(format!("{time:020}"))).await;
                std::future::pending::<()>().await;
            }
        });
        receiver
    }

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    async fn lines_of(feed: &mut Feed, count: usize) -> Vec<TaskLine> {
        let mut lines = Vec::new();
        while lines.len() < count {
            match feed.next().await {
                Some(Merged::Lines(more)) => lines.extend(more),
                Some(_) => {}
                None => break,
            }
        }
        lines
    }

    proptest! {
        /// However the sources are cut into pieces, their merge is sorted and holds each line once.
        #[test]
        fn a_strict_merge_is_sorted_and_loses_nothing(
            sources in proptest::collection::vec(proptest::collection::vec(0..50u64, 0..40), 0..6),
            piece in 1..9usize,
        ) {
            let merged = run(async {
                let mut feed = Feed::new(Order::Strict);
                for (number, times) in sources.iter().enumerate() {
                    let mut times = times.clone();
                    times.sort_unstable();
                    feed.add(number as u64, source(number as u8, times, piece, None), true);
                }
                lines_of(&mut feed, usize::MAX).await
            });
            prop_assert!(merged.is_sorted_by(|one, two| one.line.time <= two.line.time));
            let mut expected: Vec<(u8, String)> = sources.iter().enumerate()
                .flat_map(|(number, times)| times.iter().map(move |time| (number as u8, format!("{time:020}"))))
                .collect();
            let mut found: Vec<(u8, String)> =
                merged.into_iter().map(|line| (line.task.0[0], line.line.time)).collect();
            expected.sort();
            found.sort();
            prop_assert_eq!(found, expected);
        }

        /// A follower gets what was there in order, though no source ever ends, and what comes later in any order.
        #[test]
        fn a_follower_gets_all_and_what_was_there_in_order(
            sources in proptest::collection::vec(proptest::collection::vec(0..50u64, 0..40), 1..6),
            late in proptest::collection::vec(0..50u64, 0..9),
            piece in 1..9usize,
        ) {
            let count: usize = sources.iter().map(Vec::len).sum();
            let (there, came) = run(async {
                let mut feed = Feed::new(Order::Following(Duration::from_millis(1)));
                for (number, times) in sources.iter().enumerate() {
                    let mut times = times.clone();
                    times.sort_unstable();
                    feed.add(number as u64, source(number as u8, times, piece, Some(50)), false);
                }
                let there = lines_of(&mut feed, count).await;
                feed.add(99, source(99, late.clone(), piece, Some(60)), false);
                (there, lines_of(&mut feed, late.len()).await)
            });
            prop_assert_eq!(there.len(), count);
            prop_assert!(there.is_sorted_by(|one, two| one.line.time <= two.line.time));
            prop_assert_eq!(came.len(), late.len());
        }
    }

    #[test]
    fn a_line_that_is_younger_waits_for_the_window_only_and_older_ones_overtake_it() {
        run(async {
            let window = Duration::from_secs(1);
            let mut feed = Feed::new(Order::Following(window));
            let (one, first) = mpsc::channel(4);
            let (two, second) = mpsc::channel(4);
            feed.add(1, first, true);
            feed.add(2, second, true);
            for sender in [&one, &two] {
                sender.send(Said::Quiet("0".to_owned())).await.unwrap();
            }
            assert_eq!(feed.next().await, Some(Merged::Quiet("0".to_owned())));
            one.send(Said::Lines(vec![line(1, 9)])).await.unwrap();
            let begun = Instant::now();
            tokio::spawn(async move {
                tokio::time::sleep(window / 10).await;
                two.send(Said::Lines(vec![line(2, 5)])).await.unwrap();
                std::future::pending::<()>().await;
            });
            let times: Vec<u8> = lines_of(&mut feed, 2).await.iter().map(|line| line.task.0[0]).collect();
            assert_eq!(times, [2, 1]);
            assert!(begun.elapsed() >= window, "{:?}", begun.elapsed());
        });
    }

    #[test]
    fn a_source_that_fails_is_said_and_does_not_hold_up_the_others() {
        run(async {
            let mut feed = Feed::new(Order::Strict);
            let (failing, input) = mpsc::channel(1);
            feed.add(7, input, true);
            feed.add(8, source(8, vec![1, 2, 3], 1, None), true);
            failing.send(Said::Failed(ReachError::Busy)).await.unwrap();
            let mut said = Vec::new();
            while let Some(next) = feed.next().await {
                said.push(next);
            }
            assert!(said.contains(&Merged::Failed(7, ReachError::Busy)), "{said:?}");
            let lines = said.iter().map(|said| if let Merged::Lines(lines) = said { lines.len() } else { 0 });
            assert_eq!(lines.sum::<usize>(), 3);
        });
    }
}
