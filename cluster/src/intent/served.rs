//! What of the registers counts: the winning value of each, decoded once.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;

use super::job::Completions;
use super::key::{Key, Kind};
use super::node::NodeIntent;
use super::object::ServedObjects;
use super::service::Service;
use super::service::container::VolumeName;
use super::update::{Rollout, Ruling, Verdict};
use crate::crdt::{Register, Version};
use crate::hash;
use crate::id::{NodeId, RolloutId, ServiceId};
use crate::plan::addresses::BLOCK_COUNT;
use crate::wire;

/// Services by name and id, and blocks by number.
#[derive(Clone, Debug, Default)]
pub(super) struct Served {
    services: BTreeMap<String, Service>,
    /// The names under which an id is served: one, unless its author is broken or hostile.
    ids: BTreeMap<ServiceId, BTreeSet<String>>,
    blocks: BTreeMap<u16, NodeId>,
    /// The numbers of the blocks that each node holds.
    held: BTreeMap<NodeId, BTreeSet<u16>>,
    nodes: BTreeMap<NodeId, NodeIntent>,
    volumes: BTreeMap<VolumeName, NodeId>,
    pub(super) objects: ServedObjects,
    /// By the name of its key, each verdict with when it was raised first.
    rulings: BTreeMap<String, (Ruling, u64)>,
    /// What each node says of each job.
    completions: BTreeMap<ServiceId, BTreeMap<NodeId, Completions>>,
    /// The services whose rollout has not ended.
    rolling: BTreeSet<ServiceId>,
}

/// Tells whether a number is that of a block that can be had.
fn in_pool(number: &u16) -> bool {
    *number < BLOCK_COUNT
}

impl Served {
    pub(super) fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }

    pub(super) fn service_count(&self) -> usize {
        self.services.len()
    }

    pub(super) fn service(&self, id: &ServiceId) -> Option<&Service> {
        self.services.get(self.ids.get(id)?.first()?)
    }

    pub(super) fn service_named(&self, folded: &str) -> Option<&Service> {
        self.services.get(folded)
    }

    pub(super) fn blocks(&self) -> impl Iterator<Item = (u16, NodeId)> {
        self.blocks.iter().map(|(&number, &node)| (number, node))
    }

    pub(super) fn block_of(&self, node: &NodeId) -> Option<u16> {
        self.held.get(node)?.first().copied().filter(in_pool)
    }

    pub(super) fn held(&self) -> impl Iterator<Item = (NodeId, u16)> {
        self.held.iter().filter_map(|(&node, numbers)| Some((node, numbers.first().copied().filter(in_pool)?)))
    }

    pub(super) fn nodes(&self) -> &BTreeMap<NodeId, NodeIntent> {
        &self.nodes
    }

    pub(super) fn ruling(&self, service: &ServiceId, rollout: RolloutId) -> Option<(Ruling, u64)> {
        self.rulings.get(&Key::verdict(service, rollout).name).copied()
    }

    pub(super) fn rolling(&self) -> impl Iterator<Item = &ServiceId> {
        self.rolling.iter()
    }

    pub(super) fn volumes(&self) -> &BTreeMap<VolumeName, NodeId> {
        &self.volumes
    }

    pub(super) fn completions(&self, service: &ServiceId) -> impl Iterator<Item = &Completions> {
        self.completions.get(service).into_iter().flat_map(BTreeMap::values)
    }

    /// Returns the jobs of which a node says something.
    pub(super) fn completed_at(&self, node: &NodeId) -> impl Iterator<Item = ServiceId> {
        self.completions.iter().filter(|(_, nodes)| nodes.contains_key(node)).map(|(service, _)| *service)
    }

    /// Follows a change of one register.
    pub(super) fn refresh(&mut self, key: &Key, register: &Register) {
        match key.kind() {
            Some(Kind::Service) => self.refresh_service(&key.name, register),
            Some(Kind::Block) => self.refresh_block(key, register),
            Some(Kind::Node) => self.refresh_node(key, register),
            Some(Kind::Verdict) => self.refresh_ruling(key, register),
            Some(Kind::Volume) => self.refresh_volume(key, register),
            Some(Kind::Network | Kind::Secret | Kind::Config | Kind::Part) => self.objects.refresh(key, register),
            Some(Kind::Completions) => self.refresh_completions(key, register),
            None => {}
        }
    }

    fn refresh_completions(&mut self, key: &Key, register: &Register) {
        match register.winner().and_then(|version| Completions::of(key, version)) {
            Some(said) => drop(self.completions.entry(said.service).or_default().insert(said.node, said)),
            None => self.completions.retain(|service, nodes| {
                nodes.retain(|node, _| Key::completions(service, node) != *key);
                !nodes.is_empty()
            }),
        }
    }

    fn refresh_service(&mut self, name: &str, register: &Register) {
        let before = self.services.get(name).map(|service| service.id);
        self.replace_service(name, register);
        let after = self.services.get(name).map(|service| service.id);
        for id in before.into_iter().chain(after) {
            self.refresh_rolling(&id);
        }
    }

    /// Notes whether the slots of a service move.
    fn refresh_rolling(&mut self, id: &ServiceId) {
        let rollout =
            self.service(id).filter(|service| !service.spec.mode.is_job()).and_then(|service| service.rollout);
        let ruling =
            |rollout: Rollout| self.ruling(id, rollout.id).map(|(ruling, _)| ruling.verdict).unwrap_or_default();
        let verdict = rollout.map(ruling);
        if verdict.is_some_and(Verdict::is_open) {
            self.rolling.insert(*id);
        } else {
            self.rolling.remove(id);
        }
    }

    /// Of concurrent verdicts the greatest counts, whoever raised it.
    fn refresh_ruling(&mut self, key: &Key, register: &Register) {
        let rulings =
            register.versions().iter().filter_map(|version| Some((ruling_of(key, version)?, version.stamp.wall_ms)));
        let greatest = rulings.max_by_key(|(ruling, at_ms)| (*ruling, core::cmp::Reverse(*at_ms)));
        let before = match greatest {
            Some(greatest) => self.rulings.insert(key.name.clone(), greatest),
            None => self.rulings.remove(&key.name),
        };
        for (ruling, _) in before.into_iter().chain(greatest) {
            self.refresh_rolling(&ruling.service);
        }
    }

    fn replace_service(&mut self, name: &str, register: &Register) {
        if let Some(before) = self.services.remove(name)
            && let Some(names) = self.ids.get_mut(&before.id)
        {
            names.remove(name);
            if names.is_empty() {
                self.ids.remove(&before.id);
            }
        }
        if let Some(service) = register.winner().and_then(service_of).filter(|now| now.spec.name.folded() == name) {
            self.ids.entry(service.id).or_default().insert(String::from(name));
            self.services.insert(String::from(name), service);
        }
    }

    fn refresh_node(&mut self, key: &Key, register: &Register) {
        self.nodes.retain(|node, _| Key::node(node) != *key);
        if let Some(intent) = register.winner().and_then(|version| node_of(key, version)) {
            self.nodes.insert(intent.node, intent);
        }
    }

    /// Of two claims at the same time the later counts, as of services: there is data behind both.
    fn refresh_volume(&mut self, key: &Key, register: &Register) {
        let Ok(name) = VolumeName::new(&key.name) else { return };
        match register.winner().and_then(claimant_of) {
            Some(node) => self.volumes.insert(name, node),
            None => self.volumes.remove(&name),
        };
    }

    fn refresh_block(&mut self, key: &Key, register: &Register) {
        let Some(number) = key.block_number() else { return };
        let claims = register.versions().iter().filter_map(claimant_of);
        let holder = claims.min_by_key(|node| (hash::digest("block-claim", &[&node.0]), *node));
        let before = match holder {
            Some(node) => self.blocks.insert(number, node),
            None => self.blocks.remove(&number),
        };
        if let Some(before) = before
            && let Some(held) = self.held.get_mut(&before)
        {
            held.remove(&number);
            if held.is_empty() {
                self.held.remove(&before);
            }
        }
        if let Some(node) = holder {
            self.held.entry(node).or_default().insert(number);
        }
    }
}

/// Returns what a version wants of a node; none if it is a tombstone, of another node than the key's, or nothing that an
/// operator could have declared.
fn node_of(key: &Key, version: &Version) -> Option<NodeIntent> {
    let intent: NodeIntent = wire::decode(version.value.as_ref()?).ok()?;
    (Key::node(&intent.node) == *key && intent.spec.check().is_ok()).then_some(intent)
}

/// Returns the service in a version; none if it is a tombstone or written by a version of shoal that this one
/// cannot read, or a spec that no operator could have declared.
fn service_of(version: &Version) -> Option<Service> {
    let service = wire::decode::<Service>(version.value.as_ref()?).ok()?;
    let history = service.history.iter().all(|kept| kept.spec.check().is_ok());
    (service.spec.check().is_ok() && history).then_some(service)
}

/// Returns the verdict in a version; none if it is a tombstone or on another rollout than the key's.
fn ruling_of(key: &Key, version: &Version) -> Option<Ruling> {
    let ruling: Ruling = wire::decode(version.value.as_ref()?).ok()?;
    (Key::verdict(&ruling.service, ruling.rollout) == *key).then_some(ruling)
}

/// Returns the node that claims a block for itself; a claim for another node does not count.
fn claimant_of(version: &Version) -> Option<NodeId> {
    wire::decode(version.value.as_ref()?).ok().filter(|node| *node == version.dot.actor.node)
}
