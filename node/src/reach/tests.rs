//! Tasks that say what they are told to, and the way to them over real transports.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{AsyncReadExt, AsyncWriteExt, FutureExt};
use shoal_cluster::membership::member::MemberState;
use shoal_cluster::{TaskId, Views};
use shoal_runtime::container::{ContainerProcess, ContainerSpec, ExecSpec, Exit, Stats, WindowSize};
use shoal_runtime::log::LogLine;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::frame::Frame;
use super::*;
use crate::executor::health::{HealthStatus, OUTPUT_BYTES_MAX, Probe};
use crate::transport::tests::Node;

const PATIENCE: Duration = Duration::from_secs(30);

/// Tasks with logs of their own, and one command each for every way in which a command can end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scripted {
    pub(crate) logs: BTreeMap<TaskId, Vec<LogLine>>,
}

/// Returns a line of this second.
pub(crate) fn line(second: u32, stream: &str, text: &str) -> LogLine {
    LogLine {
        log: text.to_owned(),
        stream: stream.to_owned(),
        time: format!("2026-01-01T00:00:{second:02}.000000000Z"),
    }
}

impl Scripted {
    fn lines(&self, ask: &LogAsk) -> Vec<TaskLine> {
        let mut lines = Vec::new();
        for task in &ask.tasks {
            let all = self.logs.get(task).into_iter().flatten();
            let wanted: Vec<&LogLine> =
                all.filter(|line| if line.stream == "stderr" { ask.stderr } else { ask.stdout }).collect();
            let skipped = ask.tail.map_or(0, |tail| wanted.len().saturating_sub(tail as usize));
            lines.extend(wanted[skipped..].iter().map(|line| TaskLine { task: *task, line: (*line).clone() }));
        }
        lines.sort_by(|one, two| one.line.time.cmp(&two.line.time));
        lines
    }
}

impl Tasks for Scripted {
    fn logs(&self, ask: LogAsk) -> mpsc::Receiver<Said> {
        let (sender, receiver) = mpsc::channel(1);
        let lines = self.lines(&ask);
        let missing: Vec<TaskId> = ask.tasks.iter().filter(|task| !self.logs.contains_key(task)).copied().collect();
        tokio::spawn(async move {
            for task in missing {
                let _ = sender.send(Said::Missing(task, ReachError::Missing(task))).await;
            }
            for lines in lines.chunks(2) {
                let _ = sender.send(Said::Lines(lines.to_vec())).await;
            }
            if ask.follow {
                let _ = sender.send(Said::Quiet("2027".to_owned())).await;
                sender.closed().await;
            }
        });
        receiver
    }

    fn exec(&self, ask: ExecAsk) -> BoxFuture<'static, Result<Session, ReachError>> {
        async move {
            let command = ask.spec.args.first().cloned().unwrap_or_default();
            if command == "nowhere" {
                return Err(ReachError::NotRun { exit_code: 127, message: "no such command".to_owned() });
            }
            let (input, mut received) = mpsc::channel(1);
            let (sender, output) = mpsc::channel(1);
            tokio::spawn(async move {
                let out = |text: String| Output::Out(text.into());
                match command.as_str() {
                    // Prints without end, for whoever does not read.
                    "yes" => while sender.send(Output::Out(vec![b'y'; PIECE_BYTES_MAX].into())).await.is_ok() {},
                    "lost" => return,
                    _ => {}
                }
                while let Some(input) = received.recv().await {
                    let _ = match input {
                        Input::Piece(piece) => sender.send(Output::Out(piece)).await,
                        Input::Resize(size) => sender.send(out(format!("{}x{}", size.rows, size.columns))).await,
                        Input::End => break,
                    };
                }
                let _ = sender.send(Output::Err("bye\n".into())).await;
                let _ = sender.send(Output::Exit(3)).await;
            });
            Ok(Session { pid: 42, input, output })
        }
        .boxed()
    }

    /// Says what it is told, as `cat` would.
    fn attach(&self, ask: AttachAsk) -> BoxFuture<'static, Result<Session, ReachError>> {
        let spec = ExecSpec { args: vec!["cat".to_owned()], ..ExecSpec::default() };
        match self.logs.contains_key(&ask.task) {
            true => self.exec(ExecAsk { task: ask.task, spec, size: None }),
            false => async move { Err(ReachError::Missing(ask.task)) }.boxed(),
        }
    }

    fn ask(&self, task: TaskId, question: Question) -> BoxFuture<'static, Result<Answer, ReachError>> {
        let known = self.logs.contains_key(&task);
        let exit = Exit { code: 7, signal: None, oom: true, error: None, finished_at_ms: 2_000, started_at_ms: 1_000 };
        let answer = match question {
            _ if !known => Err(ReachError::Missing(task)),
            Question::Details => Ok(Answer::Details(Box::new(Details {
                spec: ContainerSpec {
                    id: task.to_string(),
                    args: vec!["serve".to_owned()],
                    ..ContainerSpec::default()
                },
                pid: Some(42),
                started_at_ms: 1_000,
                exit: None,
                health: Some(Health {
                    status: HealthStatus::Unhealthy,
                    failing_streak: 3,
                    probes: VecDeque::from([Probe {
                        started_at_ms: 1_000,
                        ended_at_ms: 2_000,
                        exit_code: 1,
                        output: "é".repeat(OUTPUT_BYTES_MAX),
                    }]),
                }),
            }))),
            Question::Sample => Ok(Answer::Sample(Box::new(Sample {
                stats: Stats { cpu_ns: 5, memory_bytes: 4_096, pids: 2, ..Stats::default() },
                machine_cpu_ns: 100,
                cpus: 2,
                memory_bytes: 1 << 30,
            }))),
            Question::Processes => {
                let command = "serve --port 80".to_owned();
                Ok(Answer::Processes(vec![ContainerProcess {
                    pid: 42,
                    parent: 1,
                    uid: 0,
                    cpu_ms: 61_000,
                    memory_bytes: 2_048,
                    command,
                }]))
            }
            Question::Signal(64) => Err(ReachError::NotRunning(task)),
            Question::Signal(_) | Question::Resize(_) => Ok(Answer::Done),
            Question::Stop { .. } | Question::Wait => Ok(Answer::Ended(exit)),
        };
        std::future::ready(answer).boxed()
    }
}

const TASK: TaskId = TaskId([1; 16]);

fn scripted() -> Scripted {
    let lines = vec![line(1, "stdout", "one\n"), line(2, "stderr", "two\n"), line(3, "stdout", "three\n")];
    Scripted { logs: BTreeMap::from([(TASK, lines)]) }
}

/// Two nodes of a shoal; the second asks the first.
struct Pair {
    tasks: Arc<dyn Tasks>,
    views: watch::Sender<Arc<Views>>,
    one: Node,
    two: Node,
}

impl Pair {
    async fn new() -> Self {
        let one = Node::founder();
        let two = Node::joined(&one, "two").await;
        two.knows(&[&one]);
        serve(&one.transport, Arc::new(scripted()));
        let mut views = crate::api::tests::views();
        views.members[0].id = one.id();
        let (views, watched) = watch::channel(Arc::new(views));
        let local = Arc::new(Scripted::default());
        let tasks = everywhere(two.id(), local, two.transport.clone(), watched)(one.id());
        Self { tasks, views, one, two }
    }

    async fn exec(&self, command: &str) -> Result<Session, ReachError> {
        let spec = ExecSpec { args: vec![command.to_owned()], ..ExecSpec::default() };
        timeout(PATIENCE, self.tasks.exec(ExecAsk { task: TASK, spec, size: None })).await.expect("in time")
    }
}

async fn next(session: &mut Session) -> Option<Output> {
    timeout(PATIENCE, session.output.recv()).await.expect("in time")
}

fn logs_of(tasks: Vec<TaskId>, follow: bool) -> LogAsk {
    LogAsk { tasks, tail: None, since: None, until: None, stdout: true, stderr: true, follow }
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_and_answers_come_from_another_node() {
    let pair = Pair::new().await;
    let other = TaskId([2; 16]);
    let mut said = pair.tasks.logs(logs_of(vec![TASK, other], false));
    let mut all = Vec::new();
    while let Some(next) = timeout(PATIENCE, said.recv()).await.expect("in time") {
        all.push(next);
    }
    assert_eq!(all[0], Said::Missing(other, ReachError::Missing(other)));
    let lines: Vec<&str> = all[1..]
        .iter()
        .flat_map(|said| if let Said::Lines(lines) = said { lines.as_slice() } else { panic!("{said:?}") })
        .map(|line| line.line.log.as_str())
        .collect();
    assert_eq!(lines, ["one\n", "two\n", "three\n"]);
    let answer = pair.tasks.ask(TASK, Question::Processes).await.expect("answered");
    assert!(matches!(&answer, Answer::Processes(all) if all[0].pid == 42), "{answer:?}");
    assert_eq!(pair.tasks.ask(other, Question::Sample).await, Err(ReachError::Missing(other)));
    let too_many = vec![TASK; LOG_TASKS_MAX + 1];
    let refused = pair.tasks.logs(logs_of(too_many, false)).recv().await;
    assert!(matches!(refused, Some(Said::Failed(ReachError::Refused(_)))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_on_another_node_has_both_directions_and_an_end() {
    let pair = Pair::new().await;
    let mut session = pair.exec("cat").await.expect("runs");
    assert_eq!(session.pid, 42);
    let piece = Bytes::from_static(b"\0hello\xff");
    session.input.send(Input::Piece(piece.clone())).await.expect("taken");
    assert_eq!(next(&mut session).await, Some(Output::Out(piece)));
    session.input.send(Input::Resize(WindowSize { rows: 5, columns: 7 })).await.expect("taken");
    assert_eq!(next(&mut session).await, Some(Output::Out("5x7".into())));
    // The end of the input is not the end of the output.
    drop(std::mem::replace(&mut session.input, mpsc::channel(1).0));
    assert_eq!(next(&mut session).await, Some(Output::Err("bye\n".into())));
    assert_eq!(next(&mut session).await, Some(Output::Exit(3)));
    assert_eq!(next(&mut session).await, None);
    assert!(matches!(pair.exec("nowhere").await, Err(ReachError::NotRun { exit_code: 127, .. })));
    let mut lost = pair.exec("lost").await.expect("runs");
    assert_eq!(next(&mut lost).await, None, "no exit status is made up");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_slows_down_who_writes_and_nobody_else() {
    let pair = Pair::new().await;
    let mut floods = Vec::new();
    for _ in 0..4 {
        floods.push(pair.exec("yes").await.expect("runs"));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = pair.two.transport.traffic().received_bytes;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let after = pair.two.transport.traffic().received_bytes;
    assert!(after - before < 1 << 20, "{} bytes came though nobody read", after - before);
    assert!(before < 64 << 20, "{before} bytes wait");
    timeout(PATIENCE, pair.tasks.ask(TASK, Question::Sample)).await.expect("in time").expect("answered");
    assert!(matches!(next(&mut floods[0]).await, Some(Output::Out(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_or_is_down_ends_what_was_asked_of_it() {
    let pair = Pair::new().await;
    let mut followed = pair.tasks.logs(logs_of(vec![TASK], true));
    let mut session = pair.exec("cat").await.expect("runs");
    while !matches!(timeout(PATIENCE, followed.recv()).await.expect("in time"), Some(Said::Quiet(_))) {}
    let mut views = Views::clone(&pair.views.borrow());
    views.members[0].state = MemberState::Down;
    pair.views.send_replace(Arc::new(views));
    let failed = timeout(PATIENCE, followed.recv()).await.expect("in time");
    assert!(matches!(failed, Some(Said::Failed(ReachError::Unreachable(_)))), "{failed:?}");
    assert_eq!(next(&mut session).await, None);
    let refused = timeout(PATIENCE, pair.tasks.ask(TASK, Question::Sample)).await.expect("in time");
    assert!(matches!(refused, Err(ReachError::Unreachable(_))), "{refused:?}");
}

/// A process that is killed closes its connections as if it had said all: then its logs did not come again.
#[tokio::test(flavor = "multi_thread")]
async fn logs_that_break_off_are_not_taken_for_whole() {
    let one = Node::founder();
    let two = Node::joined(&one, "two").await;
    two.knows(&[&one]);
    let mut streams = one.transport.accept_task_streams(1);
    tokio::spawn(async move {
        let (_, mut stream) = streams.recv().await.expect("it is asked");
        frame::read(&mut stream).await.expect("it reads");
        frame::write(&mut stream, &Frame::Log(Said::Quiet("2026".to_owned()))).await.expect("it writes");
        stream.close().await.expect("it closes");
    });
    let mut views = crate::api::tests::views();
    views.members[0].id = one.id();
    let (_views, watched) = watch::channel(Arc::new(views));
    let tasks = everywhere(two.id(), Arc::new(Scripted::default()), two.transport.clone(), watched)(one.id());
    let mut followed = tasks.logs(logs_of(vec![TASK], true));
    let mut all = Vec::new();
    while let Some(said) = timeout(PATIENCE, followed.recv()).await.expect("in time") {
        all.push(said);
    }
    assert!(matches!(all.as_slice(), [Said::Quiet(_), Said::Failed(ReachError::Unreachable(_))]), "{all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_a_stream_ends_that_stream_alone() {
    let pair = Pair::new().await;
    let garbage: [&[u8]; 4] = [b"", &[0; 64], b"\x01\xff\xff\xff\xff", b"\x01\0\0\0\x02\xff\xff"];
    for bytes in garbage {
        let mut stream = pair.two.transport.open_task_stream(pair.one.id()).await.expect("opens");
        stream.write_all(bytes).await.expect("writes");
        stream.close().await.expect("closes");
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("in time");
        assert_eq!(answer, b"");
    }
    timeout(PATIENCE, pair.tasks.ask(TASK, Question::Sample)).await.expect("in time").expect("answered");
}
