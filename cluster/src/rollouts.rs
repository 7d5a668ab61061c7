//! Verdicts on rollouts: raised from the reports by one manager that is up, the next if that one is lost.
//!
//! Input: the planes after a turn. Output: entries of intent. Any manager may raise a verdict and all that do agree, since
//! the greater one counts; that one of them does it first only saves the others the writing. See
//! `docs/protocol.md#rollout`.

use alloc::vec::Vec;

use crate::Cluster;
use crate::hash;
use crate::id::{NodeId, RolloutId};
use crate::intent::service::Service;
use crate::intent::update::Ruling;
use crate::membership::member::Role;
use crate::plan::rollout::{self, Facts};
use crate::sync::rounds::Settling;

impl Cluster {
    /// Returns what verdicts are computed from, intent apart.
    pub fn facts(&self) -> Facts<'_> {
        Facts { assignments: &self.plan.assignments, membership: &self.membership, reports: &self.reports }
    }

    /// Raises the verdicts that follow from what is known here, if it is for this node to do so; tells whether it did.
    /// `changed` says that the plan may be another than last time.
    pub(crate) fn raise_verdicts(&mut self, changed: bool) -> bool {
        let (intent, membership, reports) = (&self.intent, &self.membership, &self.reports);
        let judged =
            [intent.declared(), intent.verdicts(), membership.standing(), reports.answering(), reports.proving()];
        let acts = self.config.plans && self.rounds.settling() == Settling::Settled;
        if !acts || (judged == self.judged && !changed) {
            return false;
        }
        self.judged = judged;
        let rulings: Vec<Ruling> = self.intent.rolling().filter_map(|service| self.ruling(service)).collect();
        for ruling in &rulings {
            let entry = self.intent.write_ruling(self.now.wall_ms, ruling);
            self.publish(entry);
        }
        !rulings.is_empty()
    }

    fn ruling(&self, service: &Service) -> Option<Ruling> {
        let rollout = service.rollout?;
        let verdict = self.intent.verdict(service);
        let ruling = rollout::ruling(service, verdict, self.facts())?;
        (self.judge_of(rollout.id) == Some(self.own)).then_some(ruling)
    }

    /// Returns the manager that is to raise verdicts on a rollout: of those that are up the first by a hash.
    pub fn judge_of(&self, rollout: RolloutId) -> Option<NodeId> {
        let members = self.membership.members().values();
        let managers = members.filter(|member| member.state.is_up() && member.meta.role == Role::Manager);
        let rank = |node: &NodeId| (hash::rank64("judge", &[&rollout.0.to_be_bytes(), &node.0]), *node);
        managers.map(|member| member.id).min_by_key(rank)
    }
}
