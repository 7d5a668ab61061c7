//! The file as a tree, read with the place of each value at hand, so that every complaint names it.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::FILE_BYTES_MAX;
use crate::cli::words::{parse_duration, parse_memory, parse_mode};

/// Deepest nesting of a file.
const DEPTH_MAX: usize = 32;
/// Most values in a file, aliases counted each time.
const NODES_MAX: usize = 100_000;

/// A Compose file cannot be used. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    /// It is not YAML, or too much of it.
    #[error("not a valid YAML file: {0}")]
    Yaml(String),
    /// A value is wrong, missing or not supported.
    #[error("{path}: {reason}")]
    Value {
        /// Where in the file, as in `services.web.deploy.replicas`.
        path: String,
        /// What is wrong with it, and what is expected.
        reason: String,
    },
}

/// Returns the complaint that what is at this place `reason`.
pub(super) fn wrong(at: &At<'_>, reason: impl Into<String>) -> ComposeError {
    let path = if at.path.is_empty() { "the file".to_owned() } else { at.path.clone() };
    ComposeError::Value { path, reason: reason.into() }
}

/// Reads YAML 1.2 with anchors, aliases and merge keys; numbers with a leading zero stay text, which file modes need.
pub(super) fn parse(text: &str) -> Result<Value, ComposeError> {
    if text.len() > FILE_BYTES_MAX {
        return Err(ComposeError::Yaml(format!("it has {} bytes, at most {FILE_BYTES_MAX} are read", text.len())));
    }
    let options = serde_saphyr::options! {
        leading_zero_numbers_as_strings: true,
        strict_booleans: true,
        budget: serde_saphyr::budget! { max_depth: DEPTH_MAX, max_nodes: NODES_MAX },
    };
    let value = serde_saphyr::from_str_with_options(text, options);
    let value: Value = value.map_err(|error| ComposeError::Yaml(error.to_string()))?;
    Ok(if value.is_null() { Value::Object(Map::new()) } else { value })
}

/// Lays `over` over `under`: maps by key, the lists that Docker concatenates one after the other, all else replaced.
pub(super) fn merge(under: &mut Value, over: Value, key: &str) {
    const CONCATENATED: [&str; 9] =
        ["ports", "expose", "external_links", "dns", "dns_search", "tmpfs", "volumes", "secrets", "configs"];
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                match under.get_mut(&key) {
                    Some(present) => merge(present, value, &key),
                    None => drop(under.insert(key, value)),
                }
            }
        }
        (Value::Array(under), Value::Array(over)) if CONCATENATED.contains(&key) => {
            under.extend(over);
        }
        (under, over) => *under = over,
    }
}

/// A value, and where it is.
#[derive(Clone, Debug)]
pub(super) struct At<'a> {
    path: String,
    value: &'a Value,
}

impl<'a> At<'a> {
    /// Returns the whole file.
    pub(super) fn root(value: &'a Value) -> Self {
        Self { path: String::new(), value }
    }

    fn child(&self, key: &str, value: &'a Value) -> Self {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Self { path, value }
    }

    /// Tells whether nothing is written here but the key.
    pub(super) fn is_null(&self) -> bool {
        self.value.is_null()
    }

    /// Tells whether this is a map.
    pub(super) fn is_map(&self) -> bool {
        self.value.is_object()
    }

    /// Tells whether this is a list.
    pub(super) fn is_list(&self) -> bool {
        self.value.is_array()
    }

    /// Returns the complaint that this key is not known.
    pub(super) fn unknown(&self) -> ComposeError {
        wrong(self, "is not supported: remove it, or put `x-` before its name")
    }

    /// Returns the entries of a map but for extensions (`x-…`); none if nothing is written.
    pub(super) fn entries(&self) -> Result<Vec<(&'a str, At<'a>)>, ComposeError> {
        match self.value {
            Value::Null => Ok(Vec::new()),
            Value::Object(map) => {
                let entries = map.iter().filter(|(key, _)| !key.starts_with("x-"));
                Ok(entries.map(|(key, value)| (key.as_str(), self.child(key, value))).collect())
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Err(wrong(self, "expected a map"))
            }
        }
    }

    /// Returns the items of a list; none if nothing is written.
    pub(super) fn items(&self) -> Result<Vec<At<'a>>, ComposeError> {
        match self.value {
            Value::Null => Ok(Vec::new()),
            Value::Array(list) => {
                let item = |(index, value)| Self { path: format!("{}[{index}]", self.path), value };
                Ok(list.iter().enumerate().map(item).collect())
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
                Err(wrong(self, "expected a list"))
            }
        }
    }

    /// Returns the items of a list, or the one value that stands for a list of one.
    pub(super) fn items_or_one(&self) -> Result<Vec<At<'a>>, ComposeError> {
        if self.is_list() || self.is_null() { self.items() } else { Ok(vec![self.clone()]) }
    }

    /// Returns a text; numbers and truth values as they read.
    pub(super) fn text(&self) -> Result<String, ComposeError> {
        match self.value {
            Value::String(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            Value::Bool(truth) => Ok(truth.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => Err(wrong(self, "expected a text")),
        }
    }

    /// Returns a list of texts, one text alone being a list of one.
    pub(super) fn texts(&self) -> Result<Vec<String>, ComposeError> {
        self.items_or_one()?.iter().map(At::text).collect()
    }

    /// Returns a truth value.
    pub(super) fn truth(&self) -> Result<bool, ComposeError> {
        match self.text()?.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" => Ok(true),
            "false" | "no" | "off" | "n" => Ok(false),
            _ => Err(wrong(self, "expected true or false")),
        }
    }

    /// Returns a whole number.
    pub(super) fn integer(&self) -> Result<i64, ComposeError> {
        self.text()?.parse().map_err(|_| wrong(self, "expected a whole number"))
    }

    /// Returns a number of things: a whole number that is not negative.
    pub(super) fn count(&self) -> Result<i64, ComposeError> {
        match self.integer()? {
            ..0 => Err(wrong(self, "expected a number that is not negative")),
            count => Ok(count),
        }
    }

    /// Returns a number with a fraction.
    pub(super) fn fraction(&self) -> Result<f64, ComposeError> {
        let number: Option<f64> = self.text()?.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0);
        number.ok_or_else(|| wrong(self, "expected a number such as 0.5"))
    }

    /// Returns an amount of memory in bytes.
    pub(super) fn bytes(&self) -> Result<i64, ComposeError> {
        parse_memory(&self.text()?).map_err(|reason| wrong(self, reason))
    }

    /// Returns a duration in nanoseconds, as Docker's API has it.
    pub(super) fn nanoseconds(&self) -> Result<i64, ComposeError> {
        let duration: Duration = parse_duration(&self.text()?).map_err(|reason| wrong(self, reason))?;
        i64::try_from(duration.as_nanos()).map_err(|_| wrong(self, "is too long"))
    }

    /// Returns the mode of a file: octal where it begins with a zero, as in YAML 1.1 and in Docker.
    pub(super) fn mode(&self) -> Result<u32, ComposeError> {
        parse_mode(&self.text()?).map_err(|reason| wrong(self, reason))
    }

    /// Returns a map of texts from a map, or from a list of `NAME=value`; a name without a value has `None`.
    pub(super) fn pairs(&self) -> Result<Vec<(String, Option<String>)>, ComposeError> {
        if !self.is_list() {
            let value = |at: &At<'_>| if at.is_null() { Ok(None) } else { at.text().map(Some) };
            return self.entries_of_names()?.iter().map(|(key, at)| Ok(((*key).to_owned(), value(at)?))).collect();
        }
        let split = |at: &At<'_>| {
            let text = at.text()?;
            Ok(match text.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (text, None),
            })
        };
        self.items()?.iter().map(split).collect()
    }

    /// Returns the same as a map, where a name without a value has an empty one.
    pub(super) fn labels(&self) -> Result<HashMap<String, String>, ComposeError> {
        Ok(self.pairs()?.into_iter().map(|(name, value)| (name, value.unwrap_or_default())).collect())
    }

    /// Returns the entries of a map whose keys are names of the user's own, `x-…` included.
    fn entries_of_names(&self) -> Result<Vec<(&'a str, At<'a>)>, ComposeError> {
        match self.value {
            Value::Object(map) => Ok(map.iter().map(|(key, value)| (key.as_str(), self.child(key, value))).collect()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => self.entries(),
        }
    }
}
