//! `shoal secret` and `shoal config`: bytes that tasks get as files. A secret's go in and never come back.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::models::{IdResponse, Secret, SecretSpec};
use clap::Subcommand;

use super::input;
use super::objects::{self, FilterArgs, Noun};
use super::output::Output;
use super::service::labels;
use super::table::table;
use super::words::ago;
use crate::client::Client;
use crate::compose::DATA_BYTES_MAX;

/// What to do with secrets or configs.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Make one out of the bytes of a file, at most 500 KiB.
    Create {
        /// Label it (repeat for several).
        #[arg(short, long, value_name = "KEY=VALUE")]
        label: Vec<String>,
        /// Its name.
        name: String,
        /// Where its bytes are; `-` is standard input.
        #[arg(value_name = "FILE|-")]
        file: PathBuf,
    },
    /// List them.
    #[command(visible_alias = "list")]
    Ls {
        /// Print ids only.
        #[arg(short, long)]
        quiet: bool,
        #[command(flatten)]
        filter: FilterArgs,
    },
    /// Show all that is known of them, as JSON; of secrets, never the bytes.
    Inspect {
        /// Write it for people.
        #[arg(long)]
        pretty: bool,
        /// Which, by id or name.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Remove those that no service uses.
    #[command(visible_alias = "remove")]
    Rm {
        /// Which, by id or name.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

/// Docker has a type for secrets and one for configs; both look as secrets do in JSON.
pub(super) async fn run(
    noun: Noun,
    command: DataCommand,
    client: &Client,
    output: &mut Output,
) -> anyhow::Result<ExitCode> {
    match command {
        DataCommand::Create { label, name, file } => {
            let labels = labels(&label);
            let spec = SecretSpec { labels: Some(labels), ..spec(name, &bytes(noun, &file)?) };
            output.line(&create(noun, &spec, client).await?)?;
            Ok(ExitCode::SUCCESS)
        }
        DataCommand::Ls { quiet, filter } => list(noun, quiet, &filter, client, output).await,
        DataCommand::Inspect { pretty: false, names } => objects::inspect(noun, &names, client, output).await,
        DataCommand::Inspect { pretty: true, names } => {
            for name in names {
                let shown = pretty(noun, &client.ask(&noun.path(&name)).await?)?;
                output.line(&shown)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        DataCommand::Rm { names } => objects::remove(noun, &names, client, output).await,
    }
}

fn bytes(noun: Noun, file: &Path) -> anyhow::Result<Vec<u8>> {
    let word = noun.word();
    let bytes = input::read(file, DATA_BYTES_MAX).with_context(|| format!("cannot create the {word}"))?;
    ensure!(!bytes.is_empty(), "cannot create the {word}: {} is empty, and it needs at least one byte", file.display());
    Ok(bytes)
}

/// Returns what the API is asked for, without labels.
pub(super) fn spec(name: String, bytes: &[u8]) -> SecretSpec {
    SecretSpec { name: Some(name), data: Some(STANDARD.encode(bytes)), ..SecretSpec::default() }
}

/// Returns the bytes of a config; none of what has none to show.
pub(super) fn decoded(spec: &SecretSpec) -> Option<Vec<u8>> {
    STANDARD.decode(spec.data.as_deref()?).ok()
}

/// Makes one and returns its id.
pub(super) async fn create(noun: Noun, spec: &SecretSpec, client: &Client) -> anyhow::Result<String> {
    let made: IdResponse = client.post(&format!("{}/create", noun.collection()), spec).await?;
    Ok(made.id)
}

async fn list(
    noun: Noun,
    quiet: bool,
    filter: &FilterArgs,
    client: &Client,
    output: &mut Output,
) -> anyhow::Result<ExitCode> {
    let mut found: Vec<Secret> = client.ask(&filter.path(noun)).await?;
    found.sort_by_cached_key(|data| data.spec.as_ref().and_then(|spec| spec.name.clone()));
    let id = |data: &Secret| data.id.clone().unwrap_or_default();
    let row = |data: &Secret| {
        let name = data.spec.as_ref().and_then(|spec| spec.name.clone()).unwrap_or_default();
        [id(data), name, ago(data.created_at.as_deref()), ago(data.updated_at.as_deref())]
    };
    let lines = match quiet {
        true => found.iter().map(id).collect(),
        false => table(["ID", "NAME", "CREATED", "UPDATED"], &found.iter().map(row).collect::<Vec<_>>()),
    };
    lines.iter().try_for_each(|line| output.line(line))?;
    Ok(ExitCode::SUCCESS)
}

/// Returns what people want to know of it; bytes only of a config, as they read.
fn pretty(noun: Noun, data: &Secret) -> anyhow::Result<String> {
    let spec = data.spec.clone().unwrap_or_default();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let mut shown = format!("ID:          {}\nName:        {}\n", text(&data.id), text(&spec.name));
    let mut labels: Vec<_> = spec.labels.iter().flatten().collect();
    labels.sort_unstable();
    if !labels.is_empty() {
        shown.push_str("Labels:\n");
    }
    for (key, value) in labels {
        writeln!(shown, " - {key}={value}")?;
    }
    write!(shown, "Created at:  {}\nUpdated at:  {}", text(&data.created_at), text(&data.updated_at))?;
    if noun == Noun::Config {
        let bytes = decoded(&spec);
        let bytes = bytes.context("the node does not have all bytes of the config yet: try again, or ask another")?;
        write!(shown, "\nData:\n{}", String::from_utf8_lossy(&bytes))?;
    }
    Ok(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_as_base64_and_only_a_configs_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(bytes(Noun::Secret, &file).unwrap_err().to_string().contains("is empty"));
        std::fs::write(&file, vec![7; DATA_BYTES_MAX + 1]).unwrap();
        assert!(format!("{:#}", bytes(Noun::Secret, &file).unwrap_err()).contains("more than 512000 bytes"));
        std::fs::write(&file, "hunter2").unwrap();
        let mut spec = spec("key".to_owned(), &bytes(Noun::Secret, &file).unwrap());
        assert_eq!(spec.data.as_deref(), Some("aHVudGVyMg=="));
        assert_eq!(decoded(&spec).unwrap(), b"hunter2");
        spec.labels = Some([("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())].into());
        let mut data = Secret { id: Some("x7".to_owned()), spec: Some(spec), ..Secret::default() };
        let shown = pretty(Noun::Config, &data).unwrap();
        assert!(shown.contains("x7") && shown.contains(" - a=1\n - b=2\n") && shown.ends_with("\nData:\nhunter2"));
        assert!(!pretty(Noun::Secret, &data).unwrap().contains("hunter2"));
        data.spec = None;
        assert!(pretty(Noun::Config, &data).unwrap_err().to_string().contains("try again"));
    }
}
