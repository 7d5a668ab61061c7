//! Constraints and preferences of placement, in Docker's syntax, as types that cannot be wrong.
//!
//! Input: text such as `node.labels.disk==ssd` or `spread=node.labels.zone`. Output: what of a node is compared with
//! what. Values are compared without regard to case, as Swarm does.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::limits::CONSTRAINT_BYTES_MAX;

/// What of a node a constraint or a preference looks at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attribute {
    /// `node.id`: as the node's id is shown.
    Id,
    /// `node.hostname`: the node's name.
    Hostname,
    /// `node.role`: `manager` or `worker`.
    Role,
    /// `node.platform.os`.
    Os,
    /// `node.platform.arch`; `x86_64` and `amd64` are one, and so are `aarch64` and `arm64`.
    Architecture,
    /// `node.labels.…`: what operators wrote on the node.
    NodeLabel(String),
    /// `engine.labels.…`: what the node was started with.
    EngineLabel(String),
}

/// One condition that a node must meet to run a service's tasks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Constraint {
    /// What is looked at.
    pub attribute: Attribute,
    /// Whether it must equal the value, or must not.
    pub equal: bool,
    /// The value, as it was written.
    pub value: String,
}

/// Over the values of which label a service's tasks are spread evenly.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Spread(Attribute);

/// A constraint or preference cannot be understood. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// It holds neither `==` nor `!=`.
    #[error(
        "constraint \"{0}\" compares nothing: write an attribute, == or !=, and a value, as in node.labels.disk==ssd"
    )]
    Operator(String),
    /// What it looks at is not known.
    #[error(
        "\"{0}\" is nothing that placement can look at: use node.id, node.hostname, node.role, node.platform.os, \
         node.platform.arch, node.labels.<name> or engine.labels.<name>"
    )]
    Attribute(String),
    /// The value is empty or has characters that no value has.
    #[error("the value in constraint \"{0}\" is not valid: use letters, digits and -_.:+/ and inner spaces")]
    Value(String),
    /// A role that does not exist.
    #[error("constraint \"{0}\" names no role: a node is a manager or a worker")]
    Role(String),
    /// It is too long.
    #[error("a constraint or preference has {0} bytes, more than the {CONSTRAINT_BYTES_MAX} allowed")]
    TooLong(usize),
    /// A preference other than spreading over a label.
    #[error("preference \"{0}\" is not known: use spread=node.labels.<name> or spread=engine.labels.<name>")]
    Preference(String),
}

impl Attribute {
    fn parse(text: &str) -> Option<Self> {
        let label = |prefix: &str| {
            let name = text.get(..prefix.len()).filter(|start| start.eq_ignore_ascii_case(prefix));
            name.map(|_| &text[prefix.len()..]).filter(|name| is_label(name)).map(ToString::to_string)
        };
        match text.to_ascii_lowercase().as_str() {
            "node.id" => Some(Self::Id),
            "node.hostname" => Some(Self::Hostname),
            "node.role" => Some(Self::Role),
            "node.platform.os" => Some(Self::Os),
            "node.platform.arch" => Some(Self::Architecture),
            _ => label("node.labels.").map(Self::NodeLabel).or_else(|| label("engine.labels.").map(Self::EngineLabel)),
        }
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id => f.write_str("node.id"),
            Self::Hostname => f.write_str("node.hostname"),
            Self::Role => f.write_str("node.role"),
            Self::Os => f.write_str("node.platform.os"),
            Self::Architecture => f.write_str("node.platform.arch"),
            Self::NodeLabel(name) => write!(f, "node.labels.{name}"),
            Self::EngineLabel(name) => write!(f, "engine.labels.{name}"),
        }
    }
}

impl Constraint {
    /// Returns the constraint that only this node meets.
    pub fn node(node: &NodeId) -> Self {
        Self { attribute: Attribute::Id, equal: true, value: node.to_string() }
    }

    /// Parses a constraint as `docker service create --constraint` takes it.
    pub fn parse(text: &str) -> Result<Self, ConstraintError> {
        bounded(text)?;
        let (at, equal) = match (text.find("=="), text.find("!=")) {
            (Some(equal), Some(unequal)) => (equal.min(unequal), equal < unequal),
            (Some(equal), None) => (equal, true),
            (None, Some(unequal)) => (unequal, false),
            (None, None) => return Err(ConstraintError::Operator(text.to_string())),
        };
        let (name, value) = (text[..at].trim(), text[at + 2..].trim());
        let attribute = Attribute::parse(name).ok_or_else(|| ConstraintError::Attribute(name.to_string()))?;
        if !is_value(value) {
            return Err(ConstraintError::Value(text.to_string()));
        }
        if attribute == Attribute::Role && !["manager", "worker"].iter().any(|role| role.eq_ignore_ascii_case(value)) {
            return Err(ConstraintError::Role(text.to_string()));
        }
        Ok(Self { attribute, equal, value: value.to_string() })
    }
}

impl Spread {
    /// Parses a preference as `docker service create --placement-pref` takes it, or the bare label.
    pub fn parse(text: &str) -> Result<Self, ConstraintError> {
        bounded(text)?;
        let refused = || ConstraintError::Preference(text.to_string());
        let label = match text.split_once('=') {
            Some((strategy, label)) if strategy.trim().eq_ignore_ascii_case("spread") => label.trim(),
            Some(_) => return Err(refused()),
            None => text.trim(),
        };
        match Attribute::parse(label) {
            Some(attribute @ (Attribute::NodeLabel(_) | Attribute::EngineLabel(_))) => Ok(Self(attribute)),
            Some(Attribute::Id | Attribute::Hostname | Attribute::Role | Attribute::Os | Attribute::Architecture)
            | None => Err(refused()),
        }
    }

    /// Returns the label.
    pub fn attribute(&self) -> &Attribute {
        &self.0
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.attribute, if self.equal { "==" } else { "!=" }, self.value)
    }
}

impl TryFrom<String> for Constraint {
    type Error = ConstraintError;

    fn try_from(text: String) -> Result<Self, ConstraintError> {
        Self::parse(&text)
    }
}

impl From<Constraint> for String {
    fn from(constraint: Constraint) -> Self {
        constraint.to_string()
    }
}

impl TryFrom<String> for Spread {
    type Error = ConstraintError;

    fn try_from(text: String) -> Result<Self, ConstraintError> {
        Self::parse(&text)
    }
}

impl From<Spread> for String {
    fn from(spread: Spread) -> Self {
        format!("{}", spread.0)
    }
}

fn bounded(text: &str) -> Result<(), ConstraintError> {
    if text.len() > CONSTRAINT_BYTES_MAX { Err(ConstraintError::TooLong(text.len())) } else { Ok(()) }
}

fn is_label(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte))
}

/// Swarm's rule: letters and digits, and `:-_+./` and spaces between them.
fn is_value(value: &str) -> bool {
    let ends = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || b"_".contains(byte));
    let bytes = value.as_bytes();
    ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b":-_+./ ".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints_are_read_as_docker_writes_them() {
        for (text, shown) in [
            ("node.labels.disk==ssd", "node.labels.disk==ssd"),
            (" node.hostname != n-1 ", "node.hostname!=n-1"),
            ("NODE.ROLE == Manager", "node.role==Manager"),
            ("node.platform.arch==x86_64", "node.platform.arch==x86_64"),
            ("engine.labels.com.example/rack==a:1", "engine.labels.com.example/rack==a:1"),
            ("node.labels.a!=b==c", ""),
            ("node.id==0abc", "node.id==0abc"),
        ] {
            let parsed = Constraint::parse(text);
            assert_eq!(parsed.map(|constraint| constraint.to_string()).unwrap_or_default(), shown, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_understood_says_what_to_write() {
        let error = |text: &str| Constraint::parse(text).map_err(|error| error.to_string()).unwrap_err();
        assert!(error("node.labels.disk=ssd").contains("write an attribute, == or !="));
        assert!(error("node.colour==red").contains("use node.id"));
        assert!(error("node.labels.==red").contains("use node.id"));
        assert!(error("node.role==chief").contains("a manager or a worker"));
        assert!(error("node.labels.a==").contains("not valid"));
        assert!(error(&"x".repeat(CONSTRAINT_BYTES_MAX + 1)).contains("more than"));
        let error = |text: &str| Spread::parse(text).map_err(|error| error.to_string()).unwrap_err();
        assert!(error("binpack=node.labels.zone").contains("spread=node.labels"));
        assert!(error("spread=node.hostname").contains("spread=node.labels"));
    }

    #[test]
    fn a_preference_is_a_label() {
        let spread = Spread::parse("spread=node.labels.zone");
        assert_eq!(spread.map(String::from).as_deref(), Ok("node.labels.zone"));
        assert_eq!(Spread::parse("engine.labels.rack").map(String::from).as_deref(), Ok("engine.labels.rack"));
    }
}
