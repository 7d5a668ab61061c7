use super::*;
use crate::intent::service::Mode;

const SECOND: Duration = Duration::from_secs(1);

/// A job of so many tasks, so many at once.
fn job(replicas: u32, concurrent: u32) -> Service {
    let mut job = with_policy(service(1, "job", replicas, 1), RestartCondition::OnFailure, None);
    job.spec.mode = Mode::ReplicatedJob { concurrent };
    job
}

/// Ends the task that runs in a slot.
fn end(world: &mut World, slot: u32, exit_code: i32) {
    let runs = |task: &&TaskReport| (task.slot, task.state) == (slot, TaskState::Running);
    let task = world.own().into_iter().find(runs).expect("the slot runs").id;
    world.end(task, exit_code);
}

fn slots(world: &World, state: TaskState) -> Vec<u32> {
    world.in_state(state).into_iter().map(|(slot, _)| slot).collect()
}

#[test]
fn each_slot_of_a_job_runs_once_and_no_more_at_once_than_may() {
    let mut world = World::new(&[job(5, 2)]).recovered(Vec::new());
    assert_eq!(slots(&world, TaskState::Running), [0, 1]);
    end(&mut world, 1, 0);
    assert_eq!(slots(&world, TaskState::Running), [0, 3], "the second lane goes on, whatever the first does");
    end(&mut world, 3, 0);
    assert_eq!(slots(&world, TaskState::Running), [0]);
    for slot in [0, 2, 4] {
        end(&mut world, slot, 0);
    }
    world.pass(100 * SECOND);
    assert_eq!((slots(&world, TaskState::Running), world.started.len()), (Vec::new(), 5));
    assert_eq!(slots(&world, TaskState::Complete), [0, 1, 2, 3, 4]);
    let job = world.intent.jobs().next().unwrap();
    assert!(world.intent.is_done(job) && world.intent.completed(job).count() == 5);
}

#[test]
fn a_task_that_fails_is_tried_again_and_does_not_count() {
    let mut world = World::new(&[job(2, 1)]).recovered(Vec::new());
    end(&mut world, 0, 7);
    assert_eq!(slots(&world, TaskState::Running), []);
    world.pass(SECOND);
    assert_eq!(slots(&world, TaskState::Running), [0]);
    end(&mut world, 0, 0);
    assert_eq!(slots(&world, TaskState::Running), [1]);
}

#[test]
fn a_job_that_begins_anew_forgets_what_was_done_and_stops_what_runs() {
    let mut world = World::new(&[job(3, 2)]).recovered(Vec::new());
    end(&mut world, 0, 0);
    let anew = Service { version: 2, revision: 2, ..job(3, 2) };
    world.intent.write_service(2, &anew);
    world.settle();
    assert_eq!(world.running(), [(0, 2), (1, 2)]);
    assert_eq!(world.in_state(TaskState::Shutdown), [(1, 1), (2, 1)]);
    for slot in [0, 1, 2] {
        end(&mut world, slot, 0);
    }
    let anew = world.intent.jobs().next().unwrap();
    assert!(world.intent.is_done(anew));
}

#[test]
fn what_a_job_has_done_survives_the_node_and_goes_with_the_job() {
    let mut world = World::new(&[job(2, 2)]).recovered(Vec::new());
    end(&mut world, 0, 0);
    // Another run of the node, which knows of no task.
    (world.agent, world.reports) = (Agent::new(id(0), 2), Reports::new(id(0), 2));
    world.containers.clear();
    let mut world = world.recovered(Vec::new());
    assert_eq!(slots(&world, TaskState::Running), [1]);
    world.intent.remove_service(2, &job(2, 2).spec.name);
    world.settle();
    assert!(world.intent.outlived().is_empty() && slots(&world, TaskState::Running).is_empty());
}

#[test]
fn a_task_of_a_job_is_not_moved_while_it_runs() {
    let mut world = World::new(&[job(1, 1)]).recovered(Vec::new());
    world.assigned = Some(id(1));
    world.settle();
    assert_eq!(slots(&world, TaskState::Running), [0]);
    let address = world.plan().blocks[&id(1)].host(2);

    let mut world = World::new(&[job(1, 1)]);
    report(&mut world.reports, 1, 1, [task(50, 1, 0, TaskState::Running, address)]);
    let mut world = world.recovered(Vec::new());
    assert!(world.started.is_empty(), "node 1 runs it");
    report(&mut world.reports, 1, 2, [task(50, 1, 0, TaskState::Failed, address)]);
    world.settle();
    assert_eq!(slots(&world, TaskState::Running), [0]);
}

#[test]
fn a_global_job_runs_once_on_its_node() {
    let mut global = job(1, 1);
    global.spec.mode = Mode::GlobalJob;
    let mut world = World::new(&[global]);
    world.assigned = None;
    let mut world = world.recovered(Vec::new());
    assert_eq!(world.running().len(), 1, "one of two nodes");
    let task = world.the_running();
    world.end(task, 0);
    world.pass(100 * SECOND);
    assert_eq!((world.running().len(), world.started.len()), (0, 1));
    let job = world.intent.jobs().next().unwrap();
    assert_eq!(world.intent.completed(job).count(), 1);
}
