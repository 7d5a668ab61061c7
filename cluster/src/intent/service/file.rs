//! Files of a task: the secrets and configs that it gets.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;

use serde::{Deserialize, Serialize};

use super::SpecError;
use super::container::is_path;
use crate::id::ObjectId;
use crate::intent::object::{DataKind, ObjectName};
use crate::limits::ATTACHMENTS_MAX;

/// Where secrets are found whose target is no absolute path.
const SECRETS_FOLDER: &str = "/run/secrets/";

/// A secret or config as a file of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMount {
    /// Whether it is a secret or a config.
    pub kind: DataKind,
    /// Which: the bytes that the operator saw, whoever has the name by now.
    pub id: ObjectId,
    /// What it was called.
    pub name: ObjectName,
    /// Absolute path, or one below `/run/secrets` (secrets) or `/` (configs).
    pub target: String,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its mode, 0 to 0o7777.
    pub mode: u32,
}

impl FileMount {
    /// Returns its absolute path in the container.
    pub fn path(&self) -> String {
        match (self.target.starts_with('/'), self.kind) {
            (true, _) => self.target.clone(),
            (false, DataKind::Secret) => format!("{SECRETS_FOLDER}{}", self.target),
            (false, DataKind::Config) => format!("/{}", self.target),
        }
    }
}

/// Checks what types cannot: paths, modes, and that no two are one file.
pub(super) fn check(files: &[FileMount]) -> Result<(), SpecError> {
    if files.len() > ATTACHMENTS_MAX {
        let reason = format!("{} are too many: a service may have at most {ATTACHMENTS_MAX}", files.len());
        return Err(SpecError::Option { what: "secrets and configs", reason });
    }
    let mut paths = BTreeSet::new();
    for file in files {
        let bad = |reason: &str| {
            let reason = format!("{}: {reason}", file.target.chars().take(256).collect::<String>());
            Err(SpecError::Option { what: file.kind.word(), reason })
        };
        let path = file.path();
        if file.target.is_empty() || !is_path(&path) || path.ends_with('/') {
            return bad("the target is no path of a file");
        }
        if file.mode > 0o7777 {
            return bad("the mode is none");
        }
        if !paths.insert(path) {
            return bad("two secrets or configs have this target");
        }
    }
    Ok(())
}

/// Returns an upper bound of the bytes of text in them.
pub(super) fn weight(files: &[FileMount]) -> usize {
    files.iter().map(|file| file.name.as_str().len() + file.target.len() + 48).sum()
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    fn file(kind: DataKind, target: &str) -> FileMount {
        let name = ObjectName::new("it").unwrap();
        FileMount { kind, id: ObjectId([1; 16]), name, target: target.to_string(), uid: 0, gid: 0, mode: 0o444 }
    }

    #[test]
    fn secrets_are_below_their_folder_unless_told_and_configs_below_the_root() {
        assert_eq!(file(DataKind::Secret, "key").path(), "/run/secrets/key");
        assert_eq!(file(DataKind::Secret, "/etc/key").path(), "/etc/key");
        assert_eq!(file(DataKind::Config, "app.conf").path(), "/app.conf");
        for bad in ["", "/", "../a", "a/../b", "/a/", "a\0"] {
            assert!(check(&[file(DataKind::Secret, bad)]).is_err(), "{bad:?}");
        }
        let (one, other) = (file(DataKind::Secret, "a"), file(DataKind::Config, "/run/secrets/a"));
        assert!(check(&[one.clone(), file(DataKind::Config, "a")]).is_ok());
        assert!(check(&[one.clone(), other]).unwrap_err().to_string().contains("two secrets"));
        assert!(check(&[FileMount { mode: 0o10000, ..one }]).is_err());
    }
}
