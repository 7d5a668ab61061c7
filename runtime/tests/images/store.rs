//! The store: names, ids, peers, pruning, and what a restart finds.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
};

use serde_json::json;
use shoal_runtime::image::{BlobError, Digest, Held, Image, ImageStore, Limits, Reference, StoreError};

use crate::support::{Sandbox, Tar, TestImage, is_root};

fn load(store: &ImageStore, name: &str, content: &str) -> Digest {
    let image = TestImage::new([Tar::new().file("base", "b").end(), Tar::new().file("x", content).end()]);
    store.load(&image.docker_save(&[name])[..]).unwrap()[0].digest
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

/// What a node does that has nothing of an image but the digest of its manifest.
fn fetch(from: &ImageStore, to: &ImageStore, digest: &Digest) -> Vec<usize> {
    let mut rounds = Vec::new();
    loop {
        let missing = to.missing(digest).unwrap();
        if missing.is_empty() {
            return rounds;
        }
        rounds.push(missing.len());
        for blob in missing {
            let (mut file, bytes) = from.open_blob(&blob.digest).unwrap();
            assert!(bytes <= blob.size_bytes);
            let mut writer = to.writer(blob.digest, blob.size_bytes).unwrap();
            std::io::copy(&mut file, &mut writer).unwrap();
            assert_eq!(writer.written_bytes(), bytes);
            writer.commit().unwrap();
        }
    }
}

#[test]
fn an_image_is_fetched_blob_by_blob_from_another_store() {
    let (here, there) = (Sandbox::new(), Sandbox::new());
    let (from, to) = (here.store(), there.store());
    let digest = load(&from, "web:1", "one");
    assert!(matches!(to.register(digest, None), Err(StoreError::Incomplete { missing: 1, .. })));
    assert_eq!(fetch(&from, &to, &digest), [1, 3]);
    assert_eq!(to.resolve("web:1"), None);
    to.register(digest, Some(reference(&format!("web:1@{digest}")))).unwrap();
    assert_eq!(to.resolve("web:1"), Some(digest));
    let same = |store: &ImageStore| -> Image { store.image(&digest).unwrap() };
    assert_eq!(same(&from), same(&to));
    // Of the next revision only what differs is needed: manifest, then configuration and one layer.
    let next = load(&from, "web:2", "two");
    assert_eq!(fetch(&from, &to, &next), [1, 2]);
    there.assert_tidy();
}

#[test]
fn wrong_or_too_many_bytes_from_a_peer_are_not_kept() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let digest = Digest::of(b"right");
    let mut writer = store.writer(digest, 100).unwrap();
    writer.write_all(b"wrong").unwrap();
    assert!(matches!(writer.commit(), Err(BlobError::Digest { .. })));
    let mut writer = store.writer(digest, 5).unwrap();
    writer.write_all(b"rig").unwrap();
    assert!(writer.write_all(b"ht and more").is_err());
    drop(writer);
    let mut unfinished = store.writer(digest, 5).unwrap();
    unfinished.write_all(b"rig").unwrap();
    drop(unfinished);
    assert!(!store.contains_blob(&digest) && store.open_blob(&digest).is_none());
    sandbox.assert_empty();
    for _ in 0..2 {
        let mut writer = store.writer(digest, 5).unwrap();
        writer.write_all(b"right").unwrap();
        writer.commit().unwrap();
    }
    let mut text = String::new();
    store.open_blob(&digest).unwrap().0.read_to_string(&mut text).unwrap();
    assert_eq!(text, "right");
    sandbox.assert_tidy();
}

/// A peer may send a manifest that has the right digest and is still of no use.
#[test]
fn hostile_manifests_are_refused() {
    let config = TestImage::plain().config();
    let descriptor = |bytes: &[u8]| json!({ "mediaType": "x/y", "digest": Digest::of(bytes), "size": bytes.len() });
    let layer = json!({ "mediaType": "x/y", "digest": Digest::of(b"l"), "size": 1 });
    let mut huge = layer.clone();
    huge["size"] = json!(u64::MAX);
    let mut sha512 = layer.clone();
    sha512["digest"] = json!(format!("sha512:{}", "0".repeat(128)));
    let manifest =
        |layers: Vec<serde_json::Value>| json!({ "schemaVersion": 2, "config": descriptor(&config), "layers": layers });
    let mut traversal = layer.clone();
    traversal["digest"] = json!("sha256:../../../../etc/passwd");
    for document in [
        json!("text"),
        json!({ "schemaVersion": 2 }),
        manifest(vec![layer.clone(); 128]),
        manifest(vec![huge]),
        manifest(vec![sha512]),
        manifest(vec![traversal]),
    ] {
        let sandbox = Sandbox::new();
        let store = sandbox.store();
        let bytes = document.to_string().into_bytes();
        let digest = Digest::of(&bytes);
        let mut writer = store.writer(digest, 1 << 20).unwrap();
        writer.write_all(&bytes).unwrap();
        writer.commit().unwrap();
        assert!(matches!(store.missing(&digest), Err(StoreError::Document { .. })), "{document}");
        assert!(matches!(store.register(digest, None), Err(StoreError::Document { .. })));
        assert!(store.list().is_empty());
    }
    // Fewer layers than diff ids, found when all is here.
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let bytes = manifest(vec![]).to_string().into_bytes();
    for blob in [&bytes, &config] {
        let mut writer = store.writer(Digest::of(blob), 1 << 20).unwrap();
        writer.write_all(blob).unwrap();
        writer.commit().unwrap();
    }
    assert!(matches!(store.register(Digest::of(&bytes), None), Err(StoreError::Document { .. })));
}

#[test]
fn images_are_found_by_name_digest_and_beginning_of_an_id() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let one = load(&store, "web:1", "one");
    let two = load(&store, "web:2", "two");
    let id = store.image(&one).unwrap().config_digest;
    for text in [
        "web:1",
        "docker.io/library/web:1",
        &one.to_string(),
        &one.hex(),
        &one.hex()[..12],
        &format!("sha256:{}", &id.hex()[..12]),
        &id.to_string(),
        &id.hex()[..8],
        &format!("anything@{one}"),
    ] {
        assert_eq!(store.resolve(text), Some(one), "{text}");
    }
    for text in ["web", "web:3", "", "abc", "sha256:", &id.hex()[..3], &format!("web@{id}"), "../../x", "WEB:1"] {
        assert_eq!(store.resolve(text), None, "{text}");
    }
    // A name moves to the image that took it last.
    store.tag(&two, reference("web:1")).unwrap();
    assert_eq!(store.resolve("web:1"), Some(two));
    assert!(store.image(&one).unwrap().references.is_empty());
    assert_eq!(store.list().len(), 2);
    assert!(store.untag(&reference("web:1")).unwrap());
    assert!(!store.untag(&reference("web:1")).unwrap());
    assert!(matches!(store.tag(&Digest::of(b"?"), reference("x")), Err(StoreError::Unknown(_))));
    assert!(matches!(store.tag(&two, reference(&format!("x@{one}"))), Err(StoreError::Pinned { .. })));
    assert!(store.remove(&one).unwrap());
    assert_eq!(store.resolve(&one.to_string()), None);
}

#[test]
fn a_restart_finds_what_was_there_and_no_half_things() {
    let sandbox = Sandbox::new();
    let digest = {
        let store = sandbox.store();
        assert!(matches!(ImageStore::open(&sandbox.store_path()), Err(StoreError::InUse(_))));
        load(&store, "web:1", "one")
    };
    fs::write(sandbox.store_path().join("tmp/17"), "half").unwrap();
    fs::create_dir_all(sandbox.store_path().join("tmp/18/etc")).unwrap();
    let store = sandbox.store();
    assert_eq!(store.resolve("web:1"), Some(digest));
    assert_eq!(store.list()[0].references, BTreeSet::from([reference("web:1")]));
    sandbox.assert_tidy();
    drop(store);
    fs::write(sandbox.store_path().join("index.json"), "{\"version\":1,\"im").unwrap();
    let error = ImageStore::open(&sandbox.store_path()).unwrap_err();
    assert!(matches!(error, StoreError::Index { .. }));
    assert!(error.to_string().contains("index.json"), "{error}");
    fs::write(sandbox.store_path().join("index.json"), r#"{"version":9,"images":[]}"#).unwrap();
    assert!(matches!(ImageStore::open(&sandbox.store_path()), Err(StoreError::Index { .. })));
}

/// After a power failure, files of a layer may be empty; blobs were synced.
#[test]
fn layers_from_before_a_reboot_are_unpacked_again() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    let digest = {
        let store = sandbox.store();
        let digest = load(&store, "web", "one");
        store.unpack(&digest).unwrap();
        digest
    };
    {
        let store = sandbox.store();
        assert_eq!(sandbox.layers().len(), 2);
        drop(store);
    }
    fs::write(sandbox.store_path().join("layers.boot"), "another boot").unwrap();
    let store = sandbox.store();
    assert_eq!(sandbox.layers().len(), 0);
    let layers = store.unpack(&digest).unwrap();
    assert_eq!(fs::read_to_string(layers[1].join("x")).unwrap(), "one");
    sandbox.assert_tidy();
}

#[test]
fn pruning_takes_what_nobody_needs_and_nothing_else() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let kept = load(&store, "web:1", "one");
    let used = load(&store, "web:2", "two");
    let gone = load(&store, "web:3", "three");
    for digest in [kept, used, gone] {
        store.unpack(&digest).unwrap();
    }
    store.untag(&reference("web:2")).unwrap();
    store.remove(&gone).unwrap();
    // Half fetched: its manifest is here, a layer is, the configuration is not.
    let other = Sandbox::new();
    let peer = other.store();
    let half = load(&peer, "next", "half");
    let layer = peer.image(&half).unwrap().layers[1].blob.digest;
    for digest in [half, layer] {
        let (mut file, bytes) = peer.open_blob(&digest).unwrap();
        let mut writer = store.writer(digest, bytes).unwrap();
        std::io::copy(&mut file, &mut writer).unwrap();
        writer.commit().unwrap();
    }
    assert_eq!((sandbox.layers().len(), sandbox.blobs().len()), (4, 12));

    let pruned = store.prune(&BTreeSet::from([used, half])).unwrap();
    assert_eq!((pruned.images.len(), pruned.blobs.len(), pruned.layers), (0, 3, 1));
    assert!(pruned.bytes > 0);
    assert!(store.image(&kept).is_ok() && store.image(&used).is_ok());
    assert_eq!(store.missing(&half).unwrap().len(), 1);
    assert_eq!(store.prune(&BTreeSet::from([used, half])).unwrap(), shoal_runtime::image::Pruned::default());

    let pruned = store.prune(&BTreeSet::new()).unwrap();
    assert_eq!((pruned.images, pruned.layers), (vec![used], 1));
    assert_eq!((sandbox.layers().len(), sandbox.blobs().len()), (2, 4));
    store.unpack(&kept).unwrap();
    sandbox.assert_tidy();
}

#[test]
fn many_threads_load_and_unpack_one_image() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    let store = sandbox.store_with(Limits::default());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|number| {
                let store = &store;
                scope.spawn(move || {
                    let digest = load(store, &format!("web:{number}"), "same");
                    store.unpack(&digest).unwrap()
                })
            })
            .collect();
        let results: BTreeSet<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(results.len(), 1);
    });
    assert_eq!(store.list()[0].references.len(), 8);
    sandbox.assert_tidy();
}

/// A blob can be read while it comes, by whoever knows its digest; when it is whole it is an ordinary blob, and when its
/// writer gave up, its readers know.
#[test]
fn a_blob_that_grows_is_read_as_far_as_it_has_come() {
    use std::os::unix::fs::FileExt;
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let digest = Digest::of(b"0123456789");
    let mut writer = store.writer(digest, 10).unwrap();
    assert!(store.open_growing(&digest).is_none(), "only what is shared");
    writer.share().unwrap();
    writer.write_all(b"0123").unwrap();
    let growing = store.open_growing(&digest).unwrap();
    assert_eq!((growing.bytes, *growing.written.borrow()), (10, 4));
    let mut there = [0; 4];
    growing.file.read_exact_at(&mut there, 0).unwrap();
    assert_eq!(&there, b"0123");
    // A second writer of the same blob does not take its place.
    let mut second = store.writer(digest, 10).unwrap();
    second.share().unwrap();
    drop(second);
    writer.write_all(b"456789").unwrap();
    assert_eq!(*store.open_growing(&digest).unwrap().written.borrow(), 10);
    writer.commit().unwrap();
    assert!(store.open_growing(&digest).is_none() && store.contains_blob(&digest));
    assert_eq!(*growing.written.borrow(), 10);
    let mut there = [0; 10];
    growing.file.read_exact_at(&mut there, 0).unwrap();
    assert_eq!(&there, b"0123456789");
    let mut given_up = store.writer(Digest::of(b"x"), 1).unwrap();
    given_up.share().unwrap();
    let growing = store.open_growing(&Digest::of(b"x")).unwrap();
    drop(given_up);
    assert!(growing.written.has_changed().is_err() && store.open_growing(&Digest::of(b"x")).is_none());
    sandbox.assert_tidy();
}

/// While a task runs or a fetch goes on, nothing of its image is pruned, whoever asks for it.
#[test]
fn what_is_held_is_not_pruned() {
    let sandbox = Sandbox::new();
    let store = std::sync::Arc::new(sandbox.store());
    let digest = load(&store, "web:1", "one");
    store.untag(&reference("web:1")).unwrap();
    let held = [Held::new(&store, digest), Held::new(&store, digest)];
    for one in held {
        assert_eq!(store.prune(&BTreeSet::new()).unwrap(), shoal_runtime::image::Pruned::default());
        drop(one);
    }
    assert_eq!(store.prune(&BTreeSet::new()).unwrap().images, [digest]);
}

/// A file system of a few megabytes, gone with the test.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(bytes: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = format!("size={bytes}");
        let none = None::<&str>;
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(none, directory.path(), Some("tmpfs"), flags, Some(options.as_str())).unwrap();
        Self(directory)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

/// The disk is full at every stage: while an archive is loaded, a blob is fetched, a layer is unpacked. Each says so,
/// registers nothing by halves, gives back what it took, and works once there is room.
#[test]
fn a_full_disk_leaves_nothing_half_registered() {
    if !is_root() {
        return;
    }
    let disk = SmallDisk::new(4 << 20);
    let root = disk.0.path().join("store");
    let store = ImageStore::open(&root).unwrap();
    let is_full = |error: &dyn std::error::Error| {
        let mut cause = Some(error);
        let mut texts = Vec::new();
        while let Some(error) = cause {
            texts.push(error.to_string());
            cause = error.source();
        }
        texts.last().is_some_and(|text| text.contains("No space left")).then_some(()).ok_or(texts)
    };
    let names = |below: &str| fs::read_dir(root.join(below)).unwrap().count();
    // Bytes that gzip cannot make smaller.
    let noise: Vec<u8> = (0..3_000_000u32)
        .map(|number| (number.wrapping_mul(2_654_435_761) >> 11) as u8 ^ (number >> 7) as u8)
        .collect();
    let image = TestImage::new([Tar::new().file("noise", &noise).end()]);
    let filler = root.parent().unwrap().join("filler");
    fs::write(&filler, vec![1; 2 << 20]).unwrap();
    // Loading.
    is_full(&store.load(&image.docker_save(&["web:1"])[..]).unwrap_err()).unwrap();
    assert_eq!((names("tmp"), names("blobs/sha256"), store.list().len()), (0, 0, 0));
    // Fetching.
    let mut writer = store.writer(Digest::of(&noise), noise.len() as u64).unwrap();
    assert_eq!(writer.write_all(&noise).unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    drop(writer);
    assert_eq!(names("tmp"), 0);
    // Unpacking: the blob fits, the same bytes again do not.
    fs::remove_file(&filler).unwrap();
    let digest = store.load(&image.docker_save(&["web:1"])[..]).unwrap()[0].digest;
    is_full(&store.unpack(&digest).unwrap_err()).unwrap();
    assert_eq!((names("tmp"), names("layers")), (0, 0));
    assert!(store.image(&digest).is_ok(), "the image itself is as it was");
    // The index: it stays as it was when there is no room for the next.
    fs::write(&filler, vec![1; 4 << 20]).unwrap_err();
    is_full(&store.tag(&digest, reference("web:2")).unwrap_err()).unwrap();
    assert_eq!(store.resolve("web:2"), None);
    fs::remove_file(&filler).unwrap();
    drop(store);
    let store = ImageStore::open(&root).unwrap();
    assert_eq!((store.resolve("web:1"), store.resolve("web:2")), (Some(digest), None));
    drop(store);
    nix::mount::mount(
        None::<&str>,
        disk.0.path(),
        None::<&str>,
        nix::mount::MsFlags::MS_REMOUNT,
        Some("size=16777216"),
    )
    .unwrap();
    let store = ImageStore::open(&root).unwrap();
    assert_eq!(store.unpack(&digest).unwrap().len(), 1);
}
