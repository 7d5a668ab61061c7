//! The name of a stack.

use std::fmt;
use std::str::FromStr;

/// Longest name, so that a service's name fits behind it into one label of DNS.
const BYTES_MAX: usize = 61;

/// A stack's name: letters, digits, `-` and `_`, beginning with a letter or digit, as it begins names of services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackName(String);

impl StackName {
    /// Returns the name as it was written.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for StackName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if begins && text.len() <= BYTES_MAX && text.bytes().all(inner) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "use letters, digits, \"-\" and \"_\", begin with a letter or digit, at most {BYTES_MAX} characters"
        ))
    }
}

impl fmt::Display for StackName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_names_of_services_may_begin_with() {
        for good in ["shop", "Shop-2", "a_b", "7", &"x".repeat(BYTES_MAX)] {
            assert_eq!(good.parse::<StackName>().unwrap().as_str(), good);
        }
        for bad in ["", " ", "-a", "_a", "a b", "a.b", "a/b", "é", &"x".repeat(BYTES_MAX + 1)] {
            assert!(bad.parse::<StackName>().is_err(), "{bad:?}");
        }
    }
}
