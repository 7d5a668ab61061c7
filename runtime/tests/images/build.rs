//! Images made of programs of this machine.

use std::{collections::BTreeMap, os::unix::fs::MetadataExt, path::Path, process::Command};

use shoal_runtime::image::{BuildConfig, BuildError, build_from_executable};

use crate::support::{Sandbox, is_root};

fn config() -> BuildConfig {
    BuildConfig {
        entrypoint: vec!["/bin/hello".into(), "-n".into()],
        command: vec!["hi".into()],
        env: vec!["A=b".into()],
        labels: (0..20).map(|number| (format!("label{number}"), "x".into())).collect::<BTreeMap<_, _>>(),
        exposed_ports: vec!["80/tcp".into()],
        user: None,
    }
}

#[test]
fn a_built_image_runs_with_nothing_but_its_own_files() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    for program in ["/bin/true", "/bin/ls", "/bin/bash"] {
        let mut archive = Vec::new();
        let built =
            build_from_executable(Path::new(program), "/bin/hello", "hello:1", &config(), &mut archive).unwrap();
        let loaded = store.load(&archive[..]).unwrap();
        assert_eq!((loaded[0].digest, &loaded[0].references), (built.digest, &vec![built.reference.clone()]));
        let root = store.unpack(&built.digest).unwrap().remove(0);
        let output = Command::new("chroot").arg(&root).args(["/bin/hello", "--version"]).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(std::fs::metadata(root.join("tmp")).unwrap().mode() & 0o7777, 0o1777);
        assert!(std::fs::read_to_string(root.join("etc/passwd")).unwrap().contains("nobody:x:65534"));
        for directory in ["proc", "sys", "dev", "etc", "root"] {
            assert!(root.join(directory).is_dir());
        }
    }
    sandbox.assert_tidy();
}

#[test]
fn a_built_image_says_what_to_run() {
    let sandbox = Sandbox::new();
    let store = sandbox.store();
    let mut archive = Vec::new();
    let built =
        build_from_executable(Path::new("/bin/true"), "/bin/hello", "hello:1", &config(), &mut archive).unwrap();
    store.load(&archive[..]).unwrap();
    let image = store.image(&built.digest).unwrap();
    let run = image.config.config().clone().unwrap();
    assert_eq!(run.entrypoint().as_deref().unwrap(), ["/bin/hello", "-n"]);
    assert_eq!(run.cmd().as_deref().unwrap(), ["hi"]);
    assert_eq!(run.env().as_ref().unwrap()[1], "A=b");
    assert!(run.env().as_ref().unwrap()[0].starts_with("PATH="));
    assert_eq!(run.labels().as_ref().unwrap().len(), 20);
    assert_eq!(image.layers[0].blob.size_bytes, built.layer_bytes);
    assert_eq!(image.layers[0].blob.digest, image.layers[0].diff_id);
    assert!(built.files.iter().any(|path| path.ends_with("libc.so.6")));
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let build = || {
        let mut archive = Vec::new();
        build_from_executable(Path::new("/bin/true"), "/bin/hello", "hello:1", &config(), &mut archive).unwrap();
        archive
    };
    assert!(build() == build());
}

/// Older versions of Docker read only `manifest.json`.
#[test]
fn a_built_image_loads_as_an_old_archive_too() {
    let mut archive = Vec::new();
    build_from_executable(Path::new("/bin/true"), "/bin/hello", "hello:1", &BuildConfig::default(), &mut archive)
        .unwrap();
    let at = archive.windows(10).position(|bytes| bytes == b"index.json").unwrap();
    let mut header = tar::Header::from_byte_slice(&archive[at..at + 512]).clone();
    header.set_path("ignored.js").unwrap();
    header.set_cksum();
    archive[at..at + 512].copy_from_slice(header.as_bytes());
    let sandbox = Sandbox::new();
    let loaded = sandbox.store().load(&archive[..]).unwrap();
    assert_eq!(loaded[0].references[0].to_string(), "hello:1");
}

#[test]
fn what_cannot_be_built_is_refused_with_a_reason() {
    let build = |program: &str, name: &str, reference: &str| {
        build_from_executable(Path::new(program), name, reference, &BuildConfig::default(), &mut Vec::new())
            .unwrap_err()
    };
    for name in ["", "hello", "/", "/bin/", "/../bin/x", "/bin/../x", "/a//b", "/a\0b"] {
        assert!(matches!(build("/bin/true", name, "x"), BuildError::Name(_)), "{name}");
    }
    assert!(matches!(build("/bin/true", "/x", "Not A Name"), BuildError::Reference(_)));
    assert!(matches!(build("/no/such/file", "/x", "x"), BuildError::Read { .. }));
    assert!(matches!(build("/etc/passwd", "/x", "x"), BuildError::Elf { .. }));
}
