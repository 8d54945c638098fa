//! What a table tells of itself: metadata tables, SHOW, DESCRIBE and the drawn history.

use serde_json::json;

use crate::interop::python_runs;
use crate::lake::Lake;

#[test]
fn metadata_tables_say_what_pyiceberg_says() {
    python_runs("inspect_tables.py");
}

fn partitioned() -> Lake {
    let lake = Lake::new();
    lake.exec(
        "CREATE TABLE cleaned.t (id BIGINT NOT NULL, g STRING DEFAULT 'a' COMMENT 'it''s a group', day DATE) \
         PARTITIONED BY (g, month(day)) ORDERED BY (id DESC) TBLPROPERTIES ('format-version' = '3')",
    );
    lake.exec("ALTER TABLE cleaned.t SET IDENTIFIER FIELDS id");
    lake.exec(
        "INSERT INTO cleaned.t VALUES (1, 'a', DATE '2026-01-05'), (2, 'b', DATE '2026-02-05')",
    );
    lake.exec("INSERT INTO cleaned.t VALUES (3, 'a', DATE '2026-01-06'), (4, NULL, NULL)");
    lake
}

#[test]
fn partitions_are_values_and_can_be_filtered_and_joined() {
    let lake = partitioned();
    let files = "SELECT count(*) FROM cleaned.t.files WHERE partition.g = 'a'";
    assert_eq!(lake.value(files), 2);
    let rows = lake.rows(
        "SELECT p.partition.g, p.record_count, count(f.file_path) FROM cleaned.t.partitions p \
         JOIN cleaned.t.files f ON f.partition.g IS NOT DISTINCT FROM p.partition.g \
         GROUP BY 1, 2 ORDER BY 1",
    );
    let wanted = [json!(["a", 2, 2]), json!(["b", 1, 1]), json!([null, 1, 1])];
    assert_eq!(json!(rows), json!(wanted));
    let bounds = lake.rows(
        "SELECT readable_metrics.id.lower_bound, readable_metrics.id.upper_bound, \
         readable_metrics.g.null_value_count FROM cleaned.t.files WHERE partition.g IS NULL",
    );
    assert_eq!(json!(bounds), json!([[4, 4, 1]]));
    let then =
        lake.value("SELECT snapshot_id FROM cleaned.t.snapshots ORDER BY committed_at LIMIT 1");
    let count = format!("SELECT count(*) FROM cleaned.t.partitions FOR VERSION AS OF {then}");
    assert_eq!(lake.value(&count), 2);
    let last = "SELECT count(*) FROM cleaned.t.partitions p JOIN cleaned.t.snapshots s \
                ON p.last_updated_snapshot_id = s.snapshot_id AND p.last_updated_at = s.committed_at";
    assert_eq!(lake.value(last), 3);
    // A table that was never partitioned has no column of that.
    lake.exec("CREATE TABLE cleaned.plain (id BIGINT)");
    let error = lake.fails(&["sql", "-c", "SELECT partition FROM cleaned.plain.files"], 1);
    assert!(error.contains("partition"), "{error}");
}

#[test]
fn show_partitions_lists_folders_with_what_they_hold() {
    let lake = partitioned();
    let shown = lake.rows("SHOW PARTITIONS cleaned.t");
    let rows: Vec<_> = shown.iter().map(|it| json!([it[0], it[1], it[2]])).collect();
    let wanted = [
        json!(["g=a/day_month=2026-01", 2, 2]),
        json!(["g=b/day_month=2026-02", 1, 1]),
        json!(["g=null/day_month=null", 1, 1]),
    ];
    assert_eq!(rows, wanted);
    lake.exec("CREATE TABLE cleaned.plain (id BIGINT)");
    let error = lake.fails(&["sql", "-c", "SHOW PARTITIONS cleaned.plain"], 1);
    assert!(error.contains("`cleaned.plain` is not partitioned"), "{error}");
}

#[test]
fn what_show_create_says_makes_the_same_table() {
    let lake = partitioned();
    let said = lake.value("SHOW CREATE TABLE cleaned.t");
    let said = said.as_str().unwrap();
    for part in ["DEFAULT 'a'", "COMMENT 'it''s a group'", "SET IDENTIFIER FIELDS id", "month(day)"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    lake.exec("DROP TABLE cleaned.t");
    lake.exec(said);
    assert_eq!(lake.value("SHOW CREATE TABLE cleaned.t").as_str(), Some(said));
    lake.exec("INSERT INTO cleaned.t (id) VALUES (9)");
    assert_eq!(lake.value("SELECT g FROM cleaned.t"), "a");
}

#[test]
fn describe_tells_the_rest_too() {
    let lake = partitioned();
    let plain = lake.rows("DESCRIBE cleaned.t");
    assert_eq!(plain.len(), 3);
    let extended = lake.rows("DESCRIBE EXTENDED cleaned.t");
    assert_eq!(extended[..3], plain[..]);
    let value = |key: &str| {
        let row = extended.iter().find(|it| it[0] == key);
        row.unwrap_or_else(|| panic!("{key}: {extended:?}"))[1].clone()
    };
    assert_eq!(value("Part 1"), "month of day, as day_month");
    assert_eq!(value("Identifier fields"), "id");
    assert_eq!(value("Sort order"), "identity of id DESC NULLS LAST");
    assert_eq!(value("Rows"), "4");
    assert_eq!(value("Format"), "Iceberg, version 3");
    let history = lake.rows("DESCRIBE HISTORY cleaned.t");
    assert_eq!(history.len(), 2);
    assert_eq!((&history[0][4], &history[0][6]), (&json!(2), &json!(4)), "the newest is first");
    assert_eq!(history[0][9], "main");
    assert!(history[0][8].as_str().unwrap().starts_with("INSERT INTO cleaned.t"));
    lake.exec("CREATE NAMESPACE extra");
    lake.exec("ALTER NAMESPACE extra SET PROPERTIES ('owner' = 'ada')");
    let properties = lake.rows("DESCRIBE NAMESPACE extra");
    assert!(properties.contains(&vec![json!("owner"), json!("ada")]), "{properties:?}");
    let error = lake.fails(&["sql", "-c", "DESCRIBE NAMESPACE nope"], 1);
    assert!(error.contains("no namespace `nope`"), "{error}");
    // A name that would be a metadata table's is told of when it is given.
    let taken = lake.fails(&["sql", "-c", "CREATE TABLE extra.history (id INT)"], 1);
    assert!(taken.contains("means the metadata table `history`"), "{taken}");
    // Words that open these statements are names, too.
    lake.exec("CREATE TABLE cleaned.history (id BIGINT); USE cleaned; DESCRIBE history");
}

#[test]
fn history_draws_branches_and_tags() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t (id BIGINT)");
    lake.exec("INSERT INTO cleaned.t VALUES (1)");
    lake.exec("ALTER TABLE cleaned.t CREATE BRANCH audit");
    lake.exec("ALTER TABLE cleaned.t CREATE TAG q3");
    lake.exec("INSERT INTO cleaned.t.branch_audit VALUES (2)");
    lake.exec("INSERT INTO cleaned.t VALUES (3)");
    let drawn = lake.ok(&["history", "cleaned.t"]);
    let rails: Vec<String> = drawn
        .lines()
        .skip(2)
        .map(|it| it.chars().take(3).collect::<String>().trim_end().to_owned())
        .collect();
    assert_eq!(rails, ["●", "│", "│ ●", "│ │", "├─╯", "●", ""], "{drawn}");
    for name in ["  main", "  branch audit", "  tag q3"] {
        assert!(drawn.lines().any(|it| it.ends_with(name)), "{name}: {drawn}");
    }
    // What was published waits no more.
    lake.exec("ALTER TABLE cleaned.t SET TBLPROPERTIES ('write.wap.enabled' = 'true')");
    lake.exec("SET write.wap.id = w1; INSERT INTO cleaned.t VALUES (4); SET write.wap.id = w2; INSERT INTO cleaned.t VALUES (5)");
    let drawn = lake.ok(&["history", "cleaned.t"]);
    assert_eq!(drawn.matches("staged as w").count(), 2, "{drawn}");
    lake.exec("CALL system.publish_changes('cleaned.t', 'w2')");
    let drawn = lake.ok(&["history", "cleaned.t"]);
    assert!(drawn.contains("staged as w1") && !drawn.contains("staged as w2"), "{drawn}");
}

#[test]
fn history_is_json_too() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t (id BIGINT)");
    lake.exec("INSERT INTO cleaned.t VALUES (1)");
    lake.exec("ALTER TABLE cleaned.t CREATE BRANCH audit");
    lake.exec("ALTER TABLE cleaned.t CREATE TAG q3");
    lake.exec("INSERT INTO cleaned.t.branch_audit VALUES (2)");
    lake.exec("INSERT INTO cleaned.t VALUES (3)");
    let all = lake.ok(&["history", "cleaned.t", "--format", "json"]);
    let all: serde_json::Value = serde_json::from_str(&all).unwrap();
    let refs: Vec<_> = all.as_array().unwrap().iter().map(|it| it["refs"].clone()).collect();
    let one = |name: &str, kind: &str| json!([{ "name": name, "type": kind }]);
    assert_eq!(refs, [one("main", "branch"), one("audit", "branch"), one("q3", "tag")]);
}

#[test]
fn show_create_quotes_and_keeps_what_is_within() {
    let lake = Lake::new();
    lake.exec(
        "CREATE TABLE cleaned.\"Odd Name\" (id INT, b BINARY DEFAULT X'00ff', \
         s STRUCT<a: INT COMMENT 'it''s', b: INT NOT NULL>) TBLPROPERTIES ('format-version' = '3')",
    );
    let said = lake.value("SHOW CREATE TABLE cleaned.\"Odd Name\"");
    let said = said.as_str().unwrap().to_owned();
    lake.exec("DROP TABLE cleaned.\"Odd Name\"");
    lake.exec(&said);
    assert_eq!(lake.value("SHOW CREATE TABLE cleaned.\"Odd Name\""), json!(said));
    lake.exec("INSERT INTO cleaned.\"Odd Name\" (id) VALUES (1)");
    lake.exec(
        "MERGE INTO cleaned.\"Odd Name\" t USING (SELECT 2 AS id) s ON t.id = s.id \
         WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id)",
    );
    lake.exec("INSERT INTO cleaned.\"Odd Name\" (id, b) VALUES (3, DEFAULT)");
    let bytes = lake.rows("SELECT b FROM cleaned.\"Odd Name\" ORDER BY id");
    assert_eq!(json!(bytes), json!([["0x00ff"], ["0x00ff"], ["0x00ff"]]));
    for (kind, value) in
        [("TIMESTAMP_NS", "TIMESTAMP '2026-01-01 00:00:00.123456789'"), ("DOUBLE", "'NaN'")]
    {
        let statement = format!(
            "CREATE TABLE cleaned.no (id INT, n {kind} DEFAULT {value}) TBLPROPERTIES ('format-version' = '3')"
        );
        let error = lake.fails(&["sql", "-c", &statement], 1);
        assert!(error.contains("cannot be the default of column `n`"), "{error}");
    }
}
