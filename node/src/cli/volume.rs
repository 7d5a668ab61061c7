//! `shoal volume`: directories of a node that outlive the tasks that mount them.

use std::collections::HashMap;
use std::process::ExitCode;

use bollard::models::{VolumeCreateRequest, VolumePruneResponse};
use clap::Subcommand;
use serde_json::json;

use super::output::Output;
use super::table::table;
use crate::api::volumes::{ShownVolume, VolumeList};
use crate::client::{Client, encoded};

/// What to do with the volumes of the node that is asked.
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// List the volumes of this node.
    #[command(visible_alias = "list")]
    Ls {
        /// Print names only.
        #[arg(short, long)]
        quiet: bool,
    },
    /// Make a volume on this node; services that mount it then run here.
    Create {
        /// Label it (repeat for several).
        #[arg(long, value_name = "KEY=VALUE")]
        label: Vec<String>,
        /// Its name [default: made up].
        #[arg(value_name = "VOLUME")]
        name: Option<String>,
    },
    /// Show all that is known of volumes, as JSON.
    Inspect {
        /// Which.
        #[arg(required = true, value_name = "VOLUME")]
        volumes: Vec<String>,
    },
    /// Remove volumes and all that is in them.
    #[command(visible_alias = "remove")]
    Rm {
        /// Give up a volume whose node is down: services then make it anew, empty, on another.
        #[arg(short, long)]
        force: bool,
        /// Which.
        #[arg(required = true, value_name = "VOLUME")]
        volumes: Vec<String>,
    },
    /// Remove the volumes of this node that no service mounts.
    Prune {
        /// Remove those with a name too; others go with their tasks anyway.
        #[arg(short, long)]
        all: bool,
    },
}

pub(super) async fn run(command: VolumeCommand, client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    match command {
        VolumeCommand::Ls { quiet } => list(quiet, client, output).await?,
        VolumeCommand::Create { label, name } => {
            let labels: HashMap<String, String> = super::service::labels(&label);
            let request = VolumeCreateRequest { name, labels: Some(labels), ..VolumeCreateRequest::default() };
            let made: ShownVolume = client.post("/volumes/create", &request).await?;
            output.line(&made.name)?;
        }
        VolumeCommand::Inspect { volumes } => {
            let mut found = Vec::new();
            for name in volumes {
                found.push(client.ask::<ShownVolume>(&format!("/volumes/{}", encoded(&name))).await?);
            }
            output.json(&found)?;
        }
        VolumeCommand::Rm { force, volumes } => {
            for name in volumes {
                client.discard(&format!("/volumes/{}?force={}", encoded(&name), u8::from(force))).await?;
                output.line(&name)?;
            }
        }
        VolumeCommand::Prune { all } => {
            let filters = encoded(&json!({ "all": [all.to_string()] }).to_string());
            let path = format!("/volumes/prune?filters={filters}");
            let pruned: VolumePruneResponse = client.post(&path, &json!({})).await?;
            for name in pruned.volumes_deleted.unwrap_or_default() {
                output.line(&name)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(quiet: bool, client: &Client, output: &mut Output) -> anyhow::Result<()> {
    let VolumeList { volumes, .. } = client.ask("/volumes").await?;
    if quiet {
        return Ok(volumes.iter().try_for_each(|volume| output.line(&volume.name))?);
    }
    // Here, unless the shoal knows it on another node, or on none.
    let lives = |volume: &ShownVolume| volume.status.get("Node").cloned().unwrap_or_else(|| "here".to_owned());
    let row = |volume: &ShownVolume| [volume.driver.clone(), volume.name.clone(), lives(volume)];
    let rows: Vec<_> = volumes.iter().map(row).collect();
    for line in table(["DRIVER", "VOLUME NAME", "LIVES"], &rows) {
        output.line(&line)?;
    }
    Ok(())
}
