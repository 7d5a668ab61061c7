//! Archives in every layout, good and bad.

use serde_json::json;
use shoal_runtime::image::{Digest, Limits, LoadError, Loaded, TarError};
use tar::EntryType;

use crate::support::{Sandbox, Tar, TestImage, gzip, host_architecture, layout};

fn names(loaded: &[Loaded]) -> Vec<String> {
    loaded.iter().flat_map(|image| image.references.iter().map(ToString::to_string)).collect()
}

#[test]
fn a_docker_save_archive_is_loaded_and_named() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let image = TestImage::plain();
    let loaded = store.load(&image.docker_save(&["web:1", "example.org/team/web"])[..]).unwrap();
    assert_eq!(names(&loaded), ["web:1", "example.org/team/web:latest"]);
    let found = store.image(&store.resolve("web:1").unwrap()).unwrap();
    assert_eq!(found.digest, loaded[0].digest);
    assert_eq!(found.config_digest, Digest::of(&image.config()));
    assert_eq!(found.layers.len(), 2);
    assert_eq!(found.layers[0].diff_id, Digest::of(&image.layers[0]));
    assert_eq!(found.config.config().as_ref().unwrap().cmd().as_ref().unwrap(), &["/bin/web"]);
    let summary = store.list().remove(0);
    assert_eq!((summary.os.as_str(), summary.architecture.as_str()), ("linux", host_architecture()));
    assert_eq!(summary.created.as_deref(), Some("2024-05-01T10:00:00Z"));
    assert_eq!(summary.references.len(), 2);
    sandbox.assert_tidy();
    // Loaded on another node, it has the same name for peers.
    let other = Sandbox::new();
    assert_eq!(other.store().load(&image.docker_save(&["web:1"])[..]).unwrap()[0].digest, loaded[0].digest);
}

#[test]
fn a_layer_that_an_old_archive_links_is_found() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let layer = Tar::new().file("x", "x").end();
    let image = TestImage::new([layer.clone(), Tar::new().file("y", "y").end(), layer]);
    let loaded = store.load(&image.docker_save(&["web"])[..]).unwrap();
    let layers = store.image(&loaded[0].digest).unwrap().layers;
    assert_eq!(layers[0], layers[2]);
}

#[test]
fn an_oci_layout_is_loaded_plain_and_gzipped_and_named_by_its_annotations() {
    for (annotations, expected) in [
        (
            json!({ "io.containerd.image.name": "docker.io/library/web:2", "org.opencontainers.image.ref.name": "2" }),
            vec!["web:2"],
        ),
        (json!({ "org.opencontainers.image.ref.name": "example.org/web:3" }), vec!["example.org/web:3"]),
        (json!({ "org.opencontainers.image.ref.name": "web" }), vec!["web:latest"]),
        (json!({ "org.opencontainers.image.ref.name": "latest" }), vec![]),
        (json!({ "org.opencontainers.image.ref.name": "Not A Name" }), vec![]),
        (json!({}), vec![]),
    ] {
        let archive = TestImage::plain().oci(&annotations);
        for bytes in [gzip(&archive), archive] {
            let sandbox = Sandbox::new();
            let store = sandbox.store();
            let loaded = store.load(&bytes[..]).unwrap();
            assert_eq!(names(&loaded), expected);
            assert_eq!(store.image(&loaded[0].digest).unwrap().layers.len(), 2);
            sandbox.assert_tidy();
        }
    }
}

/// Docker since version 25 writes both tables.
#[test]
fn names_in_manifest_json_count_for_an_oci_layout_too() {
    let image = TestImage::plain();
    let (mut blobs, manifest) = image.plain_blobs();
    let index = json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": Digest::of(&manifest), "size": manifest.len(),
    }]});
    let table = json!([{ "Config": format!("blobs/sha256/{}", Digest::of(&image.config()).hex()), "RepoTags": ["web:5"], "Layers": [] }]);
    let mut archive = layout(&blobs, &index);
    archive.truncate(archive.len() - 1024);
    archive.extend(Tar::new().file("manifest.json", table.to_string()).end());
    let sandbox = Sandbox::new();
    assert_eq!(names(&sandbox.store().load(&archive[..]).unwrap()), ["web:5"]);
    // A blob less.
    blobs.remove(0);
    let sandbox = Sandbox::new();
    assert!(matches!(sandbox.store().load(&layout(&blobs, &index)[..]), Err(LoadError::Missing(_))));
    sandbox.assert_empty();
}

#[test]
fn of_several_platforms_ours_is_taken() {
    let ours = TestImage::plain();
    let theirs = TestImage { architecture: "s390x", ..TestImage::plain() };
    let (mut blobs, our_manifest) = ours.plain_blobs();
    let (their_blobs, their_manifest) = theirs.plain_blobs();
    blobs.extend(their_blobs);
    let part = |manifest: &[u8], architecture: &str| {
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": Digest::of(manifest),
            "size": manifest.len(), "platform": { "os": "linux", "architecture": architecture },
        })
    };
    let nest = |parts: &[serde_json::Value], blobs: &[Vec<u8>]| {
        let nested = json!({ "schemaVersion": 2, "manifests": parts }).to_string().into_bytes();
        let index = json!({ "schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.index.v1+json", "digest": Digest::of(&nested), "size": nested.len(),
            "annotations": { "io.containerd.image.name": "docker.io/library/web:1" },
        }]});
        layout(&[blobs, &[nested]].concat(), &index)
    };
    let parts = [part(&their_manifest, "s390x"), part(&our_manifest, host_architecture())];
    let sandbox = Sandbox::new();
    let loaded = sandbox.store().load(&nest(&parts, &blobs)[..]).unwrap();
    assert_eq!((loaded[0].digest, names(&loaded)), (Digest::of(&our_manifest), vec!["web:1".to_owned()]));

    let sandbox = Sandbox::new();
    let error = sandbox.store().load(&nest(&parts[..1], &blobs)[..]).unwrap_err();
    let LoadError::Platform { found, .. } = error else { panic!("{error:?}") };
    assert_eq!(found, "linux/s390x");
    sandbox.assert_empty();
}

#[test]
fn an_index_that_contains_itself_in_spirit_ends() {
    let mut document = json!({ "schemaVersion": 2, "manifests": [] }).to_string().into_bytes();
    let mut blobs = vec![];
    for _ in 0..50 {
        let next = json!({ "schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.index.v1+json", "digest": Digest::of(&document), "size": document.len(),
        }]});
        blobs.push(std::mem::replace(&mut document, next.to_string().into_bytes()));
    }
    let index = serde_json::from_slice(&document).unwrap();
    let sandbox = Sandbox::new();
    assert!(matches!(sandbox.store().load(&layout(&blobs, &index)[..]), Err(LoadError::Images { .. })));
    sandbox.assert_empty();
}

#[test]
fn truncated_archives_leave_nothing() {
    let image = TestImage::plain();
    let archives = [image.docker_save(&["web"]), image.oci(&json!({})), gzip(&image.docker_save(&["web"]))];
    for archive in archives {
        // The last kilobyte is the end mark, of which one half suffices.
        let useful = if archive[0] == 0x1f { archive.len() - 8 } else { archive.len() - 1024 };
        let step = (useful / 100).max(1);
        let ends = (0..useful - 40).step_by(step).chain((useful.saturating_sub(1100)..useful - 512).step_by(37));
        for end in ends {
            let sandbox = Sandbox::new();
            let result = sandbox.store().load(&archive[..end]);
            if result.is_err() {
                sandbox.assert_empty();
            } else {
                // Only what follows the last file of use may be missing.
                assert!(end > useful - 3000, "{end} of {useful}");
                sandbox.assert_tidy();
            }
        }
    }
}

#[test]
fn wrong_digests_are_refused() {
    let image = TestImage::plain();
    let wrong = |archive: Vec<u8>| {
        let sandbox = Sandbox::new();
        let error = sandbox.store().load(&archive[..]).unwrap_err();
        assert!(matches!(error, LoadError::Digest { .. }), "{error:?}");
        assert!(error.to_string().starts_with("wrong digest"), "{error}");
        sandbox.assert_empty();
    };
    let mut archive = image.docker_save(&["web"]);
    let at = archive.windows(6).position(|bytes| bytes == b"hello\n").unwrap();
    archive[at] = b'j';
    wrong(archive);
    let (blobs, _) = image.plain_blobs();
    let mut archive = layout(&blobs, &json!({ "schemaVersion": 2, "manifests": [] }));
    let at = archive.windows(6).position(|bytes| bytes == b"hello\n").unwrap();
    archive[at] = b'j';
    wrong(archive);
}

#[test]
fn a_size_that_the_manifest_does_not_say_is_refused() {
    let image = TestImage::plain();
    let (mut blobs, manifest) = image.plain_blobs();
    let mut manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    manifest["layers"][0]["size"] = json!(7);
    let manifest = manifest.to_string().into_bytes();
    blobs.push(manifest.clone());
    let index = json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": Digest::of(&manifest), "size": manifest.len(),
    }]});
    let sandbox = Sandbox::new();
    assert!(matches!(sandbox.store().load(&layout(&blobs, &index)[..]), Err(LoadError::Size { declared: 7, .. })));
    sandbox.assert_empty();
}

#[test]
fn paths_that_lead_out_are_refused() {
    let cases = [
        Tar::new().file("../evil", "x"),
        Tar::new().file("a/../../evil", "x"),
        Tar::new().file("/evil", "x"),
        Tar::new().symlink("a", "/outside/canary"),
        Tar::new().symlink("a/b", "../../evil"),
        Tar::new().hard_link("a", "../outside/canary"),
        Tar::new().hard_link("a", "/etc/passwd"),
    ];
    for tar in cases {
        let sandbox = Sandbox::new();
        let error = sandbox.store().load(&tar.end()[..]).unwrap_err();
        assert!(matches!(error, LoadError::Path(_)), "{error:?}");
        sandbox.assert_empty();
    }
    let sandbox = Sandbox::new();
    let tar = Tar::new().entry(EntryType::Char, "null", "", b"", |header| {
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
    });
    assert!(matches!(sandbox.store().load(&tar.end()[..]), Err(LoadError::Kind(_))));
    sandbox.assert_empty();
}

#[test]
fn a_link_in_an_archive_cannot_name_a_file_of_this_machine() {
    let manifest = json!([{ "Config": "config.json", "RepoTags": ["web"], "Layers": [] }]);
    let table = Tar::new().file("manifest.json", manifest.to_string());
    for tar in [table.clone().symlink("config.json", "etc/passwd"), table.symlink("config.json", "config.json")] {
        let sandbox = Sandbox::new();
        assert!(matches!(sandbox.store().load(&tar.end()[..]), Err(LoadError::Missing(_))));
        sandbox.assert_empty();
    }
}

#[test]
fn absurd_sizes_are_refused_before_anything_is_written() {
    let tight =
        Limits { document_bytes_max: 1000, archive_bytes_max: 1 << 20, archive_entries_max: 50, ..Limits::default() };
    let huge = Tar::new().entry(EntryType::Regular, "layer.tar", "", b"", |header| header.set_size(1 << 62)).end();
    let bomb = gzip(&Tar::new().file("zeros", vec![0; 2 << 20]).end());
    let many = (0..60).fold(Tar::new(), |tar, number| tar.file(&number.to_string(), "")).end();
    for archive in [huge, bomb, many] {
        let sandbox = Sandbox::new();
        let error = sandbox.store_with(tight.clone()).load(&archive[..]).unwrap_err();
        assert!(matches!(error, LoadError::Tar(TarError::Size { .. } | TarError::Entries { .. })), "{error:?}");
        sandbox.assert_empty();
    }
    let long = Tar::new().file("manifest.json", vec![b' '; 2000]).end();
    let sandbox = Sandbox::new();
    assert!(matches!(sandbox.store_with(tight).load(&long[..]), Err(LoadError::Document { .. })));
    sandbox.assert_empty();
}

#[test]
fn what_is_no_image_is_said_to_be_none() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    assert!(matches!(store.load(&b""[..]), Err(LoadError::Tar(TarError::NotTar))));
    assert!(matches!(store.load(&b"hello"[..]), Err(LoadError::Tar(TarError::NotTar))));
    assert!(matches!(store.load(&vec![b'x'; 4096][..]), Err(LoadError::Tar(TarError::NotTar))));
    assert!(matches!(store.load(&Tar::new().file("readme", "hi").end()[..]), Err(LoadError::NoImage)));
    assert!(matches!(store.load(&Tar::new().file("manifest.json", "[]").end()[..]), Err(LoadError::NoImage)));
    assert!(matches!(store.load(&b"\xfd7zXZ\0"[..]), Err(LoadError::Compression(_))));
    assert!(matches!(store.load(&[0x28, 0xb5, 0x2f, 0xfd, 0, 0][..]), Err(LoadError::Tar(_))), "a torn zstd stream");
    let bad_tag = TestImage::plain().docker_save(&["Not A Name"]);
    assert!(matches!(store.load(&bad_tag[..]), Err(LoadError::Reference { .. })));
    drop(store);
    sandbox.assert_empty();
}

/// What is saved can be loaded elsewhere as the same image, is the same each time, and is what others can read.
#[test]
fn a_saved_image_is_the_same_when_it_is_loaded_again() {
    let (here, there) = (Sandbox::new(), Sandbox::new());
    let (from, to) = (here.store(), there.store());
    let one = from.load(&TestImage::plain().docker_save(&["web:1"])[..]).unwrap()[0].digest;
    let other = TestImage::new([Tar::new().file("x", "other").end()]);
    let two = from.load(&other.oci(&json!({}))[..]).unwrap()[0].digest;
    let chosen = [(one, Some("web:1".parse().unwrap())), (two, None)];
    let saved = || {
        let mut archive = Vec::new();
        from.save(&chosen, &mut archive).unwrap();
        archive
    };
    assert_eq!(saved(), saved());
    let loaded: std::collections::BTreeMap<_, _> =
        to.load(&saved()[..]).unwrap().into_iter().map(|image| (image.digest, image.references.len())).collect();
    assert_eq!(loaded, [(one, 1), (two, 0)].into());
    for digest in [one, two] {
        assert_eq!(from.image(&digest).unwrap(), to.image(&digest).unwrap());
    }
    let unknown = from.save(&[(Digest::of(b"?"), None)], &mut Vec::new());
    assert!(matches!(unknown, Err(shoal_runtime::image::SaveError::Store(_))));
    there.assert_tidy();
}
