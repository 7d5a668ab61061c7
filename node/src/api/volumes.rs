//! `/volumes`: the named volumes of the node that is asked, and which node each lives on.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use bollard::models::{VolumeCreateRequest, VolumePruneResponse};
use serde::{Deserialize, Serialize};
use shoal_cluster::intent::service::container::VolumeName;
use shoal_cluster::{Command, NodeId, Views};

use super::body::Parsed;
use super::error::{ApiError, shown};
use super::filters::{Filters, in_map};
use super::params::{Params, Segment};
use super::time::rfc3339;
use super::{NodeHandle, bonds, lookup};
use crate::identity::random;
use crate::volumes::{Volume, VolumeError};

const FILTERS: &[&str] = &["name", "label", "driver", "dangling"];
const PRUNE_FILTERS: &[&str] = &["label", "label!", "all"];
/// The only driver there is.
const DRIVER: &str = "local";

/// A volume as Docker shows it. `Status` says where it lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ShownVolume {
    /// Its name.
    pub name: String,
    /// `local`.
    pub driver: String,
    /// Where its contents are on this node.
    pub mountpoint: String,
    /// When it was made.
    pub created_at: String,
    /// What it was made with.
    pub labels: HashMap<String, String>,
    /// `local`.
    pub scope: String,
    /// None.
    pub options: HashMap<String, String>,
    /// `Node`: the name of the node that the shoal knows it on, if that is another, or none.
    pub status: BTreeMap<String, String>,
}

/// What `GET /volumes` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct VolumeList {
    /// They.
    pub volumes: Vec<ShownVolume>,
    /// None.
    pub warnings: Vec<String>,
}

/// `GET /volumes`
pub(super) async fn list(State(node): State<NodeHandle>, params: Params) -> Result<Json<VolumeList>, ApiError> {
    let filters = Filters::read(&params, FILTERS)?;
    let dangling = filters.flag("dangling")?;
    let volumes = local(&node).await?;
    let (views, used) = (node.views(), used(&node));
    let chosen = volumes.iter().filter(|volume| {
        let labels = volume.about.labels.clone().into_iter().collect();
        filters.any("name", |part| volume.name.as_str().contains(part))
            && filters.any("driver", |driver| driver == DRIVER)
            && filters.labels("label", in_map(&labels))
            && dangling.is_none_or(|dangling| dangling != used.contains(&volume.name))
    });
    let volumes = chosen.map(|volume| show(&views, &node, volume)).collect();
    Ok(Json(VolumeList { volumes, warnings: Vec::new() }))
}

/// `GET /volumes/{name}`
pub(super) async fn inspect(
    State(node): State<NodeHandle>,
    Segment(name): Segment,
) -> Result<Json<ShownVolume>, ApiError> {
    let name = parse(&name)?;
    let found = blocking(&node, {
        let name = name.clone();
        move |node| Ok(node.volumes.find(&name))
    });
    match found.await? {
        Some(volume) => Ok(Json(show(&node.views(), &node, &volume))),
        None => Err(not_here(&node.views(), &node, &name)),
    }
}

/// `POST /volumes/create`: on this node, which claims the volume for itself.
pub(super) async fn create(
    State(node): State<NodeHandle>,
    Parsed(request): Parsed<VolumeCreateRequest>,
) -> Result<(StatusCode, Json<ShownVolume>), ApiError> {
    if !matches!(request.driver.as_deref().unwrap_or_default(), "" | DRIVER) {
        return Err(ApiError::NotSupported("volume drivers besides local: Driver".to_owned()));
    }
    if request.driver_opts.is_some_and(|options| !options.is_empty()) {
        return Err(ApiError::NotSupported("options of volumes (docker volume create --opt): DriverOpts".to_owned()));
    }
    if request.cluster_volume_spec.is_some() {
        return Err(ApiError::NotSupported("cluster volumes: ClusterVolumeSpec".to_owned()));
    }
    let name = match request.name.filter(|name| !name.is_empty()) {
        Some(name) => parse(&name)?,
        None => parse(&shoal_cluster::TaskId(random()).to_string())?,
    };
    let labels: BTreeMap<String, String> = request.labels.unwrap_or_default().into_iter().collect();
    if node.views().volumes.get(&name) != Some(&node.about.id) {
        node.apply(Command::ClaimVolume(name.clone())).await?;
    }
    let made = blocking(&node, move |node| node.volumes.ensure(&name, &labels)).await?;
    Ok((StatusCode::CREATED, Json(show(&node.views(), &node, &made))))
}

/// `DELETE /volumes/{name}?force=1`: here, or with `force` from a node that has been given up.
pub(super) async fn remove(
    State(node): State<NodeHandle>,
    Segment(name): Segment,
    params: Params,
) -> Result<StatusCode, ApiError> {
    let name = parse(&name)?;
    remove_one(&node, name, params.flag("force")).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove_one(node: &NodeHandle, name: VolumeName, force: bool) -> Result<(), ApiError> {
    let views = node.views();
    let own = node.about.id;
    let holder = views.volumes.get(&name).copied();
    let is_up = |holder: NodeId| views.member(&holder).is_some_and(|member| member.state.is_up());
    let given_up = force && holder.is_some_and(|holder| holder != own && !is_up(holder));
    if !given_up && used(node).contains(&name) {
        return Err(ApiError::Conflict(format!("remove {name}: volume is in use by a service")));
    }
    let here = blocking(node, {
        let name = name.clone();
        move |node| Ok(node.volumes.find(&name).is_some())
    });
    let here = here.await?;
    match holder {
        Some(holder) if holder != own && !here => {
            if !given_up {
                return Err(not_here(&views, node, &name));
            }
            tracing::debug!(volume = %name, node = %holder, "given up");
        }
        None if !here && !force => return Err(ApiError::not_found("volume", name.as_str())),
        Some(_) | None => {}
    }
    if here {
        blocking(node, {
            let name = name.clone();
            move |node| node.volumes.remove(&name)
        })
        .await?;
    }
    // A copy that nobody knew of may go without anybody hearing of it.
    if holder.is_some_and(|holder| holder == own || !here) {
        node.apply(Command::ReleaseVolume(name)).await?;
    }
    Ok(())
}

/// `POST /volumes/prune`: of this node's. Without the filter `all` only those without a name would go, as in Docker, and
/// those go with their tasks here.
pub(super) async fn prune(
    State(node): State<NodeHandle>,
    params: Params,
) -> Result<Json<VolumePruneResponse>, ApiError> {
    let filters = Filters::read(&params, PRUNE_FILTERS)?;
    let all = filters.flag("all")?.unwrap_or_default();
    let mut deleted = Vec::new();
    let used = used(&node);
    for volume in local(&node).await?.into_iter().filter(|volume| all && !used.contains(&volume.name)) {
        let labels = volume.about.labels.clone().into_iter().collect();
        let spared = filters.values("label!").next().is_some() && filters.labels("label!", in_map(&labels));
        if filters.labels("label", in_map(&labels)) && !spared {
            remove_one(&node, volume.name.clone(), false).await?;
            deleted.push(volume.name.to_string());
        }
    }
    Ok(Json(VolumePruneResponse { volumes_deleted: Some(deleted), space_reclaimed: Some(0) }))
}

fn parse(name: &str) -> Result<VolumeName, ApiError> {
    VolumeName::new(name).map_err(|error| ApiError::BadRequest(error.to_string()))
}

/// Returns the volumes that services mount, or tasks of this node that have not ended.
fn used(node: &NodeHandle) -> BTreeSet<VolumeName> {
    let views = node.views();
    views.services.iter().flat_map(|service| service.spec.task.container.volumes().cloned()).collect()
}

async fn local(node: &NodeHandle) -> Result<Vec<Volume>, ApiError> {
    blocking(node, |node| Ok(node.volumes.list())).await
}

async fn blocking<T: Send + 'static>(
    node: &NodeHandle,
    work: impl FnOnce(&NodeHandle) -> Result<T, VolumeError> + Send + 'static,
) -> Result<T, ApiError> {
    let node = node.clone();
    let done = tokio::task::spawn_blocking(move || work(&node)).await;
    done.map_err(|error| ApiError::internal(&error))?.map_err(|error| match error {
        VolumeError::Io { .. } => ApiError::internal(&error),
        VolumeError::TooMany => ApiError::Conflict(error.to_string()),
    })
}

fn not_here(views: &Views, node: &NodeHandle, name: &VolumeName) -> ApiError {
    match views.volumes.get(name).filter(|holder| **holder != node.about.id) {
        Some(holder) => {
            let state = bonds::state_of(views, holder).map(|state| format!(", which {state}")).unwrap_or_default();
            let text =
                format!("volume {name} lives on node {}{state}: ask that node", lookup::node_name(views, holder));
            ApiError::Conflict(text)
        }
        None => ApiError::NotFound(format!("get {}: no such volume", shown(name.as_str()))),
    }
}

fn show(views: &Views, node: &NodeHandle, volume: &Volume) -> ShownVolume {
    let holder = views.volumes.get(&volume.name);
    let status = match holder {
        Some(holder) if *holder == node.about.id => None,
        Some(holder) => Some(lookup::node_name(views, holder)),
        None => Some("none".to_owned()),
    };
    ShownVolume {
        name: volume.name.to_string(),
        driver: DRIVER.to_owned(),
        mountpoint: volume.data.display().to_string(),
        created_at: rfc3339(volume.about.created_ms),
        labels: volume.about.labels.clone().into_iter().collect(),
        scope: DRIVER.to_owned(),
        options: HashMap::new(),
        status: status.map(|status| ("Node".to_owned(), status)).into_iter().collect(),
    }
}
