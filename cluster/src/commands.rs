//! Commands: what operators want, checked against what is there, and written as intent.

mod objects;

use alloc::vec::Vec;
use core::mem::discriminant;

use crate::Cluster;
use crate::hash;
use crate::id::{NodeId, RolloutId, ServiceId};
use crate::intent::key::Key;
use crate::intent::node::{NodeIntent, NodeSpec};
use crate::intent::service::container::VolumeName;
use crate::intent::service::{Service, ServiceSpec};
use crate::intent::update::{Rollout, Verdict};
use crate::io::{Command, CommandError, Receipt};
use crate::limits::SERVICES_MAX;

impl Cluster {
    /// Carries out a command, or says why not; then nothing was changed.
    pub(crate) fn command(&mut self, command: Command) -> Result<Receipt, CommandError> {
        match command {
            Command::CreateService(spec) => self.create_service(spec),
            Command::UpdateService { id, version, spec } => self.update_service(&id, version, spec),
            Command::RollbackService { id, version, to } => self.rollback_service(&id, version, to),
            Command::RemoveService(id) => self.remove_service(&id),
            Command::UpdateNode { node, version, spec } => self.update_node(node, version, spec),
            Command::RemoveNode(node) => self.remove_node(node),
            Command::ClaimVolume(name) => self.claim_volume(&name),
            Command::ReleaseVolume(name) => self.release_volume(&name),
            Command::CreateNetwork { new, spec } => self.create_network(new, spec),
            Command::RemoveNetwork(id) => self.remove_network(&id),
            Command::CreateData { kind, new, bytes, sealed } => self.create_data(kind, new, bytes, &sealed),
            Command::LabelData { kind, id, version, labels } => self.label_data(kind, &id, version, labels),
            Command::RemoveData { kind, id } => self.remove_data(kind, &id),
            Command::HandOver => {
                self.membership.hand_over(self.now.mono);
                Ok(Receipt::Done)
            }
            Command::Leave => {
                self.membership.leave(self.now.mono);
                Ok(Receipt::Done)
            }
        }
    }

    fn create_service(&mut self, spec: ServiceSpec) -> Result<Receipt, CommandError> {
        spec.check()?;
        self.check_uses(&spec)?;
        if let Some(taken) = self.intent.service_named(&spec.name) {
            return Err(CommandError::NameTaken(taken.spec.name.clone()));
        }
        if self.intent.service_count() >= SERVICES_MAX {
            return Err(CommandError::TooManyServices(SERVICES_MAX));
        }
        let dot = self.intent.next_dot();
        let now_ms = self.now.wall_ms;
        self.write_service(Service {
            id: ServiceId::derive(&dot.actor.node, dot.actor.epoch, dot.counter),
            version: 1,
            revision: spec.task.revision(),
            created_ms: now_ms,
            updated_ms: now_ms,
            author: self.own,
            rollout: None,
            history: Vec::new(),
            spec,
        })
    }

    fn update_service(&mut self, id: &ServiceId, named: u64, spec: ServiceSpec) -> Result<Receipt, CommandError> {
        spec.check()?;
        self.check_uses(&spec)?;
        let present = self.intent.service(id).ok_or(CommandError::NoSuchService(*id))?;
        let name = &present.spec.name;
        if spec.name != *name {
            return Err(CommandError::Rename { from: name.clone(), to: spec.name });
        }
        if present.version != named {
            return Err(CommandError::OutOfSequence { name: name.clone(), named, present: present.version });
        }
        if discriminant(&present.spec.mode) != discriminant(&spec.mode) {
            return Err(CommandError::ModeChange(name.clone()));
        }
        let service = self.successor(present, spec, false);
        self.write_service(service)
    }

    /// Writes a service as it was: as an earlier version, or as the one before the present.
    fn rollback_service(&mut self, id: &ServiceId, named: u64, to: Option<u64>) -> Result<Receipt, CommandError> {
        let present = self.intent.service(id).ok_or(CommandError::NoSuchService(*id))?;
        let name = present.spec.name.clone();
        if present.version != named {
            return Err(CommandError::OutOfSequence { name, named, present: present.version });
        }
        let kept = match to {
            Some(version) => present.history.iter().find(|kept| kept.version == version),
            None => present.history.first(),
        };
        let Some(kept) = kept else {
            return Err(CommandError::NotKept { name, version: to });
        };
        let service = self.successor(present, kept.spec.clone(), true);
        self.write_service(service)
    }

    /// Returns a service with another spec. A rollout begins if the tasks are to run something else, and once more if one
    /// that has ended before its time is asked for again, or in another way.
    fn successor(&self, present: &Service, spec: ServiceSpec, backward: bool) -> Service {
        let (verdict, task) = (self.intent.verdict(present), spec.task.revision());
        let stands = match verdict {
            Verdict::Progressing | Verdict::Completed => true,
            Verdict::Paused | Verdict::RolledBack | Verdict::RollbackCompleted | Verdict::RollbackPaused => false,
        };
        let again =
            spec == present.spec || (spec.update, spec.rollback) != (present.spec.update, present.spec.rollback);
        let begins = task != present.spec.task.revision() || (!stands && again);
        let dot = self.intent.next_dot();
        let rollout = Rollout {
            id: RolloutId::derive(&dot.actor.node, dot.actor.epoch, dot.counter),
            started_ms: self.now.wall_ms,
            backward,
        };
        let revision = match (spec.mode.is_job(), begins) {
            (false, _) => task,
            // What the same task did in an earlier run of the job does not count in this one.
            (true, true) => hash::quick([task, rollout.id.0].into_iter()),
            (true, false) => present.revision,
        };
        let history =
            if spec == present.spec { present.history.clone() } else { present.history_with(verdict.ended(), &spec) };
        Service {
            id: present.id,
            version: present.version.saturating_add(1),
            revision,
            created_ms: present.created_ms,
            updated_ms: self.now.wall_ms,
            author: self.own,
            rollout: if begins { Some(rollout) } else { present.rollout },
            history,
            spec,
        }
    }

    fn remove_service(&mut self, id: &ServiceId) -> Result<Receipt, CommandError> {
        let present = self.intent.service(id).ok_or(CommandError::NoSuchService(*id))?;
        let (name, verdict) = (present.spec.name.clone(), verdict_key(present));
        let entry = self.intent.remove_service(self.now.wall_ms, &name);
        self.publish(entry);
        self.forget_verdict(verdict);
        for entry in self.intent.forget_completions(self.now.wall_ms, id, None) {
            self.publish(entry);
        }
        Ok(Receipt::Done)
    }

    fn update_node(&mut self, node: NodeId, named: u64, spec: NodeSpec) -> Result<Receipt, CommandError> {
        spec.check()?;
        if !self.membership.members().contains_key(&node) {
            return Err(CommandError::NoSuchNode(node));
        }
        let present = self.intent.nodes().get(&node).map_or(0, |intent| intent.version);
        if present != named {
            return Err(CommandError::NodeOutOfSequence { node, named, present });
        }
        let intent = NodeIntent { node, version: present.saturating_add(1), removed: false, spec };
        let entry = self.intent.write_node(self.now.wall_ms, &intent);
        self.publish(entry);
        Ok(Receipt::Done)
    }

    /// Removes a node that is not up: all take it for one that has left, until it comes back.
    fn remove_node(&mut self, node: NodeId) -> Result<Receipt, CommandError> {
        if !self.membership.members().contains_key(&node) {
            return Err(CommandError::NoSuchNode(node));
        }
        if self.membership.is_up(&node) {
            return Err(CommandError::NodeIsUp(node));
        }
        let version = self.intent.nodes().get(&node).map_or(1, |intent| intent.version.saturating_add(1));
        let intent = NodeIntent { node, version, removed: true, spec: NodeSpec::default() };
        let entry = self.intent.write_node(self.now.wall_ms, &intent);
        self.publish(entry);
        self.membership.remove(self.now.mono, node);
        Ok(Receipt::Done)
    }

    fn claim_volume(&mut self, name: &VolumeName) -> Result<Receipt, CommandError> {
        match self.intent.volumes().get(name) {
            Some(node) if *node != self.own => {
                return Err(CommandError::VolumeElsewhere { volume: name.clone(), node: *node });
            }
            Some(_) => {}
            None => {
                let entry = self.intent.claim_volume(self.now.wall_ms, name);
                self.publish(entry);
            }
        }
        Ok(Receipt::Done)
    }

    fn release_volume(&mut self, name: &VolumeName) -> Result<Receipt, CommandError> {
        let mounts = |service: &&Service| {
            !service.spec.mode.is_global() && service.spec.task.container.volumes().any(|mounted| mounted == name)
        };
        // With its node given up, the service is to make it anew: only whose node is up is in use.
        let in_use = self.intent.volumes().get(name).is_some_and(|node| self.membership.is_up(node));
        if in_use && let Some(service) = self.intent.services().find(mounts) {
            return Err(CommandError::VolumeInUse { volume: name.clone(), service: service.spec.name.clone() });
        }
        if self.intent.volumes().contains_key(name) {
            let entry = self.intent.release_volume(self.now.wall_ms, name);
            self.publish(entry);
        }
        Ok(Receipt::Done)
    }

    fn write_service(&mut self, service: Service) -> Result<Receipt, CommandError> {
        let receipt = Receipt::Service { id: service.id, version: service.version };
        let before = self.intent.service(&service.id).filter(|before| before.rollout != service.rollout);
        let verdict = before.and_then(verdict_key);
        let entry = self.intent.write_service(self.now.wall_ms, &service);
        self.publish(entry);
        self.forget_verdict(verdict);
        Ok(receipt)
    }

    /// Removes the verdict on a rollout that is no longer its service's present one.
    fn forget_verdict(&mut self, key: Option<Key>) {
        if let Some(key) = key.filter(|key| !self.intent.versions(key).is_empty()) {
            let entry = self.intent.write(self.now.wall_ms, key, None);
            self.publish(entry);
        }
    }
}

fn verdict_key(service: &Service) -> Option<Key> {
    service.rollout.map(|rollout| Key::verdict(&service.id, rollout.id))
}
