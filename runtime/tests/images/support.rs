//! Sandboxes, tars with entries that no tool would write, and archives in all layouts.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use serde_json::json;
use shoal_runtime::image::{Digest, ImageStore, Limits};
use tar::{EntryType, Header};
use tempfile::TempDir;

/// A directory with a store in it, and files beside it that nothing may touch.
pub(crate) struct Sandbox {
    root: TempDir,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("outside")).unwrap();
        fs::write(root.path().join("outside/canary"), "untouched").unwrap();
        Self { root }
    }

    pub(crate) fn outside(&self) -> PathBuf {
        self.root.path().join("outside")
    }

    pub(crate) fn store_path(&self) -> PathBuf {
        self.root.path().join("store")
    }

    pub(crate) fn store(&self) -> ImageStore {
        ImageStore::open(&self.store_path()).unwrap()
    }

    pub(crate) fn store_with(&self, limits: Limits) -> ImageStore {
        ImageStore::open_with(&self.store_path(), limits).unwrap()
    }

    fn names(&self, below: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.root.path().join(below)) else { return Vec::new() };
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub(crate) fn layers(&self) -> Vec<String> {
        self.names("store/layers")
    }

    pub(crate) fn blobs(&self) -> Vec<String> {
        self.names("store/blobs/sha256")
    }

    /// Nothing unfinished is left, and nothing beside the store was touched.
    pub(crate) fn assert_tidy(&self) {
        assert_eq!(self.names("store/tmp"), [""; 0]);
        assert_eq!(self.names(""), ["outside", "store"]);
        assert_eq!(self.names("outside"), ["canary"]);
        assert_eq!(fs::read_to_string(self.outside().join("canary")).unwrap(), "untouched");
        let known = ["blobs", "index.json", "layers", "layers.boot", "lock", "tmp"];
        assert!(self.names("store").iter().all(|name| known.contains(&name.as_str())), "{:?}", self.names("store"));
    }

    /// As [`Sandbox::assert_tidy`], and the store holds nothing at all.
    pub(crate) fn assert_empty(&self) {
        self.assert_tidy();
        assert_eq!(self.blobs(), [""; 0]);
        assert_eq!(self.layers(), [""; 0]);
    }
}

/// Says whether the test may run: unpacking needs root.
pub(crate) fn is_root() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "this test needs root, and CI must not skip it");
    println!("skipped: unpacking layers needs root");
    false
}

/// A tar that may hold anything.
#[derive(Clone, Default)]
pub(crate) struct Tar {
    bytes: Vec<u8>,
}

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn entry(
        mut self,
        kind: EntryType,
        path: &str,
        link: &str,
        body: &[u8],
        change: impl FnOnce(&mut Header),
    ) -> Self {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000);
        header.set_size(body.len() as u64);
        // The crate refuses paths that attackers use.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        change(&mut header);
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(body);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, path: &str, body: impl AsRef<[u8]>) -> Self {
        self.entry(EntryType::Regular, path, "", body.as_ref(), |_| {})
    }

    pub(crate) fn directory(self, path: &str, mode: u32) -> Self {
        self.entry(EntryType::Directory, path, "", b"", |header| header.set_mode(mode))
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path, target, b"", |_| {})
    }

    pub(crate) fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Link, path, target, b"", |_| {})
    }

    pub(crate) fn xattr(self, name: &str, value: &[u8]) -> Self {
        let key = format!("SCHILY.xattr.{name}");
        let mut length = key.len() + value.len() + 3;
        while length != length.to_string().len() + key.len() + value.len() + 3 {
            length = length.to_string().len() + key.len() + value.len() + 3;
        }
        let mut record = format!("{length} {key}=").into_bytes();
        record.extend_from_slice(value);
        record.push(b'\n');
        self.entry(EntryType::XHeader, "pax", "", &record, |_| {})
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 1024]);
        self.bytes
    }
}

/// Says whether a program is there; in CI it must be.
pub(crate) fn has(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()));
    if !found {
        assert!(std::env::var_os("CI").is_none(), "this test needs {program}, and CI must not skip it");
        println!("skipped: {program} is not installed");
    }
    found
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Layers and a configuration, to be packed in one of the layouts.
pub(crate) struct TestImage {
    /// Uncompressed tars, the lowest first.
    pub(crate) layers: Vec<Vec<u8>>,
    pub(crate) architecture: &'static str,
}

pub(crate) fn host_architecture() -> &'static str {
    if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }
}

impl TestImage {
    pub(crate) fn new(layers: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self { layers: layers.into_iter().collect(), architecture: host_architecture() }
    }

    /// Two small layers.
    pub(crate) fn plain() -> Self {
        Self::new([
            Tar::new().directory("etc/", 0o755).file("etc/motd", "hello\n").end(),
            Tar::new().directory("etc/", 0o755).file("etc/hostname", "web\n").end(),
        ])
    }

    pub(crate) fn config(&self) -> Vec<u8> {
        let diff_ids: Vec<_> = self.layers.iter().map(|layer| Digest::of(layer)).collect();
        serde_json::to_vec(&json!({
            "architecture": self.architecture, "os": "linux", "created": "2024-05-01T10:00:00Z",
            "config": { "Cmd": ["/bin/web"], "Env": ["A=b"], "Labels": null, "Volumes": null, "ExposedPorts": { "80/tcp": {} } },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": [],
        }))
        .unwrap()
    }

    /// The archive of `docker save` before version 25. A layer that comes twice is a link, as there.
    pub(crate) fn docker_save(&self, tags: &[&str]) -> Vec<u8> {
        let config = self.config();
        let config_name = format!("{}.json", Digest::of(&config).hex());
        let mut tar = Tar::new().file(&config_name, &config);
        let mut paths = Vec::new();
        let mut seen = BTreeMap::new();
        for (number, layer) in self.layers.iter().enumerate() {
            let folder = format!("{number:064}");
            let path = format!("{folder}/layer.tar");
            tar = tar.directory(&format!("{folder}/"), 0o755).file(&format!("{folder}/VERSION"), "1.0");
            tar = match seen.get(layer) {
                Some(first) => tar.symlink(&path, &format!("../{first}")),
                None => tar.file(&path, layer),
            };
            seen.entry(layer.clone()).or_insert_with(|| path.clone());
            paths.push(path);
        }
        let manifest = json!([{ "Config": config_name, "RepoTags": tags, "Layers": paths }]);
        tar.file("manifest.json", manifest.to_string()).file("repositories", "{}").end()
    }

    fn blobs(&self, pack: fn(&[u8]) -> Vec<u8>, layer_type: &str) -> (Vec<Vec<u8>>, Vec<u8>) {
        let config = self.config();
        let layers: Vec<Vec<u8>> = self.layers.iter().map(|layer| pack(layer)).collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest::of(&config), "size": config.len() },
            "layers": layers.iter().map(|layer| json!({
                "mediaType": layer_type, "digest": Digest::of(layer), "size": layer.len(),
            })).collect::<Vec<_>>(),
        });
        let manifest = manifest.to_string().into_bytes();
        let mut blobs = layers;
        blobs.push(config);
        blobs.push(manifest.clone());
        (blobs, manifest)
    }

    /// An OCI layout with gzipped layers and the given annotations on its one manifest.
    pub(crate) fn oci(&self, annotations: &serde_json::Value) -> Vec<u8> {
        let (blobs, manifest) = self.blobs(gzip, "application/vnd.oci.image.layer.v1.tar+gzip");
        let index = json!({ "schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": Digest::of(&manifest),
            "size": manifest.len(), "annotations": annotations,
        }]});
        layout(&blobs, &index)
    }

    /// The manifest and all blobs of this image with plain layers.
    pub(crate) fn plain_blobs(&self) -> (Vec<Vec<u8>>, Vec<u8>) {
        self.blobs(<[u8]>::to_vec, "application/vnd.oci.image.layer.v1.tar")
    }
}

/// An OCI layout of these blobs.
pub(crate) fn layout(blobs: &[Vec<u8>], index: &serde_json::Value) -> Vec<u8> {
    let mut tar =
        Tar::new().file("./oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#).directory("blobs/sha256/", 0o755);
    for blob in blobs {
        tar = tar.file(&format!("blobs/sha256/{}", Digest::of(blob).hex()), blob);
    }
    tar.file("./index.json", index.to_string()).end()
}

pub(crate) fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}
