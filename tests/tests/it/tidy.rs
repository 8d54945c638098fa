//! The house rules that no compiler checks, as ordinary tests.
//!
//! Each rule names the file that breaks it, and what to do about it.

use std::path::{Path, PathBuf};

/// Crates from the ground up. A crate may import only crates to its left.
const LAYERS: [&str; 7] = ["catalog", "table", "query", "compaction", "ingest", "server", "cli"];

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
            let import = format!("icefield-{above}");
            let imports = |line: &str| line.split(['.', ' ', '=']).next() == Some(&import);
            assert!(!manifest.lines().any(imports), "{layer}/ must not import {above}/");
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
fn there_is_one_version_of_arrow_parquet_and_datafusion() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    for name in ["arrow", "parquet", "datafusion", "object_store", "iceberg"] {
        let count = lock.lines().filter(|it| *it == format!("name = \"{name}\"")).count();
        assert_eq!(count, 1, "versions of {name} in Cargo.lock; see cargo tree -d");
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

/// How many traps the team's list has.
const TRAPS: usize = 130;

#[test]
fn the_traps_name_tests_that_exist_and_no_test_of_a_trap_is_missing() {
    let page = std::fs::read_to_string(root().join("docs/traps.md")).unwrap();
    let lines: Vec<&str> = page.lines().filter(|it| it.starts_with("| T-")).collect();
    for number in 1..=TRAPS {
        let line = lines.get(number - 1).copied().unwrap_or_default();
        assert!(line.starts_with(&format!("| T-{number:02} |")), "T-{number}: {line}");
        let says = line.contains("::") || line.contains("not touched yet: ");
        assert!(says, "docs/traps.md: T-{number} has neither a test nor a reason");
    }
    for name in page.split('`').filter(|word| word.contains("::")) {
        let (file, function) = name.split_once("::").unwrap();
        let folders = [("it/", "tests/tests/it/"), ("e2e/", "cli/tests/e2e/")];
        let interop = ("interop/", "tests/interop/");
        let place = folders
            .iter()
            .chain([&interop])
            .find_map(|(short, long)| file.strip_prefix(short).map(|rest| format!("{long}{rest}")));
        let path = root().join(place.as_deref().unwrap_or(file));
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let is_there = ["fn", "def"].iter().any(|it| text.contains(&format!("{it} {function}(")));
        assert!(is_there, "docs/traps.md names {name}, which is gone");
    }
    let mut files = sources();
    files.extend(rust_files(vec![root().join("tests"), root().join("cli/tests")]));
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for name in text.split("fn t").skip(1).filter_map(|it| it.split('(').next()) {
            if name.starts_with(|it: char| it.is_ascii_digit()) {
                let known = page.contains(&format!("::t{name}`"));
                assert!(known, "{}: docs/traps.md does not name t{name}", file.display());
            }
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Every `.rs` file under a layer's `src/`.
fn sources() -> Vec<PathBuf> {
    rust_files(LAYERS.iter().map(|layer| root().join(layer).join("src")).collect())
}

fn rust_files(mut folders: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut found = Vec::new();
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
