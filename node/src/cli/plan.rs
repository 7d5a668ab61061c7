//! `shoal plan` and `shoal why`: what runs where, what would, and why.

use std::process::ExitCode;

use clap::Args;

use super::output::Output;
use super::table::table;
use crate::api::status::{PlanAnswer, WhyAnswer};
use crate::client::{Client, encoded};

/// What would happen.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Show the plan as it would be without this node (repeat for several).
    #[arg(long, value_name = "NODE")]
    fail: Vec<String>,
    /// Show the plan as it would be with this node drained (repeat for several).
    #[arg(long, value_name = "NODE")]
    drain: Vec<String>,
    /// Show the plan as it would be with this many nodes more, with these labels (repeat for several kinds).
    #[arg(long, value_name = "COUNT[:KEY=VALUE…]")]
    join: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Which slot.
#[derive(Debug, Args)]
pub struct WhyArgs {
    /// The slot, such as web.3.
    #[arg(value_name = "SERVICE.SLOT", value_parser = slot)]
    slot: (String, u32),
}

fn slot(text: &str) -> Result<(String, u32), String> {
    let parsed = text.rsplit_once('.').and_then(|(service, slot)| Some((service.to_owned(), slot.parse().ok()?)));
    parsed.ok_or_else(|| "expected SERVICE.SLOT, such as web.3".to_owned())
}

pub(super) async fn plan(args: PlanArgs, client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    let changes = [("fail", &args.fail), ("drain", &args.drain), ("join", &args.join)];
    let changes = changes.iter().flat_map(|(kind, of)| of.iter().map(move |what| format!("{kind}:{what}")));
    let changes: Vec<String> = changes.collect();
    let answer: PlanAnswer = client.ask(&format!("/shoal/plan?change={}", encoded(&changes.join(",")))).await?;
    if args.json {
        output.json(&answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    for line in lines(&answer, !changes.is_empty()) {
        output.line(&line)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn why(args: WhyArgs, client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    let (service, slot) = args.slot;
    let answer: WhyAnswer = client.ask(&format!("/shoal/why?service={}&slot={slot}", encoded(&service))).await?;
    let node = answer.node.as_deref().unwrap_or("no node");
    output.line(&format!("{}.{} on {node}: {}", answer.service, answer.slot, answer.why))?;
    if !answer.refused.is_empty() {
        output.line(&format!("ranked higher: {}", answer.refused.join(", ")))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn lines(answer: &PlanAnswer, changed: bool) -> Vec<String> {
    let then = |node: &crate::api::status::NodePlan| if changed { node.then.to_string() } else { String::new() };
    let rows: Vec<[String; 3]> =
        answer.nodes.iter().map(|node| [node.name.clone(), node.tasks.to_string(), then(node)]).collect();
    let mut lines = table(["NODE", "TASKS", if changed { "THEN" } else { "" }], &rows);
    let none = || "pending".to_owned();
    if changed {
        lines.push(format!("{} tasks would move", answer.moved));
        lines.extend(answer.moves.iter().map(|one| {
            let (from, to) = (one.from.clone().unwrap_or_else(none), one.to.clone().unwrap_or_else(none));
            format!("  {}: {from} → {to} ({})", one.slot, one.why)
        }));
    }
    if answer.pending > 0 {
        lines.push(format!("{} tasks {} pending", answer.pending, if changed { "would be" } else { "are" }));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_a_service_and_a_number() {
        assert_eq!(slot("web.3"), Ok(("web".to_owned(), 3)));
        for wrong in ["web", "web.", "web.x", ".", ""] {
            assert!(slot(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn queries_hold_what_was_typed() {
        assert_eq!(encoded("join:2:zone=a b"), "join:2:zone%3Da%20b");
    }
}
