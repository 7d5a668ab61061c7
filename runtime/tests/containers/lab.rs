//! A place to run containers in: a root file system made of the host's own tools, a state directory, a cgroup parent,
//! and the check that nothing of it is left.

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use shoal_runtime::container::{ContainerSpec, Exit, Runtime, ShimCommand};

/// Tools that the containers use; the shell's name is given to whatever shell the host has.
const TOOLS: [&str; 9] = ["sh", "cat", "sleep", "ls", "id", "mknod", "touch", "readlink", "dd"];

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:1234:1235:web:/home/web:/bin/sh\n";
const GROUP: &str = "root:x:0:\nweb:x:1235:\nlogs:x:1300:web\n";

/// Generous: the machine may be busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

static LABS: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Lab {
    top: tempfile::TempDir,
    pub(crate) cgroup_parent: String,
    tokio: tokio::runtime::Runtime,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        Self {
            top: tempfile::Builder::new().prefix("shoal-lab-").tempdir().unwrap(),
            cgroup_parent: format!("shoal-lab-{}/{number}", std::process::id()),
            tokio: tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap(),
        }
    }

    /// As long as the state directories of real nodes may be.
    pub(crate) fn state_dir(&self) -> PathBuf {
        let length = self.top.path().as_os_str().len();
        self.top.path().join("s".repeat(90_usize.saturating_sub(length + 1)))
    }

    pub(crate) fn top(&self) -> &Path {
        self.top.path()
    }

    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.tokio.block_on(future)
    }

    pub(crate) async fn open(&self) -> Runtime {
        open(self.state_dir()).await
    }

    /// A spec that runs a shell script.
    pub(crate) fn spec(&self, id: &str, script: &str) -> ContainerSpec {
        ContainerSpec {
            id: id.to_owned(),
            labels: [("task".to_owned(), id.to_owned())].into(),
            layers: vec![tools_layer()],
            args: ["sh", "-c", script].map(str::to_owned).to_vec(),
            hostname: "lab".to_owned(),
            resolv_conf: "nameserver 10.1.2.3\nsearch shoal.internal\n".to_owned(),
            hosts: vec![([10, 9, 8, 7].into(), "lab".to_owned())],
            cgroup_parent: self.cgroup_parent.clone(),
            ..ContainerSpec::default()
        }
    }

    /// Runs a container to its end and removes it. Returns the end and its output, both streams joined.
    pub(crate) fn run(&self, spec: &ContainerSpec) -> (Exit, String) {
        self.block_on(async {
            let runtime = self.open().await;
            runtime.create(spec).await.unwrap();
            runtime.start(&spec.id).await.unwrap();
            let exit = within(runtime.wait(&spec.id)).await.unwrap();
            let output = output(&runtime, &spec.id).await;
            runtime.remove(&spec.id).await.unwrap();
            (exit, output)
        })
    }

    pub(crate) fn assert_nothing_left(&self) {
        let top = self.top.path().to_str().unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(top), "mounts are left:\n{mounts}");
        eventually("processes are gone", || processes_with(top).is_empty());
        let containers = self.state_dir().join("containers");
        let left: Vec<_> = fs::read_dir(containers).map(|entries| entries.flatten().collect()).unwrap_or_default();
        assert!(left.is_empty(), "bundles are left: {left:?}");
        let cgroups = cgroups_named(self.cgroup_parent.split('/').next().unwrap());
        assert!(cgroups.is_empty(), "cgroups are left: {cgroups:?}");
    }
}

pub(crate) async fn open(state_dir: PathBuf) -> Runtime {
    let exe = std::env::current_exe().unwrap();
    Runtime::open(state_dir, ShimCommand { exe, runtime: None }).await.unwrap()
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("patience is over")
}

/// Waits for a predicate.
pub(crate) fn eventually(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "not so in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until a container has written something.
pub(crate) async fn until_output(runtime: &Runtime, id: &str, text: &str) {
    within(async {
        while !output(runtime, id).await.contains(text) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

pub(crate) async fn output(runtime: &Runtime, id: &str) -> String {
    runtime.log(id, 10_000).await.unwrap().into_iter().map(|line| line.log).collect()
}

/// Process numbers whose command line mentions `text`, zombies excepted (they have none).
pub(crate) fn processes_with(text: &str) -> Vec<i32> {
    let own = i32::try_from(std::process::id()).unwrap();
    let numbers = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mentions = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text)
    };
    numbers.filter(|pid| *pid != own).filter(mentions).collect()
}

pub(crate) fn cgroups_named(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        if hierarchy.file_name().to_str() == Some(name) {
            found.push(hierarchy.path());
        }
        if hierarchy.path().join(name).exists() {
            found.push(hierarchy.path().join(name));
        }
    }
    found
}

static TOOLS_LAYER: Mutex<Option<tempfile::TempDir>> = Mutex::new(None);

/// The layer with the tools, made once per run.
pub(crate) fn tools_layer() -> PathBuf {
    TOOLS_LAYER.lock().unwrap().get_or_insert_with(make_tools_layer).path().to_path_buf()
}

/// Statics are not dropped, so that what is left on disk has to be removed at the end of `main`.
pub(crate) fn remove_tools() {
    drop(TOOLS_LAYER.lock().unwrap().take());
}

fn make_tools_layer() -> tempfile::TempDir {
    let layer = tempfile::Builder::new().prefix("shoal-tools-").tempdir().unwrap();
    let root = layer.path();
    fs::set_permissions(root, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for directory in ["bin", "etc", "tmp", "home/web"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    for tool in TOOLS {
        let path =
            ["/bin", "/usr/bin"].iter().map(|directory| Path::new(directory).join(tool)).find(|path| path.exists());
        let path = path.unwrap_or_else(|| panic!("the host has no {tool}"));
        fs::copy(&path, root.join("bin").join(tool)).unwrap();
        for library in libraries(&path) {
            let target = root.join(library.strip_prefix("/").unwrap());
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::copy(&library, target).unwrap();
        }
    }
    fs::write(root.join("etc/passwd"), PASSWD).unwrap();
    fs::write(root.join("etc/group"), GROUP).unwrap();
    fs::write(root.join("bin/not-executable"), "#!/bin/sh\n").unwrap();
    fs::write(root.join("bin/no-interpreter"), "#!/bin/missing\n").unwrap();
    fs::write(root.join("bin/not-a-program"), "text\n").unwrap();
    for script in ["no-interpreter", "not-a-program"] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(root.join("bin").join(script), mode).unwrap();
    }
    layer
}

/// The dynamic loader lists what it would load.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let listing = Command::new(program).env("LD_TRACE_LOADED_OBJECTS", "1").output().unwrap();
    let listing = String::from_utf8_lossy(&listing.stdout).into_owned();
    let paths = listing.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    paths.map(PathBuf::from).collect()
}
