//! The workload: operators who create, update, scale and remove services, and the ledger of what they were told.
//!
//! Each service has one operator, at one node, so that what must be true at the end is known: the last write that
//! was acknowledged, or one tried after it. Services named `shared…` are written from everywhere: there, any write
//! that was tried may win, but all nodes must agree.

use std::collections::BTreeMap;

use shoal_cluster::intent::name::Name;
use shoal_cluster::intent::service::{ImageRef, ServiceSpec, TaskSpec};
use shoal_cluster::seed::Stream;
use shoal_cluster::{Command, ServiceId};

use crate::world::World;

/// The label that carries the number of the write.
pub(crate) const WRITE_LABEL: &str = "write";
const SERVICES: u64 = 6;
const SHARED: u64 = 2;

/// What one write wanted; `None`: that the service be gone.
pub(crate) type Wanted = Option<u64>;

/// All writes of one service.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// The last write that was acknowledged.
    pub(crate) acknowledged: Option<Wanted>,
    /// Writes tried since then whose answer never came.
    pub(crate) unanswered: Vec<Wanted>,
}

/// What operators did and were told.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// By service name, those with one operator.
    pub(crate) services: BTreeMap<String, History>,
    /// How many writes were tried, and acknowledged.
    pub(crate) tried: u64,
    pub(crate) acknowledged: u64,
    /// What was found wrong while the world ran.
    pub(crate) violations: Vec<String>,
}

/// Draws commands for one world.
#[derive(Debug)]
pub(crate) struct Operators {
    random: Stream,
}

impl Operators {
    pub(crate) fn new(random: Stream) -> Self {
        Self { random }
    }

    /// Gives at most one command; called a few times per simulated second.
    pub(crate) fn step(&mut self, world: &mut World) {
        if self.random.below(100) >= 25 {
            return;
        }
        let number = self.random.below(SERVICES + SHARED);
        let shared = number >= SERVICES;
        let name = if shared { format!("shared{number}") } else { format!("own{number}") };
        let home = if shared { self.random.next() } else { number } as usize % world.nodes.len();
        self.write(world, home, &name, !shared);
    }

    fn write(&mut self, world: &mut World, node: usize, name: &str, own: bool) {
        let Some(core) = world.nodes[node].core.as_mut() else { return };
        let known = Name::new(name).expect("a plain name");
        let present = core.views().services.iter().find(|service| service.spec.name == known).cloned();
        world.ledger.tried += 1;
        let write = world.ledger.tried;
        let (command, wanted) = match present {
            None => (Command::CreateService(self.spec(name, write)), Some(write)),
            Some(service) if self.random.below(100) < 15 => (Command::RemoveService(service.id), None),
            Some(service) => (self.update(service.id, service.version, service.spec, write), Some(write)),
        };
        let answer = world.command(node, command);
        let history = own.then(|| world.ledger.services.entry(name.to_owned()).or_default());
        match answer {
            None => {
                if let Some(history) = history {
                    history.unanswered.push(wanted);
                }
            }
            Some(Ok(_)) => {
                world.ledger.acknowledged += 1;
                if let Some(history) = history {
                    *history = History { acknowledged: Some(wanted), unanswered: Vec::new() };
                }
            }
            Some(Err(error)) => {
                let text = format!("node {node} refused a write that was made from its own view: {error}");
                world.ledger.violations.push(text);
            }
        }
    }

    fn update(&mut self, id: ServiceId, version: u64, mut spec: ServiceSpec, write: u64) -> Command {
        spec.replicas = self.replicas();
        spec.labels.insert(WRITE_LABEL.to_owned(), write.to_string());
        if self.random.below(100) < 30 {
            spec.task.env = vec![format!("WRITE={write}")];
        }
        Command::UpdateService { id, version, spec }
    }

    fn spec(&mut self, name: &str, write: u64) -> ServiceSpec {
        let image =
            ImageRef { reference: "whoami:latest".to_owned(), digest: Some(format!("sha256:{}", "0".repeat(64))) };
        ServiceSpec {
            name: Name::new(name).expect("a plain name"),
            labels: [(WRITE_LABEL.to_owned(), write.to_string())].into(),
            replicas: self.replicas(),
            task: TaskSpec::new(image),
        }
    }

    fn replicas(&mut self) -> u32 {
        self.random.below(8) as u32
    }
}
