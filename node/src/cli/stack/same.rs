//! What differs between a service as a Compose file has it and as the node shows it.
//!
//! A node shows much that nobody has said: Docker's defaults. Those are laid under what the file says, and what is empty on
//! either side says nothing. Where this code is in doubt, something differs: an update that changes nothing restarts nothing.

use std::collections::BTreeSet;

use bollard::models::ServiceSpec;
use serde_json::{Map, Value, json};
use shoal_cluster::intent::constraint::Constraint;

/// Fields in which zero is not what absence means.
const ZERO_COUNTS: [&str; 2] = ["Replicas", "Parallelism"];

/// Returns the fields in which two specs differ, as in `TaskTemplate.ContainerSpec.Env`; none if they are the same.
pub(super) fn differences(file: &ServiceSpec, there: &ServiceSpec) -> Vec<String> {
    let mut differ = Vec::new();
    compare("", &canonical(file), &canonical(there), &mut differ);
    differ
}

/// What a node shows of a service where nothing was said.
fn defaults() -> Value {
    let change = json!({
        "Parallelism": 1,
        "Monitor": 5_000_000_000_u64,
        "FailureAction": "pause",
        "Order": "stop-first",
    });
    json!({
        "TaskTemplate": {
            "ContainerSpec": {
                "StopGracePeriod": 10_000_000_000_u64,
                "Privileges": { "NoNewPrivileges": true },
            },
            "RestartPolicy": { "Condition": "any", "Delay": 1_000_000_000_u64 },
            "Runtime": "container",
        },
        "UpdateConfig": change,
        "RollbackConfig": change,
        "EndpointSpec": { "Mode": "vip" },
    })
}

fn canonical(spec: &ServiceSpec) -> Value {
    let mut value = serde_json::to_value(in_same_words(spec.clone())).unwrap_or_default();
    prune(&mut value);
    lay_under(&mut value, defaults());
    value
}

/// Writes as a node does what may be written in several ways.
fn in_same_words(mut spec: ServiceSpec) -> ServiceSpec {
    let Some(task) = &mut spec.task_template else { return spec };
    let constraints = task.placement.iter_mut().flat_map(|placement| placement.constraints.iter_mut().flatten());
    for text in constraints {
        if let Ok(constraint) = Constraint::try_from(text.clone()) {
            *text = constraint.to_string();
        }
    }
    let options = task.log_driver.iter_mut().flat_map(|driver| driver.options.iter_mut().flatten());
    for (_, text) in options.filter(|(option, _)| *option == "max-size") {
        if let Some(bytes) = log_bytes(text) {
            *text = bytes.to_string();
        }
    }
    spec
}

/// Returns the bytes of a log's size, as in `10m`, whose units are of 1000.
fn log_bytes(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let unit = match lower.chars().last()? {
        'k' => 1_000,
        'm' => 1_000_000,
        'g' => 1_000_000_000,
        _ => 1,
    };
    lower.trim_end_matches(['k', 'm', 'g']).parse::<u64>().ok()?.checked_mul(unit)
}

/// Takes away what is empty.
fn prune(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(prune);
            fields.retain(|name, value| !is_empty(name, value));
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn is_empty(name: &str, value: &Value) -> bool {
    match value {
        Value::Null => true,
        // It is on by default.
        Value::Bool(truth) => !truth && name != "NoNewPrivileges",
        Value::Number(number) => number.as_f64() == Some(0.0) && !ZERO_COUNTS.contains(&name),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// Fills in what is missing.
fn lay_under(value: &mut Value, defaults: Value) {
    let (Value::Object(fields), Value::Object(defaults)) = (value, defaults) else { return };
    for (name, default) in defaults {
        match fields.get_mut(&name) {
            Some(present) => lay_under(present, default),
            None => drop(fields.insert(name, default)),
        }
    }
}

fn compare(path: &str, one: &Value, other: &Value, differ: &mut Vec<String>) {
    let (Value::Object(ones), Value::Object(others)) = (one, other) else {
        if one != other {
            differ.push(path.to_owned());
        }
        return;
    };
    // Keys of labels are the operator's own, and may be long.
    if path.ends_with("Labels") {
        if ones != others {
            differ.push(path.to_owned());
        }
        return;
    }
    let missing = Value::Object(Map::new());
    let names: BTreeSet<&String> = ones.keys().chain(others.keys()).collect();
    for name in names {
        let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match (ones.get(name), others.get(name)) {
            (Some(one), Some(other)) => compare(&below, one, other, differ),
            (one, other) => compare(&below, one.unwrap_or(&missing), other.unwrap_or(&missing), differ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(value: Value) -> ServiceSpec {
        serde_json::from_value(value).unwrap()
    }

    /// What a file says, and what the node shows of it.
    fn pair() -> (ServiceSpec, ServiceSpec) {
        let file = json!({
            "Name": "web",
            "TaskTemplate": {
                "ContainerSpec": { "Image": "web", "Env": [], "Init": false },
                "RestartPolicy": { "Condition": "on-failure" },
                "Resources": { "Limits": { "Pids": 0 } },
                "Placement": { "Constraints": ["node.labels.disk == ssd"] },
                "LogDriver": { "Name": "json-file", "Options": { "max-size": "10m" } },
            },
            "Mode": { "Replicated": { "Replicas": 2 } },
            "UpdateConfig": { "Parallelism": 0, "Order": "start-first" },
        });
        let shown = json!({
            "Name": "web",
            "Labels": {},
            "TaskTemplate": {
                "ContainerSpec": {
                    "Image": "web",
                    "StopGracePeriod": 10_000_000_000_u64,
                    "Privileges": { "NoNewPrivileges": true },
                },
                "RestartPolicy": { "Condition": "on-failure", "Delay": 1_000_000_000, "MaxAttempts": 0 },
                "Runtime": "container",
                "Placement": { "Constraints": ["node.labels.disk==ssd"] },
                "LogDriver": { "Name": "json-file", "Options": { "max-size": "10000000" } },
            },
            "Mode": { "Replicated": { "Replicas": 2 } },
            "UpdateConfig": { "Parallelism": 0, "Delay": 0, "FailureAction": "pause", "Monitor": 5_000_000_000_u64,
                              "MaxFailureRatio": 0.0, "Order": "start-first" },
            "RollbackConfig": { "Parallelism": 1, "Delay": 0, "FailureAction": "pause", "Monitor": 5_000_000_000_u64,
                                "MaxFailureRatio": 0.0, "Order": "stop-first" },
            "EndpointSpec": { "Mode": "vip" },
        });
        (spec(file), spec(shown))
    }

    #[test]
    fn defaults_and_what_is_empty_or_written_otherwise_do_not_differ() {
        let (file, shown) = pair();
        assert_eq!(differences(&file, &shown), Vec::<String>::new());
    }

    #[test]
    fn zero_and_false_count_where_they_say_something() {
        let (mut file, shown) = pair();
        file.mode.as_mut().unwrap().replicated.as_mut().unwrap().replicas = Some(0);
        file.update_config.as_mut().unwrap().parallelism = Some(1);
        let container = file.task_template.as_mut().unwrap().container_spec.as_mut().unwrap();
        container.privileges.get_or_insert_default().no_new_privileges = Some(false);
        assert_eq!(
            differences(&file, &shown),
            [
                "Mode.Replicated.Replicas",
                "TaskTemplate.ContainerSpec.Privileges.NoNewPrivileges",
                "UpdateConfig.Parallelism",
            ]
        );
    }

    #[test]
    fn what_only_one_side_says_differs_on_either_side() {
        let (file, mut shown) = pair();
        let container = shown.task_template.as_mut().unwrap().container_spec.as_mut().unwrap();
        container.args = Some(vec!["-v".to_owned()]);
        shown.labels = Some([("com.example/a".to_owned(), "b".to_owned())].into());
        let both = ["Labels", "TaskTemplate.ContainerSpec.Args"];
        assert_eq!(differences(&file, &shown), both);
        assert_eq!(differences(&shown, &file), both);
    }
}
