//! Kill at every step: one rollout, run again and again, each time with one node lost at one of its events.
//!
//! Input: how many nodes, a seed. Each case is a kind of rollout (that completes, is paused, is rolled back; stop-first or
//! start-first), an event of it (a task that starts, runs, is stopped or ends; a verdict that becomes known), a role
//! (who submitted the update, who just moved a slot, who raises verdicts) and a way to die. Output: which cases did not end
//! as they must, and how few slots ran where nobody died.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use shoal_cluster::intent::name::Name;
use shoal_cluster::intent::service::{ImageRef, ServiceSpec, TaskSpec};
use shoal_cluster::intent::update::{FailureAction, UpdateConfig, UpdateOrder, Verdict};
use shoal_cluster::{Command, NodeId, Receipt, ServiceId};

use crate::checkers;
use crate::options::Options;
use crate::workload::BAD_EXIT;
use crate::world::World;

/// How long the nodes have to find each other and to run the service.
const START_US: u64 = 30_000_000;
/// How long a rollout has to end after a node was lost, which must be noticed, and everything to be right.
const END_US: u64 = 120_000_000;
/// How often is looked whether it has, and how long it must stay so.
const LOOK_US: u64 = 250_000;
const STEADY_US: u64 = 3_000_000;
/// When a daemon that was killed starts again.
const DOWN: Duration = Duration::from_secs(2);
/// How many slots the service has, and how many move at once.
const REPLICAS: u32 = 6;
const PARALLELISM: u32 = 2;

/// How a rollout must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every slot moves.
    Success,
    /// The new image is bad, and the slots not yet moved wait.
    Pause,
    /// The new image is bad, and all move back.
    Rollback,
}

/// Whom to kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The node that took the command.
    Submitter,
    /// The node at which the event happens.
    Mover,
    /// The manager that raises verdicts.
    Judge,
}

/// One run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// How it must end.
    pub ending: Ending,
    /// Which task of a slot goes first.
    pub order: UpdateOrder,
    /// At which event, whom, and whether the machine loses its power for good rather than its daemon for a while; nobody
    /// dies if absent.
    pub kill: Option<(usize, Role, bool)>,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.ending, self.order)?;
        match self.kill {
            Some((event, role, true)) => write!(f, ", the {role:?} loses its power at event {event}"),
            Some((event, role, false)) => write!(f, ", the daemon of the {role:?} dies at event {event}"),
            None => write!(f, ", nobody dies"),
        }
    }
}

/// What came of all cases of a kind.
#[derive(Clone, Debug)]
pub struct Kind {
    /// How its rollouts must end.
    pub ending: Ending,
    /// Which task of a slot goes first.
    pub order: UpdateOrder,
    /// How many events the rollout has that nobody disturbs.
    pub events: usize,
    /// The fewest slots that ran in it.
    pub least: usize,
    /// How many cases were run.
    pub cases: usize,
    /// What was wrong, with the case.
    pub wrong: Vec<(Case, String)>,
}

/// One event of a rollout.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noted {
    pub(crate) at_us: u64,
    pub(crate) node: usize,
}

/// Runs every case of a kind on all processors, or every `stride`-th event of them.
pub fn run_kind(ending: Ending, order: UpdateOrder, nodes: usize, seed: u64, stride: usize) -> Kind {
    let quiet = Case { ending, order, kill: None };
    let (events, least, answer) = match run_case(quiet, nodes, seed, &[]) {
        Ok((events, least)) => (events, least, Ok(())),
        Err(what) => (Vec::new(), 0, Err(what)),
    };
    let mut wrong: Vec<(Case, String)> = answer.err().map(|what| (quiet, what)).into_iter().collect();
    let fewest = match order {
        UpdateOrder::StopFirst => (REPLICAS - PARALLELISM) as usize,
        UpdateOrder::StartFirst => REPLICAS as usize,
    };
    if wrong.is_empty() && least < fewest {
        wrong.push((quiet, format!("only {least} slots ran at one time, fewer than {fewest}")));
    }
    let roles = [Role::Submitter, Role::Mover, Role::Judge];
    let kills = (0..events.len())
        .step_by(stride.max(1))
        .flat_map(|event| roles.into_iter().flat_map(move |role| [(event, role, true), (event, role, false)]));
    let cases: Vec<Case> = kills.map(|kill| Case { ending, order, kill: Some(kill) }).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut found = Vec::new();
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(what) = run_case(*case, nodes, seed, &events) {
                found.push((*case, what));
            }
        }
        found
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads.into_iter().for_each(|thread| wrong.extend(thread.join().expect("a case does not panic")));
    });
    Kind { ending, order, events: events.len(), least, cases: 1 + cases.len(), wrong }
}

/// Runs one case; returns the events of the rollout and the fewest slots that ran.
fn run_case(case: Case, nodes: usize, seed: u64, events: &[Noted]) -> Result<(Vec<Noted>, usize), String> {
    let mut options = Options::draw(seed, nodes);
    options.faults.clear();
    let mut world = World::new(options, BTreeSet::new());
    world.run_until(12_000_000);
    let (id, submitter) = start(&mut world)?;
    let mut spec = spec(case);
    spec.task.env.push("REVISION=2".to_owned());
    if case.ending != Ending::Success {
        spec.task.env.push(BAD_EXIT.to_owned());
    }
    world.noted = Some((id, Vec::new(), REPLICAS as usize));
    answer(world.command(submitter, Command::UpdateService { id, version: 1, spec }))?;
    if let Some((event, role, power)) = case.kill {
        let Some(noted) = events.get(event) else { return Err("there is no such event".to_owned()) };
        world.run_until(noted.at_us);
        let victim = match role {
            Role::Submitter => submitter,
            Role::Mover => noted.node,
            Role::Judge => judge(&world, submitter, id).unwrap_or(submitter),
        };
        if power { world.unplug(victim) } else { world.kill(victim, DOWN) }
    }
    let end = world.at_us + END_US;
    let mut right_since = None;
    loop {
        let wrong = wrong(&mut world, id, case);
        if !world.ledger.violations.is_empty() {
            return Err(world.ledger.violations.join("; "));
        }
        match wrong {
            None if right_since.is_some_and(|since| world.at_us - since >= STEADY_US) => break,
            None => drop(right_since.get_or_insert(world.at_us)),
            Some(what) if world.at_us > end => return Err(what),
            Some(_) => right_since = None,
        }
        world.run_until(world.at_us + LOOK_US);
    }
    let (_, noted, least) = world.noted.take().unwrap_or((id, Vec::new(), 0));
    Ok((noted, least))
}

fn spec(case: Case) -> ServiceSpec {
    let image = ImageRef { reference: "whoami:latest".to_owned(), digest: None };
    let mut spec = ServiceSpec::new(Name::new("web").expect("a plain name"), REPLICAS, TaskSpec::new(image));
    let config =
        UpdateConfig { parallelism: PARALLELISM, monitor_ms: 400, order: case.order, ..UpdateConfig::default() };
    let failure_action = match case.ending {
        Ending::Success | Ending::Pause => FailureAction::Pause,
        Ending::Rollback => FailureAction::Rollback,
    };
    spec.update = UpdateConfig { failure_action, ..config };
    spec.rollback = config;
    spec
}

/// Creates the service and waits until it runs; returns its id and a node to submit the update at.
fn start(world: &mut World) -> Result<(ServiceId, usize), String> {
    let case = Case { ending: Ending::Success, order: UpdateOrder::StopFirst, kill: None };
    let id = match answer(world.command(0, Command::CreateService(spec(case))))? {
        Receipt::Service { id, .. } => id,
        Receipt::Done => return Err("a service has no id".to_owned()),
    };
    let end = world.at_us + START_US;
    while running(world, id).len() < REPLICAS as usize {
        if world.at_us > end {
            return Err("the service never ran".to_owned());
        }
        world.run_until(world.at_us + LOOK_US);
    }
    world.run_until(world.at_us + STEADY_US);
    Ok((id, 1 % world.nodes.len()))
}

fn answer(answer: Option<Result<Receipt, shoal_cluster::CommandError>>) -> Result<Receipt, String> {
    match answer {
        Some(Ok(receipt)) => Ok(receipt),
        other => Err(format!("a command was answered with {other:?}")),
    }
}

/// Returns the slots of a service that run somewhere.
pub(crate) fn running(world: &World, id: ServiceId) -> BTreeSet<u32> {
    let running = world.nodes.iter().flat_map(|node| node.containers.running());
    running.filter(|order| order.service == id).map(|order| order.slot).collect()
}

/// Returns the node that a node believes to raise verdicts.
fn judge(world: &World, at: usize, id: ServiceId) -> Option<usize> {
    let core = world.nodes[at].core.as_ref()?;
    let judge: NodeId = core.judge_of(core.intent().service(&id)?.rollout?.id)?;
    world.nodes.iter().position(|node| node.id == judge)
}

/// Says what is not yet as it must be in the end.
fn wrong(world: &mut World, id: ServiceId, case: Case) -> Option<String> {
    let wanted = match case.ending {
        Ending::Success => Verdict::Completed,
        Ending::Pause => Verdict::Paused,
        Ending::Rollback => Verdict::RollbackCompleted,
    };
    let verdicts: BTreeMap<usize, Option<Verdict>> = world
        .up()
        .map(|(index, core)| (index, core.intent().service(&id).map(|service| core.intent().verdict(service))))
        .collect();
    if verdicts.values().any(|verdict| *verdict != Some(wanted)) {
        return Some(format!("the verdicts are {verdicts:?}, not {wanted:?}"));
    }
    checkers::violations(world).into_iter().next()
}
