//! Comparing member lists: the anti-entropy that mends what gossip missed, and the way in for a new node.
//!
//! A digest goes to a random member. If it differs there, the whole list comes back in pieces, each a range of ids;
//! each piece is answered with what is known better in its range. A new node sends its list unasked: the answer is the
//! confirmation that it is in.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Bound;

use super::Membership;
use super::member::{Member, MemberState};
use super::message::{Body, LIST_MEMBERS_MAX, Update};
use crate::clock::Instant;
use crate::hash;
use crate::id::NodeId;

/// A range of ids: those greater than the first, up to the second.
type Range = (Option<NodeId>, Option<NodeId>);

impl Membership {
    /// Returns the digest of the member list; suspects count as alive, because suspicion passes by itself.
    pub(super) fn list_digest(&self) -> [u8; 32] {
        let mut bytes = Vec::new();
        for member in self.members.values() {
            bytes.extend(member.id.0);
            bytes.extend(member.incarnation.to_be_bytes());
            bytes.push(match member.state {
                MemberState::Alive | MemberState::Suspect => 0,
                MemberState::Down => 1,
                MemberState::Left => 2,
            });
            member.meta.encode(&mut bytes);
        }
        hash::digest("members", &[&bytes])
    }

    /// As [`Self::list_digest`], computed once for each change.
    pub(super) fn digest(&mut self) -> [u8; 32] {
        match self.digest {
            Some((changes, digest)) if changes == self.changes => digest,
            Some(_) | None => {
                let digest = self.list_digest();
                self.digest = Some((self.changes, digest));
                digest
            }
        }
    }

    /// Asks a member to compare.
    pub(super) fn send_digest(&mut self, to: NodeId) {
        let digest = self.digest();
        self.send(to, Body::Digest { digest }, Vec::new());
    }

    /// Sends the whole list in pieces, to be answered with what is known better there.
    pub(super) fn send_list(&mut self, to: NodeId) {
        let members: Vec<Member> = self.members.values().cloned().collect();
        let mut after = None;
        let pieces: Vec<&[Member]> = members.chunks(LIST_MEMBERS_MAX).collect();
        for (index, piece) in pieces.iter().enumerate() {
            let until = if index + 1 == pieces.len() { None } else { piece.last().map(|member| member.id) };
            self.send(to, Body::List { after, until, members: piece.to_vec(), answer: true }, Vec::new());
            after = until;
        }
    }

    /// Takes in a piece of a member's list, and answers it if asked to.
    pub(super) fn compare(&mut self, now: Instant, from: NodeId, range: Range, members: Vec<Member>, answer: bool) {
        // What a new node learns is known to all others already.
        let spread = self.joined || answer;
        for member in &members {
            let update = Update { member: member.clone(), accuser: from };
            let _told_by_the_answer = self.learn(now, from, update, spread);
        }
        if answer {
            self.answer_piece(from, range, &members);
        } else {
            self.joined = true;
            self.unconfirmed.clear();
        }
    }

    /// Sends what is known better than `theirs` in the range; at least one message, which confirms the receiver.
    fn answer_piece(&mut self, to: NodeId, range: Range, theirs: &[Member]) {
        let theirs: BTreeMap<NodeId, &Member> = theirs.iter().map(|member| (member.id, member)).collect();
        let bounds =
            (range.0.map_or(Bound::Unbounded, Bound::Excluded), range.1.map_or(Bound::Unbounded, Bound::Included));
        let ours = self.members.range(bounds).map(|(_, member)| member);
        let better: Vec<Member> =
            ours.filter(|ours| theirs.get(&ours.id).is_none_or(|theirs| ours.supersedes(theirs))).cloned().collect();
        let mut pieces: Vec<Vec<Member>> = better.chunks(LIST_MEMBERS_MAX).map(<[Member]>::to_vec).collect();
        if pieces.is_empty() {
            pieces.push(Vec::new());
        }
        for members in pieces {
            let body = Body::List { after: range.0, until: range.1, members, answer: false };
            self.send(to, body, Vec::new());
        }
    }
}
