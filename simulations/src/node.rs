//! One simulated machine: a real core, its disk, its containers and its clock.

use shoal_cluster::config::Config;
use shoal_cluster::intent::name::Name;
use shoal_cluster::membership::member::{Contacts, NodeMeta, Role};
use shoal_cluster::{Cluster, Instant, NodeId, Now, hash};

use crate::containers::Containers;
use crate::disk::Disk;

/// Wall clock at the start of every world: 2026-01-01T00:00:00Z.
const WALL_START_MS: i64 = 1_767_225_600_000;

/// One machine.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    /// The core, while the daemon runs.
    pub(crate) core: Option<Cluster>,
    pub(crate) disk: Disk,
    pub(crate) containers: Containers,
    /// Offset of its wall clock in milliseconds.
    pub(crate) skew_ms: i64,
    /// Actions after which it crashes, once a crash is due.
    pub(crate) crash_in: Option<u64>,
    /// Counts starts, so that events meant for an earlier run are dropped.
    pub(crate) run: u64,
    /// When its next time-out is queued for.
    pub(crate) timer_us: Option<u64>,
    /// Whether it stays off whatever was to start it again.
    pub(crate) unplugged: bool,
    contacts: Contacts,
    meta: NodeMeta,
}

impl Node {
    /// Returns the machine numbered `index`, which knows the first machine, unless it is that one.
    pub(crate) fn new(index: usize, skew_ms: i64, lying_disk: bool) -> Self {
        let meta = meta(index);
        let contacts = if index == 0 { Vec::new() } else { vec![(node_id(0), self::meta(0).gossip)] };
        Self {
            id: node_id(index),
            core: None,
            disk: Disk::new(lying_disk),
            containers: Containers::default(),
            skew_ms,
            crash_in: None,
            run: 0,
            timer_us: None,
            unplugged: false,
            contacts,
            meta,
        }
    }

    /// Starts the daemon from what is on the disk.
    pub(crate) fn start(&mut self, at_us: u64, seed: &[u8; 32]) -> Result<(), shoal_cluster::RestoreError> {
        let epoch = self.disk.bump_epoch();
        self.run += 1;
        self.crash_in = None;
        self.timer_us = None;
        let config = Config::new([7; 32], epoch, self.meta.clone(), self.contacts.clone());
        let seed = hash::digest("node-run", &[seed, &self.id.0, &epoch.to_be_bytes()]);
        let records = self.disk.records();
        self.core = Some(Cluster::restore(self.id, config, seed, self.now(at_us), records.into_iter())?);
        Ok(())
    }

    /// Reads both clocks.
    pub(crate) fn now(&self, at_us: u64) -> Now {
        let wall_ms = WALL_START_MS + self.skew_ms + (at_us / 1_000) as i64;
        Now { mono: Instant::from_micros(at_us), wall_ms: wall_ms.unsigned_abs() }
    }
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
        software: "simulated".into(),
        os: "linux".into(),
        architecture: "amd64".into(),
        nano_cpus: 4_000_000_000,
        memory_bytes: 8 << 30,
    }
}
