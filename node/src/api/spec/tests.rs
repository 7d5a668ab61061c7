//! Round trips between Docker's spec and shoal's, and what is refused.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bollard::models::{ServiceSpec as DockerSpec, TaskSpec as DockerTaskSpec, TaskSpecContainerSpec};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};
use shoal_cluster::crdt::Actor;
use shoal_cluster::intent::Intent;
use shoal_cluster::intent::constraint::{Constraint, Spread};
use shoal_cluster::intent::name::Name;
use shoal_cluster::intent::object::{DataKind, DataSpec, NetworkSpec, Object, ObjectName};
use shoal_cluster::intent::service::container::{ContainerOptions, Dns, Host, Log, Mount, MountSource, Ulimit};
use shoal_cluster::intent::service::file::FileMount;
use shoal_cluster::intent::service::health::{HealthCheck, HealthTest};
use shoal_cluster::intent::service::network::{Attachment, Endpoint, EndpointMode, Port, Protocol, PublishMode};
use shoal_cluster::intent::service::{
    ImageRef, Mode, PlacementSpec, Reserved, Resources, RestartCondition, RestartPolicy, ServiceSpec, TaskSpec,
};
use shoal_cluster::limits::REPLICAS_MAX;
use shoal_cluster::{NodeId, ObjectId};

use super::{AcceptError, Known, accept, show};

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
    accept(&Known::default(), serde_json::from_value(spec).unwrap())
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
        (format!("{container}/Configs"), json!([{ "Runtime": {} }]), "only plugins read"),
        (format!("{container}/OomScoreAdj"), json!(5), "--oom-score-adj"),
        (format!("{container}/Privileges"), json!({ "Seccomp": { "Mode": "custom" } }), "seccomp"),
        (format!("{container}/Privileges"), json!({ "AppArmor": { "Mode": "default" } }), "AppArmor"),
        (format!("{container}/Privileges"), json!({ "SELinuxContext": { "Disable": true } }), "SELinux"),
        (format!("{container}/Privileges"), json!({ "CredentialSpec": { "File": "a" } }), "--credential-spec"),
        (format!("{container}/Isolation"), json!("hyperv"), "--isolation"),
        (format!("{container}/Hostname"), json!("{{.Node.Hostname}}"), "templates"),
        (
            "TaskTemplate/Resources/Reservations".to_owned(),
            json!({ "GenericResources": [{ "DiscreteResourceSpec": { "Kind": "gpu", "Value": 1 } }] }),
            "--generic-resource",
        ),
        ("TaskTemplate/LogDriver".to_owned(), json!({ "Name": "syslog" }), "log drivers besides json-file"),
        (
            "TaskTemplate/LogDriver".to_owned(),
            json!({ "Name": "json-file", "Options": { "tag": "x" } }),
            "--log-opt besides",
        ),
        ("TaskTemplate/Networks".to_owned(), json!([{ "Target": "a", "DriverOpts": { "a": "b" } }]), "driver-opt"),
    ] {
        let error = accepted(with(&path, value)).unwrap_err();
        assert!(error.is_unsupported(), "{path}: {error}");
        assert!(error.to_string().starts_with("shoal does not support "), "{path}: {error}");
        assert!(error.to_string().contains(option), "{path}: {error}");
    }
}

#[test]
fn what_shoals_mounts_cannot_do_is_refused_by_its_name() {
    for (mount, option) in [
        (json!({ "Type": "npipe" }), "type=npipe"),
        (json!({ "Type": "image" }), "type=image"),
        (json!({ "Type": "cluster" }), "type=cluster"),
        (json!({ "Type": "bind", "Consistency": "cached" }), "consistency"),
        (json!({ "Type": "bind", "BindOptions": { "Propagation": "rshared" } }), "bind-propagation"),
        (json!({ "Type": "bind", "BindOptions": { "NonRecursive": true } }), "bind-recursive"),
        (json!({ "Type": "bind", "BindOptions": { "CreateMountpoint": true } }), "making the source"),
        (json!({ "Type": "volume", "VolumeOptions": { "Subpath": "a" } }), "volume-subpath"),
        (json!({ "Type": "volume", "VolumeOptions": { "DriverConfig": { "Name": "nfs" } } }), "volume drivers"),
        (json!({ "Type": "volume", "VolumeOptions": { "DriverConfig": { "Options": { "o": "x" } } } }), "volume-opt"),
        (json!({ "Type": "tmpfs", "TmpfsOptions": { "Options": [["exec"]] } }), "tmpfs-options"),
    ] {
        let mut mount = mount;
        mount["Target"] = json!("/a");
        let error = accepted(with("TaskTemplate/ContainerSpec/Mounts", json!([mount]))).unwrap_err();
        assert!(error.is_unsupported() && error.to_string().contains(option), "{option}: {error}");
    }
}

/// As Docker's clients send it: without a `NoNewPrivileges` of their own, and with Go's names.
#[test]
fn set_uid_programs_raise_privileges_only_where_a_label_says_so() {
    let container = "TaskTemplate/ContainerSpec";
    let plain = accepted(with(&format!("{container}/Privileges"), json!({ "NoNewPrivileges": false }))).unwrap();
    assert!(!plain.task.container.new_privileges);
    let labels = json!({ "shoal.new-privileges": "true", "a": "b" });
    let asked = accepted(with(&format!("{container}/Labels"), labels)).unwrap();
    assert!(asked.task.container.new_privileges);
    assert_eq!(asked.task.labels.len(), 1, "what has a place of its own is no label");
    assert_eq!(accept(&Known::default(), show(&asked)).unwrap(), asked);
    let wrong = accepted(with(&format!("{container}/Labels"), json!({ "shoal.new-privileges": "yes" })));
    assert!(wrong.unwrap_err().to_string().contains("neither true nor false"));
}

#[test]
fn log_sizes_are_dockers_and_the_driver_may_be_named_alone() {
    let log = |options: Value| {
        let driver = json!({ "Name": "json-file", "Options": options });
        accepted(with("TaskTemplate/LogDriver", driver)).map(|spec| spec.task.container.log.unwrap())
    };
    assert_eq!(log(json!({ "max-size": "10m" })).unwrap().file_bytes_max, Some(10_000_000));
    assert_eq!(log(json!({ "max-size": "64kb", "max-file": "3" })).unwrap().files_max, Some(3));
    assert_eq!(log(json!({})).unwrap(), Log::default());
    for wrong in [json!({ "max-size": "much" }), json!({ "max-size": "1" }), json!({ "max-file": "0" })] {
        assert!(!log(wrong).unwrap_err().is_unsupported());
    }
}

#[test]
fn placement_is_accepted_and_wrong_constraints_say_what_to_write() {
    let spec = accepted(with("Mode", json!({ "Global": {} }))).unwrap();
    assert_eq!(spec.mode, Mode::Global);
    assert_eq!(accept(&Known::default(), show(&spec)).unwrap(), spec);
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
        (format!("{container}/Mounts"), json!([{ "Type": "bind", "Target": "/a", "Source": "b" }]), "absolute path"),
        (format!("{container}/Mounts"), json!([{ "Type": "tmpfs", "Target": "/" }]), "target"),
        (format!("{container}/Mounts"), json!([{ "Type": "tmpfs", "Target": "/a", "Source": "/b" }]), "no source"),
        (format!("{container}/Mounts"), json!([{ "Type": "tmpfs", "Target": "/proc/x" }]), "/proc/x"),
        (format!("{container}/Hosts"), json!(["db 10.0.0.7"]), "IP address"),
        (format!("{container}/Hosts"), json!(["10.0.0.7"]), "no name"),
        (format!("{container}/DNSConfig"), json!({ "Nameservers": ["x"] }), "IP address"),
        (format!("{container}/DNSConfig"), json!({ "Search": ["a\nb"] }), "spaces"),
        (format!("{container}/CapabilityAdd"), json!(["CAP_FLY"]), "CAP_FLY"),
        (format!("{container}/Ulimits"), json!([{ "Name": "nofile", "Soft": 2, "Hard": 1 }]), "soft"),
        (format!("{container}/Ulimits"), json!([{ "Name": "nope", "Soft": 1, "Hard": 1 }]), "nope"),
        (format!("{container}/Sysctls"), json!({ "kernel.panic": "1" }), "kernel.panic"),
        (format!("{container}/Groups"), json!(vec!["g"; 65]), "too many"),
        (format!("{container}/HealthCheck"), json!({ "Test": ["CMD"] }), "no command"),
        (format!("{container}/HealthCheck"), json!({ "Test": ["EXEC", "x"] }), "CMD-SHELL"),
        (format!("{container}/HealthCheck"), json!({ "Test": ["HTTP", "0", "/"] }), "no port"),
        (format!("{container}/HealthCheck"), json!({ "Test": ["HTTP", "80", "/a b"] }), "not a path"),
        (format!("{container}/HealthCheck"), json!({ "Interval": -1 }), "negative"),
        ("TaskTemplate/Resources/Limits".to_owned(), json!({ "MemoryBytes": 4096 }), "6 MiB"),
        (format!("{container}/Env"), json!([format!("A={}", "x".repeat(70_000))]), "more than"),
    ] {
        let error = accepted(with(&path, value)).unwrap_err();
        assert!(!error.is_unsupported(), "{path}: {error}");
        assert!(error.to_string().contains(part), "{path}: {error}");
    }
}

#[test]
fn what_a_service_uses_must_be_there() {
    assert!(accepted(with("TaskTemplate/Networks", json!([{ "Target": "shoal" }]))).is_ok());
    let container = "TaskTemplate/ContainerSpec";
    for (path, value, text) in [
        ("TaskTemplate/Networks".to_owned(), json!([{ "Target": "other" }]), "network other not found"),
        ("Networks".to_owned(), json!([{ "Target": "other" }]), "network other not found"),
        (format!("{container}/Secrets"), json!([{ "SecretID": "a", "SecretName": "key" }]), "secret key not found"),
        (format!("{container}/Configs"), json!([{ "ConfigID": "a" }]), "config a not found"),
    ] {
        let error = accepted(with(&path, value)).unwrap_err();
        assert!(error.is_missing() && error.to_string().starts_with(text), "{path}: {error}");
    }
}

#[test]
fn what_a_service_uses_is_named_by_id_or_name_and_checked() {
    let known = known();
    let accepted = |path: &str, value: Value| accept(&known, serde_json::from_value(with(path, value)).unwrap());
    let (secret, network) = (known_id(1).to_string(), known_id(3).to_string());
    for target in ["back", &network] {
        let spec = accepted("TaskTemplate/Networks", json!([{ "Target": target, "Aliases": ["db"] }])).unwrap();
        let aliases = vec![Name::new("db").unwrap()];
        assert_eq!(spec.networks, [Attachment { network: ObjectName::new("back").unwrap(), aliases }]);
    }
    for reference in [json!([{ "SecretID": secret, "SecretName": "x" }]), json!([{ "SecretName": "key" }])] {
        let spec = accepted("TaskTemplate/ContainerSpec/Secrets", reference).unwrap();
        let [file] = spec.task.container.files.as_slice() else { panic!("one file") };
        assert_eq!((file.path().as_str(), file.uid, file.mode), ("/run/secrets/key", 0, 0o444));
    }
    for (path, value, part) in [
        ("TaskTemplate/Networks", json!([{ "Target": "back", "Aliases": ["a.b"] }]), "not a valid name"),
        ("TaskTemplate/ContainerSpec/Secrets", json!([{ "SecretName": "key", "File": { "UID": "web" } }]), "a number"),
        ("EndpointSpec/Ports", json!([{ "TargetPort": 80_000 }]), "0 to 65535"),
        ("EndpointSpec/Ports", json!([{ "TargetPort": 0 }]), "number 0"),
    ] {
        let error = accepted(path, value).unwrap_err().to_string();
        assert!(error.contains(part), "{path}: {error}");
    }
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
        window_ms in option::of(1..1_000_000_000_u64),
    ) -> RestartPolicy {
        RestartPolicy { condition, delay_ms, attempts_max, window_ms }
    }
}

prop_compose! {
    fn limits()(
        nano_cpus in option::of(10_000_000..i64::MAX.unsigned_abs()),
        memory_bytes in option::of(6 << 20..i64::MAX.unsigned_abs()),
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
        (container, health) in (options(), option::of(health())),
        limits in limits(),
        restart in restart(),
        force_update: u64,
    ) -> TaskSpec {
        let ((command, args, env), (workdir, user, hostname)) = (lists, texts);
        TaskSpec {
            image, command, args, env, labels, workdir, user, hostname, read_only, stop_signal, stop_grace_ms,
            container, health, limits, restart, force_update,
        }
    }
}

fn mount() -> impl Strategy<Value = Mount> {
    let tmpfs = (option::of(1..1_000_000_u64), option::of(1..=0o7777_u32));
    let source = prop_oneof![
        "/[a-z]{1,8}".prop_map(MountSource::Bind),
        tmpfs.prop_map(|(bytes_max, mode)| MountSource::Tmpfs { bytes_max, mode }),
    ];
    ("/[a-z]{4,8}/[a-z]{0,8}", any::<bool>(), source).prop_map(|(target, read_only, source)| Mount {
        target,
        read_only,
        source,
    })
}

fn ulimit() -> impl Strategy<Value = Ulimit> {
    (prop_oneof![Just("nofile"), Just("core")], 0..1_000_i64, any::<bool>()).prop_map(|(name, soft, bounded)| Ulimit {
        name: name.to_owned(),
        soft,
        hard: if bounded { soft + 1 } else { -1 },
    })
}

fn capabilities() -> impl Strategy<Value = Vec<String>> {
    vec(prop_oneof![Just("NET_ADMIN".to_owned()), Just("CAP_CHOWN".to_owned()), Just("ALL".to_owned())], 0..3)
}

prop_compose! {
    fn options()(
        groups in vec("[a-z]{1,8}", 0..3),
        (init, tty, open_stdin, new_privileges, unfiltered) in any::<(bool, bool, bool, bool, bool)>(),
        mounts in btree_map("[a-z]", mount(), 0..3),
        hosts in vec((any::<IpAddr>(), vec("[a-z.]{1,8}", 1..3)), 0..3),
        dns in (vec(any::<IpAddr>(), 0..3), vec("[a-z.]{1,8}", 0..3), vec("[a-z:0-9]{1,8}", 0..3)),
        (capabilities_added, capabilities_dropped) in (capabilities(), capabilities()),
        ulimits in vec(ulimit(), 0..2),
        sysctls in btree_map("net\\.[a-z]{1,8}", "[0-9]{1,4}", 0..3),
        files in vec(file(), 0..3),
        log in option::of((option::of(4_096..1_000_000_u64), option::of(1..=100_u32))),
    ) -> ContainerOptions {
        let (nameservers, search, options) = dns;
        // No two mounts have one target.
        let mounts = mounts.into_iter().map(|(top, mount)| Mount { target: format!("/{top}{}", mount.target), ..mount });
        // The secrets come first, as Docker has two lists.
        let mut files: Vec<FileMount> = files;
        files.sort_by_key(|file| file.kind);
        ContainerOptions {
            groups, init, tty, open_stdin, new_privileges, unfiltered, mounts: mounts.collect(),
            files: files.into_iter().enumerate().map(|(n, file)| FileMount { target: format!("{n}"), ..file }).collect(),
            hosts: hosts.into_iter().map(|(address, names)| Host { address, names }).collect(),
            dns: Dns { nameservers, search, options },
            capabilities_added, capabilities_dropped, ulimits, sysctls,
            log: log.map(|(file_bytes_max, files_max)| Log { file_bytes_max, files_max }),
        }
    }
}

prop_compose! {
    fn health()(
        test in prop_oneof![
            Just(HealthTest::None),
            vec("[^\0]{1,8}", 1..3).prop_map(HealthTest::Command),
            "[^\0]{1,8}".prop_map(HealthTest::Shell),
            (1..=u16::MAX, "/[a-z]{0,8}").prop_map(|(port, path)| HealthTest::Http { port, path }),
            (1..=u16::MAX).prop_map(|port| HealthTest::Tcp { port }),
        ],
        times in any::<[Option<std::num::NonZeroU32>; 4]>(),
        retries in option::of(1..100_u32),
    ) -> HealthCheck {
        let [interval_ms, timeout_ms, start_period_ms, start_interval_ms] =
            times.map(|time| time.map(|ms| u64::from(ms.get())));
        HealthCheck { test, interval_ms, timeout_ms, start_period_ms, start_interval_ms, retries }
    }
}

fn known_id(number: u8) -> ObjectId {
    ObjectId([number; 16])
}

/// Objects that specs may use: a secret, a config and a network.
fn known() -> Known {
    let mut intent = Intent::new(Actor { node: NodeId([1; 32]), epoch: 1 });
    fn object<T>(number: u8, name: &str, spec: T) -> Object<T> {
        let (name, author) = (ObjectName::new(name).unwrap(), NodeId([1; 32]));
        let labels = BTreeMap::new();
        Object { id: known_id(number), name, version: 1, created_ms: 1, updated_ms: 1, author, labels, spec }
    }
    intent.write_data(1, DataKind::Secret, &object(1, "key", DataSpec { bytes: 1 }));
    intent.write_data(1, DataKind::Config, &object(2, "conf", DataSpec { bytes: 1 }));
    intent.write_network(1, &object(3, "back", NetworkSpec::default()));
    Known::new(intent.networks(), intent.data(DataKind::Secret), intent.data(DataKind::Config))
}

prop_compose! {
    fn file()(
        secret in any::<bool>(),
        (uid, gid, mode) in (any::<u32>(), any::<u32>(), 0..=0o7777_u32),
    ) -> FileMount {
        let (kind, number, name) = if secret { (DataKind::Secret, 1, "key") } else { (DataKind::Config, 2, "conf") };
        let name = ObjectName::new(name).unwrap();
        FileMount { kind, id: known_id(number), name, target: String::new(), uid, gid, mode }
    }
}

prop_compose! {
    fn port()(
        name in "[a-z]{0,5}",
        protocol in prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)],
        target in 1..=u16::MAX,
        ingress in any::<bool>(),
    ) -> Port {
        let mode = if ingress { PublishMode::Ingress } else { PublishMode::Host };
        Port { name, protocol, target, published: 0, mode }
    }
}

prop_compose! {
    fn uses()(
        aliases in vec("[a-z]{1,5}", 0..3),
        (built_in, back, round_robin) in any::<(bool, bool, bool)>(),
        ports in vec(port(), 0..3),
        first in 1_000..60_000_u16,
    ) -> (Vec<Attachment>, Endpoint) {
        let mut aliases: Vec<Name> = aliases.iter().map(|alias| Name::new(alias).unwrap()).collect();
        aliases.dedup();
        let on = |name: &str, aliases| Attachment { network: ObjectName::new(name).unwrap(), aliases };
        let networks = [back.then(|| on("back", aliases)), built_in.then(|| on("shoal", Vec::new()))];
        // No two ports are one outside.
        let published = ports.into_iter().zip(first..).map(|(port, published)| Port { published, ..port });
        let ports = published.filter(|port| !round_robin || port.mode == PublishMode::Host).collect();
        let mode = if round_robin { EndpointMode::DnsRr } else { EndpointMode::Vip };
        (networks.into_iter().flatten().collect(), Endpoint { mode, ports })
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
        (networks, endpoint) in uses(),
    ) {
        let mut spec = ServiceSpec::new(Name::new(&name).unwrap(), replicas, task);
        spec.labels = labels;
        spec.reserved = reserved;
        spec.placement = placement;
        (spec.networks, spec.endpoint) = (networks, endpoint);
        let json = serde_json::to_string(&show(&spec)).unwrap();
        let back = accept(&known(), serde_json::from_str(&json).unwrap()).unwrap();
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
        let _ = accept(&Known::default(), DockerSpec { name: Some("web".to_owned()), task_template, ..Default::default() });
    }
}
