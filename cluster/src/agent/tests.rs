//! Sequences of events against an executor that obeys, with the real planes around the agent.

extern crate std;

use alloc::collections::BTreeSet;
use core::time::Duration;

use super::*;
use crate::crdt::Actor;
use crate::intent::service::{RestartCondition, RestartPolicy, Service};
use crate::limits::{ERROR_BYTES_MAX, TASK_HISTORY_PER_SLOT};
use crate::membership::member::MemberState;
use crate::plan;
use crate::plan::addresses::Addresses;
use crate::plan::tests::{id, membership, report, service, task};
use crate::reports::Head;

mod fence;
mod jobs;
mod random;
mod rollouts;
mod situations;

const SHOAL: [u8; 32] = [9; 32];

/// Node 0 with its agent; node 1 is up too.
struct World {
    agent: Agent,
    intent: Intent,
    membership: Membership,
    reports: Reports,
    now: Now,
    /// Which node every slot is assigned to; the placement's choice if absent.
    assigned: Option<NodeId>,
    /// The containers that the executor has, and whether each has answered that it runs.
    containers: BTreeMap<TaskId, (TaskOrder, bool)>,
    started: Vec<TaskOrder>,
    removed: Vec<TaskId>,
    drained: Vec<TaskId>,
    stopping: BTreeSet<TaskId>,
    events: Vec<Event>,
    /// Whether containers run, and end when asked, at once.
    obedient: bool,
    /// Whether a slot may have two live tasks, of two revisions.
    beside: bool,
}

impl World {
    /// All slots are assigned to node 0, whose containers run at once.
    fn new(services: &[Service]) -> Self {
        let mut world = Self {
            agent: Agent::new(id(0), 1),
            intent: Intent::new(Actor { node: id(0), epoch: 1 }),
            membership: membership(&[(1, MemberState::Alive)]),
            reports: Reports::new(id(0), 1),
            now: Now { mono: Instant::default(), wall_ms: 1_000 },
            assigned: Some(id(0)),
            containers: BTreeMap::new(),
            started: Vec::new(),
            removed: Vec::new(),
            drained: Vec::new(),
            stopping: BTreeSet::new(),
            events: Vec::new(),
            obedient: true,
            beside: false,
        };
        for service in services {
            world.intent.write_service(1, service);
        }
        world
    }

    fn recovered(mut self, orders: Vec<TaskOrder>) -> Self {
        self.containers.extend(orders.iter().map(|order| (order.id, (order.clone(), true))));
        self.event(TaskEvent::Recovered { running: orders, starting: Vec::new() });
        self
    }

    fn plan(&self) -> Plan {
        let mut plan = plan::plan(&SHOAL, &self.intent, &self.membership, &self.reports);
        if let Some(assigned) = self.assigned {
            plan.assignments = plan.assignments.iter().map(|(slot, _)| (slot, assigned)).collect();
        }
        plan
    }

    fn event(&mut self, event: TaskEvent) {
        self.agent.handle(self.now, event);
        self.settle();
    }

    /// Lets agent, planes and executor answer each other until nothing is left to say.
    fn settle(&mut self) {
        for _ in 0..1_000 {
            let plan = self.plan();
            self.agent.reconcile(self.now, &plan, &self.intent, &self.reports, &self.membership);
            let mut quiet = true;
            while let Some(action) = self.agent.poll() {
                quiet = false;
                self.carry_out(action);
            }
            if quiet {
                return;
            }
            self.check();
        }
        panic!("the agent never comes to rest: {:?}", self.reports.of(&id(0)));
    }

    fn carry_out(&mut self, action: AgentAction) {
        match action {
            AgentAction::Report(report) => {
                let known = self.reports.of(&id(0)).and_then(|own| own.tasks.get(&report.id)).cloned();
                assert!(
                    known.is_none_or(|known| known.state < report.state
                        || (!known.stable && report.stable)
                        || (known.over && !report.over)),
                    "a state only moves forward"
                );
                self.reports.report_task(report);
            }
            AgentAction::Retract(id) => self.reports.retract_task(&id),
            AgentAction::ReportFailures(service, leg, failures) => {
                self.reports.report_failures(service, leg, failures.as_ref());
            }
            AgentAction::ClaimBlock(number) => {
                self.intent.claim_block(1, number);
            }
            AgentAction::Await(_) => {}
            AgentAction::ClaimVolume(name) => {
                self.intent.claim_volume(1, &name);
            }
            AgentAction::Complete(service, revision, slot) => {
                self.intent.complete(1, &service, revision, slot);
            }
            AgentAction::ForgetCompletions(service) => {
                self.intent.forget_completions(1, &service, Some(&id(0)));
            }
            AgentAction::Notify(event) => self.events.push(event),
            AgentAction::Task(TaskCommand::Start(order)) => {
                self.started.push(order.clone());
                let id = order.id;
                assert!(self.containers.insert(id, (order, false)).is_none(), "no id is used twice");
                if self.obedient {
                    self.run(id);
                }
            }
            AgentAction::Task(command @ (TaskCommand::Stop(id) | TaskCommand::Drain(id))) => {
                self.drained.extend(matches!(command, TaskCommand::Drain(_)).then_some(id));
                self.stopping.insert(id);
                if self.obedient {
                    self.stop(id);
                }
            }
            AgentAction::Task(TaskCommand::Remove(id)) => self.removed.push(id),
        }
    }

    fn run(&mut self, id: TaskId) {
        self.agent.handle(self.now, TaskEvent::Starting(id));
        self.agent.handle(self.now, TaskEvent::Running(id));
        if let Some((_, running)) = self.containers.get_mut(&id) {
            *running = true;
        }
    }

    fn stop(&mut self, id: TaskId) {
        self.stopping.remove(&id);
        self.containers.remove(&id);
        self.agent.handle(self.now, TaskEvent::Ended { id, exit_code: None, error: String::new() });
    }

    /// The container ends by itself.
    fn end(&mut self, id: TaskId, exit_code: i32) {
        self.containers.remove(&id);
        self.event(TaskEvent::Ended { id, exit_code: Some(exit_code), error: String::new() });
    }

    fn pass(&mut self, time: Duration) {
        self.now.mono = self.now.mono + time;
        self.now.wall_ms += time.as_millis() as u64;
        self.agent.timeout(self.now);
        self.settle();
    }

    /// What holds at every moment: no slot has two live tasks, no two containers share an address, all is in the block.
    fn check(&self) {
        let live: Vec<&TaskReport> = self.own().into_iter().filter(|task| !task.state.is_final()).collect();
        let revision = |task: &TaskReport| if self.beside { task.revision } else { 0 };
        let slots: BTreeSet<(Slot, u64)> =
            live.iter().map(|task| ((task.service, task.slot), revision(task))).collect();
        let addresses: BTreeSet<Addresses> = live.iter().map(|task| task.addresses).collect();
        assert_eq!((slots.len(), addresses.len()), (live.len(), live.len()), "{live:?}");
    }

    fn own(&self) -> Vec<&TaskReport> {
        self.reports.of(&id(0)).map(|own| own.tasks.values().collect()).unwrap_or_default()
    }

    /// Slot and revision of the tasks in this state, sorted.
    fn in_state(&self, state: TaskState) -> Vec<(u32, u64)> {
        let mut found: Vec<(u32, u64)> =
            self.own().into_iter().filter(|task| task.state == state).map(|task| (task.slot, task.revision)).collect();
        found.sort_unstable();
        found
    }

    fn running(&self) -> Vec<(u32, u64)> {
        self.in_state(TaskState::Running)
    }

    fn the_running(&self) -> TaskId {
        self.own().into_iter().find(|task| task.state == TaskState::Running).expect("one runs").id
    }

    fn block(&self) -> Option<u16> {
        self.intent.blocks().find(|(_, node)| *node == id(0)).map(|(number, _)| number)
    }
}

fn with_policy(mut service: Service, condition: RestartCondition, attempts_max: Option<u64>) -> Service {
    service.spec.task.restart = RestartPolicy { condition, delay_ms: 1_000, attempts_max, window_ms: None };
    service
}
