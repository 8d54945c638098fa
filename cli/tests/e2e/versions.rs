//! The long life of a table: branches, what waits, changes between versions, views, another shape.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::lake::Lake;

fn ids(lake: &Lake, table: &str) -> Value {
    let rows = lake.rows(&format!("SELECT id FROM {table} ORDER BY id"));
    rows.into_iter().map(|mut it| it.remove(0)).collect()
}

fn table(lake: &Lake) {
    lake.exec("CREATE TABLE cleaned.t (id BIGINT NOT NULL, v STRING)");
    lake.exec("INSERT INTO cleaned.t VALUES (1, 'a'), (2, 'b'), (3, 'c')");
}

#[test]
fn a_branch_is_written_like_a_table_and_brought_into_it() {
    for version in ["2", "3"] {
        life_of_a_branch(version);
    }
}

fn life_of_a_branch(version: &str) {
    let lake = Lake::new();
    table(&lake);
    lake.exec(&format!("ALTER TABLE cleaned.t SET TBLPROPERTIES ('format-version' = '{version}')"));
    lake.exec("ALTER TABLE cleaned.t CREATE BRANCH audit");
    lake.exec("INSERT INTO cleaned.t.branch_audit VALUES (4, 'd')");
    lake.exec("DELETE FROM cleaned.t.branch_audit WHERE id = 1");
    lake.exec("UPDATE cleaned.t.branch_audit SET v = 'B' WHERE id = 2");
    lake.exec(
        "MERGE INTO cleaned.t.branch_audit x USING (VALUES (4, 'D'), (5, 'e')) AS s(id, v) ON x.id = s.id \
         WHEN MATCHED THEN UPDATE SET v = s.v WHEN NOT MATCHED THEN INSERT *",
    );
    assert_eq!(ids(&lake, "cleaned.t"), json!([1, 2, 3]));
    assert_eq!(ids(&lake, "cleaned.t.branch_audit"), json!([2, 3, 4, 5]));
    assert_eq!(lake.value("SELECT count(*) FROM cleaned.t FOR VERSION AS OF 'audit'"), 4);
    let none = lake.fails(&["sql", "-c", "INSERT INTO cleaned.t.branch_none VALUES (1, 'x')"], 1);
    assert!(none.contains("no branch `none`"), "{none}");
    let within = "BEGIN; INSERT INTO cleaned.t.branch_audit VALUES (9, 'x'); COMMIT";
    assert!(lake.fails(&["sql", "-c", within], 1).contains("within a transaction"));

    let forward = lake.rows("CALL system.fast_forward('cleaned.t', 'main', 'audit')");
    assert_eq!(forward[0][0], "main");
    assert_eq!(ids(&lake, "cleaned.t"), json!([2, 3, 4, 5]));
    let first =
        lake.value("SELECT snapshot_id FROM cleaned.t.snapshots ORDER BY committed_at LIMIT 1");
    lake.exec(&format!("CALL system.rollback_to_snapshot('cleaned.t', {first})"));
    assert_eq!(ids(&lake, "cleaned.t"), json!([1, 2, 3]));
    let ahead = lake.value("SELECT snapshot_id FROM cleaned.t.refs WHERE name = 'audit'");
    let call = format!("CALL system.rollback_to_snapshot('cleaned.t', {ahead})");
    assert!(lake.fails(&["sql", "-c", &call], 1).contains("set_current_snapshot"));
    lake.exec("CALL system.set_current_snapshot(table => 'cleaned.t', ref => 'audit')");
    assert_eq!(ids(&lake, "cleaned.t"), json!([2, 3, 4, 5]));
    assert_eq!(lake.rows("CALL system.ancestors_of('cleaned.t')").len(), 5);
    lake.exec("INSERT INTO cleaned.t VALUES (6, 'f')");
    lake.exec("INSERT INTO cleaned.t.branch_audit VALUES (7, 'g')");
    let apart =
        lake.fails(&["sql", "-c", "CALL system.fast_forward('cleaned.t', 'main', 'audit')"], 1);
    assert!(apart.contains("cannot move forward"), "{apart}");
    let picked = lake.value("SELECT snapshot_id FROM cleaned.t.refs WHERE name = 'audit'");
    let pick = format!("CALL system.cherrypick_snapshot('cleaned.t', {picked})");
    lake.exec(&pick);
    assert_eq!(ids(&lake, "cleaned.t"), json!([2, 3, 4, 5, 6, 7]));
    assert!(lake.fails(&["sql", "-c", &pick], 1).contains("already"));
    assert_eq!(lake.ok(&["fsck"]).matches("error").count(), 0);
}

#[test]
fn what_is_audited_first_waits_until_it_is_published() {
    let lake = Lake::new();
    table(&lake);
    lake.exec("ALTER TABLE cleaned.t SET TBLPROPERTIES ('write.wap.enabled' = 'true')");
    lake.exec("SET write.wap.branch = 'next'; INSERT INTO cleaned.t VALUES (4, 'd')");
    assert_eq!(ids(&lake, "cleaned.t"), json!([1, 2, 3]));
    assert_eq!(ids(&lake, "cleaned.t.branch_next"), json!([1, 2, 3, 4]));
    lake.exec("SET write.wap.id = 'job'; INSERT INTO cleaned.t VALUES (5, 'e')");
    lake.exec("INSERT INTO cleaned.t VALUES (6, 'f')");
    assert_eq!(ids(&lake, "cleaned.t"), json!([1, 2, 3, 6]));
    lake.exec("CALL system.publish_changes('cleaned.t', 'job')");
    assert_eq!(ids(&lake, "cleaned.t"), json!([1, 2, 3, 5, 6]));
    for id in ["job", "none"] {
        lake.fails(&["sql", "-c", &format!("CALL system.publish_changes('cleaned.t', '{id}')")], 1);
    }
    let both = "SET write.wap.branch = 'a'; SET write.wap.id = 'b'";
    assert!(lake.fails(&["sql", "-c", both], 1).contains("not both"));
}

/// Rows, each with how often it is there.
fn counted(rows: Vec<Vec<Value>>) -> BTreeMap<String, i64> {
    let mut all = BTreeMap::new();
    for row in rows {
        *all.entry(serde_json::to_string(&row).unwrap()).or_default() += 1;
    }
    all
}

#[test]
fn t127_changes_made_again_on_a_version_give_the_next() {
    for (format, mode) in
        [(2, "copy-on-write"), (2, "merge-on-read"), (3, "copy-on-write"), (3, "merge-on-read")]
    {
        let lake = Lake::new();
        lake.exec(&format!(
            "CREATE TABLE cleaned.t (id BIGINT NOT NULL, v STRING, n DOUBLE) TBLPROPERTIES ('format-version' = '{format}', \
             'write.delete.mode' = '{mode}', 'write.update.mode' = '{mode}', 'write.merge.mode' = '{mode}')"
        ));
        for statement in [
            "INSERT INTO cleaned.t VALUES (1, 'a', 1), (2, 'b', NULL), (2, 'b', NULL), (3, NULL, 'NaN')",
            "DELETE FROM cleaned.t WHERE id = 1",
            "UPDATE cleaned.t SET v = 'B' WHERE id = 2",
            "INSERT INTO cleaned.t SELECT id + 10, v, n FROM cleaned.t",
            "CALL system.rewrite_data_files(table => 'cleaned.t', options => map('rewrite-all', 'true'))",
            "MERGE INTO cleaned.t t USING (VALUES (3, 'x'), (4, 'y')) AS s(id, v) ON t.id = s.id \
             WHEN MATCHED THEN UPDATE SET v = s.v WHEN NOT MATCHED THEN INSERT (id, v) VALUES (s.id, s.v)",
            "ALTER TABLE cleaned.t ADD COLUMN more INT",
            "UPDATE cleaned.t SET more = 1 WHERE id > 10",
            "DELETE FROM cleaned.t WHERE v = 'B'",
        ] {
            lake.exec(statement);
        }
        let shown = "id, v, n, more";
        let versions = lake.rows("CALL system.ancestors_of('cleaned.t')");
        let versions: Vec<Value> = versions.iter().rev().map(|it| it[0].clone()).collect();
        let log = lake.rows(&format!(
            "SELECT _commit_snapshot_id, _change_type, {shown} FROM table_changes('cleaned.t') ORDER BY _change_ordinal"
        ));
        let mut now: BTreeMap<String, i64> = BTreeMap::new();
        for version in &versions {
            for row in log.iter().filter(|it| it[0] == *version) {
                let row = row.clone();
                let kind = row[1].as_str().unwrap().to_owned();
                let entry = now.entry(serde_json::to_string(&row[2..]).unwrap()).or_default();
                *entry += if matches!(kind.as_str(), "insert" | "update_after") { 1 } else { -1 };
            }
            now.retain(|_, count| *count != 0);
        }
        let last = counted(lake.rows(&format!("SELECT {shown} FROM cleaned.t")));
        assert_eq!(now, last, "{format} {mode}");
        // In the end, and from the middle on.
        let middle = &versions[3];
        let before = counted(lake.rows(&format!(
            "SELECT id, v, n, CAST(NULL AS INT) AS more FROM cleaned.t FOR VERSION AS OF {middle}"
        )));
        let net = lake.rows(&format!(
            "SELECT _change_type, {shown} FROM table_changes('cleaned.t', {middle}, net => true)"
        ));
        let mut made = before;
        for row in net {
            let adds = matches!(row[0].as_str().unwrap(), "insert" | "update_after");
            *made.entry(serde_json::to_string(&row[1..]).unwrap()).or_default() +=
                if adds { 1 } else { -1 };
        }
        made.retain(|_, count| *count != 0);
        assert_eq!(made, last, "net of {format} {mode}");
        let keyed = lake.rows(
            "SELECT count(*) FROM table_changes('cleaned.t', identifier_columns => array('id')) WHERE _change_type = 'update_after'",
        );
        assert_ne!(keyed[0][0], 0);
        let bad = lake.fails(&["sql", "-c", "SELECT * FROM table_changes('cleaned.t', 5)"], 1);
        assert!(bad.contains("has no snapshot 5") && bad.contains("oldest"), "{bad}");
    }
}

#[test]
fn differences_and_the_past_are_shown() {
    let lake = Lake::new();
    table(&lake);
    let first = lake.value("SELECT snapshot_id FROM cleaned.t.snapshots").to_string();
    lake.exec("ALTER TABLE cleaned.t ADD COLUMN note STRING");
    lake.exec("ALTER TABLE cleaned.t SET TBLPROPERTIES ('owner' = 'ada')");
    lake.exec("ALTER TABLE cleaned.t SET IDENTIFIER FIELDS id");
    lake.exec("UPDATE cleaned.t SET v = 'B' WHERE id = 2");
    let text = lake.ok(&["diff", "cleaned.t", "--from", &first]);
    for wanted in [
        "+ note string",
        "owner: - ─▶ ada",
        "+0 inserted   1 updated   -0 deleted",
        "update_before",
    ] {
        assert!(text.contains(wanted), "{wanted} in {text}");
    }
    let all: Value = serde_json::from_str(&lake.ok(&[
        "diff",
        "cleaned.t",
        "--from",
        &first,
        "--format",
        "json",
    ]))
    .unwrap();
    assert_eq!(all["rows"], json!({ "update_after": 1, "update_before": 1 }));
    let seen = lake.ok(&["audit", "cleaned.t", "--at", &first]);
    assert!(
        seen.contains("rows        3") && seen.contains("| b") && !seen.contains("note"),
        "{seen}"
    );
    assert!(lake.fails(&["audit", "cleaned.t"], 1).contains("when?"));
    assert!(lake.fails(&["diff", "cleaned.t", "--from", "never"], 1).contains("never"));
    lake.exec("CALL system.create_changelog_view(table => 'cleaned.t', identifier_columns => array('id')); \
               SELECT * FROM t_changes");
}

#[test]
fn views_are_queries_under_a_name() {
    let lake = Lake::new();
    table(&lake);
    lake.exec("CREATE VIEW curated.v (a, b COMMENT 'big') AS SELECT id, upper(v) FROM cleaned.t WHERE id > 1");
    lake.exec("CREATE VIEW curated.w AS SELECT a + 1 AS x, b FROM curated.v");
    assert_eq!(
        lake.rows("SELECT x, b FROM curated.w ORDER BY x"),
        [[json!(3), json!("B")], [json!(4), json!("C")]]
    );
    lake.exec("CREATE OR REPLACE VIEW curated.v AS SELECT id AS a, lower(v) AS b FROM cleaned.t");
    assert_eq!(lake.value("SELECT count(*) FROM curated.w"), 3);
    for (statement, why) in [
        ("CREATE VIEW curated.v AS SELECT 1 AS a", "already"),
        ("CREATE VIEW cleaned.t AS SELECT 1 AS a", "already"),
        ("CREATE OR REPLACE VIEW curated.v AS SELECT * FROM curated.w", "cannot read itself"),
        ("CREATE VIEW curated.z AS SELECT * FROM nope", "no table"),
        ("CREATE VIEW curated.z (a, b) AS SELECT 1 AS a", "2 columns"),
        ("DROP VIEW curated.nope", "no view"),
    ] {
        let said = lake.fails(&["sql", "-c", statement], 1);
        assert!(said.contains(why), "{statement}: {said}");
    }
    assert_eq!(lake.rows("SHOW VIEWS").len(), 2);
    lake.exec("ALTER VIEW curated.w RENAME TO w2; DROP VIEW curated.w2");
    lake.exec("CREATE TEMPORARY VIEW tv AS SELECT count(*) AS n FROM cleaned.t; SELECT n FROM tv; DROP VIEW tv");
}

#[test]
fn a_table_is_made_anew_in_its_place_and_its_columns_have_defaults() {
    let lake = Lake::new();
    table(&lake);
    let first = lake.value("SELECT snapshot_id FROM cleaned.t.snapshots");
    lake.exec("CREATE OR REPLACE TABLE cleaned.t (k INT, d DATE) PARTITIONED BY (month(d))");
    assert_eq!(lake.value("SELECT count(*) FROM cleaned.t"), 0);
    lake.exec("INSERT INTO cleaned.t VALUES (1, DATE '2024-01-01')");
    lake.exec("CREATE OR REPLACE TABLE cleaned.t AS SELECT 'x' AS a, 2 AS b");
    assert_eq!(lake.rows("SELECT * FROM cleaned.t"), [[json!("x"), json!(2)]]);
    assert_eq!(lake.value(&format!("SELECT count(*) FROM cleaned.t FOR VERSION AS OF {first}")), 3);
    lake.exec("CREATE TABLE raw.r (id INT)");
    lake.exec("INSERT INTO raw.r VALUES (1)");
    lake.fails(&["sql", "-c", "CREATE OR REPLACE TABLE raw.r (id INT)"], 1);

    lake.exec("CREATE TABLE cleaned.d (id INT, k STRING DEFAULT 'x') TBLPROPERTIES ('format-version' = '3')");
    lake.exec("INSERT INTO cleaned.d (id) VALUES (1)");
    lake.exec("ALTER TABLE cleaned.d ADD COLUMN n INT NOT NULL DEFAULT 7 AFTER id");
    lake.exec("ALTER TABLE cleaned.d ALTER COLUMN n SET DEFAULT 8");
    lake.exec("INSERT INTO cleaned.d (id) VALUES (2)");
    lake.exec("ALTER TABLE cleaned.d ALTER COLUMN k FIRST");
    let rows = lake.rows("SELECT * FROM cleaned.d ORDER BY id");
    assert_eq!(rows, [[json!("x"), json!(1), json!(7)], [json!("x"), json!(2), json!(8)]]);
    for (change, why) in [
        ("ALTER COLUMN id AFTER zz", "no column `zz`"),
        ("ADD COLUMN z INT DEFAULT 1.5", "does not fit"),
        ("SET IDENTIFIER FIELDS k", "may be null"),
        ("ADD COLUMN z INT NOT NULL", "older rows are null"),
        ("DROP IDENTIFIER FIELDS id", "does not identify"),
    ] {
        let said = lake.fails(&["sql", "-c", &format!("ALTER TABLE cleaned.d {change}")], 1);
        assert!(said.contains(why), "{change}: {said}");
    }
    lake.exec("ALTER TABLE cleaned.d ALTER COLUMN id SET NOT NULL");
    lake.exec("ALTER TABLE cleaned.d SET IDENTIFIER FIELDS id");
    assert!(
        lake.fails(&["sql", "-c", "ALTER TABLE cleaned.d DROP COLUMN id"], 1)
            .contains("identifies")
    );
}

#[test]
fn metadata_tables_show_what_any_snapshot_has() {
    let lake = Lake::new();
    table(&lake);
    lake.exec("INSERT INTO cleaned.t VALUES (4, 'd')");
    lake.exec("DELETE FROM cleaned.t WHERE id = 4");
    assert_eq!(lake.value("SELECT count(*) FROM cleaned.t.data_files"), 1);
    assert_eq!(lake.value("SELECT count(DISTINCT file_path) FROM cleaned.t.all_data_files"), 2);
    assert_eq!(lake.value("SELECT count(*) FROM cleaned.t.entries WHERE status = 2"), 1);
    assert_eq!(
        lake.value("SELECT count(DISTINCT data_file['file_path']) FROM cleaned.t.all_entries"),
        2
    );
    assert_eq!(
        lake.value("SELECT count(DISTINCT reference_snapshot_id) FROM cleaned.t.all_manifests"),
        3
    );
    assert_eq!(
        lake.value("SELECT sum(added_data_files_count) FROM cleaned.t.manifests WHERE content = 1"),
        Value::Null
    );
}

#[test]
fn what_waits_is_published_once_whoever_publishes_it() {
    let lake = Lake::new();
    table(&lake);
    lake.exec("ALTER TABLE cleaned.t SET TBLPROPERTIES ('write.wap.enabled' = 'true')");
    lake.exec("SET write.wap.id = 'j'; INSERT INTO cleaned.t VALUES (4, 'd')");
    let twice = "SET write.wap.id = 'j'; INSERT INTO cleaned.t VALUES (5, 'e')";
    assert!(lake.fails(&["sql", "-c", twice], 1).contains("called `j` already"));
    lake.exec("INSERT INTO cleaned.t VALUES (6, 'f')");
    let publish = || lake.run(&["sql", "-c", "CALL system.publish_changes('cleaned.t', 'j')"]);
    let done = std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(publish)).collect();
        all.into_iter().map(|it| it.join().unwrap()).filter(|it| it.status.success()).count()
    });
    assert_eq!((done, ids(&lake, "cleaned.t")), (1, json!([1, 2, 3, 4, 6])));
}

#[test]
fn rows_for_other_columns_do_not_come_into_a_table() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t (id BIGINT, v STRING)");
    lake.exec("INSERT INTO cleaned.t VALUES (1, 'a'), (NULL, 'b')");
    let nulls = lake.value("SELECT snapshot_id FROM cleaned.t.snapshots");
    lake.exec("ALTER TABLE cleaned.t SET TBLPROPERTIES ('write.wap.enabled' = 'true')");
    lake.exec("SET write.wap.id = 'j'; INSERT INTO cleaned.t VALUES (NULL, 'c')");
    lake.exec("DELETE FROM cleaned.t WHERE id IS NULL");
    lake.exec("ALTER TABLE cleaned.t ALTER COLUMN id SET NOT NULL");
    for call in [
        format!("rollback_to_snapshot('cleaned.t', {nulls})"),
        "publish_changes('cleaned.t', 'j')".to_owned(),
    ] {
        let said = lake.fails(&["sql", "-c", &format!("CALL system.{call}")], 1);
        assert!(said.contains("NOT NULL by now"), "{call}: {said}");
    }
    // Columns that go on keep what branches have; others are nobody's.
    lake.exec("INSERT INTO cleaned.t VALUES (2, 'x')");
    lake.exec("ALTER TABLE cleaned.t CREATE BRANCH keep");
    lake.exec("CREATE OR REPLACE TABLE cleaned.t (v STRING, id BIGINT NOT NULL, n INT)");
    assert_eq!(ids(&lake, "cleaned.t.branch_keep"), json!([1, 2]));
    lake.exec("CALL system.fast_forward('cleaned.t', 'main', 'keep')");
    assert_eq!(ids(&lake, "cleaned.t"), json!([1, 2]));
    let lost = lake.fails(&["sql", "-c", "CREATE OR REPLACE TABLE cleaned.t (w STRING)"], 1);
    assert!(lost.contains("branch `keep` could not be read"), "{lost}");
    // Another catalog's table is looked at where it is.
    let other = lake.folder().join("other").display().to_string();
    lake.ok(&[
        "--warehouse",
        &other,
        "sql",
        "-c",
        "CREATE TABLE cleaned.t AS SELECT CAST(NULL AS BIGINT) AS id",
    ]);
    let attached = format!(
        "ATTACH '{other}/catalog.db' AS other (TYPE sqlite); ALTER TABLE other.cleaned.t ALTER COLUMN id SET NOT NULL"
    );
    assert!(lake.fails(&["sql", "-c", &attached], 1).contains("null in 1 rows"));
    let deletes = ["audit", "cleaned.t", "--at", "now", "--query", "DELETE FROM cleaned.t"];
    lake.fails(&deletes, 1);
    let at = lake.value("SELECT snapshot_id FROM cleaned.t.refs WHERE name = 'main'").to_string();
    let said =
        lake.fails(&["audit", "cleaned.t", "--at", &at, "--query", "DELETE FROM cleaned.t"], 1);
    assert!(said.contains("changes nothing"), "{said}");
    assert_eq!(ids(&lake, "cleaned.t"), json!([1, 2]));
}

#[test]
fn defaults_stand_before_not_null_and_are_widened() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t (id INT, c INT DEFAULT 7 NOT NULL) TBLPROPERTIES ('format-version' = '3')");
    lake.exec("INSERT INTO cleaned.t (id) VALUES (1)");
    lake.exec("ALTER TABLE cleaned.t ADD COLUMN d INT DEFAULT 5 NOT NULL");
    lake.exec("ALTER TABLE cleaned.t ALTER COLUMN d TYPE BIGINT");
    lake.exec("INSERT INTO cleaned.t (id) VALUES (2)");
    assert_eq!(
        lake.rows("SELECT c, d FROM cleaned.t ORDER BY id"),
        [[7, 5], [7, 5]].map(|it| it.map(|it| json!(it)))
    );
    assert!(
        lake.fails(&["sql", "-c", "ALTER TABLE cleaned.t ADD COLUMN e INT DEFAULT true"], 1)
            .contains("no numbers")
    );
}

#[test]
fn rows_with_ids_are_told_apart_by_them() {
    for mode in ["copy-on-write", "merge-on-read"] {
        let lake = Lake::new();
        lake.exec(&format!("CREATE TABLE cleaned.t (x INT) TBLPROPERTIES ('format-version' = '3', 'write.update.mode' = '{mode}')"));
        lake.exec("INSERT INTO cleaned.t VALUES (1), (2), (3)");
        lake.exec("UPDATE cleaned.t SET x = x + 1");
        let kinds = lake.rows("SELECT _change_type, count(*) FROM table_changes('cleaned.t') WHERE _change_ordinal = 1 GROUP BY 1 ORDER BY 1");
        assert_eq!(
            kinds,
            [[json!("update_after"), json!(3)], [json!("update_before"), json!(3)]],
            "{mode}"
        );
    }
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t (x INT)");
    lake.exec("INSERT INTO cleaned.t VALUES (1), (2), (3)");
    lake.exec("INSERT OVERWRITE cleaned.t WHERE x <> 2 VALUES (10), (11)");
    lake.exec("ALTER TABLE cleaned.t SET TBLPROPERTIES ('format-version' = '3')");
    let kinds =
        lake.rows("SELECT DISTINCT _change_type FROM table_changes('cleaned.t') ORDER BY 1");
    assert_eq!(kinds, [[json!("delete")], [json!("insert")]]);
}

#[test]
fn names_in_views_and_names_that_look_like_others_mean_what_they_say() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE raw.t (a INT); INSERT INTO raw.t VALUES (1)");
    lake.exec("CREATE TABLE cleaned.t (a INT); INSERT INTO cleaned.t VALUES (2)");
    lake.exec("USE raw; CREATE VIEW raw.v AS WITH q AS (SELECT a FROM t) SELECT t.a FROM t JOIN q ON t.a = q.a");
    lake.exec("USE raw; CREATE VIEW raw.c AS SELECT a FROM table_changes('t')");
    for view in ["v", "c"] {
        assert_eq!(lake.value(&format!("SELECT a FROM raw.{view}")), 1);
        let text = lake.ok(&[
            "sql",
            "--format",
            "csv",
            "-c",
            &format!("USE cleaned; SELECT a FROM raw.{view}"),
        ]);
        assert!(text.trim().ends_with('1'), "{text}");
    }
    lake.exec("CREATE VIEW raw.w AS SELECT a FROM raw.v");
    assert_eq!(lake.value("SELECT count(*) FROM raw.w, raw.v, raw.w AS again"), 1);
    lake.exec("CREATE NAMESPACE raw.eu");
    lake.exec(
        "CREATE TABLE raw.eu.tag_list AS SELECT 7 AS a; CREATE TABLE raw.eu.branch_list (a INT)",
    );
    assert_eq!(lake.value("SELECT a FROM raw.eu.tag_list"), 7);
    lake.exec("INSERT INTO raw.eu.branch_list VALUES (8)");
    assert_eq!(lake.value("SELECT a FROM raw.eu.branch_list"), 8);
    lake.exec("CREATE TABLE raw.table_changes (id INT)");
    assert_eq!(lake.value("WITH table_changes(a) AS (SELECT 3) SELECT a FROM table_changes"), 3);
}
