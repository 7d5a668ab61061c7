//! Claims of volumes: which node each named volume lives on, as that node says.
//!
//! Written by the node before it makes the volume; see `docs/design/0025-container-options-health-and-volumes.md`.

use alloc::collections::BTreeMap;

use super::key::Key;
use super::service::container::VolumeName;
use super::{Entry, Intent};
use crate::id::NodeId;
use crate::wire;

impl Intent {
    /// Returns which node each named volume lives on, as the nodes that made them said.
    pub fn volumes(&self) -> &BTreeMap<VolumeName, NodeId> {
        self.served.volumes()
    }

    /// Claims a volume for this node.
    pub fn claim_volume(&mut self, wall_ms: u64, name: &VolumeName) -> Entry {
        self.write(wall_ms, Key::volume(name), Some(wire::encode(&self.actor.node)))
    }

    /// Writes a tombstone over the claim of a volume.
    pub fn release_volume(&mut self, wall_ms: u64, name: &VolumeName) -> Entry {
        self.write(wall_ms, Key::volume(name), None)
    }
}
