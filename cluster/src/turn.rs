//! A turn: after each input the plan follows the planes, the agent follows the plan, and news goes out.

use alloc::vec::Vec;
use core::time::Duration;

use crate::agent::AgentAction;
use crate::clock::{Instant, Now};
use crate::config::Config;
use crate::id::NodeId;
use crate::intent::Entry;
use crate::io::{Action, Event, TaskEvent};
use crate::limits::BATCH_BYTES_MAX;
use crate::membership::{Membership, MembershipAction};
use crate::mutation::{self, Mutation};
use crate::record::{Record, Restored};
use crate::seed::Stream;
use crate::sync::message::Message;
use crate::sync::rounds::Settling;
use crate::sync::rumour;
use crate::view::compute::{self, Sources};
use crate::{Cluster, Views, plan};

/// How often plan and agent may answer each other within one turn. Each answer is a step towards a fixed point; what
/// is left, if ever, is done in the next turn.
const STEPS_MAX: usize = 8;

/// How old the ages in a view may be.
const VIEW_AGE_MAX: Duration = Duration::from_secs(1);

/// Makes the membership plane of a node from its configuration and what it recorded.
pub(crate) fn membership(
    own: NodeId,
    config: &Config,
    random: Stream,
    now: Instant,
    mut restored: Restored,
) -> Membership {
    let before = restored.members.remove(&own);
    let incarnation = before.map_or(1, |member| member.incarnation.saturating_add(1));
    let (meta, contacts) = (config.meta.clone(), config.contacts.clone());
    let mut membership = Membership::new(own, meta, incarnation, contacts, config.membership.clone(), random, now);
    for member in restored.members.into_values() {
        membership.restore(member);
    }
    membership
}

impl Cluster {
    /// Takes in the time. A clock that goes back against the contract stands still.
    pub(crate) fn advance(&mut self, now: Now) {
        let mono = now.mono.max(self.now.mono);
        let aged = self.views.as_ref().is_some_and(|_| mono.since(self.viewed) >= VIEW_AGE_MAX);
        if aged {
            self.views = None;
        }
        self.now = Now { mono, wall_ms: now.wall_ms };
    }

    pub(crate) fn task_event(&mut self, event: TaskEvent) {
        // What earlier runs reported holds until the containers that outlived them are known.
        if matches!(event, TaskEvent::Recovered(_)) {
            self.reports.begin();
        }
        self.agent.handle(self.now, event);
        self.agent_due = true;
    }

    pub(crate) fn timeout(&mut self) {
        self.membership.timeout(self.now.mono);
        if self.agent.poll_timeout().is_some_and(|due| due <= self.now.mono) {
            self.agent.timeout(self.now);
            self.agent_due = true;
        }
        if self.rounds.give_up(self.now.mono) {
            self.settled();
        }
        self.repeat_writes();
        self.collect();
    }

    /// Brings everything that follows from the planes up to date, and sends the news.
    pub(crate) fn turn(&mut self) {
        for _ in 0..STEPS_MAX {
            self.drain_membership();
            let changed = self.follow_planes();
            self.drain_agent();
            let raised = self.raise_verdicts(changed);
            if !changed && !raised {
                break;
            }
        }
        self.compare();
        self.push();
    }

    /// Computes the plan anew if a plane changed, and lets the agent follow it. Tells whether there was anything
    /// to do.
    fn follow_planes(&mut self) -> bool {
        if !self.config.plans {
            return false;
        }
        let present = [self.intent.changes(), self.membership.changes(), self.reports.changes()];
        let overlooked = mutation::on(Mutation::StalePlan) && present[2].is_multiple_of(3);
        if self.planned == Some(present) || overlooked {
            return self.follow_plan(false);
        }
        let changed = self.replan();
        self.planned = Some(present);
        self.views = None;
        self.follow_plan(changed)
    }

    /// Lets the agent follow the plan if it or what else the agent depends on has changed.
    fn follow_plan(&mut self, changed: bool) -> bool {
        let acts = self.rounds.settling() == Settling::Settled && (changed || self.agent_due);
        self.agent_due &= !acts;
        if acts {
            self.agent.reconcile(self.now, &self.plan, &self.intent, &self.reports, &self.membership);
        }
        changed || acts
    }

    /// Computes as much of the plan as depends on what changed in the planes; tells whether anything does, or the agent
    /// has to look at a rollout again.
    fn replan(&mut self) -> bool {
        let (intent, membership, reports) = (&self.intent, &self.membership, &self.reports);
        let basis = [intent.declared(), membership.standing(), intent.claims(), reports.answering()];
        let same = |parts: core::ops::Range<usize>| self.planned.is_some() && self.basis[parts.clone()] == basis[parts];
        let heard = [intent.verdicts(), reports.proving()];
        let news = core::mem::replace(&mut self.heard, heard) != heard;
        // What runs on paused nodes stays there, so that there all of the reports matters.
        let replaces = !same(0..2) || plan::holds_any(intent);
        if !replaces && same(2..4) {
            return news;
        }
        let earlier = core::mem::take(&mut self.plan);
        self.plan = if replaces {
            plan::follow(earlier, &self.config.shoal, intent, membership, reports)
        } else if same(2..3) {
            plan::follow_reports(earlier, intent, membership, reports)
        } else {
            plan::follow_claims(earlier, &self.config.shoal, intent, membership, reports)
        };
        self.basis = basis;
        true
    }

    fn drain_membership(&mut self) {
        while let Some(action) = self.membership.poll() {
            match action {
                MembershipAction::Send { to, message } => self.send(to, &Message::Membership(message)),
                MembershipAction::Persist(member) => self.persist(&Record::Member(member)),
                MembershipAction::Notify(event) => {
                    if let Event::NodeUp(node) = event {
                        self.reports.doubt(node);
                        self.rounds.hurry(node);
                    }
                    self.notify(event);
                }
            }
        }
    }

    fn drain_agent(&mut self) {
        while let Some(action) = self.agent.poll() {
            match action {
                AgentAction::Task(command) => self.actions.push_back(Action::Task(command)),
                AgentAction::Report(report) => self.reports.report_task(report),
                AgentAction::Retract(id) => self.reports.retract_task(&id),
                AgentAction::ReportFailures(service, leg, failures) => {
                    self.reports.report_failures(service, leg, failures.as_ref());
                }
                AgentAction::ClaimBlock(number) => {
                    let entry = self.intent.claim_block(self.now.wall_ms, number);
                    self.publish(entry);
                }
                AgentAction::Notify(event) => self.notify(event),
            }
        }
    }

    /// Opens the rounds of anti-entropy that are due.
    fn compare(&mut self) {
        if self.rounds.is_due(self.now.mono) {
            let up = self.others_up();
            self.rounds.retain(|peer| up.binary_search(peer).is_ok());
            for peer in self.rounds.ask(self.now.mono, &up) {
                self.ask(peer);
            }
        }
    }

    /// Sends what was written or learnt in this turn.
    fn push(&mut self) {
        let hops = self.hops();
        while let Some(range) = self.reports.range(&self.own, self.pushed, BATCH_BYTES_MAX) {
            self.pushed = range.upto;
            self.rumours.report(hops, None, range);
        }
        if self.rumours.is_empty() {
            return;
        }
        let up = self.others_up();
        for (to, push) in self.rumours.flush(&up) {
            self.send(to, &Message::Push(push));
        }
    }

    /// Makes a write of this node durable, and then known.
    pub(crate) fn publish(&mut self, entry: Entry) {
        if !mutation::on(Mutation::AcknowledgeBeforeDurable) {
            self.persist(&Record::Entry(entry.clone()));
        }
        self.copies.wrote(self.now.mono, entry.version.dot.counter);
        self.rumours.entry(self.hops(), None, entry);
    }

    /// This node acts from now on.
    pub(crate) fn settled(&mut self) {
        self.agent_due = true;
        self.views = None;
        self.notify(Event::Settled);
    }

    /// Returns the members that are up, this node apart, in order.
    pub(crate) fn others_up(&self) -> Vec<NodeId> {
        let up = self.membership.members().values().filter(|member| member.state.is_up() && member.id != self.own);
        up.map(|member| member.id).collect()
    }

    /// Returns how often news of this node may be passed on.
    pub(crate) fn hops(&self) -> u8 {
        rumour::hops(self.membership.members().len())
    }

    pub(crate) fn persist(&mut self, record: &Record) {
        self.actions.push_back(Action::Persist(record.encode()));
    }

    pub(crate) fn send(&mut self, to: NodeId, message: &Message) {
        self.actions.push_back(Action::Send { to, message: message.encode() });
    }

    pub(crate) fn notify(&mut self, event: Event) {
        self.actions.push_back(Action::Notify(event));
    }

    pub(crate) fn compute_views(&mut self) -> Views {
        self.viewed = self.now.mono;
        compute::views(&Sources {
            own: self.own,
            now: self.now.mono,
            settled: self.rounds.settling() == Settling::Settled,
            intent: &self.intent,
            membership: &self.membership,
            reports: &self.reports,
            plan: &self.plan,
            rounds: &self.rounds,
        })
    }
}
