//! `shoal image`: this node's images, from which the other nodes take theirs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use bollard::models::ImageSummary;
use bollard::query_parameters::{ImportImageOptionsBuilder, ListImagesOptions, RemoveImageOptionsBuilder};
use clap::Subcommand;
use futures::TryStreamExt;
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use super::output::Output;
use super::table::table;
use super::words::{ago, short_id, size};
use crate::api::time::rfc3339;
use crate::client::Client;

/// Bytes read at once from an archive.
const CHUNK_BYTES: usize = 256 * 1024;

/// What to do with images.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Load an archive made by `docker save`, or an OCI layout as a tar, perhaps gzipped.
    Load {
        /// The archive, or `-` for standard input.
        #[arg(value_name = "FILE|-")]
        file: PathBuf,
    },
    /// List the images of this node.
    #[command(visible_alias = "list")]
    Ls,
    /// Show all that is known of images, as JSON.
    Inspect {
        /// Which, by name or id.
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Take a name away from an image, and remove it from this node with its last name.
    Rm {
        /// Remove an image even if a task on this node runs it.
        #[arg(short, long)]
        force: bool,
        /// Which, by name or id.
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
}

pub(super) async fn run(command: ImageCommand, client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    match command {
        ImageCommand::Load { file } => load(&file, client, output).await,
        ImageCommand::Ls => list(client, output).await,
        ImageCommand::Inspect { images } => inspect(&images, client, output).await,
        ImageCommand::Rm { force, images } => remove(&images, force, client, output).await,
    }
}

async fn load(file: &Path, client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    let archive: Box<dyn AsyncRead + Send + Unpin> = if file == Path::new("-") {
        Box::new(tokio::io::stdin())
    } else {
        let opened = tokio::fs::File::open(file).await.with_context(|| format!("cannot open {}", file.display()))?;
        if opened.metadata().await.is_ok_and(|metadata| metadata.is_dir()) {
            bail!("{} is a directory: pack it with `tar -C {0} -cf layout.tar .` and load that", file.display());
        }
        Box::new(opened)
    };
    output.progress(&format!("loading {}…", file.display()));
    let stream = ReaderStream::with_capacity(archive, CHUNK_BYTES);
    let options = ImportImageOptionsBuilder::default().quiet(true).build();
    let mut answers = std::pin::pin!(client.docker().import_image_stream(options, stream, None));
    while let Some(answer) = answers.try_next().await.map_err(|error| client.error(error))? {
        if let Some(text) = answer.stream {
            output.line(text.trim_end())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    let images = client.docker().list_images(None::<ListImagesOptions>).await.map_err(|error| client.error(error))?;
    let rows: Vec<_> = images.iter().flat_map(rows).collect();
    for line in table(["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"], &rows) {
        output.line(&line)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns a row for each name, or one for an image without any.
fn rows(image: &ImageSummary) -> Vec<[String; 5]> {
    let created = u64::try_from(image.created).ok().filter(|seconds| *seconds > 0);
    let created =
        created.map_or_else(|| "N/A".to_owned(), |seconds| ago(Some(&rfc3339(seconds.saturating_mul(1_000)))));
    let bytes = size(u64::try_from(image.size).unwrap_or_default());
    let row = |repository: &str, tag: &str| {
        [repository.to_owned(), tag.to_owned(), short_id(&image.id), created.clone(), bytes.clone()]
    };
    if image.repo_tags.is_empty() {
        let repository = image.repo_digests.first().and_then(|name| Some(name.split_once('@')?.0));
        return vec![row(repository.unwrap_or("<none>"), "<none>")];
    }
    let tags = image.repo_tags.iter().map(|name| name.rsplit_once(':').unwrap_or((name, "<none>")));
    tags.map(|(repository, tag)| row(repository, tag)).collect()
}

async fn inspect(names: &[String], client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    let mut images = Vec::new();
    for name in names {
        images.push(client.docker().inspect_image(name).await.map_err(|error| client.error(error))?);
    }
    output.json(&images)?;
    Ok(ExitCode::SUCCESS)
}

async fn remove(names: &[String], force: bool, client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    for name in names {
        let options = RemoveImageOptionsBuilder::default().force(force).build();
        let removed = client.docker().remove_image(name, Some(options), None).await;
        for item in removed.map_err(|error| client.error(error))? {
            if let Some(name) = item.untagged {
                output.line(&format!("Untagged: {name}"))?;
            }
            if let Some(digest) = item.deleted {
                output.line(&format!("Deleted: {digest}"))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
