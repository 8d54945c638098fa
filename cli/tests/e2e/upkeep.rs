//! Upkeep through the binary: what it says, what it refuses before any work, and that killing it at
//! any moment costs nothing.

use std::collections::BTreeSet;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::lake::Lake;

/// A table of `files` files with ten rows each.
fn table(lake: &Lake, files: usize, properties: &str) {
    lake.exec(&format!(
        "CREATE TABLE cleaned.t (id BIGINT, g INT, v TEXT) TBLPROPERTIES ({properties})"
    ));
    let insert = |file: usize| {
        let (from, to) = (file * 10, file * 10 + 10);
        format!(
            "INSERT INTO cleaned.t SELECT i, CAST(i % 3 AS INT), 'v' FROM range({from}, {to}) r(i);"
        )
    };
    let inserts: Vec<String> = (0..files).map(insert).collect();
    let file = lake.file("inserts.sql", &inserts.join("\n"));
    lake.ok(&["sql", "-f", &file]);
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).map_err(|error| format!("{error}: {text}")).unwrap()
}

fn files(lake: &Lake) -> u64 {
    lake.value("SELECT count(*) FROM cleaned.t.files").as_u64().unwrap()
}

/// All rows, in order.
fn rows(lake: &Lake) -> Vec<Vec<Value>> {
    lake.rows("SELECT * FROM cleaned.t ORDER BY id, v")
}

/// Files below a folder.
fn below(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => open.push(path),
                false => drop(found.insert(path)),
            }
        }
    }
    found
}

/// A location as a path.
fn path(location: &Value) -> PathBuf {
    PathBuf::from(location.as_str().unwrap().strip_prefix("file://").unwrap())
}

pub(crate) const TINY: &str = "'icefield.maintenance.min-input-files' = '2'";

#[test]
fn compact_makes_few_files_of_many_and_says_so() {
    let lake = Lake::new();
    table(&lake, 12, TINY);
    let before = rows(&lake);
    let dry = lake.ok(&["compact", "cleaned.t", "--dry-run"]);
    assert!(dry.starts_with("would write 12 files ("), "{dry}");
    let dry = json(&lake.ok(&["compact", "cleaned.t", "--dry-run", "--format", "json"]));
    assert_eq!((&dry["files_considered_count"], &dry["table"]), (&json!(12), &json!("cleaned.t")));
    assert_eq!(dry["groups"][0]["files"].as_array().unwrap().len(), 12);
    assert_eq!(files(&lake), 12, "nothing was done");
    let runs = "SELECT count(*) FROM system.maintenance_runs";
    assert_eq!(lake.value(runs), json!(0));

    // Only what may have such rows.
    let some = ["compact", "cleaned.t", "--where", "id < 30", "-o", "min-input-files=3"];
    let said = lake.ok(&some);
    assert!(said.contains("cleaned.t: 3 files (") && said.contains(") became 1 ("), "{said}");
    assert_eq!(files(&lake), 10);
    let done = json(&lake.ok(&[
        "compact",
        "cleaned.t",
        "--option",
        "rewrite-all=true",
        "--format",
        "json",
    ]));
    assert_eq!(done["rewritten_data_files_count"], json!(10), "{done}");
    assert_eq!(done["added_data_files_count"], json!(1), "{done}");
    let said = lake.ok(&["compact", "cleaned.t"]);
    assert_eq!(said, "nothing to do for cleaned.t: none of its 1 files is worth rewriting\n");
    assert_eq!(rows(&lake), before);

    let sort = ["compact", "cleaned.t", "--strategy", "sort", "--order-by", "g DESC, id"];
    lake.ok(&sort);
    let curve = ["compact", "cleaned.t", "--order-by", "hilbert(id, g)", "-o", "rewrite-all=true"];
    lake.ok(&curve);
    assert_eq!(rows(&lake), before);
    let runs = lake.rows(
        "SELECT table_name, procedure, outcome, count(*) FROM system.maintenance_runs GROUP BY ALL",
    );
    let wanted = ["cleaned.t", "rewrite_data_files", "done"].map(|it| json!(it));
    assert_eq!(runs.len(), 1, "{runs:?}");
    assert_eq!(runs[0][..3], wanted);
}

#[test]
fn health_tells_what_upkeep_would_gain() {
    let lake = Lake::new();
    table(&lake, 6, TINY);
    lake.exec("CREATE TABLE cleaned.empty (id INT)");
    lake.exec("DELETE FROM cleaned.t WHERE id = 3");
    let drawn = lake.ok(&["health", "cleaned.t"]);
    assert!(drawn.contains("cleaned.t   6 files") && drawn.contains("small files"), "{drawn}");
    let all = json(&lake.ok(&["health", "--format", "json"]));
    let of = |name: &str| {
        let all = all.as_array().unwrap();
        all.iter().find(|it| it["table"] == name).unwrap().clone()
    };
    assert_eq!(of("cleaned.t")["data_files"], json!(6), "{all}");
    assert_eq!(of("cleaned.empty")["data_files"], json!(0), "{all}");
    let number = |table: &str, what: &str| of(table)[what].as_f64().unwrap();
    assert!(
        number("cleaned.t", "scan_cost_after_ms") < number("cleaned.t", "scan_cost_ms"),
        "{all}"
    );
    assert_eq!(lake.ok(&["health", "--format", "ndjson"]).lines().count(), 2);
    let error = lake.fails(&["health", "cleaned.s"], 1);
    assert!(error.contains("no table `cleaned.s`"), "{error}");
}

#[test]
fn maintain_does_what_its_dry_run_says() {
    let lake = Lake::new();
    let now = "'icefield.maintenance.snapshots.max-age-days' = '0', \
               'icefield.maintenance.longest-write-hours' = '0'";
    table(&lake, 8, &format!("{TINY}, {now}, 'write.delete.mode' = 'merge-on-read'"));
    lake.exec("DELETE FROM cleaned.t WHERE id IN (1, 12, 23)");
    lake.exec("TRUNCATE cleaned.t");
    lake.exec("INSERT INTO cleaned.t VALUES (1, 1, 'a')");
    lake.exec("INSERT INTO cleaned.t VALUES (2, 1, 'a')");
    let before = rows(&lake);
    let stored = below(&lake.warehouse().join("cleaned/t"));
    let dry = lake.ok(&["maintain", "--dry-run"]);
    assert!(dry.contains("cleaned.t: expire_snapshots: "), "{dry}");
    let dry = json(&lake.ok(&["maintain", "--dry-run", "--format", "json"]));
    let actions = dry.as_array().unwrap();
    let listed: BTreeSet<PathBuf> =
        actions.iter().flat_map(|it| it["files"].as_array().unwrap()).map(path).collect();
    assert!(listed.len() > 10, "{dry}");
    assert_eq!(below(&lake.warehouse().join("cleaned/t")), stored, "nothing was done");
    assert_eq!(lake.value("SELECT count(*) FROM system.removed_files"), json!(0));

    let said = lake.ok(&["maintain"]);
    assert!(said.contains("cleaned.t: expire_snapshots: "), "{said}");
    let removed = lake.rows("SELECT file_path FROM system.removed_files");
    let removed: BTreeSet<PathBuf> = removed.iter().map(|it| path(&it[0])).collect();
    assert_eq!(removed, listed);
    let left = below(&lake.warehouse().join("cleaned/t"));
    assert_eq!(stored.difference(&left).cloned().collect::<BTreeSet<_>>(), listed);
    assert_eq!(rows(&lake), before);
    let said = lake.ok(&["maintain", "cleaned.t", "--format", "ndjson"]);
    assert!(!said.contains("failed"), "{said}");
    let whys = lake.rows("SELECT procedure FROM system.maintenance_runs WHERE why IS NULL");
    assert!(whys.is_empty(), "{whys:?}");
}

#[test]
fn maintain_goes_on_after_a_table_that_is_broken() {
    let lake = Lake::new();
    table(&lake, 6, TINY);
    lake.exec("CREATE TABLE cleaned.a AS SELECT 1 AS id");
    let list = lake.value("SELECT manifest_list FROM cleaned.a.snapshots");
    std::fs::remove_file(path(&list)).unwrap();
    let output = lake.run(&["maintain"]);
    let (out, error) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(1), "{out}{error}");
    assert!(out.contains("cleaned.t: rewrite_data_files: 6 files became 1"), "{out}{error}");
    assert!(
        out.contains("cleaned.a: look failed: ") && error.contains("1 of 2 actions failed"),
        "{out}{error}"
    );
    assert_eq!(files(&lake), 1);
}

#[test]
fn the_daemon_works_until_it_is_told_to_stop() {
    let lake = Lake::new();
    table(&lake, 6, TINY);
    let mut daemon = lake
        .command(&["maintain", "--daemon", "--every", "1", "--format", "ndjson"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(daemon.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(first.contains("6 files became 1"), "{first}");
    // Files that come later are found in a later round.
    for file in 0..6 {
        lake.exec(&format!("INSERT INTO cleaned.t VALUES ({file}, 1, 'later')"));
    }
    let later = lines.next().unwrap().unwrap();
    assert!(later.contains("rewrite_data_files"), "{later}");
    let told = std::process::Command::new("kill").arg(daemon.id().to_string()).status();
    assert!(told.unwrap().success());
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
    assert_eq!(lake.value("SELECT count(*) FROM cleaned.t"), json!(66));
}

#[test]
fn the_server_does_upkeep_if_it_is_told_to() {
    let lake = Lake::new();
    table(&lake, 6, TINY);
    let mut server = lake
        .command(&["serve", "--listen", "127.0.0.1:0", "--maintain-every", "1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(server.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(first.contains("at http://127.0.0.1:"), "{first}");
    let done = lines.next().unwrap().unwrap();
    assert!(done.contains("6 files became 1"), "{done}");
    let told = std::process::Command::new("kill").arg(server.id().to_string()).status();
    assert!(told.unwrap().success());
    assert_eq!(server.wait().unwrap().code(), Some(0));
    assert_eq!(lake.value("SELECT count(*) FROM cleaned.t"), json!(60));
    assert_eq!(files(&lake), 1);
}

#[test]
fn manifests_are_put_in_the_order_of_a_partition_field() {
    let lake = Lake::new();
    lake.exec(
        "CREATE TABLE cleaned.p (a INT, b INT) PARTITIONED BY (a, b) \
         TBLPROPERTIES ('commit.manifest.target-size-bytes' = '1')",
    );
    lake.exec("INSERT INTO cleaned.p SELECT i % 2, i / 2 FROM range(0, 8) r(i)");
    let call = |sort_by: &str| {
        lake.rows(&format!("CALL system.rewrite_manifests('cleaned.p', sort_by => {sort_by})"))
    };
    assert_eq!(call("array('b')"), [[json!(1), json!(8)]]);
    // One file to a manifest: their order is that of the files.
    let by_b = lake.rows("SELECT file_path FROM cleaned.p.files");
    let places: Vec<String> = by_b
        .iter()
        .map(|it| it[0].as_str().unwrap().rsplit('/').nth(1).unwrap().to_owned())
        .collect();
    let mut sorted = places.clone();
    sorted.sort();
    assert_eq!(places, sorted, "all of one b lie together");
    assert_eq!(call("array('a', 'b')"), [[json!(8), json!(8)]]);
    assert_eq!(lake.value("SELECT count(*) FROM cleaned.p"), json!(8));
}

#[test]
fn orphans_are_looked_for_in_a_list_of_files() {
    let lake = Lake::new();
    table(&lake, 2, "'x' = 'y'");
    let data = lake.warehouse().join("cleaned/t/data");
    let (listed, unlisted) = (data.join("listed.parquet"), data.join("unlisted.parquet"));
    std::fs::write(&listed, "x").unwrap();
    std::fs::write(&unlisted, "x").unwrap();
    let elsewhere = lake.file("elsewhere.parquet", "x");
    lake.exec("CREATE TABLE cleaned.list (file_path STRING, last_modified TIMESTAMP)");
    lake.exec(&format!(
        "INSERT INTO cleaned.list SELECT file_path, TIMESTAMP '2026-01-01 00:00:00' FROM cleaned.t.files \
         UNION ALL VALUES ('file://{}', TIMESTAMP '2026-01-01 00:00:00'), ('{elsewhere}', TIMESTAMP '2026-01-01 00:00:00')",
        listed.display()
    ));
    let call = "CALL system.remove_orphan_files('cleaned.t', older_than => now(), allow_recent => true, file_list_view => 'cleaned.list')";
    let gone = lake.rows(call);
    assert_eq!(gone.len(), 1, "{gone:?}");
    assert!(gone[0][0].as_str().unwrap().ends_with("/listed.parquet"), "{gone:?}");
    assert!(!listed.exists() && unlisted.exists() && std::path::Path::new(&elsewhere).exists());
    assert_eq!(lake.value("SELECT count(*) FROM cleaned.t"), json!(20));
}

#[test]
fn procedures_are_called_by_place_and_by_name() {
    let lake = Lake::new();
    table(&lake, 6, TINY);
    let before = rows(&lake);
    let said = lake.rows(
        "CALL lake.system.rewrite_data_files(table => 'cleaned.t', options => \
         map('min-input-files', '2', 'rewrite-job-order', 'bytes-desc'), where => 'g = 1')",
    );
    assert_eq!(said[0][..2], [json!(6), json!(1)]);
    assert_eq!(lake.rows("CALL system.rewrite_manifests('cleaned.t')").len(), 1);
    assert_eq!(lake.rows("call SYSTEM.Remove_Dangling_Deletes('cleaned.t')"), [[json!(0)]]);
    assert_eq!(lake.rows("CALL system.rewrite_position_delete_files('cleaned.t')").len(), 1);
    let expired = lake.rows("CALL system.expire_snapshots('cleaned.t', now(), 1)");
    assert_eq!(expired[0][0], json!(6), "{expired:?}");
    let removed = lake.rows(
        "SELECT kind, count(*) FROM system.removed_files WHERE procedure = 'expire_snapshots' \
         GROUP BY kind ORDER BY kind",
    );
    assert!(removed.contains(&vec![json!("data"), json!(6)]), "{removed:?}");
    let orphan = lake.warehouse().join("cleaned/t/data/orphan.parquet");
    std::fs::write(&orphan, "x").unwrap();
    let sql = "CALL system.remove_orphan_files(table => 'cleaned.t', older_than => TIMESTAMP \
               '2100-01-01 00:00:00', allow_recent => true)";
    let found = lake.rows(sql);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(!orphan.exists());
    let runs = lake.rows(
        "SELECT procedure, outcome FROM system.maintenance_runs ORDER BY started_at, procedure",
    );
    assert_eq!(runs.len(), 6, "{runs:?}");
    assert!(runs.iter().all(|it| it[1] == "done"), "{runs:?}");
    assert_eq!(rows(&lake), before);
}

#[test]
fn what_makes_no_sense_is_refused_before_any_work() {
    let lake = Lake::new();
    table(&lake, 3, "'write.delete.mode' = 'merge-on-read'");
    lake.exec("CREATE TABLE cleaned.u (id BIGINT, gone INT)");
    lake.exec("CREATE TABLE cleaned.kept (id BIGINT) TBLPROPERTIES ('gc.enabled' = 'false')");
    let stored = below(&lake.warehouse().join("cleaned"));
    let rewrite = |rest: &str| format!("CALL system.rewrite_data_files('cleaned.t', {rest})");
    let option = |name: &str, value: &str| rewrite(&format!("options => map('{name}', '{value}')"));
    let only = |text: &str| rewrite(&format!("where => '{text}'"));
    for (sql, wanted) in [
        (option("min-input-file", "2"), "has no option `min-input-file`"),
        (option("min-input-files", "few"), "option `min-input-files` cannot be `few`"),
        (option("min-input-files", "0"), "has to be greater than 0"),
        (option("target-file-size-bytes", "-1"), "cannot be `-1`"),
        (option("min-file-size-bytes", "99999999999"), "has to be less than the target"),
        (option("max-file-size-bytes", "1"), "has to be more than the target"),
        (option("delete-ratio-threshold", "1.5"), "is a share"),
        (option("copy-row-groups", "maybe"), "it is auto, always or never"),
        (option("rewrite-job-order", "fast"), "it is none, bytes-asc"),
        (option("output-spec-id", "7"), "has no partition spec 7"),
        (rewrite("strategy => 'shuffle'"), "there is no strategy `shuffle`"),
        (rewrite("strategy => 'sort'"), "has no sort order, and none is given"),
        (rewrite("strategy => 'zorder'"), "needs the columns of the curve"),
        (rewrite("'binpack', 'id'"), "strategy `binpack` has no sort order"),
        (rewrite("sort_order => 'idd'"), "has no column `idd`"),
        (rewrite("sort_order => 'zorder(id, x)'"), "has no column `x`"),
        (rewrite("sort_order => 'id + 1'"), "is no sort order"),
        (rewrite("branch => 'b'"), "on `main` only"),
        (only("idd = 1"), "idd"),
        (only("id IN (SELECT id FROM cleaned.u)"), "is not about the table"),
        (only("gone = 1"), "gone"),
        (only("u.id = 1"), "u"),
        (only("id = 1; DROP TABLE cleaned.t"), "`where` is one condition"),
        (only("id = 1 UNION SELECT 1"), "is not about the table"),
        (only("id = 1 LIMIT 1"), "is not about the table"),
        (only("id ="), "`where`"),
        ("CALL system.rewrite_files('cleaned.t')".into(), "no procedure `system.rewrite_files`"),
        (
            "CALL system.rewrite_manifest('cleaned.t')".into(),
            "did you mean `system.rewrite_manifests`?",
        ),
        (rewrite("wher => 'id = 1'"), "did you mean `where`?"),
        ("CALL system.rewrite_data_files()".into(), "needs the argument `table`"),
        (
            "CALL system.rewrite_manifests('cleaned.t', true, 0, 1)".into(),
            "takes an array of texts",
        ),
        (
            "CALL system.rewrite_manifests('cleaned.t', sort_by => array('x'))".into(),
            "has no field `x`; there are none",
        ),
        (
            "CALL system.remove_orphan_files('cleaned.t', file_list_view => 'cleaned.s')".into(),
            "no table `cleaned.s`",
        ),
        (
            "CALL system.rewrite_manifests('cleaned.t', table => 'cleaned.t')".into(),
            "is given twice",
        ),
        ("CALL system.rewrite_manifests('cleaned.t', spec_id => 7)".into(), "no partition spec 7"),
        (
            "CALL system.rewrite_manifests('cleaned.t', spec_id => 'x')".into(),
            "takes a whole number",
        ),
        ("CALL system.rewrite_manifests('cleaned.s')".into(), "no table `cleaned.s`"),
        ("CALL system.rewrite_manifests".into(), "CALL is written"),
        ("CALL system.rewrite_manifests('cleaned.t',, 0)".into(), "CALL is written"),
        (
            "CALL system.rewrite_manifests(table => 'cleaned.t', true)".into(),
            "after one with a name",
        ),
        ("CALL system.expire_snapshots('cleaned.t', retain_last => 1.5)".into(), "a whole number"),
        ("CALL system.expire_snapshots('cleaned.t', 'noon')".into(), "takes a timestamp"),
        ("CALL system.expire_snapshots('cleaned.t', retain_last => 0)".into(), "is at least 1"),
        (
            "CALL system.expire_snapshots('cleaned.t', snapshot_ids => array(7))".into(),
            "no snapshot 7",
        ),
        ("CALL system.expire_snapshots('cleaned.t', snapshot_ids => 7)".into(), "takes an array"),
        ("CALL system.expire_snapshots('cleaned.kept')".into(), "`gc.enabled` is false"),
        (
            "CALL system.expire_snapshots('cleaned.t', max_concurrent_deletes => 0)".into(),
            "`max_concurrent_deletes` is at least 1",
        ),
        ("CALL system.remove_orphan_files('cleaned.kept')".into(), "`gc.enabled` is false"),
        ("CALL system.remove_orphan_files('cleaned.t', now())".into(), "allow_recent => true"),
        (
            "CALL system.remove_orphan_files('cleaned.t', location => '/tmp')".into(),
            "is not in a folder of the table",
        ),
        ("BEGIN; CALL system.rewrite_manifests('cleaned.t')".into(), "transaction"),
    ] {
        let error = lake.fails(&["sql", "-c", &sql], 1);
        assert!(error.contains(wanted), "{sql}: {error}");
    }
    for (args, code, wanted) in [
        (vec!["compact", "cleaned.t", "-o", "rewrite-all"], 2, "is not KEY=VALUE"),
        (vec!["compact", "cleaned.t", "-o", "rewrite=all"], 1, "has no option `rewrite`"),
        (vec!["compact", "cleaned.t", "--where", "x = 1"], 1, "x"),
        (vec!["compact", "cleaned.t", "--order-by", "x"], 1, "has no column `x`"),
        (vec!["compact", "cleaned.t", "--dry-run", "--strategy", "x"], 1, "no strategy `x`"),
        (vec!["compact", "cleaned.s"], 1, "no table `cleaned.s`"),
        (vec!["maintain", "cleaned.s"], 1, "no table `cleaned.s`"),
        (vec!["maintain", "--dry-run", "--daemon"], 2, "cannot be used with"),
    ] {
        let error = lake.fails(&args, code);
        assert!(error.contains(wanted), "{args:?}: {error}");
    }
    assert_eq!(below(&lake.warehouse().join("cleaned")), stored, "nothing was written or deleted");
    assert_eq!(lake.value("SELECT count(*) FROM cleaned.t.snapshots"), json!(3));
}

#[test]
fn a_sort_column_that_is_gone_is_refused() {
    let lake = Lake::new();
    table(&lake, 3, "'format-version' = '2'");
    lake.exec("ALTER TABLE cleaned.t WRITE ORDERED BY v, id");
    let output = lake.run(&["sql", "-c", "ALTER TABLE cleaned.t DROP COLUMN v"]);
    if output.status.success() {
        let error = lake.fails(&["compact", "cleaned.t", "--strategy", "sort"], 1);
        assert!(error.contains("sort order"), "{error}");
    }
    lake.exec("ALTER TABLE cleaned.t DROP COLUMN g");
    let error = lake.fails(&["compact", "cleaned.t", "--strategy", "sort", "--order-by", "g"], 1);
    assert!(error.contains("has no column `g`"), "{error}");
}

#[test]
fn policies_that_would_disturb_writers_are_refused() {
    for (properties, wanted) in [
        (
            "'icefield.maintenance.snapshots.max-age-days' = '0.1', \
             'icefield.maintenance.longest-write-hours' = '3'",
            "which is less than the 3 hours that a writer may be at work",
        ),
        ("'icefield.maintenance.orphans.max-age-days' = '0.5'", "it is at least 1"),
        (
            "'icefield.maintenance.orphans.max-age-days' = '2', \
             'icefield.maintenance.longest-write-hours' = '72', \
             'icefield.maintenance.snapshots.max-age-days' = '9'",
            "longer than any writer",
        ),
        ("'icefield.maintenance.snapshots.max-age-days' = 'old'", "cannot be `old`"),
        ("'icefield.maintenance.snapshots.max-age-days' = '-1'", "less than"),
        ("'icefield.maintenance.snapshots.max-age-days' = 'NaN'", "NaN"),
        ("'icefield.maintenance.orphans.max-age-days' = 'NaN'", "NaN"),
        ("'icefield.maintenance.min-input-files' = '0'", "greater than 0"),
        ("'icefield.maintenance.snapshots.retain-last' = '0'", "greater than 0"),
        ("'icefield.maintenance.target-file-size-bytes' = '0'", "greater than 0"),
        ("'icefield.maintenance.orphans.every-days' = '-1'", "cannot be `-1`"),
        ("'icefield.maintenance.longest-write-hours' = 'inf'", "cannot be `inf`"),
        ("'icefield.maintenance.compact' = 'zorder(x)'", "has no column `x`"),
    ] {
        let lake = Lake::new();
        table(&lake, 3, properties);
        let stored = below(&lake.warehouse().join("cleaned"));
        let output = lake.run(&["maintain"]);
        let said = String::from_utf8(output.stdout).unwrap()
            + std::str::from_utf8(&output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(wanted), "{properties}: {said}");
        assert_eq!(below(&lake.warehouse().join("cleaned")), stored, "{properties}");
    }
}

/// Milliseconds after which upkeep is killed: some while it starts, most while it works.
const KILLS_MS: [u64; 14] = [20, 45, 60, 75, 90, 105, 120, 140, 160, 190, 220, 260, 320, 400];

#[test]
fn killing_upkeep_at_any_moment_costs_nothing() {
    let lake = Lake::new();
    let now = "'icefield.maintenance.snapshots.max-age-days' = '0', \
               'icefield.maintenance.longest-write-hours' = '0'";
    table(
        &lake,
        20,
        &format!("'format-version' = '3', {TINY}, {now}, 'write.delete.mode' = 'merge-on-read'"),
    );
    lake.exec("DELETE FROM cleaned.t WHERE id % 7 = 3");
    for (round, kill_ms) in KILLS_MS.iter().enumerate() {
        let from = 1000 + round * 10;
        for id in from..from + 3 {
            lake.exec(&format!("INSERT INTO cleaned.t VALUES ({id}, 1, 'w')"));
        }
        lake.exec(&format!("DELETE FROM cleaned.t WHERE id = {from}"));
        let before = rows(&lake);
        let args: &[&str] = match round % 2 {
            0 => &["compact", "cleaned.t", "-o", "rewrite-all=true"],
            _ => &["maintain"],
        };
        let mut command = lake.command(args);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(*kill_ms));
        let _ = child.kill();
        child.wait().unwrap();
        assert_eq!(rows(&lake), before, "killed after {kill_ms} ms");
    }
    let before = rows(&lake);
    lake.ok(&["maintain"]);
    assert_eq!(rows(&lake), before);
    lake.exec("CALL system.expire_snapshots('cleaned.t', now())");
    lake.exec("CALL system.remove_orphan_files('cleaned.t', now(), allow_recent => true)");
    assert_eq!(rows(&lake), before);
    no_file_is_left_over(&lake);
}

/// Asserts that the folder of a table with one snapshot has the files which that leads to, and no others.
pub(crate) fn no_file_is_left_over(lake: &Lake) {
    let known = lake.rows(
        "SELECT file FROM cleaned.t.metadata_log_entries UNION SELECT manifest_list FROM \
         cleaned.t.snapshots UNION SELECT path FROM cleaned.t.manifests UNION SELECT file_path FROM \
         cleaned.t.files",
    );
    let known: BTreeSet<PathBuf> = known.iter().map(|it| path(&it[0])).collect();
    assert_eq!(below(&lake.warehouse().join("cleaned/t")), known);
}

#[test]
fn a_condition_may_have_texts_in_it() {
    let lake = Lake::new();
    table(&lake, 3, "'format-version' = '2'");
    lake.exec("INSERT INTO cleaned.t VALUES (100, 1, 'it''s')");
    let sql = "CALL system.rewrite_data_files(table => 'cleaned.t', where => 'v = ''it''''s''', \
               options => map('rewrite-all', 'true'))";
    assert_eq!(lake.rows(sql)[0][0], json!(1), "only the file that may have such a row");
    let sql = "CALL system.rewrite_data_files('cleaned.t', where => concat('v = ', '''v'''), \
               options => map('rewrite-all', lower('TRUE')))";
    assert_eq!(lake.rows(sql)[0][0], json!(3), "any expression will do");
}
