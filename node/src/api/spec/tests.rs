//! Round trips between Docker's spec and shoal's, and what is refused.

use std::collections::BTreeMap;

use bollard::models::{ServiceSpec as DockerSpec, TaskSpec as DockerTaskSpec, TaskSpecContainerSpec};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};
use shoal_cluster::intent::constraint::{Constraint, Spread};
use shoal_cluster::intent::name::Name;
use shoal_cluster::intent::service::{
    ImageRef, Mode, PlacementSpec, Reserved, Resources, RestartCondition, RestartPolicy, ServiceSpec, TaskSpec,
};
use shoal_cluster::limits::REPLICAS_MAX;

use super::{AcceptError, accept, show};

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// What Docker's client 28.2 sends for `service create --name web web:1`.
fn from_docker() -> Value {
    json!({
        "Name": "web",
        "Labels": {},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": format!("web:1@{DIGEST}"),
                "Init": false,
                "DNSConfig": {},
                "Isolation": "default"
            },
            "Resources": { "Limits": {}, "Reservations": {} },
            "Placement": { "Platforms": [{ "Architecture": "amd64", "OS": "linux" }] },
            "ForceUpdate": 0,
            "Runtime": "container"
        },
        "Mode": { "Replicated": {} },
        "EndpointSpec": { "Mode": "vip" }
    })
}

fn accepted(spec: Value) -> Result<ServiceSpec, AcceptError> {
    accept(serde_json::from_value(spec).unwrap())
}

/// Returns Docker's spec with one value set, `path` being a JSON pointer whose parents are made.
fn with(path: &str, value: Value) -> Value {
    let mut spec = from_docker();
    let mut at = &mut spec;
    for key in path.split('/') {
        at = &mut at[key];
    }
    *at = value;
    spec
}

#[test]
fn what_dockers_client_sends_for_options_that_were_not_given_is_accepted() {
    let spec = accepted(from_docker()).unwrap();
    let task = TaskSpec::new(ImageRef { reference: "web:1".to_owned(), digest: Some(DIGEST.to_owned()) });
    let mut expected = ServiceSpec::new(Name::new("web").unwrap(), 1, task);
    expected.placement.platforms = vec![("linux".to_owned(), "amd64".to_owned())];
    assert_eq!(spec, expected);
}

#[test]
fn what_shoal_does_not_have_is_refused_by_its_name() {
    let container = "TaskTemplate/ContainerSpec";
    for (path, value, option) in [
        (format!("{container}/Mounts"), json!([{ "Target": "/a", "Type": "volume" }]), "--mount"),
        (format!("{container}/Secrets"), json!([{ "SecretID": "a" }]), "--secret"),
        (format!("{container}/Configs"), json!([{ "ConfigID": "a" }]), "--config"),
        (format!("{container}/HealthCheck"), json!({ "Test": ["CMD", "true"] }), "--health-"),
        (format!("{container}/DNSConfig"), json!({ "Nameservers": ["1.1.1.1"] }), "--dns"),
        (format!("{container}/Privileges"), json!({ "NoNewPrivileges": true }), "privileges"),
        (format!("{container}/CapabilityAdd"), json!(["CAP_NET_ADMIN"]), "--cap-add"),
        (format!("{container}/Init"), json!(true), "--init"),
        (format!("{container}/TTY"), json!(true), "--tty"),
        (format!("{container}/Isolation"), json!("hyperv"), "--isolation"),
        (format!("{container}/Hostname"), json!("{{.Node.Hostname}}"), "templates"),
        (
            "TaskTemplate/Resources/Reservations".to_owned(),
            json!({ "GenericResources": [{ "DiscreteResourceSpec": { "Kind": "gpu", "Value": 1 } }] }),
            "--generic-resource",
        ),
        ("TaskTemplate/RestartPolicy".to_owned(), json!({ "Window": 1 }), "--restart-window"),
        ("TaskTemplate/LogDriver".to_owned(), json!({ "Name": "syslog" }), "--log-driver"),
        ("TaskTemplate/Networks".to_owned(), json!([{ "Target": "other" }]), "networks"),
        ("EndpointSpec/Ports".to_owned(), json!([{ "TargetPort": 80 }]), "--publish"),
    ] {
        let error = accepted(with(&path, value)).unwrap_err();
        assert!(error.is_unsupported(), "{path}: {error}");
        assert!(error.to_string().starts_with("shoal does not support "), "{path}: {error}");
        assert!(error.to_string().contains(option), "{path}: {error}");
    }
}

#[test]
fn placement_is_accepted_and_wrong_constraints_say_what_to_write() {
    let spec = accepted(with("Mode", json!({ "Global": {} }))).unwrap();
    assert_eq!(spec.mode, Mode::Global);
    assert_eq!(accept(show(&spec)).unwrap(), spec);
    let wrong = with("TaskTemplate/Placement/Constraints", json!(["node.labels.disk=ssd"]));
    let error = accepted(wrong).unwrap_err();
    assert!(!error.is_unsupported() && error.to_string().contains("write an attribute, == or !="), "{error}");
    let wrong = with("TaskTemplate/Placement/MaxReplicas", json!(-1));
    assert!(accepted(wrong).unwrap_err().to_string().contains("Placement.MaxReplicas"));
}

#[test]
fn impossible_values_are_refused_with_their_field() {
    let container = "TaskTemplate/ContainerSpec";
    for (path, value, part) in [
        ("Name".to_owned(), json!("a b"), "not a valid name"),
        ("Name".to_owned(), json!(""), "not a valid name"),
        ("Mode/Replicated/Replicas".to_owned(), json!(-1), "-1 replicas"),
        ("Mode/Replicated/Replicas".to_owned(), json!(REPLICAS_MAX + 1), "100001 replicas"),
        ("Mode/Replicated/Replicas".to_owned(), json!(i64::MAX), "replicas"),
        (format!("{container}/Image"), json!(""), "no image"),
        (format!("{container}/Image"), json!("Web:1"), "invalid image name"),
        (format!("{container}/Env"), json!(["=x"]), "NAME=value"),
        (format!("{container}/Env"), json!(["x"]), "NAME=value"),
        (format!("{container}/Args"), json!(["a\u{0}b"]), "zero byte"),
        (format!("{container}/Dir"), json!("tmp"), "absolute"),
        (format!("{container}/Hostname"), json!("a b"), "host name"),
        (format!("{container}/StopSignal"), json!("SIGNOPE"), "not a signal"),
        (format!("{container}/StopGracePeriod"), json!(-5), "negative"),
        (format!("{container}/Labels"), json!({ "": "x" }), "no key"),
        ("TaskTemplate/Resources/Limits".to_owned(), json!({ "MemoryBytes": -1 }), "negative"),
        ("TaskTemplate/RestartPolicy".to_owned(), json!({ "MaxAttempts": -1 }), "negative"),
        (format!("{container}/Env"), json!([format!("A={}", "x".repeat(70_000))]), "more than"),
    ] {
        let error = accepted(with(&path, value)).unwrap_err();
        assert!(!error.is_unsupported(), "{path}: {error}");
        assert!(error.to_string().contains(part), "{path}: {error}");
    }
}

#[test]
fn the_built_in_network_may_be_named() {
    assert!(accepted(with("TaskTemplate/Networks", json!([{ "Target": "shoal" }]))).is_ok());
}

#[test]
fn images_are_kept_in_dockers_familiar_form() {
    for (given, reference, digest) in [
        ("web", "web:latest", None),
        ("docker.io/library/web:1", "web:1", None),
        (&format!("web@{DIGEST}"), "web", Some(DIGEST)),
        (&format!("example.org/team/web:1@{DIGEST}"), "example.org/team/web:1", Some(DIGEST)),
    ] {
        let image = accepted(with("TaskTemplate/ContainerSpec/Image", json!(given))).unwrap().task.image;
        assert_eq!((image.reference.as_str(), image.digest.as_deref()), (reference, digest));
    }
}

prop_compose! {
    fn image()(name in "[a-z]{1,8}", tag in "[a-z0-9]{1,8}", pinned: bool) -> ImageRef {
        ImageRef { reference: format!("{name}:{tag}"), digest: pinned.then(|| DIGEST.to_owned()) }
    }
}

prop_compose! {
    fn restart()(
        condition in prop_oneof![
            Just(RestartCondition::None), Just(RestartCondition::OnFailure), Just(RestartCondition::Any)
        ],
        delay_ms in 0..1_000_000_000_u64,
        attempts_max in option::of(1..1_000_u64),
    ) -> RestartPolicy {
        RestartPolicy { condition, delay_ms, attempts_max }
    }
}

prop_compose! {
    fn limits()(
        nano_cpus in option::of(1..i64::MAX.unsigned_abs()),
        memory_bytes in option::of(1..i64::MAX.unsigned_abs()),
        pids_max in option::of(1..100_000_u64),
    ) -> Resources {
        Resources { nano_cpus, memory_bytes, pids_max }
    }
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map("[a-zé.]{1,8}", ".{0,8}", 0..4)
}

prop_compose! {
    fn task()(
        image in image(),
        lists in (vec("[^\0]{0,8}", 0..4), vec("[^\0]{0,8}", 0..4), vec("[A-Z]{1,4}=[^\0{]{0,8}", 0..4)),
        labels in labels(),
        texts in (option::of("/[a-z]{0,8}"), option::of("[a-z]{1,8}"), option::of("[a-z]{1,8}")),
        read_only: bool,
        stop_signal in option::of(prop_oneof![Just("SIGINT".to_owned()), Just("15".to_owned()), Just("quit".to_owned())]),
        stop_grace_ms in 0..1_000_000_000_u64,
        limits in limits(),
        restart in restart(),
        force_update: u64,
    ) -> TaskSpec {
        let ((command, args, env), (workdir, user, hostname)) = (lists, texts);
        TaskSpec {
            image, command, args, env, labels, workdir, user, hostname, read_only, stop_signal, stop_grace_ms, limits,
            restart, force_update,
        }
    }
}

fn placement() -> impl Strategy<Value = PlacementSpec> {
    (any::<bool>(), any::<bool>(), 0..4_u32, any::<bool>()).prop_map(|(constrained, spread, most, platform)| {
        let constraint = Constraint::parse("node.labels.disk != ssd").unwrap();
        PlacementSpec {
            constraints: constrained.then_some(constraint).into_iter().collect(),
            spread: spread.then(|| Spread::parse("spread=node.labels.zone").unwrap()).into_iter().collect(),
            replicas_per_node_max: most,
            platforms: platform.then(|| ("linux".to_owned(), "amd64".to_owned())).into_iter().collect(),
        }
    })
}

proptest! {
    /// An update that changes one thing sends all the others back as they were shown.
    #[test]
    fn specs_survive_the_way_to_docker_and_back(
        name in "[a-zA-Z][a-z0-9]{0,8}",
        labels in labels(),
        replicas in 0..=REPLICAS_MAX,
        task in task(),
        reserved in (0..9_u64, 0..9_u64).prop_map(|(nano_cpus, memory_bytes)| Reserved { nano_cpus, memory_bytes }),
        placement in placement(),
    ) {
        let mut spec = ServiceSpec::new(Name::new(&name).unwrap(), replicas, task);
        spec.labels = labels;
        spec.reserved = reserved;
        spec.placement = placement;
        let json = serde_json::to_string(&show(&spec)).unwrap();
        let back = accept(serde_json::from_str(&json).unwrap()).unwrap();
        prop_assert_eq!(back.name.as_str(), name);
        prop_assert_eq!(back, spec);
    }

    #[test]
    fn hostile_texts_do_not_panic(image in ".{0,40}", hostname in ".{0,40}", signal in ".{0,10}", dir in ".{0,10}") {
        let container = TaskSpecContainerSpec {
            image: Some(image),
            hostname: Some(hostname),
            stop_signal: Some(signal),
            dir: Some(dir),
            ..Default::default()
        };
        let task_template = Some(DockerTaskSpec { container_spec: Some(container), ..Default::default() });
        let _ = accept(DockerSpec { name: Some("web".to_owned()), task_template, ..Default::default() });
    }
}
