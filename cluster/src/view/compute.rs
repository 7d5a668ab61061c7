//! Computing the views from the planes and the plan.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Reverse;

use super::{Agreement, PeerAgreement, RolloutView, TaskView, Views};
use crate::clock::Instant;
use crate::id::{NodeId, ServiceId};
use crate::intent::Intent;
use crate::intent::object::DataKind;
use crate::membership::Membership;
use crate::plan::rollout::{Facts, Goal, Standing};
use crate::plan::{self, Plan};
use crate::reports::Reports;
use crate::sync::rounds::Rounds;

/// All that views are computed from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sources<'a> {
    pub(crate) own: NodeId,
    pub(crate) now: Instant,
    pub(crate) settled: bool,
    pub(crate) intent: &'a Intent,
    pub(crate) membership: &'a Membership,
    pub(crate) reports: &'a Reports,
    pub(crate) plan: &'a Plan,
    pub(crate) rounds: &'a Rounds,
}

/// Returns the present views.
pub(crate) fn views(sources: &Sources<'_>) -> Views {
    Views {
        settled: sources.settled,
        majority: sources.membership.has_majority(),
        members: sources.membership.members().values().cloned().collect(),
        blocks: sources.plan.blocks.clone(),
        services: sources.intent.services().cloned().collect(),
        rollouts: rollouts(sources),
        nodes: sources.intent.nodes().clone(),
        assignments: sources.plan.assignments.clone(),
        completed: sources.intent.jobs().map(|job| (job.id, sources.intent.completed(job))).collect(),
        volumes: sources.intent.volumes().clone(),
        bonds: plan::volumes::bonds(sources.intent),
        networks: Arc::clone(sources.intent.networks()),
        secrets: Arc::clone(sources.intent.data(DataKind::Secret)),
        configs: Arc::clone(sources.intent.data(DataKind::Config)),
        sealed: sources.intent.sealed().clone(),
        inputs: Arc::clone(sources.plan.inputs()),
        tasks: tasks(sources),
        images: images(sources),
        names: sources.plan.names.clone(),
        routes: plan::routes(&sources.own, sources.plan, sources.membership),
        agreement: agreement(sources),
        conflicts: sources.intent.conflicts(),
    }
}

fn tasks(sources: &Sources<'_>) -> Vec<TaskView> {
    let mut tasks = Vec::new();
    for (node, reported) in sources.reports.iter() {
        let reachable = sources.membership.is_up(node);
        tasks.extend(reported.tasks.values().map(|report| {
            let assigned = sources.plan.assignments.get(&(report.service, report.slot)) == Some(node);
            TaskView { node: *node, report: report.clone(), reachable, desired: assigned && !report.state.is_final() }
        }));
    }
    tasks.sort_by_key(|task| {
        let report = &task.report;
        (report.service, report.slot, report.state.is_final(), Reverse(report.since_ms), task.node, report.id)
    });
    tasks
}

fn rollouts(sources: &Sources<'_>) -> BTreeMap<ServiceId, RolloutView> {
    let (membership, reports) = (sources.membership, sources.reports);
    let facts = Facts { assignments: &sources.plan.assignments, membership, reports };
    let rolled = sources.intent.services().filter(|service| service.rollout.is_some() && !service.spec.mode.is_job());
    let rollouts = rolled.map(|service| {
        let (verdict, ruling) = (sources.intent.verdict(service), sources.intent.ruling(service));
        // What has ended is not counted again and again.
        let open = verdict.is_open();
        let standing =
            if open { Standing::of(service, &Goal::of(service, verdict), facts) } else { Standing::default() };
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let rollout = RolloutView {
            verdict,
            task: ruling.and_then(|(ruling, _)| ruling.task),
            ruled_ms: ruling.map(|(_, at_ms)| at_ms),
            slots: count(standing.slots.len()),
            arrived: count(standing.arrived.len()),
            failed: count(standing.failed.len()),
        };
        (service.id, rollout)
    });
    rollouts.collect()
}

fn images(sources: &Sources<'_>) -> BTreeMap<String, BTreeSet<NodeId>> {
    let mut images: BTreeMap<String, BTreeSet<NodeId>> = BTreeMap::new();
    for (node, report) in sources.reports.iter().filter(|(node, _)| sources.membership.is_up(node)) {
        for image in &report.images {
            images.entry(image.clone()).or_default().insert(*node);
        }
    }
    images
}

fn agreement(sources: &Sources<'_>) -> Agreement {
    let peers = sources.rounds.said().filter(|(peer, _)| sources.membership.is_up(peer));
    let peers = peers.map(|(peer, said)| {
        let age_ms = u64::try_from(sources.now.since(said.at).as_millis()).unwrap_or(u64::MAX);
        let peer_agreement =
            PeerAgreement { intent: said.digests.intent, plan: said.digests.plan, behind: said.behind, age_ms };
        (*peer, peer_agreement)
    });
    Agreement { intent: sources.intent.digest(), plan: sources.plan.digest, peers: peers.collect() }
}
