//! What an operator declares for a drill, in TOML: services and nodes.

use std::collections::BTreeMap;

use serde::Deserialize;
use shoal_cluster::intent::constraint::{Constraint, Spread};
use shoal_cluster::intent::name::Name;
use shoal_cluster::intent::service::{ImageRef, Mode, PlacementSpec, Reserved, ServiceSpec, TaskSpec};

use super::DrillError;

/// The services that an operator declares.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Services {
    /// Each of them, as `[[service]]`.
    pub service: Vec<ServiceLine>,
}

/// One service. Its optional parts are those of `shoal service create`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceLine {
    /// Its name.
    pub name: String,
    /// How many tasks should run. Default 1.
    #[serde(default = "one")]
    pub replicas: u32,
    /// Whether one task runs on every node that may run it instead. Default false.
    #[serde(default)]
    pub global: bool,
    /// What each task reserves, in thousandths of a CPU. Default 0.
    #[serde(default)]
    pub reserve_millicpus: u32,
    /// What each task reserves, in MiB. Default 0.
    #[serde(default)]
    pub reserve_memory_mib: u64,
    /// What a node must be to run it, such as `node.labels.disk==ssd`. Default none.
    #[serde(default)]
    pub constraints: Vec<Constraint>,
    /// Over which labels the tasks are spread, such as `node.labels.zone`. Default none.
    #[serde(default)]
    pub spread: Vec<Spread>,
    /// How many of its tasks one node may run. Default 0, no bound.
    #[serde(default)]
    pub replicas_max_per_node: u32,
}

/// The nodes that an operator has.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nodes {
    /// Each of them, as `[[node]]`.
    pub node: Vec<NodeLine>,
}

/// One node.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeLine {
    /// Its name.
    pub name: String,
    /// CPUs that it has. Default 4.
    #[serde(default = "four")]
    pub cpus: u32,
    /// Memory that it has, in MiB. Default 8192.
    #[serde(default = "eight_gib")]
    pub memory_mib: u64,
    /// Its labels, by which constraints and preferences choose. Default none.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

fn one() -> u32 {
    1
}

fn four() -> u32 {
    4
}

fn eight_gib() -> u64 {
    8_192
}

impl Services {
    /// Returns what is declared as the core takes it.
    pub fn specs(&self) -> Result<Vec<ServiceSpec>, DrillError> {
        self.service.iter().map(ServiceLine::spec).collect()
    }
}

impl ServiceLine {
    fn spec(&self) -> Result<ServiceSpec, DrillError> {
        let name = Name::new(&self.name)
            .map_err(|error| DrillError::Declaration(format!("{:?} cannot be a service's name: {error}", self.name)))?;
        let image = ImageRef { reference: self.name.clone(), digest: None };
        Ok(ServiceSpec {
            mode: if self.global { Mode::Global } else { Mode::Replicated },
            reserved: Reserved {
                nano_cpus: u64::from(self.reserve_millicpus) * 1_000_000,
                memory_bytes: self.reserve_memory_mib.saturating_mul(1 << 20),
            },
            placement: PlacementSpec {
                constraints: self.constraints.clone(),
                spread: self.spread.clone(),
                replicas_per_node_max: self.replicas_max_per_node,
                platforms: Vec::new(),
            },
            ..ServiceSpec::new(name, self.replicas, TaskSpec::new(image))
        })
    }
}
