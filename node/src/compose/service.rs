//! One service: from its keys in the file to its spec in Docker's API.

use std::collections::HashMap;
use std::path::Path;

use bollard::models::{
    EndpointSpec, ResourcesUlimits, ServiceSpec, TaskSpec, TaskSpecContainerSpec, TaskSpecContainerSpecPrivileges,
    TaskSpecContainerSpecPrivilegesSeccomp, TaskSpecContainerSpecPrivilegesSeccompModeEnum as Seccomp,
    TaskSpecLogDriver, TaskSpecResources, TaskSpecRestartPolicy, TaskSpecRestartPolicyConditionEnum as Condition,
};

use super::deploy::{self, Deploy};
use super::files::Blobs;
use super::mounts::{self, Volumes};
use super::networks::Networks;
use super::tree::{At, ComposeError, wrong};
use super::{IMAGE_LABEL, Surroundings, health, ports};

/// Longest environment file in bytes.
const ENV_FILE_BYTES_MAX: usize = 1 << 20;

/// What a service may refer to.
pub(super) struct Around<'a, 'b> {
    pub(super) surroundings: &'a Surroundings<'b>,
    pub(super) networks: &'a mut Networks,
    pub(super) volumes: &'a Volumes,
    pub(super) secrets: &'a mut Blobs,
    pub(super) configs: &'a mut Blobs,
    pub(super) warnings: &'a mut Vec<String>,
}

/// A service as far as it has been read.
#[derive(Default)]
struct Draft {
    container: TaskSpecContainerSpec,
    deploy: Deploy,
    endpoint: EndpointSpec,
    log: Option<TaskSpecLogDriver>,
    /// From environment files, in order; what the service itself says comes after.
    env_files: Vec<(String, Option<String>)>,
    env: Vec<(String, Option<String>)>,
    /// `scale`, of account where `deploy.replicas` is not given.
    scale: Option<i64>,
    /// `restart`, of account where `deploy.restart_policy` is not given.
    restart: Option<TaskSpecRestartPolicy>,
}

/// Reads the service of this name.
pub(super) fn read(name: &str, at: &At<'_>, around: &mut Around<'_, '_>) -> Result<ServiceSpec, ComposeError> {
    let mut draft = Draft::default();
    let mut networks = None;
    for (key, at) in at.entries()? {
        match key {
            "deploy" => draft.deploy = deploy::read(&at)?,
            "networks" => networks = (!at.is_null()).then_some(at),
            "secrets" => draft.container.secrets = Some(around.secrets.secrets(&at)?),
            "configs" => draft.container.configs = Some(around.configs.configs(&at)?),
            "volumes" => {
                let mounts = at.items()?.iter().map(|at| around.volumes.mount(at)).collect::<Result<Vec<_>, _>>()?;
                draft.container.mounts.get_or_insert_default().extend(mounts);
            }
            "env_file" => draft.env_files = env_files(&at, around.surroundings)?,
            "ports" => {
                for at in at.items()? {
                    draft.endpoint.ports.get_or_insert_default().extend(ports::read(&at, around.warnings)?);
                }
            }
            _ if draft.container_key(key, &at)? || draft.process_key(key, &at)? => {}
            _ => left_out(name, key, &at, around.warnings)?,
        }
    }
    if draft.container.image.is_none() {
        return Err(wrong(at, "has no image: build it, load it with `shoal image load` and name it here"));
    }
    let attachments = around.networks.attach(name, networks.as_ref())?;
    let mut spec = draft.finish(around.surroundings);
    spec.name = Some(around.surroundings.scoped(name));
    if let Some(task) = &mut spec.task_template {
        task.networks = Some(attachments);
    }
    Ok(spec)
}

impl Draft {
    /// Takes a key that says what the container is; tells whether it was one.
    fn container_key(&mut self, key: &str, at: &At<'_>) -> Result<bool, ComposeError> {
        let container = &mut self.container;
        match key {
            "image" => container.image = Some(at.text()?),
            "hostname" => container.hostname = Some(at.text()?),
            "labels" => container.labels = Some(at.labels()?),
            "read_only" => container.read_only = Some(at.truth()?),
            "init" => container.init = Some(at.truth()?),
            "tty" => container.tty = Some(at.truth()?),
            "stdin_open" => container.open_stdin = Some(at.truth()?),
            "tmpfs" => {
                let mounts = at.items_or_one()?.iter().map(mounts::tmpfs).collect::<Result<Vec<_>, _>>()?;
                container.mounts.get_or_insert_default().extend(mounts);
            }
            "healthcheck" => container.health_check = Some(health::read(at)?),
            "extra_hosts" => container.hosts = Some(hosts(at)?),
            "dns" => container.dns_config.get_or_insert_default().nameservers = Some(at.texts()?),
            "dns_search" => container.dns_config.get_or_insert_default().search = Some(at.texts()?),
            "dns_opt" => container.dns_config.get_or_insert_default().options = Some(at.texts()?),
            "sysctls" => container.sysctls = Some(at.labels()?),
            "ulimits" => container.ulimits = Some(ulimits(at)?),
            "cap_add" => container.capability_add = Some(at.texts()?),
            "cap_drop" => container.capability_drop = Some(at.texts()?),
            "group_add" => container.groups = Some(at.texts()?),
            "security_opt" => container.privileges = Some(security(at)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Takes a key that says what runs in it, and how; tells whether it was one.
    fn process_key(&mut self, key: &str, at: &At<'_>) -> Result<bool, ComposeError> {
        let container = &mut self.container;
        match key {
            "command" => container.args = words(at)?,
            "entrypoint" => container.command = words(at)?,
            "environment" => self.env = at.pairs()?,
            "user" => container.user = Some(at.text()?),
            "working_dir" => container.dir = Some(at.text()?),
            "stop_signal" => container.stop_signal = Some(at.text()?),
            "stop_grace_period" => container.stop_grace_period = Some(at.nanoseconds()?),
            "logging" => self.log = Some(log(at)?),
            "scale" => self.scale = Some(at.count()?),
            "restart" => self.restart = Some(restart(at)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Returns the spec, but for its name and networks.
    fn finish(self, surroundings: &Surroundings<'_>) -> ServiceSpec {
        let Self { mut container, deploy, mut endpoint, log, env_files, env, scale, restart } = self;
        container.env = Some(environment(env_files, env, surroundings.variables));
        let labels = container.labels.take().unwrap_or_default();
        container.labels = Some(surroundings.labelled(labels));
        let mut labels = surroundings.labelled(deploy.labels.clone());
        labels.insert(IMAGE_LABEL.to_owned(), container.image.clone().unwrap_or_default());
        endpoint.mode = deploy.endpoint_mode;
        let has_endpoint = endpoint.mode.is_some() || endpoint.ports.is_some();
        let mode = deploy.mode(scale);
        let task = TaskSpec {
            container_spec: Some(container),
            resources: Some(TaskSpecResources {
                limits: deploy.limits,
                reservations: deploy.reservations,
                ..TaskSpecResources::default()
            }),
            restart_policy: deploy.restart.or(restart),
            placement: deploy.placement,
            log_driver: log,
            ..TaskSpec::default()
        };
        ServiceSpec {
            labels: Some(labels),
            task_template: Some(task),
            mode: Some(mode),
            update_config: deploy.update,
            rollback_config: deploy.rollback,
            endpoint_spec: has_endpoint.then_some(endpoint),
            ..ServiceSpec::default()
        }
    }
}

/// Warns of a key that a stack has no use for, and refuses one that would change what the service may do.
fn left_out(service: &str, key: &str, at: &At<'_>, warnings: &mut Vec<String>) -> Result<(), ComposeError> {
    let why = match key {
        "build" => "images are not built: load them with `shoal image load`",
        "container_name" => "a service has many containers, named after their tasks",
        "depends_on" | "links" => "services start in any order, and names are answered as soon as tasks run",
        "expose" => "all ports are open inside a network",
        "external_links" => "names of other services are answered anyway",
        "pull_policy" => "an image is fetched if its node lacks it",
        "profiles" | "develop" | "attach" | "annotations" => "it says nothing to a cluster",
        _ => return Err(at.unknown()),
    };
    warnings.push(format!("service {service}: `{key}` is ignored: {why}"));
    Ok(())
}

/// Returns a command's words: a list as it is, a text split as a shell would.
fn words(at: &At<'_>) -> Result<Option<Vec<String>>, ComposeError> {
    if at.is_null() {
        return Ok(None);
    }
    if at.is_list() {
        return Ok(Some(at.texts()?));
    }
    let text = at.text()?;
    shlex::split(&text).map(Some).ok_or_else(|| wrong(at, "has a quote that does not end"))
}

fn hosts(at: &At<'_>) -> Result<Vec<String>, ComposeError> {
    if !at.is_list() {
        let host = |(name, address): (String, Option<String>)| format!("{} {name}", address.unwrap_or_default());
        return Ok(at.pairs()?.into_iter().map(host).collect());
    }
    let host = |at: &At<'_>| {
        let text = at.text()?;
        let split = text.split_once('=').or_else(|| text.split_once(':'));
        let (name, address) = split.ok_or_else(|| wrong(at, "expected NAME=ADDRESS"))?;
        Ok(format!("{} {name}", address.trim_matches(['[', ']'])))
    };
    at.items()?.iter().map(host).collect()
}

fn ulimits(at: &At<'_>) -> Result<Vec<ResourcesUlimits>, ComposeError> {
    let ulimit = |(name, at): (&str, At<'_>)| {
        let (mut soft, mut hard) = (None, None);
        if at.is_map() {
            for (key, at) in at.entries()? {
                match key {
                    "soft" => soft = Some(at.integer()?),
                    "hard" => hard = Some(at.integer()?),
                    _ => return Err(at.unknown()),
                }
            }
        } else {
            (soft, hard) = (Some(at.integer()?), Some(at.integer()?));
        }
        Ok(ResourcesUlimits { name: Some(name.to_owned()), soft, hard })
    };
    at.entries()?.into_iter().map(ulimit).collect()
}

fn security(at: &At<'_>) -> Result<TaskSpecContainerSpecPrivileges, ComposeError> {
    let mut privileges = TaskSpecContainerSpecPrivileges::default();
    for at in at.items()? {
        let option = at.text()?;
        match option.split_once([':', '=']).unwrap_or((&option, "true")) {
            ("no-new-privileges", "true") => privileges.no_new_privileges = Some(true),
            ("no-new-privileges", "false") => privileges.no_new_privileges = Some(false),
            ("seccomp", "unconfined") => {
                let unconfined =
                    TaskSpecContainerSpecPrivilegesSeccomp { mode: Some(Seccomp::UNCONFINED), profile: None };
                privileges.seccomp = Some(unconfined);
            }
            _ => return Err(at.unknown()),
        }
    }
    Ok(privileges)
}

fn log(at: &At<'_>) -> Result<TaskSpecLogDriver, ComposeError> {
    let mut driver = TaskSpecLogDriver::default();
    for (key, at) in at.entries()? {
        match key {
            "driver" => driver.name = Some(at.text()?),
            "options" => driver.options = Some(at.labels()?),
            _ => return Err(at.unknown()),
        }
    }
    Ok(driver)
}

/// Reads the `restart` of files that were not written for a cluster.
fn restart(at: &At<'_>) -> Result<TaskSpecRestartPolicy, ComposeError> {
    let text = at.text()?;
    let (word, attempts) = text.split_once(':').map_or((text.as_str(), None), |(word, count)| (word, Some(count)));
    let condition = match word {
        "no" | "false" => Condition::NONE,
        "always" | "unless-stopped" => Condition::ANY,
        "on-failure" => Condition::ON_FAILURE,
        _ => return Err(wrong(at, format!("{text:?} is none of no, always, on-failure[:TIMES], unless-stopped"))),
    };
    let attempts =
        attempts.map(|count| count.parse().map_err(|_| wrong(at, "expected on-failure:TIMES"))).transpose()?;
    Ok(TaskSpecRestartPolicy { condition: Some(condition), max_attempts: attempts, ..TaskSpecRestartPolicy::default() })
}

/// Reads environment files, each a path or a map with `path`, `required` and `format`.
fn env_files(at: &At<'_>, surroundings: &Surroundings<'_>) -> Result<Vec<(String, Option<String>)>, ComposeError> {
    let mut variables = Vec::new();
    for at in if at.is_map() { vec![at.clone()] } else { at.items_or_one()? } {
        let (mut path, mut required) = (None, true);
        if at.is_map() {
            for (key, at) in at.entries()? {
                match key {
                    "path" => path = Some(at.text()?),
                    "required" => required = at.truth()?,
                    _ => return Err(at.unknown()),
                }
            }
        } else {
            path = Some(at.text()?);
        }
        let path = path.ok_or_else(|| wrong(&at, "expected a key `path`"))?;
        match (surroundings.read)(Path::new(&path), ENV_FILE_BYTES_MAX) {
            Ok(bytes) => {
                let text = String::from_utf8(bytes).map_err(|_| wrong(&at, format!("{path} is not UTF-8")))?;
                variables.extend(
                    env_file(&text).map_err(|line| wrong(&at, format!("{path}: line {line} is not NAME=VALUE")))?,
                );
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => {}
            Err(error) => return Err(wrong(&at, format!("cannot read {path}: {error}"))),
        }
    }
    Ok(variables)
}

/// Reads lines of `NAME=VALUE` or `NAME`, comments and empty lines aside; quotes around a value are taken off.
fn env_file(text: &str) -> Result<Vec<(String, Option<String>)>, usize> {
    let mut variables = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = line.split_once('=').map_or((line, None), |(name, value)| (name, Some(value)));
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(index + 1);
        }
        variables.push((name.to_owned(), value.map(|value| unquoted(value.trim()).to_owned())));
    }
    Ok(variables)
}

fn unquoted(value: &str) -> &str {
    let inside = |quote| value.strip_prefix(quote).and_then(|value| value.strip_suffix(quote));
    inside('"').or_else(|| inside('\'')).unwrap_or(value)
}

/// Returns the environment as `NAME=value`, in order of name; the later of two equal names counts. A name without a
/// value takes the one it has here, and is left out if it has none.
fn environment(
    files: Vec<(String, Option<String>)>,
    own: Vec<(String, Option<String>)>,
    variables: &dyn Fn(&str) -> Option<String>,
) -> Vec<String> {
    let named: HashMap<String, Option<String>> = files.into_iter().chain(own).collect();
    let value = |(name, value): (String, Option<String>)| {
        value.or_else(|| variables(&name)).map(|value| format!("{name}={value}"))
    };
    let mut environment: Vec<String> = named.into_iter().filter_map(value).collect();
    environment.sort_unstable();
    environment
}
