//! Commands of operators: what they want, and why they are refused.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::id::{NodeId, ObjectId, ServiceId};
use crate::intent::name::Name;
use crate::intent::node::{NodeSpec, NodeSpecError};
use crate::intent::object::{DataKind, NetworkSpec, ObjectName};
use crate::intent::service::container::VolumeName;
use crate::intent::service::{ServiceSpec, SpecError};

/// What an operator wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Declare a new service.
    CreateService(ServiceSpec),
    /// Replace a service's spec.
    UpdateService {
        /// Which.
        id: ServiceId,
        /// The version that the new spec was made from.
        version: u64,
        /// The new spec; the name must stay.
        spec: ServiceSpec,
    },
    /// Write a service as it was before.
    RollbackService {
        /// Which.
        id: ServiceId,
        /// The version that the caller saw last.
        version: u64,
        /// The version to go back to; the one before the present if absent.
        to: Option<u64>,
    },
    /// Remove a service and its tasks.
    RemoveService(ServiceId),
    /// Replace what operators want of a node.
    UpdateNode {
        /// Which; it must be a member.
        node: NodeId,
        /// The version that the new spec was made from; 0 if nothing was wanted of it yet.
        version: u64,
        /// The new spec.
        spec: NodeSpec,
    },
    /// Remove a node that is not up.
    RemoveNode(NodeId),
    /// Say that a volume lives on this node, which then makes it.
    ClaimVolume(VolumeName),
    /// Forget where a volume lives: it was removed, or its node is given up.
    ReleaseVolume(VolumeName),
    /// Make a network.
    CreateNetwork {
        /// What it has in common with all objects.
        new: NewObject,
        /// What it is to be.
        spec: NetworkSpec,
    },
    /// Remove a network that no service is on.
    RemoveNetwork(ObjectId),
    /// Make a secret or config.
    CreateData {
        /// Which of the two.
        kind: DataKind,
        /// What it has in common with all objects.
        new: NewObject,
        /// How many bytes it has.
        bytes: u32,
        /// Its bytes, sealed for this id by whoever has the key.
        sealed: Vec<u8>,
    },
    /// Replace the labels of a secret or config: all that can be changed.
    LabelData {
        /// Which of the two.
        kind: DataKind,
        /// Which.
        id: ObjectId,
        /// The version that the caller saw last.
        version: u64,
        /// The new labels.
        labels: BTreeMap<String, String>,
    },
    /// Remove a secret or config that no service gets.
    RemoveData {
        /// Which of the two.
        kind: DataKind,
        /// Which.
        id: ObjectId,
    },
    /// Tell the others that this node will leave: its tasks move away, the new ones first. [`Command::Leave`] follows once
    /// none is left, or when that takes too long.
    HandOver,
    /// Say goodbye to the others: this node's tasks count no more, and others start theirs at once. The caller stops it afterwards.
    Leave,
}

/// What every new network, secret or config has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewObject {
    /// Drawn by the caller.
    pub id: ObjectId,
    /// Not taken yet.
    pub name: ObjectName,
    /// The operator's own labels.
    pub labels: BTreeMap<String, String>,
}

/// The operator's command was accepted; it is durable once the actions that came with it are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// A service was created or updated.
    Service {
        /// Which.
        id: ServiceId,
        /// Its version now.
        version: u64,
    },
    /// Done; nothing to show.
    Done,
}

/// A command was refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Another service has this name.
    #[error("name conflicts with an existing object: service {0} already exists")]
    NameTaken(Name),
    /// No service has this id.
    #[error("service {0} not found")]
    NoSuchService(ServiceId),
    /// The spec was made from an older version than the present one. Clients match the text's ending.
    #[error("version {named} of service {name} is not its present version {present}: update out of sequence")]
    OutOfSequence {
        /// Which.
        name: Name,
        /// What the caller named.
        named: u64,
        /// What it is.
        present: u64,
    },
    /// No earlier version of the service is kept, or not this one.
    #[error("service {name} does not have {}: see what it has with shoal service history", kept(*version))]
    NotKept {
        /// Which.
        name: Name,
        /// The version asked for; absent if the previous one.
        version: Option<u64>,
    },
    /// No member has this id.
    #[error("node {0} not found")]
    NoSuchNode(NodeId),
    /// A node that is up is no node to remove: it would come back at once.
    #[error("node {0} is up and can't be removed: stop it first")]
    NodeIsUp(NodeId),
    /// What is wanted of the node was made from an older version than the present one. Clients match the text's ending.
    #[error("version {named} of node {node} is not its present version {present}: update out of sequence")]
    NodeOutOfSequence {
        /// Which.
        node: NodeId,
        /// What the caller named.
        named: u64,
        /// What it is.
        present: u64,
    },
    /// The volume lives on another node.
    #[error("volume {volume} lives on node {node} already: use it there, or remove it first")]
    VolumeElsewhere {
        /// Which.
        volume: VolumeName,
        /// Where.
        node: NodeId,
    },
    /// A service mounts the volume.
    #[error("volume {volume} is in use by service {service}: remove the service, or its mount, first")]
    VolumeInUse {
        /// Which.
        volume: VolumeName,
        /// Whose.
        service: Name,
    },
    /// Another object of this kind has the name. Clients match the words.
    #[error("name conflicts with an existing object: {what} {name} already exists")]
    ObjectTaken {
        /// What it is.
        what: &'static str,
        /// Its name.
        name: ObjectName,
    },
    /// No object of this kind has this name or id.
    #[error("{what} {name} not found")]
    NoSuchObject {
        /// What it is.
        what: &'static str,
        /// Its name or id.
        name: String,
    },
    /// The object was written since the caller saw it. Clients match the text's ending.
    #[error("version {named} of {what} {name} is not its present version {present}: update out of sequence")]
    ObjectOutOfSequence {
        /// What it is.
        what: &'static str,
        /// Its name.
        name: ObjectName,
        /// What the caller named.
        named: u64,
        /// What it is.
        present: u64,
    },
    /// Services use the object.
    #[error("{what} {name} is in use by the following services: {services}; update or remove these first")]
    ObjectInUse {
        /// What it is.
        what: &'static str,
        /// Its name.
        name: ObjectName,
        /// Whose names.
        services: String,
    },
    /// The shoal has as many objects of this kind as it may have.
    #[error("the shoal has {max} {what}s, as many as it may have: remove one first")]
    TooManyObjects {
        /// What they are.
        what: &'static str,
        /// How many.
        max: usize,
    },
    /// The labels do not fit.
    #[error("the labels of {what} {name} are too long: shorten them")]
    TooManyLabels {
        /// What it is.
        what: &'static str,
        /// Its name.
        name: ObjectName,
    },
    /// A secret or config has more bytes than it may have.
    #[error("{what} {name} has more than {bytes_max} bytes, the most that one may have: use a volume, or an image")]
    TooManyBytes {
        /// What it is.
        what: &'static str,
        /// Its name.
        name: ObjectName,
        /// The bound.
        bytes_max: usize,
    },
    /// All secrets and configs together have as many bytes as they may have.
    #[error("no room for another {what}: all of them may have {bytes_max} bytes together: remove some first")]
    NoRoom {
        /// What it is.
        what: &'static str,
        /// The bound.
        bytes_max: usize,
    },
    /// What is wanted of the node cannot be accepted.
    #[error(transparent)]
    NodeSpec(#[from] NodeSpecError),
    /// A service cannot become one of another mode.
    #[error("the mode of service {0} cannot be changed: remove it and create it anew")]
    ModeChange(Name),
    /// An update may not rename.
    #[error("renaming services is not supported: {from} cannot become {to}")]
    Rename {
        /// The present name.
        from: Name,
        /// The name asked for.
        to: Name,
    },
    /// The spec cannot be accepted.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The shoal has as many services as it may have.
    #[error("the shoal has {0} services, as many as it may have: remove one first")]
    TooManyServices(usize),
}

/// Says what was asked for; clients of Docker match the words of the first.
fn kept(version: Option<u64>) -> String {
    version.map_or("a previous spec".into(), |version| alloc::format!("version {version} any more"))
}
