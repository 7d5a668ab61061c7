//! Reports that reach a node by pieces that are lost, doubled and reordered: in the end it has what the author says.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use proptest::prelude::*;
use shoal_cluster::limits::ITEMS_PER_NODE_MAX;
use shoal_cluster::plan::addresses::Addresses;
use shoal_cluster::reports::task::{TaskReport, TaskState};
use shoal_cluster::reports::{Followed, Head, ReportRange, Reports};
use shoal_cluster::{NodeId, ServiceId, TaskId};

const AUTHOR: NodeId = NodeId([1; 32]);

fn task(number: u8, state: TaskState) -> TaskReport {
    TaskReport {
        id: TaskId([number; 16]),
        service: ServiceId([9; 16]),
        slot: u32::from(number),
        revision: 1,
        addresses: Addresses { v4: None, v6: Ipv6Addr::LOCALHOST },
        state,
        stable: false,
        over: false,
        since_ms: 5,
        error: String::new(),
        exit_code: None,
    }
}

#[derive(Clone, Debug)]
enum Step {
    Task {
        number: u8,
        state: TaskState,
    },
    Retract {
        number: u8,
    },
    Images {
        names: BTreeSet<String>,
    },
    /// The node starts again.
    Restart,
    /// Somebody claims to have more than there is.
    Claim {
        epochs: u64,
        seq: u64,
    },
    /// Node `to` asks node `from` (0 is the author), which answers in at most `bytes` bytes.
    Ask {
        from: usize,
        to: usize,
        bytes: usize,
    },
    /// An answer given before reaches a node, for the second time or the first.
    Replay {
        answer: prop::sample::Index,
        to: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let state = prop_oneof![Just(TaskState::Starting), Just(TaskState::Running), Just(TaskState::Failed)];
    let task = (0..6_u8, state).prop_map(|(number, state)| Step::Task { number, state });
    let retract = (0..6_u8).prop_map(|number| Step::Retract { number });
    let images = proptest::collection::btree_set("[ab]{1,2}", 0..4).prop_map(|names| Step::Images { names });
    let claim = (0..2_u64, 0..50_u64).prop_map(|(epochs, seq)| Step::Claim { epochs, seq });
    let ask = (0..3_usize, 1..3_usize, 1..600_usize).prop_map(|(from, to, bytes)| Step::Ask { from, to, bytes });
    let replay = (any::<prop::sample::Index>(), 1..3_usize).prop_map(|(answer, to)| Step::Replay { answer, to });
    let step =
        prop_oneof![6 => task, 3 => retract, 2 => images, 1 => Just(Step::Restart), 1 => claim, 8 => ask, 4 => replay];
    proptest::collection::vec(step, 1..80)
}

/// What the author says, kept apart from its plane.
#[derive(Default)]
struct Oracle {
    tasks: BTreeMap<TaskId, TaskReport>,
    images: BTreeSet<String>,
}

impl Oracle {
    fn report(&mut self, report: TaskReport) {
        let known = self.tasks.get(&report.id).map(|known| known.state);
        if known.is_none_or(|known| known <= report.state) {
            self.tasks.insert(report.id, report);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn in_the_end_everybody_has_what_the_author_says(steps in steps()) {
        let mut planes: Vec<Reports> = (1..=3).map(|number| Reports::new(NodeId([number; 32]), 1)).collect();
        planes[0].begin();
        let mut epoch = 1;
        let mut oracle = Oracle::default();
        let mut answers: Vec<ReportRange> = Vec::new();
        for step in steps {
            match step {
                Step::Task { number, state } => {
                    planes[0].report_task(task(number, state));
                    oracle.report(task(number, state));
                }
                Step::Retract { number } => {
                    planes[0].retract_task(&TaskId([number; 16]));
                    oracle.tasks.remove(&TaskId([number; 16]));
                }
                Step::Images { names } => {
                    planes[0].report_images(&names);
                    oracle.images = names;
                }
                Step::Restart => {
                    // A claim may have carried the epoch on; the node's own count is durable and does not know.
                    epoch = planes[0].head(&AUTHOR).epoch.max(epoch) + 1;
                    planes[0] = Reports::new(AUTHOR, epoch);
                    planes[0].begin();
                    oracle = Oracle::default();
                }
                Step::Claim { epochs, seq } => {
                    let head = planes[0].head(&AUTHOR);
                    planes[0].outdo(Head { epoch: head.epoch + epochs, seq: head.seq + seq, ..head });
                }
                Step::Ask { from, to, bytes } => {
                    let head = planes[to].head(&AUTHOR);
                    if let Some(range) = planes[from].range(&AUTHOR, head, bytes) {
                        planes[to].follow(&range);
                        answers.push(range);
                    }
                }
                Step::Replay { answer, to } if !answers.is_empty() => {
                    planes[to].follow(&answers[answer.index(answers.len())]);
                }
                Step::Replay { .. } => {}
            }
        }
        // By way of the second node only: a relay is as good as the author.
        for (from, to) in [(0, 1), (1, 2)] {
            for _ in 0..200 {
                let head = planes[to].head(&AUTHOR);
                let Some(range) = planes[from].range(&AUTHOR, head, 300) else { break };
                prop_assert_eq!(planes[to].follow(&range), Followed::New);
            }
            let report = planes[to].of(&AUTHOR).unwrap();
            prop_assert_eq!(&report.tasks, &oracle.tasks);
            prop_assert_eq!(&report.images, &oracle.images);
            prop_assert_eq!(planes[to].head(&AUTHOR), planes[0].head(&AUTHOR));
        }
    }
}

#[test]
fn an_edition_that_is_not_complete_does_not_count_yet() {
    let mut author = Reports::new(AUTHOR, 1);
    author.begin();
    author.report_task(task(1, TaskState::Running));
    let mut other = Reports::new(NodeId([2; 32]), 1);
    other.follow(&author.range(&AUTHOR, Head::default(), 10_000).unwrap());
    let mut again = Reports::new(AUTHOR, 2);
    again.begin();
    for number in 1..=4 {
        again.report_task(task(number, TaskState::Running));
    }
    let first = again.range(&AUTHOR, other.head(&AUTHOR), 1).unwrap();
    assert!(!first.complete);
    assert_eq!(other.follow(&first), Followed::New);
    assert_eq!(other.of(&AUTHOR).unwrap().tasks.len(), 1, "the earlier run's report still counts");
    let rest = again.range(&AUTHOR, other.head(&AUTHOR), 10_000).unwrap();
    assert_eq!(other.follow(&rest), Followed::New);
    assert_eq!(other.of(&AUTHOR).unwrap().tasks.len(), 4);
}

#[test]
fn a_node_whose_tasks_come_and_go_for_ever_is_still_followed() {
    let mut author = Reports::new(AUTHOR, 1);
    author.begin();
    let mut other = Reports::new(NodeId([2; 32]), 1);
    for number in 0..3 * ITEMS_PER_NODE_MAX as u128 {
        let id = TaskId(number.to_be_bytes());
        author.report_task(TaskReport { id, ..task(1, TaskState::Running) });
        if number >= 3 {
            author.retract_task(&TaskId((number - 3).to_be_bytes()));
        }
        if number % 1_000 == 0 {
            while let Some(range) = author.range(&AUTHOR, other.head(&AUTHOR), 60_000) {
                assert_eq!(other.follow(&range), Followed::New);
            }
            assert_eq!(other.of(&AUTHOR).unwrap().tasks, author.of(&AUTHOR).unwrap().tasks);
        }
    }
    assert!(author.head(&AUTHOR).edition > 0, "what was withdrawn is forgotten now and then");
}

#[test]
fn a_range_about_oneself_or_with_a_gap_changes_nothing() {
    let mut author = Reports::new(AUTHOR, 1);
    author.begin();
    for number in 0..3 {
        author.report_task(task(number, TaskState::Running));
    }
    let late = author.range(&AUTHOR, Head { epoch: 1, edition: 0, seq: 2 }, 10_000).unwrap();
    let mut other = Reports::new(NodeId([2; 32]), 1);
    assert_eq!(other.follow(&late), Followed::Gap);
    assert!(other.of(&AUTHOR).is_none());
    let changes = author.changes();
    assert_eq!((author.follow(&late), author.changes()), (Followed::Known, changes));
}
