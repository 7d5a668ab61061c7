//! `/shoal/status` and `/shoal/join`.

use std::fmt::Write as _;
use std::fs;

use axum::Json;
use axum::extract::State;
use shoal_cluster::Views;
use shoal_cluster::membership::member::{Member, MemberState};
use shoal_cluster::plan::addresses::{BLOCK_PREFIX_V4, BLOCK_PREFIX_V6};
use shoal_cluster::view::PeerAgreement;

use super::error::ApiError;
use super::nodes::role_word;
use super::services::{running, wanted};
use super::status::{Join, MemberStatus, NodeStatus, Said, Status};
use super::{About, NodeHandle};

/// `GET /shoal/status`
pub(super) async fn status(State(node): State<NodeHandle>) -> Json<Status> {
    let (views, about) = (node.views(), &node.about);
    let mut members: Vec<MemberStatus> = views.members.iter().map(|found| member(&views, found)).collect();
    members.sort_by(|one, other| (&one.name, &one.id).cmp(&(&other.name, &other.id)));
    Json(Status {
        shoal: crate::identity::short(&about.shoal),
        agreed: agreed(&views, about),
        node: own(&views, about),
        intent: hex(&views.agreement.intent),
        plan: hex(&views.agreement.plan),
        members,
        services: views.services.len() as u64,
        tasks_wanted: views.services.iter().map(|service| wanted(&views, service)).sum(),
        tasks_running: views.services.iter().map(|service| running(&views, service.id)).sum(),
    })
}

/// `GET /shoal/join`
pub(super) async fn join(State(node): State<NodeHandle>) -> Result<Json<Join>, ApiError> {
    let tokens = node.about.tokens.clone();
    if tokens.manager.is_none() && tokens.worker.is_none() {
        return Err(ApiError::NotFound("this node holds no join tokens: ask a manager".to_owned()));
    }
    Ok(Json(Join { seed: node.about.advertised.clone(), manager: tokens.manager, worker: tokens.worker }))
}

/// Tells whether all members that are up have last said what this node would say.
fn agreed(views: &Views, about: &About) -> bool {
    let others = views.members.iter().filter(|member| member.id != about.id && member.state.is_up());
    let agrees = |member: &Member| views.agreement.peers.get(&member.id).is_some_and(|peer| agrees(views, peer));
    views.settled && others.into_iter().all(agrees)
}

fn agrees(views: &Views, peer: &PeerAgreement) -> bool {
    peer.intent == views.agreement.intent && peer.plan == views.agreement.plan
}

fn own(views: &Views, about: &About) -> NodeStatus {
    NodeStatus {
        id: about.id.to_string(),
        name: about.name.to_string(),
        role: role_word(about.role).to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        settled: views.settled,
        started_ms: about.started_ms,
        rss_bytes: rss_bytes(),
        traffic: (about.traffic)(),
        data_dir: about.data_dir.display().to_string(),
        advertised: about.advertised.clone(),
        dns: about.dns.clone(),
    }
}

fn member(views: &Views, member: &Member) -> MemberStatus {
    let state = match member.state {
        MemberState::Alive => "alive",
        MemberState::Suspect => "suspect",
        MemberState::Down => "down",
        MemberState::Left => "left",
    };
    let block = views.blocks.get(&member.id);
    let said = views.agreement.peers.get(&member.id).map(|peer| Said {
        intent: hex(&peer.intent),
        plan: hex(&peer.plan),
        agrees: agrees(views, peer),
        behind: peer.behind,
        age_ms: peer.age_ms,
    });
    MemberStatus {
        id: member.id.to_string(),
        name: member.meta.name.to_string(),
        state: state.to_owned(),
        incarnation: member.incarnation,
        role: role_word(member.meta.role).to_owned(),
        gossip: member.meta.gossip.to_string(),
        block_v4: block.and_then(|block| block.v4).map(|v4| format!("{v4}/{BLOCK_PREFIX_V4}")),
        block_v6: block.map(|block| format!("{}/{BLOCK_PREFIX_V6}", block.v6)),
        said,
    }
}

/// Returns this process's resident memory.
fn rss_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Returns bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
