//! Procedures by their outcome, and what a hold keeps.

use serde_json::json;

use crate::lake::Lake;

fn three_versions() -> Lake {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t (id BIGINT)");
    for id in 1..=3 {
        lake.exec(&format!("INSERT INTO cleaned.t VALUES ({id})"));
    }
    lake
}

fn ids(lake: &Lake, table: &str) -> serde_json::Value {
    let rows = lake.rows(&format!("SELECT id FROM {table} ORDER BY id"));
    rows.into_iter().map(|mut it| it.remove(0)).collect()
}

#[test]
fn a_table_goes_back_to_a_time() {
    let lake = three_versions();
    let times =
        lake.rows("SELECT CAST(committed_at AS STRING) FROM cleaned.t.snapshots ORDER BY 1");
    let third = times[2][0].as_str().unwrap().trim_end_matches('Z');
    let done = lake.rows(&format!(
        "CALL system.rollback_to_timestamp('cleaned.t', TIMESTAMP '{}')",
        third.replace('T', " ")
    ));
    assert_eq!(done.len(), 1);
    assert_eq!(ids(&lake, "cleaned.t"), json!([1, 2]), "the one before that time");
    let too_early =
        "CALL system.rollback_to_timestamp('cleaned.t', TIMESTAMP '2001-01-01 00:00:00')";
    assert!(lake.fails(&["sql", "-c", too_early], 1).contains("no snapshot older than 2001"));
    assert_eq!(ids(&lake, "cleaned.t"), json!([1, 2]));
}

#[test]
fn metadata_that_lies_somewhere_becomes_a_table() {
    let lake = three_versions();
    let files =
        lake.rows("SELECT file FROM cleaned.t.metadata_log_entries ORDER BY timestamp, file");
    let second = files[2][0].as_str().unwrap();
    let done = lake.rows(&format!(
        "CALL system.register_table(table => 'cleaned.then', metadata_file => '{second}')"
    ));
    assert_eq!((&done[0][1], &done[0][2]), (&json!(2), &json!(2)), "records and files");
    assert_eq!(ids(&lake, "cleaned.then"), json!([1, 2]));
    let again = format!("CALL system.register_table('cleaned.then', '{second}')");
    assert!(lake.fails(&["sql", "-c", &again], 1).contains("already"));
    let none = "CALL system.register_table('cleaned.no', '/nowhere/1.metadata.json')";
    lake.fails(&["sql", "-c", none], 1);
}

#[test]
fn a_hold_is_a_tag_that_expiry_respects_and_its_end_is_on_record() {
    let lake = three_versions();
    let first =
        lake.value("SELECT snapshot_id FROM cleaned.t.snapshots ORDER BY committed_at LIMIT 1");
    lake.exec(&format!("ALTER TABLE cleaned.t CREATE TAG hold AS OF VERSION {first}"));
    let expire = "CALL system.expire_snapshots('cleaned.t', TIMESTAMP '2100-01-01 00:00:00')";
    lake.exec(expire);
    assert_eq!(lake.value("SELECT count(*) FROM cleaned.t.snapshots"), 2);
    assert_eq!(ids(&lake, "cleaned.t FOR VERSION AS OF 'hold'"), json!([1]));
    lake.exec("ALTER TABLE cleaned.t DROP TAG hold");
    let told = lake.rows(
        "SELECT detail FROM system.audit_log WHERE object = 'cleaned.t' AND detail LIKE '%hold%'",
    );
    let told: Vec<serde_json::Value> =
        told.iter().map(|it| serde_json::from_str(it[0].as_str().unwrap()).unwrap()).collect();
    assert_eq!(told.len(), 2, "made, and let go of: {told:?}");
    assert_eq!(told[0]["refs"], json!([{ "name": "hold", "before": null, "after": first }]));
    assert_eq!(told[1]["refs"], json!([{ "name": "hold", "before": first, "after": null }]));
    lake.exec(expire);
    assert_eq!(lake.value("SELECT count(*) FROM cleaned.t.snapshots"), 1);
    let gone = format!("SELECT * FROM cleaned.t FOR VERSION AS OF {first}");
    let error = lake.fails(&["sql", "-c", &gone], 1);
    for part in
        ["the table has no snapshot", "the oldest is", "system.maintenance_runs", "a tag keeps"]
    {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn statistics_say_which_side_of_a_join_is_kept_in_memory() {
    let lake = Lake::new();
    // Three million pairs of `a` and `b` have one of three texts in common, of which bounds say nothing.
    lake.exec(
        "CREATE TABLE cleaned.a AS SELECT i AS id, 'k' || (i % 3) AS k FROM range(0, 3000) r(i)",
    );
    lake.exec(
        "CREATE TABLE cleaned.b AS SELECT i AS id, 'k' || (i % 3) AS k, 'm' || (i % 1000) AS m \
         FROM range(0, 3000) r(i)",
    );
    lake.exec("CREATE TABLE cleaned.c AS SELECT i AS id, 'm' || i AS m FROM range(0, 20000) r(i)");
    let join =
        "SELECT count(*) FROM cleaned.a JOIN cleaned.b ON a.k = b.k JOIN cleaned.c ON b.m = c.m";
    let c_is_first = || {
        let plan = lake.rows(&format!("EXPLAIN {join}"));
        let plan = plan[1][1].as_str().unwrap().to_owned();
        let place = |table: &str| plan.find(&format!("/cleaned/{table}/")).unwrap();
        place("c") < place("a")
    };
    assert!(!c_is_first(), "nobody knows how many pairs there are");
    for table in ["a", "b", "c"] {
        lake.exec(&format!("CALL system.compute_table_stats('cleaned.{table}')"));
    }
    assert!(c_is_first(), "20,000 rows are fewer than three million");
    // Later snapshots go on with what was known.
    lake.exec("INSERT INTO cleaned.a VALUES (3000, 'k1')");
    assert!(c_is_first());
}

#[test]
fn explain_says_what_was_left_out_and_why() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t (id BIGINT, day DATE) PARTITIONED BY (day)");
    for month in [1, 2] {
        lake.exec(&format!(
            "INSERT INTO cleaned.t SELECT i + {month} * 1000, DATE '2026-0{month}-01' + CAST(i % 5 AS INT) \
             FROM range(0, 1000) r(i)"
        ));
    }
    let plan = |query: &str| {
        let rows = lake.rows(query);
        let last = rows.iter().find(|it| it[0] != "logical_plan").unwrap();
        last[1].as_str().unwrap().to_owned()
    };
    let narrow = "SELECT * FROM cleaned.t WHERE day = DATE '2026-02-03' AND id > 2900";
    let found = plan(&format!("EXPLAIN {narrow}"));
    for part in [
        "manifests=1/2",
        "files=1/10",
        "rows=200",
        "pruned=[day = 2026-02-03: 9 files, id > 2900: 5 files]",
    ] {
        assert!(found.contains(part), "{part}: {found}");
    }
    let all = plan("EXPLAIN SELECT * FROM cleaned.t");
    assert!(
        all.contains("manifests=2/2, files=10/10, rows=2000") && !all.contains("pruned="),
        "{all}"
    );
    let analyzed = lake.rows(&format!("EXPLAIN ANALYZE {narrow}"));
    assert!(analyzed[0][1].as_str().unwrap().contains("page_index_rows_pruned"), "{analyzed:?}");
    let insert = "EXPLAIN ANALYZE INSERT INTO cleaned.t VALUES (1, NULL)";
    assert!(lake.fails(&["sql", "-c", insert], 1).contains("would change rows"));
    let storage = &analyzed[1];
    assert_eq!(storage[0], "Storage");
    let said = storage[1].as_str().unwrap();
    let data: u64 = said
        .lines()
        .find_map(|it| it.strip_prefix("data: ")?.split(' ').next()?.parse().ok())
        .unwrap();
    assert!(said.contains("manifests: ") && data >= 1, "{said}");
}

#[test]
fn statistics_are_of_the_columns_that_the_snapshot_has() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.\"Odd Name\" (id INT, \"Id\" INT, v STRING)");
    lake.exec("INSERT INTO cleaned.\"Odd Name\" VALUES (1, 7, 'a'), (2, 7, 'b'), (3, 7, 'c')");
    lake.exec("ALTER TABLE cleaned.\"Odd Name\" DROP COLUMN v");
    lake.exec("ALTER TABLE cleaned.\"Odd Name\" ADD COLUMN v INT");
    lake.exec("ALTER TABLE cleaned.\"Odd Name\" RENAME COLUMN id TO number");
    lake.exec("CALL system.compute_table_stats('cleaned.Odd Name')");
    let one =
        "CALL system.compute_table_stats(table => 'cleaned.Odd Name', columns => array('id'))";
    lake.exec(one);
    let files = lake.rows("SELECT file FROM cleaned.\"Odd Name\".metadata_log_entries ORDER BY timestamp DESC, file DESC LIMIT 1");
    let path = files[0][0].as_str().unwrap().trim_start_matches("file://").to_owned();
    let metadata: serde_json::Value =
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let blobs = &metadata["statistics"][0]["blob-metadata"];
    assert_eq!(blobs.as_array().unwrap().len(), 1, "{blobs}");
    assert_eq!((&blobs[0]["fields"], &blobs[0]["properties"]["ndv"]), (&json!([1]), &json!("3")));
}
