//! What a demo may have left on this machine: looked for everywhere, so that "nothing" means nothing.

use std::fs;
use std::path::{Path, PathBuf};

/// Returns all processes.
pub(crate) fn pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Returns whatever is left of demos, in words.
pub(crate) fn left() -> Vec<String> {
    let temporary = std::env::temp_dir();
    let mut found = Vec::new();
    for (folder, prefix) in
        [(Path::new("/run/netns"), "shoal-demo-"), (&temporary, "shoal-demo-"), (Path::new("/run"), "shoal-demo")]
    {
        found.extend(named(folder, prefix).into_iter().map(|path| path.display().to_string()));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    found.extend(mounts.lines().filter(|line| line.contains("shoal-demo")).map(|line| format!("mount {line}")));
    for pid in pids() {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let group = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        if line.contains("/shoal-demo-") || group.contains("/shoal/") {
            found.push(format!("process {pid}: {line}"));
        }
    }
    found.extend(cgroups().into_iter().map(|path| format!("cgroup {}", path.display())));
    found
}

fn named(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let matches =
        |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(prefix));
    entries.map(|entry| entry.path()).filter(matches).collect()
}

/// Returns the groups that nodes make for their tasks, in all hierarchies.
pub(crate) fn cgroups() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    folders.extend(named(Path::new("/sys/fs/cgroup"), "").into_iter().filter(|path| path.is_dir()));
    for folder in folders {
        found.extend(named(&folder.join("shoal"), "").into_iter().filter(|path| path.is_dir()));
    }
    found
}
