//! Schemas and specs that change: what is refused, which ids come back, what the past has.

use serde_json::{Value, json};

use crate::lake::Lake;

/// The newest metadata of a table.
fn metadata(lake: &Lake, table: &str) -> Value {
    let log = format!("SELECT file FROM {table}.metadata_log_entries ORDER BY timestamp, file");
    let last = lake.rows(&log).pop().unwrap();
    let path = last[0].as_str().unwrap().trim_start_matches("file://").to_owned();
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn t82_fields_of_partitions_have_the_ids_that_they_had() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t (id INT, k INT, ts TIMESTAMP) PARTITIONED BY (k)");
    lake.exec("INSERT INTO cleaned.t VALUES (1, 1, TIMESTAMP '2024-01-01 00:00:00')");
    lake.exec("ALTER TABLE cleaned.t DROP PARTITION FIELD k");
    lake.exec("ALTER TABLE cleaned.t ADD PARTITION FIELD bucket(4, id)");
    lake.exec("INSERT INTO cleaned.t VALUES (2, 2, TIMESTAMP '2024-01-02 00:00:00')");
    lake.exec("ALTER TABLE cleaned.t ADD PARTITION FIELD k");
    let specs = metadata(&lake, "cleaned.t")["partition-specs"].clone();
    let ids = |name: &str| -> Vec<i64> {
        let fields =
            specs.as_array().unwrap().iter().flat_map(|it| it["fields"].as_array().unwrap());
        let of = fields.filter(|it| it["name"] == json!(name));
        of.map(|it| it["field-id"].as_i64().unwrap()).collect()
    };
    assert_eq!(ids("k"), [1000, 1000], "{specs}");
    assert!(ids("id_bucket").iter().all(|it| *it == 1001), "{specs}");
    let rows = lake.rows("SELECT id FROM cleaned.t WHERE k > 0 ORDER BY id");
    assert_eq!(json!(rows), json!([[1], [2]]));
    // Hours say more than the days that they are in.
    lake.exec("ALTER TABLE cleaned.t ADD PARTITION FIELD day(ts)");
    let sql = "ALTER TABLE cleaned.t ADD PARTITION FIELD hour(ts)";
    let error = lake.fails(&["sql", "-c", sql], 1);
    assert!(error.contains("ts"), "{error}");
}

#[test]
fn t83_a_spec_that_was_is_that_spec_again() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t (id INT, k INT) PARTITIONED BY (k)");
    lake.exec("INSERT INTO cleaned.t VALUES (1, 1), (11, 1), (2, 2)");
    let files = || lake.rows("SELECT file_path FROM cleaned.t.files ORDER BY 1");
    let before = files();
    lake.exec("ALTER TABLE cleaned.t DROP PARTITION FIELD k");
    lake.exec("INSERT INTO cleaned.t VALUES (3, 3), (13, 3)");
    lake.exec("ALTER TABLE cleaned.t ADD PARTITION FIELD k");
    lake.exec("INSERT INTO cleaned.t VALUES (4, 4)");
    let now = metadata(&lake, "cleaned.t");
    assert_eq!(now["default-spec-id"], json!(0), "{}", now["partition-specs"]);
    assert_eq!(now["partition-specs"].as_array().unwrap().len(), 2);
    assert!(before.iter().all(|it| files().contains(it)), "nothing was rewritten");
    // A commit to files of several specs writes a manifest of each.
    lake.exec("ALTER TABLE cleaned.t SET TBLPROPERTIES ('write.delete.mode' = 'merge-on-read')");
    lake.exec("DELETE FROM cleaned.t WHERE id IN (1, 3)");
    let sql = "SELECT partition_spec_id, count(*) FROM cleaned.t.manifests WHERE content = 1 \
               GROUP BY 1 ORDER BY 1";
    assert_eq!(json!(lake.rows(sql)), json!([[0, 1], [1, 1]]));
    assert_eq!(
        json!(lake.rows("SELECT id FROM cleaned.t ORDER BY id")),
        json!([[2], [4], [11], [13]])
    );
}

#[test]
fn t80_tags_have_the_columns_of_their_snapshot_and_branches_those_of_the_table() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t (id INT, old STRING)");
    lake.exec("INSERT INTO cleaned.t VALUES (1, 'a')");
    let id = lake.value("SELECT snapshot_id FROM cleaned.t.snapshots");
    lake.exec("ALTER TABLE cleaned.t CREATE TAG held");
    lake.exec("ALTER TABLE cleaned.t CREATE BRANCH side");
    lake.exec("ALTER TABLE cleaned.t RENAME COLUMN old TO new");
    lake.exec("ALTER TABLE cleaned.t ADD COLUMN more INT");
    lake.exec("INSERT INTO cleaned.t VALUES (2, 'b', 7)");
    let of = |version: &str| {
        let sql = format!("SELECT * FROM cleaned.t FOR VERSION AS OF {version}");
        let text = lake.ok(&["sql", "--format", "csv", "-c", &sql]);
        text.lines().next().unwrap().to_owned()
    };
    assert_eq!(of("'held'"), "id,old");
    assert_eq!(of(&id.to_string()), "id,old");
    assert_eq!(of("'side'"), "id,new,more");
    // A tag that is called like a snapshot's id loses to the snapshot.
    lake.exec(&format!("ALTER TABLE cleaned.t CREATE TAG `{id}`"));
    let sql = format!("SELECT count(*) FROM cleaned.t FOR VERSION AS OF {id}");
    assert_eq!(lake.value(&sql), json!(1));
}

#[test]
fn t71_t73_columns_that_others_rely_on_stay_as_they_are() {
    let lake = Lake::new();
    lake.exec(
        "CREATE TABLE cleaned.t (id INT, k INT, m MAP<STRUCT<a: INT>, INT>, s STRING) PARTITIONED BY (k) \
         TBLPROPERTIES ('write.parquet.bloom-filter-enabled.column.s' = 'true')",
    );
    for (sql, why) in [
        ("ALTER TABLE cleaned.t DROP COLUMN k", "partition"),
        ("ALTER TABLE cleaned.t ADD COLUMN m.key.b INT", "key"),
        ("ALTER TABLE cleaned.t RENAME COLUMN m.key.a TO b", "key"),
        ("ALTER TABLE cleaned.t ALTER COLUMN zz SET NOT NULL", "no column"),
        ("ALTER TABLE cleaned.t ALTER COLUMN id TYPE DATE", ""),
        ("ALTER TABLE cleaned.t ALTER COLUMN s TYPE INT", ""),
        ("ALTER TABLE cleaned.t RENAME COLUMN id TO S", ""),
    ] {
        let error = lake.fails(&["sql", "-c", sql], 1);
        assert!(error.contains(why), "{sql}: {error}");
    }
    let columns = lake.rows("DESCRIBE cleaned.t");
    assert_eq!(columns.len(), 4);
}
