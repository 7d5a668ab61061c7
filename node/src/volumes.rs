//! Volumes: directories of this node that outlive the tasks that mount them.
//!
//! Named ones are at `NAME/_data` below the directory of all, with what is known of them beside it, in `volume.json`.
//! Those without a name are a task's own, at `.tasks/TASK/NUMBER`: no name begins with a dot. Which node a named volume
//! lives on is intent, not known here. All calls block.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use shoal_cluster::TaskId;
use shoal_cluster::intent::service::container::VolumeName;

use crate::api::time::now_ms;

/// Where a volume's contents are.
const DATA: &str = "_data";
/// What is known of a volume.
const ABOUT: &str = "volume.json";
/// Where the volumes without a name are.
const OF_TASKS: &str = ".tasks";
/// Most bytes that are read of what is known of a volume.
const ABOUT_BYTES_MAX: u64 = 64 * 1024;
/// Named volumes that one node may have.
const VOLUMES_MAX: usize = 10_000;

/// The volumes of this node.
#[derive(Debug)]
pub struct Volumes {
    directory: PathBuf,
    /// Held while a volume is made or removed.
    changes: Mutex<()>,
}

/// A named volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: VolumeName,
    /// Where its contents are.
    pub data: PathBuf,
    /// What is known of it.
    pub about: About,
}

/// What is known of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// When it was made, in milliseconds since the Unix epoch by this node's clock.
    pub created_ms: u64,
    /// The labels it was made with.
    pub labels: BTreeMap<String, String>,
}

/// A volume cannot be used, made or removed.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The disk refused. What was there is as it was, but for what was removed before.
    #[error("cannot {doing} volume {name}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Which, or of which task.
        name: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There are as many as there may be. Nothing was made.
    #[error("this node has {VOLUMES_MAX} volumes, as many as it may have: remove one first")]
    TooMany,
}

impl Volumes {
    /// Opens the directory of all volumes, making it if needed.
    pub fn open(directory: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(directory.join(OF_TASKS))?;
        Ok(Self { directory, changes: Mutex::default() })
    }

    /// Returns where a volume's contents are, or will be.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name).join(DATA)
    }

    /// Makes a volume with these labels unless there is one. Returns it as it is.
    pub fn ensure(&self, name: &VolumeName, labels: &BTreeMap<String, String>) -> Result<Volume, VolumeError> {
        let _one_at_a_time = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(volume) = self.find(name) {
            return Ok(volume);
        }
        if self.list().len() >= VOLUMES_MAX {
            return Err(VolumeError::TooMany);
        }
        let failed = |source| VolumeError::Io { doing: "make", name: name.to_string(), source };
        let about = About { created_ms: now_ms(), labels: labels.clone() };
        let top = self.directory.join(name.as_str());
        fs::create_dir_all(&top).map_err(failed)?;
        let text = serde_json::to_vec_pretty(&about).map_err(|error| failed(error.into()))?;
        fs::write(top.join(ABOUT), text).map_err(failed)?;
        // Last: with it the volume is there.
        fs::create_dir_all(top.join(DATA)).map_err(failed)?;
        Ok(Volume { name: name.clone(), data: top.join(DATA), about })
    }

    /// Finds a volume of this node.
    pub fn find(&self, name: &VolumeName) -> Option<Volume> {
        let data = self.path(name.as_str());
        data.is_dir().then(|| Volume { name: name.clone(), about: self.about(name.as_str()), data })
    }

    /// Returns all named volumes of this node, in order of name.
    pub fn list(&self) -> Vec<Volume> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| VolumeName::new(entry.file_name().to_str()?).ok());
        let mut volumes: Vec<Volume> = names.filter_map(|name| self.find(&name)).collect();
        volumes.sort_by(|one, other| one.name.cmp(&other.name));
        volumes
    }

    /// Removes a volume with all that is in it; nothing happens if there is none.
    pub fn remove(&self, name: &VolumeName) -> Result<(), VolumeError> {
        let _one_at_a_time = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        remove(&self.directory.join(name.as_str()), name.as_str())
    }

    /// Makes the volume without a name that a task mounts as its mount of this number.
    pub fn ensure_of_task(&self, task: &TaskId, number: usize) -> Result<PathBuf, VolumeError> {
        let path = self.path_of_task(task, number);
        let made = fs::create_dir_all(&path);
        made.map_err(|source| VolumeError::Io { doing: "make", name: format!("{number} of task {task}"), source })?;
        Ok(path)
    }

    /// Returns where such a volume is.
    pub fn path_of_task(&self, task: &TaskId, number: usize) -> PathBuf {
        self.directory.join(OF_TASKS).join(task.to_string()).join(number.to_string())
    }

    /// Removes a task's own volumes.
    pub fn remove_of_task(&self, task: &TaskId) -> Result<(), VolumeError> {
        remove(&self.directory.join(OF_TASKS).join(task.to_string()), &format!("of task {task}"))
    }

    /// Removes the own volumes of all tasks but these: of tasks that the node lost sight of.
    pub fn retain_of_tasks(&self, tasks: &[TaskId]) {
        let kept: Vec<String> = tasks.iter().map(TaskId::to_string).collect();
        for entry in fs::read_dir(self.directory.join(OF_TASKS)).into_iter().flatten().flatten() {
            if kept.iter().all(|task| entry.file_name() != task.as_str())
                && let Err(error) = fs::remove_dir_all(entry.path())
            {
                tracing::warn!(path = %entry.path().display(), %error, "cannot remove the volumes of an old task");
            }
        }
    }

    /// What cannot be read is not known: the contents matter more.
    fn about(&self, name: &str) -> About {
        let path = self.directory.join(name).join(ABOUT);
        let small = fs::metadata(&path).is_ok_and(|metadata| metadata.len() <= ABOUT_BYTES_MAX);
        let text = if small { fs::read(&path).unwrap_or_default() } else { Vec::new() };
        serde_json::from_slice(&text).unwrap_or_default()
    }
}

/// Removes a tree; renamed first, so that a half removed volume is none.
fn remove(top: &Path, name: &str) -> Result<(), VolumeError> {
    let failed = |source| VolumeError::Io { doing: "remove", name: name.to_owned(), source };
    match fs::symlink_metadata(top) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(_) => {}
    }
    let mut gone = top.as_os_str().to_owned();
    gone.push("~");
    let gone = PathBuf::from(gone);
    // What an earlier removal left behind.
    let _ = fs::remove_dir_all(&gone);
    fs::rename(top, &gone).map_err(failed)?;
    fs::remove_dir_all(&gone).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> VolumeName {
        VolumeName::new(text).unwrap()
    }

    #[test]
    fn a_volume_is_made_once_and_keeps_its_contents_and_labels() {
        let top = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(top.path().join("volumes")).unwrap();
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        assert_eq!(volumes.find(&name("data")), None);
        let made = volumes.ensure(&name("data"), &labels).unwrap();
        fs::write(made.data.join("file"), "kept").unwrap();
        let again = volumes.ensure(&name("data"), &BTreeMap::new()).unwrap();
        assert_eq!(again, made);
        volumes.ensure(&name("a1"), &BTreeMap::new()).unwrap();
        let opened = Volumes::open(top.path().join("volumes")).unwrap();
        let names: Vec<String> = opened.list().iter().map(|volume| volume.name.to_string()).collect();
        assert_eq!(names, ["a1", "data"]);
        assert_eq!(opened.find(&name("data")).unwrap().about.labels, labels);
        opened.remove(&name("data")).unwrap();
        opened.remove(&name("data")).unwrap();
        assert_eq!((opened.list().len(), made.data.exists()), (1, false));
    }

    #[test]
    fn a_tasks_own_volumes_go_with_it() {
        let top = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(top.path().to_owned()).unwrap();
        let (one, other) = (TaskId([1; 16]), TaskId([2; 16]));
        let paths =
            [(one, 0), (one, 1), (other, 0)].map(|(task, number)| volumes.ensure_of_task(&task, number).unwrap());
        assert!(volumes.list().is_empty());
        volumes.remove_of_task(&one).unwrap();
        assert_eq!(paths.each_ref().map(|path| path.exists()), [false, false, true]);
        volumes.retain_of_tasks(&[one]);
        assert!(!paths[2].exists());
    }
}
