//! The workload: operators who create, update, scale and remove services, who drain, pause and label nodes, and the ledger of what they were told.
//!
//! Each service has one operator, at one node, so that what must be true at the end is known: the last write that
//! was acknowledged, or one tried after it. Services named `shared…` are written from everywhere: there, any write
//! that was tried may win, but all nodes must agree. What services use is in [`objects`].

pub(crate) mod objects;

use std::collections::{BTreeMap, BTreeSet};

use shoal_cluster::intent::Entry;
use shoal_cluster::intent::constraint::{Constraint, Spread};
use shoal_cluster::intent::key::{Key, Kind};
use shoal_cluster::intent::name::Name;
use shoal_cluster::intent::node::{Availability, NodeSpec};
use shoal_cluster::intent::service::{
    ImageRef, Mode, PARTITION_LABEL, PlacementSpec, Reserved, RestartCondition, RestartPolicy, Service, ServiceSpec,
    TaskSpec,
};
use shoal_cluster::intent::update::{FailureAction, UpdateConfig, UpdateOrder};
use shoal_cluster::record::Record;
use shoal_cluster::seed::Stream;
use shoal_cluster::{Cluster, Command, CommandError, Receipt, TaskOrder};

use crate::checkers::watch;
use crate::options::seed_bytes;
use crate::world::World;

/// The label that carries the number of the write.
pub(crate) const WRITE_LABEL: &str = "write";
/// Of four services one is written by everybody.
const SHARED_OF: u64 = 4;
/// Of so many services one is fenced, for its whole life.
const FENCED_OF: u64 = 8;
/// The label of nodes by which services choose and spread.
pub(crate) const ZONE: &str = "zone";
/// One in so many nodes may be paused or drained.
const IDLE_PART: usize = 3;
/// Most replicas that operators ask for.
const REPLICAS_MAX: u64 = 8;

/// What one write wanted; `None`: that the service or object be gone.
pub(crate) type Wanted = Option<u64>;

/// All writes of one service or object.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// The last write that was acknowledged.
    pub(crate) acknowledged: Option<Wanted>,
    /// Writes tried since then whose answer never came.
    pub(crate) unanswered: Vec<Wanted>,
    /// Writes acknowledged before, as long as nobody but their writer may hold the last.
    before: Vec<Wanted>,
}

/// What operators did and were told.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Of the services and objects with one operator.
    pub(crate) histories: BTreeMap<Key, History>,
    /// How many writes were tried, and acknowledged.
    pub(crate) tried: u64,
    pub(crate) acknowledged: u64,
    /// Entries that a newer binary wrote, which all nodes must keep though none can read them.
    pub(crate) future_entries: u64,
    /// What was found wrong while the world ran.
    pub(crate) violations: Vec<String>,
}

/// Lets an operator write or remove a service, at its own node or at `node` if it is everybody's.
pub(crate) fn write(world: &mut World, service: u64, node: usize, roll: u64) {
    let shared = service % SHARED_OF == SHARED_OF - 1;
    let home = if shared { node } else { service as usize % world.nodes.len() };
    let name = if shared { format!("shared{service}") } else { format!("own{service}") };
    if !world.nodes[home].hears(world.at_us) {
        return;
    }
    let write = world.ledger.tried + 1;
    let Some(core) = world.core(home) else { return };
    let known = Name::new(&name).expect("a plain name");
    let present = core.intent().service_named(&known).cloned();
    let (command, wanted) = match present {
        None => {
            let mut spec = spec(&name, write, roll);
            objects::draw(core, &mut spec, roll);
            (Command::CreateService(spec), Some(write))
        }
        Some(service) if roll % 100 < 15 => (Command::RemoveService(service.id), None),
        Some(service) if roll % 100 < 20 && !service.history.is_empty() => {
            let Service { id, version, history, .. } = service;
            let kept = &history[(roll >> 8) as usize % history.len()];
            let written = kept.spec.labels.get(WRITE_LABEL).and_then(|label| label.parse().ok());
            (Command::RollbackService { id, version, to: Some(kept.version) }, written)
        }
        Some(service) => (update(core, service, write, roll), Some(write)),
    };
    world.ledger.tried = write;
    match world.command(home, command) {
        // What an older version uses may be gone.
        Some(Err(CommandError::NoSuchObject { .. })) => world.count("services whose networks or secrets are gone"),
        answer => note(world, (home, &Key::service(&known), shared), wanted, answer),
    }
}

/// Writes down what an operator was told.
fn note(
    world: &mut World,
    (node, key, shared): (usize, &Key, bool),
    wanted: Wanted,
    answer: Option<Result<Receipt, CommandError>>,
) {
    match answer {
        None if shared => {}
        None => world.ledger.histories.entry(key.clone()).or_default().unanswered.push(wanted),
        Some(Ok(_)) => {
            world.ledger.acknowledged += 1;
            hold_to(world, node, key);
            if shared {
                return;
            }
            let history = world.ledger.histories.entry(key.clone()).or_default();
            history.before.extend(history.acknowledged);
            history.before.append(&mut history.unanswered);
            history.acknowledged = Some(wanted);
        }
        Some(Err(error)) => world.ledger.violations.push(refused(node, &error)),
    }
}

/// Lets an operator write what is wanted of a node: drained, paused, active, or in another zone.
pub(crate) fn want(world: &mut World, node: usize, at: usize, roll: u64) {
    if !world.nodes[at].hears(world.at_us) {
        return;
    }
    let (id, most) = (world.nodes[node].id, world.nodes.len() / IDLE_PART);
    let Some(core) = world.core(at) else { return };
    let wanted = core.intent().nodes();
    let idle = wanted.values().filter(|node| node.spec.availability != Availability::Active).count();
    let (version, mut spec) =
        wanted.get(&id).map_or((0, NodeSpec::default()), |present| (present.version, present.spec.clone()));
    match roll % 5 {
        0 if idle < most => spec.availability = Availability::Drain,
        1 if idle < most => spec.availability = Availability::Pause,
        0..=2 => spec.availability = Availability::Active,
        _ => drop(spec.labels.insert(ZONE.to_owned(), zone(roll >> 8))),
    }
    match world.command(at, Command::UpdateNode { node: id, version, spec }) {
        // It may not have heard of that node, or of so many others that it could not answer.
        None | Some(Err(CommandError::NoSuchNode(_))) => {}
        Some(Ok(_)) => {
            world.count("writes of nodes");
            hold_to(world, at, &Key::node(&id));
        }
        Some(Err(error)) => world.ledger.violations.push(refused(at, &error)),
    }
}

/// Looks for an acknowledged write on its writer's disk.
fn hold_to(world: &mut World, node: usize, key: &Key) {
    if let Some(core) = &world.nodes[node].core
        && let Err(what) = watch::durable(core, &world.nodes[node].disk, key)
    {
        world.ledger.violations.push(format!("durability: node {node} {what}"));
    }
}

fn refused(node: usize, error: &CommandError) -> String {
    format!("durability: node {node} refused a write that was made from its own view: {error}")
}

/// A disk is about to be lost: what is on no other may be gone with it, and is not held against the shoal.
pub(crate) fn forget_unshared(world: &mut World, node: usize) {
    let others = world.nodes.iter().enumerate().filter(|(other, _)| *other != node);
    let records = others.flat_map(|(_, other)| other.disk.records());
    let held: BTreeSet<(Key, u64)> = records
        .filter_map(|record| match Record::decode(record) {
            Ok(Record::Entry(entry)) => Some((entry.key.clone(), number(&entry)?)),
            Ok(_) | Err(_) => None,
        })
        .collect();
    for (key, history) in &mut world.ledger.histories {
        let last = history.acknowledged.flatten();
        if !last.is_some_and(|last| held.contains(&(key.clone(), last))) {
            history.unanswered.extend(history.acknowledged.take());
            history.unanswered.append(&mut history.before);
        }
    }
}

/// Returns the number of the write that an entry holds.
pub(crate) fn number(entry: &Entry) -> Option<u64> {
    entry.service().as_ref().map_or_else(|| objects::number(entry), at_write)
}

/// Returns the number of the write that a node holds under a key.
pub(crate) fn held(core: &Cluster, key: &Key) -> Wanted {
    match key.kind() {
        Some(Kind::Service) => core.intent().service_named(&Name::new(&key.name).ok()?).and_then(at_write),
        _ => objects::find(core, key).map(|(_, write)| write),
    }
}

fn at_write(service: &Service) -> Option<u64> {
    service.spec.labels.get(WRITE_LABEL)?.parse().ok()
}

fn update(core: &Cluster, service: Service, write: u64, roll: u64) -> Command {
    let Service { id, version, mut spec, .. } = service;
    spec.replicas = replicas(roll);
    place(&mut spec, roll);
    spec.labels.insert(WRITE_LABEL.to_owned(), write.to_string());
    if (roll >> 16) % 100 < 30 {
        spec.task.env.retain(|variable| variable == JOB);
        spec.task.env.push(format!("WRITE={write}"));
        let mut random = Stream::new(&seed_bytes(roll), "rollout");
        if !spec.mode.is_job() {
            spec.update = config(&mut random, true);
            spec.rollback = config(&mut random, false);
            spec.task.restart = restart(roll);
        }
        objects::draw(core, &mut spec, roll);
        if random.below(100) < 25 {
            spec.task.env.push(BAD_START.to_owned());
        }
    } else {
        objects::drop_gone(core, &mut spec);
    }
    Command::UpdateService { id, version, spec }
}

/// Draws how slots move: quickly, since much is to happen in a minute.
fn config(random: &mut Stream, there: bool) -> UpdateConfig {
    let actions = [FailureAction::Pause, FailureAction::Continue, FailureAction::Rollback];
    UpdateConfig {
        parallelism: random.below(4) as u32,
        delay_ms: [0, 0, 200, 1_000][random.below(4) as usize],
        monitor_ms: [50, 300, 1_000, 3_000][random.below(4) as usize],
        failure_action: actions[random.below(if there { 3 } else { 2 }) as usize],
        failure_ratio_max_ppm: [0, 0, 200_000, 500_000][random.below(4) as usize],
        order: [UpdateOrder::StopFirst, UpdateOrder::StartFirst][random.below(2) as usize],
    }
}

/// Draws after which ends a task is followed by another; most services want one after each.
fn restart(roll: u64) -> RestartPolicy {
    use RestartCondition::{Any, None as Never, OnFailure};
    // Apart, so that it shifts nothing.
    let mut random = Stream::new(&seed_bytes(roll), "restart");
    RestartPolicy {
        condition: [Any, Any, Any, Any, OnFailure, OnFailure, Never][random.below(7) as usize],
        delay_ms: [0, 200, 1_000, 5_000][random.below(4) as usize],
        attempts_max: [None, None, None, Some(1), Some(3)][random.below(5) as usize],
        window_ms: [None, Some(10_000)][random.below(2) as usize],
    }
}

/// What is wrong with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Its containers do not start.
    Start,
    /// Its containers exit soon.
    Exit,
}

/// The variables by which an image is bad.
pub(crate) const BAD_START: &str = "BAD=start";
pub(crate) const BAD_EXIT: &str = "BAD=exit";

/// Returns what is wrong with the image of a task.
pub(crate) fn flaw(order: &TaskOrder) -> Option<Flaw> {
    let env = |wanted: &str| order.spec.env.iter().any(|variable| variable == wanted);
    if env(BAD_START) { Some(Flaw::Start) } else { env(BAD_EXIT).then_some(Flaw::Exit) }
}

/// The variable by which a task does its work and ends.
const JOB: &str = "JOB=work";

/// Tells whether a task ends by itself with exit code 0.
pub(crate) fn is_of_job(order: &TaskOrder) -> bool {
    order.spec.env.iter().any(|variable| variable == JOB)
}

/// Makes a service a job, of which so many tasks run at once.
fn make_job(spec: &mut ServiceSpec, mode: Mode) {
    spec.mode = mode;
    spec.task.restart.condition = RestartCondition::OnFailure;
    spec.task.env.push(JOB.to_owned());
}

/// Tells whether something is wrong with the image of a task, or bytes that it is to get are gone.
pub(crate) fn is_flawed(core: &Cluster, task: &TaskSpec) -> bool {
    task.env.iter().any(|variable| variable == BAD_START || variable == BAD_EXIT) || objects::lacks_files(core, task)
}

fn spec(name: &str, write: u64, roll: u64) -> ServiceSpec {
    let image = ImageRef { reference: "whoami:latest".to_owned(), digest: Some(format!("sha256:{}", "0".repeat(64))) };
    let mut spec = ServiceSpec::new(Name::new(name).expect("a plain name"), replicas(roll), TaskSpec::new(image));
    spec.labels.insert(WRITE_LABEL.to_owned(), write.to_string());
    if (roll >> 56) % FENCED_OF == 1 {
        spec.labels.insert(PARTITION_LABEL.to_owned(), "fenced".to_owned());
    }
    match (roll >> 28) % 100 {
        0..10 => spec.mode = Mode::Global,
        10..20 => make_job(&mut spec, Mode::ReplicatedJob { concurrent: 1 + (roll >> 60) as u32 % 3 }),
        20..23 => make_job(&mut spec, Mode::GlobalJob),
        _ => {}
    }
    if !spec.mode.is_job() {
        let mut random = Stream::new(&seed_bytes(roll), "created");
        (spec.update, spec.rollback) = (config(&mut random, true), config(&mut random, false));
        spec.task.restart = restart(roll);
    }
    place(&mut spec, roll);
    spec
}

/// Says where the tasks may run and what they reserve; half of the services ask for nothing.
fn place(spec: &mut ServiceSpec, roll: u64) {
    let constraint = |text: &str| vec![Constraint::parse(text).expect("a plain constraint")];
    spec.placement = PlacementSpec::default();
    match (roll >> 36) % 100 {
        0..12 => spec.placement.constraints = constraint(&format!("node.labels.{ZONE}=={}", zone(roll >> 8))),
        12..20 => spec.placement.constraints = constraint(&format!("node.hostname!=node{}", (roll >> 8) % 4)),
        20..32 => {
            spec.placement.spread = vec![Spread::parse(&format!("node.labels.{ZONE}")).expect("a plain preference")];
        }
        32..42 => spec.placement.replicas_per_node_max = 2,
        _ => {}
    }
    spec.reserved = Reserved::default();
    if (roll >> 44) % 100 < 30 {
        spec.reserved = Reserved { nano_cpus: 250_000_000 << ((roll >> 52) % 3), memory_bytes: 256 << 20 };
    }
}

fn zone(roll: u64) -> String {
    ["a", "b", "c"][(roll % 3) as usize].to_owned()
}

fn replicas(roll: u64) -> u32 {
    ((roll >> 24) % REPLICAS_MAX) as u32
}
