//! `shoal status`: whether the shoal is agreed, and who is behind.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::output::Output;
use super::table::table;
use super::words::{capitalised, duration, size};
use crate::api::status::{MemberStatus, Status};
use crate::api::time::now_ms;
use crate::client::Client;

/// Characters of a digest that are shown.
const DIGEST_CHARS: usize = 12;

/// How to show the status.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Wait until the shoal is agreed, this many seconds at most, and fail if it is not.
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
}

pub(super) async fn run(args: StatusArgs, client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    let deadline = args.wait.map(|seconds| tokio::time::Instant::now() + Duration::from_secs(seconds));
    let status = loop {
        let status: Status = client.ask("/shoal/status").await?;
        match deadline {
            Some(deadline) if !status.agreed && tokio::time::Instant::now() < deadline => {
                output.progress("waiting for agreement…");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            _ => break status,
        }
    };
    if args.json {
        output.json(&status)?;
    } else {
        for line in lines(&status, now_ms()) {
            output.line(&line)?;
        }
    }
    Ok(if args.wait.is_some() && !status.agreed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn lines(status: &Status, now_ms: u64) -> Vec<String> {
    let node = &status.node;
    let up = status.members.iter().filter(|member| is_up(member)).count();
    let agreed = match (status.agreed, node.settled) {
        (true, _) => "yes: all members that are up have the same plan",
        (false, true) => "not yet: see below who differs",
        (false, false) => "not yet: this node is still catching up",
    };
    let running_for = duration(Duration::from_millis(now_ms.saturating_sub(node.started_ms))).to_lowercase();
    let memory = node.rss_bytes.map_or_else(|| "unknown".to_owned(), size);
    let (sent, received) = (size(node.traffic.sent_bytes), size(node.traffic.received_bytes));
    let mut lines = vec![
        format!("Agreed:    {agreed}"),
        format!("Shoal:     {}", status.shoal),
        format!("Node:      {} {} ({}, shoal {})", node.id, node.name, node.role, node.version),
        format!("Running:   {running_for}, memory {memory}, sent {sent}, received {received}"),
        format!("DNS:       {}", node.dns.join(", ")),
        format!("Members:   {up} up of {}", status.members.len()),
        format!("Services:  {}, {} of {} tasks running", status.services, status.tasks_running, status.tasks_wanted),
        String::new(),
    ];
    let rows: Vec<_> = status.members.iter().map(|member| row(status, member)).collect();
    lines.extend(table(["MEMBER", "STATE", "ADDRESS", "BLOCK", "INTENT", "PLAN", "BEHIND", "HEARD"], &rows));
    lines
}

fn is_up(member: &MemberStatus) -> bool {
    matches!(member.state.as_str(), "alive" | "suspect")
}

fn row(status: &Status, member: &MemberStatus) -> [String; 8] {
    let own = member.id == status.node.id;
    let marked = |digest: &str, same: &str| {
        let mark = if digest == same { "" } else { " ≠" };
        format!("{}{mark}", short(digest))
    };
    let (intent, plan, behind, heard) = match &member.said {
        _ if own => (short(&status.intent), short(&status.plan), "-".to_owned(), "this node".to_owned()),
        Some(said) if is_up(member) => (
            marked(&said.intent, &status.intent),
            marked(&said.plan, &status.plan),
            said.behind.to_string(),
            format!("{} ago", duration(Duration::from_millis(said.age_ms)).to_lowercase()),
        ),
        _ => ("-".to_owned(), "-".to_owned(), "-".to_owned(), "-".to_owned()),
    };
    [
        member.name.clone(),
        capitalised(&member.state),
        member.gossip.clone(),
        member.block_v4.clone().unwrap_or_else(|| "-".to_owned()),
        intent,
        plan,
        behind,
        heard,
    ]
}

fn short(digest: &str) -> String {
    digest.chars().take(DIGEST_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::status::{NodeStatus, Said, Traffic};

    fn member(name: &str, state: &str, said: Option<Said>) -> MemberStatus {
        MemberStatus {
            id: format!("id-{name}"),
            name: name.to_owned(),
            state: state.to_owned(),
            incarnation: 1,
            role: "manager".to_owned(),
            gossip: "192.0.2.1:7946".to_owned(),
            block_v4: Some("10.64.3.0/24".to_owned()),
            block_v6: None,
            said,
        }
    }

    #[test]
    fn members_that_differ_are_marked() {
        let said = |plan: &str, behind| {
            let (intent, plan) = ("aaaaaaaaaaaaaaaa".to_owned(), plan.to_owned());
            Some(Said { intent, plan, agrees: false, behind, age_ms: 1_200 })
        };
        let status = Status {
            shoal: "cccccccccccccccc".to_owned(),
            agreed: false,
            node: NodeStatus {
                id: "id-a".to_owned(),
                name: "a".to_owned(),
                role: "manager".to_owned(),
                version: "0.1.0".to_owned(),
                settled: true,
                started_ms: 0,
                rss_bytes: Some(32_000_000),
                traffic: Traffic { sent_bytes: 1_000, received_bytes: 2_000 },
                data_dir: String::new(),
                advertised: String::new(),
                dns: vec!["127.0.0.1:7953".to_owned()],
            },
            intent: "aaaaaaaaaaaaaaaa".to_owned(),
            plan: "bbbbbbbbbbbbbbbb".to_owned(),
            members: vec![
                member("a", "alive", None),
                member("b", "alive", said("dddddddddddddddd", 4)),
                member("c", "down", said("dddddddddddddddd", 4)),
            ],
            services: 1,
            tasks_wanted: 3,
            tasks_running: 2,
        };
        let lines = lines(&status, 90_000);
        assert_eq!(lines[3], "Running:   about a minute, memory 32MB, sent 1kB, received 2kB");
        assert_eq!(lines[5], "Members:   2 up of 3");
        let cells = |line: usize| {
            lines[line].split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>().join("|")
        };
        assert_eq!(cells(9), "a|Alive|192.0.2.1:7946|10.64.3.0/24|aaaaaaaaaaaa|bbbbbbbbbbbb|-|this node");
        assert_eq!(cells(10), "b|Alive|192.0.2.1:7946|10.64.3.0/24|aaaaaaaaaaaa|dddddddddddd ≠|4|1 second ago");
        assert_eq!(cells(11), "c|Down|192.0.2.1:7946|10.64.3.0/24|-|-|-|-");
    }
}
