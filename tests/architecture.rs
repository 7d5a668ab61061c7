//! The house rules that a machine can hold: who imports whom, what the core may depend on, sizes, and module docs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Production lines that a file may have at most.
const FILE_LINES_MAX: usize = 400;

/// Folder of each crate, and the folders whose crates it may depend on.
const EDGES: [(&str, &[&str]); 6] = [
    ("cluster", &[]),
    ("dns", &["cluster"]),
    ("overlay", &["cluster"]),
    ("runtime", &[]),
    ("node", &["cluster", "dns", "overlay", "runtime", "simulations"]),
    ("simulations", &["cluster"]),
];

/// What the pure core may depend on: nothing that has an effect.
const CORE_DEPENDENCIES: [&str; 6] = ["bincode", "crdts", "rand_chacha", "serde", "sha2", "thiserror"];

/// Who may import whom inside the core. Planes never import each other, only `plan` reads all three.
const LAYERS: [(&str, &[&str]); 5] = [
    ("crdt", &["clock", "hash", "id", "limits", "mutation", "seed"]),
    // A member's name and a task's service are words of intent; addresses are plain values.
    ("intent", &["clock", "crdt", "hash", "id", "limits", "mutation", "plan::addresses", "seed", "wire"]),
    (
        "membership",
        &["clock", "config", "hash", "id", "intent::name", "io::Event", "limits", "mutation", "seed", "wire"],
    ),
    ("reports", &["clock", "crdt", "hash", "id", "limits", "mutation", "plan::addresses", "seed", "wire"]),
    ("plan", &["clock", "hash", "id", "intent", "limits", "membership", "mutation", "reports", "wire"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests' folder lies in the root").to_path_buf()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_path_buf()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Returns the lines of a file before its tests.
fn production(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).expect("a source file is readable");
    text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).map(str::to_owned).collect()
}

fn is_test(path: &Path) -> bool {
    let parts: Vec<_> = path.iter().filter_map(|part| part.to_str()).collect();
    parts.contains(&"tests") || parts.last() == Some(&"tests.rs")
}

fn dependencies(folder: &str, table: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("each crate has a manifest");
    let manifest: toml::Table = text.parse().expect("a manifest is TOML");
    manifest.get(table).and_then(|table| table.as_table()).into_iter().flat_map(|table| table.keys().cloned()).collect()
}

#[test]
fn crates_depend_only_on_whom_the_house_allows() {
    for (folder, allowed) in EDGES {
        for dependency in dependencies(folder, "dependencies").iter().filter_map(|name| name.strip_prefix("shoal-")) {
            assert!(allowed.contains(&dependency), "{folder} must not depend on {dependency}");
        }
    }
}

#[test]
fn the_core_has_no_dependency_with_an_effect() {
    let allowed: BTreeSet<String> = CORE_DEPENDENCIES.iter().map(ToString::to_string).collect();
    let found = dependencies("cluster", "dependencies");
    assert!(found.is_subset(&allowed), "cluster may not depend on {:?}", found.difference(&allowed));
    let lib = fs::read_to_string(root().join("cluster/src/lib.rs")).expect("the core has a lib.rs");
    assert!(lib.contains("#![no_std]"), "the core is no_std");
}

#[test]
fn the_core_names_nothing_unordered_and_no_floats() {
    for path in sources(&root().join("cluster/src")).iter().filter(|path| !is_test(path)) {
        for (number, line) in production(path).iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for banned in ["HashMap", "HashSet", "SystemTime", "std::", " f32", " f64", "<f64", "<f32"] {
                assert!(!code.contains(banned), "{}:{}: {banned} in the core", path.display(), number + 1);
            }
        }
    }
}

#[test]
fn planes_do_not_import_each_other() {
    let modules: BTreeMap<&str, &[&str]> = LAYERS.into_iter().collect();
    let mut broken = Vec::new();
    for (module, allowed) in &modules {
        let source = root().join("cluster/src");
        let mut files = sources(&source.join(module));
        files.push(source.join(format!("{module}.rs")));
        for path in files.iter().filter(|path| !is_test(path)) {
            for line in production(path) {
                let Some(import) =
                    line.trim().strip_prefix("use crate::").or_else(|| line.trim().strip_prefix("pub use crate::"))
                else {
                    continue;
                };
                let inside = import.starts_with(module);
                let granted = allowed.iter().any(|prefix| import.starts_with(prefix));
                if !inside && !granted {
                    broken.push(format!("{}: {module} must not import crate::{import}", path.display()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_module_says_what_it_is_for_and_none_is_too_long() {
    let mut broken = Vec::new();
    for (folder, _) in EDGES {
        for path in sources(&root().join(folder).join("src")).iter().filter(|path| !is_test(path)) {
            let lines = production(path);
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            for (fault, found) in [
                ("has no //! at the top", !lines.first().is_some_and(|line| line.starts_with("//!"))),
                ("is too long", lines.len() > FILE_LINES_MAX),
                ("does not say what it is for", ["utils", "common", "helpers", "misc"].contains(&name)),
            ] {
                if found {
                    broken.push(format!("{} ({} lines) {fault}", path.display(), lines.len()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Code cites sections as `docs/FILE.md#section`; each must exist.
#[test]
fn cited_sections_exist() {
    for (folder, _) in EDGES {
        for path in sources(&root().join(folder).join("src")) {
            for line in fs::read_to_string(&path).expect("a source file is readable").lines() {
                for cited in line.match_indices("docs/").map(|(at, _)| &line[at..]) {
                    let end = cited
                        .find(|c: char| !(c.is_ascii_alphanumeric() || "/._-#".contains(c)))
                        .unwrap_or(cited.len());
                    check_citation(&path, cited[..end].trim_end_matches('.'));
                }
            }
        }
    }
}

fn check_citation(source: &Path, cited: &str) {
    let (file, section) = cited.split_once('#').map_or((cited, None), |(file, section)| (file, Some(section)));
    if !file.ends_with(".md") || file.contains("NNNN") {
        return;
    }
    let text =
        fs::read_to_string(root().join(file)).unwrap_or_else(|_| panic!("{}: {file} does not exist", source.display()));
    let Some(section) = section else { return };
    let slug = |heading: &str| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.collect::<String>().trim().to_lowercase().replace(' ', "-")
    };
    let found =
        text.lines().filter(|line| line.starts_with('#')).any(|line| slug(line.trim_start_matches('#')) == section);
    assert!(found, "{}: {file} has no section #{section}", source.display());
}
