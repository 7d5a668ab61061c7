//! Takes the steps of a plan, through the API of the node that is asked.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context, bail};
use bollard::models::{NetworkCreateRequest, ServiceSpec};

use super::plan::{identify, other_bytes};
use super::step::{Deed, Step};
use crate::api::status::{Created, Stored};
use crate::cli::data;
use crate::cli::network;
use crate::cli::objects::{Failures, Noun};
use crate::cli::output::Output;
use crate::cli::service::{self, WaitArgs};
use crate::client::{Client, encoded};
use crate::compose::{Blob, Network};

/// What a node says, Docker's included, when the bytes of a secret or config would change.
const OTHER_BYTES: &str = "only updates to Labels are allowed";

/// Takes all steps, and waits until the services run.
///
/// Secrets, configs and networks that the stack no longer uses go last: until the services have moved on, their tasks may
/// need them, and so does an update that is taken back.
pub(super) async fn deploy(
    steps: Vec<Step>,
    wait: WaitArgs,
    client: &Client,
    output: &mut Output,
) -> anyhow::Result<ExitCode> {
    let is_late = |step: &Step| matches!(step.deed, Deed::Remove { .. }) && step.noun != Noun::Service;
    let (late, steps): (Vec<Step>, Vec<Step>) = steps.into_iter().partition(is_late);
    let mut run = Run { client, output, made: BTreeMap::new(), services: Vec::new(), failures: Failures::default() };
    for step in steps {
        run.take(step).await?;
    }
    let Run { services, mut failures, .. } = run;
    let code = service::converge_all(wait, &services, client, output).await?;
    if code != ExitCode::SUCCESS {
        if !late.is_empty() {
            output.note("What the stack no longer uses was not removed: deploy it again with --prune once it runs.");
        }
        failures.done()?;
        return Ok(code);
    }
    for step in &late {
        if let Err(error) = remove(step, client, output).await {
            failures.add(error, output);
        }
    }
    failures.done()
}

/// Takes a step that removes something.
pub(super) async fn remove(step: &Step, client: &Client, output: &mut Output) -> anyhow::Result<()> {
    let Deed::Remove { id } = &step.deed else { return Ok(()) };
    let path = step.noun.path(id);
    let done = match step.noun {
        Noun::Service => client.delete::<Stored>(&path).await.map(|stored| output.stored(&stored)),
        Noun::Network | Noun::Secret | Noun::Config => client.discard(&path).await,
    };
    match done {
        // Somebody else was quicker.
        Err(error) if error.is_status(404) => Ok(()),
        done => done.with_context(|| format!("cannot remove the {} {}", step.noun.word(), step.name)),
    }
}

/// The steps as far as they have been taken.
struct Run<'a> {
    client: &'a Client,
    output: &'a mut Output,
    /// Ids of the secrets and configs that were made.
    made: BTreeMap<(Noun, String), String>,
    /// Ids of the services that are to run.
    services: Vec<String>,
    failures: Failures,
}

impl Run<'_> {
    async fn take(&mut self, step: Step) -> anyhow::Result<()> {
        let (noun, name) = (step.noun, step.name.clone());
        let failed = format!("cannot {} the {} {name}", step.deed.word(), noun.word());
        match step.deed {
            Deed::Leave { id } => {
                if noun == Noun::Service {
                    self.services.push(id);
                }
            }
            Deed::Spare => {}
            Deed::CreateNetwork(declared) => {
                network::create(&request(declared), self.client, self.output).await.context(failed)?;
            }
            Deed::CreateData(blob) => {
                let id = data::create(noun, &spec(blob), self.client).await.context(failed)?;
                self.made.insert((noun, name), id);
            }
            Deed::CompareData { id, version, blob } | Deed::LabelData { id, version, blob } => {
                let path = format!("{}/update?version={version}", noun.path(&id));
                match self.client.tell(&path, &spec(blob)).await {
                    Err(error) if error.to_string().contains(OTHER_BYTES) => bail!(other_bytes(noun, &name)),
                    done => done.context(failed)?,
                }
            }
            Deed::CreateService(spec) => {
                let created: Created =
                    self.client.post("/services/create", &self.identified(*spec)).await.context(failed)?;
                self.output.stored(&created.stored);
                self.services.push(created.id);
            }
            Deed::UpdateService { id, version, spec } => {
                let path = format!("/services/{}/update?version={version}", encoded(&id));
                let stored: Stored = self.client.post(&path, &self.identified(*spec)).await.context(failed)?;
                self.output.stored(&stored);
                self.services.push(id);
            }
            Deed::Remove { .. } => {
                if let Err(error) = remove(&step, self.client, self.output).await {
                    self.failures.add(error, self.output);
                }
            }
        }
        Ok(())
    }

    /// Names the secrets and configs by id that were made only now.
    fn identified(&self, mut spec: ServiceSpec) -> ServiceSpec {
        identify(&mut spec, |noun, name| self.made.get(&(noun, name.to_owned())).cloned());
        spec
    }
}

fn request(declared: Network) -> NetworkCreateRequest {
    NetworkCreateRequest {
        name: declared.name,
        driver: Some(network::DRIVER.to_owned()),
        attachable: Some(declared.attachable),
        internal: Some(declared.internal),
        labels: Some(declared.labels),
        ..NetworkCreateRequest::default()
    }
}

fn spec(blob: Blob) -> bollard::models::SecretSpec {
    let bytes = blob.data.unwrap_or_default();
    bollard::models::SecretSpec { labels: Some(blob.labels), ..data::spec(blob.name, &bytes) }
}
