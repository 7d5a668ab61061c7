//! `GET /containers/{id}/json`: one container, as its node knows it.

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};
use shoal_cluster::Views;
use shoal_cluster::view::TaskView;
use shoal_runtime::container::{ContainerSpec, Mount, MountSource};

use super::{details, find, labels};
use crate::api::error::ApiError;
use crate::api::params::Segment;
use crate::api::spec::image_text;
use crate::api::time::rfc3339;
use crate::api::{NodeHandle, lookup};
use crate::executor::health::{Health, OUTPUT_BYTES_MAX, PROBES_KEPT, Probe};
use crate::reach::Details;

/// What Docker writes for a time that has not come.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// `GET /containers/{id}/json`
pub(in crate::api) async fn inspect(
    State(node): State<NodeHandle>,
    Segment(id): Segment,
) -> Result<Json<Value>, ApiError> {
    let task = find(&node, &id)?;
    let details = details(&node, &task).await?;
    Ok(Json(show(&node.views(), &task, &details)))
}

fn show(views: &Views, task: &TaskView, details: &Details) -> Value {
    let spec = &details.spec;
    let service = views.services.iter().find(|service| service.id == task.report.service);
    let image = service.map_or_else(String::new, |service| image_text(&service.spec.task.image));
    let digest = service.and_then(|service| service.spec.task.image.digest.clone()).unwrap_or_default();
    let node = views.member(&task.node).map_or_else(String::new, |member| member.meta.name.to_string());
    let addresses = task.report.addresses;
    json!({
        "Id": spec.id,
        "Name": format!("/{}", lookup::container_name(views, task)),
        "Created": time(details.started_at_ms),
        "Path": spec.args.first(),
        "Args": spec.args.get(1..),
        "State": state(details),
        "Image": digest,
        "RestartCount": 0,
        "Driver": "overlayfs",
        "Platform": "linux",
        "ExecIDs": null,
        "HostConfig": host_config(spec),
        "Mounts": spec.mounts.iter().map(mount).collect::<Vec<_>>(),
        "Config": {
            "Hostname": spec.hostname,
            "User": spec.user,
            "Tty": spec.tty,
            "OpenStdin": spec.stdin,
            "AttachStdin": false,
            "AttachStdout": false,
            "AttachStderr": false,
            "Env": spec.env,
            "Cmd": spec.args,
            "Entrypoint": null,
            "Image": image,
            "WorkingDir": spec.cwd,
            "Labels": labels(views, task),
        },
        "NetworkSettings": {
            "Ports": {},
            "Networks": { "shoal": {
                "IPAddress": addresses.v4.map(|address| address.to_string()).unwrap_or_default(),
                "GlobalIPv6Address": addresses.v6.to_string(),
            } },
        },
        // Docker's engine knows containers of its own machine only.
        "Node": { "ID": task.node.to_string(), "Name": node },
    })
}

/// Shows where it is in its life and, if it has a check, how it is.
fn state(details: &Details) -> Value {
    let exit = details.exit.as_ref();
    let status = match (details.pid, exit) {
        (Some(_), _) => "running",
        (None, Some(_)) => "exited",
        (None, None) => "created",
    };
    let mut state = json!({
        "Status": status,
        "Running": details.pid.is_some(),
        "Paused": false,
        "Restarting": false,
        "OOMKilled": exit.is_some_and(|exit| exit.oom),
        "Dead": false,
        "Pid": details.pid.unwrap_or_default(),
        "ExitCode": exit.map_or(0, |exit| exit.code),
        "Error": exit.and_then(|exit| exit.error.clone()).unwrap_or_default(),
        "StartedAt": time(details.started_at_ms),
        "FinishedAt": time(exit.map_or(0, |exit| exit.finished_at_ms)),
    });
    if let Some(health) = &details.health {
        state["Health"] = show_health(health);
    }
    state
}

/// Shows the last tries, within Docker's bounds whatever another node says.
fn show_health(health: &Health) -> Value {
    let probe = |probe: &Probe| {
        json!({
            "Start": time(probe.started_at_ms),
            "End": time(probe.ended_at_ms),
            "ExitCode": probe.exit_code,
            "Output": &probe.output[..probe.output.floor_char_boundary(OUTPUT_BYTES_MAX)],
        })
    };
    let older = health.probes.len().saturating_sub(PROBES_KEPT);
    json!({
        "Status": health.status.word(),
        "FailingStreak": health.failing_streak,
        "Log": health.probes.iter().skip(older).map(probe).collect::<Vec<_>>(),
    })
}

fn time(ms: u64) -> String {
    if ms == 0 { NEVER.to_owned() } else { rfc3339(ms) }
}

fn host_config(spec: &ContainerSpec) -> Value {
    let limits = &spec.limits;
    let mut tmpfs = Map::new();
    for mount in &spec.mounts {
        if matches!(mount.source, MountSource::Tmpfs { .. }) {
            tmpfs.insert(mount.target.clone(), Value::from(""));
        }
    }
    json!({
        "NetworkMode": "shoal",
        "RestartPolicy": { "Name": "", "MaximumRetryCount": 0 },
        "LogConfig": { "Type": "json-file", "Config": {
            "max-size": spec.log.file_bytes_max.to_string(),
            "max-file": spec.log.files_max.to_string(),
        } },
        "Memory": limits.memory_bytes.unwrap_or_default(),
        "NanoCpus": limits.nano_cpus.unwrap_or_default(),
        "PidsLimit": limits.pids_max,
        "ReadonlyRootfs": spec.readonly_rootfs,
        "Init": spec.init,
        "Privileged": false,
        "CapAdd": spec.privileges.cap_add,
        "CapDrop": spec.privileges.cap_drop,
        "Sysctls": spec.sysctls,
        "ShmSize": spec.shm_bytes.unwrap_or(64 << 20),
        "ExtraHosts": spec.hosts.iter().map(|(address, name)| format!("{name}:{address}")).collect::<Vec<_>>(),
        "CgroupParent": spec.cgroup_parent,
        "Tmpfs": tmpfs,
    })
}

fn mount(mount: &Mount) -> Value {
    let (kind, source) = match &mount.source {
        MountSource::Bind(path) => ("bind", path.display().to_string()),
        MountSource::Volume { directory, .. } => ("volume", directory.display().to_string()),
        MountSource::Tmpfs { .. } => ("tmpfs", String::new()),
    };
    json!({
        "Type": kind,
        "Source": source,
        "Destination": mount.target,
        "Mode": if mount.readonly { "ro" } else { "" },
        "RW": !mount.readonly,
        "Propagation": if kind == "bind" { "rprivate" } else { "" },
    })
}
