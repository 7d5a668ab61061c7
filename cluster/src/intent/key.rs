//! Keys: which register a write is about.

use alloc::format;
use alloc::string::{String, ToString};

use serde::{Deserialize, Serialize};

use super::name::Name;
use super::object::ObjectName;
use super::service::container::VolumeName;
use crate::id::{NodeId, ObjectId, RolloutId, ServiceId};
use crate::limits::KEY_BYTES_MAX;
use crate::plan::addresses::BLOCK_COUNT;

/// Names one register. Two creations of one name meet in one register.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// What kind of object, by [`Kind::number`]. Other numbers are kept and relayed, not served.
    pub kind: u16,
    /// Its name within the kind, in the one form that the kind prescribes.
    pub name: String,
}

/// The kinds of objects that this code understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A service; the name is the service's in lower case, the value a [`super::service::Service`].
    Service,
    /// An IPv4 block of the overlay; the name is its number, the value the node that claims it.
    Block,
    /// Where a volume lives; the name is the volume's, the value the node that has it and wrote this.
    Volume,
    /// What operators want of a node; the name is the node's id as it is shown, the value a [`super::node::NodeIntent`].
    Node,
    /// How far a rollout has come; the name is the service's id and the rollout's, the value a [`super::update::Ruling`].
    Verdict,
    /// A network; the name is its own, the value a [`super::object::Network`].
    Network,
    /// A secret; the name is its own, the value a [`super::object::Data`].
    Secret,
    /// A config, likewise.
    Config,
    /// A piece of the bytes of a secret or config; the name is that one's id and a number, the value a
    /// [`super::object::Part`].
    Part,
    /// The slots of a job that did their work on a node; the name is the service's id and the node's, the value a
    /// [`super::job::Completions`].
    Completions,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Service,
        Self::Block,
        Self::Node,
        Self::Verdict,
        Self::Volume,
        Self::Network,
        Self::Secret,
        Self::Config,
        Self::Part,
        Self::Completions,
    ];

    /// Returns the number of this kind on the wire.
    pub const fn number(self) -> u16 {
        match self {
            Self::Service => 1,
            Self::Block => 2,
            Self::Node => 3,
            Self::Verdict => 4,
            Self::Volume => 5,
            Self::Network => 6,
            Self::Secret => 7,
            Self::Config => 8,
            Self::Part => 9,
            Self::Completions => 10,
        }
    }
}

impl Key {
    /// Returns the key of the service with this name.
    pub fn service(name: &Name) -> Self {
        Self { kind: Kind::Service.number(), name: name.folded().to_string() }
    }

    /// Returns the key of the block with this number.
    pub fn block(number: u16) -> Self {
        Self { kind: Kind::Block.number(), name: format!("{number:05}") }
    }

    /// Returns the key of where a volume lives.
    pub fn volume(name: &VolumeName) -> Self {
        Self { kind: Kind::Volume.number(), name: name.to_string() }
    }

    /// Returns the key of what operators want of a node.
    pub fn node(node: &NodeId) -> Self {
        Self { kind: Kind::Node.number(), name: node.to_string() }
    }

    /// Returns the key of the verdict on a rollout.
    pub fn verdict(service: &ServiceId, rollout: RolloutId) -> Self {
        Self { kind: Kind::Verdict.number(), name: format!("{service}.{:016x}", rollout.0) }
    }

    /// Returns the key of what a node says of a job.
    pub fn completions(service: &ServiceId, node: &NodeId) -> Self {
        Self { kind: Kind::Completions.number(), name: format!("{service}.{node}") }
    }

    /// Returns the key of the network, secret or config with this name.
    pub fn object(kind: Kind, name: &ObjectName) -> Self {
        Self { kind: kind.number(), name: name.to_string() }
    }

    /// Returns the key of a part of a secret or config.
    pub fn part(id: &ObjectId, number: u8) -> Self {
        Self { kind: Kind::Part.number(), name: format!("{id}.{number:03}") }
    }

    /// Returns which part of which secret or config this key names, if it names one in the one valid form.
    pub fn part_of(&self) -> Option<(ObjectId, u8)> {
        let (id, number) = self.name.split_once('.')?;
        let (id, number) = (ObjectId::parse(id)?, number.parse().ok()?);
        (Self::part(&id, number) == *self).then_some((id, number))
    }

    /// Returns the kind, if this code understands it.
    pub fn kind(&self) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.number() == self.kind)
    }

    /// Returns the number of the block that this key names, if it names one in the one valid form.
    pub fn block_number(&self) -> Option<u16> {
        let number = self.name.parse().ok().filter(|number| *number < BLOCK_COUNT)?;
        (Self::block(number) == *self).then_some(number)
    }

    /// Tells whether its name is short enough.
    pub fn is_bounded(&self) -> bool {
        self.name.len() <= KEY_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_has_one_key_only() {
        assert_eq!(Key::block(7).block_number(), Some(7));
        for bad in ["7", "0007", "+0007", "000007", "16384", "-0001", ""] {
            let key = Key { kind: Kind::Block.number(), name: bad.to_string() };
            assert_eq!(key.block_number(), None, "{bad}");
        }
    }
}
