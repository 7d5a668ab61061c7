//! Messages: what nodes send each other, and their kinds on the wire.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::news::{Line, Wish};
use crate::crdt::{Actor, Dot};
use crate::id::NodeId;
use crate::intent::Entry;
use crate::intent::key::Key;
use crate::intent::range::Range;
use crate::limits::MESSAGE_BYTES_MAX;
use crate::membership::MembershipMessage;
use crate::reports::{Head, ReportRange};
use crate::wire::{self, WireError};

/// All that one node says to another.
#[derive(Clone, Debug)]
pub enum Message {
    /// SWIM's own; kind 1.
    Membership(MembershipMessage),
    /// "This is what I have, in short"; kind 2.
    Summary(Summary),
    /// "This is what I have, in full": send what I lack; kind 3.
    Known(Known),
    /// What the receiver lacks; kind 4.
    Ranges(Ranges),
    /// News; kind 5.
    Push(Push),
    /// "We know the same writes and yet differ: send me all"; kind 6.
    RepairAsk(RepairAsk),
    /// The answer to it; kind 7.
    Repair(Repair),
    /// "These writes of yours are durable here"; kind 8.
    Stored(ActorKnown),
    /// "These writes were removed, and their tombstones are forgotten"; kind 9.
    Gone(Gone),
    /// "This is what I have, as many hashes": tell me what you know where they differ; kind 10.
    Sketch(Sketch),
    /// "I have heard of this": news in short; kind 11.
    Told(Vec<Line>),
    /// "I lack this": the answer to it; kind 12.
    Wanted(Vec<Wish>),
    /// What was wanted; kind 13.
    Given(Given),
}

/// What a node has, as hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digests {
    /// Of its intent plane.
    pub intent: [u8; 32],
    /// Of its plan.
    pub plan: [u8; 32],
    /// Of which intent writes and which reports it knows.
    pub known: [u8; 32],
    /// Of which intent writes it knows.
    pub writes: [u8; 32],
}

/// Opens a round of anti-entropy, or closes it when both have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// What the sender has.
    pub digests: Digests,
    /// Whether the sender waits for an answer.
    pub asks: bool,
}

/// A span of node ids, both ends included: what a node knows is told piece by piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The first.
    pub first: NodeId,
    /// The last.
    pub last: NodeId,
}

/// Some of the equal parts that the space of ids is cut into; all of it if there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// Into how many parts, a power of two of at most [`PARTS_MAX`].
    pub of: u16,
    /// Which, ascending.
    pub numbers: Vec<u16>,
}

/// What a node has, hashed part by part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sketch {
    /// A hash of what is known of the nodes in each part; as many as a power of two of at most [`PARTS_MAX`].
    pub hashes: Vec<u32>,
}

/// Parts of the space of ids in a sketch at most.
pub const PARTS_MAX: usize = 1_024;

/// What a node knows of the writes and reports of the nodes in a span, complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// What the sender has in all.
    pub digests: Digests,
    /// Of whom this tells,
    pub span: Span,
    /// if they are in one of these parts.
    pub parts: Parts,
    /// Whether the receiver, if it lacks something, should tell what it knows.
    pub asks: bool,
    /// Per actor, which writes.
    pub actors: Vec<ActorKnown>,
    /// Per node, which state of its report.
    pub reports: Vec<(NodeId, Head)>,
}

/// Which writes of one actor a node knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorKnown {
    /// Whose.
    pub actor: Actor,
    /// All up to here,
    pub upto: u64,
    /// and these beyond a hole.
    pub ahead: BTreeSet<u64>,
}

/// What the receiver of this lacked when it told what it knew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ranges {
    /// Of whom this tells,
    pub span: Span,
    /// if they are in one of these parts.
    pub parts: Parts,
    /// Writes.
    pub intent: Vec<Range>,
    /// Reports.
    pub reports: Vec<ReportRange>,
    /// Whether there is more: tell again what you know then.
    pub more: bool,
}

/// What the sender has just written or learnt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Push {
    /// How often it may be passed on.
    pub hops: u8,
    /// Writes.
    pub entries: Vec<Entry>,
    /// Reports.
    pub reports: Vec<ReportRange>,
}

/// News that the receiver has asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Writes.
    pub intent: Vec<Range>,
    /// Reports.
    pub reports: Vec<ReportRange>,
}

/// Asks for every entry from a cursor on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairAsk {
    /// Where; from the beginning if absent.
    pub from: Option<Cursor>,
}

/// Some entries in order of key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repair {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Where to ask on, if there are more.
    pub next: Option<Cursor>,
}

/// Answers a repair that would bring back what was removed: the receiver was away for longer than tombstones are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// Which writes of which registers.
    pub writes: Vec<(Key, Dot)>,
}

/// A place among all entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The key of the next entry.
    pub key: Key,
    /// How many versions of it come before.
    pub versions: u16,
}

impl Message {
    /// Returns the bytes to send.
    pub fn encode(&self) -> Vec<u8> {
        let message = match self {
            Self::Membership(body) => wire::seal(1, body),
            Self::Summary(body) => wire::seal(2, body),
            Self::Known(body) => wire::seal(3, body),
            Self::Ranges(body) => wire::seal(4, body),
            Self::Push(body) => wire::seal(5, body),
            Self::RepairAsk(body) => wire::seal(6, body),
            Self::Repair(body) => wire::seal(7, body),
            Self::Stored(body) => wire::seal(8, body),
            Self::Gone(body) => wire::seal(9, body),
            Self::Sketch(body) => wire::seal(10, body),
            Self::Told(body) => wire::seal(11, body),
            Self::Wanted(body) => wire::seal(12, body),
            Self::Given(body) => wire::seal(13, body),
        };
        debug_assert!(message.len() <= MESSAGE_BYTES_MAX, "a message of {} bytes", message.len());
        message
    }

    /// Decodes received bytes; none if they are of a kind that only newer nodes know.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, WireError> {
        let envelope = wire::open(bytes, MESSAGE_BYTES_MAX)?;
        Ok(Some(match envelope.kind {
            1 => Self::Membership(envelope.read()?),
            2 => Self::Summary(envelope.read()?),
            3 => Self::Known(envelope.read()?),
            4 => Self::Ranges(envelope.read()?),
            5 => Self::Push(envelope.read()?),
            6 => Self::RepairAsk(envelope.read()?),
            7 => Self::Repair(envelope.read()?),
            8 => Self::Stored(envelope.read()?),
            9 => Self::Gone(envelope.read()?),
            10 => Self::Sketch(envelope.read()?),
            11 => Self::Told(envelope.read()?),
            12 => Self::Wanted(envelope.read()?),
            13 => Self::Given(envelope.read()?),
            _ => return Ok(None),
        }))
    }
}

impl Span {
    /// All nodes.
    pub const ALL: Self = Self { first: NodeId([0; 32]), last: NodeId([0xff; 32]) };

    /// Returns the span of one node.
    pub fn only(node: NodeId) -> Self {
        Self { first: node, last: node }
    }

    /// Tells whether the node is in it.
    pub fn contains(&self, node: &NodeId) -> bool {
        self.first <= *node && *node <= self.last
    }
}

impl Parts {
    /// Returns the number of the part that a node is in.
    pub fn number(of: u16, node: &NodeId) -> u16 {
        let high = u32::from(u16::from_be_bytes([node.0[0], node.0[1]]));
        u16::try_from((high * u32::from(of)) >> 16).unwrap_or(u16::MAX)
    }

    /// Tells whether this is everybody.
    pub fn is_all(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Tells whether the node is in one of them.
    pub fn contains(&self, node: &NodeId) -> bool {
        self.is_all() || self.numbers.binary_search(&Self::number(self.of, node)).is_ok()
    }
}
