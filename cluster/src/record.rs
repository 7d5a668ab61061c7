//! Records: what a node makes durable, and what it is made of again after a restart.
//!
//! Input and output: bytes, one record each, in order. Entries are made durable before the vector that vouches for
//! them, so that a vector never claims more than what is there, wherever the node was interrupted.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::crdt::{Actor, Context, Dot};
use crate::id::NodeId;
use crate::intent::key::Key;
use crate::intent::{Entry, Intent};
use crate::limits::RECORD_BYTES_MAX;
use crate::membership::member::Member;
use crate::mutation::{self, Mutation};
use crate::wire::{self, WireError};

/// One durable record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The node started with this epoch; kind 1.
    Start(u64),
    /// An entry of intent was written or learnt; kind 2.
    Entry(Entry),
    /// All writes of these actors up to these counters are known; kind 3.
    Vector(Vec<(Actor, u64)>),
    /// What is known of a member, this node included; kind 4.
    Member(Member),
    /// Writes up to these counters may have been removed by tombstones that are forgotten; kind 5.
    Collected(Vec<(Actor, u64)>),
    /// These writes were removed by tombstones that others have forgotten; kind 6.
    Gone(Vec<(Key, Dot)>),
}

impl Record {
    /// Returns its bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Start(epoch) => wire::seal(1, epoch),
            Self::Entry(entry) => wire::seal(2, entry),
            Self::Vector(counters) => wire::seal(3, counters),
            Self::Member(member) => wire::seal(4, member),
            Self::Collected(counters) => wire::seal(5, counters),
            Self::Gone(dots) => wire::seal(6, dots),
        }
    }

    /// Reads one record, or says what is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let decode = || -> Result<Option<Self>, WireError> {
            let envelope = wire::open(bytes, RECORD_BYTES_MAX)?;
            Ok(Some(match envelope.kind {
                1 => Self::Start(envelope.read()?),
                2 => Self::Entry(envelope.read()?),
                3 => Self::Vector(envelope.read()?),
                4 => Self::Member(envelope.read()?),
                5 => Self::Collected(envelope.read()?),
                6 => Self::Gone(envelope.read()?),
                _ => return Ok(None),
            }))
        };
        match decode() {
            Ok(Some(record)) => Ok(record),
            Ok(None) => Err("it is of a kind that only a newer shoal knows"),
            Err(WireError::Version) => Err("it was written by a shoal too old for this one"),
            Err(WireError::Length) => Err("it is too long"),
            Err(WireError::Malformed | WireError::Trailing) => Err("it is malformed"),
        }
    }
}

/// What the records of earlier runs say.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    epoch: u64,
    entries: Vec<Entry>,
    vector: BTreeMap<Actor, u64>,
    collected: Context,
    gone: Vec<(Key, Dot)>,
    /// The members, each as it was recorded last.
    pub members: BTreeMap<NodeId, Member>,
}

impl Restored {
    /// Takes in the next record.
    pub fn add(&mut self, record: Record) {
        match record {
            Record::Start(epoch) => self.epoch = self.epoch.max(epoch),
            Record::Entry(entry) => self.entries.push(entry),
            Record::Vector(counters) => {
                for (actor, counter) in counters {
                    let known = self.vector.entry(actor).or_default();
                    *known = counter.max(*known);
                }
            }
            Record::Member(member) => drop(self.members.insert(member.id, member)),
            Record::Collected(counters) => self.collected.merge(&counters.into_iter().collect()),
            Record::Gone(dots) => self.gone.extend(dots),
        }
    }

    /// Returns the epoch to start with: the one given, unless a run before had the same or a later one, in which
    /// case dots would be used twice.
    pub fn next_epoch(&self, own: &NodeId, given: u64) -> u64 {
        let written = self.entries.iter().map(|entry| entry.version.dot.actor);
        let used = written.chain(self.vector.keys().copied()).filter(|actor| actor.node == *own);
        let used = used.map(|actor| actor.epoch).fold(self.epoch, u64::max);
        if mutation::on(Mutation::EpochReused) {
            return 1;
        }
        given.max(used.saturating_add(1))
    }

    /// Puts the entries and the vector into an empty plane.
    pub fn fill(&mut self, intent: &mut Intent) {
        for entry in core::mem::take(&mut self.entries) {
            intent.restore(entry);
        }
        for (actor, counter) in core::mem::take(&mut self.vector) {
            intent.restore_vector(actor, counter);
        }
        intent.note_collected(&core::mem::take(&mut self.collected));
        for (key, dot) in core::mem::take(&mut self.gone) {
            intent.drop_gone(&key, &dot);
        }
    }
}

/// Returns the records of a whole node, complete.
pub fn snapshot<'a>(epoch: u64, members: impl Iterator<Item = &'a Member>, intent: &Intent) -> Vec<Vec<u8>> {
    let start = core::iter::once(Record::Start(epoch));
    let members = members.map(|member| Record::Member(member.clone()));
    let early = mutation::on(Mutation::TombstoneCollectedEarly);
    let entries = intent.entries().filter(|entry| !early || entry.version.value.is_some()).map(Record::Entry);
    let counters: Vec<(Actor, u64)> = intent.vector().iter().collect();
    let vector = counters.chunks(VECTOR_ACTORS_MAX).map(|chunk| Record::Vector(chunk.to_vec()));
    let forgotten: Vec<(Actor, u64)> = intent.collected().iter().collect();
    let collected = forgotten.chunks(VECTOR_ACTORS_MAX).map(|chunk| Record::Collected(chunk.to_vec()));
    start.chain(members).chain(entries).chain(vector).chain(collected).map(|record| record.encode()).collect()
}

/// Actors in one vector record.
const VECTOR_ACTORS_MAX: usize = 1_024;
const _: () = assert!(VECTOR_ACTORS_MAX * 64 < RECORD_BYTES_MAX, "a vector record fits");
