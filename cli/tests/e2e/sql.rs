//! SQL: tables, types, partitions, evolution, time travel, output.

use serde_json::{Value, json};

use crate::lake::Lake;

#[test]
fn every_type_comes_back_as_it_went_in() {
    let lake = Lake::new();
    lake.exec(
        "CREATE TABLE cleaned.t (b BOOLEAN, i INT, l BIGINT, f FLOAT, d DOUBLE, dec DECIMAL(38, 10), \
         day DATE, tm TIME, ts TIMESTAMP, tz TIMESTAMPTZ, s STRING, u UUID, fx FIXED(4), bi BINARY, \
         a ARRAY<INT>, m MAP<STRING, BIGINT>, st STRUCT<x: INT, y: ARRAY<STRING>>)",
    );
    lake.exec(
        "INSERT INTO cleaned.t SELECT true, -2147483648, 9223372036854775807, 1.5, -0.25, \
         1234567890.0123456789, DATE '1969-12-31', TIME '23:59:59.999999', \
         TIMESTAMP '9999-12-31 23:59:59.999999', TIMESTAMPTZ '1600-01-01 00:00:00+00:00', 'it''s', \
         CAST('f79c3e09-677c-4bbd-a479-3f349cb785e7' AS UUID), X'00010203', X'ff', [1, NULL], \
         MAP(['k'], [7]), named_struct('x', 1, 'y', ['a'])",
    );
    lake.exec("INSERT INTO cleaned.t (i) VALUES (1)");
    let rows = lake.rows("SELECT * FROM cleaned.t ORDER BY i");
    assert_eq!(
        rows[0],
        json!([
            true, -2147483648_i64, 9223372036854775807_i64, 1.5, -0.25, 1234567890.0123458,
            "1969-12-31", "23:59:59.999999", "9999-12-31T23:59:59.999999", "1600-01-01T00:00:00Z",
            "it's", "f79c3e09-677c-4bbd-a479-3f349cb785e7", "0x00010203", "0xff", [1, null],
            [["k", 7]], {"x": 1, "y": ["a"]}
        ])
        .as_array()
        .cloned()
        .unwrap()
    );
    assert!(rows[1].iter().enumerate().all(|(place, it)| (place == 1) != it.is_null()));
    let found = lake.rows(
        "SELECT i FROM cleaned.t WHERE u = 'f79c3e09-677c-4bbd-a479-3f349cb785e7' AND m['k'] = 7 \
         AND fx = X'00010203' AND ts = TIMESTAMP '9999-12-31 23:59:59.999999'",
    );
    assert_eq!(found.len(), 1);
}

#[test]
fn partitions_of_any_text_have_a_folder() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.p (id INT, s STRING) PARTITIONED BY (s)");
    lake.exec(
        "INSERT INTO cleaned.p VALUES (1, repeat('long ', 200)), (2, repeat('long ', 200) || 'er'), \
         (3, repeat('ü/%', 100)), (4, '../../x'), (5, ''), (6, NULL), (7, '.'), (8, 'a=b&c d')",
    );
    for (id, text) in [
        (1, "repeat('long ', 200)"),
        (2, "repeat('long ', 200) || 'er'"),
        (3, "repeat('ü/%', 100)"),
        (4, "'../../x'"),
        (5, "''"),
        (7, "'.'"),
        (8, "'a=b&c d'"),
    ] {
        assert_eq!(lake.rows(&format!("SELECT id FROM cleaned.p WHERE s = {text}")), [[json!(id)]]);
    }
    let files = lake.rows("SELECT file_path FROM cleaned.p.files");
    let data = lake.warehouse().join("cleaned/p/data").canonicalize().unwrap();
    for file in &files {
        let path = file[0].as_str().unwrap().strip_prefix("file://").unwrap();
        let path = std::path::Path::new(path).canonicalize().unwrap();
        assert!(path.starts_with(&data), "{path:?}");
    }
    assert_eq!(files.len(), 8);
}

#[test]
fn t86_nanoseconds_before_1970_are_found_in_their_bucket() {
    let lake = Lake::new();
    lake.exec(
        "CREATE TABLE cleaned.n (id INT, n TIMESTAMP(9)) PARTITIONED BY (bucket(1000, n)) \
         TBLPROPERTIES ('format-version' = '3')",
    );
    let times =
        ["1969-12-31 23:59:59.999999500", "1969-12-31 23:59:59.999999", "1970-01-01 00:00:00"];
    for (id, time) in times.iter().enumerate() {
        lake.exec(&format!("INSERT INTO cleaned.n VALUES ({id}, TIMESTAMP '{time}')"));
    }
    for (id, time) in times.iter().enumerate() {
        let sql = format!("SELECT id FROM cleaned.n WHERE n = TIMESTAMP '{time}'");
        assert_eq!(lake.rows(&sql), [[json!(id)]], "{time}");
    }
    let partitions = lake.value("SELECT count(*) FROM cleaned.n.partitions");
    assert_eq!(partitions, json!(2), "the first two are of one microsecond");
}

#[test]
fn a_scan_by_path_reads_the_past_too() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t (id INT)");
    lake.exec("INSERT INTO cleaned.t VALUES (1)");
    let first = lake.value("SELECT snapshot_id FROM cleaned.t.snapshots");
    lake.exec("INSERT INTO cleaned.t VALUES (2), (3)");
    let path = lake.warehouse().join("cleaned/t").display().to_string();
    let count =
        |more: &str| lake.value(&format!("SELECT count(*) FROM iceberg_scan('{path}'{more})"));
    assert_eq!(count(""), json!(3));
    assert_eq!(count(&format!(", snapshot_id => {first}")), json!(1));
    let sql = format!("SELECT * FROM iceberg_scan('{path}', snapshot_id => 7)");
    let error = lake.fails(&["sql", "-c", &sql], 1);
    assert!(error.contains("no snapshot") && error.contains('7'), "{error}");
}

#[test]
fn partitions_change_where_rows_lie_and_never_what_is_found() {
    let lake = Lake::new();
    let columns = "(id INT, s STRING, ts TIMESTAMP, v DOUBLE)";
    lake.exec(&format!("CREATE TABLE cleaned.plain {columns}"));
    let specs =
        ["s", "bucket(4, id)", "truncate(3, s)", "year(ts)", "month(ts)", "day(ts)", "hour(ts)"];
    let rows = "VALUES (1, 'apple pie', TIMESTAMP '1969-12-31 23:30:00', 1.5), \
        (2, 'apple', TIMESTAMP '1970-01-01 00:00:00', CAST('NaN' AS DOUBLE)), (3, NULL, NULL, -0.0), \
        (-4, 'banana split with cream', TIMESTAMP '2026-11-22 16:00:00', 0.0), \
        (5, 'banana split with cheese', TIMESTAMP '1900-02-28 01:00:00', -7.25), (NULL, '', NULL, NULL)";
    lake.exec(&format!("INSERT INTO cleaned.plain {rows}"));
    for (number, spec) in specs.iter().enumerate() {
        let name = format!("cleaned.p{number}");
        lake.exec(&format!("CREATE TABLE {name} {columns} PARTITIONED BY ({spec})"));
        lake.exec(&format!("INSERT INTO {name} {rows}"));
    }
    for filter in [
        "id = 1",
        "id IN (2, -4)",
        "id <> 5",
        "id > 2",
        "id IS NULL",
        "s = 'apple'",
        "(s LIKE '%pie') = false",
        "(s LIKE 'apple%') IS NOT TRUE",
        "NOT (s LIKE 'apple%' AND id = 1)",
        "s NOT LIKE 'apple%'",
        "s LIKE 'a%e'",
        "s LIKE 'apple%'",
        "s > 'banana split with ch'",
        "s IS NOT NULL",
        "s = ''",
        "ts < TIMESTAMP '1970-01-01 00:00:00'",
        "ts >= TIMESTAMP '1969-12-31 23:00:00'",
        "ts = TIMESTAMP '2026-11-22 16:00:00'",
        "ts BETWEEN TIMESTAMP '1900-01-01 00:00:00' AND TIMESTAMP '1900-12-31 00:00:00'",
        "v > 1",
        "v <> 1.5",
        "v < 0.0",
        "NOT (v = 1.5)",
        "v IS NULL",
    ] {
        let query = |table: &str| {
            lake.rows(&format!("SELECT id, s, ts FROM {table} WHERE {filter} ORDER BY id, s"))
        };
        let wanted = query("cleaned.plain");
        for (number, spec) in specs.iter().enumerate() {
            assert_eq!(query(&format!("cleaned.p{number}")), wanted, "{spec}: {filter}");
        }
    }
    let parts = lake.rows("SELECT partition.ts_day FROM cleaned.p5.partitions ORDER BY 1");
    assert!(parts.contains(&vec![json!("1969-12-31")]), "{parts:?}");
}

#[test]
fn t115_columns_are_found_by_id_after_any_change_of_names() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t (a INT, b STRING, c FLOAT, s STRUCT<x: INT, y: STRING>)");
    lake.exec("INSERT INTO cleaned.t VALUES (1, 'one', 1.5, named_struct('x', 10, 'y', 'ten'))");
    for change in [
        "RENAME COLUMN a TO tmp",
        "RENAME COLUMN b TO a",
        "RENAME COLUMN tmp TO b",
        "ALTER COLUMN b TYPE BIGINT",
        "ALTER COLUMN c TYPE DOUBLE",
        "ADD COLUMN d DATE COMMENT 'new'",
        "ADD COLUMN s.z BIGINT",
        "RENAME COLUMN s.x TO w",
        "DROP COLUMN s.y",
        "ADD COLUMN s.y INT",
    ] {
        lake.exec(&format!("ALTER TABLE cleaned.t {change}"));
    }
    lake.exec(
        "INSERT INTO cleaned.t (b, a, d, s) VALUES (9000000000, 'two', DATE '2026-01-01', \
         named_struct('w', 20, 'z', CAST(21 AS BIGINT), 'y', 22))",
    );
    let rows = lake.rows("SELECT b, a, c, d, s FROM cleaned.t ORDER BY b");
    assert_eq!(
        rows,
        [
            json!([1, "one", 1.5, null, {"w": 10, "z": null, "y": null}]),
            json!([9000000000_i64, "two", null, "2026-01-01", {"w": 20, "z": 21, "y": 22}]),
        ]
        .map(|it| it.as_array().cloned().unwrap())
    );
    assert_eq!(lake.value("SELECT count(*) FROM cleaned.t WHERE a = 'one' AND b < 5"), json!(1));
    // Dropped and added again, a name is another column; its old values do not come back.
    lake.exec("ALTER TABLE cleaned.t DROP COLUMN a");
    lake.exec("ALTER TABLE cleaned.t ADD COLUMN a BINARY");
    assert_eq!(lake.value("SELECT count(a) FROM cleaned.t"), json!(0));
    let error = lake.fails(&["sql", "-c", "ALTER TABLE cleaned.t ALTER COLUMN b TYPE INT"], 1);
    assert!(error.contains("`b` is long and cannot become int"), "{error}");
}

#[test]
fn the_past_is_read_by_id_time_and_name_with_its_columns() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t (id INT)");
    lake.exec("INSERT INTO cleaned.t VALUES (1)");
    let first = lake.value("SELECT snapshot_id FROM cleaned.t.snapshots").to_string();
    let then = lake.value("SELECT CAST(committed_at AS STRING) FROM cleaned.t.snapshots");
    std::thread::sleep(std::time::Duration::from_millis(20));
    lake.exec("ALTER TABLE cleaned.t RENAME COLUMN id TO key");
    lake.exec("INSERT INTO cleaned.t VALUES (2)");
    for (clause, count) in [
        (format!("FOR VERSION AS OF {first}"), 1),
        (format!("VERSION AS OF {first}"), 1),
        ("FOR VERSION AS OF 'main'".to_owned(), 2),
        (format!("FOR SYSTEM_TIME AS OF TIMESTAMPTZ '{}'", then.as_str().unwrap()), 1),
        (format!("TIMESTAMP AS OF '{}'", then.as_str().unwrap()), 1),
        ("FOR SYSTEM_TIME AS OF now() + INTERVAL '1' DAY".to_owned(), 2),
    ] {
        assert_eq!(
            lake.value(&format!("SELECT count(*) FROM cleaned.t {clause}")),
            json!(count),
            "{clause}"
        );
    }
    // A snapshot has the names of its time; two versions can be joined (trap T-80).
    let joined = format!(
        "SELECT now.key, old.id FROM cleaned.t now LEFT JOIN cleaned.t FOR VERSION AS OF {first} AS old \
         ON now.key = old.id ORDER BY 1"
    );
    assert_eq!(lake.rows(&joined), [vec![json!(1), json!(1)], vec![json!(2), Value::Null]]);
    let error = lake.fails(
        &["sql", "-c", "SELECT * FROM cleaned.t FOR SYSTEM_TIME AS OF DATE '2000-01-01'"],
        1,
    );
    assert!(error.contains("had no snapshot at 2000-01-01") && error.contains(&first), "{error}");
    lake.fails(&["sql", "-c", "SELECT * FROM cleaned.t VERSION AS OF 7"], 1);
    lake.fails(&["sql", "-c", "SELECT * FROM cleaned.t VERSION AS OF 'nope'"], 1);
}

#[test]
fn metadata_tables_tell_what_is_there() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t (id INT, s STRING) PARTITIONED BY (s)");
    lake.exec("INSERT INTO cleaned.t VALUES (1, 'a'), (2, 'b'), (3, 'b')");
    lake.exec("INSERT INTO cleaned.t VALUES (4, 'a')");
    let count = |table: &str| lake.value(&format!("SELECT count(*) FROM cleaned.t.{table}"));
    for (table, rows) in [
        ("snapshots", 2),
        ("history", 2),
        ("files", 3),
        ("manifests", 2),
        ("refs", 1),
        ("partitions", 2),
        ("data_files", 3),
        ("delete_files", 0),
        ("metadata_log_entries", 3),
    ] {
        assert_eq!(count(table), json!(rows), "{table}");
    }
    let first =
        lake.value("SELECT snapshot_id FROM cleaned.t.snapshots ORDER BY committed_at LIMIT 1");
    let then = format!("SELECT sum(record_count) FROM cleaned.t.files FOR VERSION AS OF {first}");
    assert_eq!(lake.value(&then), json!(3));

    let text = lake.ok(&["history", "cleaned.t"]);
    assert!(text.contains("4 rows in 3 files, 2 snapshots") && text.contains("+3"), "{text}");
    let history: Value =
        serde_json::from_str(&lake.ok(&["history", "cleaned.t", "--format", "json"])).unwrap();
    assert_eq!(history[0]["summary"]["added-records"], json!("1"));
}

#[test]
fn a_table_can_begin_with_a_query_and_be_sorted_and_shown() {
    let lake = Lake::new();
    lake.exec(
        "CREATE TABLE cleaned.n (id BIGINT NOT NULL COMMENT 'key', s STRING) \
        PARTITIONED BY (bucket(2, id)) ORDERED BY (s DESC) TBLPROPERTIES ('format-version' = '3')",
    );
    let shown = lake.value("SHOW CREATE TABLE cleaned.n").as_str().unwrap().to_owned();
    for part in [
        "id bigint NOT NULL COMMENT 'key'",
        "bucket(2, id)",
        "s DESC NULLS LAST",
        "'format-version' = '3'",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    lake.exec(
        "INSERT INTO cleaned.n SELECT value, CAST(value AS STRING) FROM generate_series(1, 1000)",
    );
    lake.exec("CREATE TABLE curated.c AS SELECT s, id % 10 AS k FROM cleaned.n");
    assert_eq!(lake.rows("SELECT count(*), max(k) FROM curated.c")[0], [json!(1000), json!(9)]);
    assert_eq!(lake.value("SELECT DISTINCT sort_order_id FROM cleaned.n.files"), json!(1));
    lake.exec("DROP TABLE curated.c");
    lake.fails(&["sql", "-c", "SELECT * FROM curated.c"], 1);
    lake.exec("CREATE NAMESPACE IF NOT EXISTS lab");
    lake.exec("ALTER TABLE cleaned.n RENAME TO lab.n");
    assert_eq!(lake.value("SELECT count(*) FROM lab.n"), json!(1000));
}

#[test]
fn a_folder_is_a_table_also_when_it_was_moved() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t AS SELECT 1 AS id");
    let table = lake.warehouse().join("cleaned/t");
    let scan =
        |path: &str, rest: &str| format!("SELECT count(*) FROM iceberg_scan('{path}'{rest})");
    assert_eq!(lake.value(&scan(&table.display().to_string(), "")), json!(1));
    let moved = lake.folder().join("moved");
    std::fs::rename(&table, &moved).unwrap();
    let path = moved.display().to_string();
    lake.fails(&["sql", "-c", &format!("SELECT * FROM iceberg_scan('{path}')")], 1);
    assert_eq!(lake.value(&scan(&path, ", allow_moved_paths => true")), json!(1));
}

#[test]
fn results_are_written_as_asked_for() {
    let lake = Lake::new();
    let query = "SELECT 1 AS n, 'a,\"b' AS s UNION ALL SELECT 2, NULL ORDER BY 1";
    let out = |format: &str| lake.ok(&["sql", "--format", format, "-c", query]);
    assert_eq!(out("csv"), "n,s\n1,\"a,\"\"b\"\n2,\n");
    assert_eq!(out("ndjson"), "{\"n\": 1, \"s\": \"a,\\\"b\"}\n{\"n\": 2, \"s\": null}\n");
    assert_eq!(out("markdown"), "| n | s |\n| ---: | --- |\n| 1 | a,\"b |\n| 2 |  |\n");
    assert_eq!(out("table"), " n |  s\n---+------\n 1 | a,\"b\n 2 |\n(2 rows)\n");
    let file = lake.file("q.sql", "SELECT 1; -- one\nSELECT nope;\nSELECT 3;");
    let output = lake.run(&["sql", "--format", "csv", "-f", &file]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n1\n", "stops at the first error");
    assert_eq!(output.status.code(), Some(1));
}
