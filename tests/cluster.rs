//! The whole thing on real hosts: `shoal demo` as a person runs it, and what goes wrong on bad days.
//!
//! Needs root, and says so when it is skipped; with `CI` set a skip is a failure. One after the other, in one process:
//! the tests share the machine's namespaces. A name given as argument runs only the tests that contain it.

#![expect(clippy::print_stdout, reason = "these tests are their own harness")]

mod bad_days;
mod bad_input;
mod jobs;
mod lone_days;
mod options;
mod services;
mod stacks;
mod support;
mod tasks;

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use support::{Lab, PROGRAM, dns, shoal, signal, skip, text, traces, until};

/// A test that runs demos of its own.
type Alone = fn() -> Result<()>;
/// A test in the kept lab. It leaves three nodes that agree, and the service `web` with three replicas.
type InLab = fn(&mut Lab) -> Result<()>;

const ALONE: &[(&str, Alone)] = &[
    ("the_demo_shows_every_step_and_leaves_nothing", the_demo_shows_every_step_and_leaves_nothing),
    ("ctrl_c_in_the_middle_leaves_nothing", ctrl_c_in_the_middle_leaves_nothing),
    ("what_a_killed_demo_left_is_removed_by_clean", what_a_killed_demo_left_is_removed_by_clean),
    ("without_root_the_demo_says_what_is_missing", without_root_the_demo_says_what_is_missing),
    (
        "a_daemon_killed_at_every_stage_loses_and_doubles_nothing",
        lone_days::a_daemon_killed_at_every_stage_loses_and_doubles_nothing,
    ),
    ("a_killed_shim_is_told_and_its_task_replaced", lone_days::a_killed_shim_is_told_and_its_task_replaced),
    ("after_a_restart_of_the_host_all_tasks_run_again", lone_days::after_a_restart_of_the_host_all_tasks_run_again),
    (
        "a_node_that_stops_while_tasks_start_leaves_nothing",
        lone_days::a_node_that_stops_while_tasks_start_leaves_nothing,
    ),
    ("a_node_that_leaves_for_good_forgets_its_shoal", lone_days::a_node_that_leaves_for_good_forgets_its_shoal),
];

const IN_LAB: &[(&str, InLab)] = &[
    ("every_node_answers_names_and_denies_others", every_node_answers_names_and_denies_others),
    ("any_node_takes_commands_and_all_see_them", any_node_takes_commands_and_all_see_them),
    ("the_docker_client_works_on_any_node", the_docker_client_works_on_any_node),
    ("logs_of_three_nodes_are_merged_and_followed", tasks::logs_of_three_nodes_are_merged_and_followed),
    ("commands_run_in_tasks_of_other_nodes", tasks::commands_run_in_tasks_of_other_nodes),
    ("containers_are_shown_measured_and_ended", tasks::containers_are_shown_measured_and_ended),
    ("dockers_client_attaches_to_tasks_of_other_nodes", tasks::dockers_client_attaches_to_tasks_of_other_nodes),
    ("a_killed_daemon_is_said_and_its_logs_come_again", tasks::a_killed_daemon_is_said_and_its_logs_come_again),
    (
        "no_request_fails_while_a_service_is_updated_rolled_back_and_moved",
        services::no_request_fails_while_a_service_is_updated_rolled_back_and_moved,
    ),
    (
        "an_update_that_fails_is_paused_with_the_reason_and_rolled_back",
        services::an_update_that_fails_is_paused_with_the_reason_and_rolled_back,
    ),
    ("a_second_demo_is_refused_while_one_is_kept", a_second_demo_is_refused_while_one_is_kept),
    ("wrong_api_requests_are_refused_with_a_message", bad_input::wrong_api_requests_are_refused_with_a_message),
    ("an_update_of_a_stale_version_is_out_of_sequence", bad_input::an_update_of_a_stale_version_is_out_of_sequence),
    ("impossible_services_are_refused_by_the_command", bad_input::impossible_services_are_refused_by_the_command),
    ("broken_image_archives_are_refused", bad_input::broken_image_archives_are_refused),
    ("garbage_on_every_port_changes_nothing", bad_input::garbage_on_every_port_changes_nothing),
    ("a_missing_command_is_shown_and_backed_off", bad_days::a_missing_command_is_shown_and_backed_off),
    ("a_task_that_exits_at_once_is_backed_off", bad_days::a_task_that_exits_at_once_is_backed_off),
    ("without_root_up_says_so", bad_input::without_root_up_says_so),
    ("a_socket_or_directory_in_use_is_named", bad_input::a_socket_or_directory_in_use_is_named),
    ("a_port_in_use_is_named", bad_input::a_port_in_use_is_named),
    ("a_mistyped_token_is_refused_at_once", bad_input::a_mistyped_token_is_refused_at_once),
    ("a_token_of_another_shoal_is_refused", bad_days::a_token_of_another_shoal_is_refused),
    ("a_joiner_whose_clock_is_far_off_is_refused", bad_days::a_joiner_whose_clock_is_far_off_is_refused),
    (
        "what_dockers_client_asks_for_is_what_the_container_sees",
        options::what_dockers_client_asks_for_is_what_the_container_sees,
    ),
    (
        "a_task_counts_once_it_is_healthy_and_is_replaced_when_it_is_not",
        options::a_task_counts_once_it_is_healthy_and_is_replaced_when_it_is_not,
    ),
    (
        "a_port_that_answers_is_healthy_and_one_that_does_not_is_not",
        options::a_port_that_answers_is_healthy_and_one_that_does_not_is_not,
    ),
    (
        "a_healthy_task_still_counts_when_its_daemon_comes_back",
        options::a_healthy_task_still_counts_when_its_daemon_comes_back,
    ),
    ("the_end_of_a_task_is_told_truly", options::the_end_of_a_task_is_told_truly),
    (
        "a_volume_keeps_its_data_and_its_tasks_wait_for_its_node",
        options::a_volume_keeps_its_data_and_its_tasks_wait_for_its_node,
    ),
    (
        "dockers_client_manages_the_volumes_of_the_node_it_asks",
        options::dockers_client_manages_the_volumes_of_the_node_it_asks,
    ),
    ("a_job_runs_each_of_its_tasks_once", jobs::a_job_runs_each_of_its_tasks_once),
    ("dockers_client_runs_jobs_and_waits_for_them", jobs::dockers_client_runs_jobs_and_waits_for_them),
    ("what_a_job_did_while_its_daemon_was_dead_counts", jobs::what_a_job_did_while_its_daemon_was_dead_counts),
    ("a_stack_is_deployed_changed_and_removed", stacks::a_stack_is_deployed_changed_and_removed),
    ("dockers_client_deploys_a_stack_and_removes_it", stacks::dockers_client_deploys_a_stack_and_removes_it),
    (
        "what_two_halves_wrote_is_shown_until_someone_writes_again",
        bad_days::what_two_halves_wrote_is_shown_until_someone_writes_again,
    ),
    ("a_fenced_service_runs_on_one_side_of_a_split_only", bad_days::a_fenced_service_runs_on_one_side_of_a_split_only),
    ("a_node_that_is_gone_is_removed_and_may_come_back", bad_days::a_node_that_is_gone_is_removed_and_may_come_back),
    (
        "a_node_that_leaves_for_good_is_another_when_it_joins_again",
        bad_days::a_node_that_leaves_for_good_is_another_when_it_joins_again,
    ),
    ("an_unreachable_seed_is_tried_until_told_to_stop", bad_days::an_unreachable_seed_is_tried_until_told_to_stop),
    ("a_daemon_killed_alone_leaves_its_tasks_running", bad_days::a_daemon_killed_alone_leaves_its_tasks_running),
    ("a_node_started_right_after_its_death_comes_up", bad_days::a_node_started_right_after_its_death_comes_up),
    ("a_torn_last_record_is_cut_off_and_nothing_lost", bad_days::a_torn_last_record_is_cut_off_and_nothing_lost),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let chosen = |name: &str| filter.is_none_or(|filter| name.contains(filter.as_str()));
    let names = ALONE.iter().map(|(name, _)| *name).chain(IN_LAB.iter().map(|(name, _)| *name));
    if arguments.iter().any(|argument| argument == "--list") {
        names.for_each(|name| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: these tests make network namespaces and containers, so they need root");
        return if std::env::var_os("CI").is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let mut failed = Vec::new();
    for (name, test) in ALONE.iter().filter(|(name, _)| chosen(name)) {
        report(name, &mut failed, test);
    }
    let in_lab: Vec<_> = IN_LAB.iter().filter(|(name, _)| chosen(name)).collect();
    if !in_lab.is_empty() {
        run_in_lab(&in_lab, &mut failed);
    }
    println!("\ntest result: {}. {} failed: {failed:?}", if failed.is_empty() { "ok" } else { "FAILED" }, failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_in_lab(tests: &[&(&'static str, InLab)], failed: &mut Vec<&'static str>) {
    let mut lab = None;
    report("a_kept_demo_stays_up", failed, || {
        lab = Some(Lab::start()?);
        Ok(())
    });
    if let Some(mut lab) = lab {
        for (name, test) in tests {
            report(name, failed, || {
                test(&mut lab)?;
                lab.settle("web", 3).context("what the test left behind")
            });
        }
    }
    report("clean_removes_a_kept_demo", failed, nothing_is_left);
}

fn report(name: &'static str, failed: &mut Vec<&'static str>, test: impl FnOnce() -> Result<()>) {
    let begun = Instant::now();
    match test() {
        Ok(()) => println!("test {name} ... ok ({:.1} s)", begun.elapsed().as_secs_f64()),
        Err(error) => {
            println!("test {name} ... FAILED ({:.1} s)\n{error:#}\n", begun.elapsed().as_secs_f64());
            failed.push(name);
        }
    }
}

fn nothing_is_left() -> Result<()> {
    let left = traces::left();
    ensure!(left.is_empty(), "left behind: {left:#?}");
    Ok(())
}

fn the_demo_shows_every_step_and_leaves_nothing() -> Result<()> {
    let output = shoal(&["demo"])?;
    let said = text(&output);
    ensure!(output.status.success(), "{said}");
    for step in [
        "node1 founds a shoal",
        "every node sees three nodes ready",
        "three tasks run",
        "resolves web.shoal.internal",
        "through the QUIC tunnel",
        "a replacement answers over HTTP",
        "every node sees three nodes ready again",
        "exactly three tasks run",
        "memory of an idle node",
        "nothing is left behind",
    ] {
        ensure!(said.contains(step), "the demo does not say {step:?}:\n{said}");
    }
    nothing_is_left()
}

/// Starts a demo, waits until it says `line`, and returns it.
fn demo_until(line: &str) -> Result<std::process::Child> {
    let mut demo = Command::new(PROGRAM).arg("demo").stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(demo.stdout.take().context("piped")?).lines();
    let mut said = String::new();
    for heard in &mut lines {
        let heard = heard?;
        said += &format!("{heard}\n");
        if heard.contains(line) {
            // Somebody must go on listening, or the demo stops at a full pipe.
            std::thread::spawn(move || lines.for_each(drop));
            return Ok(demo);
        }
    }
    bail!("the demo ended before it said {line:?} ({:?}):\n{said}", demo.wait()?)
}

fn ctrl_c_in_the_middle_leaves_nothing() -> Result<()> {
    for (line, which) in [("node1 founds", Signal::SIGINT), ("three tasks run", Signal::SIGTERM)] {
        let mut demo = demo_until(line)?;
        signal(i32::try_from(demo.id())?, which)?;
        let status = demo.wait()?;
        ensure!(status.code() == Some(130), "after {line:?}: {status}");
        nothing_is_left().with_context(|| format!("after {line:?}"))?;
    }
    Ok(())
}

fn what_a_killed_demo_left_is_removed_by_clean() -> Result<()> {
    let mut demo = demo_until("node2 and node3 join")?;
    demo.kill()?;
    demo.wait()?;
    ensure!(!traces::left().is_empty(), "a demo killed in the middle cannot have removed anything");
    let output = shoal(&["demo", "--clean"])?;
    ensure!(output.status.success(), "{}", text(&output));
    nothing_is_left()
}

fn without_root_the_demo_says_what_is_missing() -> Result<()> {
    let output = bad_input::as_nobody(&["demo"])?;
    let said = text(&output);
    ensure!(!output.status.success() && said.contains("root") && said.contains("Nothing was started"), "{said}");
    nothing_is_left()
}

fn every_node_answers_names_and_denies_others(lab: &mut Lab) -> Result<()> {
    let mut answers = Vec::new();
    for node in &lab.nodes {
        for name in ["web.shoal.internal", "tasks.web.shoal.internal", "WEB.Shoal.Internal", "web"] {
            let answer = dns::ask(node, name)?;
            ensure!(answer.code == 0 && answer.addresses.len() == 3, "{} on {name}: {answer:?}", node.name);
            answers.push(answer.addresses);
        }
        let denied = dns::ask(node, "nothing.shoal.internal")?;
        ensure!(denied.code == 3 && denied.authorities == 1, "{denied:?}");
    }
    answers.dedup();
    ensure!(answers.len() == 1, "different answers: {answers:?}");
    Ok(())
}

fn any_node_takes_commands_and_all_see_them(lab: &mut Lab) -> Result<()> {
    for (node, replicas) in [(2, 5), (1, 2), (0, 3)] {
        let output = lab.nodes[node].command(&format!("service scale --detach web={replicas}"))?;
        ensure!(output.status.success(), "{}", text(&output));
        lab.settle("web", replicas)?;
        for node in &lab.nodes {
            until("the name follows", || {
                let answer = dns::ask(node, "web.shoal.internal")?;
                ensure!(answer.addresses.len() == replicas, "{answer:?}");
                Ok(())
            })?;
        }
    }
    Ok(())
}

fn the_docker_client_works_on_any_node(lab: &mut Lab) -> Result<()> {
    if Command::new("docker").arg("--version").output().is_err() {
        return skip("the docker client is not installed");
    }
    for (index, node) in lab.nodes.iter().enumerate() {
        let socket = format!("unix://{}", node.socket().display());
        let name = format!("docker{index}");
        let create = format!("service create --detach --name {name} --replicas 1 whoami:latest");
        let scale = format!("service scale --detach {name}=2");
        for (line, expected) in [
            ("version", "shoal"),
            ("info", "node"),
            ("node ls", "node3"),
            (create.as_str(), ""),
            ("service ls", name.as_str()),
            (&format!("service ps {name}"), name.as_str()),
            (scale.as_str(), ""),
            (&format!("service inspect {name}"), "Replicas"),
            (&format!("service rm {name}"), name.as_str()),
        ] {
            let output = Command::new("docker").args(["-H", &socket]).args(line.split(' ')).output()?;
            let said = text(&output);
            ensure!(output.status.success(), "docker {line}: {said}");
            ensure!(
                said.to_lowercase().contains(&expected.to_lowercase()),
                "docker {line} does not say {expected:?}: {said}"
            );
        }
    }
    Ok(())
}

fn a_second_demo_is_refused_while_one_is_kept(lab: &mut Lab) -> Result<()> {
    let output = shoal(&["demo"])?;
    ensure!(!output.status.success() && text(&output).contains("shoal demo --clean"), "{}", text(&output));
    lab.ok("node ls").map(drop)
}
