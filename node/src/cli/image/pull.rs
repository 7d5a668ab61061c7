//! `shoal image pull`: one bar for all layers.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context, bail};
use bollard::auth::DockerCredentials;
use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures::TryStreamExt;
use shoal_runtime::image::Reference;
use shoal_runtime::image::registry::find_login;

use super::super::login;
use super::super::output::Output;
use super::super::words::size;
use crate::client::Client;

/// Characters of the bar.
const BAR_CHARS: u64 = 30;

pub(super) async fn pull(image: &str, client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    let reference: Reference = image.parse().with_context(|| format!("{image:?} is no image"))?;
    let options = CreateImageOptionsBuilder::default().from_image(&reference.to_string()).build();
    let login = match login::file() {
        Some(file) => find_login(&file, reference.domain()).await?,
        None => None,
    };
    let credentials = login.map(|login| DockerCredentials {
        username: Some(login.username),
        password: Some(login.password),
        ..DockerCredentials::default()
    });
    output.progress(&format!("pulling {image}…"));
    let mut answers = std::pin::pin!(client.docker().create_image(Some(options), None, credentials));
    let mut layers = Layers::default();
    while let Some(answer) = answers.try_next().await.map_err(|error| client.error(error))? {
        if let Some(error) = answer.error_detail {
            bail!(error.message.unwrap_or_else(|| "the pull failed".to_owned()));
        }
        match layers.take(answer) {
            Some(line) => output.line(&line)?,
            None => output.progress(&layers.bar()),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// How far each layer is: bytes here, bytes in all.
#[derive(Default)]
struct Layers(BTreeMap<String, (u64, u64)>);

impl Layers {
    /// Takes one message; returns a line of results, if it is one.
    fn take(&mut self, info: CreateImageInfo) -> Option<String> {
        let Some(id) = info.id else { return info.status };
        let detail = info.progress_detail.unwrap_or_default();
        let number = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
        let layer = self.0.entry(id).or_default();
        if let (Some(current), Some(total)) = (number(detail.current), number(detail.total)) {
            *layer = (current, total);
        }
        None
    }

    fn bar(&self) -> String {
        let (done, total) = self.0.values().fold((0, 0), |(done, total), layer| (done + layer.0, total + layer.1));
        let full = done.min(total) * BAR_CHARS / total.max(1);
        let (filled, empty) = ("=".repeat(full as usize), " ".repeat((BAR_CHARS - full) as usize));
        format!("[{filled}>{empty}] {}/{} in {} layers", size(done), size(total), self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::ProgressDetail;

    use super::*;

    #[test]
    fn one_bar_stands_for_all_layers() {
        let mut layers = Layers::default();
        let info = |id: &str, current| CreateImageInfo {
            id: Some(id.to_owned()),
            progress_detail: Some(ProgressDetail { current: Some(current), total: Some(1000) }),
            ..CreateImageInfo::default()
        };
        assert_eq!(layers.take(info("a", 1000)), None);
        assert_eq!(layers.take(info("b", 0)), None);
        let half = format!("[{}>{}] 1kB/2kB in 2 layers", "=".repeat(15), " ".repeat(15));
        assert_eq!(layers.bar(), half);
        let status = CreateImageInfo { status: Some("Status: done".to_owned()), ..CreateImageInfo::default() };
        assert_eq!(layers.take(status).as_deref(), Some("Status: done"));
    }
}
