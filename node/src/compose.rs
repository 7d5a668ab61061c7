//! Compose files: from what people have written to what the Docker API is asked for.
//!
//! Input: the text of a Compose file, the variables it may use, and a way to read the files it names. Output: a
//! [`Stack`], the very bodies of Docker's API, so that a stack deployed by us and one deployed by Docker's client go the
//! same way and are accepted or refused by the same rules. Pure but for that way to read files. Every key is taken,
//! refused by name, or told in a warning; none is ignored silently. See `docs/stacks.md`.

mod deploy;
mod external;
mod files;
mod health;
mod interpolate;
mod mounts;
mod networks;
pub mod ports;
mod service;
mod tree;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

use bollard::models::ServiceSpec;
use serde_json::Value;

pub use files::{Blob, DATA_BYTES_MAX, FileUse};
pub use networks::Network;
pub use tree::ComposeError;

use tree::{At, wrong};

/// The label that says to which stack something belongs, as Docker's client sets it.
pub const NAMESPACE_LABEL: &str = "com.docker.stack.namespace";
/// The label that keeps the image's name as it was written.
pub const IMAGE_LABEL: &str = "com.docker.stack.image";
/// Longest Compose file in bytes.
pub const FILE_BYTES_MAX: usize = 4 << 20;

/// Everything that a Compose file declares, by the names it has in the shoal.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stack {
    /// The services, in order of name.
    pub services: Vec<ServiceSpec>,
    /// The networks that services use.
    pub networks: Vec<Network>,
    /// The secrets that services use.
    pub secrets: Vec<Blob>,
    /// The configs that services use.
    pub configs: Vec<Blob>,
    /// What was left out, and why, a sentence each.
    pub warnings: Vec<String>,
}

/// What a Compose file may look at beyond its own text.
pub struct Surroundings<'a> {
    /// The stack's name, which precedes the name of everything in it.
    pub stack: &'a str,
    /// Variables for `${NAME}`, and for environment entries without a value.
    pub variables: &'a dyn Fn(&str) -> Option<String>,
    /// Reads a file that the Compose file names, relative to its folder, of so many bytes at most.
    pub read: &'a dyn Fn(&Path, usize) -> io::Result<Vec<u8>>,
}

impl Surroundings<'_> {
    /// Returns the name that something of the stack has in the shoal.
    fn scoped(&self, name: &str) -> String {
        format!("{}_{name}", self.stack)
    }

    /// Returns `labels` with the one that says to which stack the labelled belongs.
    fn labelled(&self, mut labels: HashMap<String, String>) -> HashMap<String, String> {
        labels.insert(NAMESPACE_LABEL.to_owned(), self.stack.to_owned());
        labels
    }
}

/// Reads Compose files as one, each over those before it, and returns what they declare.
///
/// # Errors
/// The place in the file, and what is wrong with it.
pub fn read(texts: &[String], surroundings: &Surroundings<'_>) -> Result<Stack, ComposeError> {
    let mut file = Value::Object(serde_json::Map::new());
    for text in texts {
        let mut next = tree::parse(text)?;
        interpolate::values(&mut next, "", surroundings.variables)?;
        tree::merge(&mut file, next, "");
    }
    let root = At::root(&file);
    let mut sections: BTreeMap<&str, At<'_>> = BTreeMap::new();
    let mut warnings = Vec::new();
    for (key, at) in root.entries()? {
        match key {
            "services" | "networks" | "volumes" | "secrets" | "configs" => {
                sections.insert(key, at);
            }
            // Says nothing any more; the stack's name is given beside the file, as Docker has it.
            "version" | "name" => {}
            "include" => return Err(wrong(&at, "is not supported: give each file with -c")),
            _ => return Err(at.unknown()),
        }
    }
    let section = |name: &str| sections.get(name).map_or_else(|| Ok(Vec::new()), At::entries);
    let mut networks = networks::Networks::read(section("networks")?, surroundings)?;
    let volumes = mounts::Volumes::read(section("volumes")?, surroundings)?;
    let mut secrets = files::Blobs::read("secrets", section("secrets")?, surroundings)?;
    let mut configs = files::Blobs::read("configs", section("configs")?, surroundings)?;
    let mut services = Vec::new();
    for (name, at) in section("services")? {
        let mut around = service::Around {
            surroundings,
            networks: &mut networks,
            volumes: &volumes,
            secrets: &mut secrets,
            configs: &mut configs,
            warnings: &mut warnings,
        };
        services.push(service::read(name, &at, &mut around)?);
    }
    if services.is_empty() {
        return Err(wrong(&root, "declares no services: expected a section `services`"));
    }
    Ok(Stack { services, networks: networks.used(), secrets: secrets.used(), configs: configs.used(), warnings })
}

#[cfg(test)]
mod tests;
