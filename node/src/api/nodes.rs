//! `/nodes`: the members as Docker's nodes.

use axum::Json;
use axum::extract::State;
use bollard::models::{
    EngineDescription, ManagerStatus, Node, NodeDescription, NodeSpec, NodeSpecAvailabilityEnum, NodeSpecRoleEnum,
    NodeState, NodeStatus, ObjectVersion, Platform, Reachability, ResourceObject,
};
use shoal_cluster::intent::node::{Availability, NodeIntent, NodeSpec as Wanted};
use shoal_cluster::membership::member::{Member, MemberState, Role};
use shoal_cluster::{Command, Views};

use super::body::Parsed;
use super::error::ApiError;
use super::filters::Filters;
use super::params::{Params, Segment};
use super::status::Stored;
use super::{NodeHandle, lookup};

const FILTERS: &[&str] = &["id", "name", "role", "membership", "label", "node.label", "engine.label"];

/// `GET /nodes`
pub(super) async fn list(State(node): State<NodeHandle>, params: Params) -> Result<Json<Vec<Node>>, ApiError> {
    let filters = Filters::read(&params, FILTERS)?;
    let views = node.views();
    let chosen = views.listed().filter(|member| matches(&filters, member, wanted(&views, member)));
    Ok(Json(chosen.map(|member| show(member, wanted(&views, member))).collect()))
}

/// `GET /nodes/{id or name}`
pub(super) async fn inspect(State(node): State<NodeHandle>, Segment(id): Segment) -> Result<Json<Node>, ApiError> {
    let views = node.views();
    let member = lookup::node(&views, node.about.id, &id)?;
    Ok(Json(show(member, wanted(&views, member))))
}

/// `POST /nodes/{id or name}/update?version=N`
pub(super) async fn update(
    State(node): State<NodeHandle>,
    Segment(id): Segment,
    params: Params,
    Parsed(spec): Parsed<NodeSpec>,
) -> Result<Json<Stored>, ApiError> {
    let version = params.number("version")?;
    let (id, role) = {
        let views = node.views();
        let member = lookup::node(&views, node.about.id, &id)?;
        (member.id, member.meta.role)
    };
    let same_role = match spec.role {
        None | Some(NodeSpecRoleEnum::EMPTY) => true,
        Some(NodeSpecRoleEnum::MANAGER) => role == Role::Manager,
        Some(NodeSpecRoleEnum::WORKER) => role == Role::Worker,
    };
    if !same_role {
        return Err(ApiError::NotSupported("docker node promote and demote (Spec.Role)".to_owned()));
    }
    let availability = match spec.availability {
        None | Some(NodeSpecAvailabilityEnum::EMPTY | NodeSpecAvailabilityEnum::ACTIVE) => Availability::Active,
        Some(NodeSpecAvailabilityEnum::PAUSE) => Availability::Pause,
        Some(NodeSpecAvailabilityEnum::DRAIN) => Availability::Drain,
    };
    let spec = Wanted { availability, labels: spec.labels.unwrap_or_default().into_iter().collect() };
    Ok(Json(node.apply(Command::UpdateNode { node: id, version, spec }).await?.into()))
}

/// `DELETE /nodes/{id or name}`: of a node that is not up. Docker's `force` makes no difference: a node that is up would
/// come back.
pub(super) async fn remove(State(node): State<NodeHandle>, Segment(id): Segment) -> Result<Json<Stored>, ApiError> {
    let id = lookup::node(&node.views(), node.about.id, &id)?.id;
    Ok(Json(node.apply(Command::RemoveNode(id)).await?.into()))
}

/// Returns what operators want of a member.
fn wanted<'a>(views: &'a Views, member: &Member) -> Option<&'a NodeIntent> {
    views.nodes.get(&member.id)
}

fn matches(filters: &Filters, member: &Member, wanted: Option<&NodeIntent>) -> bool {
    let label = |key: &str| wanted.and_then(|wanted| wanted.spec.labels.get(key)).map(String::as_str);
    filters.any("id", |id| member.id.to_string().starts_with(id))
        && filters.any("name", |name| member.meta.name.folded().starts_with(&name.to_ascii_lowercase()))
        && filters.any("role", |role| role == role_word(member.meta.role))
        && filters.any("membership", |membership| membership == "accepted")
        && ["label", "node.label"].into_iter().all(|name| filters.labels(name, label))
        && filters.labels("engine.label", |key: &str| member.meta.labels.get(key).map(String::as_str))
}

/// Returns Docker's word for a role.
pub(super) fn role_word(role: Role) -> &'static str {
    match role {
        Role::Manager => "manager",
        Role::Worker => "worker",
    }
}

/// Returns Docker's word for an availability.
pub(super) fn availability(availability: Availability) -> NodeSpecAvailabilityEnum {
    match availability {
        Availability::Active => NodeSpecAvailabilityEnum::ACTIVE,
        Availability::Pause => NodeSpecAvailabilityEnum::PAUSE,
        Availability::Drain => NodeSpecAvailabilityEnum::DRAIN,
    }
}

fn show(member: &Member, wanted: Option<&NodeIntent>) -> Node {
    let meta = &member.meta;
    let amount = |amount: u64| Some(i64::try_from(amount).unwrap_or(i64::MAX));
    let role = match meta.role {
        Role::Manager => NodeSpecRoleEnum::MANAGER,
        Role::Worker => NodeSpecRoleEnum::WORKER,
    };
    let availability = availability(wanted.map(|wanted| wanted.spec.availability).unwrap_or_default());
    let labels = wanted.map(|wanted| &wanted.spec.labels);
    Node {
        id: Some(member.id.to_string()),
        version: Some(ObjectVersion { index: Some(wanted.map_or(0, |wanted| wanted.version)) }),
        spec: Some(NodeSpec {
            labels: Some(labels.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect()),
            role: Some(role),
            availability: Some(availability),
            ..NodeSpec::default()
        }),
        description: Some(NodeDescription {
            hostname: Some(meta.name.to_string()),
            platform: Some(Platform { architecture: Some(machine(&meta.architecture)), os: Some(meta.os.clone()) }),
            resources: Some(ResourceObject {
                nano_cpus: amount(meta.nano_cpus),
                memory_bytes: amount(meta.memory_bytes),
                generic_resources: None,
            }),
            engine: Some(EngineDescription {
                engine_version: Some(meta.software.clone()),
                labels: Some(meta.labels.clone().into_iter().collect()),
                ..Default::default()
            }),
            tls_info: None,
        }),
        status: Some(status(member)),
        manager_status: (meta.role == Role::Manager).then(|| manager_status(member)),
        ..Node::default()
    }
}

fn status(member: &Member) -> NodeStatus {
    let (state, message) = match member.state {
        MemberState::Alive => (NodeState::READY, None),
        MemberState::Suspect => (NodeState::READY, Some("it missed a probe")),
        MemberState::Down => (NodeState::DOWN, Some("it does not answer")),
        MemberState::Left => (NodeState::DOWN, Some("it has left")),
    };
    NodeStatus {
        state: Some(state),
        message: message.map(str::to_owned),
        addr: Some(member.meta.gossip.ip().to_canonical().to_string()),
    }
}

/// All managers are equals: none is ever the leader.
fn manager_status(member: &Member) -> ManagerStatus {
    let reachability = if member.state.is_up() { Reachability::REACHABLE } else { Reachability::UNREACHABLE };
    ManagerStatus { leader: Some(false), reachability: Some(reachability), addr: Some(member.meta.gossip.to_string()) }
}

/// Returns an architecture in the kernel's words, which is what Docker shows of nodes.
pub(super) fn machine(architecture: &str) -> String {
    match architecture {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        other => other,
    }
    .to_owned()
}
