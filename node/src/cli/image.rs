//! `shoal image`: this node's images, from which the other nodes take theirs.

mod pull;

use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use bollard::models::{ImageDeleteResponseItem, ImageSummary};
use bollard::query_parameters::{
    ImportImageOptionsBuilder, ListImagesOptions, PruneImagesOptionsBuilder, RemoveImageOptionsBuilder,
    TagImageOptionsBuilder,
};
use clap::Subcommand;
use futures::TryStreamExt;
use shoal_runtime::image::Reference;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_util::io::ReaderStream;

use super::output::Output;
use super::table::table;
use super::words::{ago, short_id, size};
use crate::api::time::rfc3339;
use crate::client::Client;

/// Bytes read at once from an archive.
const CHUNK_BYTES: usize = 256 * 1024;
/// Time between two looks at how far a load is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// What to do with images.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Load an archive made by `docker save`, or an OCI layout as a tar, perhaps gzipped.
    Load {
        /// The archive, or `-` for standard input.
        #[arg(value_name = "FILE|-")]
        file: PathBuf,
    },
    /// Fetch an image from its registry, or from the nodes that have it.
    Pull {
        /// Which, by name, with a tag or a digest.
        image: String,
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
    /// Give an image one more name.
    Tag {
        /// Which, by name or id.
        image: String,
        /// The new name.
        name: String,
    },
    /// Write images to an archive, as `docker save` does.
    Save {
        /// Write to this file [default: standard output].
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Which, by name or id.
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Remove images without a name, and what no image needs.
    Prune {
        /// Remove all images that no service wants.
        #[arg(short, long)]
        all: bool,
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
        ImageCommand::Pull { image } => pull::pull(&image, client, output).await,
        ImageCommand::Tag { image, name } => tag(&image, &name, client).await,
        ImageCommand::Save { output: file, images } => save(file.as_deref(), &images, client).await,
        ImageCommand::Prune { all } => prune(all, client, output).await,
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
    let total_bytes = std::fs::metadata(file).ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
    let sent_bytes = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&sent_bytes);
    let stream = ReaderStream::with_capacity(archive, CHUNK_BYTES).inspect_ok(move |chunk| {
        counter.fetch_add(chunk.len() as u64, Ordering::Relaxed);
    });
    let options = ImportImageOptionsBuilder::default().quiet(true).build();
    let mut answers = std::pin::pin!(client.docker().import_image_stream(options, stream, None));
    let mut tick = tokio::time::interval(PROGRESS_INTERVAL);
    loop {
        let answer = tokio::select! {
            answer = answers.try_next() => answer.map_err(|error| client.error(error))?,
            _ = tick.tick() => {
                let sent = size(sent_bytes.load(Ordering::Relaxed));
                let total = total_bytes.map_or_else(String::new, |bytes| format!("/{}", size(bytes)));
                output.progress(&format!("loading {}… {sent}{total}", file.display()));
                continue;
            }
        };
        match answer {
            Some(answer) => answer.stream.map_or(Ok(()), |text| output.line(text.trim_end()))?,
            None => return Ok(ExitCode::SUCCESS),
        }
    }
}

async fn tag(image: &str, name: &str, client: &Client) -> anyhow::Result<ExitCode> {
    let reference: Reference = name.parse().with_context(|| format!("cannot name an image {name:?}"))?;
    let (repository, tag) = (reference.familiar_name(), reference.tag().unwrap_or_default());
    let options = TagImageOptionsBuilder::default().repo(&repository).tag(tag).build();
    client.docker().tag_image(image, Some(options)).await.map_err(|error| client.error(error))?;
    Ok(ExitCode::SUCCESS)
}

async fn save(file: Option<&Path>, images: &[String], client: &Client) -> anyhow::Result<ExitCode> {
    let names: Vec<&str> = images.iter().map(String::as_str).collect();
    let mut archive = std::pin::pin!(client.docker().export_images(&names));
    let mut writer: Box<dyn AsyncWrite + Send + Unpin> = match file {
        Some(file) => {
            Box::new(tokio::fs::File::create(file).await.with_context(|| format!("cannot write {}", file.display()))?)
        }
        None if std::io::stdout().is_terminal() => {
            bail!("an archive is no text: name a file with --output, or pipe it")
        }
        None => Box::new(tokio::io::stdout()),
    };
    while let Some(chunk) = archive.try_next().await.map_err(|error| client.error(error))? {
        writer.write_all(&chunk).await?;
    }
    writer.flush().await?;
    Ok(ExitCode::SUCCESS)
}

async fn prune(all: bool, client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    let filters = HashMap::from([("dangling".to_owned(), vec![(!all).to_string()])]);
    let options = PruneImagesOptionsBuilder::default().filters(&filters).build();
    let pruned = client.docker().prune_images(Some(options)).await.map_err(|error| client.error(error))?;
    for item in pruned.images_deleted.into_iter().flatten() {
        show_removed(item, output)?;
    }
    let bytes = u64::try_from(pruned.space_reclaimed.unwrap_or_default()).unwrap_or_default();
    output.line(&format!("Total reclaimed space: {}", size(bytes)))?;
    Ok(ExitCode::SUCCESS)
}

fn show_removed(item: ImageDeleteResponseItem, output: &mut Output) -> std::io::Result<()> {
    if let Some(name) = item.untagged {
        output.line(&format!("Untagged: {name}"))?;
    }
    item.deleted.map_or(Ok(()), |digest| output.line(&format!("Deleted: {digest}")))
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
            show_removed(item, output)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
