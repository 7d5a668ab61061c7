//! References: the names that people give to images, by Docker's grammar.
//!
//! Input: `[domain/]path[:tag][@digest]` as typed. Output: a [`Reference`], always normalised as Docker does it
//! (`web` means `docker.io/library/web:latest` and is shown as `web:latest`), so that equal names are equal values.
//! The grammar is that of the `distribution/reference` library which Docker uses.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::digest::{Digest, DigestError};

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DEFAULT_DOMAIN: &str = "index.docker.io";
const OFFICIAL_PREFIX: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// Domain and path together, as in Docker.
const NAME_BYTES_MAX: usize = 255;
const TAG_BYTES_MAX: usize = 128;
/// No valid reference is longer: name, tag, digest and two separators.
const REFERENCE_BYTES_MAX: usize = NAME_BYTES_MAX + 1 + TAG_BYTES_MAX + 1 + 71;

/// A normalised image reference. It has a tag, a digest, or both.
///
/// Displayed in Docker's familiar form; [`Reference::canonical`] and serde give the full form.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not an image reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing was given, or nothing before the tag or digest.
    #[error("the image name is empty, expected a name like web or example.org/team/web:1.2")]
    Empty,
    /// Longer than any valid reference.
    #[error("the image name is {bytes} bytes long, at most {REFERENCE_BYTES_MAX} are allowed")]
    TooLong {
        /// Length of what was given.
        bytes: usize,
    },
    /// Domain and path together are longer than 255 bytes.
    #[error("the repository name is {bytes} bytes long, at most {NAME_BYTES_MAX} are allowed")]
    NameTooLong {
        /// Length of domain and path.
        bytes: usize,
    },
    /// 64 hexadecimal digits would be mistaken for an image id.
    #[error("{0:?} cannot be an image name because it looks like an image id")]
    LooksLikeId(String),
    /// A capital letter in the path.
    #[error("repository name {0:?} must be lower case")]
    Uppercase(String),
    /// The part before the first slash is not `host[:port]`.
    #[error("{0:?} is not a registry, expected host or host:port")]
    Domain(String),
    /// A path component has characters that are not allowed.
    #[error(
        "{0:?} is not a repository name, expected lower-case letters and digits separated by one of . _ __ or dashes"
    )]
    Path(String),
    /// The tag has characters that are not allowed, or is longer than 128.
    #[error(
        "{0:?} is not a tag, expected at most 128 letters, digits, dots, dashes and underscores, the first not a dot or dash"
    )]
    Tag(String),
    /// The part after `@` is not a digest that we know.
    #[error("invalid digest after @ in the image name")]
    Digest(#[from] DigestError),
}

impl Reference {
    /// Returns the registry's host, with port if one was given.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Returns the repository's path at the registry, as in `library/web`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the tag.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest, if the reference pins one.
    pub const fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Returns the repository as people write it, without tag and digest, as in `web` or `example.org/web`.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return format!("{}/{}", self.domain, self.path);
        }
        match self.path.strip_prefix(OFFICIAL_PREFIX) {
            Some(short) if !short.contains('/') => short.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// Returns the full form, as in `docker.io/library/web:latest`.
    pub fn canonical(&self) -> String {
        self.with_name(&format!("{}/{}", self.domain, self.path))
    }

    /// Returns the same name and tag without the digest, or `None` if there is no tag.
    pub fn without_digest(&self) -> Option<Self> {
        self.tag.is_some().then(|| Self { digest: None, ..self.clone() })
    }

    fn with_name(&self, name: &str) -> String {
        let mut text = name.to_owned();
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.len() > REFERENCE_BYTES_MAX {
            return Err(ReferenceError::TooLong { bytes: text.len() });
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>()?)),
            None => (text, None),
        };
        let (name, tag) = split_tag(rest);
        if name.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if Digest::from_hex(name).is_ok() {
            return Err(ReferenceError::LooksLikeId(name.to_owned()));
        }
        let (domain, path) = split_domain(name);
        check_domain(&domain)?;
        check_path(&path)?;
        let bytes = domain.len() + 1 + path.len();
        if bytes > NAME_BYTES_MAX {
            return Err(ReferenceError::NameTooLong { bytes });
        }
        let tag = match (tag, digest) {
            (Some(tag), _) => Some(check_tag(tag)?.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some(DEFAULT_TAG.to_owned()),
        };
        Ok(Self { domain, path, tag, digest })
    }
}

/// A colon after the last slash starts a tag; before it, a port.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rfind(':') {
        Some(colon) if !text[colon..].contains('/') => (&text[..colon], Some(&text[colon + 1..])),
        _ => (text, None),
    }
}

/// The part before the first slash is a registry only if it looks like a host: a dot, a colon, a capital, or
/// `localhost`.
fn split_domain(name: &str) -> (String, String) {
    let (domain, path) = match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.chars().any(char::is_uppercase) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_DOMAIN, name),
    };
    let domain = if domain == LEGACY_DEFAULT_DOMAIN { DEFAULT_DOMAIN } else { domain };
    let official = domain == DEFAULT_DOMAIN && !path.contains('/');
    (domain.to_owned(), if official { format!("{OFFICIAL_PREFIX}{path}") } else { path.to_owned() })
}

fn check_domain(domain: &str) -> Result<(), ReferenceError> {
    let wrong = || ReferenceError::Domain(domain.to_owned());
    let (host, port) = match domain.rfind(':') {
        Some(colon) if !domain[colon..].contains(']') => (&domain[..colon], Some(&domain[colon + 1..])),
        _ => (domain, None),
    };
    if port.is_some_and(|port| port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(wrong());
    }
    let valid = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|address| {
            !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':')
        }),
        None => host.split('.').all(is_domain_component),
    };
    if valid { Ok(()) } else { Err(wrong()) }
}

fn is_domain_component(component: &str) -> bool {
    !component.is_empty()
        && !component.starts_with('-')
        && !component.ends_with('-')
        && component.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn check_path(path: &str) -> Result<(), ReferenceError> {
    let shown = path.strip_prefix(OFFICIAL_PREFIX).unwrap_or(path);
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(ReferenceError::Uppercase(shown.to_owned()));
    }
    if path.split('/').all(is_path_component) { Ok(()) } else { Err(ReferenceError::Path(shown.to_owned())) }
}

/// Runs of letters and digits, joined by `.`, `_`, `__` or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let mut at = 0;
    loop {
        let word = bytes[at..].iter().take_while(|byte| is_word(**byte)).count();
        if word == 0 {
            return false;
        }
        at += word;
        let separator = bytes[at..].iter().take_while(|byte| !is_word(**byte)).count();
        match &bytes[at..at + separator] {
            [] => return true,
            b"." | b"_" | b"__" => {}
            dashes if dashes.iter().all(|byte| *byte == b'-') => {}
            _ => return false,
        }
        at += separator;
    }
}

fn check_tag(tag: &str) -> Result<&str, ReferenceError> {
    let valid = tag.len() <= TAG_BYTES_MAX
        && tag.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    if valid { Ok(tag) } else { Err(ReferenceError::Tag(tag.to_owned())) }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_name(&self.familiar_name()))
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.canonical())
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.canonical())
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn parse(text: &str) -> Reference {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn names_are_normalised_and_shown_as_docker_does() {
        let pinned = format!("web@sha256:{HEX}");
        let both = format!("web:1@sha256:{HEX}");
        for (typed, canonical, shown) in [
            ("web", "docker.io/library/web:latest", "web:latest"),
            ("web:1.2", "docker.io/library/web:1.2", "web:1.2"),
            ("library/web", "docker.io/library/web:latest", "web:latest"),
            ("team/web", "docker.io/team/web:latest", "team/web:latest"),
            ("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
            ("docker.io/web", "docker.io/library/web:latest", "web:latest"),
            ("index.docker.io/web:x", "docker.io/library/web:x", "web:x"),
            ("localhost/web", "localhost/web:latest", "localhost/web:latest"),
            ("localhost:5000/web", "localhost:5000/web:latest", "localhost:5000/web:latest"),
            ("Example.org/a__b--c.d_e", "Example.org/a__b--c.d_e:latest", "Example.org/a__b--c.d_e:latest"),
            ("[fd00::1]:5000/web:2", "[fd00::1]:5000/web:2", "[fd00::1]:5000/web:2"),
            (&pinned, &format!("docker.io/library/{pinned}"), &pinned),
            (&both, &format!("docker.io/library/{both}"), &both),
        ] {
            let reference = parse(typed);
            assert_eq!(reference.canonical(), canonical);
            assert_eq!(reference.to_string(), shown);
            assert_eq!(parse(shown), reference);
            assert_eq!(parse(canonical), reference);
            assert_eq!(
                serde_json::from_str::<Reference>(&serde_json::to_string(&reference).unwrap()).unwrap(),
                reference
            );
        }
    }

    #[test]
    fn parts_are_found() {
        let reference = parse("example.org:80/a/b:v1");
        assert_eq!(
            (reference.domain(), reference.path(), reference.tag(), reference.digest()),
            ("example.org:80", "a/b", Some("v1"), None)
        );
        let pinned = parse(&format!("web:1@sha256:{HEX}"));
        assert_eq!(pinned.without_digest(), Some(parse("web:1")));
        assert_eq!(parse(&format!("web@sha256:{HEX}")).without_digest(), None);
    }

    #[test]
    fn what_is_not_a_reference_is_refused() {
        type Check = fn(&ReferenceError) -> bool;
        let long_name = format!("a/{}", "b".repeat(254));
        let long_tag = format!("web:{}", "t".repeat(129));
        let too_long = "x".repeat(5000);
        let cases: [(&str, Check); 21] = [
            ("", |e| matches!(e, ReferenceError::Empty)),
            (":tag", |e| matches!(e, ReferenceError::Empty)),
            (HEX, |e| matches!(e, ReferenceError::LooksLikeId(_))),
            ("Web", |e| matches!(e, ReferenceError::Uppercase(_))),
            ("team/Web", |e| matches!(e, ReferenceError::Uppercase(_))),
            ("web:", |e| matches!(e, ReferenceError::Tag(_))),
            ("web:-x", |e| matches!(e, ReferenceError::Tag(_))),
            ("web:a b", |e| matches!(e, ReferenceError::Tag(_))),
            (&long_tag, |e| matches!(e, ReferenceError::Tag(_))),
            ("-web", |e| matches!(e, ReferenceError::Path(_))),
            ("web-", |e| matches!(e, ReferenceError::Path(_))),
            ("a..b", |e| matches!(e, ReferenceError::Path(_))),
            ("a___b", |e| matches!(e, ReferenceError::Path(_))),
            ("a//b", |e| matches!(e, ReferenceError::Path(_))),
            ("../b", |e| matches!(e, ReferenceError::Domain(_))),
            ("/web", |e| matches!(e, ReferenceError::Path(_))),
            ("wéb", |e| matches!(e, ReferenceError::Path(_))),
            ("a.b:x/web", |e| matches!(e, ReferenceError::Domain(_))),
            ("web@sha256:00", |e| matches!(e, ReferenceError::Digest(_))),
            (&long_name, |e| matches!(e, ReferenceError::NameTooLong { .. })),
            (&too_long, |e| matches!(e, ReferenceError::TooLong { .. })),
        ];
        for (text, check) in cases {
            let error = text.parse::<Reference>().unwrap_err();
            assert!(check(&error), "{text}: {error:?}");
        }
    }
}
