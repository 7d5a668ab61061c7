//! The keys that networks, volumes, secrets and configs have in common: what one is called, and whether it is there already.

use super::Surroundings;
use super::tree::{At, ComposeError};

/// What the keys `name` and `external` say.
#[derive(Debug, Default)]
pub(super) struct Naming {
    own: Option<String>,
    /// Whether it must be there already.
    pub(super) external: bool,
}

impl Naming {
    /// Takes one of the two keys; tells whether it was one. `external` may also be a map with the name, as it was long ago.
    pub(super) fn take(&mut self, key: &str, at: &At<'_>) -> Result<bool, ComposeError> {
        match key {
            "name" => self.own = Some(at.text()?),
            "external" if at.is_map() => {
                self.external = true;
                for (key, at) in at.entries()? {
                    match key {
                        "name" => self.own = Some(at.text()?),
                        _ => return Err(at.unknown()),
                    }
                }
            }
            "external" => self.external = at.truth()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Returns the name that what the file calls `name` has in the shoal.
    pub(super) fn resolve(self, name: &str, surroundings: &Surroundings<'_>) -> String {
        match self {
            Self { own: Some(own), .. } => own,
            Self { own: None, external: true } => name.to_owned(),
            Self { own: None, external: false } => surroundings.scoped(name),
        }
    }
}
