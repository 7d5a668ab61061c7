//! What the commands for networks, secrets, configs and stacks have in common: where the API has the objects, which of
//! them to list, and how several are shown or removed.

use std::collections::HashMap;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::output::Output;
use crate::api::status::Stored;
use crate::client::{Client, encoded};

/// A kind of object, in the order in which a stack makes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Noun {
    Network,
    Secret,
    Config,
    Service,
}

impl Noun {
    /// Returns what people call it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Secret => "secret",
            Self::Config => "config",
            Self::Service => "service",
        }
    }

    /// Returns the path below which the API has all of them.
    pub(super) fn collection(self) -> &'static str {
        match self {
            Self::Network => "/networks",
            Self::Secret => "/secrets",
            Self::Config => "/configs",
            Self::Service => "/services",
        }
    }

    /// Returns the path of one of them, by id or name.
    pub(super) fn path(self, name: &str) -> String {
        format!("{}/{}", self.collection(), encoded(name))
    }
}

/// Which objects to list.
#[derive(Clone, Debug, Default, Args)]
pub struct FilterArgs {
    /// List only those with this label, name or id, such as label=tier=web (repeat for several).
    #[arg(short, long = "filter", value_name = "KEY=VALUE", value_parser = filter)]
    filters: Vec<(String, String)>,
}

fn filter(text: &str) -> Result<(String, String), String> {
    let split = text.split_once('=').filter(|(key, _)| !key.is_empty());
    let (key, value) = split.ok_or_else(|| format!("{text:?} is no filter, expected one like label=tier=web"))?;
    Ok((key.to_owned(), value.to_owned()))
}

impl FilterArgs {
    /// Returns the filter by this value of a label.
    pub(super) fn label(label: &str, value: &str) -> Self {
        Self { filters: vec![("label".to_owned(), format!("{label}={value}"))] }
    }

    /// Returns the filter by any of these whole names.
    pub(super) fn names<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        Self { filters: names.map(|name| ("names".to_owned(), name.to_owned())).collect() }
    }

    /// Tells whether nothing is left out.
    pub(super) fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// Returns the values by key, as the API has them.
    pub(super) fn map(&self) -> HashMap<String, Vec<String>> {
        let mut map: HashMap<String, Vec<String>> = HashMap::new();
        for (key, value) in &self.filters {
            map.entry(key.clone()).or_default().push(value.clone());
        }
        map
    }

    /// Returns the path that lists what is left.
    pub(super) fn path(&self, noun: Noun) -> String {
        match self.is_empty() {
            true => noun.collection().to_owned(),
            false => format!("{}?filters={}", noun.collection(), encoded(&serde_json::json!(self.map()).to_string())),
        }
    }
}

/// What goes wrong where the rest is done all the same: each failure but the last is told at once.
#[derive(Debug, Default)]
pub(super) struct Failures(Option<anyhow::Error>);

impl Failures {
    /// Takes note of one more.
    pub(super) fn add(&mut self, error: impl Into<anyhow::Error>, output: &mut Output) {
        if let Some(earlier) = self.0.replace(error.into()) {
            output.note(&format!("shoal: {earlier:#}"));
        }
    }

    /// Returns the last failure, or else success.
    pub(super) fn done(self) -> anyhow::Result<ExitCode> {
        self.0.map_or(Ok(ExitCode::SUCCESS), Err)
    }
}

/// Shows all that is known of objects, as JSON.
pub(super) async fn inspect(
    noun: Noun,
    names: &[String],
    client: &Client,
    output: &mut Output,
) -> anyhow::Result<ExitCode> {
    let mut found = Vec::new();
    for name in names {
        found.push(client.ask::<Value>(&noun.path(name)).await?);
    }
    output.json(&found)?;
    Ok(ExitCode::SUCCESS)
}

/// Removes objects, and goes on with the others where one is refused.
pub(super) async fn remove(
    noun: Noun,
    names: &[String],
    client: &Client,
    output: &mut Output,
) -> anyhow::Result<ExitCode> {
    let mut failures = Failures::default();
    for name in names {
        match client.discard(&noun.path(name)).await {
            Ok(()) => output.line(name)?,
            Err(error) => failures.add(error, output),
        }
    }
    failures.done()
}

/// The same for what is answered with how the write is stored, below this path.
pub(super) async fn remove_stored(
    path: &str,
    names: &[String],
    client: &Client,
    output: &mut Output,
) -> anyhow::Result<ExitCode> {
    let mut failures = Failures::default();
    for name in names {
        match client.delete::<Stored>(&format!("{path}/{}", encoded(name))).await {
            Ok(stored) => {
                output.line(name)?;
                output.stored(&stored);
            }
            Err(error) => failures.add(error, output),
        }
    }
    failures.done()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_of_one_key_are_alternatives_and_labels_keep_their_equals_sign() {
        let filters = ["label=a=b", "name=x", "name=y"].iter().map(|text| filter(text).unwrap()).collect();
        let filters = FilterArgs { filters };
        assert_eq!(filters.map()["label"], ["a=b"]);
        assert_eq!(filters.map()["name"], ["x", "y"]);
        assert!(filters.path(Noun::Secret).starts_with("/secrets?filters=%7B%22"));
        assert_eq!(FilterArgs::default().path(Noun::Network), "/networks");
        assert_eq!(FilterArgs::names(["a", "b"].into_iter()).map()["names"], ["a", "b"]);
        assert!(filter("label").is_err() && filter("=a").is_err());
    }

    #[test]
    fn the_last_failure_is_the_commands() {
        let mut failures = Failures::default();
        failures.add(anyhow::anyhow!("one"), &mut Output::new());
        failures.add(anyhow::anyhow!("two"), &mut Output::new());
        assert_eq!(failures.done().unwrap_err().to_string(), "two");
        assert_eq!(Failures::default().done().unwrap(), ExitCode::SUCCESS);
    }
}
