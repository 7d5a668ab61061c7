//! `/networks`: the one overlay that every service is on, shown as a network named `shoal`.

use axum::Json;
use axum::extract::State;
use bollard::models::{Ipam, IpamConfig, Network};
use shoal_cluster::hash;
use shoal_cluster::plan::addresses::POOL_V4;
use shoal_cluster::{ServiceId, Views};

use super::NodeHandle;
use super::error::ApiError;
use super::filters::Filters;
use super::params::{Params, Segment};

const NAME: &str = "shoal";
const FILTERS: &[&str] = &["id", "name", "driver", "scope", "type", "label", "dangling"];

/// `GET /networks`
pub(super) async fn list(State(node): State<NodeHandle>, params: Params) -> Result<Json<Vec<Network>>, ApiError> {
    let filters = Filters::read(&params, FILTERS)?;
    let matches = filters.any("id", |prefix| id().starts_with(prefix))
        && filters.any("name", |part| NAME.contains(part))
        && filters.any("driver", |driver| driver == "overlay")
        && filters.any("scope", |scope| scope == "swarm")
        && filters.any("type", |kind| kind == "builtin")
        && filters.any("dangling", |dangling| matches!(dangling, "0" | "false"))
        && filters.labels("label", |_| None);
    Ok(Json(if matches { vec![built_in(&node.views())] } else { Vec::new() }))
}

/// `GET /networks/{id or name}`
pub(super) async fn inspect(State(node): State<NodeHandle>, Segment(name): Segment) -> Result<Json<Network>, ApiError> {
    match is_built_in(&name) {
        true => Ok(Json(built_in(&node.views()))),
        false => Err(ApiError::not_found("network", &name)),
    }
}

/// Tells whether this is the name or the id of the built-in network.
pub(super) fn is_built_in(text: &str) -> bool {
    text == NAME || text == id()
}

/// Returns the network's id, shown like every other.
fn id() -> String {
    ServiceId(hash::id128("network", &[NAME.as_bytes()])).to_string()
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
        name: Some(NAME.to_owned()),
        id: Some(id()),
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
