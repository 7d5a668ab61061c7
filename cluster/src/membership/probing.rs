//! Probing and judging: rounds of pings, what becomes of them, and the end of suspicions.

use alloc::vec::Vec;
use core::time::Duration;

use super::message::Body;
use super::probe::{Cause, Probe, TURNS};
use super::{Membership, MembershipAction};
use crate::clock::Instant;
use crate::id::NodeId;
use crate::mutation::{self, Mutation};

impl Membership {
    /// Begins the probe of the next member, once per interval.
    pub(super) fn begin_probe(&mut self, now: Instant) {
        if self.timers.probe > now {
            return;
        }
        self.timers.probe = now + self.health.stretch(self.pause());
        let Some(target) = self.probes.next(&mut self.random, &self.own.id, &self.up) else { return };
        if self.probes.of(&target).is_some() {
            return;
        }
        let number = self.probes.number();
        let ask_at = Some(now + self.health.stretch(self.config.probe_timeout));
        let leniency = self.leniency(now, &target);
        let fails_at = now + self.health.stretch(self.config.probe_deadline).saturating_mul(leniency * leniency);
        self.probes
            .begin(target, Probe { number, sent: now, ask_at, fails_at, cause: Cause::Turn, asked: 0, denied: 0 });
        self.send(target, Body::Ping { number }, Vec::new());
    }

    /// Returns the time between two pings: where there are fewer than three others each is asked once every three
    /// intervals, as neighbours are in large shoals.
    fn pause(&self) -> Duration {
        let others = u32::try_from(self.up.len()).unwrap_or(u32::MAX).clamp(1, TURNS);
        self.config.probe_interval * TURNS / others
    }

    /// Probes a member at once, directly and through others; it has only the probe timeout to answer.
    pub(super) fn probe_on_evidence(&mut self, now: Instant, target: NodeId) {
        let fails_at = now + self.config.probe_timeout;
        if self.probes.of(&target).is_some_and(|probe| probe.cause == Cause::Evidence) {
            return;
        }
        let number = self.probes.number();
        let cause = Cause::Evidence;
        self.probes.begin(target, Probe { number, sent: now, ask_at: None, fails_at, cause, asked: 0, denied: 0 });
        self.ask_others(target, number);
    }

    /// Asks a suspect of others itself, so that it hears of the suspicion soon and some accusers are independent. Of
    /// those who hear of it only some do, and none that hears badly itself.
    pub(super) fn give_opinion(&mut self, now: Instant, target: NodeId) {
        let asked = self.config.second_opinions as u64;
        let others = (self.up.len() as u64).saturating_sub(1).max(1);
        let chosen = self.random.below(others) < asked;
        let leniency = self.leniency(now, &target);
        if !chosen || !self.health.is_well() || self.probes.of(&target).is_some() {
            return;
        }
        let number = self.probes.number();
        let fails_at = now + self.config.probe_deadline.saturating_mul(leniency * leniency);
        let cause = Cause::Opinion;
        self.probes.begin(target, Probe { number, sent: now, ask_at: None, fails_at, cause, asked: 0, denied: 0 });
        self.send(target, Body::Ping { number }, Vec::new());
    }

    /// Pings once more, and asks some others to.
    fn ask_others(&mut self, target: NodeId, number: u64) {
        let helpers = self.up.choose(&mut self.random, self.config.indirect_probes, Some(target));
        if let Some(probe) = self.probes.of(&target) {
            probe.asked = helpers.len();
        }
        self.send(target, Body::Ping { number }, Vec::new());
        for helper in helpers {
            self.send(helper, Body::PingRequest { number, target }, Vec::new());
        }
    }

    /// Pings a member for another.
    pub(super) fn ping_for(&mut self, now: Instant, origin: NodeId, number: u64, target: NodeId) {
        if target == self.own.id {
            self.send(origin, Body::PingReply { number, reached: true }, Vec::new());
        } else if self.members.contains_key(&target) {
            // A denial must be back before the asker gives up, or it blames itself for hearing badly.
            let expires_at = now + self.config.probe_timeout;
            if let Some(own) = self.probes.relay(origin, number, target, expires_at) {
                self.send(target, Body::Ping { number: own }, Vec::new());
            }
        }
    }

    /// Takes in that `from` answered a ping of this node's.
    pub(super) fn acknowledged(&mut self, now: Instant, from: NodeId, number: u64) {
        if let Some(probe) = self.probes.answered(&from, number) {
            self.health.better();
            self.note_reach(&from, probe.cause, true);
            if now.since(probe.sent) > self.config.probe_deadline {
                self.note_slow(now, from);
            } else {
                self.slowness.timely(&from);
            }
        } else if self.probes.is_overdue(&from, number) {
            self.note_slow(now, from);
        } else if let Some(relay) = self.probes.relayed(&from, number) {
            self.send(relay.origin, Body::PingReply { number: relay.number, reached: true }, Vec::new());
        }
    }

    /// Takes in what another found when it pinged for this node.
    pub(super) fn replied(&mut self, number: u64, reached: bool) {
        let Some(target) = self.probes.target(number) else { return };
        if reached {
            let answered = self.probes.answered(&target, number).map(|probe| probe.cause);
            self.health.better();
            if let Some(cause) = answered {
                self.note_reach(&target, cause, true);
            }
        } else if let Some(probe) = self.probes.of(&target) {
            probe.denied += 1;
        }
    }

    /// Goes through the deadlines of probes and relays.
    pub(super) fn check_probes(&mut self, now: Instant) {
        for relay in self.probes.unanswered(now) {
            self.send(relay.origin, Body::PingReply { number: relay.number, reached: false }, Vec::new());
        }
        for (target, number) in self.probes.unasked(now) {
            self.ask_others(target, number);
        }
        for (target, probe) in self.probes.failed(now) {
            match probe.cause {
                // All who were asked replied: the way to them is good, so the fault is not here.
                Cause::Turn if probe.asked == 0 => self.health.worse(1),
                Cause::Turn => self.health.worse(probe.asked.saturating_sub(probe.denied)),
                Cause::Opinion | Cause::Evidence => {}
            }
            self.note_reach(&target, probe.cause, false);
            self.accuse(now, target, probe.cause == Cause::Evidence);
        }
    }

    /// Goes through the deadlines of suspicions, and of restored members that nobody has vouched for.
    pub(super) fn check_suspicions(&mut self, now: Instant) {
        if self.timers.grace <= now {
            let unconfirmed = core::mem::take(&mut self.unconfirmed);
            // A node that has heard of nobody is alone; any other finds out by probing.
            let alone = !self.heard;
            for id in unconfirmed.into_iter().filter(|_| alone) {
                self.accuse(now, id, true);
            }
        }
        let due: Vec<NodeId> =
            self.suspicions.iter().filter(|(_, suspicion)| suspicion.deadline() <= now).map(|(id, _)| *id).collect();
        for id in due.into_iter().filter(|_| !mutation::on(Mutation::LostSuspicionTimer)) {
            self.declare_down(now, id);
        }
    }

    /// Queues an action.
    pub(super) fn act(&mut self, action: MembershipAction) {
        self.actions.push_back(action);
    }
}
