//! Commands about what services use: networks, secrets and configs.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::Cluster;
use crate::id::ObjectId;
use crate::intent::object::{
    BUILT_IN, Data, DataKind, DataSpec, Network, NetworkSpec, Object, ObjectName, Objects, labels_fit,
};
use crate::intent::service::{Service, ServiceSpec};
use crate::io::{CommandError, NewObject, Receipt};
use crate::limits::{ALL_DATA_BYTES_MAX, DATA_BYTES_MAX, OBJECTS_MAX, SEAL_BYTES_MAX};

/// What people call a network.
const NETWORK: &str = "network";

impl Cluster {
    pub(super) fn create_network(&mut self, new: NewObject, spec: NetworkSpec) -> Result<Receipt, CommandError> {
        if new.name.as_str() == BUILT_IN {
            return Err(CommandError::ObjectTaken { what: NETWORK, name: new.name });
        }
        check_new(NETWORK, self.intent.networks(), &new)?;
        let network: Network = self.object(new, spec);
        let entry = self.intent.write_network(self.now.wall_ms, &network);
        self.publish(entry);
        Ok(Receipt::Done)
    }

    pub(super) fn remove_network(&mut self, id: &ObjectId) -> Result<Receipt, CommandError> {
        let name = find(NETWORK, self.intent.networks(), id)?.name.clone();
        let on = |service: &Service| service.spec.networks.iter().any(|attachment| attachment.network == name);
        self.check_unused(NETWORK, &name, on)?;
        let entry = self.intent.remove_network(self.now.wall_ms, &name);
        self.publish(entry);
        Ok(Receipt::Done)
    }

    /// Writes the parts first: whoever knows of the object soon has its bytes.
    pub(super) fn create_data(
        &mut self,
        kind: DataKind,
        new: NewObject,
        bytes: u32,
        sealed: &[u8],
    ) -> Result<Receipt, CommandError> {
        if bytes as usize > DATA_BYTES_MAX || sealed.len() > DATA_BYTES_MAX + SEAL_BYTES_MAX {
            return Err(CommandError::TooManyBytes { what: kind.word(), name: new.name, bytes_max: DATA_BYTES_MAX });
        }
        check_new(kind.word(), self.intent.data(kind), &new)?;
        if self.intent.bytes() + sealed.len() > ALL_DATA_BYTES_MAX {
            return Err(CommandError::NoRoom { what: kind.word(), bytes_max: ALL_DATA_BYTES_MAX });
        }
        let parts = self.intent.write_parts(self.now.wall_ms, new.id, sealed);
        parts.into_iter().for_each(|entry| self.publish(entry));
        let data: Data = self.object(new, DataSpec { bytes });
        let entry = self.intent.write_data(self.now.wall_ms, kind, &data);
        self.publish(entry);
        Ok(Receipt::Done)
    }

    pub(super) fn label_data(
        &mut self,
        kind: DataKind,
        id: &ObjectId,
        named: u64,
        labels: BTreeMap<String, String>,
    ) -> Result<Receipt, CommandError> {
        let present = find(kind.word(), self.intent.data(kind), id)?;
        if present.version != named {
            let (what, name) = (kind.word(), present.name.clone());
            return Err(CommandError::ObjectOutOfSequence { what, name, named, present: present.version });
        }
        check_labels(kind.word(), &present.name, &labels)?;
        let (version, updated_ms) = (named.saturating_add(1), self.now.wall_ms);
        let data = Data { version, updated_ms, author: self.own, labels, ..present.clone() };
        let entry = self.intent.write_data(self.now.wall_ms, kind, &data);
        self.publish(entry);
        Ok(Receipt::Done)
    }

    pub(super) fn remove_data(&mut self, kind: DataKind, id: &ObjectId) -> Result<Receipt, CommandError> {
        let name = find(kind.word(), self.intent.data(kind), id)?.name.clone();
        let gets = |service: &Service| service.spec.task.container.files.iter().any(|file| file.id == *id);
        self.check_unused(kind.word(), &name, gets)?;
        let entries = self.intent.remove_data(self.now.wall_ms, kind, &name);
        entries.into_iter().for_each(|entry| self.publish(entry));
        Ok(Receipt::Done)
    }

    /// Refuses a service that uses what is not there.
    pub(super) fn check_uses(&self, spec: &ServiceSpec) -> Result<(), CommandError> {
        let networks = self.intent.networks();
        let known = |name: &ObjectName| name.as_str() == BUILT_IN || networks.contains_key(name);
        if let Some(attachment) = spec.networks.iter().find(|attachment| !known(&attachment.network)) {
            return Err(CommandError::NoSuchObject { what: NETWORK, name: attachment.network.to_string() });
        }
        let missing = |kind: DataKind, id: &ObjectId| find(kind.word(), self.intent.data(kind), id).is_err();
        match spec.task.container.files.iter().find(|file| missing(file.kind, &file.id)) {
            Some(file) => Err(CommandError::NoSuchObject { what: file.kind.word(), name: file.name.to_string() }),
            None => Ok(()),
        }
    }

    fn check_unused(
        &self,
        what: &'static str,
        name: &ObjectName,
        uses: impl Fn(&Service) -> bool,
    ) -> Result<(), CommandError> {
        let users: Vec<&str> =
            self.intent.services().filter(|service| uses(service)).map(|service| service.spec.name.as_str()).collect();
        match users.is_empty() {
            true => Ok(()),
            false => Err(CommandError::ObjectInUse { what, name: name.clone(), services: users.join(", ") }),
        }
    }

    fn object<T>(&self, new: NewObject, spec: T) -> Object<T> {
        let NewObject { id, name, labels } = new;
        let now_ms = self.now.wall_ms;
        Object { id, name, version: 1, created_ms: now_ms, updated_ms: now_ms, author: self.own, labels, spec }
    }
}

fn check_new<T>(what: &'static str, present: &Objects<T>, new: &NewObject) -> Result<(), CommandError> {
    if present.contains_key(&new.name) {
        return Err(CommandError::ObjectTaken { what, name: new.name.clone() });
    }
    if present.len() >= OBJECTS_MAX {
        return Err(CommandError::TooManyObjects { what, max: OBJECTS_MAX });
    }
    check_labels(what, &new.name, &new.labels)
}

fn check_labels(what: &'static str, name: &ObjectName, labels: &BTreeMap<String, String>) -> Result<(), CommandError> {
    match labels_fit(labels) {
        true => Ok(()),
        false => Err(CommandError::TooManyLabels { what, name: name.clone() }),
    }
}

fn find<'a, T>(what: &'static str, objects: &'a Objects<T>, id: &ObjectId) -> Result<&'a Object<T>, CommandError> {
    let found = objects.values().find(|object| object.id == *id);
    found.ok_or_else(|| CommandError::NoSuchObject { what, name: id.to_string() })
}
