//! The smallest archive that `docker save` could have written: one empty layer.

use serde_json::json;
use shoal_runtime::image::Digest;

/// Returns an archive of an image named `small:1`.
pub(super) fn small() -> Vec<u8> {
    // An empty tar is two blocks of zeros.
    let layer = vec![0; 1024];
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": { "Cmd": ["/whoami"], "Env": ["A=1"], "Labels": { "tier": "front" } },
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(&layer).to_string()] },
        "history": [{ "created_by": "a test" }]
    });
    let config = config.to_string().into_bytes();
    let config_name = format!("{}.json", Digest::of(&config).hex());
    let manifest = json!([{ "Config": config_name, "RepoTags": ["small:1"], "Layers": ["layer.tar"] }]).to_string();
    let mut archive = Vec::new();
    for (name, bytes) in [(config_name.as_str(), &config), ("layer.tar", &layer), ("manifest.json", &manifest.into())] {
        entry(&mut archive, name, bytes);
    }
    archive.extend([0; 1024]);
    archive
}

/// Adds a file in the ustar format (POSIX.1-1988).
fn entry(archive: &mut Vec<u8>, name: &str, bytes: &[u8]) {
    let mut header = [0_u8; 512];
    let mut put = |at: usize, field: &[u8]| header[at..at + field.len()].copy_from_slice(field);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", bytes.len()).as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    archive.extend(header);
    archive.extend(bytes);
    archive.resize(archive.len().next_multiple_of(512), 0);
}
