//! Tables of `raw` only grow. That this holds for other engines too is what `rest_tiers.py` shows.

use serde_json::Value;

use crate::lake::Lake;

/// A raw table of ten rows in two files.
fn raw() -> Lake {
    let lake = Lake::new();
    lake.exec("CREATE TABLE raw.t (id BIGINT NOT NULL, day INT, note STRING)");
    lake.exec(
        "INSERT INTO raw.t SELECT value, value % 3, 'n' FROM generate_series(1, 5) AS g(value)",
    );
    lake.exec(
        "INSERT INTO raw.t SELECT value, value % 3, 'n' FROM generate_series(6, 10) AS g(value)",
    );
    lake
}

fn state(lake: &Lake) -> (Vec<Vec<Value>>, Value, usize) {
    let files = walkdir(&lake.warehouse().join("raw"));
    let rows = lake.rows("SELECT * FROM raw.t ORDER BY 1");
    (rows, lake.value("SELECT max(snapshot_id) FROM raw.t.snapshots"), files)
}

fn walkdir(folder: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|it| it.unwrap().path());
    entries.map(|it| if it.is_dir() { walkdir(&it) } else { 1 }).sum()
}

#[test]
fn raw_refuses_what_takes_anything_away() {
    let lake = raw();
    lake.exec("CREATE TABLE raw.fixes AS SELECT 3 AS id, 'x' AS note");
    let before = state(&lake);
    let merge = "MERGE INTO raw.t t USING raw.fixes s ON t.id = s.id";
    for sql in [
        "DELETE FROM raw.t WHERE id = 3",
        "DELETE FROM raw.t WHERE id = 99",
        "DELETE FROM raw.t",
        "UPDATE raw.t SET note = 'x'",
        "TRUNCATE raw.t",
        "INSERT OVERWRITE raw.t SELECT 1, 1, 'x'",
        "INSERT OVERWRITE raw.t WHERE id = 1 SELECT 1, 1, 'x'",
        &format!("{merge} WHEN MATCHED THEN DELETE"),
        &format!("{merge} WHEN MATCHED THEN UPDATE SET note = s.note"),
        &format!("{merge} WHEN NOT MATCHED BY SOURCE THEN DELETE"),
        "ALTER TABLE raw.t DROP COLUMN note",
        "ALTER TABLE raw.t RENAME COLUMN note TO remark",
        "ALTER TABLE raw.t RENAME TO cleaned.t",
        "WITH gone AS (SELECT 3 AS id) DELETE FROM raw.t WHERE id IN (SELECT id FROM gone)",
        "BEGIN; INSERT INTO raw.t VALUES (11, 1, 'n'); DELETE FROM raw.t WHERE id = 1; COMMIT",
    ] {
        let error = lake.fails(&["sql", "-c", sql], 1);
        assert!(error.contains("`raw.t` is in raw, where tables only grow"), "{sql}: {error}");
        assert!(error.contains("SET icefield.lift = 'why'"), "{sql}: {error}");
        let now = state(&lake);
        assert_eq!((&now.0, &now.1), (&before.0, &before.1), "{sql}");
        // What the transaction had inserted before stays for the collector of orphans.
        assert!(now.2 == before.2 || sql.starts_with("BEGIN"), "{sql}");
    }
}

#[test]
fn raw_grows_and_is_kept_in_order() {
    let lake = raw();
    lake.exec("ALTER TABLE raw.t ADD COLUMN more STRUCT<a: INT>");
    lake.exec("ALTER TABLE raw.t ALTER COLUMN day TYPE BIGINT");
    lake.exec("ALTER TABLE raw.t ALTER COLUMN id DROP NOT NULL");
    lake.exec("ALTER TABLE raw.t ADD PARTITION FIELD bucket(4, id)");
    lake.exec("ALTER TABLE raw.t SET TBLPROPERTIES ('a' = 'b')");
    lake.exec("INSERT INTO raw.t VALUES (11, 2, 'n', NULL)");
    lake.exec(
        "MERGE INTO raw.t t USING (SELECT 12 AS id UNION ALL SELECT 3) s ON t.id = s.id \
         WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id)",
    );
    lake.exec("CALL lake.system.rewrite_data_files(table => 'raw.t', options => map('rewrite-all', 'true'))");
    lake.exec("CALL lake.system.rewrite_manifests(table => 'raw.t')");
    lake.exec("CALL lake.system.expire_snapshots(table => 'raw.t', retain_last => 1, older_than => now())");
    assert_eq!(lake.value("SELECT count(*) FROM raw.t"), 12);
    assert_eq!(lake.value("SELECT count(*) FROM raw.t.snapshots"), 1);
    lake.exec("ALTER TABLE raw.t RENAME TO raw.u; CREATE TABLE cleaned.t AS SELECT * FROM raw.u");
    lake.exec("DELETE FROM cleaned.t WHERE id < 3; DROP TABLE raw.u");
}

#[test]
fn the_rule_is_lifted_for_one_statement_and_that_is_on_the_record() {
    let lake = raw();
    let lift = "SET icefield.lift = 'erasure 4711'";
    lake.exec(&format!("{lift}; SELECT 1; DELETE FROM raw.t WHERE id = 3"));
    assert_eq!(lake.value("SELECT count(*) FROM raw.t"), 9);
    let noted =
        "SELECT detail FROM system.audit_log WHERE detail LIKE '%\"lifted\":\"erasure 4711\"%'";
    assert_eq!(lake.rows(noted).len(), 1);
    let summary =
        lake.value("SELECT summary FROM raw.t.snapshots ORDER BY committed_at DESC LIMIT 1");
    assert!(summary.to_string().contains("erasure 4711"), "{summary}");

    let twice = format!("{lift}; DELETE FROM raw.t WHERE id = 4; DELETE FROM raw.t WHERE id = 5");
    assert!(lake.fails(&["sql", "-c", &twice], 1).contains("tables only grow"));
    assert_eq!(lake.value("SELECT count(*) FROM raw.t"), 8);
    let reset = format!("{lift}; RESET icefield.lift; DELETE FROM raw.t");
    assert!(lake.fails(&["sql", "-c", &reset], 1).contains("tables only grow"));
    let wrong = lake.fails(&["sql", "-c", "SET icefield.lift = 5"], 1);
    assert!(wrong.contains("SET icefield.lift = 'erasure request 4711'"), "{wrong}");

    lake.exec(&format!(
        "BEGIN; INSERT INTO raw.t VALUES (20, 1, 'n'); {lift}; DELETE FROM raw.t WHERE id = 5; \
         UPDATE raw.t SET note = 'm' WHERE id = 6; COMMIT"
    ));
    assert_eq!(lake.value("SELECT count(*) FROM raw.t WHERE note = 'm'"), 1);
    lake.exec(&format!("{lift}; ALTER TABLE raw.t DROP COLUMN note"));
    assert_eq!(lake.rows(noted).len(), 4);
    assert!(lake.fails(&["sql", "-c", "DELETE FROM raw.t"], 1).contains("tables only grow"));
    assert!(lake.ok(&["audit", "verify"]).contains("whole"));
}
