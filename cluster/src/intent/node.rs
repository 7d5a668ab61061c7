//! Nodes as operators want them: availability and labels, one register for each node.

use alloc::collections::BTreeMap;
use alloc::string::String;

use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::limits::{LABEL_BYTES_MAX, LABELS_MAX};

/// What operators wrote on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeIntent {
    /// Which node.
    pub node: NodeId,
    /// Grows with each accepted write; an update must name the one it was made from (Docker's `Version.Index`).
    pub version: u64,
    /// Whether it was removed when it was not up: as long as it stays away it is not listed, and counts for nothing.
    pub removed: bool,
    /// What they want of it.
    pub spec: NodeSpec,
}

/// What operators want of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Whether it takes tasks.
    pub availability: Availability,
    /// Labels, by which constraints and preferences choose.
    pub labels: BTreeMap<String, String>,
}

/// Whether a node takes tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Availability {
    /// It does.
    #[default]
    Active,
    /// It takes no new ones; what runs stays.
    Pause,
    /// It takes none, and what runs moves away.
    Drain,
}

impl NodeSpec {
    /// Checks what types cannot: numbers and sizes of labels.
    pub fn check(&self) -> Result<(), NodeSpecError> {
        if self.labels.len() > LABELS_MAX {
            return Err(NodeSpecError::TooManyLabels { labels: self.labels.len() });
        }
        match self.labels.iter().find(|(key, value)| key.is_empty() || key.len() + value.len() > LABEL_BYTES_MAX) {
            Some((key, _)) => Err(NodeSpecError::Label { key: key.chars().take(64).collect() }),
            None => Ok(()),
        }
    }
}

/// What operators want of a node cannot be accepted. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeSpecError {
    /// More labels than a node may have.
    #[error("{labels} labels are too many: a node may have at most {LABELS_MAX}")]
    TooManyLabels {
        /// What was asked for.
        labels: usize,
    },
    /// A label without a name, or too long.
    #[error("the label \"{key}\" has no name or more than {LABEL_BYTES_MAX} bytes: shorten it")]
    Label {
        /// Its name, or the beginning of it.
        key: String,
    },
}
