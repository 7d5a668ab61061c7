//! What services use: operators make and remove networks, secrets and configs, and let services use those that they know.
//!
//! As of services: each object has one operator, at one node, but a quarter of them are everybody's. Halves of a split may
//! remove what services of the other half use; then tasks whose bytes do not come fail, as the real executor lets them.

use std::collections::BTreeMap;

use shoal_cluster::id::ObjectId;
use shoal_cluster::intent::Entry;
use shoal_cluster::intent::key::{Key, Kind};
use shoal_cluster::intent::name::Name;
use shoal_cluster::intent::object::{Data, DataKind, DataSpec, Network, NetworkSpec, Object, ObjectName};
use shoal_cluster::intent::service::file::FileMount;
use shoal_cluster::intent::service::network::Attachment;
use shoal_cluster::intent::service::{ServiceSpec, TaskSpec};
use shoal_cluster::io::NewObject;
use shoal_cluster::seed::Stream;
use shoal_cluster::{Cluster, Command, CommandError, wire};

use super::{SHARED_OF, WRITE_LABEL, note};
use crate::options::seed_bytes;
use crate::world::World;

/// Objects that operators know of.
pub(crate) const OBJECTS: u64 = 9;
/// Of so many services one uses what there is.
const USERS_OF: u64 = 3;
/// Longest secret, in bytes: two parts.
const DATA_BYTES_MAX: u64 = 100_000;

/// Lets an operator make an object, or remove it.
pub(crate) fn write(world: &mut World, object: u64, node: usize, roll: u64) {
    let shared = object % SHARED_OF == SHARED_OF - 1;
    let at = if shared { node } else { object as usize % world.nodes.len() };
    if !world.nodes[at].hears(world.at_us) {
        return;
    }
    let kind = [Kind::Network, Kind::Secret, Kind::Config][object as usize % 3];
    let key = Key::object(kind, &name(object));
    let Some(core) = world.core(at) else { return };
    let present = find(core, &key).map(|(id, _)| id);
    world.ledger.tried += 1;
    let write = world.ledger.tried;
    let wanted = present.is_none().then_some(write);
    let command = match present {
        Some(id) => remove(kind, id),
        None => create(kind, object, write, roll),
    };
    match world.command(at, command) {
        Some(Err(CommandError::ObjectInUse { .. })) => world.count("objects in use"),
        answer => note(world, (at, &key, shared), wanted, answer),
    }
}

fn name(object: u64) -> ObjectName {
    ObjectName::new(&format!("thing{object}")).expect("a plain name")
}

fn remove(kind: Kind, id: ObjectId) -> Command {
    match kind {
        Kind::Secret => Command::RemoveData { kind: DataKind::Secret, id },
        Kind::Config => Command::RemoveData { kind: DataKind::Config, id },
        _ => Command::RemoveNetwork(id),
    }
}

fn create(kind: Kind, object: u64, write: u64, roll: u64) -> Command {
    let mut random = Stream::new(&seed_bytes(roll), "object");
    let id = ObjectId((u128::from(random.next()) << 64 | u128::from(random.next())).to_be_bytes());
    let labels = BTreeMap::from([(WRITE_LABEL.to_owned(), write.to_string())]);
    let new = NewObject { id, name: name(object), labels };
    let bytes = random.below(DATA_BYTES_MAX) as u32;
    let sealed = vec![random.next() as u8; bytes as usize];
    match kind {
        Kind::Secret => Command::CreateData { kind: DataKind::Secret, new, bytes, sealed },
        Kind::Config => Command::CreateData { kind: DataKind::Config, new, bytes, sealed },
        _ => Command::CreateNetwork { new, spec: NetworkSpec::default() },
    }
}

/// Returns the object that a node holds under this key, and at which write it is.
pub(super) fn find(core: &Cluster, key: &Key) -> Option<(ObjectId, u64)> {
    let name = ObjectName::new(&key.name).ok()?;
    match key.kind()? {
        Kind::Network => core.intent().networks().get(&name).and_then(seen),
        Kind::Secret => core.intent().data(DataKind::Secret).get(&name).and_then(seen),
        Kind::Config => core.intent().data(DataKind::Config).get(&name).and_then(seen),
        _ => None,
    }
}

fn seen<T>(object: &Object<T>) -> Option<(ObjectId, u64)> {
    Some((object.id, object.labels.get(WRITE_LABEL)?.parse().ok()?))
}

/// Returns the write of an object that an entry holds.
pub(super) fn number(entry: &Entry) -> Option<u64> {
    let value = entry.version.value.as_ref()?;
    let found = match entry.key.kind()? {
        Kind::Network => wire::decode::<Network>(value).ok().as_ref().and_then(seen),
        Kind::Secret | Kind::Config => wire::decode::<Data>(value).ok().as_ref().and_then(seen),
        _ => None,
    };
    found.map(|(_, write)| write)
}

/// Lets some services use what their operator's node knows of.
pub(super) fn draw(core: &Cluster, spec: &mut ServiceSpec, roll: u64) {
    let mut random = Stream::new(&seed_bytes(roll), "uses");
    if random.below(USERS_OF) == 0 {
        let networks = core.intent().networks().keys().filter(|_| random.below(2) == 0).cloned();
        let alias = Name::new("alias").expect("a plain name");
        spec.networks = networks.map(|network| Attachment { network, aliases: vec![alias.clone()] }).collect();
        let kinds = [DataKind::Secret, DataKind::Config];
        let objects =
            kinds.into_iter().flat_map(|kind| core.intent().data(kind).values().map(move |data| (kind, data)));
        let drawn = objects.filter(|_| random.below(2) == 0).map(|(kind, data)| mount(kind, data));
        spec.task.container.files = drawn.collect();
    }
    drop_gone(core, spec);
}

/// Lets go of what was removed, without which no node takes the spec.
pub(super) fn drop_gone(core: &Cluster, spec: &mut ServiceSpec) {
    spec.networks.retain(|attachment| core.intent().networks().contains_key(&attachment.network));
    let known = |file: &FileMount| core.intent().data(file.kind).values().any(|data| data.id == file.id);
    spec.task.container.files.retain(known);
}

fn mount(kind: DataKind, data: &Object<DataSpec>) -> FileMount {
    let (id, name, target) = (data.id, data.name.clone(), data.name.to_string());
    FileMount { kind, id, name, target, uid: 0, gid: 0, mode: 0o444 }
}

/// Tells whether a node lacks bytes that a task is to get.
pub(crate) fn lacks_files(core: &Cluster, task: &TaskSpec) -> bool {
    task.container.files.iter().any(|file| !core.intent().sealed().has(&file.id))
}
