//! Filters: `{"name":["web"]}`, or the older `{"name":{"web":true}}`, as lists of Docker's API take them.
//!
//! Values of one filter are alternatives, but labels must all match, as in Docker.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Deserialize;

use super::error::{ApiError, shown};
use super::params::Params;

/// The filters of one request.
#[derive(Debug, Default)]
pub(super) struct Filters(BTreeMap<String, BTreeSet<String>>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    List(BTreeSet<String>),
    Map(BTreeMap<String, bool>),
}

impl Filters {
    /// Reads the filters of a request, and refuses those that are not in `known`.
    pub(super) fn read(params: &Params, known: &[&str]) -> Result<Self, ApiError> {
        params.text("filters").map_or_else(|| Ok(Self::default()), |text| Self::parse(text, known))
    }

    fn parse(text: &str, known: &[&str]) -> Result<Self, ApiError> {
        let parsed: BTreeMap<String, Option<Values>> = serde_json::from_str(text)
            .map_err(|error| ApiError::BadRequest(format!("invalid filters: {}", shown(&error.to_string()))))?;
        if let Some(name) = parsed.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(ApiError::BadRequest(format!("invalid filter '{}'", shown(name))));
        }
        let values = |values: Option<Values>| match values {
            None => BTreeSet::new(),
            Some(Values::List(list)) => list,
            Some(Values::Map(map)) => map.into_iter().filter_map(|(value, set)| set.then_some(value)).collect(),
        };
        Ok(Self(parsed.into_iter().map(|(name, given)| (name, values(given))).collect()))
    }

    /// Returns the values of a filter.
    pub(super) fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.get(name).into_iter().flatten().map(String::as_str)
    }

    /// Tells whether one value of the filter matches, or there is no such filter.
    pub(super) fn any(&self, name: &str, matches: impl Fn(&str) -> bool) -> bool {
        self.0.get(name).is_none_or(|values| values.is_empty() || values.iter().any(|value| matches(value)))
    }

    /// Tells whether all label filters with this name match: `key` asks for the key, `key=value` for both.
    pub(super) fn labels<'a>(&self, name: &str, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.values(name).all(|wanted| match wanted.split_once('=') {
            Some((key, value)) => label(key) == Some(value),
            None => label(wanted).is_some(),
        })
    }

    /// Returns the filter's one truth value, if it is given.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        let mut values = self.values(name).map(|value| match value {
            "1" | "true" => Ok(true),
            "0" | "false" => Ok(false),
            _ => Err(ApiError::BadRequest(format!("invalid filter '{name}={}'", shown(value)))),
        });
        values.next().transpose()
    }
}

/// Returns a lookup in labels, for [`Filters::labels`].
pub(super) fn in_map<'a>(labels: &'a HashMap<String, String>) -> impl Fn(&str) -> Option<&'a str> {
    |key| labels.get(key).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Filters, ApiError> {
        Filters::parse(text, &["name", "label"])
    }

    #[test]
    fn both_forms_of_filters_are_read() {
        for text in [r#"{"name":["web","db"]}"#, r#"{"name":{"web":true,"db":true,"no":false}}"#] {
            let filters = parse(text).unwrap();
            assert_eq!(filters.values("name").collect::<Vec<_>>(), ["db", "web"]);
            assert!(filters.any("name", |value| value == "web") && !filters.any("name", |value| value == "no"));
            assert!(filters.any("id", |_| false), "a filter that is not given matches all");
        }
    }

    #[test]
    fn all_labels_must_match() {
        let labels = HashMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), String::new())]);
        for (text, expected) in [
            (r#"{"label":["a"]}"#, true),
            (r#"{"label":["a=1","b"]}"#, true),
            (r#"{"label":["a=2"]}"#, false),
            (r#"{"label":["a=1","c"]}"#, false),
        ] {
            assert_eq!(parse(text).unwrap().labels("label", in_map(&labels)), expected, "{text}");
        }
    }

    #[test]
    fn unknown_and_malformed_filters_are_refused() {
        for (text, error) in [
            (r#"{"colour":["red"]}"#, "invalid filter 'colour'"),
            (r#"{"name":"#, "invalid filters"),
            (r#"{"name":[1]}"#, "invalid filters"),
            (r#"["name"]"#, "invalid filters"),
        ] {
            assert!(parse(text).unwrap_err().to_string().contains(error), "{text}");
        }
    }
}
