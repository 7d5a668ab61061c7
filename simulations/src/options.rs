//! What a run does: drawn from its seed, or written down in a plan; printed before it starts.

use core::fmt;
use core::time::Duration;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use shoal_cluster::seed::Stream;

/// A deliberate bug of the world, to show that the checkers can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sabotage {
    /// The core of the last node never takes in messages that carry intent.
    DropDeltas,
    /// The disk of every node says that a record is durable and forgets it.
    LoseRecords,
    /// The last node does not end tasks when told to.
    KeepTasks,
    /// After the heal no core is woken by its timers any more, so that nobody notices who is gone.
    NoTimeouts,
}

/// One kind of fault, on or off in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Messages are lost.
    Loss,
    /// All messages take longer.
    Delay,
    /// Messages overtake each other.
    Reorder,
    /// Messages arrive twice.
    Duplicate,
    /// Messages are cut short.
    Truncate,
    /// The network is split in two.
    Partition,
    /// Single directions carry nothing.
    OneWay,
    /// Single pairs do not hear each other.
    Partial,
    /// Daemons die at any action and start again; their containers live on.
    Crash,
    /// Machines lose their power: containers are gone, nobody is told.
    PowerLoss,
    /// What was being written at a crash is there in part.
    TornWrite,
    /// A machine comes back with an empty log.
    LostDisk,
    /// A disk is full for a while.
    FullDisk,
    /// A disk cannot make what was written durable.
    FailedSync,
    /// Clocks run fast or slow.
    Drift,
    /// Wall clocks are some seconds off, and are set now and then.
    Step,
    /// Wall clocks jump back by up to years.
    Jump,
    /// Daemons stand still for a while and hear everything later.
    Pause,
    /// Machines answer late.
    Slow,
    /// A third of the nodes joins at one moment.
    JoinStorm,
    /// A fifth of the nodes leaves at one moment, and comes back.
    MassLeave,
    /// A node goes and comes in quick turns.
    Flapping,
    /// Containers exit by themselves.
    Exit,
    /// Containers do not end when asked, only when killed.
    Hang,
    /// A machine cannot start containers for a while.
    Refuse,
    /// Containers take long to start.
    SlowPull,
    /// Nodes are set back to an older binary than the one that wrote their log.
    MixedVersions,
    /// Members send garbage, and old messages again.
    Hostile,
    /// Timers fire early and twice, logs are compacted, connections flicker at any time.
    Buggify,
}

impl Fault {
    /// Returns all of them.
    pub fn all() -> &'static [Self] {
        <Self as clap::ValueEnum>::value_variants()
    }

    /// Returns its name on the command line and in files.
    pub fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self).map_or(String::new(), |value| value.get_name().to_owned())
    }
}

/// Everything that decides a run, its steps apart.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Options {
    /// Where all randomness comes from.
    pub seed: u64,
    /// How many nodes.
    pub nodes: usize,
    /// Length of the safety phase, in seconds.
    #[serde(default = "default_safety")]
    pub safety_s: u64,
    /// Longest time that the healed world may take to become right, in seconds.
    #[serde(default = "default_liveness")]
    pub liveness_s: u64,
    /// What goes wrong.
    #[serde(default)]
    pub faults: BTreeSet<Fault>,
    /// Stretches every timer of the cores, so that years pass in few events. 1 is real.
    #[serde(default = "one")]
    pub pace: u32,
    /// Chance in percent that operators give a command in a quarter of a second.
    #[serde(default = "default_commands")]
    pub commands_percent: u64,
    /// Services that operators know of.
    #[serde(default = "default_services")]
    pub services: u64,
    /// Whether one node is lost and comes back after the liveness phase.
    #[serde(default = "yes")]
    pub loss: bool,
    /// Whether in the end all nodes but one are lost, which must serve everything.
    #[serde(default)]
    pub survivor: bool,
    /// Whether a node is drained and put back after the liveness phase.
    #[serde(default)]
    pub drain: bool,
    /// Whether in the end a node joins, as was forecast.
    #[serde(default)]
    pub join: bool,
    /// Records beyond twice the last snapshot's at which a node replaces its log by another.
    #[serde(default = "default_compact_above")]
    pub compact_above: usize,
    /// How long tombstones are kept, in seconds; as long as the core keeps them by default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub horizon_s: Option<u64>,
    /// A deliberate bug of the world, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sabotage: Option<Sabotage>,
}

fn default_safety() -> u64 {
    60
}

fn default_liveness() -> u64 {
    120
}

fn default_commands() -> u64 {
    25
}

fn default_services() -> u64 {
    8
}

/// What the real store does: a large shoal's snapshot is long itself.
fn default_compact_above() -> usize {
    400
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}

impl Options {
    /// Draws the options of `seed`: how likely faults are at all, then each of them; how long the safety phase is; and
    /// whether one node survives alone in the end, in small worlds.
    pub fn draw(seed: u64, nodes: usize) -> Self {
        let mut random = Stream::new(&seed_bytes(seed), "options");
        let likely = [10, 30, 60][random.below(3) as usize];
        let faults = Fault::all().iter().copied().filter(|_| random.below(100) < likely).collect();
        let safety_s = 20 + random.below(50);
        let survivor = random.below(4) == 0 && nodes <= SURVIVOR_NODES_MAX;
        let drain = random.below(4) == 0 && nodes >= 2;
        let horizon_s = Some(2 + random.below(20)).filter(|_| random.below(3) == 0 && nodes <= SURVIVOR_NODES_MAX);
        // Drawn apart, so that they shift nothing.
        let mut logs = Stream::new(&seed_bytes(seed), "logs");
        let compact_above =
            if nodes > SHORT_LOGS_NODES_MAX { default_compact_above() } else { [5, 40, 400][logs.below(3) as usize] };
        let join = Stream::new(&seed_bytes(seed), "join").below(4) == 0;
        // Large worlds spend long in starting up and in moving a global service node by node, and a lone survivor in noticing
        // the losses one by one.
        let liveness_s = default_liveness() + nodes as u64 * if survivor { 10 } else { 4 };
        Self {
            seed,
            nodes,
            safety_s,
            liveness_s,
            faults,
            pace: 1,
            commands_percent: default_commands(),
            services: default_services(),
            loss: true,
            survivor,
            drain,
            join,
            compact_above,
            horizon_s,
            sabotage: None,
        }
    }

    /// Tells whether this kind of fault is on.
    pub fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    /// Returns the longest time that the healed world may take to become right.
    pub(crate) fn liveness_max(&self) -> Duration {
        Duration::from_secs(self.liveness_s) * self.pace
    }

    /// Returns the random stream of this run for one purpose.
    pub(crate) fn stream(&self, purpose: &str) -> Stream {
        Stream::new(&seed_bytes(self.seed), purpose)
    }
}

/// Nodes up to which a drawn run may end with a lone survivor: it notices the others' loss one by one.
const SURVIVOR_NODES_MAX: usize = 12;

/// Nodes up to which a drawn run may have logs that are short, so that it is snapshots which nodes start from.
const SHORT_LOGS_NODES_MAX: usize = 100;

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {} nodes {} safety {} s faults", self.seed, self.nodes, self.safety_s)?;
        if self.faults.is_empty() {
            write!(f, " none")?;
        }
        for fault in &self.faults {
            write!(f, " {}", fault.name())?;
        }
        if self.pace > 1 {
            write!(f, ", pace {}", self.pace)?;
        }
        if self.survivor {
            write!(f, ", one survives")?;
        }
        if self.drain {
            write!(f, ", one is drained")?;
        }
        if self.join {
            write!(f, ", one joins")?;
        }
        if self.compact_above != default_compact_above() {
            write!(f, ", logs of {} records", self.compact_above)?;
        }
        if let Some(horizon_s) = self.horizon_s {
            write!(f, ", tombstones for {horizon_s} s")?;
        }
        self.sabotage.map_or(Ok(()), |sabotage| write!(f, ", sabotage {sabotage:?}"))
    }
}

/// Spreads a seed over the bytes that streams want.
pub(crate) fn seed_bytes(seed: u64) -> [u8; 32] {
    shoal_cluster::hash::digest("simulation", &[&seed.to_be_bytes()])
}
