//! The register's laws, against histories that are possible and an oracle that is slower and independent.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use proptest::prelude::*;
use shoal_cluster::NodeId;
use shoal_cluster::clock::Stamp;
use shoal_cluster::crdt::{Actor, Context, Dot, Register, Version};
use shoal_cluster::limits::VERSIONS_MAX;

/// One step of a history of one register on a few replicas.
#[derive(Clone, Debug)]
enum Step {
    Write { replica: usize, stamp: u64 },
    Merge { from: usize, to: usize },
}

const REPLICAS: usize = 4;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let write = (0..REPLICAS, 0_u64..6).prop_map(|(replica, stamp)| Step::Write { replica, stamp });
    let merge = (0..REPLICAS, 0..REPLICAS).prop_map(|(from, to)| Step::Merge { from, to });
    proptest::collection::vec(prop_oneof![write, merge], 1..30)
}

fn join_all(register: &mut Register, versions: &[Version]) {
    for version in versions {
        register.join(version.clone());
    }
}

/// Plays a history and returns every version that was ever written, with the indices of those that its writer had
/// seen, kept apart from the register's own contexts.
fn play(steps: &[Step]) -> Vec<(Version, Vec<usize>)> {
    let mut replicas = vec![(Register::default(), Vec::<usize>::new(), 0_u64); REPLICAS];
    let mut written: Vec<(Version, Vec<usize>)> = Vec::new();
    for step in steps {
        match *step {
            Step::Write { replica, stamp } => {
                let (register, seen, counter) = &mut replicas[replica];
                *counter += 1;
                let actor = Actor { node: NodeId([replica as u8; 32]), epoch: 1 };
                let later = written.iter().enumerate().filter(|(index, _)| seen.contains(index));
                let floor = later.map(|(_, (version, _))| version.stamp.wall_ms).max().unwrap_or(0);
                let version = Version {
                    dot: Dot::new(actor, *counter),
                    context: register.context(),
                    stamp: Stamp { wall_ms: floor + stamp + 1, logical: 0 },
                    value: Some(vec![written.len() as u8]),
                    author: Vec::new(),
                    signature: Vec::new(),
                };
                register.join(version.clone());
                written.push((version, seen.clone()));
                seen.push(written.len() - 1);
            }
            Step::Merge { from, to } => {
                let (source, source_seen, _) = replicas[from].clone();
                join_all(&mut replicas[to].0, source.versions());
                replicas[to].1.extend(source_seen);
                replicas[to].1.sort_unstable();
                replicas[to].1.dedup();
            }
        }
    }
    written
}

/// What should survive of some versions: those that no writer of another of them had seen.
fn oracle(written: &[(Version, Vec<usize>)], present: &[usize]) -> Vec<Version> {
    let overwritten = |index: usize| present.iter().any(|other| written[*other].1.contains(&index));
    let mut survivors: Vec<Version> =
        present.iter().filter(|index| !overwritten(**index)).map(|index| written[*index].0.clone()).collect();
    survivors.sort_by_key(|version| std::cmp::Reverse((version.stamp, version.dot.actor, version.dot.counter)));
    survivors
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn versions_in_any_order_and_number_give_what_the_oracle_says(
        steps in steps(),
        order in proptest::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let written = play(&steps);
        prop_assume!(!written.is_empty());
        let order: Vec<usize> = order.iter().map(|index| index.index(written.len())).collect();
        let mut register = Register::default();
        for index in &order {
            register.join(written[*index].0.clone());
        }
        let mut present = order;
        present.sort_unstable();
        present.dedup();
        prop_assert_eq!(register.versions(), oracle(&written, &present));
    }

    #[test]
    fn joins_are_idempotent_commutative_and_associative(
        steps in steps(),
        parts in proptest::collection::vec(0_u8..8, 30),
    ) {
        let written = play(&steps);
        let part = |bit: u8| {
            let mut register = Register::default();
            for (index, (version, _)) in written.iter().enumerate() {
                if parts[index % parts.len()] & bit != 0 {
                    register.join(version.clone());
                }
            }
            register
        };
        let joined = |left: &Register, right: &Register| {
            let mut left = left.clone();
            join_all(&mut left, right.versions());
            left
        };
        let (a, b, c) = (part(1), part(2), part(4));
        prop_assert_eq!(joined(&a, &a), a.clone());
        prop_assert_eq!(joined(&a, &b), joined(&b, &a));
        prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
    }
}

fn version(node: u8, stamp: u64, context: Context) -> Version {
    Version {
        dot: Dot::new(Actor { node: NodeId([node; 32]), epoch: 1 }, 1),
        context,
        stamp: Stamp { wall_ms: stamp, logical: 0 },
        value: None,
        author: Vec::new(),
        signature: Vec::new(),
    }
}

#[test]
fn more_concurrent_versions_than_may_be_kept_lose_the_oldest_stamps() {
    let mut register = Register::default();
    for node in 0..40 {
        register.join(version(node, 1_000 - u64::from(node), Context::default()));
    }
    assert_eq!(register.versions().len(), VERSIONS_MAX);
    assert_eq!(register.winner().map(|winner| winner.stamp.wall_ms), Some(1_000));
    let late = register.join(version(50, 1, Context::default()));
    assert!(!late.added && late.removed.is_empty());
}

#[test]
fn of_two_contents_under_one_dot_every_order_keeps_the_same() {
    let one = Version { value: Some(vec![1]), ..version(1, 5, Context::default()) };
    let two = Version { value: Some(vec![2]), ..version(1, 5, Context::default()) };
    let mut registers = [Register::default(), Register::default()];
    join_all(&mut registers[0], &[one.clone(), two.clone()]);
    join_all(&mut registers[1], &[two.clone(), one]);
    assert_eq!(registers[0], registers[1]);
    assert_eq!(registers[0].versions(), [two]);
}
