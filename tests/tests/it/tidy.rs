//! The house rules that no compiler checks, as ordinary tests.
//!
//! Each rule names the file that breaks it, and what to do about it.

use std::path::{Path, PathBuf};

/// Crates from the ground up. A crate may import only crates to its left.
const LAYERS: [&str; 6] = ["catalog", "table", "query", "compaction", "ingest", "cli"];

#[test]
fn every_file_opens_by_saying_what_it_is() {
    for file in sources() {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//!"), "{}: open with a `//!` line", file.display());
    }
}

#[test]
fn crates_import_only_what_lies_below() {
    for (height, layer) in LAYERS.iter().enumerate() {
        let manifest = std::fs::read_to_string(root().join(layer).join("Cargo.toml")).unwrap();
        for above in &LAYERS[height..] {
            let import = format!("icefield-{above}.workspace");
            assert!(!manifest.contains(&import), "{layer}/ must not import {above}/");
        }
    }
}

#[test]
fn the_table_layer_knows_no_datafusion() {
    for layer in ["catalog", "table"] {
        let manifest = std::fs::read_to_string(root().join(layer).join("Cargo.toml")).unwrap();
        assert!(!manifest.contains("datafusion"), "{layer}/ must not depend on DataFusion");
    }
}

#[test]
fn files_are_short_enough_to_be_read() {
    for file in sources() {
        let lines = std::fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= 700, "{}: {lines} lines; is it still one subject?", file.display());
    }
}

#[test]
fn the_map_points_at_files_that_exist() {
    let map = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for path in map.split('`').filter(|word| word.ends_with(".rs")) {
        assert!(root().join(path).exists(), "ARCHITECTURE.md names {path}, which is gone");
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Every `.rs` file under a layer's `src/`.
fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<_> = LAYERS.iter().map(|layer| root().join(layer).join("src")).collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                found.push(path);
            }
        }
    }
    found
}
