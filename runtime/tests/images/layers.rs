//! Layers, honest and hostile, unpacked.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use shoal_runtime::image::{Digest, ImageStore, LayerError, Limits, StoreError, TarError, UnpackError};
use tar::EntryType;

use crate::support::{Sandbox, Tar, TestImage, gzip, has, is_root, read};

fn load(store: &ImageStore, image: &TestImage) -> Digest {
    store.load(&image.docker_save(&["web"])[..]).unwrap()[0].digest
}

/// Unpacks an image of these layers.
fn unpack(store: &ImageStore, layers: impl IntoIterator<Item = Tar>) -> Result<Vec<PathBuf>, UnpackError> {
    let image = TestImage::new(layers.into_iter().map(Tar::end));
    store.unpack(&load(store, &image))
}

fn refused(layer: Tar) -> LayerError {
    refused_with(layer, Limits::default())
}

fn refused_with(layer: Tar, limits: Limits) -> LayerError {
    let sandbox = Sandbox::new();
    let store = sandbox.store_with(limits);
    let error = unpack(&store, [layer]).unwrap_err();
    sandbox.assert_tidy();
    assert_eq!(sandbox.layers(), [""; 0]);
    match error {
        UnpackError::Layer { source, .. } => source,
        UnpackError::Store(error) => panic!("{error:?}"),
    }
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 1000];
    let count = rustix::fs::getxattr(path, name, &mut value[..]).ok()?;
    value.truncate(count);
    Some(value)
}

fn is_whiteout(path: &Path) -> bool {
    let metadata = fs::symlink_metadata(path).unwrap();
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

#[test]
fn everything_that_a_layer_says_of_a_file_is_kept() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    // cap_net_bind_service, effective and permitted, as the kernel stores it; with a byte that ends lines elsewhere.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let layer = Tar::new()
        .directory("./", 0o711)
        .entry(EntryType::Directory, "opt/", "", b"", |header| {
            header.set_mode(0o2750);
            header.set_uid(12);
            header.set_gid(34);
            header.set_mtime(1234);
        })
        .xattr("security.capability", &capability)
        .entry(EntryType::Regular, "opt/tool", "", b"body", |header| {
            header.set_mode(0o4755);
            header.set_uid(70_000);
            header.set_gid(7);
        })
        .xattr("user.note", b"a\nb")
        .file("opt/note", "n")
        .xattr("trusted.overlay.opaque", b"y")
        .directory("opt/notopaque/", 0o755)
        .hard_link("opt/again", "opt/tool")
        .hard_link("/opt/absolute", "./opt/tool")
        .symlink("opt/link", "../../../etc/shadow")
        .entry(EntryType::Fifo, "opt/fifo", "", b"", |header| header.set_mode(0o622))
        .entry(EntryType::Char, "opt/null", "", b"", |header| {
            header.set_mode(0o666);
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        });
    let root = unpack(&store, [layer]).unwrap().remove(0);
    assert_eq!(fs::metadata(&root).unwrap().mode() & 0o7777, 0o711);
    let opt = fs::metadata(root.join("opt")).unwrap();
    assert_eq!((opt.mode() & 0o7777, opt.uid(), opt.gid(), opt.mtime()), (0o2750, 12, 34, 1234));
    let tool = fs::metadata(root.join("opt/tool")).unwrap();
    assert_eq!((tool.mode() & 0o7777, tool.uid(), tool.gid(), tool.mtime()), (0o4755, 70_000, 7, 1_000_000));
    assert_eq!(xattr(&root.join("opt/tool"), "security.capability").unwrap(), capability);
    assert_eq!(xattr(&root.join("opt/note"), "user.note").unwrap(), b"a\nb");
    assert_eq!(xattr(&root.join("opt/notopaque"), "trusted.overlay.opaque"), None);
    for name in ["opt/again", "opt/absolute"] {
        assert_eq!(fs::metadata(root.join(name)).unwrap().ino(), tool.ino());
    }
    assert_eq!(fs::read_link(root.join("opt/link")).unwrap(), Path::new("../../../etc/shadow"));
    let fifo = fs::metadata(root.join("opt/fifo")).unwrap();
    assert!(fifo.file_type().is_fifo() && fifo.mode() & 0o777 == 0o622);
    let null = fs::metadata(root.join("opt/null")).unwrap();
    assert_eq!((null.mode() & 0o777, null.rdev()), (0o666, rustix::fs::makedev(1, 3)));
    // A second time nothing is done.
    let digest = store.resolve("web").unwrap();
    let before = fs::metadata(&root).unwrap().ctime_nsec();
    assert_eq!(store.unpack(&digest).unwrap(), std::slice::from_ref(&root));
    assert_eq!(fs::metadata(&root).unwrap().ctime_nsec(), before);
    // Programs with set-user-id bits are out of reach for the users of this machine.
    assert_eq!(fs::metadata(sandbox.store_path()).unwrap().permissions().mode() & 0o777, 0o700);
    sandbox.assert_tidy();
}

#[test]
fn whiteouts_become_those_of_overlayfs() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let lower = Tar::new()
        .directory("a/", 0o755)
        .file("a/gone", "1")
        .file("a/stays", "1")
        .directory("b/", 0o755)
        .file("b/hidden", "1")
        .directory("c/", 0o755)
        .file("c/old", "1")
        .file("d", "1");
    let upper = Tar::new()
        .directory("a/", 0o755)
        .file("a/.wh.gone", "")
        .directory("b/", 0o755)
        .file("b/new", "2")
        .file("b/.wh..wh..opq", "")
        // Deleted and made again, in either order: only what this layer has may show.
        .file(".wh.c", "")
        .directory("c/", 0o755)
        .file("c/new", "2")
        .file("d", "2")
        .file(".wh.d", "")
        .file(".wh..wh.plnk", "");
    let directories = unpack(&store, [lower, upper]).unwrap();
    let top = &directories[1];
    assert!(is_whiteout(&top.join("a/gone")));
    assert_eq!(xattr(&top.join("b"), "trusted.overlay.opaque").unwrap(), b"y");
    assert_eq!(xattr(&top.join("c"), "trusted.overlay.opaque").unwrap(), b"y");
    assert_eq!(xattr(&top.join("a"), "trusted.overlay.opaque"), None);
    assert_eq!(read(top.join("d")), "2");
    assert!(!top.join(".wh..wh.plnk").exists());

    let mount = tempfile::tempdir().unwrap();
    let stack = format!("lowerdir={}:{}", directories[1].display(), directories[0].display());
    let script = format!(
        "mount -t overlay overlay -o '{stack}' '{0}' && cd '{0}' && find . -type f | sort",
        mount.path().display()
    );
    let output = Command::new("unshare").args(["-m", "sh", "-c", &script]).output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        shown.lines().collect::<Vec<_>>(),
        ["./a/stays", "./b/new", "./c/new", "./d"],
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn directories_without_an_entry_are_like_those_below() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let tmp = |mode| Tar::new().directory("tmp/", mode).directory("tmp/deep/", 0o700);
    let bare = Tar::new().file("tmp/deep/x", "x").file("own/y", "y");
    let first = unpack(&store, [tmp(0o1777), bare.clone()]).unwrap();
    let mode = |path: PathBuf| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(first[1].join("tmp")), 0o1777);
    assert_eq!(mode(first[1].join("tmp/deep")), 0o700);
    assert_eq!(mode(first[1].join("own")), 0o755);
    assert_eq!(mode(first[1].clone()), 0o755);
    // On another base, the same layer is another directory.
    let second = unpack(&store, [tmp(0o711), bare]).unwrap();
    assert_eq!(mode(second[1].join("tmp")), 0o711);
    assert_ne!(first[1], second[1]);
    assert_eq!(mode(first[1].join("tmp")), 0o1777);
}

#[test]
fn layers_are_shared_between_images_and_a_repeated_one_is_given_once() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let base = || Tar::new().file("base", "b");
    let first = unpack(&store, [base(), Tar::new().file("x", "x")]).unwrap();
    let second = unpack(&store, [base(), Tar::new().file("y", "y"), base()]).unwrap();
    assert_eq!(second[1], first[0]);
    assert_eq!(second.len(), 2);
    assert_eq!(sandbox.layers().len(), 3);
}

#[test]
fn paths_that_lead_out_of_a_layer_are_refused() {
    if !is_root() {
        return;
    }
    for path in ["../evil", "a/../../evil", "..", "a/.wh...", ".wh.."] {
        assert!(matches!(refused(Tar::new().file(path, "x")), LayerError::Escape { .. }), "{path}");
    }
    for target in ["../outside/canary", "a/../../../../../../../../etc/passwd"] {
        assert!(matches!(refused(Tar::new().hard_link("a", target)), LayerError::Escape { .. }), "{target}");
    }
    // Taken as a path in the layer, where it does not exist.
    assert!(matches!(refused(Tar::new().hard_link("a", "/etc/passwd")), LayerError::Entry { .. }));
}

#[test]
fn a_link_made_by_one_entry_does_not_lead_the_next_out() {
    if !is_root() {
        return;
    }
    let probe = Sandbox::new();
    let outside = probe.outside().display().to_string();
    for target in [outside.as_str(), "../../../outside", "/proc/self/root/etc", "/"] {
        let sandbox = Sandbox::new();
        let store = sandbox.store();
        let layers = unpack(&store, [Tar::new().symlink("link", target).file("link/canary", "overwritten")]);
        sandbox.assert_tidy();
        assert_eq!(read(probe.outside().join("canary")), "untouched");
        if target == "/" {
            assert_eq!(read(layers.unwrap()[0].join("canary")), "overwritten");
        } else {
            // Inside the layer the target does not exist.
            assert!(matches!(layers, Err(UnpackError::Layer { source: LayerError::Entry { .. }, .. })), "{layers:?}");
        }
    }
    // Replaced, not written through; and neither are modes, owners and times set through it.
    let canary = format!("{outside}/canary");
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let layer = Tar::new()
        .symlink("file", &canary)
        .file("file", "mine")
        .symlink("dir", &outside)
        .directory("dir/", 0o777)
        .symlink("left", &canary)
        .hard_link("hard", "left")
        .symlink("white", &outside)
        .file(".wh.white", "");
    let root = unpack(&store, [layer]).unwrap().remove(0);
    assert_eq!(read(root.join("file")), "mine");
    assert!(fs::symlink_metadata(root.join("dir")).unwrap().is_dir());
    assert!(fs::symlink_metadata(root.join("hard")).unwrap().is_symlink());
    assert_eq!(read(&canary), "untouched");
    assert_eq!(fs::metadata(&outside).unwrap().mode() & 0o777, 0o755);
    assert_ne!(fs::metadata(&canary).unwrap().mtime(), 1_000_000);
    sandbox.assert_tidy();
}

#[test]
fn a_link_inside_the_layer_is_followed_inside() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let layer = Tar::new()
        .directory("usr/lib/", 0o755)
        .symlink("lib", "/usr/lib")
        .file("lib/x", "x")
        .symlink("usr/lib64", "../../../../usr/lib")
        .file("usr/lib64/y", "y")
        .hard_link("z", "lib/x");
    let root = unpack(&store, [layer]).unwrap().remove(0);
    assert_eq!(
        (read(root.join("usr/lib/x")), read(root.join("usr/lib/y")), read(root.join("z"))),
        ("x".into(), "y".into(), "x".into())
    );
    for layer in [
        Tar::new().symlink("loop", "loop").file("loop/x", "x"),
        Tar::new().file("file", "x").file("file/x", "x"),
        Tar::new().symlink("dangling", "nowhere").file("dangling/x", "x"),
    ] {
        assert!(matches!(refused(layer), LayerError::Entry { .. }));
    }
}

/// Directories nested by links that lead ever deeper could not be removed again.
#[test]
fn links_cannot_nest_deeper_than_paths() {
    if !is_root() {
        return;
    }
    let limits = Limits { layer_depth_max: 20, ..Limits::default() };
    let deep = "d/".repeat(15);
    let mut layer = Tar::new().directory(&deep, 0o755).symlink("s", deep.trim_end_matches('/'));
    layer = layer.directory(&format!("s/{deep}"), 0o755);
    assert!(matches!(refused_with(layer, limits.clone()), LayerError::Depth { .. } | LayerError::Entry { .. }));
    assert!(matches!(refused_with(Tar::new().directory(&"d/".repeat(21), 0o755), limits), LayerError::Depth { .. }));
}

#[test]
fn later_entries_replace_earlier_ones() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let layer = Tar::new()
        .directory("a/b/", 0o755)
        .file("a/b/c", "1")
        .file("a", "2")
        .file("f", "1")
        .directory("f/", 0o700)
        .file("f/g", "3")
        .file("h", "4")
        .hard_link("h", "h");
    let root = unpack(&store, [layer]).unwrap().remove(0);
    assert_eq!(
        (read(root.join("a")), read(root.join("f/g")), read(root.join("h"))),
        ("2".into(), "3".into(), "4".into())
    );
    assert_eq!(fs::metadata(root.join("f")).unwrap().mtime(), 1_000_000);
}

#[test]
fn bombs_are_stopped_at_the_limit() {
    if !is_root() {
        return;
    }
    let limits = Limits {
        layer_bytes_max: 1 << 20,
        layer_entries_max: 100,
        layer_directory_bytes_max: 2000,
        ..Limits::default()
    };
    type Check = fn(&LayerError) -> bool;
    let cases: [(Tar, Check); 4] = [
        (Tar::new().file("zeros", vec![0; 2 << 20]), |e| matches!(e, LayerError::Tar(TarError::Size { .. }))),
        (Tar::new().entry(EntryType::Regular, "x", "", b"", |header| header.set_size(1 << 50)), |e| {
            matches!(e, LayerError::Tar(TarError::Size { .. }))
        }),
        ((0..200).fold(Tar::new(), |tar, number| tar.file(&number.to_string(), "")), |e| {
            matches!(e, LayerError::Tar(TarError::Entries { .. }))
        }),
        ((0..50).fold(Tar::new(), |tar, number| tar.directory(&format!("{number:090}/"), 0o755)), |e| {
            matches!(e, LayerError::Directories { .. })
        }),
    ];
    for (layer, check) in cases {
        let error = refused_with(layer, limits.clone());
        assert!(check(&error), "{error:?}");
    }
    // What follows the end of the tar counts too.
    let sandbox = Sandbox::new();
    let store = sandbox.store_with(limits);
    let mut tail = Tar::new().file("x", "x").end();
    tail.resize(2 << 20, 0);
    let digest = load(&store, &TestImage::new([tail]));
    assert!(matches!(
        store.unpack(&digest),
        Err(UnpackError::Layer { source: LayerError::Tar(TarError::Size { .. }), .. })
    ));
}

#[test]
fn a_layer_with_another_diff_id_is_refused() {
    if !is_root() {
        return;
    }
    let image = TestImage::plain();
    let (_, manifest) = image.plain_blobs();
    let mut manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let other = gzip(&Tar::new().file("evil", "x").end());
    manifest["layers"][1]["digest"] = serde_json::json!(Digest::of(&other));
    manifest["layers"][1]["size"] = serde_json::json!(other.len());
    let manifest = manifest.to_string().into_bytes();
    let blobs = [other, image.layers[0].clone(), image.config(), manifest.clone()];
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": Digest::of(&manifest), "size": manifest.len(),
    }]});
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let digest = store.load(&crate::support::layout(&blobs, &index)[..]).unwrap()[0].digest;
    assert!(matches!(store.unpack(&digest), Err(UnpackError::Layer { source: LayerError::DiffId { .. }, .. })));
    assert_eq!(sandbox.layers().len(), 1);
    sandbox.assert_tidy();
}

#[test]
fn an_unknown_image_is_not_unpacked() {
    let sandbox = Sandbox::new();
    let error = sandbox.store().unpack(&Digest::of(b"nothing")).unwrap_err();
    assert!(matches!(error, UnpackError::Store(StoreError::Incomplete { .. })));
}

/// Layers as `skopeo` packs them with zstd, which has many ways to write a stream.
#[test]
fn layers_packed_with_zstd_are_unpacked() {
    if !is_root() || !has("skopeo") {
        return;
    }
    let sandbox = Sandbox::new();
    let text = "the quick brown fox jumps over the lazy dog\n".repeat(20_000);
    let image = TestImage::new([Tar::new().file("text", &text).end(), Tar::new().file("word", "fox").end()]);
    let apart = tempfile::tempdir().unwrap();
    let (plain, packed) = (apart.path().join("plain"), apart.path().join("packed"));
    fs::write(&plain, image.docker_save(&["web:1"])).unwrap();
    let copied = Command::new("skopeo")
        .args(["--insecure-policy", "copy", "--quiet", "--dest-compress-format", "zstd"])
        .arg(format!("docker-archive:{}", plain.display()))
        .arg(format!("oci-archive:{}:web:1", packed.display()))
        .output()
        .unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    let bytes = fs::read(&packed).unwrap();
    assert!(bytes.windows(8).any(|part| part == b"tar+zstd"), "skopeo packs with zstd");
    let store = sandbox.store();
    let loaded = store.load(&bytes[..]).unwrap();
    let layers = store.unpack(&loaded[0].digest).unwrap();
    assert_eq!((read(layers[0].join("text")), read(layers[1].join("word"))), (text, "fox".to_owned()));
    sandbox.assert_tidy();
}

/// Of layers that are unpacked side by side, those below a bad one stay, and the image is refused.
#[test]
fn layers_below_a_bad_one_stay() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let layer = |name: &str| Tar::new().directory("d/", 0o755).file(&format!("d/{name}"), name);
    let bad = layer("bad").file("../out", "").end();
    let image = TestImage::new([layer("one").end(), layer("two").end(), bad, layer("four").end()]);
    let error = store.unpack(&load(&store, &image)).unwrap_err();
    assert!(matches!(&error, UnpackError::Layer { source: LayerError::Escape { .. }, .. }), "{error:?}");
    let mut expected: Vec<String> = image.layers[..2].iter().map(|layer| Digest::of(layer).hex()).collect();
    expected.sort();
    assert_eq!(sandbox.layers(), expected);
    sandbox.assert_tidy();
}
