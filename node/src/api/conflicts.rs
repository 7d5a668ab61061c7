//! `/shoal/conflicts`, and on how many disks a change is: what Docker cannot have, since it refuses to be split.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use shoal_cluster::Views;
use shoal_cluster::intent::conflict::{Conflict as Found, Rival as Version, Written};
use shoal_cluster::intent::key::{Key, Kind};
use shoal_cluster::intent::name::Name;

use super::spec::show;
use super::status::{Conflict, Rival, Stored};
use super::{Applied, NodeHandle, lookup, nodes};

/// `GET /shoal/conflicts`
pub(super) async fn list(State(node): State<NodeHandle>) -> Json<Vec<Conflict>> {
    let views = node.views();
    Json(views.conflicts.iter().map(|found| conflict(&views, found)).collect())
}

/// Returns the conflict about the service with this name, if there is one.
pub(super) fn of_service(views: &Views, name: &Name) -> Option<Conflict> {
    let key = Key::service(name);
    views.conflicts.iter().find(|found| found.key == key).map(|found| conflict(views, found))
}

fn conflict(views: &Views, found: &Found) -> Conflict {
    let kind = match found.key.kind() {
        Some(Kind::Service) => "service".to_owned(),
        Some(Kind::Node) => "node".to_owned(),
        Some(Kind::Block) => "block".to_owned(),
        Some(Kind::Volume) => "volume".to_owned(),
        Some(Kind::Verdict) => "verdict".to_owned(),
        Some(Kind::Network) => "network".to_owned(),
        Some(Kind::Secret) => "secret".to_owned(),
        Some(Kind::Config) => "config".to_owned(),
        Some(Kind::Part) => "part".to_owned(),
        Some(Kind::Completions) => "completions".to_owned(),
        None => found.key.kind.to_string(),
    };
    let versions = found.versions.iter().map(|version| rival(views, found, version)).collect();
    Conflict { kind, name: found.key.name.clone(), versions }
}

fn rival(views: &Views, found: &Found, version: &Version) -> Rival {
    let author = views.members.iter().find(|member| member.id == version.author);
    Rival {
        author: version.author.to_string(),
        author_name: author.map(|member| member.meta.name.to_string()),
        written_ms: version.stamp.wall_ms,
        spec: spec(views, &version.written(&found.key)),
        removed: version.value.is_none(),
    }
}

fn spec(views: &Views, written: &Written) -> Option<Value> {
    match written {
        Written::Service(service) => serde_json::to_value(show(&service.spec)).ok(),
        Written::Node(node) => {
            Some(json!({ "Availability": nodes::availability(node.spec.availability), "Labels": node.spec.labels }))
        }
        Written::Volume(node) => Some(json!({ "Node": lookup::node_name(views, node) })),
        Written::Network(network) => {
            Some(json!({ "ID": network.id.to_string(), "Internal": network.spec.internal, "Labels": network.labels }))
        }
        Written::Data(data) => {
            Some(json!({ "ID": data.id.to_string(), "Bytes": data.spec.bytes, "Labels": data.labels }))
        }
        Written::Nothing | Written::Unknown => None,
    }
}

impl From<Applied> for Stored {
    fn from(applied: Applied) -> Self {
        let warning = match applied {
            Applied { copies: 1.., .. } | Applied { others: 0, .. } => None,
            Applied { others_up: 0, .. } => Some("no other node is up"),
            Applied { .. } => Some("no other node has confirmed it yet"),
        };
        let warning = warning.map(|why| format!("stored on this node's disk only: {why}"));
        Self { warnings: warning.map(|warning| vec![warning]), stored_on: applied.copies + 1 }
    }
}
