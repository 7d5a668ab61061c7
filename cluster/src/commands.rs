//! Commands: what operators want, checked against what is there, and written as intent.

use crate::Cluster;
use crate::id::{NodeId, ServiceId};
use crate::intent::node::{NodeIntent, NodeSpec};
use crate::intent::service::container::VolumeName;
use crate::intent::service::{Mode, Service, ServiceSpec};
use crate::io::{Command, CommandError, Receipt};
use crate::limits::SERVICES_MAX;

impl Cluster {
    /// Carries out a command, or says why not; then nothing was changed.
    pub(crate) fn command(&mut self, command: Command) -> Result<Receipt, CommandError> {
        match command {
            Command::CreateService(spec) => self.create_service(spec),
            Command::UpdateService { id, version, spec } => self.update_service(&id, version, spec),
            Command::RemoveService(id) => self.remove_service(&id),
            Command::UpdateNode { node, version, spec } => self.update_node(node, version, spec),
            Command::ClaimVolume(name) => self.claim_volume(&name),
            Command::ReleaseVolume(name) => self.release_volume(&name),
            Command::Leave => {
                self.membership.leave(self.now.mono);
                Ok(Receipt::Done)
            }
        }
    }

    fn create_service(&mut self, spec: ServiceSpec) -> Result<Receipt, CommandError> {
        spec.check()?;
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
            spec,
        })
    }

    fn update_service(&mut self, id: &ServiceId, named: u64, spec: ServiceSpec) -> Result<Receipt, CommandError> {
        spec.check()?;
        let present = self.intent.service(id).ok_or(CommandError::NoSuchService(*id))?;
        let name = &present.spec.name;
        if spec.name != *name {
            return Err(CommandError::Rename { from: name.clone(), to: spec.name });
        }
        if present.version != named {
            return Err(CommandError::OutOfSequence { name: name.clone(), named, present: present.version });
        }
        let service = Service {
            id: *id,
            version: present.version.saturating_add(1),
            revision: spec.task.revision(),
            created_ms: present.created_ms,
            updated_ms: self.now.wall_ms,
            spec,
        };
        self.write_service(service)
    }

    fn remove_service(&mut self, id: &ServiceId) -> Result<Receipt, CommandError> {
        let present = self.intent.service(id).ok_or(CommandError::NoSuchService(*id))?;
        let name = present.spec.name.clone();
        let entry = self.intent.remove_service(self.now.wall_ms, &name);
        self.publish(entry);
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
        let intent = NodeIntent { node, version: present.saturating_add(1), spec };
        let entry = self.intent.write_node(self.now.wall_ms, &intent);
        self.publish(entry);
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
            service.spec.mode == Mode::Replicated
                && service.spec.task.container.volumes().any(|mounted| mounted == name)
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
        let entry = self.intent.write_service(self.now.wall_ms, &service);
        self.publish(entry);
        Ok(receipt)
    }
}
