//! Secrets and configs: what the file declares, and which of it a service gets as files.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use bollard::models::{
    TaskSpecContainerSpecConfigs, TaskSpecContainerSpecFile, TaskSpecContainerSpecFile1, TaskSpecContainerSpecSecrets,
};

use super::Surroundings;
use super::external::Naming;
use super::tree::{At, ComposeError, wrong};

/// Most bytes of one secret or config, as in Docker.
pub const DATA_BYTES_MAX: usize = 500 * 1024;

/// A secret or config that services of the stack use.
#[derive(Clone, PartialEq, Eq)]
pub struct Blob {
    /// Its name in the shoal.
    pub name: String,
    /// Its bytes; absent if it must be there already.
    pub data: Option<Vec<u8>>,
    /// Its labels.
    pub labels: HashMap<String, String>,
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The bytes may be a secret.
        formatter.debug_struct("Blob").field("name", &self.name).finish_non_exhaustive()
    }
}

/// All secrets, or all configs, of the file, by the names they have in it, and which of them services use.
#[derive(Debug)]
pub(super) struct Blobs {
    section: &'static str,
    declared: BTreeMap<String, Blob>,
    used: BTreeSet<String>,
}

/// Which secret or config a service gets, and as which file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileUse {
    /// Its id, if that is known.
    pub id: Option<String>,
    /// Its name in the shoal.
    pub name: String,
    /// The path of the file, or its name in the folder of secrets.
    pub target: String,
    /// Whose file it is.
    pub uid: String,
    /// Which group's file it is.
    pub gid: String,
    /// Who may read it.
    pub mode: u32,
}

impl FileUse {
    /// Who may read a file unless something else is said: everybody in the container.
    pub const MODE: u32 = 0o444;

    /// Returns it as a secret in Docker's API.
    pub fn secret(self) -> TaskSpecContainerSpecSecrets {
        let Self { id, name, target, uid, gid, mode } = self;
        TaskSpecContainerSpecSecrets {
            file: Some(TaskSpecContainerSpecFile {
                name: Some(target),
                uid: Some(uid),
                gid: Some(gid),
                mode: Some(mode),
            }),
            secret_id: id,
            secret_name: Some(name),
        }
    }

    /// Returns it as a config in Docker's API.
    pub fn config(self) -> TaskSpecContainerSpecConfigs {
        let Self { id, name, target, uid, gid, mode } = self;
        TaskSpecContainerSpecConfigs {
            file: Some(TaskSpecContainerSpecFile1 {
                name: Some(target),
                uid: Some(uid),
                gid: Some(gid),
                mode: Some(mode),
            }),
            config_id: id,
            config_name: Some(name),
            ..TaskSpecContainerSpecConfigs::default()
        }
    }
}

impl Blobs {
    /// Reads the section of this name.
    pub(super) fn read(
        section: &'static str,
        entries: Vec<(&str, At<'_>)>,
        surroundings: &Surroundings<'_>,
    ) -> Result<Self, ComposeError> {
        let read = |(name, at): (&str, At<'_>)| Ok((name.to_owned(), blob(name, &at, surroundings)?));
        Ok(Self {
            section,
            declared: entries.into_iter().map(read).collect::<Result<_, ComposeError>>()?,
            used: BTreeSet::new(),
        })
    }

    /// Returns what a service gets of the secrets.
    pub(super) fn secrets(&mut self, at: &At<'_>) -> Result<Vec<TaskSpecContainerSpecSecrets>, ComposeError> {
        Ok(self.given(at, "")?.into_iter().map(FileUse::secret).collect())
    }

    /// Returns what a service gets of the configs.
    pub(super) fn configs(&mut self, at: &At<'_>) -> Result<Vec<TaskSpecContainerSpecConfigs>, ComposeError> {
        Ok(self.given(at, "/")?.into_iter().map(FileUse::config).collect())
    }

    fn given(&mut self, at: &At<'_>, folder: &str) -> Result<Vec<FileUse>, ComposeError> {
        at.items()?.iter().map(|at| self.one(at, folder)).collect()
    }

    fn one(&mut self, at: &At<'_>, folder: &str) -> Result<FileUse, ComposeError> {
        let (mut source, mut target, mut uid, mut gid, mut mode) = (None, None, None, None, FileUse::MODE);
        if at.is_map() {
            for (key, at) in at.entries()? {
                match key {
                    "source" => source = Some(at.text()?),
                    "target" => target = Some(at.text()?),
                    "uid" => uid = Some(at.text()?),
                    "gid" => gid = Some(at.text()?),
                    "mode" => mode = at.mode()?,
                    _ => return Err(at.unknown()),
                }
            }
        } else {
            source = Some(at.text()?);
        }
        let source = source.ok_or_else(|| wrong(at, "expected a key `source`"))?;
        let Some(blob) = self.declared.get(&source) else {
            return Err(wrong(at, format!("{source:?} is not declared in the section `{}`", self.section)));
        };
        let name = blob.name.clone();
        let target = target.unwrap_or_else(|| format!("{folder}{source}"));
        self.used.insert(source);
        let root = || "0".to_owned();
        Ok(FileUse { id: None, name, target, uid: uid.unwrap_or_else(root), gid: gid.unwrap_or_else(root), mode })
    }

    /// Returns those that services use, in order of name.
    pub(super) fn used(self) -> Vec<Blob> {
        let Self { declared, used, .. } = self;
        declared.into_iter().filter(|(name, _)| used.contains(name)).map(|(_, blob)| blob).collect()
    }
}

fn blob(name: &str, at: &At<'_>, surroundings: &Surroundings<'_>) -> Result<Blob, ComposeError> {
    let (mut naming, mut data) = (Naming::default(), None);
    let mut labels = HashMap::new();
    for (key, at) in at.entries()? {
        match key {
            "file" => {
                let path = at.text()?;
                let read = (surroundings.read)(Path::new(&path), DATA_BYTES_MAX);
                data = Some(read.map_err(|error| wrong(&at, format!("cannot read {path}: {error}")))?);
            }
            "content" => data = Some(at.text()?.into_bytes()),
            "environment" => {
                let variable = at.text()?;
                let value = (surroundings.variables)(&variable);
                let value = value.ok_or_else(|| wrong(&at, format!("the variable {variable} has no value here")))?;
                data = Some(value.into_bytes());
            }
            "labels" => labels = at.labels()?,
            _ if naming.take(key, &at)? => {}
            _ => return Err(at.unknown()),
        }
    }
    match (&data, naming.external) {
        (Some(_), true) => Err(wrong(at, "is external, so it cannot have contents here")),
        (None, false) => Err(wrong(at, "expected `file`, `content`, `environment` or `external: true`")),
        (Some(data), _) if data.is_empty() => Err(wrong(at, "is empty")),
        (Some(data), _) if data.len() > DATA_BYTES_MAX => {
            Err(wrong(at, format!("has {} bytes, at most {DATA_BYTES_MAX} are allowed", data.len())))
        }
        (Some(_) | None, _) => {
            Ok(Blob { name: naming.resolve(name, surroundings), data, labels: surroundings.labelled(labels) })
        }
    }
}
