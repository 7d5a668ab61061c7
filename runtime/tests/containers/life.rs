//! From create to removal: output, ends of every kind, reasons for not starting, stopping, limits.

use std::time::{Duration, Instant};

use shoal_runtime::container::{ContainerSpec, ContainerState, FailureKind, Lease, Limits, StartError};

use super::Case;
use super::lab::{Lab, output, until_output, within};

pub(crate) const CASES: &[Case] = &[
    ("output_and_success_are_told", output_and_success_are_told),
    ("an_exit_code_is_told", an_exit_code_is_told),
    ("a_death_by_signal_is_told", a_death_by_signal_is_told),
    ("a_command_that_cannot_run_is_named_with_dockers_codes", a_command_that_cannot_run_is_named_with_dockers_codes),
    ("a_bad_user_or_directory_is_named", a_bad_user_or_directory_is_named),
    ("a_missing_layer_is_named", a_missing_layer_is_named),
    ("a_failure_of_exec_is_told_by_start_and_by_the_exit", a_failure_of_exec_is_told_by_start_and_by_the_exit),
    ("stop_lets_a_willing_process_end_by_itself", stop_lets_a_willing_process_end_by_itself),
    ("stop_kills_what_ignores_it", stop_kills_what_ignores_it),
    ("what_was_only_created_can_be_stopped_and_removed", what_was_only_created_can_be_stopped_and_removed),
    ("what_nobody_waits_to_be_created_is_removed_too", what_nobody_waits_to_be_created_is_removed_too),
    ("a_lease_that_nobody_renews_ends_a_container", a_lease_that_nobody_renews_ends_a_container),
    ("the_memory_limit_kills_and_says_so", the_memory_limit_kills_and_says_so),
    ("a_fork_bomb_is_bounded_and_removed", a_fork_bomb_is_bounded_and_removed),
    ("one_id_is_one_container", one_id_is_one_container),
    ("twenty_start_at_once", twenty_start_at_once),
    ("five_hundred_layers_are_mounted", five_hundred_layers_are_mounted),
];

fn output_and_success_are_told(lab: &Lab) {
    let (exit, text) = lab.run(&lab.spec("echo", "echo out; echo err >&2; printf end"));
    assert_eq!((exit.code, exit.signal, exit.oom, exit.error), (0, None, false, None));
    assert!(exit.started_at_ms > 0 && exit.finished_at_ms >= exit.started_at_ms);
    for word in ["out\n", "err\n", "end"] {
        assert!(text.contains(word), "{text}");
    }
}

/// A task that is stopped while its container is being made: the node drops the creation and removes the container.
fn what_nobody_waits_to_be_created_is_removed_too(lab: &Lab) {
    lab.block_on(async {
        let runtime = lab.open().await;
        for patience in [0, 1, 5, 20] {
            let spec = lab.spec("dropped", "sleep 1000");
            let creation = tokio::time::timeout(Duration::from_millis(patience), runtime.create(&spec));
            // Whether it was in time makes no difference.
            let _ = within(creation).await;
            runtime.remove("dropped").await.unwrap();
            assert!(runtime.list().is_empty() && runtime.status("dropped").is_none());
            assert!(!lab.state_dir().join("containers/dropped").exists());
        }
        runtime.create(&lab.spec("dropped", "exit 0")).await.unwrap();
        runtime.remove("dropped").await.unwrap();
    });
}

/// It goes on while its file is touched, is then asked to end, and is killed if it does not.
fn a_lease_that_nobody_renews_ends_a_container(lab: &Lab) {
    let file = lab.top().join("lease");
    let touch = || std::fs::write(&file, "").unwrap();
    let spec = |id: &str, script: &str| {
        let lease = Lease { file: file.clone(), timeout_ms: 2_500, signal: libc::SIGTERM, grace_ms: 1_000 };
        ContainerSpec { lease: Some(lease), ..lab.spec(id, script) }
    };
    lab.block_on(async {
        let runtime = lab.open().await;
        touch();
        for (id, script) in [
            ("willing", "trap 'exit 3' TERM; echo up; while :; do sleep 0.1; done"),
            ("deaf", "trap '' TERM; echo up; while :; do sleep 0.1; done"),
        ] {
            runtime.create(&spec(id, script)).await.unwrap();
            runtime.start(id).await.unwrap();
            until_output(&runtime, id, "up").await;
        }
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            touch();
        }
        let running = |id: &str| matches!(runtime.status(id).unwrap().state, ContainerState::Running { .. });
        assert!(running("willing") && running("deaf"), "five seconds are longer than the lease");
        let last = Instant::now();
        let exit = within(runtime.wait("willing")).await.unwrap();
        assert_eq!((exit.code, exit.signal), (3, None));
        assert!(last.elapsed() > Duration::from_secs(2), "{:?}", last.elapsed());
        let exit = within(runtime.wait("deaf")).await.unwrap();
        assert_eq!((exit.code, exit.signal), (137, Some(9)));
        for id in ["willing", "deaf"] {
            runtime.remove(id).await.unwrap();
        }
    });
}

fn an_exit_code_is_told(lab: &Lab) {
    let (exit, _) = lab.run(&lab.spec("seven", "exit 7"));
    assert_eq!((exit.code, exit.signal, exit.error), (7, None, None));
}

fn a_death_by_signal_is_told(lab: &Lab) {
    lab.block_on(async {
        let runtime = lab.open().await;
        runtime.create(&lab.spec("killed", "echo up; sleep 1000")).await.unwrap();
        runtime.start("killed").await.unwrap();
        until_output(&runtime, "killed", "up").await;
        let waiting = tokio::spawn({
            let runtime = runtime.clone();
            async move { runtime.wait("killed").await }
        });
        runtime.signal("killed", libc::SIGKILL).await.unwrap();
        let exit = within(waiting).await.unwrap().unwrap();
        assert_eq!((exit.code, exit.signal, exit.oom), (137, Some(9), false));
        assert_eq!(runtime.wait("killed").await.unwrap(), exit, "waiting again gives the same");
        runtime.signal("killed", libc::SIGTERM).await.unwrap();
        runtime.remove("killed").await.unwrap();
        runtime.remove("killed").await.unwrap();
    });
}

/// Creates, starts, and returns the failure of whichever of the two failed.
fn failure(lab: &Lab, spec: &ContainerSpec) -> (Option<FailureKind>, i32, String) {
    lab.block_on(async {
        let runtime = lab.open().await;
        let result = match runtime.create(spec).await {
            Ok(_) => runtime.start(&spec.id).await,
            Err(error) => Err(error),
        };
        let error = result.expect_err("it must not start");
        runtime.remove(&spec.id).await.unwrap();
        let kind = if let StartError::Failed { kind, .. } = &error { Some(*kind) } else { None };
        (kind, error.exit_code(), error.to_string())
    })
}

fn a_command_that_cannot_run_is_named_with_dockers_codes(lab: &Lab) {
    let cases = [
        ("foo", 127, "executable \"foo\" not found in $PATH"),
        ("/bin/foo", 127, "executable \"/bin/foo\" not found"),
        ("/etc/passwd/x", 127, "not found"),
        ("not-executable", 126, "executable \"not-executable\": permission denied"),
        ("/etc", 126, "is not a regular file"),
        ("no-interpreter", 127, "interpreter or dynamic loader is missing"),
        ("not-a-program", 126, "exec format error"),
    ];
    for (command, code, message) in cases {
        let spec = ContainerSpec { args: vec![command.to_owned()], ..lab.spec("bad", "") };
        let (_, found, text) = failure(lab, &spec);
        assert_eq!((found, text.contains(message)), (code, true), "{command}: {found} {text}");
    }
}

fn a_bad_user_or_directory_is_named(lab: &Lab) {
    let (kind, code, text) =
        failure(lab, &ContainerSpec { user: "nobody-here".to_owned(), ..lab.spec("user", "true") });
    assert_eq!((kind, code), (Some(FailureKind::User), 125));
    assert!(text.contains("unable to find user nobody-here"), "{text}");
    let (kind, code, text) = failure(lab, &ContainerSpec { cwd: "/etc/passwd".to_owned(), ..lab.spec("cwd", "true") });
    assert_eq!((kind, code), (Some(FailureKind::WorkingDirectory), 126));
    assert!(text.contains("working directory \"/etc/passwd\""), "{text}");
    let (exit, text) =
        lab.run(&ContainerSpec { cwd: "/new/dir".to_owned(), ..lab.spec("cwd", "readlink /proc/self/cwd") });
    assert_eq!((exit.code, text.as_str()), (0, "/new/dir\n"), "a missing one is made, as Docker does");
}

fn a_missing_layer_is_named(lab: &Lab) {
    let mut spec = lab.spec("layer", "true");
    spec.layers.push(lab.top().join("missing"));
    let (kind, _, text) = failure(lab, &spec);
    assert_eq!(kind, Some(FailureKind::Rootfs));
    assert!(text.contains("missing") && text.contains("load the image again"), "{text}");
}

fn a_failure_of_exec_is_told_by_start_and_by_the_exit(lab: &Lab) {
    lab.block_on(async {
        let runtime = lab.open().await;
        let spec = ContainerSpec { args: vec!["no-interpreter".to_owned()], ..lab.spec("exec", "") };
        runtime.create(&spec).await.unwrap();
        let told = runtime.start("exec").await.unwrap_err().to_string();
        let exit = within(runtime.wait("exec")).await.unwrap();
        assert_eq!((exit.code, exit.error), (127, Some(told)));
        assert!(matches!(runtime.start("exec").await, Err(StartError::NotCreated(_))));
        runtime.remove("exec").await.unwrap();
    });
}

fn stop_lets_a_willing_process_end_by_itself(lab: &Lab) {
    lab.block_on(async {
        let runtime = lab.open().await;
        let script = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done";
        runtime.create(&lab.spec("willing", script)).await.unwrap();
        runtime.start("willing").await.unwrap();
        until_output(&runtime, "willing", "up").await;
        let exit = runtime.stop("willing", libc::SIGTERM, Duration::from_secs(50)).await.unwrap();
        assert_eq!((exit.code, exit.signal), (3, None));
        assert!(output(&runtime, "willing").await.contains("bye"));
        runtime.remove("willing").await.unwrap();
    });
}

fn stop_kills_what_ignores_it(lab: &Lab) {
    lab.block_on(async {
        let runtime = lab.open().await;
        runtime.create(&lab.spec("stubborn", "trap '' TERM; echo up; while :; do sleep 0.05; done")).await.unwrap();
        runtime.start("stubborn").await.unwrap();
        until_output(&runtime, "stubborn", "up").await;
        let begin = Instant::now();
        let exit = runtime.stop("stubborn", libc::SIGTERM, Duration::from_millis(300)).await.unwrap();
        assert_eq!((exit.code, exit.signal), (137, Some(9)));
        assert!(begin.elapsed() >= Duration::from_millis(300));
        runtime.remove("stubborn").await.unwrap();
    });
}

fn what_was_only_created_can_be_stopped_and_removed(lab: &Lab) {
    lab.block_on(async {
        let runtime = lab.open().await;
        let created = runtime.create(&lab.spec("created", "true")).await.unwrap();
        assert_eq!(runtime.status("created").unwrap().state, ContainerState::Created { pid: created.pid });
        let exit = runtime.stop("created", libc::SIGTERM, Duration::from_secs(50)).await.unwrap();
        assert_eq!((exit.signal, exit.started_at_ms), (Some(9), 0));
        runtime.remove("created").await.unwrap();
        runtime.create(&lab.spec("created", "true")).await.unwrap();
        runtime.remove("created").await.unwrap();
    });
}

fn the_memory_limit_kills_and_says_so(lab: &Lab) {
    let limits = Limits { memory_bytes: Some(32 * 1024 * 1024), ..Limits::default() };
    let spec = ContainerSpec { limits, ..lab.spec("hungry", "x=aaaaaaaa; while :; do x=$x$x; done") };
    let (exit, _) = lab.run(&spec);
    assert_eq!((exit.code, exit.signal, exit.oom), (137, Some(9), true));
    let limits = Limits {
        memory_bytes: Some(32 * 1024 * 1024),
        nano_cpus: Some(500_000_000),
        pids_max: Some(20),
        ..Limits::default()
    };
    let (exit, _) = lab.run(&ContainerSpec { limits, ..lab.spec("modest", "true") });
    assert_eq!((exit.code, exit.oom), (0, false));
}

fn a_fork_bomb_is_bounded_and_removed(lab: &Lab) {
    lab.block_on(async {
        let runtime = lab.open().await;
        let limits = Limits { pids_max: Some(50), ..Limits::default() };
        let script = "echo up; b() { b & b & sleep 1000; }; while :; do b; done";
        runtime.create(&ContainerSpec { limits, ..lab.spec("bomb", script) }).await.unwrap();
        runtime.start("bomb").await.unwrap();
        until_output(&runtime, "bomb", "up").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        within(runtime.remove("bomb")).await.unwrap();
    });
}

fn one_id_is_one_container(lab: &Lab) {
    lab.block_on(async {
        let runtime = lab.open().await;
        let spec = lab.spec("twin", "sleep 1000");
        let (one, two) = tokio::join!(runtime.create(&spec), runtime.create(&spec));
        assert!(one.is_ok() != two.is_ok());
        assert!(matches!(one.and(two), Err(StartError::Exists(id)) if id == "twin"));
        runtime.remove("twin").await.unwrap();
        assert!(matches!(runtime.start("twin").await, Err(StartError::Missing(_))));
        assert!(runtime.wait("twin").await.is_err());
    });
}

fn twenty_start_at_once(lab: &Lab) {
    lab.block_on(async {
        let runtime = lab.open().await;
        let mut starts = tokio::task::JoinSet::new();
        for number in 0..20 {
            let (runtime, spec) = (runtime.clone(), lab.spec(&format!("many-{number}"), "echo here; exit 5"));
            starts.spawn(async move {
                runtime.create(&spec).await.unwrap();
                runtime.start(&spec.id).await.unwrap();
                let exit = within(runtime.wait(&spec.id)).await.unwrap();
                let text = output(&runtime, &spec.id).await;
                runtime.remove(&spec.id).await.unwrap();
                (exit.code, text)
            });
        }
        for (code, text) in starts.join_all().await {
            assert_eq!((code, text.as_str()), (5, "here\n"));
        }
    });
}

fn five_hundred_layers_are_mounted(lab: &Lab) {
    let layers = lab.top().join("layers: with, odd=characters\\");
    let mut spec = lab.spec("layers", "cat /file; ls /many | while read name; do echo $name; done");
    for number in 0..499 {
        let layer = layers.join(format!("{number}"));
        std::fs::create_dir_all(layer.join("many")).unwrap();
        std::fs::write(layer.join("many").join(format!("{number}")), "").unwrap();
        std::fs::write(layer.join("file"), format!("{number}\n")).unwrap();
        spec.layers.push(layer);
    }
    spec.layers.remove(1);
    spec.layers.insert(0, spec.layers[5].clone());
    let (exit, text) = lab.run(&spec);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((exit.code, lines[0], lines.len()), (0, "498", 499));
}
