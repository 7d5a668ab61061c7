//! Containers: what the container of a task gets beyond its image, in Docker's terms.
//!
//! Types hold what they can; [`ContainerOptions::check`] holds counts, paths and texts, for specs from operators and
//! from peers alike. Whether a capability, sysctl or ulimit exists is known to the runtime, which is asked at the API.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::SpecError;
use super::file::{self, FileMount};
use crate::limits::{CONTAINER_OPTIONS_MAX, VOLUME_NAME_BYTES_MAX};

/// What the container of a task gets beyond its image. The default is what it gets if nobody asks for anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerOptions {
    /// Further groups of its user, each a name of the image or a number.
    pub groups: Vec<String>,
    /// Whether a small first process reaps orphans and hands signals on.
    pub init: bool,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// Whether its standard input stays open.
    pub open_stdin: bool,
    /// What is mounted into its root file system, in this order.
    pub mounts: Vec<Mount>,
    /// Secrets and configs that it gets.
    pub files: Vec<FileMount>,
    /// Further lines of its `/etc/hosts`.
    pub hosts: Vec<Host>,
    /// How it looks up names outside the shoal.
    pub dns: Dns,
    /// Capabilities beyond the default ones, as the runtime writes them.
    pub capabilities_added: Vec<String>,
    /// Capabilities taken away.
    pub capabilities_dropped: Vec<String>,
    /// Limits of each of its processes.
    pub ulimits: Vec<Ulimit>,
    /// Kernel parameters of its own namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Whether set-uid programs may raise privileges. Off unless asked for, unlike Docker's.
    pub new_privileges: bool,
    /// Whether it goes without the system call filter.
    pub unfiltered: bool,
    /// How much of its output is kept; the runtime's default unless given.
    pub log: Option<Log>,
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path inside the container.
    pub target: String,
    /// Whether the container may not write to it.
    pub read_only: bool,
    /// What is mounted.
    pub source: MountSource,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A file or directory of whatever node the task runs on, by absolute path; it must exist there.
    Bind(String),
    /// A volume.
    Volume {
        /// Which; without a name it is the task's own and goes with it.
        name: Option<VolumeName>,
        /// Whether it stays empty at first use, instead of being filled with what the image has there.
        no_copy: bool,
        /// Labels that it gets when it is made.
        labels: BTreeMap<String, String>,
    },
    /// Memory, gone with the task. At `/dev/shm` it takes the place of the one that every container has.
    Tmpfs {
        /// Most bytes that fit in.
        bytes_max: Option<u64>,
        /// Mode of its top directory.
        mode: Option<u32>,
    },
}

/// A volume's name: letters, digits, `_`, `.` and `-`, beginning with a letter or digit, 2 to
/// [`VOLUME_NAME_BYTES_MAX`] bytes. Docker's rule, and a bound. It is a directory's name, and as such told apart by case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeName(String);

/// The text is no valid name of a volume. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{text}\" is not a valid name of a volume: use letters, digits, \"_\", \".\" and \"-\", begin with a letter or digit, \
     2 to {VOLUME_NAME_BYTES_MAX} characters; a path is mounted with type=bind"
)]
pub struct VolumeNameError {
    text: String,
}

/// One line of `/etc/hosts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The address.
    pub address: IpAddr,
    /// Its names, at least one.
    pub names: Vec<String>,
}

/// How a container looks up names. Names of the shoal are answered by its node in any case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Who is asked for names outside the shoal; the node's own resolvers unless given.
    pub nameservers: Vec<IpAddr>,
    /// Domains in which plain names are looked for, after the shoal's own.
    pub search: Vec<String>,
    /// Options of `/etc/resolv.conf`, in place of the usual ones.
    pub options: Vec<String>,
}

/// A limit of each process; -1 is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// As in Docker: `nofile`, `nproc`, `core`, …
    pub name: String,
    /// What is in force.
    pub soft: i64,
    /// How far a process may raise it.
    pub hard: i64,
}

/// How much output is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// Size of one file in bytes, 4 KiB to 1 GiB.
    pub file_bytes_max: Option<u64>,
    /// Files kept, 1 to 100.
    pub files_max: Option<u32>,
}

/// What one log file may have, in bytes: the runtime's bounds.
const LOG_FILE_BYTES: core::ops::RangeInclusive<u64> = 4 * 1024..=1 << 30;
/// How many log files there may be, likewise.
const LOG_FILES: core::ops::RangeInclusive<u32> = 1..=100;

impl VolumeName {
    /// Parses a name.
    pub fn new(text: &str) -> Result<Self, VolumeNameError> {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let valid = (2..=VOLUME_NAME_BYTES_MAX).contains(&text.len())
            && text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
            && text.bytes().all(inner);
        match valid {
            true => Ok(Self(text.to_string())),
            false => Err(VolumeNameError { text: text.chars().take(2 * VOLUME_NAME_BYTES_MAX).collect() }),
        }
    }

    /// Returns the name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for VolumeName {
    type Error = VolumeNameError;

    fn try_from(text: String) -> Result<Self, VolumeNameError> {
        Self::new(&text)
    }
}

impl From<VolumeName> for String {
    fn from(name: VolumeName) -> Self {
        name.0
    }
}

impl ContainerOptions {
    /// Checks what types cannot: counts, paths, and texts that would break a file of lines.
    pub(super) fn check(&self) -> Result<(), SpecError> {
        let counts = [
            ("groups", self.groups.len()),
            ("mounts", self.mounts.len()),
            ("hosts", self.hosts.len()),
            ("names of hosts", self.hosts.iter().map(|host| host.names.len()).max().unwrap_or_default()),
            ("nameservers", self.dns.nameservers.len()),
            ("search domains", self.dns.search.len()),
            ("DNS options", self.dns.options.len()),
            ("added capabilities", self.capabilities_added.len()),
            ("dropped capabilities", self.capabilities_dropped.len()),
            ("ulimits", self.ulimits.len()),
            ("sysctls", self.sysctls.len()),
        ];
        if let Some(&(what, count)) = counts.iter().find(|(_, count)| *count > CONTAINER_OPTIONS_MAX) {
            let reason = format!("{count} are too many: a service may have at most {CONTAINER_OPTIONS_MAX}");
            return Err(SpecError::Option { what, reason });
        }
        self.check_mounts()?;
        file::check(&self.files)?;
        self.check_names()?;
        if let Some(ulimit) = self.ulimits.iter().find(|ulimit| !ulimit.is_ordered()) {
            let reason = format!("{} is not -1 or more with the soft limit at most the hard one", ulimit.name);
            return Err(SpecError::Option { what: "ulimit", reason });
        }
        let log = self.log.unwrap_or_default();
        let size_fits = log.file_bytes_max.is_none_or(|bytes| LOG_FILE_BYTES.contains(&bytes));
        if !size_fits || log.files_max.is_some_and(|files| !LOG_FILES.contains(&files)) {
            let reason = "a file has 4 KiB to 1 GiB (max-size), and there are 1 to 100 files (max-file)".to_string();
            return Err(SpecError::Option { what: "log options", reason });
        }
        Ok(())
    }

    fn check_mounts(&self) -> Result<(), SpecError> {
        let mut targets = BTreeSet::new();
        for mount in &self.mounts {
            let target = mount.target.trim_end_matches('/');
            let bad = |reason: &str| {
                let reason = format!("{}: {reason}", mount.target.chars().take(256).collect::<String>());
                Err(SpecError::Option { what: "mount", reason })
            };
            if !is_path(&mount.target) || target.is_empty() {
                return bad("the target is not an absolute path below /");
            }
            if !targets.insert(target) {
                return bad("two mounts have this target");
            }
            match &mount.source {
                MountSource::Bind(source) if !is_path(source) => {
                    return bad("the source of a bind mount is not an absolute path");
                }
                MountSource::Tmpfs { bytes_max: Some(0), .. } => return bad("a tmpfs of no bytes holds nothing"),
                MountSource::Tmpfs { mode: Some(mode), .. } if *mode > 0o7777 => return bad("the mode is none"),
                MountSource::Bind(_) | MountSource::Volume { .. } | MountSource::Tmpfs { .. } => {}
            }
        }
        Ok(())
    }

    fn check_names(&self) -> Result<(), SpecError> {
        let plain = |text: &String| !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control());
        let texts: [(&'static str, &[String]); 3] =
            [("group", &self.groups), ("search domain", &self.dns.search), ("DNS option", &self.dns.options)];
        let hosts = self.hosts.iter().map(|host| ("name of a host", &host.names[..]));
        for (what, list) in texts.into_iter().chain(hosts) {
            if let Some(text) = list.iter().find(|text| !plain(text)) {
                return Err(SpecError::Option { what, reason: format!("{text:?} is empty or has spaces") });
            }
        }
        if self.hosts.iter().any(|host| host.names.is_empty()) {
            return Err(SpecError::Option { what: "host", reason: "it has no name".to_string() });
        }
        Ok(())
    }

    /// Returns an upper bound of the bytes of text in the options.
    pub(super) fn weight(&self) -> usize {
        let map = |map: &BTreeMap<String, String>| map.iter().map(|(k, v)| k.len() + v.len() + 16).sum::<usize>();
        let list = |list: &[String]| list.iter().map(|item| item.len() + 8).sum::<usize>();
        let mount = |mount: &Mount| {
            let source = match &mount.source {
                MountSource::Bind(path) => path.len(),
                MountSource::Volume { name, labels, .. } => {
                    name.as_ref().map_or(0, |name| name.as_str().len()) + map(labels)
                }
                MountSource::Tmpfs { .. } => 16,
            };
            mount.target.len() + source + 16
        };
        let lists =
            [&self.groups, &self.dns.search, &self.dns.options, &self.capabilities_added, &self.capabilities_dropped];
        lists.into_iter().map(|one| list(one)).sum::<usize>()
            + self.mounts.iter().map(mount).sum::<usize>()
            + file::weight(&self.files)
            + self.hosts.iter().map(|host| list(&host.names) + 24).sum::<usize>()
            + self.dns.nameservers.len() * 24
            + self.ulimits.iter().map(|ulimit| ulimit.name.len() + 32).sum::<usize>()
            + map(&self.sysctls)
    }

    /// Returns the named volumes that it mounts.
    pub fn volumes(&self) -> impl Iterator<Item = &VolumeName> {
        self.mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::Volume { name, .. } => name.as_ref(),
            MountSource::Bind(_) | MountSource::Tmpfs { .. } => None,
        })
    }
}

impl Ulimit {
    fn is_ordered(&self) -> bool {
        let rank = |limit: i64| u64::try_from(limit).unwrap_or(u64::MAX);
        self.soft >= -1 && self.hard >= -1 && rank(self.soft) <= rank(self.hard)
    }
}

/// Tells whether it is an absolute path that stays where it begins.
pub(super) fn is_path(text: &str) -> bool {
    text.starts_with('/') && !text.contains('\0') && !text.split('/').any(|part| matches!(part, "." | ".."))
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn mount(target: &str, source: MountSource) -> ContainerOptions {
        let mount = Mount { target: target.to_string(), read_only: false, source };
        ContainerOptions { mounts: vec![mount], ..ContainerOptions::default() }
    }

    fn tmpfs() -> MountSource {
        MountSource::Tmpfs { bytes_max: None, mode: None }
    }

    #[test]
    fn volume_names_are_directory_names() {
        for good in ["db", "DB_1", "a.b-c", &"x".repeat(VOLUME_NAME_BYTES_MAX)] {
            assert_eq!(VolumeName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "a", "..", ".a", "-a", "a/b", "a b", "ä1", &"x".repeat(VOLUME_NAME_BYTES_MAX + 1)] {
            assert!(VolumeName::new(bad).is_err(), "{bad}");
            assert!(VolumeName::try_from(bad.to_string()).is_err());
        }
    }

    #[test]
    fn mounts_stay_where_they_are_asked_for() {
        for target in ["/", "//", "a", "", "/a/../b", "/./a", "/a\0"] {
            assert!(mount(target, tmpfs()).check().is_err(), "{target:?}");
        }
        assert!(mount("/a/", tmpfs()).check().is_ok());
        for source in ["", "a", "/a/../../etc"] {
            assert!(mount("/a", MountSource::Bind(source.to_string())).check().is_err(), "{source:?}");
        }
        let mut twice = mount("/a/", tmpfs());
        twice.mounts.push(Mount { target: "/a".to_string(), read_only: true, source: tmpfs() });
        assert!(twice.check().unwrap_err().to_string().contains("two mounts"));
    }

    #[test]
    fn texts_cannot_add_lines_to_files_and_lists_are_bounded() {
        let search = |text: &str| {
            let dns = Dns { search: vec![text.to_string()], ..Dns::default() };
            ContainerOptions { dns, ..ContainerOptions::default() }.check()
        };
        assert!(search("example.org").is_ok());
        assert!(search("a\nnameserver 1.1.1.1").is_err() && search("a b").is_err() && search("").is_err());
        let groups = vec!["x".to_string(); CONTAINER_OPTIONS_MAX + 1];
        let error = ContainerOptions { groups, ..ContainerOptions::default() }.check().unwrap_err();
        assert!(error.to_string().contains("too many"), "{error}");
    }

    #[test]
    fn no_limit_is_above_every_limit() {
        let ulimit = |soft, hard| Ulimit { name: "nofile".to_string(), soft, hard }.is_ordered();
        assert!(ulimit(1, 2) && ulimit(2, 2) && ulimit(5, -1) && ulimit(-1, -1));
        assert!(!ulimit(2, 1) && !ulimit(-1, 5) && !ulimit(-2, 5));
    }
}
