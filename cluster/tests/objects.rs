//! Networks, secrets and configs in a shoal of three: made on one node, used on all, and kept as long as they are used.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use shoal_cluster::intent::name::Name;
use shoal_cluster::intent::object::{BUILT_IN, DataKind, NetworkSpec, ObjectName};
use shoal_cluster::intent::service::ServiceSpec;
use shoal_cluster::intent::service::file::FileMount;
use shoal_cluster::intent::service::network::Attachment;
use shoal_cluster::limits::{DATA_BYTES_MAX, LABELS_BYTES_MAX, SEAL_BYTES_MAX};
use shoal_cluster::{Command, CommandError, NewObject, ObjectId};
use support::{World, spec};

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

fn new(number: u8, called: &str) -> NewObject {
    NewObject { id: ObjectId([number; 16]), name: name(called), labels: BTreeMap::new() }
}

fn secret(number: u8, called: &str, sealed: Vec<u8>) -> Command {
    Command::CreateData { kind: DataKind::Secret, new: new(number, called), bytes: 5, sealed }
}

fn network(number: u8, called: &str) -> Command {
    Command::CreateNetwork { new: new(number, called), spec: NetworkSpec::default() }
}

/// A service on the network `back`, with the secret of this number.
fn using(number: u8) -> ServiceSpec {
    let mut spec = spec("web", 3);
    let aliases = vec![Name::new("Front").unwrap()];
    spec.networks = vec![Attachment { network: name("back"), aliases }];
    let (kind, id) = (DataKind::Secret, ObjectId([number; 16]));
    let file = FileMount { kind, id, name: name("key"), target: "key".into(), uid: 0, gid: 0, mode: 0o444 };
    spec.task.container.files = vec![file];
    spec
}

fn settled() -> World {
    let mut world = World::new(3);
    world.run(Duration::from_secs(5));
    world
}

#[test]
fn what_is_made_on_one_node_is_on_all_and_used_by_all() {
    let mut world = settled();
    let sealed: Vec<u8> = (0..DATA_BYTES_MAX + SEAL_BYTES_MAX).map(|at| (at % 251) as u8).collect();
    assert!(matches!(
        world.apply(0, Command::CreateService(using(7))),
        Err(CommandError::NoSuchObject { what: "network", .. })
    ));
    world.apply(1, network(8, "back")).unwrap();
    world.run_until("the network is known", |world| !world.views(0).networks.is_empty());
    let refused = world.apply(0, Command::CreateService(using(7))).unwrap_err();
    assert_eq!(refused, CommandError::NoSuchObject { what: "secret", name: "key".into() });
    world.apply(1, secret(7, "key", sealed.clone())).unwrap();
    world.run_until("all have its bytes", |world| {
        (0..3).all(|node| world.views(node).sealed.get(&ObjectId([7; 16])).as_ref() == Some(&sealed))
    });
    world.apply(0, Command::CreateService(using(7))).unwrap();
    world.run_until("names say which networks", |world| {
        let on = |world: &mut World, node| world.views(node).names.networks.get("web").cloned();
        (0..3).all(|node| on(world, node).is_some_and(|networks| networks["back"].contains("front")))
    });
    world.run_until("all agree", World::agreed);
    // A restarted node has them from its disk.
    world.crash(2);
    world.start(2);
    assert_eq!(world.views(2).sealed.get(&ObjectId([7; 16])), Some(sealed));
}

#[test]
fn what_is_used_stays_and_what_is_not_goes_everywhere() {
    let mut world = settled();
    world.apply(0, network(8, "back")).unwrap();
    world.apply(0, secret(7, "key", vec![1, 2])).unwrap();
    world.apply(0, Command::CreateService(using(7))).unwrap();
    let remove = || Command::RemoveData { kind: DataKind::Secret, id: ObjectId([7; 16]) };
    world.run_until("all agree", World::agreed);
    for command in [remove(), Command::RemoveNetwork(ObjectId([8; 16]))] {
        let refused = world.apply(1, command).unwrap_err();
        assert!(matches!(&refused, CommandError::ObjectInUse { services, .. } if services == "web"), "{refused}");
    }
    let id = world.views(1).services[0].id;
    world.apply(1, Command::RemoveService(id)).unwrap();
    world.apply(1, remove()).unwrap();
    world.apply(1, Command::RemoveNetwork(ObjectId([8; 16]))).unwrap();
    world.run_until("nothing of them is anywhere", |world| {
        (0..3).all(|node| {
            let views = world.views(node);
            views.networks.is_empty() && views.secrets.is_empty() && !views.sealed.has(&ObjectId([7; 16]))
        })
    });
    // The name is free at once.
    world.apply(1, secret(9, "key", vec![3])).unwrap();
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let mut world = settled();
    world.apply(0, secret(7, "key", vec![1])).unwrap();
    world.apply(0, network(8, "back")).unwrap();
    let before = world.views(0).agreement.intent;
    let kind = DataKind::Secret;
    let labels = |bytes: usize| BTreeMap::from([("k".to_string(), "v".repeat(bytes))]);
    let label =
        |id: u8, version, bytes| Command::LabelData { kind, id: ObjectId([id; 16]), version, labels: labels(bytes) };
    for (command, part) in [
        (secret(9, "key", vec![1]), "already exists"),
        (network(9, "back"), "already exists"),
        (network(9, BUILT_IN), "already exists"),
        (secret(9, "large", vec![0; DATA_BYTES_MAX + SEAL_BYTES_MAX + 1]), "more than 512000 bytes"),
        (label(7, 2, 1), "update out of sequence"),
        (label(9, 1, 1), "not found"),
        (label(7, 1, LABELS_BYTES_MAX), "too long"),
        (Command::RemoveNetwork(ObjectId([7; 16])), "not found"),
        (Command::RemoveData { kind: DataKind::Config, id: ObjectId([7; 16]) }, "not found"),
    ] {
        let refused = world.apply(0, command.clone()).unwrap_err().to_string();
        assert!(refused.contains(part), "{part}: {refused}");
    }
    assert_eq!(world.views(0).agreement.intent, before);
    world.apply(0, label(7, 1, 3)).unwrap();
    let secrets = &world.views(0).secrets;
    assert_eq!((secrets[&name("key")].version, &secrets[&name("key")].labels), (2, &labels(3)));
}
