//! The workload: operators who create, update, scale and remove services, and the ledger of what they were told.
//!
//! Each service has one operator, at one node, so that what must be true at the end is known: the last write that
//! was acknowledged, or one tried after it. Services named `shared…` are written from everywhere: there, any write
//! that was tried may win, but all nodes must agree.

use std::collections::BTreeMap;

use shoal_cluster::intent::name::Name;
use shoal_cluster::intent::service::{ImageRef, Service, ServiceSpec, TaskSpec};
use shoal_cluster::{Command, CommandError, Receipt};

use crate::checkers::watch;
use crate::world::World;

/// The label that carries the number of the write.
pub(crate) const WRITE_LABEL: &str = "write";
/// Of four services one is written by everybody.
const SHARED_OF: u64 = 4;
/// Most replicas that operators ask for.
const REPLICAS_MAX: u64 = 8;

/// What one write wanted; `None`: that the service be gone.
pub(crate) type Wanted = Option<u64>;

/// All writes of one service.
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
    /// By service name, those with one operator.
    pub(crate) services: BTreeMap<String, History>,
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
    let Some(core) = world.core(home) else { return };
    let known = Name::new(&name).expect("a plain name");
    let present = core.intent().service_named(&known).cloned();
    world.ledger.tried += 1;
    let write = world.ledger.tried;
    let (command, wanted) = match present {
        None => (Command::CreateService(spec(&name, write, roll)), Some(write)),
        Some(service) if roll % 100 < 15 => (Command::RemoveService(service.id), None),
        Some(service) => (update(service, write, roll), Some(write)),
    };
    let answer = world.command(home, command);
    note(world, (home, &name, shared), wanted, answer);
}

/// Writes down what an operator was told.
fn note(
    world: &mut World,
    (node, name, shared): (usize, &str, bool),
    wanted: Wanted,
    answer: Option<Result<Receipt, CommandError>>,
) {
    match answer {
        None if shared => {}
        None => world.ledger.services.entry(name.to_owned()).or_default().unanswered.push(wanted),
        Some(Ok(_)) => {
            world.ledger.acknowledged += 1;
            if let Some(core) = &world.nodes[node].core
                && let Err(what) = watch::durable(core, &world.nodes[node].disk, name)
            {
                world.ledger.violations.push(format!("durability: node {node} {what}"));
            }
            if shared {
                return;
            }
            let history = world.ledger.services.entry(name.to_owned()).or_default();
            history.before.extend(history.acknowledged);
            history.before.append(&mut history.unanswered);
            history.acknowledged = Some(wanted);
        }
        Some(Err(error)) => {
            let text = format!("node {node} refused a write that was made from its own view: {error}");
            world.ledger.violations.push(format!("durability: {text}"));
        }
    }
}

/// A disk is about to be lost: what no other node that is up holds yet may be gone with it, and is not held against
/// the shoal.
pub(crate) fn forget_unshared(world: &mut World, node: usize) {
    let others: Vec<BTreeMap<String, u64>> = world
        .up()
        .filter(|(index, _)| *index != node)
        .map(|(_, core)| {
            let written = core.intent().services().filter_map(|service| Some((service, number(service)?)));
            written.map(|(service, write)| (service.spec.name.folded().to_owned(), write)).collect()
        })
        .collect();
    for (name, history) in &mut world.ledger.services {
        let homed =
            name.trim_start_matches("own").parse::<usize>().is_ok_and(|number| number % world.options.nodes == node);
        let last = history.acknowledged.flatten();
        let shared = last.is_some() && others.iter().any(|services| services.get(name).copied() == last);
        if homed && !shared {
            history.unanswered.extend(history.acknowledged.take());
            history.unanswered.append(&mut history.before);
        }
    }
}

/// Returns the number of the write that a service is at.
pub(crate) fn number(service: &Service) -> Option<u64> {
    service.spec.labels.get(WRITE_LABEL)?.parse().ok()
}

fn update(service: Service, write: u64, roll: u64) -> Command {
    let Service { id, version, mut spec, .. } = service;
    spec.replicas = replicas(roll);
    spec.labels.insert(WRITE_LABEL.to_owned(), write.to_string());
    if (roll >> 16) % 100 < 30 {
        spec.task.env = vec![format!("WRITE={write}")];
    }
    Command::UpdateService { id, version, spec }
}

fn spec(name: &str, write: u64, roll: u64) -> ServiceSpec {
    let image = ImageRef { reference: "whoami:latest".to_owned(), digest: Some(format!("sha256:{}", "0".repeat(64))) };
    let mut spec = ServiceSpec::new(Name::new(name).expect("a plain name"), replicas(roll), TaskSpec::new(image));
    spec.labels.insert(WRITE_LABEL.to_owned(), write.to_string());
    spec
}

fn replicas(roll: u64) -> u32 {
    ((roll >> 24) % REPLICAS_MAX) as u32
}
