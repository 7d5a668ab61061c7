use super::*;

#[test]
fn nodes_that_know_one_contact_all_find_each_other() {
    for (seed, count) in [(1, 2), (2, 3), (3, 10), (4, 40)] {
        let mut network = Network::new(seed, count);
        network.run(SECOND * 20);
        network.assert_agreed(count);
        assert!(network.deaths().is_empty());
    }
}

#[test]
fn nodes_whose_contact_starts_late_still_join() {
    let mut network = Network::new(5, 4);
    network.kill(0, false);
    network.nodes[0].disk.clear();
    network.run(SECOND * 30);
    network.start(0);
    network.run(SECOND * 20);
    network.assert_agreed(4);
}

#[test]
fn eighty_nodes_join_at_once_over_one_contact_in_bounded_pieces() {
    let mut network = Network::new(6, 80);
    network.run(SECOND * 40);
    network.assert_agreed(80);
}

#[test]
fn a_silent_crash_is_seen_by_all() {
    for (seed, count, within) in [(7, 2, 6_000), (8, 3, 6_000), (9, 20, 7_000), (10, 60, 7_000)] {
        let mut network = Network::settled(seed, count);
        let since = network.now;
        network.kill(1, false);
        network.run(SECOND * 20);
        let noticed = network.last_to_notice(since, &Event::NodeDown(id(1))).expect("all notice");
        std::println!("{count} nodes: a silent crash is seen by all after {noticed:?}");
        assert!(noticed <= Duration::from_millis(within), "{count} nodes: {noticed:?}");
        network.assert_agreed(count - 1);
        assert_eq!(network.deaths().len(), count - 1, "nobody else is declared down");
    }
}

#[test]
fn a_crash_whose_connections_are_reset_is_seen_by_all_within_two_seconds() {
    for (seed, count) in [(11, 2), (12, 3), (13, 20), (14, 60)] {
        let mut network = Network::settled(seed, count);
        let since = network.now;
        network.kill(count - 1, true);
        network.run(SECOND * 10);
        let noticed = network.last_to_notice(since, &Event::NodeDown(id(count - 1))).expect("all notice");
        std::println!("{count} nodes: a crash with evidence is seen by all after {noticed:?}");
        assert!(noticed <= SECOND * 2, "{count} nodes: {noticed:?}");
        network.assert_agreed(count - 1);
    }
}

#[test]
fn connections_lost_while_the_node_lives_harm_nobody() {
    let mut network = Network::settled(15, 10);
    for _ in 0..20 {
        for to in 1..10 {
            network.post(network.now, Delivery::Lost { peer: 0, to });
        }
        network.run(SECOND);
    }
    network.assert_agreed(10);
    let suspected = network.nodes.iter().flat_map(|node| &node.events).any(|(_, e)| matches!(e, Event::NodeSuspect(_)));
    assert!(!suspected);
}

#[test]
fn an_hour_at_five_percent_loss_kills_nobody() {
    let mut network = Network::settled(16, 20);
    network.loss_permille = 50;
    network.run(SECOND * 3_600);
    assert_eq!(network.deaths(), []);
    network.loss_permille = 0;
    network.run(SECOND * 60);
    network.assert_agreed(20);
}

#[test]
fn an_idle_shoal_sends_little() {
    let mut network = Network::settled(17, 3);
    network.run(SECOND * 60);
    let before = network.sent;
    network.run(SECOND * 60);
    let per_node_second = (network.sent - before) / (3 * 60);
    assert!(per_node_second <= 8, "{per_node_second} messages per node and second");
}

#[test]
fn a_partition_of_any_length_heals_and_nobody_flaps() {
    for (seed, apart) in [(18, 10), (19, 3_600)] {
        let mut network = Network::settled(seed, 10);
        network.cut_between(&[0, 1, 2, 3], &[4, 5, 6, 7, 8, 9]);
        network.run(SECOND * apart);
        if apart > 60 {
            assert_eq!(network.state(0, 9), Some(MemberState::Down));
            assert_eq!(network.state(9, 0), Some(MemberState::Down));
        }
        network.cut.clear();
        let healed = network.now;
        network.run(SECOND * 30);
        network.assert_agreed(10);
        let own_side = |at: usize, of: &NodeId| (at < 4) == (0..4).any(|number| id(number) == *of);
        let flaps = network
            .deaths()
            .into_iter()
            .filter(|(at, when, event)| *when > healed && matches!(event, Event::NodeDown(of) if own_side(*at, of)));
        assert_eq!(flaps.count(), 0);
    }
}

#[test]
fn a_crashed_node_comes_back_above_its_old_incarnation() {
    let mut network = Network::settled(20, 5);
    let before = network.membership(2).own().incarnation;
    network.kill(2, false);
    network.run(SECOND * 20);
    network.assert_agreed(4);
    network.start(2);
    let since = network.now;
    network.run(SECOND * 5);
    network.assert_agreed(5);
    assert!(network.membership(2).own().incarnation > before);
    assert!(network.nodes[0].events.iter().any(|(when, e)| *when >= since && *e == Event::NodeUp(id(2))));
}

#[test]
fn a_quick_restart_with_a_new_address_is_known_to_all_at_once() {
    let mut network = Network::settled(21, 5);
    network.kill(2, false);
    network.nodes[2].meta.gossip = ([10, 9, 9, 9], 1).into();
    network.start(2);
    network.run(SECOND * 2);
    network.assert_agreed(5);
    assert_eq!(network.membership(4).members()[&id(2)].meta.gossip, ([10, 9, 9, 9], 1).into());
    assert!(network.deaths().is_empty());
}

#[test]
fn a_node_that_lost_its_disk_raises_its_incarnation_above_what_others_remember() {
    let mut network = Network::settled(22, 5);
    network.kill(2, false);
    network.run(SECOND * 20);
    network.nodes[2].disk.clear();
    network.nodes[2].meta.software = "0.2.0".into();
    network.start(2);
    network.run(SECOND * 15);
    network.assert_agreed(5);
    assert_eq!(network.membership(0).members()[&id(2)].meta.software, "0.2.0");
}

#[test]
fn all_restart_at_once_and_meet_again_without_a_contact() {
    let mut network = Network::settled(23, 5);
    (0..5).for_each(|number| network.kill(number, false));
    network.run(SECOND);
    (0..5).for_each(|number| network.start(number));
    network.run(SECOND * 10);
    network.assert_agreed(5);
    assert!(network.deaths().is_empty());
}

#[test]
fn a_node_that_restarts_alone_counts_the_others_as_up_until_they_fail_to_answer() {
    let mut network = Network::settled(24, 4);
    (0..4).for_each(|number| network.kill(number, false));
    network.run(SECOND);
    network.start(3);
    network.run(SECOND);
    assert_eq!((0..4).filter(|of| network.membership(3).is_up(&id(*of))).count(), 4);
    network.run(SECOND * 5);
    assert_eq!((0..4).filter(|of| network.membership(3).is_up(&id(*of))).count(), 1);
    (0..3).for_each(|number| network.start(number));
    network.run(SECOND * 10);
    network.assert_agreed(4);
}

#[test]
fn a_goodbye_is_known_to_all_at_once_and_the_node_may_return() {
    let mut network = Network::settled(25, 12);
    let since = network.now;
    let now = network.now;
    network.nodes[5].running.as_mut().expect("it runs").leave(now);
    network.carry_out(5);
    network.run(Duration::from_millis(50));
    network.kill(5, true);
    network.run(SECOND);
    let noticed = network.last_to_notice(since, &Event::NodeLeft(id(5))).expect("all hear");
    assert!(noticed < Duration::from_millis(900), "{noticed:?}");
    network.assert_agreed(11);
    assert!(network.deaths().is_empty(), "a goodbye is no death");
    network.start(5);
    network.run(SECOND * 10);
    network.assert_agreed(12);
}

#[test]
fn a_paused_node_is_declared_down_blames_nobody_and_returns() {
    let mut network = Network::settled(26, 8);
    while network.membership(3).probes.deadline().is_none() {
        network.run(Duration::from_micros(100));
    }
    network.nodes[3].paused = true;
    network.run(SECOND * 30);
    assert_eq!(network.state(0, 3), Some(MemberState::Down));
    let resumed = network.now;
    network.resume(3);
    network.run(SECOND * 20);
    network.assert_agreed(8);
    let blamed = |(when, event): &(Instant, Event)| *when >= resumed && matches!(event, Event::NodeSuspect(_));
    assert!(!network.nodes[3].events.iter().any(blamed), "a probe that it could not follow blames nobody");
    assert!(network.deaths().iter().all(|(at, _, event)| *at != 3 && *event == Event::NodeDown(id(3))));
    let refuted = network.nodes[3].events.iter().any(|(_, event)| matches!(event, Event::Refuted(_)));
    assert!(refuted);
}

#[test]
fn a_one_way_link_kills_nobody() {
    let mut network = Network::settled(27, 6);
    network.cut.insert((1, 2));
    network.cut.insert((4, 3));
    network.run(SECOND * 300);
    assert_eq!(network.deaths(), []);
}

#[test]
fn two_nodes_that_cannot_reach_each_other_stay_up_through_the_others() {
    let mut network = Network::settled(28, 5);
    network.cut_between(&[1], &[2]);
    for to in [1, 2] {
        network.post(network.now, Delivery::Lost { peer: 3 - to, to });
    }
    network.run(SECOND * 300);
    assert_eq!(network.deaths(), []);
    let suspected = network.nodes.iter().flat_map(|node| &node.events).any(|(_, e)| matches!(e, Event::NodeSuspect(_)));
    assert!(!suspected, "the others answer for them");
}

#[test]
fn a_suspect_refutes_what_others_say_of_it() {
    let mut network = Network::settled(29, 5);
    let mut member = network.membership(1).own().clone();
    let before = member.incarnation;
    member.state = MemberState::Suspect;
    let update = Update { member, accuser: id(4) };
    let message = MembershipMessage { body: Body::Gossip, updates: vec![update] };
    let now = network.now;
    network.nodes[2].running.as_mut().expect("it runs").handle(now, id(4), message);
    network.carry_out(2);
    assert_eq!(network.state(2, 1), Some(MemberState::Suspect));
    network.run(SECOND);
    network.assert_agreed(5);
    assert_eq!(network.membership(1).own().incarnation, before + 1);
    assert_eq!(network.state(2, 1), Some(MemberState::Alive));
}

#[test]
fn members_that_were_down_for_hours_are_found_again_though_only_they_are_redialled() {
    let mut network = Network::settled(30, 6);
    network.cut_between(&[5], &[0, 1, 2, 3, 4]);
    network.run(SECOND * 7_200);
    network.cut.clear();
    network.run(SECOND * 40);
    network.assert_agreed(6);
}

#[test]
fn the_same_seed_gives_the_same_events() {
    let trace = |seed| {
        let mut network = Network::settled(seed, 6);
        network.loss_permille = 200;
        network.run(SECOND * 60);
        network.nodes.into_iter().map(|node| node.events).collect::<Vec<_>>()
    };
    assert_eq!(trace(31), trace(31));
}
