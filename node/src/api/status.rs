//! What Docker has no word for: the JSON below `/shoal/`, shared by the API and the CLI.
//!
//! Fields may be added; those that are here keep their names and meanings. Digests and fingerprints are hexadecimal.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `GET /shoal/status`: whether the shoal is agreed, and how this node fares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Fingerprint of the shoal's CA: which shoal this is.
    pub shoal: String,
    /// Whether this node acts and every member that is up last said the same of intent and plan as this node.
    pub agreed: bool,
    /// The node that answers.
    pub node: NodeStatus,
    /// Digest of the intent plane here.
    pub intent: String,
    /// Digest of the plan here.
    pub plan: String,
    /// Every known member, the answering node included, in order of name.
    pub members: Vec<MemberStatus>,
    /// How many services are declared.
    pub services: u64,
    /// How many tasks are wanted.
    pub tasks_wanted: u64,
    /// How many of them run.
    pub tasks_running: u64,
}

/// The node that answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its id, as it is shown everywhere.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `manager` or `worker`.
    pub role: String,
    /// The version of its binary.
    pub version: String,
    /// Whether it has caught up with the others, or given up waiting, and acts.
    pub settled: bool,
    /// When it was started, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// Its resident memory in bytes; absent if the system does not tell.
    pub rss_bytes: Option<u64>,
    /// What it has sent and received since it was started.
    pub traffic: Traffic,
    /// Where its data is.
    pub data_dir: String,
    /// Where others reach it, as `host:port`.
    pub advertised: String,
    /// Where it answers DNS queries besides its overlay address, each as `address:port`.
    pub dns: Vec<String>,
}

/// Totals of gossip, admission and image transfer, TLS included; readers take differences for rates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Bytes written to sockets.
    pub sent_bytes: u64,
    /// Bytes read from sockets.
    pub received_bytes: u64,
}

/// One member as the answering node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `alive`, `suspect`, `down` or `left`.
    pub state: String,
    /// Its incarnation.
    pub incarnation: u64,
    /// `manager` or `worker`.
    pub role: String,
    /// Where it listens for gossip, as `address:port`.
    pub gossip: String,
    /// Its block of the overlay in IPv4, with prefix length, once it has one.
    pub block_v4: Option<String>,
    /// Its block of the overlay in IPv6, with prefix length.
    pub block_v6: Option<String>,
    /// What it said last of its planes; absent for the answering node and for members that said nothing yet.
    pub said: Option<Said>,
}

/// What a member said last of its planes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Digest of its intent plane.
    pub intent: String,
    /// Digest of its plan.
    pub plan: String,
    /// Whether both are those of the answering node.
    pub agrees: bool,
    /// How many intent writes known to the answering node it did not know then.
    pub behind: u64,
    /// How long ago, in milliseconds.
    pub age_ms: u64,
}

/// What is said of a change that was accepted, in Docker's answers to changes and beside them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Stored {
    /// What the operator should know; Docker's client prints it.
    pub warnings: Option<Vec<String>>,
    /// On how many nodes' disks the change is, the answering node's included, as far as is known.
    pub stored_on: usize,
}

impl Stored {
    /// Adds what else the operator should know.
    pub(super) fn and(mut self, warning: Option<String>) -> Self {
        if let Some(warning) = warning {
            self.warnings.get_or_insert_default().push(warning);
        }
        self
    }
}

/// Docker's answer to the creation of a service, and where it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    /// The service's id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Where it is stored.
    #[serde(flatten)]
    pub stored: Stored,
}

/// `GET /shoal/conflicts`, and `Conflict` of an inspected service: an object with concurrent writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// `service`, `node`, or the number of a kind that this node does not understand.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// All writes, the one that counts first. Whoever writes again settles it.
    pub versions: Vec<Rival>,
}

/// One of several concurrent writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rival {
    /// The node on which it was written, by id.
    pub author: String,
    /// That node's name, if it is still known.
    pub author_name: Option<String>,
    /// When, by that node's hybrid clock, in milliseconds since the Unix epoch.
    pub written_ms: u64,
    /// What was written: a service's or a node's spec in Docker's form; absent if the object was removed, or if this
    /// node does not understand it.
    pub spec: Option<Value>,
    /// Whether the object was removed.
    pub removed: bool,
}

/// `GET /shoal/join`: how others join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// Where this node admits others, as `host:port`; any other node that is up will do.
    pub seed: String,
    /// The token that admits managers, if this node has it.
    pub manager: Option<String>,
    /// The token that admits workers, if this node has it.
    pub worker: Option<String>,
}

impl Join {
    /// Returns the command that joins with this token.
    pub fn command(&self, token: &str) -> String {
        format!("shoal up --seed {} --token {token}", self.seed)
    }
}

/// `GET /shoal/plan`: which node runs how much, and what would move if something happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanAnswer {
    /// Digest of the assignments as they would be.
    pub digest: String,
    /// Every node, those that would join included.
    pub nodes: Vec<NodePlan>,
    /// How many slots would be elsewhere.
    pub moved: u64,
    /// Which, the first of them.
    pub moves: Vec<Moved>,
    /// How many slots would have no node.
    pub pending: u64,
}

/// One node of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePlan {
    /// Its name.
    pub name: String,
    /// How many slots it has.
    pub tasks: u64,
    /// How many it would have.
    pub then: u64,
}

/// One slot that would be elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// `SERVICE.SLOT`.
    pub slot: String,
    /// Where it is; absent if it is pending.
    pub from: Option<String>,
    /// Where it would be; absent if it would be pending.
    pub to: Option<String>,
    /// Why it would be there, or pending.
    pub why: String,
}

/// `GET /shoal/why`: why a slot is where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyAnswer {
    /// The service's name.
    pub service: String,
    /// The slot.
    pub slot: u32,
    /// Where it is; absent if it is pending.
    pub node: Option<String>,
    /// Why.
    pub why: String,
    /// The nodes that it ranks higher, its first choice first.
    pub refused: Vec<String>,
}
