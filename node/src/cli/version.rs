//! `shoal version`: of this command, and of the node if one runs.

use std::path::Path;
use std::process::ExitCode;

use super::output::Output;
use crate::client::{Client, ClientError};

pub(super) async fn run(socket: &Path, output: &mut Output) -> anyhow::Result<ExitCode> {
    output.line(&format!("Client:  shoal {}", env!("CARGO_PKG_VERSION")))?;
    let client = match Client::connect(socket).await {
        Ok(client) => client,
        Err(ClientError::NotRunning(_)) => {
            output.line(&format!("Node:    none runs at {}", socket.display()))?;
            return Ok(ExitCode::SUCCESS);
        }
        Err(error) => return Err(error.into()),
    };
    let version = client.docker().version().await.map_err(|error| client.error(error))?;
    let text = |text: Option<String>| text.unwrap_or_default();
    output.line(&format!("Node:    shoal {} ({}/{})", text(version.version), text(version.os), text(version.arch)))?;
    output.line(&format!(
        "API:     {} (at least {}), the Docker Engine API",
        text(version.api_version),
        text(version.min_api_version)
    ))?;
    Ok(ExitCode::SUCCESS)
}
