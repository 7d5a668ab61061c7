//! What members say to each other about membership, and which of it is believable at all.
//!
//! Input: what peers sent, decoded but hostile. Output: whether it is within bounds. Knows no timers and no state.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::member::Member;
use crate::id::NodeId;
use crate::limits::{ENGINE_LABELS_BYTES_MAX, MESSAGE_BYTES_MAX};

/// Updates that ride on one message.
pub const UPDATES_MAX: usize = 16;
/// Members in one piece of a member list.
pub const LIST_MEMBERS_MAX: usize = 256;
/// Bytes of each free text in a member's meta: software, operating system, architecture.
pub const META_TEXT_BYTES_MAX: usize = 64;
/// How far above the incarnation known here a claimed one may lie. One claim cannot use up a member's incarnations.
pub const INCARNATION_JUMP_MAX: u64 = 1 << 32;

/// Upper bound of the bytes that one member takes on the wire.
const MEMBER_BYTES_MAX: usize = 512;
const _: () = assert!((LIST_MEMBERS_MAX + 2 * UPDATES_MAX) * MEMBER_BYTES_MAX < MESSAGE_BYTES_MAX);

/// One message of the membership protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipMessage {
    /// What it is for.
    pub body: Body,
    /// Changes of members that ride along, freshest first, at most [`UPDATES_MAX`].
    pub updates: Vec<Update>,
}

/// What a message is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// "Do you answer?"
    Ping {
        /// Comes back in the answer.
        number: u64,
    },
    /// "I do."
    Ack {
        /// The ping's.
        number: u64,
    },
    /// "Ping this one for me: it does not answer me."
    PingRequest {
        /// Comes back in the answer.
        number: u64,
        /// Whom to ping.
        target: NodeId,
    },
    /// The answer to a ping request; a missing one says that the way to the asked member is bad too (Lifeguard).
    PingReply {
        /// The request's.
        number: u64,
        /// Whether the target answered.
        reached: bool,
    },
    /// Nothing but the updates.
    Gossip,
    /// "My member list has this digest; send me yours if it differs."
    Digest {
        /// Of all members, suspects counted as alive.
        digest: [u8; 32],
    },
    /// A piece of the sender's member list, in order of id.
    List {
        /// Only members with a greater id are in this piece.
        after: Option<NodeId>,
        /// Only members up to this id are in this piece.
        until: Option<NodeId>,
        /// At most [`LIST_MEMBERS_MAX`].
        members: Vec<Member>,
        /// Whether the receiver should answer with what it knows better; an answer asks for none.
        answer: bool,
    },
}

/// One change of a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// The member as it is now thought to be.
    pub member: Member,
    /// Who found so: suspicions by different accusers confirm each other.
    pub accuser: NodeId,
}

impl MembershipMessage {
    /// Tells what bound the message breaks, if any; then nothing of it may be used.
    pub fn flaw(&self) -> Option<&'static str> {
        if self.updates.len() > UPDATES_MAX {
            return Some("a membership message carries too many updates");
        }
        match &self.body {
            Body::List { members, .. } if members.len() > LIST_MEMBERS_MAX => Some("a member list's piece is too long"),
            Body::List { after: Some(after), until: Some(until), .. } if after >= until => {
                Some("a member list's piece covers nothing")
            }
            Body::Ping { .. }
            | Body::Ack { .. }
            | Body::PingRequest { .. }
            | Body::PingReply { .. }
            | Body::Gossip
            | Body::Digest { .. }
            | Body::List { .. } => None,
        }
    }
}

/// Tells whether a claim about a member can be believed, given the incarnation of it known here (0 if unknown).
pub(super) fn believable(member: &Member, known_incarnation: u64) -> bool {
    let meta = &member.meta;
    let texts = [&meta.software, &meta.os, &meta.architecture];
    texts.iter().all(|text| text.len() <= META_TEXT_BYTES_MAX)
        && meta.labels.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() <= ENGINE_LABELS_BYTES_MAX
        && meta.labels.len() <= ENGINE_LABELS_BYTES_MAX
        && member.incarnation <= known_incarnation.saturating_add(INCARNATION_JUMP_MAX)
        && member.incarnation < u64::MAX
}
