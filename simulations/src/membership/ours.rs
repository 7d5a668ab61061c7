//! Our own membership plane behind the harness's [`Protocol`].

use shoal_cluster::config::MembershipConfig;
use shoal_cluster::intent::name::Name;
use shoal_cluster::membership::member::{Contacts, Member, MemberState, NodeMeta, Role};
use shoal_cluster::membership::{Membership, MembershipAction, MembershipMessage};
use shoal_cluster::seed::Stream;
use shoal_cluster::sync::message::Message;
use shoal_cluster::{Event, Instant, NodeId};

use super::{Output, Place, Protocol};

/// The membership plane of one core.
#[derive(Debug)]
pub struct Ours(Membership);

/// The greatest incarnation that was made durable.
#[derive(Clone, Copy, Debug, Default)]
pub struct Incarnation(u64);

pub(crate) fn id(number: usize) -> NodeId {
    let mut bits = [0; 32];
    // Neighbours by number are not neighbours by id, and back by multiplication with the inverse.
    bits[..4].copy_from_slice(&(number as u32).wrapping_mul(0x9E37_79B1).to_be_bytes());
    bits[4] = 1;
    NodeId(bits)
}

pub(crate) fn number(id: NodeId) -> usize {
    let word = u32::from_be_bytes([id.0[0], id.0[1], id.0[2], id.0[3]]);
    word.wrapping_mul(0x0E8B_2F51) as usize
}

pub(crate) fn meta(number: usize) -> NodeMeta {
    let address = [10, (number >> 16) as u8, (number >> 8) as u8, number as u8];
    NodeMeta {
        name: Name::new(&format!("node-{number:04}")).expect("letters, a dash and digits"),
        gossip: (address, 7946).into(),
        tunnel: (address, 7946).into(),
        role: Role::Manager,
        wire_version: 1,
        plan_version: 1,
        labels: std::collections::BTreeMap::new(),
        leaving: false,
        counts: false,
        software: "0.1.0".into(),
        os: "linux".into(),
        architecture: "amd64".into(),
        nano_cpus: 8_000_000_000,
        memory_bytes: 32 << 30,
    }
}

impl Protocol for Ours {
    type Message = MembershipMessage;
    type Disk = Incarnation;

    fn start(place: &Place, disk: &mut Incarnation, now: Instant) -> Self {
        let contacts: Contacts = place.contacts.iter().map(|number| (id(*number), meta(*number).gossip)).collect();
        let random = Stream::new(&place.seed, "membership");
        let (own, incarnation) = (place.number, disk.0 + 1);
        let config = MembershipConfig::default();
        let mut membership = Membership::new(id(own), meta(own), incarnation, contacts, config, random, now);
        if place.contacts.is_empty() {
            for other in (0..place.count).filter(|other| *other != own) {
                let member = Member { id: id(other), incarnation: 1, state: MemberState::Alive, meta: meta(other) };
                membership.restore(member);
            }
        }
        Self(membership)
    }

    fn handle(&mut self, now: Instant, from: usize, message: MembershipMessage) {
        self.0.handle(now, id(from), message);
    }

    fn lost(&mut self, now: Instant, peer: usize) {
        self.0.peer_lost(now, id(peer));
    }

    fn timeout(&mut self, now: Instant) {
        self.0.timeout(now);
    }

    fn due(&self) -> Instant {
        self.0.poll_timeout()
    }

    fn poll(&mut self, disk: &mut Incarnation) -> Option<Output<MembershipMessage>> {
        loop {
            match self.0.poll()? {
                MembershipAction::Send { to, message } => {
                    let message = Message::Membership(message);
                    let bytes = message.encode().len() as u64;
                    let Message::Membership(message) = message else { continue };
                    return Some(Output::Send { to: number(to), message, bytes });
                }
                MembershipAction::Persist(member) if member.id == self.0.own().id => disk.0 = member.incarnation,
                MembershipAction::Persist(_) => {}
                MembershipAction::Notify(Event::NodeUp(node)) => return Some(Output::Up(number(node))),
                MembershipAction::Notify(Event::NodeSuspect(node)) => return Some(Output::Suspect(number(node))),
                MembershipAction::Notify(Event::NodeDown(node)) => return Some(Output::Down(number(node))),
                MembershipAction::Notify(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_comes_back_from_its_id() {
        for wanted in [0, 1, 2, 999, 12_345, 9_999_999] {
            assert_eq!(number(id(wanted)), wanted);
        }
    }
}
