//! An image of the host's own tools, made on the spot: what containers of the tests look at themselves with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// What containers need to say what they see.
const TOOLS: [&str; 7] = ["sh", "cat", "sleep", "id", "touch", "dd", "getent"];

/// Writes an archive as `docker save` does, of the image `name` with `config` as its configuration.
pub(crate) fn archive(directory: &Path, name: &str, config: &Value) -> Result<PathBuf> {
    let top = directory.join(name.replace([':', '/'], "-"));
    let (root, image) = (top.join("root"), top.join("image"));
    for inside in ["bin", "etc", "tmp", "data"] {
        fs::create_dir_all(root.join(inside))?;
    }
    fs::create_dir_all(&image)?;
    for tool in TOOLS {
        let found =
            ["/bin", "/usr/bin"].iter().map(|directory| Path::new(directory).join(tool)).find(|path| path.exists());
        let found = found.with_context(|| format!("the host has no {tool}"))?;
        fs::copy(&found, root.join("bin").join(tool))?;
        for library in libraries(&found)? {
            let target = root.join(library.strip_prefix("/")?);
            fs::create_dir_all(target.parent().context("a directory")?)?;
            fs::copy(&library, target)?;
        }
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:1234:1235:web:/:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\nweb:x:1235:\nlogs:x:1300:\n")?;
    fs::write(root.join("data/seed"), "from the image\n")?;
    let layer = image.join("layer.tar");
    run(Command::new("tar").arg("-C").arg(&root).arg("--numeric-owner").arg("-cf").arg(&layer).arg("."))?;
    let diff = run(Command::new("sha256sum").arg(&layer))?;
    let diff = diff.split_whitespace().next().context("a digest")?;
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let document = json!({
        "architecture": architecture, "os": "linux", "config": config,
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{diff}")] },
    });
    fs::write(image.join("config.json"), document.to_string())?;
    let manifest = json!([{ "Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"] }]);
    fs::write(image.join("manifest.json"), manifest.to_string())?;
    let archive = top.join("image.tar");
    run(Command::new("tar").arg("-C").arg(&image).arg("-cf").arg(&archive).args([
        "manifest.json",
        "config.json",
        "layer.tar",
    ]))?;
    Ok(archive)
}

/// The dynamic loader lists what it would load.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let listing = run(Command::new(program).env("LD_TRACE_LOADED_OBJECTS", "1"))?;
    let paths = listing.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(paths.map(PathBuf::from).collect())
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
