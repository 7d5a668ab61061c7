use super::*;

/// Five nodes that count, the first as the founder, and two that are not there yet.
fn counted(seed: u8) -> Network {
    let mut network = Network::new(seed, 7);
    network.kill(5, false);
    network.kill(6, false);
    network.run(SECOND * 15);
    assert!((0..5).all(|number| network.membership(number).own().meta.counts), "those that joined a majority count");
    network
}

#[test]
fn the_greater_side_of_a_split_has_the_majority_and_the_lesser_has_not() {
    let mut network = counted(41);
    assert!((0..5).all(|number| network.membership(number).has_majority()));
    network.cut_between(&[0, 1], &[2, 3, 4]);
    network.run(SECOND * 20);
    let majority: Vec<usize> = (0..5).filter(|number| network.membership(*number).has_majority()).collect();
    assert_eq!(majority, [2, 3, 4]);
    network.cut.clear();
    network.run(SECOND * 20);
    assert!((0..5).all(|number| network.membership(number).has_majority()));
}

#[test]
fn nodes_that_join_the_lesser_side_do_not_make_it_the_greater() {
    let mut network = counted(42);
    network.cut_between(&[0, 1, 5, 6], &[2, 3, 4]);
    network.run(SECOND * 20);
    network.start(5);
    network.start(6);
    network.run(SECOND * 20);
    assert!([0, 1, 5, 6].iter().all(|number| !network.membership(*number).has_majority()));
    assert!([5, 6].iter().all(|number| !network.membership(*number).own().meta.counts));
    network.cut.clear();
    network.run(SECOND * 20);
    assert!(
        (0..7).all(|number| network.membership(number).own().meta.counts && network.membership(number).has_majority())
    );
}

#[test]
fn a_node_that_counted_counts_after_a_restart() {
    let mut network = counted(43);
    network.kill(3, true);
    network.run(SECOND);
    network.start(3);
    assert!(network.membership(3).own().meta.counts);
    assert!(!network.membership(3).has_majority(), "it has not heard of the others yet");
    network.run(SECOND * 5);
    assert!(network.membership(3).has_majority());
}

/// Others start what it ran after [`crate::limits::FENCE`]; it must have noticed by then, alone, with few or with many.
#[test]
fn a_lesser_side_notices_in_time_that_it_lost_the_majority() {
    let sides = [(3, 1), (13, 1), (13, 2), (13, 6), (30, 1), (30, 3), (30, 4), (30, 6), (30, 15), (100, 3), (100, 30)];
    for (seed, (count, side)) in (44..).zip(sides) {
        let mut network = Network::settled(seed, count);
        network.run(SECOND * 10);
        let (lesser, others): (Vec<usize>, Vec<usize>) = (0..count).partition(|number| *number < side);
        assert!(network.membership(0).has_majority());
        network.cut_between(&lesser, &others);
        let since = network.now;
        while lesser.iter().any(|number| network.membership(*number).has_majority()) {
            network.run(SECOND / 4);
            assert!(network.now.since(since) < SECOND * 25, "{side} of {count} nodes have not noticed");
        }
    }
}

#[test]
fn members_that_are_removed_no_longer_count_until_they_come_back() {
    let mut network = counted(44);
    for number in [2, 3, 4] {
        network.kill(number, false);
    }
    network.run(SECOND * 20);
    assert!(!network.membership(0).has_majority(), "two of five are up");
    for number in [3, 4] {
        let now = network.now;
        network.nodes[0].running.as_mut().expect("it runs").remove(now, id(number));
    }
    network.run(SECOND * 5);
    assert!((0..2).all(|number| network.membership(number).has_majority()), "two of three are");
    network.start(3);
    network.start(4);
    network.run(SECOND * 20);
    assert!(network.running().iter().all(|number| network.membership(*number).has_majority()));
}
