//! Suspicion: how long a silent member stays in before it is declared down.
//!
//! Input: who accuses it, and evidence of the transport. Output: the deadline. The time shrinks with each independent
//! accuser from twice the timeout to the timeout, with the logarithm of their number, as in Lifeguard §4.2; where there
//! is nobody else to accuse it, it is the timeout at once, as memberlist has it. Evidence puts a cap on it. Knows nothing of sockets, probes or dissemination. See `docs/protocol.md#suspicion`.

use alloc::collections::BTreeSet;
use core::time::Duration;

use super::health::Health;
use crate::clock::Instant;
use crate::id::NodeId;

/// Accusers beyond the first that shorten the time; memberlist's figure, less for few members.
const CONFIRMATIONS_MAX: usize = 3;
/// `log(c + 1) / log(k + 1)` in thousandths, by `k` expected (row) and `c` heard (column).
const SHARE: [[u64; CONFIRMATIONS_MAX + 1]; CONFIRMATIONS_MAX + 1] =
    [[1_000; CONFIRMATIONS_MAX + 1], [0, 1_000, 1_000, 1_000], [0, 631, 1_000, 1_000], [0, 500, 792, 1_000]];

/// One member's suspicion. It begins when the member becomes suspect and ends when it refutes or is declared down.
#[derive(Clone, Debug)]
pub(super) struct Suspicion {
    started: Instant,
    shortest: Duration,
    longest: Duration,
    accusers: BTreeSet<NodeId>,
    expected: usize,
    at_most: Option<Instant>,
}

impl Suspicion {
    /// Begins a suspicion by `accuser` among `nodes` members that are up, the suspect included; confirmed, it lasts
    /// for `timeout`, more in large shoals. A node of bad health leaves twice as much time to those whom
    /// nobody else accuses.
    pub(super) fn new(now: Instant, accuser: NodeId, timeout: Duration, health: Health, nodes: usize) -> Self {
        let shortest = scaled(timeout, nodes);
        Self {
            started: now,
            shortest,
            longest: shortest * if health.is_well() { 2 } else { 4 },
            accusers: BTreeSet::from([accuser]),
            expected: nodes.saturating_sub(2).min(CONFIRMATIONS_MAX),
            at_most: None,
        }
    }

    /// Takes in another accuser; tells whether it is news that others should hear.
    pub(super) fn confirm(&mut self, accuser: NodeId) -> bool {
        self.accusers.len() <= self.expected && self.accusers.insert(accuser)
    }

    /// Returns when the member became suspect here.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// Caps the time that is left: the transport has evidence too.
    pub(super) fn hasten(&mut self, deadline: Instant) {
        self.at_most = Some(self.at_most.map_or(deadline, |earlier| earlier.min(deadline)));
    }

    /// Gives back time in which this node could not hear a refutation.
    pub(super) fn extend(&mut self, slept: Duration) {
        self.started = self.started + slept;
        self.at_most = self.at_most.map(|deadline| deadline + slept);
    }

    /// Makes it longer: the suspect turned out to be slow.
    pub(super) fn relax(&mut self, factor: u32) {
        self.shortest = self.shortest.saturating_mul(factor);
        self.longest = self.longest.saturating_mul(factor);
    }

    /// Returns when the member is declared down unless it refutes.
    pub(super) fn deadline(&self) -> Instant {
        let confirmations = (self.accusers.len() - 1).min(self.expected);
        let micros = u64::try_from((self.longest - self.shortest).as_micros()).unwrap_or(u64::MAX);
        let shortened = Duration::from_micros(micros.saturating_mul(SHARE[self.expected][confirmations]) / 1_000);
        let regular = self.started + (self.longest - shortened);
        self.at_most.map_or(regular, |deadline| regular.min(deadline))
    }
}

/// Returns `timeout` grown by the logarithm to base 100 of the number of nodes, at least by 1, in integers: news takes
/// longer to reach more nodes.
pub(super) fn scaled(timeout: Duration, nodes: usize) -> Duration {
    let log100_thousandths = nodes.max(1).ilog2() * 301 / 2;
    timeout.saturating_mul(log100_thousandths.max(1_000)) / 1_000
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    fn id(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    #[test]
    #[expect(clippy::disallowed_types, reason = "the oracle may use floats: it decides nothing")]
    fn each_independent_accuser_shortens_the_time_as_lifeguard_says() {
        for nodes in 2..40_usize {
            let timeout = Duration::from_secs(3);
            let mut suspicion = Suspicion::new(Instant::default(), id(0), timeout, Health::default(), nodes);
            let expected = (nodes - 2).min(3);
            let longest = 2.0 * scaled(timeout, nodes).as_secs_f64();
            for confirmations in 0..=5_usize {
                let share = if expected == 0 {
                    1.0
                } else {
                    ((confirmations.min(expected) + 1) as f64).ln() / ((expected + 1) as f64).ln()
                };
                let wanted = longest - longest / 2.0 * share;
                let found = suspicion.deadline().as_micros() as f64 / 1e6;
                assert!((wanted - found).abs() < 0.005, "{nodes} nodes, {confirmations}: {found}, not {wanted}");
                assert_eq!(suspicion.confirm(id(confirmations as u8 + 1)), confirmations < expected);
                assert!(!suspicion.confirm(id(0)), "the first accuser again is no news");
            }
        }
    }

    #[test]
    fn evidence_caps_the_time_and_sleep_gives_it_back() {
        let mut suspicion = Suspicion::new(Instant::default(), id(0), Duration::from_secs(3), Health::default(), 3);
        suspicion.hasten(Instant::from_micros(500_000));
        suspicion.hasten(Instant::from_micros(900_000));
        assert_eq!(suspicion.deadline(), Instant::from_micros(500_000));
        suspicion.extend(Duration::from_secs(10));
        assert_eq!(suspicion.deadline(), Instant::from_micros(10_500_000));
    }

    #[test]
    fn the_time_grows_with_the_logarithm_of_the_nodes() {
        let second = Duration::from_secs(1);
        assert_eq!(scaled(second, 3), second);
        assert_eq!(scaled(second, 100), second);
        assert_eq!(scaled(second, 1_024), Duration::from_millis(1_505));
        assert!(scaled(second, 10_000) < second * 2);
    }
}
