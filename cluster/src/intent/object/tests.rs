//! Objects: what is served of their registers, and what hostile ones do.

use alloc::string::ToString;
use alloc::vec;

use super::*;
use crate::crdt::Actor;
use crate::intent::Learned;

fn id(number: u8) -> ObjectId {
    ObjectId([number; 16])
}

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

fn on(number: u8) -> Intent {
    Intent::new(Actor { node: NodeId([number; 32]), epoch: 1 })
}

fn secret(number: u8, called: &str, bytes: u32) -> Data {
    let labels = BTreeMap::from([("k".to_string(), "v".to_string())]);
    let spec = DataSpec { bytes };
    let author = NodeId([1; 32]);
    Data { id: id(number), name: name(called), version: 1, created_ms: 5, updated_ms: 5, author, labels, spec }
}

/// A plane in which a secret of these bytes was made, and its entries in order.
fn made(on: &mut Intent, number: u8, called: &str, sealed: &[u8]) -> Vec<Entry> {
    let mut entries = on.write_parts(5, id(number), sealed);
    let bytes = u32::try_from(sealed.len().min(DATA_BYTES_MAX)).unwrap();
    entries.push(on.write_data(5, DataKind::Secret, &secret(number, called, bytes)));
    entries
}

#[test]
fn names_are_dockers() {
    for good in ["a", "A.b_c-1", "my_stack_default", &"x".repeat(OBJECT_NAME_BYTES_MAX)] {
        assert_eq!(ObjectName::new(good).unwrap().as_str(), good);
    }
    for bad in ["", ".a", "-a", "a/b", "a b", "ä", &"x".repeat(OBJECT_NAME_BYTES_MAX + 1)] {
        assert!(ObjectName::new(bad).is_err(), "{bad}");
    }
}

#[test]
fn bytes_come_back_as_they_were_in_whatever_order_their_parts_came() {
    for length in [0, 1, PART_BYTES_MAX, PART_BYTES_MAX + 1, DATA_BYTES_MAX + SEAL_BYTES_MAX] {
        let sealed: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        let entries = made(&mut on(1), 7, "key", &sealed);
        assert!(entries.iter().all(|entry| entry.version.check().is_ok()), "an entry can hold a part");
        let mut other = on(2);
        for (at, entry) in entries.iter().enumerate().rev() {
            assert_eq!(other.learn(9, entry.clone()), Learned::New);
            assert_eq!(other.sealed().has(&id(7)), at == 0, "{length}: without part {at}");
        }
        assert_eq!(other.sealed().get(&id(7)), Some(sealed));
        assert_eq!(other.data(DataKind::Secret)[&name("key")].id, id(7));
        assert!(other.data(DataKind::Config).is_empty());
    }
}

#[test]
fn of_two_made_at_once_one_has_the_name_and_both_have_their_bytes() {
    let (mut one, mut other) = (on(1), on(2));
    let mut entries = made(&mut one, 7, "key", b"one");
    entries.extend(made(&mut other, 8, "key", b"other"));
    let (mut forward, mut backward) = (on(3), on(4));
    entries.iter().for_each(|entry| {
        forward.learn(9, entry.clone());
    });
    entries.iter().rev().for_each(|entry| {
        backward.learn(9, entry.clone());
    });
    assert_eq!(forward.digest(), backward.digest());
    assert_eq!(forward.data(DataKind::Secret), backward.data(DataKind::Secret));
    assert_eq!(forward.conflicts().len(), 1);
    for plane in [&mut forward, &mut backward] {
        assert_eq!(plane.sealed().get(&id(7)).as_deref(), Some(&b"one"[..]));
        assert_eq!(plane.sealed().get(&id(8)).as_deref(), Some(&b"other"[..]));
        plane.remove_data(10, DataKind::Secret, &name("key"));
        assert!(plane.data(DataKind::Secret).is_empty());
        assert!(!plane.sealed().has(&id(7)) && !plane.sealed().has(&id(8)), "no bytes of either stay");
    }
}

#[test]
fn what_no_operator_could_have_written_does_not_count() {
    let mut plane = on(1);
    let huge = secret(1, "huge", u32::try_from(DATA_BYTES_MAX).unwrap() + 1);
    plane.write_data(5, DataKind::Secret, &huge);
    let other_name = Key::object(Kind::Secret, &name("other"));
    plane.write(5, other_name, Some(wire::encode(&secret(2, "key", 1))));
    let mut labelled = secret(3, "labels", 1);
    labelled.labels.insert("x".to_string(), "y".repeat(LABELS_BYTES_MAX));
    plane.write_data(5, DataKind::Secret, &labelled);
    assert!(plane.data(DataKind::Secret).is_empty());
    let part = |number, count, length| Part { id: id(1), number, count, sealed: vec![0; length] };
    for (key, part) in [
        (Key::part(&id(1), 0), part(0, 0, 1)),
        (Key::part(&id(1), 1), part(0, 2, 1)),
        (Key::part(&id(2), 0), part(0, 1, 1)),
        (Key::part(&id(1), 0), part(0, 1, PART_BYTES_MAX + 1)),
        (Key { kind: Kind::Part.number(), name: "no id".to_string() }, part(0, 1, 1)),
    ] {
        plane.write(5, key, Some(wire::encode(&part)));
    }
    assert_eq!(plane.sealed(), &Sealed::default());
    // Parts that contradict each other are no bytes.
    for part in [part(0, 2, 1), part(1, 3, 1)] {
        plane.write(5, Key::part(&part.id, part.number), Some(wire::encode(&part)));
    }
    assert_eq!(plane.sealed().get(&id(1)), None);
}
