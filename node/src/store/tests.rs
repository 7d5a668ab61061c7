//! The store on a real directory: restarts, crashes, full disks and damage.

use super::*;

const OWNER: [u8; 32] = [3; 32];

type Opened = Result<(Store, Vec<Vec<u8>>), StoreError>;

fn reopen(path: &Path) -> (DataDirectory, Opened) {
    let directory = DataDirectory::open(path).expect("the directory is free");
    let opened = Store::open(&directory, OWNER);
    (directory, opened)
}

fn filled(path: &Path) -> Vec<Vec<u8>> {
    let (_directory, opened) = reopen(path);
    let (mut store, records) = opened.expect("a new store opens");
    assert!(records.is_empty());
    store.append(&["one", "two"]).expect("append");
    store.append(&["three"]).expect("append");
    store.append(&["", "five"]).expect("append");
    ["one", "two", "three", "", "five"].map(|text| text.as_bytes().to_vec()).to_vec()
}

#[test]
fn records_come_back_in_order_after_a_restart() {
    let folder = tempfile::tempdir().expect("tempdir");
    let written = filled(folder.path());
    let (_directory, opened) = reopen(folder.path());
    let (mut store, records) = opened.expect("opens again");
    assert_eq!(records, written);
    store.append(&["six"]).expect("append");
    drop((store, _directory));
    assert_eq!(reopen(folder.path()).1.expect("opens").1.len(), 6);
}

#[test]
fn a_log_cut_anywhere_opens_with_a_prefix_and_takes_new_records() {
    let folder = tempfile::tempdir().expect("tempdir");
    let written = filled(folder.path());
    let log = folder.path().join("state/log");
    let whole = fs::read(&log).expect("read");
    for length in log::HEADER_BYTES..whole.len() {
        fs::write(&log, &whole[..length]).expect("write");
        let (directory, opened) = reopen(folder.path());
        let (mut store, records) = opened.expect("a torn log opens");
        assert!(written.starts_with(&records), "cut at {length}");
        store.append(&["after"]).expect("append");
        drop((store, directory));
        let (_, again) = reopen(folder.path());
        let mut expected = records;
        expected.push(b"after".to_vec());
        assert_eq!(again.expect("opens").1, expected, "cut at {length}");
    }
}

#[test]
fn damage_before_acknowledged_records_is_an_error_that_names_the_place() {
    let folder = tempfile::tempdir().expect("tempdir");
    filled(folder.path());
    let log = folder.path().join("state/log");
    let mut bytes = fs::read(&log).expect("read");
    bytes[log::HEADER_BYTES + 30] ^= 4;
    fs::write(&log, &bytes).expect("write");
    let error = reopen(folder.path()).1.expect_err("damage must not pass");
    assert!(matches!(error, StoreError::Damaged { at: log::HEADER_BYTES, .. }), "{error}");
    assert!(error.to_string().contains("restore the file from a backup"));
    assert_eq!(fs::read(&log).expect("read"), bytes, "a damaged log is left as it is");
}

#[test]
fn a_damaged_header_or_foreign_file_is_not_overwritten() {
    let folder = tempfile::tempdir().expect("tempdir");
    filled(folder.path());
    let log = folder.path().join("state/log");
    for bytes in [b"".to_vec(), b"hello".to_vec(), vec![0; 4096]] {
        fs::write(&log, &bytes).expect("write");
        assert!(matches!(reopen(folder.path()).1, Err(StoreError::NotALog { .. })));
        assert_eq!(fs::read(&log).expect("read"), bytes);
    }
}

#[test]
fn the_state_of_another_shoal_is_refused() {
    let folder = tempfile::tempdir().expect("tempdir");
    filled(folder.path());
    let directory = DataDirectory::open(folder.path()).expect("free");
    assert!(matches!(Store::open(&directory, [4; 32]), Err(StoreError::OtherShoal { .. })));
}

#[test]
fn a_second_process_is_told_that_the_directory_is_in_use() {
    let folder = tempfile::tempdir().expect("tempdir");
    let held = DataDirectory::open(folder.path()).expect("free");
    let error = DataDirectory::open(folder.path()).expect_err("held");
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    drop(held);
    DataDirectory::open(folder.path()).expect("free again");
}

#[test]
fn a_holder_that_still_dies_is_waited_for() {
    let folder = tempfile::tempdir().expect("tempdir");
    let mut holder = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
    let started = fs::read_to_string(format!("/proc/{}/stat", holder.id())).expect("it runs");
    let started = started.split(' ').nth(21).expect("proc(5)").to_owned();
    // Its lock is free already, its ports may not be.
    fs::write(folder.path().join("lock"), format!("{} {started}", holder.id())).expect("write");
    assert!(matches!(DataDirectory::open(folder.path()), Err(StoreError::Locked { .. })), "its holder is alive");
    holder.kill().expect("it runs");
    // Nobody has waited for it yet, so it is a zombie now: nothing of it is left but its number.
    DataDirectory::open(folder.path()).expect("free");
    holder.wait().expect("it has ended");
    fs::write(folder.path().join("lock"), format!("{} 1", std::process::id() + 1)).expect("write");
    DataDirectory::open(folder.path()).expect("another process has the number of the old one now");
}

#[test]
fn a_crash_between_writing_and_renaming_a_snapshot_keeps_the_old_records() {
    let folder = tempfile::tempdir().expect("tempdir");
    let written = filled(folder.path());
    let unfinished = folder.path().join("state/log.new");
    fs::write(&unfinished, b"half a snapshot").expect("write");
    let (_directory, opened) = reopen(folder.path());
    let (mut store, records) = opened.expect("opens");
    assert_eq!(records, written);
    assert!(!unfinished.exists());
    store.rewrite(&["snapshot"]).expect("rewrite");
}

#[test]
fn a_grown_log_is_rewritten_and_appended_to() {
    let folder = tempfile::tempdir().expect("tempdir");
    {
        let (_directory, opened) = reopen(folder.path());
        let (mut store, _) = opened.expect("opens");
        assert!(!store.should_rewrite());
        store.append(&[vec![7; 2 << 20]]).expect("append");
        assert!(store.should_rewrite());
        let snapshot: Vec<Vec<u8>> = (0..5u8).map(|byte| vec![byte; 600 << 10]).collect();
        store.rewrite(&snapshot).expect("rewrite");
        assert!(!store.should_rewrite());
        store.append(&["after"]).expect("append");
    }
    let (_directory, opened) = reopen(folder.path());
    let records = opened.expect("opens").1;
    assert_eq!(records.len(), 6);
    assert_eq!(records[4], vec![4; 600 << 10]);
    assert_eq!(records[5], b"after");
}

#[test]
fn a_full_disk_is_an_error_and_nothing_is_acknowledged_after_it() {
    let folder = tempfile::tempdir().expect("tempdir");
    let written = filled(folder.path());
    {
        let (_directory, opened) = reopen(folder.path());
        let (mut store, _) = opened.expect("opens");
        store.file = OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let error = store.append(&["lost"]).expect_err("the disk is full");
        assert!(matches!(error, StoreError::Write { .. }), "{error}");
        assert!(matches!(store.append(&["later"]), Err(StoreError::Failed { .. })));
        assert!(matches!(store.rewrite(&["later"]), Err(StoreError::Failed { .. })));
    }
    assert_eq!(reopen(folder.path()).1.expect("opens").1, written);
}

#[test]
fn records_that_are_too_long_are_refused_and_the_store_stays_usable() {
    let folder = tempfile::tempdir().expect("tempdir");
    let (_directory, opened) = reopen(folder.path());
    let (mut store, _) = opened.expect("opens");
    let error = store.append(&[vec![0; RECORD_BYTES_MAX + 1]]).expect_err("too long");
    assert!(matches!(error, StoreError::TooLong { .. }), "{error}");
    store.append(&["fits"]).expect("append");
}

#[test]
fn every_start_has_a_greater_epoch() {
    let folder = tempfile::tempdir().expect("tempdir");
    for expected in 1..=3 {
        let (_directory, opened) = reopen(folder.path());
        assert_eq!(opened.expect("opens").0.bump_epoch().expect("epoch"), expected);
    }
    fs::remove_file(folder.path().join("state/epoch")).expect("remove");
    assert!(matches!(reopen(folder.path()).1, Err(StoreError::Epoch { .. })));
}
