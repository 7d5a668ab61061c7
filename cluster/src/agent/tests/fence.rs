use super::*;
use crate::intent::service::PARTITION_LABEL;
use crate::limits::FENCE;
use crate::membership::member::MemberState::{Alive, Down, Left, Suspect};
use crate::membership::message::Body;
use crate::membership::{MembershipMessage, member::Member};
use crate::plan::tests::{member, own_membership};

const SECOND: Duration = Duration::from_secs(1);
/// What Docker gives a task to end.
const GRACE: Duration = Duration::from_secs(10);

fn fenced() -> Service {
    let mut service = service(1, "db", 1, 1);
    service.spec.labels.insert(PARTITION_LABEL.into(), "fenced".into());
    service
}

fn counting(number: u8, state: MemberState) -> Member {
    let mut member = member(number, state);
    member.meta.counts = true;
    member.meta.leaving = state == Left;
    member
}

/// The membership of node 0 after another told it of these members, which all count.
fn seen(others: &[(u8, MemberState)]) -> Membership {
    let mut membership = own_membership(counting(0, Alive).meta);
    others.iter().for_each(|(number, state)| membership.restore(counting(*number, *state)));
    let told = others.iter().map(|(number, state)| counting(*number, *state)).collect();
    let body = Body::List { after: None, until: None, members: told, answer: false };
    membership.handle(Instant::default(), id(1), MembershipMessage { body, updates: Vec::new() });
    membership
}

/// Node 0 with a fenced service of one replica, which is assigned to it.
fn world(others: &[(u8, MemberState)]) -> World {
    let mut world = World::new(&[fenced()]);
    world.membership = seen(others);
    world
}

/// A node reports, and says itself that this is all.
fn say(world: &mut World, number: u8, epoch: u64, tasks: impl IntoIterator<Item = TaskReport>) {
    report(&mut world.reports, number, epoch, tasks);
    let head = world.reports.head(&id(number));
    world.reports.confirm(&id(number), head);
}

fn away(state: TaskState) -> TaskReport {
    let addresses = plan::addresses::Block::derive(&SHOAL, &id(1), Some(77)).host(2);
    task(9, 1, 1, state, addresses)
}

#[test]
fn a_fenced_slot_starts_once_its_place_is_settled_and_all_others_have_said_what_they_run() {
    let mut world = world(&[(1, Alive), (2, Alive)]).recovered(Vec::new());
    say(&mut world, 1, 1, []);
    world.pass(SECOND * 5);
    assert!(world.running().is_empty(), "node 2 has said nothing");
    world.pass(SECOND);
    assert_eq!(world.agent.awaited().collect::<Vec<_>>(), [&id(2)]);
    say(&mut world, 2, 1, []);
    world.pass(SECOND);
    assert_eq!(world.running(), [(1, 1)]);
    assert_eq!(world.agent.awaited().count(), 0);
}

/// After a split others may pass on the state of a node's report from before, or a part of it.
#[test]
fn what_others_pass_on_of_a_nodes_report_is_not_its_word() {
    let mut world = world(&[(1, Alive), (2, Alive)]).recovered(Vec::new());
    say(&mut world, 1, 1, []);
    report(&mut world.reports, 2, 1, []);
    world.pass(SECOND * 600);
    assert!(world.running().is_empty());
    say(&mut world, 2, 1, []);
    world.reports.doubt(id(2));
    report(&mut world.reports, 2, 2, []);
    world.pass(SECOND);
    assert!(world.running().is_empty(), "it came up anew");
    assert_eq!(world.agent.awaited().collect::<Vec<_>>(), [&id(2)]);
    say(&mut world, 2, 3, []);
    world.pass(SECOND);
    assert_eq!(world.running(), [(1, 1)]);
}

#[test]
fn a_fenced_slot_in_which_something_lives_elsewhere_waits_for_its_end() {
    for state in [TaskState::Preparing, TaskState::Running, TaskState::Stopping] {
        let mut world = world(&[(1, Alive), (2, Alive)]).recovered(Vec::new());
        say(&mut world, 1, 1, [away(state)]);
        say(&mut world, 2, 1, []);
        world.pass(SECOND * 600);
        assert!(world.running().is_empty(), "{state:?}");
        say(&mut world, 1, 2, [away(TaskState::Shutdown)]);
        world.pass(SECOND);
        assert_eq!(world.running(), [(1, 1)]);
    }
}

#[test]
fn a_node_without_the_majority_stops_fenced_tasks_without_draining_and_starts_none() {
    let mut world = world(&[(1, Alive), (2, Alive)]).recovered(Vec::new());
    say(&mut world, 1, 1, []);
    say(&mut world, 2, 1, []);
    world.pass(SECOND * 5);
    assert_eq!(world.running(), [(1, 1)]);
    world.membership = seen(&[(1, Down), (2, Suspect)]);
    world.pass(SECOND);
    assert!(world.running().is_empty() && world.drained.is_empty());
    world.pass(SECOND * 600);
    assert_eq!(world.started.len(), 1);
    world.membership = seen(&[(1, Down), (2, Alive)]);
    world.pass(FENCE + GRACE);
    assert_eq!(world.running(), [(1, 1)], "half and itself are more than half, and node 1 has been down for long");
}

#[test]
fn a_fenced_slot_waits_until_a_node_that_is_down_must_have_ended_its_task() {
    let mut world = world(&[(1, Alive), (2, Down)]).recovered(Vec::new());
    say(&mut world, 1, 1, []);
    world.pass(FENCE + GRACE - SECOND);
    assert!(world.running().is_empty());
    assert!(world.agent.poll_timeout().is_some_and(|due| due <= world.now.mono + SECOND), "it looks again");
    world.pass(SECOND);
    assert_eq!(world.running(), [(1, 1)]);
}

#[test]
fn a_node_that_was_removed_is_waited_for_like_one_that_is_down() {
    let mut world = world(&[(1, Alive), (2, Down)]).recovered(Vec::new());
    say(&mut world, 1, 1, []);
    world.membership.remove(world.now.mono, id(2));
    assert_eq!(world.membership.members()[&id(2)].state, Left);
    world.pass(FENCE + GRACE - SECOND);
    assert!(world.running().is_empty());
    world.pass(SECOND);
    assert_eq!(world.running(), [(1, 1)]);
}

#[test]
fn a_node_that_left_is_waited_for_no_longer_than_its_tasks_may_take_to_end() {
    let mut world = world(&[(1, Alive), (2, Left)]).recovered(Vec::new());
    say(&mut world, 1, 1, []);
    world.pass(GRACE);
    assert_eq!(world.running(), [(1, 1)]);
}

#[test]
fn a_fenced_task_ends_before_another_runs_where_its_slot_went() {
    let mut world = world(&[(1, Alive), (2, Alive)]).recovered(Vec::new());
    say(&mut world, 1, 1, []);
    say(&mut world, 2, 1, []);
    world.pass(SECOND * 5);
    assert_eq!(world.running(), [(1, 1)]);
    world.assigned = Some(id(1));
    world.settle();
    assert!(world.running().is_empty());
}

#[test]
fn a_daemon_that_was_away_keeps_its_fenced_tasks_while_it_looks_for_the_others_but_not_for_ever() {
    let mut before = world(&[(1, Alive), (2, Alive)]).recovered(Vec::new());
    say(&mut before, 1, 1, []);
    say(&mut before, 2, 1, []);
    before.pass(SECOND * 5);
    let order = before.started[0].clone();
    let mut world = world(&[(1, Down), (2, Down)]);
    world.intent = before.intent;
    world.agent = Agent::new(id(0), 2);
    let mut world = world.recovered([order].into());
    world.pass(SECOND * 9);
    assert_eq!(world.running(), [(1, 1)]);
    world.pass(SECOND);
    assert!(world.running().is_empty());
}
