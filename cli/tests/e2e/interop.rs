//! What others read of ours and we of theirs: PyIceberg, DuckDB, the conformance tables, and people.
//!
//! `scripts/python-env` brings the real programs; without them these tests fail.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use crate::lake::repository;

fn python() -> String {
    let output = Command::new("bash").arg(repository("scripts/python-env")).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the Python environment cannot be made: {error}");
    String::from_utf8(output.stdout).unwrap().trim().lines().last().unwrap().to_owned()
}

/// Runs a script of `tests/interop` with the binary; it fails if something is not as it should be.
pub(crate) fn python_runs(script: &str) {
    python_runs_with(script, &[]);
}

/// The same with more arguments.
pub(crate) fn python_runs_with(script: &str, arguments: &[&str]) {
    let output = Command::new(python())
        .arg(repository(&format!("tests/interop/{script}")))
        .arg(env!("CARGO_BIN_EXE_icefield"))
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{error}");
}

#[test]
fn pyiceberg_and_duckdb_read_what_we_write_and_we_what_they_write() {
    python_runs("roundtrip.py");
}

#[test]
fn pyiceberg_and_duckdb_read_what_upkeep_wrote() {
    python_runs("upkeep.py");
}

#[test]
fn files_of_others_become_tables_as_they_lie_there() {
    python_runs("adopt.py");
}

#[test]
fn types_of_version_3_are_those_of_other_engines() {
    python_runs("v3_types.py");
}

#[test]
fn icebergs_java_implementation_works_with_us_on_either_side() {
    python_runs("java_client.py");
}

#[test]
fn catalogs_that_only_know_where_tables_stand_are_shared_with_others() {
    python_runs("metastores.py");
}

#[test]
fn rows_that_take_the_place_of_others_are_read_so_by_others() {
    python_runs("upserts.py");
}

#[test]
fn every_change_of_a_table_goes_with_every_other() {
    python_runs("evolution_pairs.py");
}

#[test]
fn the_shell_behaves_on_a_terminal() {
    python_runs("shell.py");
}

/// The team's folder of cases, which is kept beside the repository and not in it; CI always has it.
pub(crate) fn shared() -> Option<PathBuf> {
    let shared = std::env::var_os("ICEFIELD_SHARED").map(PathBuf::from);
    let shared = shared.unwrap_or_else(|| repository("../shared"));
    if std::env::var_os("CI").is_none() && !shared.join("conformance").is_dir() {
        let text = format!("skipped: nothing at {}\n", shared.display());
        std::io::stderr().write_all(text.as_bytes()).unwrap();
        return None;
    }
    assert!(shared.join("conformance").is_dir(), "no conformance cases at {}", shared.display());
    Some(shared)
}

#[test]
fn tables_of_others_are_read_as_others_read_them() {
    let Some(shared) = shared() else { return };
    let output = Command::new("bash")
        .arg(repository("tests/interop/conformance.sh"))
        .arg(env!("CARGO_BIN_EXE_icefield"))
        .env("ICEFIELD_SHARED", shared)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
}
