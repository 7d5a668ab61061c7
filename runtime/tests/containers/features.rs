//! What a spec may ask for beyond a command: privileges, mounts, devices, limits of processes, a terminal, an init.

use std::fs;

use shoal_runtime::container::{ContainerSpec, Device, Mount, MountSource, Privileges, Ulimit};

use super::Case;
use super::lab::{Lab, output, until_output, within};

pub(crate) const CASES: &[Case] = &[
    ("capabilities_are_added_and_dropped", capabilities_are_added_and_dropped),
    ("new_privileges_and_the_filter_are_as_asked", new_privileges_and_the_filter_are_as_asked),
    ("binds_and_tmpfs_are_mounted", binds_and_tmpfs_are_mounted),
    ("a_volume_is_filled_once_and_keeps_what_is_written", a_volume_is_filled_once_and_keeps_what_is_written),
    ("a_missing_source_or_device_is_named", a_missing_source_or_device_is_named),
    ("a_link_in_the_image_cannot_lead_a_mount_out", a_link_in_the_image_cannot_lead_a_mount_out),
    ("devices_of_the_host_can_be_used", devices_of_the_host_can_be_used),
    ("sysctls_ulimits_and_groups_are_set", sysctls_ulimits_and_groups_are_set),
    ("an_init_reaps_and_hands_signals_on", an_init_reaps_and_hands_signals_on),
    ("a_command_that_cannot_run_under_an_init_is_named", a_command_that_cannot_run_under_an_init_is_named),
    ("a_terminal_is_given", a_terminal_is_given),
    ("input_reaches_the_command_and_ends", input_reaches_the_command_and_ends),
    (
        "whoever_is_attached_sees_what_comes_and_holds_up_nothing",
        whoever_is_attached_sees_what_comes_and_holds_up_nothing,
    ),
];

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

fn capabilities_are_added_and_dropped(lab: &Lab) {
    let sets = [
        (&["NET_ADMIN"][..], &["chown"][..], "00000000a00435fa"),
        (&["CAP_SYS_TIME"], &["ALL"], "0000000002000000"),
        (&[], &["ALL"], "0000000000000000"),
    ];
    for (add, drop, expected) in sets {
        let privileges = Privileges { cap_add: words(add), cap_drop: words(drop), ..Privileges::default() };
        let (_, text) = lab.run(&ContainerSpec { privileges, ..lab.spec("caps", "cat /proc/self/status") });
        for set in ["CapBnd", "CapEff", "CapPrm"] {
            assert!(text.contains(&format!("{set}:\t{expected}")), "{add:?} {drop:?}: {set} {expected} in {text}");
        }
    }
}

fn new_privileges_and_the_filter_are_as_asked(lab: &Lab) {
    let privileges = Privileges { new_privileges: true, unfiltered: true, ..Privileges::default() };
    let (_, text) = lab.run(&ContainerSpec { privileges, ..lab.spec("free", "cat /proc/self/status") });
    assert!(text.contains("NoNewPrivs:\t0") && text.contains("Seccomp:\t0"), "{text}");
}

fn mount(target: &str, readonly: bool, source: MountSource) -> Mount {
    Mount { target: target.to_owned(), readonly, source }
}

fn binds_and_tmpfs_are_mounted(lab: &Lab) {
    let host = lab.top().join("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("file"), "of the host\n").unwrap();
    let mounts = vec![
        mount("/new/place", false, MountSource::Bind(host.clone())),
        mount("/new/fixed", true, MountSource::Bind(host.clone())),
        mount("/etc/one-file", false, MountSource::Bind(host.join("file"))),
        mount("/scratch", false, MountSource::Tmpfs { bytes_max: Some(64 * 1024), mode: Some(0o700) }),
    ];
    let script = "cat /new/place/file /etc/one-file; echo x >/new/place/written; (echo x >/new/fixed/no) || echo fixed; \
        ls -ld /scratch; dd if=/dev/zero of=/scratch/big bs=1024 count=100 2>/dev/null || echo full; \
        cat /proc/self/mounts";
    let (_, text) = lab.run(&ContainerSpec { mounts, shm_bytes: Some(1 << 20), ..lab.spec("mounts", script) });
    assert!(text.starts_with("of the host\nof the host\n"), "{text}");
    for expected in ["fixed\n", "drwx------", "full\n", "/dev/shm tmpfs rw,nosuid,nodev,noexec,relatime,size=1024k"] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    assert_eq!(fs::read_to_string(host.join("written")).unwrap(), "x\n");
    assert!(!host.join("no").exists());
}

fn a_volume_is_filled_once_and_keeps_what_is_written(lab: &Lab) {
    let volume = lab.top().join("volume");
    fs::create_dir(&volume).unwrap();
    let source = MountSource::Volume { directory: volume.clone(), copy: true };
    let spec = |script: &str| ContainerSpec {
        mounts: vec![mount("/home", false, source.clone())],
        ..lab.spec("volume", script)
    };
    let (_, text) = lab.run(&spec("ls /home; echo kept >/home/note"));
    assert_eq!(text, "web\n", "what the image has there is in the volume");
    let (_, text) = lab.run(&spec("cat /home/note; ls /home"));
    assert_eq!(text, "kept\nnote\nweb\n");
    let bare = lab.top().join("bare");
    fs::create_dir(&bare).unwrap();
    let mounts = vec![mount("/home", false, MountSource::Volume { directory: bare, copy: false })];
    assert_eq!(lab.run(&ContainerSpec { mounts, ..lab.spec("volume", "ls /home") }).1, "");
}

fn refused(lab: &Lab, spec: &ContainerSpec) -> String {
    lab.block_on(async {
        let error = lab.open().await.create(spec).await.expect_err("it must not be created");
        assert_eq!(error.exit_code(), 125);
        error.to_string()
    })
}

fn a_missing_source_or_device_is_named(lab: &Lab) {
    let missing = lab.top().join("missing");
    for source in [MountSource::Bind(missing.clone()), MountSource::Volume { directory: missing.clone(), copy: true }] {
        let spec = ContainerSpec { mounts: vec![mount("/x", false, source)], ..lab.spec("missing", "true") };
        let text = refused(lab, &spec);
        assert!(text.contains("missing does not exist on this node"), "{text}");
    }
    let device = |host: &str| Device { host: host.into(), target: "/dev/x".to_owned(), access: "rw".to_owned() };
    for (host, words) in [("/dev/no-such", "cannot be found"), ("/etc/passwd", "is neither")] {
        let text = refused(lab, &ContainerSpec { devices: vec![device(host)], ..lab.spec("missing", "true") });
        assert!(text.contains(host) && text.contains(words), "{text}");
    }
}

fn a_link_in_the_image_cannot_lead_a_mount_out(lab: &Lab) {
    let (layer, outside) = (lab.top().join("layer"), lab.top().join("outside"));
    fs::create_dir(&layer).unwrap();
    fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, layer.join("trap")).unwrap();
    let mut spec = lab.spec("trap", "true");
    spec.layers.push(layer);
    spec.mounts = vec![mount("/trap/in", false, MountSource::Tmpfs { bytes_max: None, mode: None })];
    let _ = lab.block_on(async {
        let runtime = lab.open().await;
        let created = runtime.create(&spec).await;
        runtime.remove("trap").await.unwrap();
        created
    });
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "nothing was made outside");
}

fn devices_of_the_host_can_be_used(lab: &Lab) {
    let device = Device { host: "/dev/full".into(), target: "/dev/my/full".to_owned(), access: "rw".to_owned() };
    let (_, text) = lab.run(&ContainerSpec {
        devices: vec![device],
        ..lab.spec("devices", "ls -l /dev/my; dd if=/dev/zero of=/dev/my/full count=1; true")
    });
    assert!(text.contains("1, 7") && text.to_lowercase().contains("space left"), "{text}");
}

fn sysctls_ulimits_and_groups_are_set(lab: &Lab) {
    let ulimit = |name: &str, soft, hard| Ulimit { name: name.to_owned(), soft, hard };
    let spec = ContainerSpec {
        sysctls: [("net.core.somaxconn".to_owned(), "77".to_owned()), ("kernel.msgmax".to_owned(), "9000".to_owned())]
            .into(),
        ulimits: vec![ulimit("nofile", 100, 200), ulimit("core", 0, 0)],
        groups: words(&["logs", "4321"]),
        ..lab.spec("set", "cat /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax /proc/self/limits; id")
    };
    let (_, text) = lab.run(&spec);
    assert!(text.starts_with("77\n9000\n"), "{text}");
    let line =
        |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!(line("Max open files")[3..5], ["100", "200"]);
    assert_eq!(line("Max core file size")[4..6], ["0", "0"]);
    assert!(text.contains("1300(logs)") && text.contains("4321"), "{text}");
}

fn an_init_reaps_and_hands_signals_on(lab: &Lab) {
    lab.block_on(async {
        let runtime = lab.open().await;
        let script = "echo $$; trap 'echo term; exit 5' TERM; (sh -c 'sleep 0.1 & exit' &) ; sleep 0.5; \
            cat /proc/1/comm; ls /proc | while read n; do case $n in [0-9]*) cat /proc/$n/stat;; esac; done | \
            { while read pid comm state rest; do [ $state = Z ] && echo zombie; done; }; echo up; \
            while :; do sleep 0.05; done";
        runtime.create(&ContainerSpec { init: true, ..lab.spec("init", script) }).await.unwrap();
        runtime.start("init").await.unwrap();
        until_output(&runtime, "init", "up").await;
        let exit = runtime.stop("init", libc::SIGTERM, std::time::Duration::from_secs(50)).await.unwrap();
        assert_eq!((exit.code, exit.signal), (5, None));
        let text = output(&runtime, "init").await;
        assert!(!text.starts_with("1\n") && text.ends_with("term\n") && !text.contains("zombie"), "{text}");
        runtime.remove("init").await.unwrap();
    });
    let (exit, _) = lab.run(&ContainerSpec { init: true, ..lab.spec("init", "kill -KILL $$") });
    assert_eq!(exit.code, 137);
}

fn a_command_that_cannot_run_under_an_init_is_named(lab: &Lab) {
    lab.block_on(async {
        let runtime = lab.open().await;
        let spec = ContainerSpec { init: true, args: words(&["not-a-program"]), ..lab.spec("init", "") };
        runtime.create(&spec).await.unwrap();
        let error = runtime.start("init").await.unwrap_err();
        assert_eq!(error.exit_code(), 126, "{error}");
        assert_eq!(within(runtime.wait("init")).await.unwrap().code, 126);
        runtime.remove("init").await.unwrap();
    });
}

fn a_terminal_is_given(lab: &Lab) {
    lab.block_on(async {
        let runtime = lab.open().await;
        let script = "[ -t 0 ] && [ -t 1 ] && readlink /proc/self/fd/0; echo $TERM; echo err >&2; echo up; sleep 1000";
        runtime.create(&ContainerSpec { tty: true, ..lab.spec("tty", script) }).await.unwrap();
        runtime.start("tty").await.unwrap();
        until_output(&runtime, "tty", "up").await;
        let text = output(&runtime, "tty").await;
        assert_eq!(text, "/dev/pts/0\r\nxterm\r\nerr\r\nup\r\n");
        let size = shoal_runtime::container::WindowSize { rows: 11, columns: 22 };
        runtime.resize("tty", size).await.unwrap();
        runtime.remove("tty").await.unwrap();
    });
}

/// Half of what is printed before the end of a line is seen at once; a reader who does not read is let go.
fn whoever_is_attached_sees_what_comes_and_holds_up_nothing(lab: &Lab) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    lab.block_on(async {
        let runtime = lab.open().await;
        let script = "read a; printf 'prompt> '; printf oops >&2; read b; n=0; \
            while [ $n -lt 40000 ]; do echo 'a line of some length, again and again and again'; n=$((n + 1)); done; \
            echo last; read c; exit 3";
        runtime.create(&ContainerSpec { stdin: true, ..lab.spec("tap", script) }).await.unwrap();
        runtime.start("tap").await.unwrap();
        let mut input = runtime.attach("tap").await.unwrap();
        let (mut out, err) = runtime.tap("tap", false).await.unwrap();
        let (mut slow, _) = runtime.tap("tap", false).await.unwrap();
        input.write_all(b"1\n").await.unwrap();
        let (mut said, mut complained) = ([0; 8], [0; 4]);
        within(out.read_exact(&mut said)).await.unwrap();
        within(err.unwrap().read_exact(&mut complained)).await.unwrap();
        assert_eq!((&said, &complained), (b"prompt> ", b"oops"));
        input.write_all(b"2\n").await.unwrap();
        let mut text = Vec::new();
        while !text.ends_with(b"last\n") {
            assert!(within(out.read_buf(&mut text)).await.unwrap() > 0, "the quick one is let go after {}", text.len());
        }
        let (mut kept, mut late) = (Vec::new(), runtime.tap("tap", false).await.unwrap().0);
        within(slow.read_to_end(&mut kept)).await.unwrap();
        assert!(kept.len() < text.len() && text.starts_with(&kept[8..]), "{} of {}", kept.len(), text.len());
        input.write_all(b"3\n").await.unwrap();
        assert_eq!(within(runtime.wait("tap")).await.unwrap().code, 3);
        for reader in [&mut out, &mut late] {
            assert_eq!(within(reader.read(&mut [0; 16])).await.unwrap(), 0, "it ends with the container");
        }
        runtime.remove("tap").await.unwrap();
    });
}

fn input_reaches_the_command_and_ends(lab: &Lab) {
    use tokio::io::AsyncWriteExt;
    lab.block_on(async {
        let runtime = lab.open().await;
        runtime.create(&ContainerSpec { stdin: true, ..lab.spec("input", "cat; echo end") }).await.unwrap();
        runtime.start("input").await.unwrap();
        let mut input = runtime.attach("input").await.unwrap();
        input.write_all(b"hello\n").await.unwrap();
        until_output(&runtime, "input", "hello").await;
        runtime.close_stdin("input").await.unwrap();
        drop(input);
        assert_eq!(within(runtime.wait("input")).await.unwrap().code, 0);
        assert_eq!(output(&runtime, "input").await, "hello\nend\n");
        runtime.remove("input").await.unwrap();
    });
}
