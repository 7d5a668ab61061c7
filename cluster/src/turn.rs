//! A turn: after each input the plan follows the planes, the agent follows the plan, and news goes out.

use core::time::Duration;

use crate::agent::AgentAction;
use crate::clock::{Instant, NEVER, Now};
use crate::config::Config;
use crate::id::NodeId;
use crate::io::{Action, Event, TaskEvent};
use crate::limits::HURRIED;
use crate::membership::{Membership, MembershipAction};
use crate::mutation::{self, Mutation};
use crate::record::{Record, Restored};
use crate::seed::Stream;
use crate::sync::message::Message;
use crate::sync::rounds::Settling;
use crate::view::compute::{self, Sources};
use crate::{Cluster, Views, hash, plan};

/// How often plan and agent may answer each other within one turn. Each answer is a step towards a fixed point; what
/// is left, if ever, is done in the next turn.
const STEPS_MAX: usize = 8;

/// Up to so many members a plan is computed at each change. Above, changes come faster than plans are worth, as when a thousand
/// nodes start together: this long for each member passes between two, 50 ms among a thousand.
const PLANNED_AT_ONCE: usize = 100;
const PLAN_PAUSE_EACH: Duration = Duration::from_micros(50);

/// Members with whom a node that has started compares until it has caught up, besides those that turn to it.
const CATCH_UP_WITH: usize = 3;
/// How often it asks one of them again when an answer brought news: where much is going on every answer does.
const CATCH_UP_AGAIN: u32 = 3;

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
    let (mut meta, contacts) = (config.meta.clone(), config.contacts.clone());
    // A node that nobody let in founds its shoal.
    meta.counts = before.as_ref().map_or(contacts.is_empty(), |member| member.meta.counts);
    let incarnation = before.map_or(1, |member| member.incarnation.saturating_add(1));
    let mut membership = Membership::new(own, meta, incarnation, contacts, config.membership.clone(), random, now);
    for member in restored.members.into_values() {
        membership.restore(member);
    }
    membership
}

/// Returns how long a plan counts at least, among so many members.
fn plan_pause(members: usize) -> Duration {
    let each = u32::try_from(members).unwrap_or(u32::MAX);
    if members <= PLANNED_AT_ONCE { Duration::ZERO } else { PLAN_PAUSE_EACH.saturating_mul(each) }
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
        if matches!(event, TaskEvent::Recovered { .. }) {
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
        self.send_news();
    }

    /// Computes the plan anew if a plane changed and it is time, and lets the agent follow it. Tells whether there was
    /// anything to do.
    fn follow_planes(&mut self) -> bool {
        if !self.config.plans {
            return false;
        }
        let present = [self.intent.changes(), self.membership.changes(), self.reports.changes()];
        let overlooked = mutation::on(Mutation::StalePlan) && present[2].is_multiple_of(3);
        if self.planned == Some(present) || overlooked {
            return self.follow_plan(false);
        }
        if self.now.mono < self.plan_after {
            self.plan_at = self.plan_after;
            return false;
        }
        let changed = self.replan();
        self.planned = Some(present);
        let members = self.membership.members().len();
        self.plan_after = self.now.mono + plan_pause(members);
        self.plan_at = NEVER;
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

    /// Compares at the next opportunity with a member to which there is a new connection, if it falls to this node.
    pub(crate) fn connected(&mut self, peer: NodeId) {
        let catches_up = self.rounds.settling() != Settling::Settled && self.catching_up.len() < CATCH_UP_WITH;
        if catches_up {
            self.catching_up.insert(peer, 0);
        }
        if catches_up || self.is_hurried(&peer) {
            self.rounds.hurry(peer);
        }
    }

    /// Asks a peer again whose answer brought news, until this node has caught up, but not without end.
    pub(crate) fn catch_up(&mut self, peer: NodeId) {
        let asked = self.catching_up.entry(peer).or_default();
        *asked += 1;
        if *asked <= CATCH_UP_AGAIN && self.rounds.settling() != Settling::Settled {
            self.ask(peer);
        }
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
                        if !mutation::on(Mutation::StaleReportBelieved) {
                            self.reports.doubt(node);
                        }
                        if self.is_hurried(&node) {
                            self.rounds.hurry(node);
                        }
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
                AgentAction::Await(node) => self.rounds.hurry(node),
                AgentAction::ClaimVolume(name) => {
                    let entry = self.intent.claim_volume(self.now.wall_ms, &name);
                    self.publish(entry);
                }
                AgentAction::Complete(service, revision, slot) => {
                    let entry = self.intent.complete(self.now.wall_ms, &service, revision, slot);
                    self.publish(entry);
                }
                AgentAction::ForgetCompletions(service) => {
                    let own = self.own;
                    for entry in self.intent.forget_completions(self.now.wall_ms, &service, Some(&own)) {
                        self.publish(entry);
                    }
                }
                AgentAction::Notify(event) => self.notify(event),
            }
        }
    }

    /// Tells whether it falls to this node to compare at once with a member that came up, or to which there is a new connection:
    /// to some of all members, drawn alike each time.
    pub(crate) fn is_hurried(&self, peer: &NodeId) -> bool {
        let others = self.membership.members().len().saturating_sub(1);
        let lot = hash::quick(self.own.words().into_iter().chain(peer.words()));
        (u128::from(lot) * others as u128) >> u64::BITS < HURRIED as u128
    }

    /// Opens the rounds of anti-entropy that are due.
    fn compare(&mut self) {
        if self.rounds.deadline() <= self.now.mono {
            self.agent.awaited().for_each(|node| self.rounds.hurry(*node));
        }
        if self.rounds.is_due(self.now.mono) {
            let up = self.membership.others_up();
            self.rounds.retain(|peer| up.binary_search(peer).is_ok());
            for peer in self.rounds.ask(self.now.mono, up) {
                self.ask(peer);
            }
        }
    }

    /// This node acts from now on.
    pub(crate) fn settled(&mut self) {
        self.agent_due = true;
        self.views = None;
        self.notify(Event::Settled);
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
