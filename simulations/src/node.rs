//! One simulated machine: a real core, its disk, its containers and its clocks.

use std::time::Duration;

use shoal_cluster::config::Config;
use shoal_cluster::intent::name::Name;
use shoal_cluster::membership::member::{Contacts, NodeMeta, Role};
use shoal_cluster::plan::placement::NodeInput;
use shoal_cluster::{Cluster, NodeId, Now, RestoreError, hash};

use crate::clock::Clock;
use crate::containers::Containers;
use crate::disk::Disk;
use crate::options::Options;

/// The fingerprint of the simulated shoal's CA.
pub(crate) const SHOAL: [u8; 32] = [7; 32];

/// One machine.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    /// The core, while the daemon runs.
    pub(crate) core: Option<Cluster>,
    pub(crate) disk: Disk,
    pub(crate) containers: Containers,
    pub(crate) clock: Clock,
    /// Actions after which it crashes, once a crash is due, and whether the power goes then.
    pub(crate) crash_in: Option<(u64, bool)>,
    /// Counts starts, so that events meant for an earlier run are dropped.
    pub(crate) run: u64,
    /// When its next time-out is queued for.
    pub(crate) timer_us: Option<u64>,
    /// Whether it stays off whatever was to start it again.
    pub(crate) unplugged: bool,
    /// Until when it stands still.
    pub(crate) paused_until_us: u64,
    /// Until when it is slow, and by how much at most.
    pub(crate) slow: (u64, u64),
    /// Until when it cannot start containers.
    pub(crate) refuses_until_us: u64,
    /// When it started last.
    pub(crate) started_us: u64,
    /// When it lost its disk last; 0 if never.
    pub(crate) lost_us: u64,
    /// The greatest incarnation that it may have told anybody.
    pub(crate) told: u64,
    contacts: Contacts,
    meta: NodeMeta,
}

/// Why a daemon does not start.
#[derive(Debug)]
pub(crate) enum StartError {
    /// The disk takes nothing.
    Disk,
    /// What is on it cannot be read.
    Restore(RestoreError),
}

impl Node {
    /// Returns the machine numbered `index`, which knows the first machine, unless it is that one.
    pub(crate) fn new(index: usize, disk: Disk) -> Self {
        let contacts = if index == 0 { Vec::new() } else { vec![(node_id(0), meta(0).gossip)] };
        Self::with(node_id(index), meta(index), contacts, disk)
    }

    /// Returns the machine numbered `index` that a forecast says will join, a worker.
    pub(crate) fn joining(index: usize, foreseen: &NodeInput, disk: Disk) -> Self {
        let meta = NodeMeta {
            name: Name::new(&foreseen.hostname).expect("a forecast gives plain names"),
            role: if foreseen.manager { Role::Manager } else { Role::Worker },
            labels: foreseen.engine_labels.clone(),
            leaving: false,
            counts: false,
            os: foreseen.os.clone(),
            architecture: foreseen.architecture.clone(),
            nano_cpus: foreseen.capacity.nano_cpus,
            memory_bytes: foreseen.capacity.memory_bytes,
            ..meta(index)
        };
        Self::with(foreseen.id, meta, vec![(node_id(0), self::meta(0).gossip)], disk)
    }

    fn with(id: NodeId, meta: NodeMeta, contacts: Contacts, disk: Disk) -> Self {
        Self {
            id,
            core: None,
            disk,
            containers: Containers::default(),
            clock: Clock::default(),
            crash_in: None,
            run: 0,
            timer_us: None,
            unplugged: false,
            paused_until_us: 0,
            slow: (0, 0),
            refuses_until_us: 0,
            started_us: 0,
            lost_us: 0,
            told: 0,
            contacts,
            meta,
        }
    }

    /// Starts the daemon from what is on the disk.
    pub(crate) fn start(&mut self, at_us: u64, seed: &[u8; 32], options: &Options) -> Result<(), StartError> {
        let epoch = self.disk.bump_epoch(at_us).map_err(|_| StartError::Disk)?;
        self.run += 1;
        self.crash_in = None;
        self.timer_us = None;
        self.started_us = at_us;
        let mut config = paced(Config::new(SHOAL, epoch, self.meta.clone(), self.contacts.clone()), options.pace);
        if let Some(horizon_s) = options.horizon_s {
            config.tombstone_horizon = Duration::from_secs(horizon_s);
        }
        let seed = hash::digest("node-run", &[seed, &self.id.0, &self.disk.starts().to_be_bytes()]);
        let records = self.disk.records().to_vec();
        let core = Cluster::restore(self.id, config, seed, self.now(at_us), records.into_iter());
        self.core = Some(core.map_err(StartError::Restore)?);
        Ok(())
    }

    /// Returns its name.
    pub(crate) fn name(&self) -> &str {
        self.meta.name.as_str()
    }

    /// Takes another name and other resources, before its first start.
    pub(crate) fn become_machine(&mut self, name: Name, cpus: u32, memory_mib: u64) {
        self.meta.name = name;
        self.meta.nano_cpus = u64::from(cpus) * 1_000_000_000;
        self.meta.memory_bytes = memory_mib << 20;
    }

    /// Reads both clocks.
    pub(crate) fn now(&self, at_us: u64) -> Now {
        self.clock.now(at_us)
    }

    /// Tells whether its daemon runs and does not stand still.
    pub(crate) fn hears(&self, at_us: u64) -> bool {
        self.core.is_some() && self.paused_until_us <= at_us
    }

    /// Ends everything that ails it, its clocks included.
    pub(crate) fn heal(&mut self, at_us: u64) {
        self.crash_in = None;
        self.unplugged = false;
        self.slow = (0, 0);
        self.refuses_until_us = 0;
        self.disk.heal();
        self.clock.drift(at_us, 0);
        self.clock.set(0);
    }
}

/// Stretches every timer of a core.
fn paced(mut config: Config, pace: u32) -> Config {
    let membership = &mut config.membership;
    for time in [
        &mut membership.probe_interval,
        &mut membership.probe_timeout,
        &mut membership.suspicion_timeout,
        &mut membership.suspicion_timeout_evidence,
        &mut membership.redial_interval,
        &mut config.sync_interval,
        &mut config.settle_timeout,
    ] {
        *time *= pace;
    }
    config
}

/// Returns the id of the machine numbered `index`, the same in every world.
pub(crate) fn node_id(index: usize) -> NodeId {
    NodeId(hash::digest("simulated-node", &[&(index as u64).to_be_bytes()]))
}

fn meta(index: usize) -> NodeMeta {
    let address = std::net::Ipv4Addr::from(0xc612_0000 + index as u32 + 1);
    NodeMeta {
        name: Name::new(&format!("node{index}")).expect("a plain name"),
        gossip: (address, 7946).into(),
        tunnel: (address, 7946).into(),
        role: Role::Manager,
        wire_version: 1,
        plan_version: 1,
        labels: std::collections::BTreeMap::new(),
        leaving: false,
        counts: false,
        software: "simulated".into(),
        os: "linux".into(),
        architecture: "amd64".into(),
        nano_cpus: 4_000_000_000,
        memory_bytes: 8 << 30,
    }
}
