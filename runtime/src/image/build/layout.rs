//! The layout of a built image: its documents, and the tar around them.
//!
//! Input: the layer's digest and what to run. Output: an OCI image layout with a `manifest.json` beside it, in which
//! older versions of Docker find the same image. Documents are written from structures with a fixed order, so that the
//! same input gives the same bytes.

use std::{collections::BTreeMap, io::Write};

use serde::Serialize;
use tar::{Builder, EntryType, Header};

use super::{BuildConfig, BuildError, elf::Architecture, root::Root};
use crate::image::{
    digest::{Digest, HashingWriter},
    reference::Reference,
};

const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const CREATED: &str = "1970-01-01T00:00:00Z";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The one layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layer {
    pub(super) digest: Digest,
    pub(super) bytes: u64,
}

/// All documents of the image.
#[derive(Debug)]
pub(super) struct Layout {
    config: Vec<u8>,
    manifest: Vec<u8>,
    index: Vec<u8>,
    docker_manifest: Vec<u8>,
    layer: Layer,
}

#[derive(Serialize)]
struct ConfigDocument<'a> {
    created: &'a str,
    architecture: &'a str,
    os: &'a str,
    config: ExecutionConfig<'a>,
    rootfs: RootFs,
    history: [History<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ExecutionConfig<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    exposed_ports: BTreeMap<&'a str, Empty>,
    env: Vec<&'a str>,
    entrypoint: Vec<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    cmd: &'a [String],
    working_dir: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct RootFs {
    r#type: &'static str,
    diff_ids: [Digest; 1],
}

#[derive(Serialize)]
struct History<'a> {
    created: &'a str,
    created_by: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ManifestDocument<'a> {
    schema_version: u32,
    media_type: &'a str,
    config: DescriptorDocument<'a>,
    layers: [DescriptorDocument<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IndexDocument<'a> {
    schema_version: u32,
    media_type: &'a str,
    manifests: [DescriptorDocument<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DescriptorDocument<'a> {
    media_type: &'a str,
    digest: Digest,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<BTreeMap<&'a str, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<Platform<'a>>,
}

#[derive(Serialize)]
struct Platform<'a> {
    architecture: &'a str,
    os: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    repo_tags: Vec<String>,
    layers: [String; 1],
}

fn json(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(document).expect("strings and numbers always have a JSON form")
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn descriptor<'a>(media_type: &'a str, digest: Digest, size: u64) -> DescriptorDocument<'a> {
    DescriptorDocument { media_type, digest, size, annotations: None, platform: None }
}

impl Layout {
    pub(super) fn new(
        reference: &Reference,
        name: &str,
        config: &BuildConfig,
        architecture: Architecture,
        layer: &Layer,
    ) -> Self {
        let config = json(&config_document(name, config, architecture, layer));
        let config_digest = Digest::of(&config);
        let manifest = json(&ManifestDocument {
            schema_version: 2,
            media_type: MANIFEST_TYPE,
            config: descriptor(CONFIG_TYPE, config_digest, config.len() as u64),
            layers: [descriptor(LAYER_TYPE, layer.digest, layer.bytes)],
        });
        // Docker's own list holds no digests.
        let tag = reference.without_digest();
        let index = json(&IndexDocument {
            schema_version: 2,
            media_type: INDEX_TYPE,
            manifests: [DescriptorDocument {
                annotations: tag.as_ref().map(|tag| {
                    let oci = tag.tag().unwrap_or_default().to_owned();
                    let names =
                        [("io.containerd.image.name", tag.canonical()), ("org.opencontainers.image.ref.name", oci)];
                    BTreeMap::from(names)
                }),
                platform: Some(Platform { architecture: architecture.oci_name(), os: "linux" }),
                ..descriptor(MANIFEST_TYPE, Digest::of(&manifest), manifest.len() as u64)
            }],
        });
        let docker_manifest = json(&[DockerManifest {
            config: blob_path(&config_digest),
            repo_tags: tag.iter().map(Reference::to_string).collect(),
            layers: [blob_path(&layer.digest)],
        }]);
        Self { config, manifest, index, docker_manifest, layer: *layer }
    }

    /// The digest of the manifest.
    pub(super) fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    pub(super) fn write(&self, out: &mut impl Write, root: &Root) -> Result<(), BuildError> {
        let mut builder = Builder::new(&mut *out);
        append(&mut builder, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        append(&mut builder, "index.json", &self.index)?;
        append(&mut builder, "manifest.json", &self.docker_manifest)?;
        let mut documents = [&self.config, &self.manifest].map(|bytes| (blob_path(&Digest::of(bytes)), bytes));
        documents.sort();
        for (path, bytes) in documents {
            append(&mut builder, &path, bytes)?;
        }
        self.append_layer(&mut builder, root)?;
        builder.into_inner().map_err(BuildError::Write)?;
        out.flush().map_err(BuildError::Write)
    }

    /// The layer is written straight into the tar, whose header already says how long it will be.
    fn append_layer(&self, builder: &mut Builder<impl Write>, root: &Root) -> Result<(), BuildError> {
        let mut header = header(self.layer.bytes);
        header.set_path(blob_path(&self.layer.digest)).map_err(BuildError::Write)?;
        header.set_cksum();
        let out = builder.get_mut();
        out.write_all(header.as_bytes()).map_err(BuildError::Write)?;
        let mut hashed = HashingWriter::new(&mut *out);
        root.write(&mut hashed)?;
        let hasher = hashed.into_hasher();
        // A tar is whole blocks long, so no padding follows.
        if hasher.bytes() != self.layer.bytes || hasher.finish() != self.layer.digest {
            return Err(BuildError::Changed("the executable or one of its libraries".into()));
        }
        Ok(())
    }
}

fn config_document<'a>(
    name: &'a str,
    config: &'a BuildConfig,
    architecture: Architecture,
    layer: &Layer,
) -> ConfigDocument<'a> {
    let mut env: Vec<&str> = config.env.iter().map(String::as_str).collect();
    if !env.iter().any(|variable| variable.starts_with("PATH=")) {
        env.insert(0, PATH);
    }
    let entrypoint: Vec<&str> = config.entrypoint.iter().map(String::as_str).collect();
    ConfigDocument {
        created: CREATED,
        architecture: architecture.oci_name(),
        os: "linux",
        config: ExecutionConfig {
            user: config.user.as_deref(),
            exposed_ports: config.exposed_ports.iter().map(|port| (port.as_str(), Empty {})).collect(),
            env,
            entrypoint: if entrypoint.is_empty() { vec![name] } else { entrypoint },
            cmd: &config.command,
            working_dir: "/",
            labels: &config.labels,
        },
        rootfs: RootFs { r#type: "layers", diff_ids: [layer.digest] },
        history: [History { created: CREATED, created_by: "shoal: from an executable and its libraries" }],
    }
}

fn header(bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(bytes);
    header
}

fn append(builder: &mut Builder<impl Write>, path: &str, bytes: &[u8]) -> Result<(), BuildError> {
    builder.append_data(&mut header(bytes.len() as u64), path, bytes).map_err(BuildError::Write)
}
