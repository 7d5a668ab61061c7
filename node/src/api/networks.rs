//! `/networks`: those that operators made, and the one that services are on which name none.

use std::collections::{BTreeMap, HashMap};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use bollard::models::{Ipam, IpamConfig, Network, NetworkCreateRequest, NetworkCreateResponse, NetworkPruneResponse};
use shoal_cluster::intent::object::{BUILT_IN, Network as Made, NetworkSpec, ObjectName};
use shoal_cluster::plan::addresses::POOL_V4;
use shoal_cluster::{Command, NewObject, ObjectId, Views, hash};

use super::NodeHandle;
use super::body::Parsed;
use super::error::ApiError;
use super::filters::{Filters, in_map};
use super::params::{Params, Segment};
use super::time::rfc3339;
use crate::identity::random;

const FILTERS: &[&str] = &["id", "name", "driver", "scope", "type", "label", "dangling"];
const PRUNE_FILTERS: &[&str] = &["label", "label!"];
/// The only driver there is.
const DRIVER: &str = "overlay";

/// `GET /networks`
pub(super) async fn list(State(node): State<NodeHandle>, params: Params) -> Result<Json<Vec<Network>>, ApiError> {
    let filters = Filters::read(&params, FILTERS)?;
    let dangling = filters.flag("dangling")?;
    let views = node.views();
    let matches = |network: &Network| {
        let (id, name) = (network.id.as_deref().unwrap_or_default(), network.name.as_deref().unwrap_or_default());
        filters.any("id", |prefix| id.starts_with(prefix))
            && filters.any("name", |part| name.contains(part))
            && filters.any("driver", |driver| driver == DRIVER)
            && filters.any("scope", |scope| scope == "swarm")
            && filters.any("type", |kind| kind == if name == BUILT_IN { "builtin" } else { "custom" })
            && filters.labels("label", in_map(network.labels.as_ref().unwrap_or(&HashMap::new())))
            && dangling.is_none_or(|dangling| dangling != is_used(&views, name))
    };
    let mut networks: Vec<Network> = views.networks.values().map(|network| show(&views, network)).collect();
    networks.push(built_in(&views));
    networks.retain(matches);
    Ok(Json(networks))
}

/// `GET /networks/{id or name}`
pub(super) async fn inspect(State(node): State<NodeHandle>, Segment(name): Segment) -> Result<Json<Network>, ApiError> {
    let views = node.views();
    if is_built_in(&name) {
        return Ok(Json(built_in(&views)));
    }
    Ok(Json(show(&views, find(&views, &name)?)))
}

/// `POST /networks/create`
pub(super) async fn create(
    State(node): State<NodeHandle>,
    Parsed(request): Parsed<NetworkCreateRequest>,
) -> Result<(StatusCode, Json<NetworkCreateResponse>), ApiError> {
    refuse(&request)?;
    let name = ObjectName::new(&request.name).map_err(|error| ApiError::BadRequest(error.to_string()))?;
    let labels: BTreeMap<String, String> = request.labels.unwrap_or_default().into_iter().collect();
    let spec = NetworkSpec {
        attachable: request.attachable.unwrap_or_default(),
        internal: request.internal.unwrap_or_default(),
    };
    let warning = if spec.internal { "internal is kept and shown: networks are not isolated yet" } else { "" };
    let id = ObjectId(random());
    node.apply(Command::CreateNetwork { new: NewObject { id, name, labels }, spec }).await?;
    let created = NetworkCreateResponse { id: id.to_string(), warning: warning.to_owned() };
    Ok((StatusCode::CREATED, Json(created)))
}

/// Refuses what networks do not have, by its name. Traffic between nodes is always encrypted.
fn refuse(request: &NetworkCreateRequest) -> Result<(), ApiError> {
    let driver = request.driver.as_deref().unwrap_or_default();
    let ipam = request.ipam.clone().unwrap_or_default();
    let options = request.options.iter().flatten().any(|(option, _)| option != "encrypted");
    let asked = [
        (!matches!(driver, "" | "bridge" | DRIVER), "network drivers besides overlay: Driver"),
        (request.ingress == Some(true), "docker network create --ingress: Ingress"),
        (request.config_only == Some(true), "docker network create --config-only: ConfigOnly"),
        (request.config_from.is_some(), "docker network create --config-from: ConfigFrom"),
        (ipam.config.is_some_and(|config| !config.is_empty()), "subnets of one's own (addresses are automatic): IPAM"),
        (!matches!(ipam.driver.as_deref(), None | Some("" | "default")), "docker network create --ipam-driver: IPAM"),
        (options, "docker network create --opt besides encrypted: Options"),
    ];
    match asked.iter().find(|(asked, _)| *asked) {
        Some((_, what)) => Err(ApiError::NotSupported((*what).to_owned())),
        None => Ok(()),
    }
}

/// `DELETE /networks/{id or name}`
pub(super) async fn remove(State(node): State<NodeHandle>, Segment(name): Segment) -> Result<StatusCode, ApiError> {
    if is_built_in(&name) {
        return Err(ApiError::BadRequest(format!("{BUILT_IN} is a pre-defined network and cannot be removed")));
    }
    let id = find(&node.views(), &name)?.id;
    node.apply(Command::RemoveNetwork(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /networks/prune`
pub(super) async fn prune(
    State(node): State<NodeHandle>,
    params: Params,
) -> Result<Json<NetworkPruneResponse>, ApiError> {
    let filters = Filters::read(&params, PRUNE_FILTERS)?;
    let views = node.views();
    let mut deleted = Vec::new();
    for network in views.networks.values().filter(|network| !is_used(&views, network.name.as_str())) {
        let labels = network.labels.clone().into_iter().collect();
        let spared = filters.values("label!").next().is_some() && filters.labels("label!", in_map(&labels));
        if filters.labels("label", in_map(&labels)) && !spared {
            node.apply(Command::RemoveNetwork(network.id)).await?;
            deleted.push(network.name.to_string());
        }
    }
    Ok(Json(NetworkPruneResponse { networks_deleted: Some(deleted) }))
}

/// Tells whether this is the name or the id of the built-in network.
pub(super) fn is_built_in(text: &str) -> bool {
    text == BUILT_IN || text == built_in_id()
}

/// Returns the id of the network of this name.
pub(super) fn id_of(views: &Views, name: &str) -> Option<String> {
    if name == BUILT_IN {
        return Some(built_in_id());
    }
    Some(views.networks.get(&ObjectName::new(name).ok()?)?.id.to_string())
}

fn find<'a>(views: &'a Views, text: &str) -> Result<&'a Made, ApiError> {
    let named = views.networks.values().find(|network| network.name.as_str() == text);
    super::lookup::find("network", text, views.networks.values(), |network| network.id.to_string(), named)
}

fn is_used(views: &Views, name: &str) -> bool {
    let on = |service: &shoal_cluster::intent::service::Service| match service.spec.networks.as_slice() {
        [] => name == BUILT_IN,
        networks => networks.iter().any(|attachment| attachment.network.as_str() == name),
    };
    views.services.iter().any(on)
}

/// Returns the built-in network's id, shown like every other.
fn built_in_id() -> String {
    ObjectId(hash::id128("network", &[BUILT_IN.as_bytes()])).to_string()
}

fn show(views: &Views, network: &Made) -> Network {
    Network {
        name: Some(network.name.to_string()),
        id: Some(network.id.to_string()),
        created: Some(rfc3339(network.created_ms)),
        internal: Some(network.spec.internal),
        attachable: Some(network.spec.attachable),
        labels: Some(network.labels.clone().into_iter().collect()),
        ..built_in(views)
    }
}

fn built_in(views: &Views) -> Network {
    let subnet = |subnet: String| IpamConfig { subnet: Some(subnet), ..IpamConfig::default() };
    // All blocks of a shoal share the first 32 bits; see `docs/protocol.md#addresses`.
    let prefix = u128::from(views.routes.own.v6) & !(u128::MAX >> 32);
    let subnets = vec![
        subnet(format!("{}/{}", POOL_V4.0, POOL_V4.1)),
        subnet(format!("{}/32", std::net::Ipv6Addr::from(prefix))),
    ];
    Network {
        name: Some(BUILT_IN.to_owned()),
        id: Some(built_in_id()),
        scope: Some("swarm".to_owned()),
        driver: Some("overlay".to_owned()),
        enable_ipv4: Some(true),
        enable_ipv6: Some(true),
        ipam: Some(Ipam { driver: Some("default".to_owned()), config: Some(subnets), options: None }),
        internal: Some(false),
        attachable: Some(false),
        ingress: Some(false),
        options: Some(Default::default()),
        labels: Some(Default::default()),
        ..Network::default()
    }
}
