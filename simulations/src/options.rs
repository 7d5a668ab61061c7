//! What a run does: drawn from its seed, printed before it starts.

use core::fmt;
use core::time::Duration;

use shoal_cluster::seed::Stream;

/// A deliberate bug, to show that the checkers can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
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

/// The faults of one run; each is on or off by the seed.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Messages lost, per thousand.
    pub loss_permille: u64,
    /// Messages delivered twice, per thousand.
    pub duplicate_permille: u64,
    /// Messages cut short, per thousand.
    pub truncate_permille: u64,
    /// Longest delay of a message beyond the LAN's, which also reorders.
    pub jitter: Duration,
    /// Whether the network is split in two, now and then.
    pub partitions: bool,
    /// Whether single directions between two nodes fail, now and then.
    pub one_way: bool,
    /// Whether nodes crash, at any action, and start again with what was durable.
    pub crashes: bool,
    /// Whether a crash takes the node's containers along (a plug pulled) or only the daemon.
    pub plug: bool,
    /// Whether containers exit by themselves.
    pub exits: bool,
    /// Whether containers take long to start.
    pub slow_starts: bool,
    /// Largest offset of a node's wall clock, either way.
    pub skew: Duration,
}

/// Everything that decides a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where all randomness comes from.
    pub seed: u64,
    /// How many nodes.
    pub nodes: usize,
    /// Length of the safety phase.
    pub safety: Duration,
    /// Longest time that the healed world may take to become right.
    pub liveness_max: Duration,
    /// What goes wrong.
    pub faults: Faults,
    /// A deliberate bug, if any.
    pub sabotage: Option<Sabotage>,
}

impl Options {
    /// Draws the options of `seed`.
    pub fn draw(seed: u64, nodes: usize) -> Self {
        let mut random = Stream::new(&seed_bytes(seed), "options");
        let mut chance = |percent: u64| random.below(100) < percent;
        let faults = Faults {
            loss_permille: if chance(70) { 50 } else { 0 },
            duplicate_permille: if chance(50) { 30 } else { 0 },
            truncate_permille: if chance(30) { 5 } else { 0 },
            jitter: Duration::from_millis(if chance(50) { 80 } else { 2 }),
            partitions: chance(60),
            one_way: chance(30),
            crashes: chance(75),
            plug: chance(50),
            exits: chance(50),
            slow_starts: chance(30),
            skew: Duration::from_millis(if chance(50) { 5_000 } else { 0 }),
        };
        Self {
            seed,
            nodes,
            safety: Duration::from_secs(90),
            liveness_max: Duration::from_secs(120),
            faults,
            sabotage: None,
        }
    }

    /// Returns the random stream of this run for one purpose.
    pub(crate) fn stream(&self, purpose: &str) -> Stream {
        Stream::new(&seed_bytes(self.seed), purpose)
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults = &self.faults;
        write!(
            f,
            "seed {} nodes {} loss {}‰ duplicate {}‰ truncate {}‰ jitter {:?} skew {:?}",
            self.seed,
            self.nodes,
            faults.loss_permille,
            faults.duplicate_permille,
            faults.truncate_permille,
            faults.jitter,
            faults.skew
        )?;
        let switches = [
            ("partitions", faults.partitions),
            ("one-way", faults.one_way),
            ("crashes", faults.crashes),
            ("plug", faults.plug),
            ("exits", faults.exits),
            ("slow-starts", faults.slow_starts),
        ];
        for (name, _) in switches.iter().filter(|(_, on)| *on) {
            write!(f, " {name}")?;
        }
        self.sabotage.map_or(Ok(()), |sabotage| write!(f, " sabotage {sabotage:?}"))
    }
}

/// Spreads a seed over the bytes that streams want.
pub(crate) fn seed_bytes(seed: u64) -> [u8; 32] {
    shoal_cluster::hash::digest("simulation", &[&seed.to_be_bytes()])
}
