use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// Write a service: its number, replicas, revision.
    Write(u8, u32, u64),
    Remove(u8),
    Assign(Option<u8>),
    /// The n-th container that is being made runs.
    Run(usize),
    /// The n-th container ends.
    End(usize, i32),
    /// The n-th container that was asked to stop ends.
    Stop(usize),
    Pass(u64),
    Elsewhere(u8, u32, bool),
    Steal,
    Garbage(u8),
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..3_u8, 0..4_u32, 1..4_u64).prop_map(|(service, replicas, revision)| Step::Write(service, replicas, revision)),
        1 => (0..3_u8).prop_map(Step::Remove),
        2 => prop::option::of(0..2_u8).prop_map(Step::Assign),
        6 => (0..8_usize).prop_map(Step::Run),
        3 => (0..8_usize, 0..2_i32).prop_map(|(which, code)| Step::End(which, code)),
        6 => (0..8_usize).prop_map(Step::Stop),
        3 => (0..100_000_u64).prop_map(Step::Pass),
        1 => (0..3_u8, 1..4_u32, any::<bool>()).prop_map(|(service, slot, runs)| Step::Elsewhere(service, slot, runs)),
        1 => Just(Step::Steal),
        1 => any::<u8>().prop_map(Step::Garbage),
    ]
}

fn name(service: u8) -> String {
    alloc::format!("s{service}")
}

impl World {
    fn step(&mut self, step: Step, epoch: u64) {
        match step {
            Step::Write(number, replicas, revision) => {
                self.intent.write_service(1, &service(number, &name(number), replicas, revision));
            }
            Step::Remove(number) => {
                self.intent.remove_service(1, &service(number, &name(number), 0, 1).spec.name);
            }
            Step::Assign(node) => self.assigned = node.map(id),
            Step::Run(which) => {
                let made: Vec<TaskId> =
                    self.containers.iter().filter(|(_, (_, running))| !running).map(|(id, _)| *id).collect();
                if let Some(id) = made.get(which) {
                    self.run(*id);
                }
            }
            Step::End(which, code) => {
                if let Some(id) = self.containers.keys().nth(which).copied() {
                    self.stopping.remove(&id);
                    self.end(id, code);
                }
            }
            Step::Stop(which) => {
                if let Some(id) = self.stopping.iter().nth(which).copied() {
                    self.stop(id);
                }
            }
            Step::Pass(millis) => self.pass(Duration::from_millis(millis)),
            Step::Elsewhere(service, slot, runs) => {
                let state = if runs { TaskState::Running } else { TaskState::Failed };
                let address = self.plan().blocks[&id(1)].host(2);
                report(&mut self.reports, 1, epoch, [task(50, service, slot, state, address)]);
            }
            Step::Steal => {
                if let Some(number) = self.block() {
                    for thief in 10..40 {
                        let theirs = Intent::new(Actor { node: id(thief), epoch }).claim_block(1, number);
                        self.intent.learn(1, theirs);
                    }
                }
            }
            Step::Garbage(number) => {
                self.agent.handle(self.now, TaskEvent::Starting(TaskId([number; 16])));
                self.agent.handle(
                    self.now,
                    TaskEvent::Ended { id: TaskId([number; 16]), exit_code: None, error: String::new() },
                );
            }
        }
        self.settle();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens, the invariants of [`World::check`] hold, the agent comes to rest, and once the world is kind
    /// again exactly the wanted slots run, in the wanted revision.
    #[test]
    fn every_sequence_of_events_ends_with_what_is_wanted(list in prop::collection::vec(steps(), 0..60)) {
        let mut world = World::new(&[service(0, "s0", 2, 1)]);
        world.obedient = false;
        let mut world = world.recovered(Vec::new());
        for (epoch, step) in list.into_iter().enumerate() {
            world.step(step, epoch as u64 + 1);
        }
        world.obedient = true;
        world.assigned = Some(id(0));
        for made in world.containers.keys().copied().collect::<Vec<_>>() {
            world.run(made);
        }
        for stopping in core::mem::take(&mut world.stopping) {
            world.stop(stopping);
        }
        for _ in 0..20 {
            world.pass(Duration::from_secs(61));
        }
        let wanted: BTreeSet<(ServiceId, u32, u64)> = world.intent.services()
            .flat_map(|service| (1..=service.spec.replicas).map(|slot| (service.id, slot, service.revision)))
            .collect();
        let found: BTreeSet<(ServiceId, u32, u64)> = world.own().into_iter()
            .filter(|task| task.state == TaskState::Running)
            .map(|task| (task.service, task.slot, task.revision))
            .collect();
        prop_assert_eq!(wanted, found);
        prop_assert_eq!(world.containers.len(), world.running().len());
        let kept = world.own().iter().filter(|task| task.state.is_final()).count();
        prop_assert!(kept <= TASK_HISTORY_PER_SLOT * 9);
    }
}
