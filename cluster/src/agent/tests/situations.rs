use alloc::collections::BTreeMap;

use super::*;
use crate::id::RolloutId;
use crate::intent::constraint::Constraint;
use crate::intent::node::{Availability, NodeIntent, NodeSpec};
use crate::intent::service::Mode;
use crate::intent::service::container::{Mount, MountSource, VolumeName};
use crate::intent::update::Rollout;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn nothing_starts_before_the_executor_has_said_what_outlived_the_last_run() {
    let mut world = World::new(&[service(1, "web", 2, 1)]);
    world.settle();
    assert!(world.started.is_empty() && world.block().is_none());
    let world = world.recovered(Vec::new());
    assert_eq!(world.running(), [(1, 1), (2, 1)]);
    assert!(world.block().is_some());
}

#[test]
fn a_block_is_claimed_before_the_first_task_and_its_addresses_are_taken_in_order() {
    let world = World::new(&[service(1, "web", 3, 1)]).recovered(Vec::new());
    let block = world.plan().blocks[&id(0)];
    let addresses: Vec<Addresses> = world.started.iter().map(|order| order.addresses).collect();
    assert_eq!(addresses, [2, 3, 4].map(|host| block.host(host)));
    assert!(addresses.iter().all(|addresses| addresses.v4.is_some()));
}

#[test]
fn a_task_is_reported_through_all_its_states() {
    let mut world = World::new(&[service(1, "web", 1, 1)]);
    world.obedient = false;
    let mut world = world.recovered(Vec::new());
    let task = world.started[0].id;
    assert_eq!(world.in_state(TaskState::Preparing), [(1, 1)]);
    world.event(TaskEvent::Starting(task));
    assert_eq!(world.in_state(TaskState::Starting), [(1, 1)]);
    world.now.wall_ms = 7_000;
    world.event(TaskEvent::Running(task));
    world.event(TaskEvent::Starting(task));
    assert_eq!(world.running(), [(1, 1)]);
    assert_eq!(world.own()[0].since_ms, 7_000);
    world.intent.remove_service(2, &service(1, "web", 1, 1).spec.name);
    world.settle();
    assert_eq!(world.in_state(TaskState::Stopping), [(1, 1)]);
    world.stop(task);
    world.settle();
    assert!(world.own().is_empty(), "tasks of a removed service are forgotten");
    assert_eq!(world.removed, [task]);
}

#[test]
fn a_task_that_does_not_work_leaves_the_names_at_once_and_its_end_is_a_failure_whatever_its_exit_code() {
    let mut world = World::new(&[service(1, "web", 1, 1)]).recovered(Vec::new());
    let task = world.the_running();
    world.event(TaskEvent::Unhealthy(task));
    assert_eq!(world.in_state(TaskState::Stopping), [(1, 1)]);
    assert_eq!(world.started.len(), 1, "its slot is not free before it has ended");
    world.event(TaskEvent::Running(task));
    assert_eq!(world.running(), []);
    world.end(task, 0);
    let failed = world.own().into_iter().find(|report| report.id == task).expect("it is shown");
    assert_eq!((failed.state, failed.exit_code), (TaskState::Failed, Some(0)));
    world.pass(Duration::from_secs(1));
    assert_eq!((world.running(), world.started.len()), ([(1, 1)].into(), 2));
}

#[test]
fn a_task_that_was_stopped_before_its_check_failed_was_stopped() {
    let mut world = World::new(&[service(1, "web", 1, 1)]);
    world.obedient = false;
    let mut world = world.recovered(Vec::new());
    let task = world.started[0].id;
    world.event(TaskEvent::Running(task));
    let name = service(1, "web", 1, 1).spec.name;
    world.intent.write_service(2, &service(1, "web", 0, 1));
    world.settle();
    assert_eq!(world.in_state(TaskState::Stopping), [(1, 1)], "{name}");
    world.event(TaskEvent::Unhealthy(task));
    world.end(task, 137);
    assert_eq!(world.own().iter().filter(|report| report.state == TaskState::Failed).count(), 0);
}

#[test]
fn a_task_found_again_whose_check_was_never_passed_does_not_run_yet() {
    let world = World::new(&[service(1, "web", 1, 1)]).recovered(Vec::new());
    let order = world.started[0].clone();
    let mut again = World::new(&[service(1, "web", 1, 1)]);
    again.intent.claim_block(1, world.block().expect("it was claimed"));
    again.event(TaskEvent::Recovered { running: Vec::new(), starting: [order.clone()].into() });
    assert_eq!((again.in_state(TaskState::Starting), again.started.len()), ([(1, 1)].into(), 0));
    again.event(TaskEvent::Running(order.id));
    assert_eq!(again.running(), [(1, 1)]);
}

/// Without the claim being durable first, a volume could hold data that nobody knows of.
#[test]
fn a_volume_is_claimed_before_the_task_that_makes_it_starts() {
    let name = VolumeName::new("data").expect("a valid name");
    let mounting = |mode| {
        let mut service = service(1, "web", 2, 1);
        service.spec.mode = mode;
        let source = MountSource::Volume { name: Some(name.clone()), no_copy: false, labels: BTreeMap::new() };
        service.spec.task.container.mounts = [Mount { target: "/data".into(), read_only: false, source }].into();
        World::new(&[service]).recovered(Vec::new())
    };
    let world = mounting(Mode::Replicated);
    assert_eq!(world.intent.volumes().get(&name), Some(&id(0)));
    assert_eq!(world.started.len(), 2, "the second slot follows once the first has claimed it");
    let global = mounting(Mode::Global);
    assert!(global.intent.volumes().is_empty() && global.started.len() == 2);
}

#[test]
fn a_crash_loop_is_backed_off_shown_with_its_error_and_its_history_is_bounded() {
    let mut world = World::new(&[service(1, "web", 1, 1)]).recovered(Vec::new());
    let mut waits = Vec::new();
    for _ in 0..9 {
        world.end(world.the_running(), 3);
        assert_eq!(world.running(), []);
        let failed = world.own().into_iter().max_by_key(|task| task.since_ms).expect("it is shown");
        assert_eq!((failed.state, failed.exit_code), (TaskState::Failed, Some(3)));
        assert_eq!(failed.error, "task: non-zero exit (3)");
        let due = world.agent.poll_timeout().expect("it waits");
        let wait = due.since(world.now.mono);
        waits.push(wait.as_secs());
        world.pass(wait - Duration::from_millis(1));
        assert_eq!(world.running(), [], "not too early");
        world.pass(Duration::from_millis(1));
        assert_eq!(world.running(), [(1, 1)]);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(world.in_state(TaskState::Failed).len(), TASK_HISTORY_PER_SLOT);
    assert_eq!(world.removed.len(), 9 - TASK_HISTORY_PER_SLOT);
    assert_eq!(world.removed, world.started[..5].iter().map(|order| order.id).collect::<Vec<_>>(), "the oldest go");
    world.pass(SECOND * 30);
    world.end(world.the_running(), 3);
    let failures = world.events.iter().filter(|event| matches!(event, Event::TaskFailed { .. })).count();
    assert_eq!(failures, 10);
    assert_eq!(world.agent.poll_timeout().map(|due| due.since(world.now.mono)), Some(SECOND));
}

#[test]
fn an_update_ends_the_delay_of_a_crash_loop() {
    let mut world = World::new(&[service(1, "web", 1, 1)]).recovered(Vec::new());
    for _ in 0..5 {
        world.end(world.the_running(), 1);
        world.pass(SECOND * 60);
    }
    world.end(world.the_running(), 1);
    assert_eq!(world.running(), []);
    world.intent.write_service(1, &service(1, "web", 1, 2));
    world.settle();
    assert_eq!(world.running(), [(1, 2)]);
}

#[test]
fn restart_conditions_are_kept() {
    for (condition, exit_code, restarts) in [
        (RestartCondition::None, 1, false),
        (RestartCondition::None, 0, false),
        (RestartCondition::OnFailure, 0, false),
        (RestartCondition::OnFailure, 1, true),
        (RestartCondition::Any, 0, true),
        (RestartCondition::Any, 1, true),
    ] {
        let service = with_policy(service(1, "web", 1, 1), condition, None);
        let mut world = World::new(&[service]).recovered(Vec::new());
        world.end(world.the_running(), exit_code);
        world.pass(SECOND * 3_600);
        assert_eq!(!world.running().is_empty(), restarts, "{condition:?} {exit_code}");
        let state = if exit_code == 0 { TaskState::Complete } else { TaskState::Failed };
        assert_eq!(world.in_state(state), [(1, 1)]);
    }
}

#[test]
fn a_slot_is_given_up_after_as_many_restarts_as_allowed() {
    let mut world = World::new(&[with_policy(service(1, "web", 1, 1), RestartCondition::Any, Some(2))]);
    world.obedient = false;
    let mut world = world.recovered(Vec::new());
    for count in 1..=3 {
        assert_eq!(world.started.len(), count);
        world.end(world.started[count - 1].id, 1);
        world.pass(SECOND * 60);
    }
    assert_eq!(world.started.len(), 3);
    assert!(world.events.ends_with(&[Event::TaskFailed { id: world.started[2].id, retry_ms: None }]));
}

#[test]
fn an_error_of_the_executor_is_cut_between_characters() {
    let mut world = World::new(&[service(1, "web", 1, 1)]).recovered(Vec::new());
    let task = world.the_running();
    world.containers.remove(&task);
    world.event(TaskEvent::Ended { id: task, exit_code: None, error: "é".repeat(ERROR_BYTES_MAX) + "x" });
    let failed = world.own()[0].clone();
    assert_eq!(failed.state, TaskState::Failed);
    assert!(failed.error.len() <= ERROR_BYTES_MAX && failed.error.chars().all(|character| character == 'é'));
}

#[test]
fn a_moved_task_is_kept_until_the_new_one_runs() {
    let mut world = World::new(&[service(1, "web", 1, 1)]).recovered(Vec::new());
    world.assigned = Some(id(1));
    world.settle();
    assert_eq!(world.running(), [(1, 1)], "nobody else runs it yet");
    let address = world.plan().blocks[&id(1)].host(2);
    for (epoch, state, kept) in
        [(1, TaskState::Starting, true), (2, TaskState::Failed, true), (3, TaskState::Running, false)]
    {
        report(&mut world.reports, 1, epoch, [task(50, 1, 1, state, address)]);
        world.settle();
        assert_eq!(!world.running().is_empty(), kept, "{state:?}");
    }
    assert_eq!(world.in_state(TaskState::Shutdown), [(1, 1)]);
    assert_eq!(world.started.len(), 1);
}

/// Found by a simulation: what replaced a task ran and ended before its node could tell.
#[test]
fn a_moved_task_ends_when_the_new_one_has_done_its_work_or_when_no_other_will_come_and_it_has_to_go() {
    let mut world = World::new(&[service(1, "web", 1, 1)]).recovered(Vec::new());
    world.assigned = Some(id(1));
    let address = world.plan().blocks[&id(1)].host(2);
    let over = |state| TaskReport { over: true, ..task(50, 1, 1, state, address) };
    report(&mut world.reports, 1, 1, [over(TaskState::Failed)]);
    world.settle();
    assert_eq!(world.running(), [(1, 1)], "nothing better will come");
    report(&mut world.reports, 1, 2, [task(51, 1, 1, TaskState::Complete, address)]);
    world.settle();
    assert_eq!(world.running(), [(1, 1)], "another will follow");
    report(&mut world.reports, 1, 3, [over(TaskState::Complete)]);
    world.settle();
    assert_eq!(world.running(), []);

    let mut drained = World::new(&[service(1, "web", 1, 1)]).recovered(Vec::new());
    drained.assigned = Some(id(1));
    let spec = NodeSpec { availability: Availability::Drain, ..NodeSpec::default() };
    drained.intent.write_node(1, &NodeIntent { node: id(0), version: 1, spec, removed: false });
    report(&mut drained.reports, 1, 1, [over(TaskState::Failed)]);
    drained.settle();
    assert_eq!(drained.running(), []);
}

#[test]
fn a_moved_task_is_kept_until_a_node_that_came_back_confirms_what_it_said_before() {
    let mut world = World::new(&[service(1, "web", 1, 1)]).recovered(Vec::new());
    let address = world.plan().blocks[&id(1)].host(2);
    report(&mut world.reports, 1, 1, [task(9, 1, 1, TaskState::Running, address)]);
    world.reports.doubt(id(1));
    world.assigned = Some(id(1));
    world.settle();
    assert_eq!(world.running(), [(1, 1)], "it may have lost its power");
    assert_eq!(world.agent.awaited().collect::<Vec<_>>(), [&id(1)], "and is to be asked");
    let head = world.reports.head(&id(1));
    world.reports.confirm(&id(1), Head { seq: head.seq + 1, ..head });
    world.settle();
    assert_eq!(world.running(), [(1, 1)], "it has said more, which is not known here");
    world.reports.confirm(&id(1), head);
    world.settle();
    assert_eq!(world.running(), []);
    assert_eq!(world.agent.awaited().next(), None);
}

#[test]
fn a_moved_task_is_kept_while_the_new_node_is_down_or_runs_another_revision() {
    let mut world = World::new(&[service(1, "web", 1, 2)]).recovered(Vec::new());
    world.assigned = Some(id(1));
    let address = world.plan().blocks[&id(1)].host(2);
    report(&mut world.reports, 1, 1, [task(50, 1, 1, TaskState::Running, address)]);
    world.settle();
    assert_eq!(world.running(), [(1, 2)], "revision 1 is neither the same nor the present");
    let mut newer = task(51, 1, 1, TaskState::Running, address);
    newer.revision = 2;
    report(&mut world.reports, 1, 2, [newer]);
    world.membership = membership(&[(1, MemberState::Down)]);
    world.settle();
    assert_eq!(world.running(), [(1, 2)], "what a node that is down reports does not count");
    world.membership = membership(&[(1, MemberState::Alive)]);
    world.settle();
    assert_eq!(world.running(), []);
}

/// Found by simulation seed 11 with 12 nodes: a write of another half won, whose revision was the lower number.
#[test]
fn a_moved_task_of_a_revision_that_lost_ends_once_the_present_one_runs_elsewhere() {
    let mut world = World::new(&[service(1, "web", 1, 6)]).recovered(Vec::new());
    world.settle();
    assert_eq!(world.running(), [(1, 6)]);
    world.intent.write_service(1, &service(1, "web", 1, 5));
    world.assigned = Some(id(1));
    let address = world.plan().blocks[&id(1)].host(2);
    let mut present = task(50, 1, 1, TaskState::Running, address);
    present.revision = 5;
    report(&mut world.reports, 1, 1, [present]);
    world.settle();
    assert_eq!(world.running(), []);
}

#[test]
fn a_slot_that_comes_back_before_it_moved_keeps_its_task() {
    let mut world = World::new(&[service(1, "web", 3, 1)]).recovered(Vec::new());
    for assigned in [id(1), id(0), id(1), id(0)] {
        world.assigned = Some(assigned);
        world.settle();
    }
    assert_eq!((world.running().len(), world.started.len()), (3, 3));
}

#[test]
fn scaling_down_stops_the_upper_slots_at_once_and_forgets_them() {
    let mut world = World::new(&[service(1, "web", 5, 1)]).recovered(Vec::new());
    world.intent.write_service(1, &service(1, "web", 2, 1));
    world.settle();
    assert_eq!(world.running(), [(1, 1), (2, 1)]);
    assert_eq!(world.own().len(), 2);
    world.intent.write_service(1, &service(1, "web", 4, 1));
    world.settle();
    assert_eq!(world.running().len(), 4);
    assert_eq!(world.started.len(), 7);
}

#[test]
fn a_new_revision_replaces_tasks_one_by_one_stop_first() {
    let mut world = World::new(&[service(1, "web", 3, 1), service(2, "db", 1, 1)]).recovered(Vec::new());
    world.obedient = false;
    world.intent.write_service(1, &service(1, "web", 3, 2));
    world.settle();
    for _ in 0..3 {
        assert_eq!(world.stopping.len(), 1, "one of the service at a time");
        assert_eq!(world.running().len(), 3, "two of web, one of db");
        let stopped = *world.stopping.first().expect("one stops");
        world.stop(stopped);
        world.settle();
        let started = world.started.last().expect("it is replaced").id;
        assert!(world.stopping.is_empty(), "the next waits until the new one runs");
        world.run(started);
        world.settle();
    }
    assert_eq!(world.running(), [(1, 1), (1, 2), (2, 2), (3, 2)]);
}

#[test]
fn a_new_revision_that_fails_leaves_the_others_alone() {
    let rolled = |revision| {
        let mut service = service(1, "web", 3, revision);
        service.rollout = Some(Rollout { id: RolloutId(revision), started_ms: 1, backward: false });
        service
    };
    let mut world = World::new(&[service(1, "web", 3, 1)]).recovered(Vec::new());
    world.obedient = false;
    world.intent.write_service(1, &rolled(2));
    world.settle();
    let stopped = *world.stopping.first().expect("one stops");
    world.stop(stopped);
    world.settle();
    for _ in 0..5 {
        world.end(world.started.last().expect("it was tried").id, 127);
        world.pass(SECOND * 60);
    }
    assert_eq!(world.running().len(), 2);
    world.obedient = true;
    world.intent.write_service(1, &rolled(3));
    world.settle();
    for _ in 0..3 {
        world.pass(SECOND * 5);
    }
    assert_eq!(world.running(), [(1, 3), (2, 3), (3, 3)]);
}

#[test]
fn tasks_that_outlived_the_last_run_are_kept_with_their_ids_if_they_are_wanted() {
    let earlier = World::new(&[service(1, "web", 2, 1), service(2, "db", 1, 1)]).recovered(Vec::new());
    let orders = earlier.started.clone();
    let mut world = World::new(&[service(1, "web", 2, 1)]);
    world.agent = Agent::new(id(0), 2);
    world.intent.claim_block(1, earlier.block().expect("it was claimed"));
    let mut world = world.recovered(orders.clone());
    assert!(world.started.is_empty(), "nothing new is needed");
    assert_eq!(world.running(), [(1, 1), (2, 1)]);
    assert_eq!(world.containers.len(), 2, "that of the removed service is stopped");
    world.end(orders[0].id, 1);
    world.pass(SECOND);
    let ids: BTreeSet<TaskId> = orders.iter().map(|order| order.id).collect();
    assert!(!ids.contains(&world.started[0].id), "ids of two runs differ");
}

#[test]
fn recovered_tasks_whose_slot_runs_elsewhere_or_that_are_double_or_outdated_are_stopped() {
    let earlier = World::new(&[service(1, "web", 2, 1)]).recovered(Vec::new());
    let mut orders = earlier.started.clone();
    let mut double = orders[0].clone();
    double.id = TaskId([77; 16]);
    double.addresses = earlier.plan().blocks[&id(0)].host(99);
    orders.push(double);
    let claim = |world: &mut World| {
        world.intent.claim_block(1, earlier.block().expect("it was claimed"));
    };
    let mut world = World::new(&[service(1, "web", 2, 1)]);
    claim(&mut world);
    world.assigned = Some(id(1));
    let address = world.plan().blocks[&id(1)].host(2);
    report(&mut world.reports, 1, 1, [task(50, 1, 2, TaskState::Running, address)]);
    let world = world.recovered(orders.clone());
    assert_eq!(world.running(), [(1, 1)], "one of the two in slot 1 is kept, slot 2 runs elsewhere");

    let mut world = World::new(&[service(1, "web", 2, 2)]);
    world.agent = Agent::new(id(0), 2);
    claim(&mut world);
    let world = world.recovered(orders);
    assert_eq!(world.running(), [(1, 2), (2, 2)]);
}

#[test]
fn a_block_won_by_another_node_is_left_and_its_tasks_move_to_a_new_one() {
    let mut world = World::new(&[service(1, "web", 2, 1)]).recovered(Vec::new());
    let lost = world.block().expect("it was claimed");
    let before = world.plan().blocks[&id(0)];
    // The node whose key hashes lower keeps a block that two claimed.
    let winner = (1..=255_u8).find(|number| {
        let mut trial = world.intent.clone();
        let theirs = Intent::new(Actor { node: id(*number), epoch: 1 }).claim_block(1, lost);
        trial.learn(1, theirs);
        trial.blocks().any(|block| block == (lost, id(*number)))
    });
    let winner = winner.expect("some key hashes lower");
    let theirs = Intent::new(Actor { node: id(winner), epoch: 1 }).claim_block(1, lost);
    world.intent.learn(1, theirs);
    world.settle();
    assert_eq!(world.events, [Event::BlockLost { to: id(winner) }]);
    let after = world.plan().blocks[&id(0)];
    assert!(after.v4.is_some() && after.v4 != before.v4);
    assert_eq!(world.running(), [(1, 1), (2, 1)]);
    let running = world.own().into_iter().filter(|task| task.state == TaskState::Running);
    assert!(running.flat_map(|task| task.addresses.iter()).all(|address| after.contains(address)));
}

#[test]
fn a_node_has_as_many_tasks_as_addresses_and_the_rest_wait_for_one() {
    let mut world = World::new(&[service(1, "web", 300, 1)]).recovered(Vec::new());
    assert_eq!(world.running().len(), 253);
    assert_eq!(world.agent.poll_timeout(), None, "nothing is tried in vain");
    world.end(world.the_running(), 1);
    assert_eq!(world.running().len(), 253, "the freed address goes to a slot that waits for one");
}

#[test]
fn containers_that_the_agent_does_not_know_are_stopped_and_removed() {
    let mut world = World::new(&[]).recovered(Vec::new());
    let stranger = TaskId([66; 16]);
    world.obedient = false;
    world.event(TaskEvent::Running(stranger));
    assert!(world.stopping.contains(&stranger));
    world.stop(stranger);
    world.settle();
    assert_eq!(world.removed, [stranger]);
}

#[test]
fn a_node_that_leaves_keeps_its_tasks_until_others_run_them() {
    let mut world = World::new(&[service(1, "web", 2, 1)]).recovered(Vec::new());
    world.assigned = None;
    world.membership.leave(world.now.mono);
    world.settle();
    assert_eq!(world.running().len(), 2);
    let block = world.plan().blocks[&id(1)];
    let tasks = [1, 2].map(|slot| task(50 + slot as u8, 1, slot, TaskState::Running, block.host(1 + slot as u8)));
    report(&mut world.reports, 1, 1, tasks);
    world.settle();
    assert_eq!(world.running(), []);
    assert!(world.containers.is_empty());
}

#[test]
fn a_lesser_revision_that_won_after_a_split_replaces_a_greater_one() {
    let mut world = World::new(&[service(1, "web", 2, 5)]).recovered(Vec::new());
    world.intent.write_service(1, &service(1, "web", 2, 4));
    world.settle();
    assert_eq!(world.running(), [(1, 4), (2, 4)]);
    world.intent.write_service(1, &service(1, "web", 2, 3));
    world.assigned = Some(id(1));
    let block = world.plan().blocks[&id(1)];
    let tasks = [1, 2].map(|slot| {
        let report = task(50 + slot as u8, 1, slot, TaskState::Running, block.host(1 + slot as u8));
        TaskReport { revision: 3, ..report }
    });
    report(&mut world.reports, 1, 1, tasks);
    world.settle();
    assert_eq!(world.running(), []);
}

#[test]
fn what_runs_is_not_ended_for_what_does_not_run_yet_and_no_node_is_filled_beyond_what_it_has() {
    let mut displaced = 0;
    for number in 1..30 {
        let mut web = service(number, "web", 2, 1);
        web.spec.reserved.nano_cpus = 1;
        let mut world = World::new(&[web]);
        world.assigned = None;
        let mut world = world.recovered(Vec::new());
        let before = world.running();
        assert_eq!(before.len(), 1, "each of two nodes has one CPU");
        world.membership = membership(&[(1, MemberState::Down)]);
        world.settle();
        assert_eq!(world.running(), before);
        let slot = world.plan().assignments.slots(&ServiceId([number; 16])).map(|(slot, _)| slot).collect::<Vec<_>>();
        displaced += usize::from(slot != [before[0].0]);
        world.end(world.the_running(), 3);
        world.pass(SECOND * 2);
        let after: Vec<u32> = world.running().iter().map(|(slot, _)| *slot).collect();
        assert_eq!(after, slot, "with its room free the slot starts that the plan has here");
    }
    assert!(displaced > 0, "the plan never left the slot that ran without a node");
}

/// A label is taken off the only node that had it: no node may run the task any more, and this one does not go on.
#[test]
fn a_task_ends_where_its_constraints_are_met_no_longer_though_no_node_takes_it() {
    let mut web = service(1, "web", 1, 1);
    web.spec.placement.constraints = alloc::vec![Constraint::parse("node.labels.disk==ssd").expect("it is one")];
    let mut world = World::new(&[web]);
    world.assigned = None;
    let label = |labels: &[(&str, &str)], version| NodeIntent {
        node: id(0),
        version,
        removed: false,
        spec: NodeSpec {
            availability: Availability::Active,
            labels: labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        },
    };
    world.intent.write_node(1, &label(&[("disk", "ssd")], 1));
    let mut world = world.recovered(Vec::new());
    world.settle();
    assert_eq!(world.running().len(), 1);
    world.intent.write_node(2, &label(&[], 2));
    world.settle();
    assert_eq!(world.running(), []);
}

#[test]
fn a_task_drains_only_if_others_answer_in_its_place() {
    for (from, to, drained) in [(3, 2, 1), (3, 1, 2), (1, 0, 0)] {
        let mut world = World::new(&[service(1, "web", from, 1)]).recovered(Vec::new());
        assert_eq!(world.running().len(), from as usize);
        world.intent.write_service(2, &service(1, "web", to, 1));
        world.settle();
        assert_eq!((world.running().len(), world.drained.len()), (to as usize, drained), "{from} to {to}");
    }
}
