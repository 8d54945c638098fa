//! Settings: flags over `ICEFIELD_*` over `icefield.toml`, and what of them is written into commits.

use std::process::Command;

use serde_json::{Value, json};

use crate::lake::Lake;

/// A command in a lake's folder that has no settings but those given here.
fn bare(lake: &Lake, args: &[&str]) -> Command {
    let mut command = lake.command(args);
    command.env_remove("ICEFIELD_WAREHOUSE").env("XDG_CONFIG_HOME", lake.folder().join("config"));
    command
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn flags_win_over_variables_and_those_over_the_file() {
    let lake = Lake::new();
    lake.file("icefield.toml", "warehouse = 'of-file'\nprincipal = 'of-file'\njob = 'of-file'\n");
    let make = ["sql", "-c", "CREATE TABLE cleaned.t (id INT)"];
    let warehouses = ["of-file", "of-variable", "of-flag"];
    for (made, wanted) in warehouses.iter().enumerate() {
        let mut command = bare(&lake, &make);
        if made > 0 {
            command.env("ICEFIELD_WAREHOUSE", "of-variable");
        }
        if made > 1 {
            command.args(["--warehouse", "of-flag"]);
        }
        output(&mut command);
        let is_made = |it: &str| lake.folder().join(it).join("catalog.db").is_file();
        let found: Vec<_> = warehouses.into_iter().filter(|it| is_made(it)).collect();
        assert_eq!(found, warehouses[..=made], "{wanted}");
    }
    let insert = ["sql", "-c", "INSERT INTO cleaned.t VALUES (1)"];
    output(&mut bare(&lake, &insert));
    output(bare(&lake, &insert).env("ICEFIELD_PRINCIPAL", "of-variable"));
    output(
        bare(&lake, &insert).env("ICEFIELD_JOB", "of-variable").args(["--principal", "of-flag"]),
    );
    let said = output(&mut bare(
        &lake,
        &[
            "sql",
            "--format",
            "json",
            "-c",
            "SELECT summary['icefield.principal'] AS p, summary['icefield.job'] AS j, \
             summary['icefield.statement'] AS s FROM cleaned.t.snapshots ORDER BY committed_at",
        ],
    ));
    let said: Value = serde_json::from_str(&said).unwrap();
    let who = |place: usize| (said[place]["p"].clone(), said[place]["j"].clone());
    assert_eq!(who(0), (json!("of-file"), json!("of-file")));
    assert_eq!(who(1), (json!("of-variable"), json!("of-file")));
    assert_eq!(who(2), (json!("of-flag"), json!("of-variable")));
    assert_eq!(said[0]["s"], json!("INSERT INTO cleaned.t VALUES (1)"));
    // The user's own file is read where the folder has none.
    std::fs::remove_file(lake.folder().join("icefield.toml")).unwrap();
    std::fs::create_dir_all(lake.folder().join("config/icefield")).unwrap();
    lake.file("config/icefield/icefield.toml", "warehouse = 'of-file'\n");
    let count = ["sql", "--format", "csv", "-c", "SELECT count(*) AS n FROM cleaned.t"];
    assert_eq!(output(&mut bare(&lake, &count)), "n\n3\n");
}

#[test]
fn a_query_works_on_as_many_cores_as_are_given() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t AS SELECT i, i % 7 AS k FROM range(0, 100000) r(i)");
    for threads in ["1", "3"] {
        let sql = "EXPLAIN SELECT k, count(*) FROM cleaned.t GROUP BY k";
        let plan = lake.ok(&["--threads", threads, "sql", "--format", "csv", "-c", sql]);
        let parts = format!("], {threads}), input_partitions");
        assert_eq!(plan.contains(&parts), threads != "1", "{threads}: {plan}");
        assert_eq!(plan.contains("RepartitionExec"), threads != "1", "{plan}");
    }
}

#[test]
fn settings_that_make_no_sense_are_refused_with_their_place() {
    let lake = Lake::new();
    for (text, wanted) in [
        ("threads = 'two'", "icefield.toml"),
        ("memory-limit = 'much'", "`much` is no size; write it as 512MB or 2GB"),
        ("memory_limit = '1GB'", "unknown field `memory_limit`"),
        ("warehouse = ", "icefield.toml"),
    ] {
        lake.file("icefield.toml", text);
        let error = lake.fails(&["sql", "-c", "SELECT 1"], 2);
        assert!(error.contains(wanted), "{text}: {error}");
    }
}
