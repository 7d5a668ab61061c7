//! `/_ping`, `/version`, `/info`: what clients ask first.

use std::fs;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bollard::models::{
    LocalNodeState, PeerNode, PluginsInfo, SwarmInfo, SystemInfo, SystemInfoCgroupDriverEnum,
    SystemInfoCgroupVersionEnum, SystemVersion, SystemVersionComponents, SystemVersionPlatform,
};
use shoal_cluster::Views;
use shoal_cluster::membership::member::{Member, Role};
use shoal_cluster::reports::task::TaskState;

use super::nodes::machine;
use super::time::{now_ms, rfc3339};
use super::{API_VERSION, API_VERSION_MIN, NodeHandle, swarm};

/// Returns a version of the API as clients write it.
pub(super) fn version_text((major, minor): (u32, u32)) -> String {
    format!("{major}.{minor}")
}

/// `GET /_ping`
pub(super) async fn ping(State(node): State<NodeHandle>) -> Response {
    let swarm = match node.about.role {
        Role::Manager => "active/manager",
        Role::Worker => "active/worker",
    };
    let headers = [
        (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
        (header::PRAGMA, "no-cache"),
        (header::HeaderName::from_static("swarm"), swarm),
    ];
    (headers, "OK").into_response()
}

/// `GET /version`
pub(super) async fn version(State(node): State<NodeHandle>) -> Json<SystemVersion> {
    let views = node.views();
    let (os, arch) = platform(&views, &node);
    let details = [
        ("ApiVersion", version_text(API_VERSION)),
        ("MinAPIVersion", version_text(API_VERSION_MIN)),
        ("Os", os.clone()),
        ("Arch", arch.clone()),
        ("KernelVersion", kernel()),
        ("GitCommit", String::new()),
        ("GoVersion", String::new()),
        ("BuildTime", String::new()),
        ("Experimental", "false".to_owned()),
    ];
    // Docker's client shows what it finds under this name as the server.
    let engine = SystemVersionComponents {
        name: "Engine".to_owned(),
        version: software().to_owned(),
        details: Some(details.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
    };
    Json(SystemVersion {
        platform: Some(SystemVersionPlatform { name: format!("shoal {}", software()) }),
        components: Some(vec![engine]),
        version: Some(software().to_owned()),
        api_version: Some(version_text(API_VERSION)),
        min_api_version: Some(version_text(API_VERSION_MIN)),
        git_commit: Some(String::new()),
        go_version: Some(String::new()),
        os: Some(os),
        arch: Some(arch),
        kernel_version: Some(kernel()),
        experimental: Some(false),
        build_time: Some(String::new()),
    })
}

/// `GET /info`
pub(super) async fn info(State(node): State<NodeHandle>) -> Json<SystemInfo> {
    let (views, about) = (node.views(), &node.about);
    let here = || views.tasks.iter().filter(|task| task.node == about.id && task.report.state >= TaskState::Running);
    let count = |count: usize| Some(i64::try_from(count).unwrap_or(i64::MAX));
    let running = here().filter(|task| !task.report.state.is_final()).count();
    let own = views.member(&about.id);
    let (os, arch) = platform(&views, &node);
    Json(SystemInfo {
        id: Some(about.id.to_string()),
        containers: count(here().count()),
        containers_running: count(running),
        containers_paused: Some(0),
        containers_stopped: count(here().count() - running),
        images: count(super::images::count(&node).await),
        driver: Some("overlayfs".to_owned()),
        driver_status: Some(Vec::new()),
        docker_root_dir: Some(about.data_dir.display().to_string()),
        plugins: Some(PluginsInfo { network: Some(vec!["overlay".to_owned()]), ..PluginsInfo::default() }),
        memory_limit: Some(true),
        cpu_cfs_period: Some(true),
        cpu_cfs_quota: Some(true),
        pids_limit: Some(true),
        ipv4_forwarding: Some(true),
        system_time: Some(rfc3339(now_ms())),
        cgroup_driver: Some(SystemInfoCgroupDriverEnum::CGROUPFS),
        cgroup_version: Some(cgroup_version()),
        kernel_version: Some(kernel()),
        operating_system: Some(operating_system()),
        os_type: Some(os),
        architecture: Some(machine(&arch)),
        ncpu: own.map(|own| i64::try_from(own.meta.nano_cpus / 1_000_000_000).unwrap_or(i64::MAX)),
        mem_total: own.map(|own| i64::try_from(own.meta.memory_bytes).unwrap_or(i64::MAX)),
        name: Some(about.name.to_string()),
        labels: Some(Vec::new()),
        experimental_build: Some(false),
        server_version: Some(software().to_owned()),
        swarm: Some(swarm_block(&views, &node)),
        live_restore_enabled: Some(true),
        security_options: Some(vec!["name=seccomp,profile=builtin".to_owned()]),
        warnings: Some(Vec::new()),
        ..SystemInfo::default()
    })
}

fn swarm_block(views: &Views, node: &NodeHandle) -> SwarmInfo {
    let count = |count: usize| Some(i64::try_from(count).unwrap_or(i64::MAX));
    let managers = || views.members.iter().filter(|member| member.meta.role == Role::Manager);
    let peer =
        |member: &Member| PeerNode { node_id: Some(member.id.to_string()), addr: Some(member.meta.gossip.to_string()) };
    let own = views.member(&node.about.id);
    SwarmInfo {
        node_id: Some(node.about.id.to_string()),
        node_addr: own.map(|own| own.meta.gossip.ip().to_canonical().to_string()),
        local_node_state: Some(if views.settled { LocalNodeState::ACTIVE } else { LocalNodeState::PENDING }),
        control_available: Some(node.about.role == Role::Manager),
        error: Some(String::new()),
        remote_managers: Some(managers().map(peer).collect()),
        nodes: count(views.members.len()),
        managers: count(managers().count()),
        cluster: Some(swarm::cluster(&node.about)),
    }
}

fn software() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

fn platform(views: &Views, node: &NodeHandle) -> (String, String) {
    let own = views.member(&node.about.id).map(|own| (own.meta.os.clone(), own.meta.architecture.clone()));
    own.unwrap_or_else(|| (std::env::consts::OS.to_owned(), std::env::consts::ARCH.to_owned()))
}

fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(|_| String::new(), |text| text.trim().to_owned())
}

fn operating_system() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

fn cgroup_version() -> SystemInfoCgroupVersionEnum {
    match fs::exists("/sys/fs/cgroup/cgroup.controllers") {
        Ok(true) => SystemInfoCgroupVersionEnum::_2,
        Ok(false) | Err(_) => SystemInfoCgroupVersionEnum::_1,
    }
}
