//! Drills: an operator's own services on their own nodes, some of which are lost. Says which services drop below
//! their replicas, for how long, and what would not run at all.
//!
//! Input: a declaration of services and of nodes in TOML, and whom to kill. Output: a report to read, and whether it is
//! as the operator wants it.

mod declaration;

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use shoal_cluster::intent::name::Name;
use shoal_cluster::intent::node::NodeSpec;
use shoal_cluster::intent::service::ServiceSpec;
use shoal_cluster::seed::Stream;
use shoal_cluster::{Command, ServiceId};

pub use declaration::{NodeLine, Nodes, ServiceLine, Services};

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
pub fn drill(specs: &[ServiceSpec], nodes: &Nodes, kill: &Kill, seed: u64) -> Result<Drill, DrillError> {
    let (sets, sampled) = sets(nodes, kill, seed)?;
    let losses: Result<Vec<Loss>, DrillError> = sets.iter().map(|set| lose(specs, nodes, set, seed)).collect();
    Ok(Drill { losses: losses?, sampled })
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
    world.run_until(12_000_000);
    let ids = declare(&mut world, specs, nodes)?;
    let all: Vec<u32> = specs.iter().map(wanted).collect();
    let started = world.at_us + START_MAX.as_micros() as u64;
    while world.at_us < started && counts(&world, &ids).iter().zip(&all).any(|(runs, all)| runs < all) {
        world.run_until(world.at_us + LOOK.as_micros() as u64);
    }
    set.iter().for_each(|node| world.unplug(*node));
    let dips = watch(&mut world, specs, &ids, AFTER + AFTER_EACH * set.len() as u32);
    Ok(Loss { killed: set.iter().map(|node| nodes.node[*node].name.clone()).collect(), dips })
}

/// Says what the operator wants of nodes and services; returns the services' ids.
fn declare(world: &mut World, specs: &[ServiceSpec], nodes: &Nodes) -> Result<Vec<ServiceId>, DrillError> {
    let refused = |name: &str, answer| DrillError::Declaration(format!("{name} is refused: {answer:?}"));
    for (number, line) in nodes.node.iter().enumerate().filter(|(_, line)| !line.labels.is_empty()) {
        let spec = NodeSpec { labels: line.labels.clone(), ..NodeSpec::default() };
        let answer = world.command(0, Command::UpdateNode { node: world.nodes[number].id, version: 0, spec });
        if !matches!(answer, Some(Ok(_))) {
            return Err(refused(&line.name, answer));
        }
    }
    let mut ids = Vec::new();
    for spec in specs {
        match world.command(0, Command::CreateService(spec.clone())) {
            Some(Ok(shoal_cluster::Receipt::Service { id, .. })) => ids.push(id),
            answer => return Err(refused(spec.name.as_str(), answer)),
        }
    }
    Ok(ids)
}

/// Returns how many tasks should run whatever nodes there are: of a global service one on each that is there.
fn wanted(spec: &ServiceSpec) -> u32 {
    if spec.mode.is_global() { 0 } else { spec.replicas }
}

/// Counts the replicas of each service until the end, and returns those services that had too few.
fn watch(world: &mut World, specs: &[ServiceSpec], ids: &[ServiceId], time: Duration) -> Vec<Dip> {
    let fresh = |spec: &ServiceSpec| Dip {
        service: spec.name.to_string(),
        replicas: wanted(spec),
        least: wanted(spec),
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
        let zone = |number: usize| if number.is_multiple_of(2) { "even" } else { "odd" };
        let line = |number: usize| format!("[[node]]\nname = \"n{number}\"\nlabels.zone = \"{}\"\n", zone(number));
        toml::from_str(&(0..count).map(line).collect::<String>()).expect("it is TOML")
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
        let drill =
            drill(&services.specs().expect("they are right"), &nodes(3), &Kill::Any(1), 1).expect("it can be held");
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

    #[test]
    fn what_is_bound_to_lost_nodes_does_not_fit_and_the_rest_does() {
        let services = "[[service]]\nname = \"bound\"\nreplicas = 2\nconstraints = [\"node.labels.zone==odd\"]
            [[service]]\nname = \"large\"\nreplicas = 3\nreserve_millicpus = 3000
            [[service]]\nname = \"agent\"\nglobal = true";
        let services: Services = toml::from_str(services).expect("it is TOML");
        let kill = Kill::These(vec!["n1".to_owned()]);
        let drill = drill(&services.specs().expect("they are right"), &nodes(3), &kill, 1).expect("it can be held");
        let mut dips: Vec<(&str, u32, u32)> =
            drill.losses[0].dips.iter().map(|dip| (dip.service.as_str(), dip.end, dip.unplaced)).collect();
        dips.sort_unstable();
        assert_eq!(dips, [("bound", 0, 2), ("large", 2, 1)], "{drill}");
        assert!(!drill.holds(Duration::MAX), "two services do not come back");
    }
}
