//! `shoal service create`: Docker's flags, as far as shoal has what they ask for.

use std::process::ExitCode;

use bollard::models::ServiceSpec;
use clap::Args;

use super::flags::SharedArgs;
use super::mode::ModeArgs;
use super::options::{ListArgs, Partition, labels};
use super::rolling::RollingArgs;
use super::uses::UseArgs;
use super::{WaitArgs, converge};
use crate::api::status::Created;
use crate::cli::output::Output;
use crate::client::Client;

/// What to create.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Call the service so; this is also its DNS name [default: made up from the image's].
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    mode: ModeArgs,
    #[command(flatten)]
    rolling: RollingArgs,
    /// Label the service (repeat for several).
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// What becomes of the service on the lesser side of a split [default: available].
    #[arg(long, value_enum)]
    partition: Option<Partition>,
    #[command(flatten)]
    lists: ListArgs,
    #[command(flatten)]
    uses: UseArgs,
    #[command(flatten)]
    shared: SharedArgs,
    #[command(flatten)]
    wait: WaitArgs,
    /// The image to run.
    pub(in crate::cli) image: String,
    /// Replaces the image's command.
    #[arg(value_name = "ARG", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(in crate::cli) args: Vec<String>,
}

pub(super) async fn run(args: CreateArgs, client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    let (wait, uses) = (args.wait, args.uses.resolve(client).await?);
    let mut spec = spec(args)?;
    uses.apply(&mut spec);
    let created: Created = client.post("/services/create", &spec).await?;
    output.line(&created.id)?;
    output.stored(&created.stored);
    converge(wait, &created.id, client, output).await
}

fn spec(args: CreateArgs) -> anyhow::Result<ServiceSpec> {
    let mut spec = ServiceSpec { name: args.name, labels: Some(labels(&args.label)), ..ServiceSpec::default() };
    if let Some(partition) = args.partition {
        partition.apply(&mut spec);
    }
    args.shared.apply(&mut spec)?;
    args.lists.apply(&mut spec)?;
    let container = spec.task_template.get_or_insert_default().container_spec.get_or_insert_default();
    container.image = Some(args.image);
    container.args = (!args.args.is_empty()).then_some(args.args);
    args.mode.apply(&mut spec)?;
    args.rolling.edit(&mut spec);
    Ok(spec)
}
