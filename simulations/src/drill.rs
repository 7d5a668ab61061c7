//! Drills: an operator's own services on their own nodes, some of which are lost. Says which services drop below
//! their replicas, for how long, and what would not run at all.
//!
//! Input: a declaration of services and of nodes in TOML, and whom to kill. Output: a report to read, and whether it is
//! as the operator wants it.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use shoal_cluster::intent::name::Name;
use shoal_cluster::intent::service::{ImageRef, ServiceSpec, TaskSpec};
use shoal_cluster::seed::Stream;
use shoal_cluster::{Command, ServiceId};

use crate::options::Options;
use crate::script::ScriptError;
use crate::world::World;

/// Sets of nodes that are tried at most; of more, this many are drawn.
const SETS_MAX: usize = 120;
/// How often replicas are counted.
const LOOK: Duration = Duration::from_millis(100);
/// How long a shoal has to run everything at first.
const START_MAX: Duration = Duration::from_secs(60);
/// How long after a loss replicas are counted, and for each lost node: they are noticed one by one.
const AFTER: Duration = Duration::from_secs(40);
const AFTER_EACH: Duration = Duration::from_secs(15);

/// The services that an operator declares.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Services {
    /// Each of them, as `[[service]]`.
    pub service: Vec<ServiceLine>,
}

/// One service.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceLine {
    /// Its name.
    pub name: String,
    /// How many tasks should run. Default 1.
    #[serde(default = "one")]
    pub replicas: u32,
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

/// Whom to kill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kill {
    /// Every set of this many nodes.
    Any(usize),
    /// Just these, by name.
    These(Vec<String>),
}

impl FromStr for Kill {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("any:").map(str::parse) {
            Some(Ok(count)) if count > 0 => Ok(Self::Any(count)),
            Some(_) => Err("`any:` is followed by how many nodes to kill, at least 1".to_owned()),
            None => Ok(Self::These(text.split(',').map(str::to_owned).collect())),
        }
    }
}

/// A drill cannot be held.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] ScriptError),
    /// What is declared makes no sense.
    #[error("{0}")]
    Declaration(String),
}

/// What one service went through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dip {
    /// Its name.
    pub service: String,
    /// How many tasks should run.
    pub replicas: u32,
    /// Fewest that ran.
    pub least: u32,
    /// How long fewer ran than should.
    pub below: Duration,
    /// How long none ran.
    pub none: Duration,
    /// How many ran in the end.
    pub end: u32,
    /// How many slots have no node in the end: they do not fit.
    pub unplaced: u32,
}

/// What became of everything when one set of nodes was lost.
#[derive(Clone, Debug)]
pub struct Loss {
    /// The nodes, by name.
    pub killed: Vec<String>,
    /// The services that dropped below their replicas.
    pub dips: Vec<Dip>,
}

/// What a whole drill showed.
#[derive(Clone, Debug)]
pub struct Drill {
    /// Each set of nodes.
    pub losses: Vec<Loss>,
    /// Whether there were more sets than were tried.
    pub sampled: bool,
}

impl Drill {
    /// Tells whether every service had all its replicas again in the end, and none was without any for longer.
    pub fn holds(&self, none_max: Duration) -> bool {
        self.losses.iter().flat_map(|loss| &loss.dips).all(|dip| dip.end >= dip.replicas && dip.none <= none_max)
    }
}

impl fmt::Display for Drill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for loss in &self.losses {
            writeln!(f, "without {}:", loss.killed.join(" and "))?;
            if loss.dips.is_empty() {
                writeln!(f, "  nothing drops below its replicas")?;
            }
            for dip in &loss.dips {
                let (below, none) = (dip.below.as_secs_f64(), dip.none.as_secs_f64());
                write!(f, "  {}: {} of {} for {below:.1} s", dip.service, dip.least, dip.replicas)?;
                if dip.none > Duration::ZERO {
                    write!(f, ", none at all for {none:.1} s")?;
                }
                match (dip.end >= dip.replicas, dip.unplaced) {
                    (true, _) => writeln!(f, ", then all again")?,
                    (false, 0) => writeln!(f, ", and only {} in the end", dip.end)?,
                    (false, unplaced) => writeln!(f, ", and {unplaced} would not fit on what is left")?,
                }
            }
        }
        if self.sampled {
            writeln!(f, "there are more sets of nodes than these: {} were drawn", self.losses.len())?;
        }
        Ok(())
    }
}

/// Reads a declaration.
pub fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, DrillError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ScriptError::File { path: path.to_path_buf(), source })?;
    let malformed =
        |error: toml::de::Error| ScriptError::Malformed { path: path.to_path_buf(), reason: error.to_string() };
    Ok(toml::from_str(&text).map_err(malformed)?)
}

/// Runs the services on the nodes and kills each set of nodes in a world of its own.
pub fn drill(services: &Services, nodes: &Nodes, kill: &Kill, seed: u64) -> Result<Drill, DrillError> {
    let specs: Vec<ServiceSpec> = services.service.iter().map(spec).collect::<Result<_, _>>()?;
    let (sets, sampled) = sets(nodes, kill, seed)?;
    let losses: Result<Vec<Loss>, DrillError> = sets.iter().map(|set| lose(&specs, nodes, set, seed)).collect();
    Ok(Drill { losses: losses?, sampled })
}

fn spec(line: &ServiceLine) -> Result<ServiceSpec, DrillError> {
    let name = Name::new(&line.name)
        .map_err(|error| DrillError::Declaration(format!("{:?} cannot be a service's name: {error}", line.name)))?;
    let image = ImageRef { reference: line.name.clone(), digest: None };
    Ok(ServiceSpec::new(name, line.replicas, TaskSpec::new(image)))
}

/// Returns the sets of nodes to kill, and whether there are more.
fn sets(nodes: &Nodes, kill: &Kill, seed: u64) -> Result<(Vec<BTreeSet<usize>>, bool), DrillError> {
    let count = nodes.node.len();
    match kill {
        Kill::These(names) => {
            let find = |name: &String| {
                let place = nodes.node.iter().position(|node| node.name == *name);
                place.ok_or_else(|| DrillError::Declaration(format!("there is no node {name:?} to kill")))
            };
            Ok((vec![names.iter().map(find).collect::<Result<_, _>>()?], false))
        }
        Kill::Any(lost) if *lost >= count => {
            Err(DrillError::Declaration(format!("{lost} of {count} nodes cannot be killed: one at least must stay")))
        }
        Kill::Any(lost) => {
            let mut all = combinations(count, *lost);
            let sampled = all.len() > SETS_MAX;
            if sampled {
                Stream::new(&[3; 32], &format!("drill {seed}")).shuffle(&mut all);
                all.truncate(SETS_MAX);
            }
            Ok((all, sampled))
        }
    }
}

/// Returns sets of `size` of the numbers below `count`: all of them, or enough to draw from.
fn combinations(count: usize, size: usize) -> Vec<BTreeSet<usize>> {
    let mut sets: Vec<BTreeSet<usize>> = vec![BTreeSet::new()];
    for _ in 0..size {
        let grown = sets.iter().flat_map(|set| {
            let first = set.last().map_or(0, |last| last + 1);
            (first..count).map(move |next| set.iter().copied().chain([next]).collect())
        });
        sets = grown.take(1_000 * SETS_MAX).collect();
    }
    sets.retain(|set| set.len() == size);
    sets
}

/// Runs everything, kills one set, and counts.
fn lose(specs: &[ServiceSpec], nodes: &Nodes, set: &BTreeSet<usize>, seed: u64) -> Result<Loss, DrillError> {
    let mut options = Options::draw(seed, nodes.node.len());
    options.faults.clear();
    let mut world = World::new(options, BTreeSet::new());
    for (machine, line) in world.nodes.iter_mut().zip(&nodes.node) {
        let name = Name::new(&line.name)
            .map_err(|error| DrillError::Declaration(format!("{:?} cannot be a node's name: {error}", line.name)))?;
        machine.become_machine(name, line.cpus, line.memory_mib);
    }
    let mut ids = Vec::new();
    world.run_until(12_000_000);
    for spec in specs {
        let answer = world.command(0, Command::CreateService(spec.clone()));
        match answer {
            Some(Ok(shoal_cluster::Receipt::Service { id, .. })) => ids.push(id),
            other => return Err(DrillError::Declaration(format!("{} is refused: {other:?}", spec.name))),
        }
    }
    let started = world.at_us + START_MAX.as_micros() as u64;
    while world.at_us < started && counts(&world, &ids).iter().zip(specs).any(|(runs, spec)| *runs < spec.replicas) {
        world.run_until(world.at_us + LOOK.as_micros() as u64);
    }
    set.iter().for_each(|node| world.unplug(*node));
    let dips = watch(&mut world, specs, &ids, AFTER + AFTER_EACH * set.len() as u32);
    Ok(Loss { killed: set.iter().map(|node| nodes.node[*node].name.clone()).collect(), dips })
}

/// Counts the replicas of each service until the end, and returns those services that had too few.
fn watch(world: &mut World, specs: &[ServiceSpec], ids: &[ServiceId], time: Duration) -> Vec<Dip> {
    let fresh = |spec: &ServiceSpec| Dip {
        service: spec.name.to_string(),
        replicas: spec.replicas,
        least: spec.replicas,
        below: Duration::ZERO,
        none: Duration::ZERO,
        end: 0,
        unplaced: 0,
    };
    let mut dips: Vec<Dip> = specs.iter().map(fresh).collect();
    let end = world.at_us + time.as_micros() as u64;
    while world.at_us < end {
        for (dip, runs) in dips.iter_mut().zip(counts(world, ids)) {
            dip.least = dip.least.min(runs);
            dip.end = runs;
            if runs < dip.replicas {
                dip.below += LOOK;
            }
            if runs == 0 && dip.replicas > 0 {
                dip.none += LOOK;
            }
        }
        world.run_until(world.at_us + LOOK.as_micros() as u64);
    }
    if let Some((_, core)) = world.up().next() {
        for (dip, id) in dips.iter_mut().zip(ids) {
            let slots = core.plan().assignments.slots(id).count();
            dip.unplaced = dip.replicas.saturating_sub(u32::try_from(slots).unwrap_or(u32::MAX));
        }
    }
    dips.retain(|dip| dip.below > Duration::ZERO || dip.end < dip.replicas);
    dips
}

/// Returns how many slots of each service run somewhere.
fn counts(world: &World, ids: &[ServiceId]) -> Vec<u32> {
    let running = world.nodes.iter().flat_map(|node| node.containers.running());
    let slots: BTreeSet<(ServiceId, u32)> = running.map(|order| (order.service, order.slot)).collect();
    ids.iter().map(|id| slots.range((*id, 0)..=(*id, u32::MAX)).count() as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: usize) -> Nodes {
        let line = |number: usize| NodeLine { name: format!("n{number}"), cpus: 4, memory_mib: 8_192 };
        Nodes { node: (0..count).map(line).collect() }
    }

    #[test]
    fn whom_to_kill_is_read() {
        assert_eq!("any:2".parse(), Ok(Kill::Any(2)));
        assert_eq!("a,b".parse(), Ok(Kill::These(vec!["a".to_owned(), "b".to_owned()])));
        assert!("any:0".parse::<Kill>().is_err() && "any:x".parse::<Kill>().is_err());
        assert_eq!(combinations(5, 2).len(), 10);
        assert!(sets(&nodes(3), &Kill::Any(3), 1).is_err(), "one must stay");
        assert_eq!(
            sets(&nodes(40), &Kill::Any(3), 1).map(|(sets, more)| (sets.len(), more)).ok(),
            Some((SETS_MAX, true))
        );
    }

    #[test]
    fn a_lone_replica_is_gone_for_a_while_and_three_are_never_all_gone() {
        let services = "[[service]]\nname = \"web\"\nreplicas = 3\n[[service]]\nname = \"db\"";
        let services: Services = toml::from_str(services).expect("it is TOML");
        let drill = drill(&services, &nodes(3), &Kill::Any(1), 1).expect("it can be held");
        assert_eq!(drill.losses.len(), 3);
        let web: Vec<&Dip> =
            drill.losses.iter().flat_map(|loss| &loss.dips).filter(|dip| dip.service == "web").collect();
        assert_eq!(web.len(), 3, "one replica on each node: {drill}");
        assert!(web.iter().all(|dip| (dip.least, dip.end, dip.none) == (2, 3, Duration::ZERO)), "{drill}");
        let db: Vec<&Dip> = drill.losses.iter().flat_map(|loss| &loss.dips).filter(|dip| dip.service == "db").collect();
        assert_eq!(db.len(), 1, "it ran on one node: {drill}");
        assert!(db[0].none > Duration::from_secs(1) && db[0].end == 1, "{drill}");
        assert!(drill.holds(Duration::from_secs(30)) && !drill.holds(Duration::from_secs(1)));
    }
}
