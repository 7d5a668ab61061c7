//! `/swarm`: the shoal as Docker's swarm.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use bollard::models::{
    ClusterInfo, JoinTokens, ObjectVersion, Swarm, SwarmSpec, SwarmSpecCaConfig, SwarmSpecEncryptionConfig,
    SwarmSpecOrchestration, TlsInfo,
};
use shoal_cluster::limits::TASK_HISTORY_PER_SLOT;
use shoal_cluster::plan::addresses::{BLOCK_PREFIX_V4, POOL_V4};
use shoal_cluster::{ServiceId, hash};

use tokio::sync::oneshot;

use super::error::ApiError;
use super::params::Params;
use super::time::rfc3339;
use super::{About, ApplyError, NodeHandle};

/// `GET /swarm`
pub(super) async fn inspect(State(node): State<NodeHandle>) -> Json<Swarm> {
    let about = &node.about;
    let cluster = cluster(about);
    // Docker's client prints both, and takes an absent one for an empty one.
    let tokens = JoinTokens { worker: about.tokens.worker.clone(), manager: about.tokens.manager.clone() };
    Json(Swarm {
        id: cluster.id,
        version: cluster.version,
        created_at: cluster.created_at,
        updated_at: cluster.updated_at,
        spec: cluster.spec,
        tls_info: cluster.tls_info,
        root_rotation_in_progress: cluster.root_rotation_in_progress,
        data_path_port: cluster.data_path_port,
        default_addr_pool: cluster.default_addr_pool,
        subnet_size: cluster.subnet_size,
        join_tokens: Some(tokens),
    })
}

/// `POST /swarm/leave`: hands this node's tasks over, leaves the shoal for good, and ends. Answered once it has left.
pub(super) async fn leave(State(node): State<NodeHandle>, params: Params) -> Result<StatusCode, ApiError> {
    let is_last = !node.views().members.iter().any(|member| member.id != node.about.id && member.state.is_up());
    if is_last && !params.flag("force") {
        return Err(ApiError::Conflict(
            "no other node of this shoal is up: its services, secrets and configs would go with this one. Start another \
             node, or use `--force` to suppress this message."
                .to_owned(),
        ));
    }
    let (answer, left) = oneshot::channel();
    node.leave.send(answer).await.map_err(|_| ApplyError::Stopping)?;
    left.await.map_err(|_| ApplyError::Stopping)?;
    Ok(StatusCode::OK)
}

/// Returns what there is to say of the shoal as a whole.
pub(super) fn cluster(about: &About) -> ClusterInfo {
    let port = about.advertised.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let history = i64::try_from(TASK_HISTORY_PER_SLOT).unwrap_or(i64::MAX);
    ClusterInfo {
        id: Some(ServiceId(hash::id128("shoal", &[&about.shoal])).to_string()),
        version: Some(ObjectVersion { index: Some(1) }),
        created_at: Some(rfc3339(about.started_ms)),
        updated_at: Some(rfc3339(about.started_ms)),
        spec: Some(SwarmSpec {
            name: Some("default".to_owned()),
            labels: Some(Default::default()),
            orchestration: Some(SwarmSpecOrchestration { task_history_retention_limit: Some(history) }),
            ca_config: Some(SwarmSpecCaConfig::default()),
            encryption_config: Some(SwarmSpecEncryptionConfig { auto_lock_managers: Some(false) }),
            ..SwarmSpec::default()
        }),
        tls_info: Some(TlsInfo { trust_root: Some(about.ca_pem.clone()), ..TlsInfo::default() }),
        root_rotation_in_progress: Some(false),
        data_path_port: port,
        default_addr_pool: Some(vec![format!("{}/{}", POOL_V4.0, POOL_V4.1)]),
        subnet_size: Some(u32::from(BLOCK_PREFIX_V4)),
    }
}
