use proptest::prelude::*;

use super::*;
use crate::limits::ENGINE_LABELS_BYTES_MAX;
use crate::membership::message::{INCARNATION_JUMP_MAX, LIST_MEMBERS_MAX, UPDATES_MAX};

fn alone() -> Membership {
    let stream = Stream::new(&[1; 32], "membership");
    let config = MembershipConfig::default();
    Membership::new(id(0), meta(0), 1, Vec::new(), config, stream, Instant::default())
}

fn member(number: usize, incarnation: u64, state: MemberState) -> Member {
    Member { id: id(number), incarnation, state, meta: meta(number) }
}

fn gossip(members: impl IntoIterator<Item = Member>) -> MembershipMessage {
    let updates = members.into_iter().map(|member| Update { member, accuser: id(9) }).collect();
    MembershipMessage { body: Body::Gossip, updates }
}

#[test]
fn absurd_incarnations_are_not_believed_of_anybody() {
    let mut membership = alone();
    for incarnation in [u64::MAX, u64::MAX - 1, 2 + INCARNATION_JUMP_MAX] {
        let message = gossip([0, 1].map(|number| member(number, incarnation, MemberState::Down)));
        membership.handle(Instant::default(), id(1), message);
    }
    assert_eq!((membership.own().incarnation, membership.members().len()), (1, 1));
    membership.handle(Instant::default(), id(1), gossip([member(0, 1 + INCARNATION_JUMP_MAX, MemberState::Left)]));
    assert_eq!(membership.own().incarnation, 2 + INCARNATION_JUMP_MAX);
    assert_eq!(membership.own().state, MemberState::Alive);
}

#[test]
fn whoever_holds_a_stale_record_of_this_node_hears_the_present_one_with_the_answer() {
    let mut membership = alone();
    let answer = |membership: &mut Membership, incarnation, body| {
        let mut message = gossip([member(0, incarnation, MemberState::Down)]);
        message.body = body;
        membership.handle(Instant::default(), id(1), message);
        let sends = core::iter::from_fn(|| membership.poll()).filter_map(|action| match action {
            MembershipAction::Send { message, .. } => Some(message),
            MembershipAction::Persist(_) | MembershipAction::Notify(_) => None,
        });
        sends.last()
    };
    answer(&mut membership, 5, Body::Gossip);
    for number in 0..20 {
        let body = if number % 2 == 0 { Body::Ping { number } } else { Body::Gossip };
        let updates = answer(&mut membership, 5, body).expect("it answers").updates;
        let own = updates.iter().find(|update| update.member.id == id(0)).expect("its own record is there");
        assert_eq!((own.member.incarnation, own.member.state), (6, MemberState::Alive));
    }
}

#[test]
fn messages_beyond_the_bounds_are_dropped_whole() {
    let mut membership = alone();
    let members: Vec<Member> = (1..1_000).map(|number| member(number, 1, MemberState::Alive)).collect();
    let list = |after, until, count: usize| MembershipMessage {
        body: Body::List { after, until, members: members[..count].to_vec(), answer: true },
        updates: Vec::new(),
    };
    let bad = [
        gossip(members[..=UPDATES_MAX].to_vec()),
        list(None, None, LIST_MEMBERS_MAX + 1),
        list(Some(id(5)), Some(id(5)), 1),
        list(Some(id(6)), Some(id(5)), 1),
    ];
    for message in bad {
        membership.handle(Instant::default(), id(1), message);
        let dropped = core::iter::from_fn(|| membership.poll())
            .any(|action| matches!(action, MembershipAction::Notify(Event::MessageDropped { .. })));
        assert!(dropped);
    }
    assert_eq!(membership.members().len(), 1);
}

#[test]
fn the_number_of_members_is_bounded() {
    let mut membership = alone();
    for start in (1..NODES_MAX + 1_000).step_by(LIST_MEMBERS_MAX) {
        let members = (start..start + LIST_MEMBERS_MAX).map(|number| member(number, 1, MemberState::Down)).collect();
        let body = Body::List { after: None, until: None, members, answer: false };
        membership.handle(Instant::default(), id(1), MembershipMessage { body, updates: Vec::new() });
        while membership.poll().is_some() {}
    }
    assert_eq!(membership.members().len(), NODES_MAX);
}

#[test]
fn long_texts_in_a_meta_are_not_taken_over() {
    let mut membership = alone();
    let mut long = member(1, 1, MemberState::Alive);
    long.meta.software = "x".repeat(65);
    membership.handle(Instant::default(), id(1), gossip([long]));
    assert_eq!(membership.members().len(), 1);
}

#[test]
fn engine_labels_are_bounded_in_all() {
    let mut membership = alone();
    for (number, bytes) in [(1, ENGINE_LABELS_BYTES_MAX), (2, ENGINE_LABELS_BYTES_MAX + 1)] {
        let mut labelled = member(number, 1, MemberState::Alive);
        labelled.meta.labels.insert("l".into(), "v".repeat(bytes - 1));
        membership.handle(Instant::default(), id(1), gossip([labelled]));
    }
    assert!(membership.is_up(&id(1)) && !membership.is_up(&id(2)));
}

fn states() -> impl Strategy<Value = MemberState> {
    use MemberState::{Alive, Down, Left, Suspect};
    prop_oneof![Just(Alive), Just(Suspect), Just(Down), Just(Left)]
}

fn records() -> impl Strategy<Value = Member> {
    (0..4_usize, prop_oneof![0..5_u64, any::<u64>()], states(), 0..3_u16).prop_map(
        |(number, incarnation, state, port)| {
            let mut member = member(number, incarnation, state);
            member.meta.gossip.set_port(port);
            member
        },
    )
}

fn bodies() -> impl Strategy<Value = Body> {
    let node = || prop::option::of((0..6_usize).prop_map(id));
    prop_oneof![
        any::<u64>().prop_map(|number| Body::Ping { number }),
        (0..20_u64).prop_map(|number| Body::Ack { number }),
        (any::<u64>(), 0..6_usize).prop_map(|(number, to)| Body::PingRequest { number, target: id(to) }),
        (0..20_u64, any::<bool>()).prop_map(|(number, reached)| Body::PingReply { number, reached }),
        Just(Body::Gossip),
        any::<[u8; 32]>().prop_map(|digest| Body::Digest { digest }),
        (node(), node(), prop::collection::vec(records(), 0..6), any::<bool>())
            .prop_map(|(after, until, members, answer)| Body::List { after, until, members, answer }),
    ]
}

proptest! {
    /// Whatever is said, nothing panics, this node stays up, the incarnation never falls and is durable before it is
    /// told, and the answers are bounded.
    #[test]
    fn no_sequence_of_messages_breaks_a_node(
        inputs in prop::collection::vec((0..5_usize, bodies(), prop::collection::vec(records(), 0..5), 0..4u8, 0..3_000_000u64), 0..60)
    ) {
        let mut membership = alone();
        let (mut now, mut durable, mut incarnation) = (Instant::default(), 0, 1);
        for (from, body, members, kind, micros) in inputs {
            now = now + Duration::from_micros(micros);
            let mut message = gossip(members);
            message.body = body;
            match kind {
                0 => membership.timeout(now),
                1 => membership.peer_lost(now, id(from)),
                2 => membership.peer_connected(now, id(from)),
                _ => membership.handle(now, id(from), message),
            }
            prop_assert!(membership.own().incarnation >= incarnation);
            incarnation = membership.own().incarnation;
            let mut sends = 0;
            while let Some(action) = membership.poll() {
                match action {
                    MembershipAction::Persist(member) if member.id == id(0) => durable = member.incarnation,
                    MembershipAction::Send { message, .. } => {
                        sends += 1;
                        prop_assert!(message.flaw().is_none());
                        let own = message.updates.iter().find(|update| update.member.id == id(0));
                        prop_assert!(own.is_none_or(|own| own.member.incarnation <= durable));
                    },
                    MembershipAction::Persist(_) | MembershipAction::Notify(_) => {},
                }
            }
            prop_assert!(sends < 100);
            prop_assert_eq!(membership.own().state, MemberState::Alive);
            prop_assert_eq!(&membership.members()[&id(0)], membership.own());
            let up: BTreeSet<NodeId> = membership.members().values().filter(|m| m.state.is_up() && m.id != id(0)).map(|m| m.id).collect();
            prop_assert_eq!(membership.up.all().iter().copied().collect::<BTreeSet<NodeId>>(), up);
        }
    }

    /// Members are joined by a total order: whatever the order of arrival, the result is the same.
    #[test]
    fn records_are_totally_ordered(one in records(), two in records(), three in records()) {
        prop_assert!(!one.supersedes(&one));
        if one.id == two.id && one != two {
            prop_assert!(one.supersedes(&two) != two.supersedes(&one));
        }
        if one.supersedes(&two) && two.supersedes(&three) {
            prop_assert!(one.supersedes(&three));
        }
    }
}
