//! Objects that services use: networks, secrets and configs.
//!
//! Input: writes of operators. Output: the objects that count, by name, and the sealed bytes of secrets and configs, by id.
//! What is sealed stays so: this code neither has the key nor needs it. See
//! `docs/design/0031-networks-secrets-configs-stacks.md`.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use super::key::{Key, Kind};
use super::{Entry, Intent};
use crate::crdt::{Register, Version};
use crate::id::{NodeId, ObjectId};
use crate::limits::{DATA_BYTES_MAX, LABELS_BYTES_MAX, OBJECT_NAME_BYTES_MAX, PART_BYTES_MAX, SEAL_BYTES_MAX};
use crate::wire;

/// The network that services are on which name none. It is always there.
pub const BUILT_IN: &str = "shoal";

/// What networks, secrets and configs have in common, and what one of them has beyond that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object<T> {
    /// Names it for its whole life.
    pub id: ObjectId,
    /// Unique among the objects of its kind.
    pub name: ObjectName,
    /// Grows with each accepted write (Docker's `Version.Index`).
    pub version: u64,
    /// When it was created, in milliseconds since the Unix epoch by its author's clock.
    pub created_ms: u64,
    /// When it was last written, likewise.
    pub updated_ms: u64,
    /// The node on which it was last written.
    pub author: NodeId,
    /// The operator's own labels.
    pub labels: BTreeMap<String, String>,
    /// The rest.
    pub spec: T,
}

/// A network.
pub type Network = Object<NetworkSpec>;
/// A secret or a config.
pub type Data = Object<DataSpec>;

/// What a network is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// Whether containers of no service may be attached. Kept and shown; there are none.
    pub attachable: bool,
    /// Whether it has no way out. Kept and shown, not enforced yet.
    pub internal: bool,
}

/// What a secret or config is. Its bytes are its parts, found by its id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataSpec {
    /// How many bytes it has, unsealed; 0 to [`DATA_BYTES_MAX`].
    pub bytes: u32,
}

/// Secrets and configs differ in who may read them, and in where they are found in a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DataKind {
    /// Never shown to anybody but the tasks that get it.
    Secret,
    /// Shown to whoever asks the API.
    Config,
}

impl DataKind {
    /// Returns what people call it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Config => "config",
        }
    }

    /// Returns the kind of its keys.
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Secret => Kind::Secret,
            Self::Config => Kind::Config,
        }
    }
}

/// The name of a network, secret or config: letters, digits, `_`, `.` and `-`, beginning with a letter or digit, 1 to
/// [`OBJECT_NAME_BYTES_MAX`] bytes, told apart by case. Docker's rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectName(String);

/// The text is no valid name of a network, secret or config. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{text}\" is not a valid name: use letters, digits, \"_\", \".\" and \"-\", begin with a letter or digit, 1 to \
     {OBJECT_NAME_BYTES_MAX} characters"
)]
pub struct ObjectNameError {
    text: String,
}

impl ObjectName {
    /// Parses a name.
    pub fn new(text: &str) -> Result<Self, ObjectNameError> {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let valid = text.len() <= OBJECT_NAME_BYTES_MAX
            && text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
            && text.bytes().all(inner);
        match valid {
            true => Ok(Self(text.to_string())),
            false => Err(ObjectNameError { text: text.chars().take(2 * OBJECT_NAME_BYTES_MAX).collect() }),
        }
    }

    /// Returns the name of the network that is always there.
    pub fn built_in() -> Self {
        Self(BUILT_IN.to_string())
    }

    /// Returns the name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ObjectName {
    type Error = ObjectNameError;

    fn try_from(text: String) -> Result<Self, ObjectNameError> {
        Self::new(&text)
    }
}

impl From<ObjectName> for String {
    fn from(name: ObjectName) -> Self {
        name.0
    }
}

/// Tells whether so many labels may be on one object.
pub(crate) fn labels_fit(labels: &BTreeMap<String, String>) -> bool {
    labels.iter().map(|(key, value)| key.len() + value.len() + 16).sum::<usize>() <= LABELS_BYTES_MAX
}

/// One of the pieces that the sealed bytes of a secret or config are kept in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Whose.
    pub id: ObjectId,
    /// Which, from 0.
    pub number: u8,
    /// How many there are.
    pub count: u8,
    /// At most [`PART_BYTES_MAX`].
    pub sealed: Vec<u8>,
}

impl Part {
    /// Cuts sealed bytes into parts; there is one at least.
    ///
    /// The caller has checked that they are at most [`DATA_BYTES_MAX`] and [`SEAL_BYTES_MAX`].
    fn cut(id: ObjectId, sealed: &[u8]) -> Vec<Self> {
        let chunks: Vec<&[u8]> =
            if sealed.is_empty() { Vec::from([sealed]) } else { sealed.chunks(PART_BYTES_MAX).collect() };
        let count = u8::try_from(chunks.len()).unwrap_or(u8::MAX);
        (0..count).zip(chunks).map(|(number, chunk)| Self { id, number, count, sealed: chunk.to_vec() }).collect()
    }

    /// Returns the part in a version; none if it is a tombstone, another than the key names, or out of bounds.
    fn of(key: &Key, version: &Version) -> Option<Self> {
        let part: Self = wire::decode(version.value.as_ref()?).ok()?;
        let fits = part.number < part.count && part.sealed.len() <= PART_BYTES_MAX;
        (fits && Key::part(&part.id, part.number) == *key).then_some(part)
    }
}

/// The sealed bytes of secrets and configs, by id. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sealed(Arc<BTreeMap<(ObjectId, u8), Arc<Part>>>);

impl Sealed {
    /// Returns the sealed bytes of a secret or config, if all of them are here.
    pub fn get(&self, id: &ObjectId) -> Option<Vec<u8>> {
        let count = self.0.get(&(*id, 0))?.count;
        let parts: Option<Vec<&Arc<Part>>> = (0..count).map(|number| self.0.get(&(*id, number))).collect();
        let parts = parts.filter(|parts| parts.iter().all(|part| part.count == count))?;
        Some(parts.into_iter().flat_map(|part| part.sealed.iter().copied()).collect())
    }

    /// Tells whether all bytes of a secret or config are here.
    pub fn has(&self, id: &ObjectId) -> bool {
        let count = self.0.get(&(*id, 0)).map(|part| part.count);
        count.is_some_and(|count| (0..count).all(|number| self.0.contains_key(&(*id, number))))
    }

    /// Returns which parts of a secret or config are here.
    fn numbers(&self, id: &ObjectId) -> Vec<u8> {
        self.0.range((*id, 0)..=(*id, u8::MAX)).map(|((_, number), _)| *number).collect()
    }
}

/// The objects that count, by name. Cheap to clone.
pub type Objects<T> = Arc<BTreeMap<ObjectName, Object<T>>>;

/// What of the registers of networks, secrets, configs and parts counts.
#[derive(Clone, Debug, Default)]
pub(super) struct ServedObjects {
    networks: Objects<NetworkSpec>,
    secrets: Objects<DataSpec>,
    configs: Objects<DataSpec>,
    sealed: Sealed,
}

impl ServedObjects {
    /// Follows a change of one register of these kinds.
    pub(super) fn refresh(&mut self, key: &Key, register: &Register) {
        match key.kind() {
            Some(Kind::Network) => follow(&mut self.networks, key, register, |_| true),
            Some(Kind::Secret) => follow(&mut self.secrets, key, register, DataSpec::is_bounded),
            Some(Kind::Config) => follow(&mut self.configs, key, register, DataSpec::is_bounded),
            Some(Kind::Part) => self.follow_part(key, register),
            Some(Kind::Service | Kind::Block | Kind::Node | Kind::Verdict | Kind::Volume | Kind::Completions)
            | None => {}
        }
    }

    fn follow_part(&mut self, key: &Key, register: &Register) {
        let Some(place) = key.part_of() else { return };
        let sealed = Arc::make_mut(&mut self.sealed.0);
        match register.winner().and_then(|version| Part::of(key, version)) {
            Some(part) => sealed.insert(place, Arc::new(part)),
            None => sealed.remove(&place),
        };
    }
}

impl DataSpec {
    fn is_bounded(&self) -> bool {
        self.bytes as usize <= DATA_BYTES_MAX
    }
}

/// Lets the object of one name follow its register.
fn follow<T>(objects: &mut Objects<T>, key: &Key, register: &Register, fits: impl Fn(&T) -> bool)
where
    T: Clone + for<'de> Deserialize<'de>,
{
    let Ok(name) = ObjectName::new(&key.name) else { return };
    let read = |version: &Version| wire::decode::<Object<T>>(version.value.as_ref()?).ok();
    let winner = register.winner().and_then(read);
    let winner = winner.filter(|object| object.name == name && labels_fit(&object.labels) && fits(&object.spec));
    let objects = Arc::make_mut(objects);
    match winner {
        Some(object) => objects.insert(name, object),
        None => objects.remove(&name),
    };
}

impl Intent {
    /// Returns the networks that operators made, by name. [`BUILT_IN`] is not among them.
    pub fn networks(&self) -> &Objects<NetworkSpec> {
        &self.served.objects.networks
    }

    /// Returns the secrets, or the configs, by name.
    pub fn data(&self, kind: DataKind) -> &Objects<DataSpec> {
        match kind {
            DataKind::Secret => &self.served.objects.secrets,
            DataKind::Config => &self.served.objects.configs,
        }
    }

    /// Returns the sealed bytes of secrets and configs.
    pub fn sealed(&self) -> &Sealed {
        &self.served.objects.sealed
    }

    /// Writes a network under its name.
    pub fn write_network(&mut self, wall_ms: u64, network: &Network) -> Entry {
        self.write(wall_ms, Key::object(Kind::Network, &network.name), Some(wire::encode(network)))
    }

    /// Writes a secret or config under its name.
    pub fn write_data(&mut self, wall_ms: u64, kind: DataKind, data: &Data) -> Entry {
        self.write(wall_ms, Key::object(kind.kind(), &data.name), Some(wire::encode(data)))
    }

    /// Writes the parts of a secret or config.
    pub fn write_parts(&mut self, wall_ms: u64, id: ObjectId, sealed: &[u8]) -> Vec<Entry> {
        let parts = Part::cut(id, sealed);
        parts.iter().map(|part| self.write(wall_ms, Key::part(&id, part.number), Some(wire::encode(part)))).collect()
    }

    /// Writes a tombstone over the network of this name.
    pub fn remove_network(&mut self, wall_ms: u64, name: &ObjectName) -> Entry {
        self.write(wall_ms, Key::object(Kind::Network, name), None)
    }

    /// Writes tombstones over a secret or config and its parts, those included of others that were created under its name
    /// at the same time.
    pub fn remove_data(&mut self, wall_ms: u64, kind: DataKind, name: &ObjectName) -> Vec<Entry> {
        let key = Key::object(kind.kind(), name);
        let read = |version: &Version| Some(wire::decode::<Data>(version.value.as_ref()?).ok()?.id);
        let ids: Vec<ObjectId> = self.versions(&key).iter().filter_map(read).collect();
        let of = |id: &ObjectId| self.sealed().numbers(id).into_iter().map(|number| Key::part(id, number)).collect();
        let parts: Vec<Key> = ids.iter().flat_map(|id| -> Vec<Key> { of(id) }).collect();
        [key].into_iter().chain(parts).map(|key| self.write(wall_ms, key, None)).collect()
    }
}

const _: () = assert!(DATA_BYTES_MAX + SEAL_BYTES_MAX <= PART_BYTES_MAX * u8::MAX as usize, "parts can be counted");

#[cfg(test)]
mod tests;
