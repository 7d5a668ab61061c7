//! From a stack as read and the objects that are there to the steps between them: pure, so that what is printed before
//! anything is done is what is done.

use std::collections::{BTreeSet, HashMap};

use anyhow::{bail, ensure};
use bollard::models::{Secret, ServiceSpec, ServiceUpdateStatusStateEnum as UpdateState};

use super::present::{Owned, Present, stack_of};
use super::same;
use super::step::{Deed, Step};
use crate::cli::data::decoded;
use crate::cli::objects::Noun;
use crate::compose::{Blob, IMAGE_LABEL, Network, Stack};

/// What the operator chooses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Choices {
    /// What the stack has and no longer declares is removed.
    pub(super) prune: bool,
    /// An image is looked for again though its name is the same.
    pub(super) repin: bool,
}

/// Returns the steps that bring about what a stack declares, in the order in which they can be taken.
///
/// # Errors
/// Something that it needs is not there, or something that it declares is there and not its own, or cannot be changed.
pub(super) fn deploy(stack: &Stack, name: &str, present: &Present, choices: Choices) -> anyhow::Result<Vec<Step>> {
    let mut steps = Vec::new();
    for declared in &stack.networks {
        steps.extend(network(declared, name, present)?);
    }
    for (noun, blobs) in [(Noun::Secret, &stack.secrets), (Noun::Config, &stack.configs)] {
        for blob in blobs {
            steps.extend(data(noun, blob, name, present)?);
        }
    }
    for spec in &stack.services {
        steps.push(service(spec.clone(), name, present, choices)?);
    }
    let declared = declared(stack);
    let spare = present.of_stack(name).into_iter().filter(|owned| !declared.contains(&key(owned.noun, owned.name)));
    steps.extend(spare.map(|owned| match choices.prune {
        true => removed(&owned),
        false => step(owned.noun, owned.name, Deed::Spare, "not in the files, --prune removes it"),
    }));
    Ok(steps)
}

/// Returns all that a stack names, what is external included.
fn declared(stack: &Stack) -> BTreeSet<(Noun, String)> {
    let networks = stack.networks.iter().map(|network| (Noun::Network, &network.name));
    let secrets = stack.secrets.iter().map(|blob| (Noun::Secret, &blob.name));
    let configs = stack.configs.iter().map(|blob| (Noun::Config, &blob.name));
    let services = stack.services.iter().filter_map(|spec| Some((Noun::Service, spec.name.as_ref()?)));
    networks.chain(secrets).chain(configs).chain(services).map(|(noun, name)| key(noun, name)).collect()
}

/// Names of services are told apart without regard to case.
fn key(noun: Noun, name: &str) -> (Noun, String) {
    (noun, if noun == Noun::Service { name.to_ascii_lowercase() } else { name.to_owned() })
}

/// Returns the steps that remove a stack.
pub(super) fn removal(present: &Present, name: &str) -> Vec<Step> {
    present.of_stack(name).iter().map(removed).collect()
}

fn removed(owned: &Owned<'_>) -> Step {
    step(owned.noun, owned.name, Deed::Remove { id: owned.id.to_owned() }, "")
}

fn left(noun: Noun, name: &str, id: &str, note: &str) -> Step {
    step(noun, name, Deed::Leave { id: id.to_owned() }, note)
}

fn step(noun: Noun, name: &str, deed: Deed, note: &str) -> Step {
    Step { noun, name: name.to_owned(), deed, note: note.to_owned() }
}

/// Refuses to touch what belongs to another stack, or to none.
fn refuse_foreign(noun: Noun, name: &str, stack: &str, labels: Option<&HashMap<String, String>>) -> anyhow::Result<()> {
    let whose = match stack_of(labels) {
        Some(owner) if owner == stack => return Ok(()),
        Some(owner) => format!("belongs to the stack {owner}"),
        None => "belongs to no stack".to_owned(),
    };
    let word = noun.word();
    match noun {
        Noun::Service => bail!(
            "the {word} {name} is there already and {whose}: remove it with `shoal {word} rm {name}`, or name the stack \
             otherwise"
        ),
        Noun::Network | Noun::Secret | Noun::Config => bail!(
            "the {word} {name} is there already and {whose}: use it with `external: true`, or give the stack's own \
             another `name:`"
        ),
    }
}

fn network(declared: &Network, stack: &str, present: &Present) -> anyhow::Result<Option<Step>> {
    let name = declared.name.as_str();
    let Some(found) = present.networks.get(name) else {
        ensure!(
            !declared.external,
            "the network {name} is external, but it is not there: make it with `shoal network create {name}`"
        );
        return Ok(Some(step(Noun::Network, name, Deed::CreateNetwork(declared.clone()), "")));
    };
    if declared.external {
        return Ok(None);
    }
    refuse_foreign(Noun::Network, name, stack, found.labels.as_ref())?;
    let differ = [
        ("attachable", found.attachable.unwrap_or_default() != declared.attachable),
        ("internal", found.internal.unwrap_or_default() != declared.internal),
        ("labels", found.labels.as_ref() != Some(&declared.labels)),
    ];
    let differ: Vec<&str> = differ.iter().filter(|(_, differs)| *differs).map(|(what, _)| *what).collect();
    let note = match differ.is_empty() {
        true => String::new(),
        false => format!("differs in {}, but networks cannot be changed: remove it first", differ.join(", ")),
    };
    Ok(Some(left(Noun::Network, name, found.id.as_deref().unwrap_or(name), &note)))
}

fn data(noun: Noun, blob: &Blob, stack: &str, present: &Present) -> anyhow::Result<Option<Step>> {
    let (word, name) = (noun.word(), blob.name.as_str());
    let found = present.data(noun).get(name);
    let Some(bytes) = &blob.data else {
        ensure!(
            found.is_some(),
            "the {word} {name} is external, but it is not there: make it with `shoal {word} create {name} FILE`"
        );
        return Ok(None);
    };
    let Some(Secret { id, version, spec, .. }) = found else {
        return Ok(Some(step(noun, name, Deed::CreateData(blob.clone()), "")));
    };
    let labels = spec.as_ref().and_then(|spec| spec.labels.as_ref());
    refuse_foreign(noun, name, stack, labels)?;
    // Nobody is shown a secret's bytes.
    let shown = spec.as_ref().filter(|_| noun == Noun::Config).and_then(decoded);
    ensure!(shown.as_ref().is_none_or(|shown| shown == bytes), "{}", other_bytes(noun, name));
    let id = id.clone().unwrap_or_else(|| name.to_owned());
    let version = version.as_ref().and_then(|version| version.index).unwrap_or_default();
    let same_labels = labels == Some(&blob.labels);
    let (deed, note) = match (same_labels, shown) {
        (true, Some(_)) => (Deed::Leave { id }, ""),
        (true, None) => {
            (Deed::CompareData { id, version, blob: blob.clone() }, "the node compares its bytes on deployment")
        }
        (false, _) => (Deed::LabelData { id, version, blob: blob.clone() }, "labels"),
    };
    Ok(Some(step(noun, name, deed, note)))
}

/// Returns why a secret or config is not changed, and what to do.
pub(super) fn other_bytes(noun: Noun, name: &str) -> String {
    let word = noun.word();
    format!(
        "the {word} {name} is there already with other bytes, and bytes are never changed: give the new ones another \
         name in the file, such as `name: {name}-2`, and services move to them"
    )
}

fn service(mut spec: ServiceSpec, stack: &str, present: &Present, choices: Choices) -> anyhow::Result<Step> {
    identify(&mut spec, |noun, name| present.data(noun).get(name)?.id.clone());
    let name = spec.name.clone().unwrap_or_default();
    let Some(found) = present.service(&name) else {
        return Ok(step(Noun::Service, &name, Deed::CreateService(Box::new(spec)), ""));
    };
    let there = found.spec.clone().unwrap_or_default();
    refuse_foreign(Noun::Service, &name, stack, there.labels.as_ref())?;
    keep(&mut spec, &there, choices);
    let id = found.id.clone().unwrap_or_else(|| name.clone());
    let mut differ = same::differences(&spec, &with_network_names(there, present));
    let update = found.update_status.as_ref().and_then(|status| status.state);
    if !stands(update) {
        differ.push("its last update did not go through".to_owned());
    }
    if differ.is_empty() {
        return Ok(left(Noun::Service, &name, &id, ""));
    }
    let version = found.version.as_ref().and_then(|version| version.index).unwrap_or_default();
    let deed = Deed::UpdateService { id, version, spec: Box::new(spec) };
    Ok(step(Noun::Service, &name, deed, &differ.join(", ")))
}

/// Tells whether a service runs, or is about to run, what was last asked for.
fn stands(update: Option<UpdateState>) -> bool {
    match update {
        None | Some(UpdateState::EMPTY | UpdateState::UPDATING | UpdateState::COMPLETED) => true,
        Some(
            UpdateState::PAUSED
            | UpdateState::ROLLBACK_STARTED
            | UpdateState::ROLLBACK_PAUSED
            | UpdateState::ROLLBACK_COMPLETED,
        ) => false,
    }
}

/// Keeps of a service what its Compose file says nothing of: how often its tasks were replaced by force, and which image
/// its image's name meant.
fn keep(spec: &mut ServiceSpec, there: &ServiceSpec, choices: Choices) {
    let Some(there_task) = &there.task_template else { return };
    let label = |spec: &ServiceSpec| spec.labels.as_ref().and_then(|labels| labels.get(IMAGE_LABEL).cloned());
    let same_image = label(spec).is_some() && label(spec) == label(there);
    let task = spec.task_template.get_or_insert_default();
    task.force_update = there_task.force_update;
    let image = there_task.container_spec.as_ref().and_then(|container| container.image.clone());
    if same_image && !choices.repin && image.is_some() {
        task.container_spec.get_or_insert_default().image = image;
    }
}

/// Names the secrets and configs of a service by id too, where that is known.
pub(super) fn identify(spec: &mut ServiceSpec, id: impl Fn(Noun, &str) -> Option<String>) {
    let container = spec.task_template.as_mut().and_then(|task| task.container_spec.as_mut());
    let Some(container) = container else { return };
    for secret in container.secrets.iter_mut().flatten() {
        if let Some(found) = secret.secret_name.as_deref().and_then(|name| id(Noun::Secret, name)) {
            secret.secret_id = Some(found);
        }
    }
    for config in container.configs.iter_mut().flatten() {
        if let Some(found) = config.config_name.as_deref().and_then(|name| id(Noun::Config, name)) {
            config.config_id = Some(found);
        }
    }
}

/// Names the networks of a service as files name them: what is there has their ids.
fn with_network_names(mut spec: ServiceSpec, present: &Present) -> ServiceSpec {
    for attachment in spec.task_template.iter_mut().flat_map(|task| task.networks.iter_mut().flatten()) {
        let mut networks = present.networks.values();
        if let Some(network) = networks.find(|network| network.id.is_some() && network.id == attachment.target) {
            attachment.target.clone_from(&network.name);
        }
    }
    spec
}

#[cfg(test)]
mod tests;
