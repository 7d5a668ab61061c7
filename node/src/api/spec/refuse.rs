//! Refuses what shoal does not have, by its name: nothing that an operator asked for is ignored silently.

use bollard::models::{
    ServiceSpec, TaskSpec, TaskSpecContainerSpec, TaskSpecContainerSpecIsolationEnum as Isolation,
    TaskSpecContainerSpecPrivileges as Privileges, TaskSpecContainerSpecPrivilegesAppArmorModeEnum as AppArmorMode,
    TaskSpecContainerSpecPrivilegesCredentialSpec as CredentialSpec,
    TaskSpecContainerSpecPrivilegesSeLinuxContext as SeLinuxContext,
    TaskSpecContainerSpecPrivilegesSeccompModeEnum as SeccompMode, TaskSpecResources,
};

use super::accept::AcceptError;

/// One thing that shoal does not have: whether the spec asks for it, what people call it, and its field.
type Check = (bool, &'static str, &'static str);

/// Refuses a spec that asks for something that shoal does not have.
pub(super) fn service(spec: &ServiceSpec) -> Result<(), AcceptError> {
    spec.task_template.as_ref().map_or(Ok(()), task)
}

pub(super) fn check(checks: &[Check]) -> Result<(), AcceptError> {
    match checks.iter().find(|(asked, ..)| *asked) {
        Some(&(_, option, field)) => Err(AcceptError::Unsupported { option, field }),
        None => Ok(()),
    }
}

fn task(task: &TaskSpec) -> Result<(), AcceptError> {
    let runtime = task.runtime.as_deref().unwrap_or_default();
    check(&[
        (task.plugin_spec.is_some(), "plugins as services", "TaskTemplate.PluginSpec"),
        (task.network_attachment_spec.is_some(), "network attachments", "TaskTemplate.NetworkAttachmentSpec"),
        (!matches!(runtime, "" | "container"), "other runtimes than containers", "TaskTemplate.Runtime"),
    ])?;
    task.resources.as_ref().map_or(Ok(()), resources)?;
    task.container_spec.as_ref().map_or(Ok(()), container)
}

fn resources(resources: &TaskSpecResources) -> Result<(), AcceptError> {
    let reservations = resources.reservations.clone().unwrap_or_default();
    check(&[
        (some(&reservations.generic_resources), "--generic-resource", "Resources.Reservations.GenericResources"),
        (number(resources.swap_bytes), "--memory-swap", "Resources.SwapBytes"),
        (resources.memory_swappiness.is_some(), "--memory-swappiness", "Resources.MemorySwappiness"),
    ])
}

fn container(container: &TaskSpecContainerSpec) -> Result<(), AcceptError> {
    let isolated = matches!(container.isolation, Some(Isolation::PROCESS | Isolation::HYPERV));
    check(&[
        (number(container.oom_score_adj), "--oom-score-adj", "ContainerSpec.OomScoreAdj"),
        (isolated, "--isolation", "ContainerSpec.Isolation"),
    ])?;
    container.privileges.as_ref().map_or(Ok(()), privileges)
}

fn privileges(privileges: &Privileges) -> Result<(), AcceptError> {
    let seccomp = privileges.seccomp.clone().unwrap_or_default();
    let profile = seccomp.profile.is_some_and(|profile| !profile.is_empty());
    let app_armor = privileges.app_armor.as_ref().and_then(|app_armor| app_armor.mode);
    let credentials = privileges.credential_spec.clone().unwrap_or_default();
    let context = privileges.se_linux_context.clone().unwrap_or_default();
    check(&[
        (profile || seccomp.mode == Some(SeccompMode::CUSTOM), "a seccomp profile of one's own", "Privileges.Seccomp"),
        (!matches!(app_armor, None | Some(AppArmorMode::EMPTY)), "AppArmor", "Privileges.AppArmor"),
        (credentials != CredentialSpec::default(), "--credential-spec", "Privileges.CredentialSpec"),
        (context != SeLinuxContext::default(), "SELinux", "Privileges.SELinuxContext"),
    ])
}

pub(super) fn some<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_some_and(|list| !list.is_empty())
}

fn number(number: Option<i64>) -> bool {
    number.is_some_and(|number| number != 0)
}
