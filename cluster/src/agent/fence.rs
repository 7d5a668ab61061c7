//! The fence: when a task of a fenced service may run here, so that no slot runs on two sides of a split.
//!
//! Input: members, reports, assignments, time. Output: whether this node has lost the majority, and whether a slot may
//! start. Stop here before start there: a node that loses the majority stops its fenced tasks at once, and others wait
//! for longer than it needs to notice. All times are of this node's monotonic clock. See
//! `docs/design/0032-fenced-services.md`.

use alloc::collections::{BTreeMap, BTreeSet};
use core::time::Duration;

use super::{Agent, Slot, Sources};
use crate::clock::{Instant, Now};
use crate::id::NodeId;
use crate::intent::service::Service;
use crate::limits::FENCE;
use crate::membership::member::{Member, MemberState};
use crate::mutation::{self, Mutation};
use crate::reports::task::TaskReport;

/// How long a slot is assigned here before it starts: news of one that started elsewhere by an older plan is on its way.
const CALM: Duration = Duration::from_secs(3);
/// How long a node that started may be without the majority before it counts as lost: it does not know the others yet.
const RETURN: Duration = Duration::from_secs(10);
/// How often a node that has fenced slots or tasks looks at them, whatever else happens.
const LOOK: Duration = Duration::from_secs(1);

/// What a node remembers for its fenced tasks.
#[derive(Clone, Debug, Default)]
pub(super) struct Fence {
    /// Since when each member is not up here; from this start for those that were not up before.
    away: BTreeMap<NodeId, Instant>,
    /// Since when each fenced slot is assigned here.
    assigned: BTreeMap<Slot, Instant>,
    /// When this node first acted.
    began: Option<Instant>,
    majority: bool,
    /// Whether there ever was a majority in this run.
    had: bool,
    /// Whether a slot waited when they were last looked at.
    waits: bool,
    /// The fenced slots in which something lives elsewhere; nothing if some member that is up has not said. Absent until asked for.
    elsewhere: Option<Option<BTreeSet<Slot>>>,
}

impl Fence {
    /// Tells whether fenced tasks have to end here.
    pub(super) fn is_lost(&self, now: Instant) -> bool {
        let returns = !self.had && self.began.is_some_and(|began| now.since(began) < RETURN);
        !self.majority && !returns && !mutation::on(Mutation::FenceIgnored)
    }

    /// Tells whether all that could run a task with this time to end have had the time to end it.
    fn is_over(&self, now: Instant, sources: Sources<'_>, grace: Duration) -> bool {
        self.away.iter().all(|(node, since)| {
            let handed_over = |member: &Member| member.state == MemberState::Left && member.meta.leaving;
            // One that left by itself ends what it still runs; one that was removed may not know it.
            let left = sources.membership.members().get(node).is_some_and(handed_over);
            now.since(*since) >= if left { grace } else { FENCE + grace }
        })
    }

    /// Tells whether every other member that is up says that nothing lives in a slot there.
    fn is_free(&mut self, sources: Sources<'_>, slot: &Slot) -> bool {
        let elsewhere = self.elsewhere.get_or_insert_with(|| elsewhere(sources));
        elsewhere.as_ref().is_some_and(|slots| !slots.contains(slot))
    }
}

impl Agent {
    /// Takes in who is away, which fenced slots are here, and whether this node has the majority.
    pub(super) fn watch_fence(&mut self, now: Now, sources: Sources<'_>) {
        let (fence, members) = (&mut self.fence, sources.membership.members());
        let away = |id: &NodeId| members.get(id).is_some_and(|member| !member.state.is_up());
        fence.away.retain(|id, _| away(id));
        for id in members.keys().filter(|id| **id != self.own && away(id)) {
            fence.away.entry(*id).or_insert(now.mono);
        }
        let assigned = |slot: &Slot| sources.plan.assignments.get(slot) == Some(&self.own);
        fence.assigned.retain(|slot, _| assigned(slot));
        for service in sources.intent.services().filter(|service| service.spec.is_fenced()) {
            let slots = sources.plan.assignments.slots(&service.id).filter(|(_, node)| *node == self.own);
            for (slot, _) in slots {
                fence.assigned.entry((service.id, slot)).or_insert(now.mono);
            }
        }
        fence.began.get_or_insert(now.mono);
        fence.majority = sources.membership.has_majority();
        fence.had |= fence.majority;
        (fence.waits, fence.elsewhere) = (false, None);
        let mut live = self.tasks.values().filter(|task| !task.report.state.is_final());
        if !fence.assigned.is_empty() || live.any(|task| is_fenced(sources, &task.report)) {
            let at = now.mono + LOOK;
            self.wake_at = Some(self.wake_at.map_or(at, |wake| wake.min(at)));
        }
    }

    /// Tells whether a slot may start as far as the fence is concerned; if not, it is looked at again
    /// soon.
    pub(super) fn passes_fence(&mut self, now: Now, sources: Sources<'_>, service: &Service, slot: u32) -> bool {
        if !service.spec.is_fenced() || mutation::on(Mutation::FenceIgnored) {
            return true;
        }
        let slot = (service.id, slot);
        let grace = Duration::from_millis(service.spec.task.stop_grace_ms);
        let calm = self.fence.assigned.get(&slot).is_some_and(|since| now.mono.since(*since) >= CALM);
        let free = self.fence.majority && calm && self.fence.is_over(now.mono, sources, grace);
        let passes = free && self.fence.is_free(sources, &slot);
        self.fence.waits |= !passes;
        passes
    }

    /// Returns the members whose word a fenced slot here waits for.
    pub(super) fn silent<'a>(&self, sources: Sources<'a>) -> impl Iterator<Item = &'a NodeId> + use<'a> {
        let waits = self.fence.waits;
        sources.membership.others_up().iter().filter(move |node| waits && !has_said(sources, node))
    }
}

/// Tells whether a member has said in this run of this node, and since it came up, what it runs. What others pass on of its
/// report may be older than what it runs.
fn has_said(sources: Sources<'_>, node: &NodeId) -> bool {
    sources.reports.has_spoken(node) && sources.reports.of(node).is_some()
}

/// Returns the fenced slots in which something lives on another member that is up; nothing if one has not said.
fn elsewhere(sources: Sources<'_>) -> Option<BTreeSet<Slot>> {
    let mut slots = BTreeSet::new();
    for node in sources.membership.others_up() {
        let report = sources.reports.of(node).filter(|_| has_said(sources, node))?;
        let live = report.tasks.values().filter(|task| !task.state.is_final() && is_fenced(sources, task));
        slots.extend(live.map(|task| (task.service, task.slot)));
    }
    Some(slots)
}

/// Tells whether a task is of a fenced service.
pub(super) fn is_fenced(sources: Sources<'_>, task: &TaskReport) -> bool {
    sources.intent.service(&task.service).is_some_and(|service| service.spec.is_fenced())
}
