//! Compose files: how they are read, and `shoal stack config`, which asks no node and changes nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::name::StackName;
use crate::cli::input;
use crate::cli::output::Output;
use crate::compose::{self, Blob, FILE_BYTES_MAX, Network, Stack, Surroundings};

/// Which files.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Read this Compose file, over those before it; `-` is standard input (repeat for several).
    #[arg(short = 'c', long = "compose-file", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Name the stack so: it precedes the name of everything in it.
    #[arg(default_value = "stack")]
    stack: StackName,
}

pub(super) fn config(args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    let stack = read(&args.files, args.stack.as_str())?;
    let mut output = Output::new();
    stack.warnings.iter().for_each(|warning| output.note(&format!("warning: {warning}")));
    output.json(&shown(&stack))?;
    Ok(ExitCode::SUCCESS)
}

/// Reads Compose files with the variables of this process; the files that they name are looked for beside the first.
pub(in crate::cli) fn read(files: &[PathBuf], stack: &str) -> anyhow::Result<Stack> {
    let texts = files.iter().map(|path| text(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let folder = files.first().and_then(|path| path.parent()).unwrap_or(Path::new(""));
    let surroundings = Surroundings {
        stack,
        variables: &|name| std::env::var(name).ok(),
        read: &|path, bytes_max| {
            let bytes = input::limited(std::fs::File::open(folder.join(path))?, bytes_max)?;
            bytes.ok_or_else(|| io::Error::other(format!("it has more than {bytes_max} bytes")))
        },
    };
    let names: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    compose::read(&texts, &surroundings).with_context(|| names.join(", "))
}

fn text(path: &Path) -> anyhow::Result<String> {
    String::from_utf8(input::read(path, FILE_BYTES_MAX)?).with_context(|| format!("{} is not UTF-8", path.display()))
}

/// Returns a stack as JSON; of secrets and configs no byte is shown.
fn shown(stack: &Stack) -> serde_json::Value {
    let blob = |blob: &Blob| json!({ "Name": blob.name, "Labels": blob.labels, "External": blob.data.is_none() });
    let network = |network: &Network| {
        json!({
            "Name": network.name,
            "Labels": network.labels,
            "External": network.external,
            "Attachable": network.attachable,
            "Internal": network.internal,
        })
    };
    json!({
        "Services": stack.services,
        "Networks": stack.networks.iter().map(network).collect::<Vec<_>>(),
        "Secrets": stack.secrets.iter().map(blob).collect::<Vec<_>>(),
        "Configs": stack.configs.iter().map(blob).collect::<Vec<_>>(),
    })
}
