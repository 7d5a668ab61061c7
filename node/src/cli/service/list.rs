//! `shoal service ls` and `shoal service ps`: Docker's tables.

use std::collections::HashMap;
use std::process::ExitCode;

use bollard::models::{Service, Task, TaskState};
use bollard::query_parameters::{ListServicesOptionsBuilder, ListTasksOptionsBuilder};
use clap::Args;

use super::{find, mode};
use crate::cli::node;
use crate::cli::objects::FilterArgs;
use crate::cli::output::Output;
use crate::cli::table::table;
use crate::cli::words::{ago, capitalised, short_error, short_id};
use crate::client::Client;

/// How to list tasks.
#[derive(Clone, Copy, Debug, Args)]
pub struct HowArgs {
    /// Show ids and errors in full.
    #[arg(long)]
    no_trunc: bool,
    /// Print ids only.
    #[arg(short, long)]
    quiet: bool,
}

/// Whose tasks to list.
#[derive(Debug, Args)]
pub struct PsArgs {
    #[command(flatten)]
    how: HowArgs,
    /// Which, by id or name.
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
}

/// What a row of tasks needs to know besides the task.
struct Names {
    nodes: HashMap<String, String>,
    services: HashMap<String, String>,
    no_trunc: bool,
}

pub(in crate::cli) async fn services(
    quiet: bool,
    filter: &FilterArgs,
    client: &Client,
    output: &mut Output,
) -> anyhow::Result<ExitCode> {
    let options = ListServicesOptionsBuilder::default().status(true).filters(&filter.map()).build();
    let mut services = client.docker().list_services(Some(options)).await.map_err(|error| client.error(error))?;
    services.sort_by_key(name);
    if quiet {
        return ids(services.into_iter().map(|service| service.id), output);
    }
    let rows: Vec<_> = services.iter().map(service_row).collect();
    for line in table(["ID", "NAME", "MODE", "REPLICAS", "IMAGE", "PORTS"], &rows) {
        output.line(&line)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn ids(ids: impl Iterator<Item = Option<String>>, output: &mut Output) -> anyhow::Result<ExitCode> {
    for id in ids.flatten() {
        output.line(&short_id(&id))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn name(service: &Service) -> String {
    service.spec.as_ref().and_then(|spec| spec.name.clone()).unwrap_or_default()
}

fn service_row(service: &Service) -> [String; 6] {
    let image =
        service.spec.as_ref().and_then(|spec| spec.task_template.as_ref()?.container_spec.as_ref()?.image.clone());
    [
        short_id(service.id.as_deref().unwrap_or_default()),
        name(service),
        mode::word(service).to_owned(),
        mode::counts(service),
        without_digest(image.as_deref().unwrap_or_default()),
        String::new(),
    ]
}

fn without_digest(image: &str) -> String {
    image.split('@').next().unwrap_or_default().to_owned()
}

pub(super) async fn tasks(args: &PsArgs, client: &Client, output: &mut Output) -> anyhow::Result<ExitCode> {
    let mut services = HashMap::new();
    for wanted in &args.services {
        let service = find(client, wanted).await?;
        services.insert(service.id.clone().unwrap_or_default(), name(&service));
    }
    tasks_of(services, args.how, client, output).await
}

/// Lists the tasks of services, which are given as their ids and names.
pub(in crate::cli) async fn tasks_of(
    services: HashMap<String, String>,
    how: HowArgs,
    client: &Client,
    output: &mut Output,
) -> anyhow::Result<ExitCode> {
    let ids = services.keys().cloned().collect();
    tasks_where("service", ids, services, how, client, output).await
}

/// Returns the ids and names of all services.
pub(in crate::cli) async fn all_services(client: &Client) -> anyhow::Result<HashMap<String, String>> {
    let services = client.docker().list_services(None).await.map_err(|error| client.error(error))?;
    Ok(services.iter().map(|service| (service.id.clone().unwrap_or_default(), name(service))).collect())
}

/// Lists the tasks that a filter of the API lets through.
pub(in crate::cli) async fn tasks_where(
    filter: &str,
    values: Vec<String>,
    services: HashMap<String, String>,
    how: HowArgs,
    client: &Client,
    output: &mut Output,
) -> anyhow::Result<ExitCode> {
    let filters = HashMap::from([(filter, values)]);
    let options = ListTasksOptionsBuilder::default().filters(&filters).build();
    let tasks = client.docker().list_tasks(Some(options)).await.map_err(|error| client.error(error))?;
    let nodes = node::all(client).await?;
    let nodes = nodes.iter().map(|node| (node.id.clone().unwrap_or_default(), node::hostname(node))).collect();
    let names = Names { nodes, services, no_trunc: how.no_trunc };
    let tasks = in_order(tasks, &names);
    if how.quiet {
        return ids(tasks.into_iter().map(|task| task.id), output);
    }
    let header = ["ID", "NAME", "IMAGE", "NODE", "DESIRED STATE", "CURRENT STATE", "ERROR", "PORTS"];
    for line in table(header, &task_rows(&tasks, &names)) {
        output.line(&line)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Sorts tasks by service and slot, the newest of a slot first.
fn in_order(mut tasks: Vec<Task>, names: &Names) -> Vec<Task> {
    tasks.sort_by(|one, other| {
        let key = |task: &Task| (names.service(task), task.slot);
        key(one).cmp(&key(other)).then_with(|| other.created_at.cmp(&one.created_at))
    });
    tasks
}

impl Names {
    fn service(&self, task: &Task) -> String {
        let id = task.service_id.as_deref().unwrap_or_default();
        self.services.get(id).cloned().unwrap_or_else(|| id.to_owned())
    }

    fn node(&self, task: &Task) -> String {
        let id = task.node_id.as_deref().unwrap_or_default();
        self.nodes.get(id).cloned().unwrap_or_else(|| id.to_owned())
    }

    fn id(&self, id: &str) -> String {
        if self.no_trunc { id.to_owned() } else { short_id(id) }
    }
}

/// Returns what tells a service's tasks apart: the slot, or of a global service the node.
fn place(task: &Task) -> String {
    task.slot.map_or_else(|| short_id(task.node_id.as_deref().unwrap_or_default()), |slot| slot.to_string())
}

/// Returns the rows; earlier tasks of a slot hang below the newest.
fn task_rows(tasks: &[Task], names: &Names) -> Vec<[String; 8]> {
    let mut previous = String::new();
    let rows = tasks.iter().map(|task| {
        let name = format!("{}.{}", names.service(task), place(task));
        let shown = if name == previous { format!(" \\_ {name}") } else { name.clone() };
        previous = name;
        task_row(task, shown, names)
    });
    rows.collect()
}

fn task_row(task: &Task, name: String, names: &Names) -> [String; 8] {
    let status = task.status.as_ref();
    let image = task.spec.as_ref().and_then(|spec| spec.container_spec.as_ref()?.image.as_deref()).unwrap_or_default();
    let current = capitalised(&word(status.and_then(|status| status.state)));
    let since = ago(status.and_then(|status| status.timestamp.as_deref()));
    let error = status.and_then(|status| status.err.as_deref()).unwrap_or_default();
    [
        names.id(task.id.as_deref().unwrap_or_default()),
        name,
        if names.no_trunc { image.to_owned() } else { without_digest(image) },
        names.node(task),
        capitalised(&word(task.desired_state)),
        format!("{current} {since}"),
        if names.no_trunc && !error.is_empty() { format!("\"{error}\"") } else { short_error(error) },
        String::new(),
    ]
}

/// Returns Docker's word for a state, which is how it is written in JSON.
fn word(state: Option<TaskState>) -> String {
    let json = serde_json::to_value(state).unwrap_or_default();
    json.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use bollard::models::TaskStatus;

    use super::*;
    use crate::api::time::{now_ms, rfc3339};

    fn task(id: &str, slot: i64, age_ms: u64, state: TaskState, error: &str) -> Task {
        let time = Some(rfc3339(now_ms() - age_ms));
        Task {
            id: Some(id.repeat(25)),
            slot: Some(slot),
            service_id: Some("s".to_owned()),
            node_id: Some("n".to_owned()),
            created_at: time.clone(),
            status: Some(TaskStatus {
                timestamp: time,
                state: Some(state),
                err: Some(error.to_owned()),
                ..TaskStatus::default()
            }),
            desired_state: Some(if state == TaskState::RUNNING { TaskState::RUNNING } else { TaskState::SHUTDOWN }),
            ..Task::default()
        }
    }

    #[test]
    fn earlier_tasks_of_a_slot_hang_below_the_newest() {
        let names = Names {
            nodes: HashMap::from([("n".to_owned(), "node-a".to_owned())]),
            services: HashMap::from([("s".to_owned(), "web".to_owned())]),
            no_trunc: false,
        };
        let tasks = in_order(
            vec![
                task("b", 1, 90_000, TaskState::FAILED, "task: non-zero exit (1)"),
                task("c", 2, 7_200_000, TaskState::RUNNING, ""),
                task("a", 1, 100, TaskState::RUNNING, ""),
            ],
            &names,
        );
        let rows = task_rows(&tasks, &names);
        assert_eq!(rows[0][..2], ["aaaaaaaaaaaa", "web.1"]);
        assert_eq!(rows[0][3..6], ["node-a", "Running", "Running less than a second ago"]);
        assert_eq!(rows[1][1], " \\_ web.1");
        assert_eq!(rows[1][4..7], ["Shutdown", "Failed about a minute ago", "\"task: non-zero exit (1)\""]);
        assert_eq!(rows[2][1], "web.2");
        assert_eq!(rows[2][5], "Running 2 hours ago");
    }
}
