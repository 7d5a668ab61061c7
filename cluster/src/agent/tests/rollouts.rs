use super::*;
use crate::id::RolloutId;
use crate::intent::history::{Ended, Kept};
use crate::intent::update::{FailureAction, Rollout, Ruling, UpdateConfig, UpdateOrder, Verdict};
use crate::plan::rollout;

const MONITOR: Duration = Duration::from_millis(400);
const ROLLOUT: RolloutId = RolloutId(7);

/// A service of so many slots that is to move from revision 1 to revision 2.
fn moving(replicas: u32, edit: impl FnOnce(&mut UpdateConfig)) -> Service {
    let before = service(1, "web", replicas, 1);
    let mut after = service(1, "web", replicas, 2);
    after.spec.update = UpdateConfig { monitor_ms: 400, ..UpdateConfig::default() };
    edit(&mut after.spec.update);
    after.spec.rollback = UpdateConfig { monitor_ms: 400, ..UpdateConfig::default() };
    after.rollout = Some(Rollout { id: ROLLOUT, started_ms: 1, backward: false });
    after.history = alloc::vec![Kept {
        version: 1,
        revision: 1,
        author: id(0),
        written_ms: 1,
        ended: Ended::Completed,
        spec: before.spec,
    }];
    after
}

/// All slots run revision 1, then the service is to move.
fn world(replicas: u32, edit: impl FnOnce(&mut UpdateConfig)) -> World {
    let mut world = World::new(&[service(1, "web", replicas, 1)]).recovered(Vec::new());
    world.beside = true;
    world.intent.write_service(1, &moving(replicas, edit));
    world.settle();
    world
}

fn rule(world: &mut World, verdict: Verdict) {
    let ruling = Ruling { service: ServiceId([1; 16]), rollout: ROLLOUT, verdict, task: None };
    world.intent.write_ruling(1, &ruling);
    world.settle();
}

fn newest(world: &World, revision: u64) -> TaskId {
    world.started.iter().rev().find(|order| order.revision == revision).expect("one was started").id
}

#[test]
fn the_next_slots_move_when_those_before_have_run_for_the_monitor_time_and_the_delay() {
    let mut world = world(4, |config| (config.parallelism, config.delay_ms) = (2, 600));
    assert_eq!(world.running(), [(1, 2), (2, 2), (3, 1), (4, 1)]);
    world.pass(MONITOR);
    assert_eq!(world.running(), [(1, 2), (2, 2), (3, 1), (4, 1)], "the delay is not over");
    world.pass(Duration::from_millis(600));
    assert_eq!(world.running(), [(1, 2), (2, 2), (3, 2), (4, 2)]);
    assert!(world.own().iter().filter(|task| task.stable).count() == 2);
}

#[test]
fn a_slot_that_fails_is_told_and_the_others_stay_until_a_verdict() {
    let mut world = world(3, |_| ());
    world.end(newest(&world, 2), 1);
    let failed = world.reports.failures(&ServiceId([1; 16]), ROLLOUT.there());
    assert_eq!((failed.0, failed.1), (BTreeSet::from([1]), Some(newest(&world, 2))));
    world.pass(Duration::from_secs(2));
    world.pass(MONITOR);
    assert_eq!(world.running(), [(1, 2), (2, 1), (3, 1)], "the slot is tried again, and no other moves");
    rule(&mut world, Verdict::Paused);
    world.pass(MONITOR * 10);
    assert_eq!(world.running(), [(1, 2), (2, 1), (3, 1)]);
    // A task of a slot that has not moved dies, and its successor is not of the revision that failed.
    let old =
        world.own().into_iter().find(|task| task.slot == 3 && task.state == TaskState::Running).expect("it runs").id;
    world.end(old, 1);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.running(), [(1, 2), (2, 1), (3, 1)]);
    rule(&mut world, Verdict::RolledBack);
    assert_eq!(world.running(), [(1, 1), (2, 1), (3, 1)]);
}

#[test]
fn what_fails_after_the_monitor_time_is_no_failure_of_the_rollout() {
    let mut world = world(2, |config| config.delay_ms = 60_000);
    world.pass(MONITOR * 2);
    world.end(newest(&world, 2), 1);
    assert!(world.reports.failures(&ServiceId([1; 16]), ROLLOUT.there()).0.is_empty());
}

#[test]
fn failures_that_may_be_hold_up_nobody() {
    let mut world =
        world(2, |config| (config.failure_ratio_max_ppm, config.failure_action) = (0, FailureAction::Continue));
    world.end(newest(&world, 2), 1);
    assert_eq!(world.running(), [(2, 2)], "the second slot moves while the first waits to be tried again");
}

#[test]
fn start_first_the_old_task_stays_until_the_new_one_has_run_for_the_monitor_time() {
    let mut world = world(2, |config| config.order = UpdateOrder::StartFirst);
    assert_eq!(world.running(), [(1, 1), (1, 2), (2, 1)]);
    world.pass(MONITOR);
    assert_eq!(world.running(), [(1, 2), (2, 1), (2, 2)]);
    world.end(newest(&world, 2), 1);
    assert_eq!(world.running(), [(1, 2), (2, 1)], "the old one was never taken away");
    rule(&mut world, Verdict::RolledBack);
    assert_eq!(world.running(), [(1, 1), (2, 1)]);
    rule(&mut world, Verdict::RollbackCompleted);
    assert_eq!(world.running(), [(1, 1), (2, 1)]);
}

#[test]
fn on_the_way_back_its_own_parallelism_holds() {
    let mut world = world(4, |config| config.parallelism = 0);
    assert_eq!(world.running(), [(1, 2), (2, 2), (3, 2), (4, 2)], "all at once");
    rule(&mut world, Verdict::RolledBack);
    assert_eq!(world.running(), [(1, 1), (2, 2), (3, 2), (4, 2)], "one at a time");
    for back in 2..=4 {
        world.pass(MONITOR);
        assert_eq!(world.running().iter().filter(|(_, revision)| *revision == 1).count(), back);
    }
}

#[test]
fn scaled_up_on_the_way_new_slots_run_the_base_until_it_is_their_turn() {
    let mut world = world(2, |_| ());
    world.intent.write_service(1, &moving(4, |_| ()));
    world.settle();
    assert_eq!(world.running(), [(1, 2), (2, 1), (3, 1), (4, 1)]);
    for _ in 0..3 {
        world.pass(MONITOR);
    }
    assert_eq!(world.running(), [(1, 2), (2, 2), (3, 2), (4, 2)]);
}

/// Found by a simulation: nothing was said between the order to start and the end.
#[test]
fn a_task_that_does_not_even_start_has_failed_too() {
    let mut world = World::new(&[service(1, "web", 2, 1)]).recovered(Vec::new());
    world.obedient = false;
    world.intent.write_service(1, &moving(2, |_| ()));
    world.settle();
    let stopped = *world.stopping.first().expect("one stops");
    world.stop(stopped);
    world.settle();
    let started = newest(&world, 2);
    world.containers.remove(&started);
    world.event(TaskEvent::Ended { id: started, exit_code: None, error: "no such image".into() });
    assert_eq!(world.reports.failures(&ServiceId([1; 16]), ROLLOUT.there()).0, BTreeSet::from([1]));
}

/// Found by `shoal-simulations steps`: the daemon dies with two tasks in a slot, and none is known to have arrived after.
#[test]
fn a_slot_that_moved_stays_moved_when_its_daemon_starts_again() {
    let start_first = |config: &mut UpdateConfig| config.order = UpdateOrder::StartFirst;
    let mut earlier = world(2, start_first);
    earlier.pass(MONITOR);
    assert_eq!(earlier.running(), [(1, 2), (2, 1), (2, 2)]);
    let mut again = World::new(&[moving(2, start_first)]);
    again.agent = Agent::new(id(0), 2);
    again.beside = true;
    again.intent.claim_block(1, earlier.block().expect("it was claimed"));
    let mut again = again.recovered(earlier.containers.into_values().map(|(order, _)| order).collect());
    assert_eq!(again.running(), [(1, 2), (2, 1), (2, 2)], "the newer of the two is not taken away");
    again.pass(MONITOR);
    assert_eq!(again.running(), [(1, 2), (2, 2)]);
}

/// Found by a simulation: the old task ran on for ever, since the new one never ran for the monitor time.
#[test]
fn start_first_a_new_task_that_did_its_work_takes_over_too() {
    let mut world = World::new(&[service(1, "web", 2, 1)]).recovered(Vec::new());
    world.beside = true;
    let after = moving(2, |config| config.order = UpdateOrder::StartFirst);
    world.intent.write_service(1, &with_policy(after, RestartCondition::OnFailure, None));
    world.settle();
    assert_eq!(world.running(), [(1, 1), (1, 2), (2, 1)]);
    world.end(newest(&world, 2), 0);
    assert_eq!(world.running(), [(2, 1), (2, 2)], "the slot has arrived, and the next one moves");
}

/// Found by a simulation: a rollout to what a slot had given up before waited for it for ever.
#[test]
fn a_slot_whose_task_ended_for_good_has_arrived_until_another_follows() {
    let never = |service| with_policy(service, RestartCondition::None, None);
    let mut world = World::new(&[never(service(1, "web", 2, 2))]).recovered(Vec::new());
    world.end(newest(&world, 2), 1);
    let after = never(moving(2, |_| ()));
    world.intent.write_service(1, &after);
    world.settle();
    let arrived = |world: &World, service: &Service| {
        let plan = world.plan();
        let (membership, reports) = (&world.membership, &world.reports);
        let facts = rollout::Facts { assignments: &plan.assignments, membership, reports };
        rollout::Standing::of(service, &rollout::Goal::of(service, Verdict::Progressing), facts).arrived
    };
    world.pass(MONITOR);
    assert_eq!(arrived(&world, &after), BTreeSet::from([1, 2]));
    // The same image once more: there is a task to come.
    let again = Service { revision: 3, ..after.clone() };
    world.intent.write_service(1, &again);
    world.settle();
    assert!(world.own().into_iter().all(|task| !(task.over && task.slot == 1)));
    assert!(!arrived(&world, &again).contains(&2));
}
