//! Hosts that lack something, and containers that misbehave.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use shoal_runtime::container::{ContainerSpec, LogLimits};

use super::Case;
use super::lab::{Lab, output, within};

pub(crate) const CASES: &[Case] = &[
    ("a_full_disk_is_told_and_leaves_nothing", a_full_disk_is_told_and_leaves_nothing),
    ("a_container_that_fills_its_log_keeps_its_last_lines", a_container_that_fills_its_log_keeps_its_last_lines),
    ("orphans_and_zombies_end_with_their_container", orphans_and_zombies_end_with_their_container),
];

/// A small file system, unmounted whatever the test does.
struct Disk(PathBuf);

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn a_full_disk_is_told_and_leaves_nothing(lab: &Lab) {
    let disk = lab.state_dir();
    fs::create_dir_all(&disk).unwrap();
    mount(Some("tmpfs"), &disk, Some("tmpfs"), MsFlags::empty(), Some("size=512k")).unwrap();
    let mounted = Disk(disk.clone());
    lab.block_on(async {
        let runtime = lab.open().await;
        let filler = disk.join("filler");
        let mut file = fs::File::create(&filler).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        let error = runtime.create(&lab.spec("full", "true")).await.unwrap_err().to_string();
        assert!(error.contains("space left"), "{error}");
        assert!(runtime.list().is_empty());
        drop(file);
        fs::remove_file(&filler).unwrap();
        // More output than the disk holds: lines are lost, the container is not.
        let flood = "x=0; while [ $x -lt 20000 ]; do echo a line of the flood that fills the disk; x=$((x + 1)); done";
        runtime.create(&lab.spec("flood", flood)).await.unwrap();
        runtime.start("flood").await.unwrap();
        let exit = within(runtime.wait("flood")).await.unwrap();
        assert_eq!((exit.code, exit.signal), (0, None), "{exit:?}");
        assert!(output(&runtime, "flood").await.contains("a line of the flood"));
        runtime.remove("flood").await.unwrap();
    });
    drop(mounted);
}

fn a_container_that_fills_its_log_keeps_its_last_lines(lab: &Lab) {
    let log = LogLimits { file_bytes_max: 32 * 1024, files_max: 3 };
    // One line without an end, then many: each part of the first is a line of the log.
    let script = "dd if=/dev/zero bs=1024 count=300 2>/dev/null; echo; \
        x=0; while [ $x -lt 5000 ]; do echo line $x of many; x=$((x + 1)); done";
    lab.block_on(async {
        let runtime = lab.open().await;
        runtime.create(&ContainerSpec { log, ..lab.spec("chatty", script) }).await.unwrap();
        runtime.start("chatty").await.unwrap();
        assert_eq!(within(runtime.wait("chatty")).await.unwrap().code, 0);
        let kept = output(&runtime, "chatty").await;
        assert!(kept.ends_with("line 4998 of many\nline 4999 of many\n"), "{}", &kept[kept.len() - 80..]);
        let bundle = lab.state_dir().join("containers/chatty");
        let logs = fs::read_dir(bundle)
            .unwrap()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("log.json"));
        let bytes: u64 = logs.map(|entry| entry.metadata().unwrap().len()).sum();
        // A file ends with the line that fills it: at most 16 KiB, of which each NUL is six characters.
        assert!((32 * 1024..=3 * (32 + 6 * 17) * 1024).contains(&bytes), "{bytes} bytes of log");
        runtime.remove("chatty").await.unwrap();
    });
}

fn orphans_and_zombies_end_with_their_container(lab: &Lab) {
    // The first process never waits for its children, and leaves others behind that have none.
    let script = "(sleep 1000 &) ; sh -c 'sleep 1000 & sleep 1000 &' ; sleep 0 & exec sleep 0.3";
    let (exit, _) = lab.run(&ContainerSpec { ..lab.spec("orphans", script) });
    assert_eq!((exit.code, exit.signal, exit.error), (0, None, None));
}
