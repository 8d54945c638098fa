//! Answers that are easily wrong: nulls, floats beside decimals, aggregates beside each other, subqueries
//! wherever they stand.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::lake::Lake;

fn csv(lake: &Lake, sql: &str) -> String {
    let text = lake.ok(&["sql", "--format", "csv", "-c", sql]);
    text.lines().skip(1).collect::<Vec<_>>().join(" ")
}

#[test]
fn aggregates_beside_each_other_do_not_hide_rows() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.q (v STRING, k INT)");
    // Too long for the metadata to know the greatest.
    for (value, k) in [("g", 1), ("", 2), ("", 3), ("a", 4), ("h", 5), ("c", 6)] {
        let value = match value {
            "" => "NULL".to_owned(),
            letter => format!("'{}'", letter.repeat(20)),
        };
        lake.exec(&format!("INSERT INTO cleaned.q VALUES ({value}, {k})"));
    }
    let both = "SELECT left(min(v), 1), left(max(v), 1) FROM cleaned.q";
    let filtered =
        "SELECT max(k) FILTER (WHERE v < 'b'), min(k) FILTER (WHERE v > 'd') FROM cleaned.q";
    for _ in 0..10 {
        assert_eq!(csv(&lake, both), "a,h");
        assert_eq!(csv(&lake, filtered), "4,1");
    }
}

#[test]
fn floats_beside_decimals_stay_floats() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.p (id INT, price DOUBLE)");
    lake.exec("INSERT INTO cleaned.p VALUES (1, 1.5), (2, 2.5)");
    for (sql, wanted) in [
        ("SELECT sum(price * 1.2) FROM cleaned.p", "4.8"),
        ("SELECT count(*) FILTER (WHERE price > 1.5) FROM cleaned.p", "1"),
        ("SELECT price > 2.0, count(*) FROM cleaned.p GROUP BY 1 ORDER BY 1", "false,1 true,1"),
        ("SELECT sum(price) FROM cleaned.p GROUP BY id HAVING sum(price) > 1.6", "2.5"),
        ("SELECT rank() OVER (ORDER BY price * 1.5) FROM cleaned.p ORDER BY 1", "1 2"),
        ("SELECT coalesce(1e-20, 0.0)", "1e-20"),
        ("SELECT coalesce(CAST('NaN' AS DOUBLE), 0.0)", "NaN"),
        ("SELECT CASE WHEN true THEN 1e300 ELSE 0.5 END", "1e300"),
        ("SELECT 1e-20 = CAST(0 AS DECIMAL(10, 2))", "false"),
        ("SELECT 1e-20 IN (0.0, 1.5)", "false"),
        ("SELECT greatest(1e-20, 0.0)", "1e-20"),
        ("SELECT x FROM (SELECT 1e-20 AS x UNION ALL SELECT 0.5) ORDER BY 1", "1e-20 0.5"),
        ("SELECT x FROM (SELECT 0.5 AS x UNION ALL SELECT 1e-20) ORDER BY 1", "1e-20 0.5"),
        ("SELECT 0.5 AS x INTERSECT SELECT 5e-1", "0.5"),
        ("SELECT 1.0 AS x EXCEPT SELECT 1e-20", "1.0"),
        ("SELECT 0.0 AS x EXCEPT SELECT 1e-20", "0.0"),
        ("SELECT count(*) FROM cleaned.p JOIN (SELECT 1.5 AS x) ON price = x", "1"),
        ("SELECT power(2.5, 2), power(1.1, 10)", "6.25,2.5937424601000023"),
        ("SELECT CAST(X'00ff' AS BINARY) = X'00ff'", "true"),
        ("SELECT x FROM (VALUES (1e-20), (0.5), (NULL), (2)) v(x)", "1e-20 0.5  2.0"),
        ("SELECT x * 2 FROM (VALUES (-1.5), ('inf'::DOUBLE)) v(x)", "-3.0 Infinity"),
        (
            "SELECT x FROM (VALUES (CAST(1e0 AS DECIMAL(30, 15))), (1.5)) v(x)",
            "1.000000000000000 1.500000000000000",
        ),
    ] {
        assert_eq!(csv(&lake, sql), wanted, "{sql}");
    }
    lake.exec("CREATE TABLE cleaned.made AS SELECT coalesce(price, 0.0) AS x FROM cleaned.p");
    let kind = lake.rows("DESCRIBE cleaned.made");
    assert_eq!(kind[0][1], json!("double"));
    // Every row of the file is near zero, and none is zero.
    lake.exec("CREATE TABLE cleaned.near AS SELECT 1e-20 AS x");
    lake.exec("DELETE FROM cleaned.near WHERE x = 0.0");
    assert_eq!(lake.value("SELECT count(*) FROM cleaned.near"), json!(1));
}

#[test]
fn a_sum_over_a_moving_frame_does_not_wrap() {
    let lake = Lake::new();
    let sum = "SELECT sum(x) OVER (ORDER BY x ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM \
               (VALUES (9223372036854775807), (1), (NULL)) t(x) WHERE x IS NULL OR x ";
    let error = lake.fails(&["sql", "-c", &format!("{sql} > 0", sql = sum)], 1);
    assert!(error.contains("too large for bigint"), "{error}");
    assert_eq!(csv(&lake, &format!("{sum} = 1")), "1 1");
}

#[test]
fn sums_of_decimals_do_not_wrap() {
    let lake = Lake::new();
    let rows = "(VALUES (CAST('90000000000000000000000000000000000000' AS DECIMAL(38, 0)), 1), \
                (CAST('90000000000000000000000000000000000000' AS DECIMAL(38, 0)), 2)) t(x, k)";
    for sum in
        ["sum(x) FROM", "sum(x), count(k) FROM", "sum(x) OVER (ORDER BY k) FROM", "sum(x + 0) FROM"]
    {
        let error = lake.fails(&["sql", "-c", &format!("SELECT {sum} {rows}")], 1);
        assert!(error.contains("more than the 38 digits"), "{sum}: {error}");
    }
    let error =
        lake.fails(&["sql", "-c", &format!("SELECT k % 1, sum(x) FROM {rows} GROUP BY 1")], 1);
    assert!(error.contains("more than the 38 digits"), "{error}");
    let same = "sum(x) OVER (ORDER BY k ROWS BETWEEN CURRENT ROW AND CURRENT ROW) = x";
    assert_eq!(csv(&lake, &format!("SELECT {same} FROM {rows}")), "true true");
    assert_eq!(
        csv(&lake, &format!("SELECT k, sum(x) = max(x) FROM {rows} GROUP BY k ORDER BY 1")),
        "1,true 2,true"
    );
}

#[test]
fn decimals_have_no_more_than_38_digits() {
    let lake = Lake::new();
    let most = "CAST('99999999999999999999999999999999999999' AS DECIMAL(38, 0))";
    lake.exec(&format!("CREATE TABLE cleaned.most AS SELECT {most} AS d"));
    for sql in [
        format!("SELECT {most} + 1"),
        format!("SELECT -{most} - 1"),
        "SELECT d + 1 FROM cleaned.most".to_owned(),
        "SELECT d FROM cleaned.most WHERE d * 1.5 > 0".to_owned(),
        "SELECT sum(d + d) FROM cleaned.most".to_owned(),
        "INSERT INTO cleaned.most SELECT d + 1 FROM cleaned.most".to_owned(),
        "UPDATE cleaned.most SET d = d + 1".to_owned(),
    ] {
        let error = lake.fails(&["sql", "-c", &sql], 1);
        assert!(error.contains("overflow"), "{sql}: {error}");
    }
    let rest = "SELECT d - 1, d + 0, d * 1 FROM cleaned.most";
    let of = |last: u8| format!("9999999999999999999999999999999999999{last}");
    assert_eq!(csv(&lake, rest), [of(8), of(9), of(9)].join(","));
}

#[test]
fn times_of_any_year_are_put_into_bins() {
    let lake = Lake::new();
    for (sql, wanted) in [
        ("SELECT date_trunc('month', TIMESTAMP '9999-12-31 10:00:00')", "9999-12-01 00:00:00"),
        ("SELECT date_trunc('week', DATE '3000-01-05')", "2999-12-30 00:00:00"),
        ("SELECT date_trunc('quarter', TIMESTAMP '0001-05-05 01:02:03')", "0001-04-01 00:00:00"),
        ("SELECT date_trunc('year', TIMESTAMPTZ '0500-06-01 00:00:00Z')", "0500-01-01 00:00:00Z"),
        (
            "SELECT date_trunc('millisecond', TIMESTAMP '1969-12-31 23:59:59.999900')",
            "1969-12-31 23:59:59.999",
        ),
        ("SELECT date_trunc('day', NULL) IS NULL", "true"),
        (
            "SELECT date_trunc('month', t) FROM (VALUES (TIMESTAMP '2026-11-26 01:00:00'), (NULL), (TIMESTAMP '2500-02-28 01:00:00')) v(t)",
            "2026-11-01 00:00:00  2500-02-01 00:00:00",
        ),
        (
            "SELECT date_bin(INTERVAL '1 hour', TIMESTAMP '9999-12-31 10:30:00')",
            "9999-12-31 10:00:00",
        ),
        (
            "SELECT date_bin(INTERVAL '1 month', TIMESTAMP '9999-12-31 10:30:00')",
            "9999-12-01 00:00:00",
        ),
        (
            "SELECT date_bin(INTERVAL '15 minutes', TIMESTAMP '0001-01-01 00:31:00', TIMESTAMP '0001-01-01 00:05:00')",
            "0001-01-01 00:20:00",
        ),
        (
            "SELECT date_bin(INTERVAL '3 months', TIMESTAMP '1900-02-10 00:00:00', TIMESTAMP '2000-01-15 00:00:00')",
            "1900-01-15 00:00:00",
        ),
        ("SELECT date_bin(INTERVAL '1 day', DATE '2026-11-26')", "2026-11-26 00:00:00"),
        (
            "SELECT date_bin(INTERVAL '1 hour', TIMESTAMPTZ '2026-11-26 10:02:00Z', '2026-01-01 00:03:00')",
            "2026-11-26 09:03:00Z",
        ),
        ("SELECT date_bin(INTERVAL '1 hour', CAST(NULL AS TIMESTAMP)) IS NULL", "true"),
    ] {
        assert_eq!(csv(&lake, sql), wanted, "{sql}");
    }
    let error = lake.fails(&["sql", "-c", "SELECT date_bin(INTERVAL '0 hours', now())"], 1);
    assert!(error.contains("not positive"), "{error}");
}

#[test]
fn fields_that_are_never_null_are_null_where_their_struct_is() {
    let lake = Lake::new();
    lake.exec(
        "CREATE TABLE cleaned.s (id INT, s STRUCT<a INT NOT NULL, t STRUCT<b INT NOT NULL> NOT NULL>)",
    );
    lake.exec(
        "INSERT INTO cleaned.s VALUES (1, named_struct('a', 0, 't', named_struct('b', 7))), (2, NULL)",
    );
    assert_eq!(csv(&lake, "SELECT id, s.a, s['t']['b'] FROM cleaned.s ORDER BY 1"), "1,0,7 2,,");
    assert_eq!(csv(&lake, "SELECT count(s.a), sum(s['t']['b']) FROM cleaned.s"), "1,7");
    assert_eq!(csv(&lake, "SELECT id FROM cleaned.s WHERE s.a = 0"), "1");
    assert_eq!(csv(&lake, "SELECT id FROM cleaned.s WHERE s['t']['b'] IS NULL"), "2");
    lake.exec("UPDATE cleaned.s SET id = id + 1 WHERE s.a IS NULL");
    assert_eq!(csv(&lake, "SELECT id FROM cleaned.s ORDER BY 1"), "1 3");
}

/// Rows of `cleaned.t` that depend on those of `cleaned.s` by order.
fn ordered(lake: &Lake) {
    lake.exec("CREATE TABLE cleaned.t (id INT, k INT, p STRING)");
    lake.exec("INSERT INTO cleaned.t VALUES (1, 10, 'a'), (2, 20, 'b'), (3, NULL, 'a'), (4, 20, NULL), (5, 5, 'c')");
    lake.exec("CREATE TABLE cleaned.s (k INT, b INT, p STRING)");
    lake.exec(
        "INSERT INTO cleaned.s VALUES (5, 1, 'a'), (10, 2, 'b'), (15, 3, 'a'), (20, 4, NULL), (NULL, 5, 'c'), (20, 6, 'a')",
    );
}

#[test]
fn queries_depend_on_their_rows_by_any_comparison() {
    let lake = Lake::new();
    ordered(&lake);
    for (value, wanted) in [
        ("(SELECT count(*) FROM cleaned.s s WHERE s.k < t.k)", "1,1 2,3 3,0 4,3 5,0"),
        ("(SELECT max(b) FROM cleaned.s s WHERE s.k <= t.k)", "1,2 2,6 3, 4,6 5,1"),
        ("(SELECT sum(b) FROM cleaned.s s WHERE s.k <> t.k AND s.p = t.p)", "1,10 2,2 3, 4, 5,"),
        (
            "(SELECT b FROM cleaned.s s WHERE s.k <= t.k ORDER BY s.k DESC, b DESC LIMIT 1)",
            "1,2 2,6 3, 4,6 5,1",
        ),
        (
            "EXISTS (SELECT 1 FROM cleaned.s s WHERE s.k > t.k)",
            "1,true 2,false 3,false 4,false 5,true",
        ),
        (
            "t.k NOT IN (SELECT k FROM cleaned.s s WHERE s.b < t.id)",
            "1,true 2,true 3, 4,true 5,false",
        ),
        ("(SELECT sum(b * t.id) + t.id FROM cleaned.s s WHERE s.k < t.k)", "1,2 2,14 3, 4,28 5,"),
        (
            "(SELECT count(*) FROM (SELECT p, sum(b) x FROM cleaned.s s WHERE s.k < t.k GROUP BY p) g WHERE g.x > 1)",
            "1,0 2,2 3,0 4,2 5,0",
        ),
        (
            "(SELECT count(*) FROM cleaned.s s JOIN cleaned.t u ON s.k = u.k WHERE s.b < t.id)",
            "1,0 2,1 3,2 4,2 5,4",
        ),
        (
            "(SELECT count(*) FROM cleaned.s s WHERE s.k BETWEEN t.k - 5 AND t.k + 5)",
            "1,3 2,3 3,0 4,3 5,2",
        ),
    ] {
        let sql = format!("SELECT id, {value} FROM cleaned.t t ORDER BY id");
        assert_eq!(csv(&lake, &sql), wanted, "{value}");
    }
    // Two of them, one in the condition: some partitions have no row to ask for.
    let two = "SELECT id, (SELECT count(*) FROM cleaned.s s WHERE s.k < t.k) FROM cleaned.t t \
               WHERE id > (SELECT count(*) FROM cleaned.s s WHERE s.k > t.k) ORDER BY 1";
    assert_eq!(csv(&lake, two), "2,3 3,0 4,3 5,0");
    let grouped = "SELECT p, sum((SELECT count(*) FROM cleaned.s s WHERE s.k < t.k)) FROM cleaned.t t GROUP BY 1 ORDER BY 1";
    assert_eq!(csv(&lake, grouped), "a,1 b,3 c,0 ,3");
    lake.exec(
        "UPDATE cleaned.t t SET id = id + 10 * (SELECT count(*) FROM cleaned.s s WHERE s.k < t.k) \
               WHERE id > (SELECT count(*) FROM cleaned.s s WHERE s.k > t.k)",
    );
    assert_eq!(csv(&lake, "SELECT id FROM cleaned.t ORDER BY 1"), "1 3 5 32 34");
    lake.exec(
        "DELETE FROM cleaned.t t WHERE (SELECT count(*) FROM cleaned.s s WHERE s.k > t.k) = 0",
    );
    assert_eq!(csv(&lake, "SELECT id FROM cleaned.t ORDER BY 1"), "1 5");
}

#[test]
fn queries_stand_in_the_conditions_of_joins() {
    let lake = Lake::new();
    ordered(&lake);
    let id = "(SELECT id FROM cleaned.t)";
    for (join, wanted) in [
        (format!("JOIN cleaned.s s ON t.k = s.k AND s.b IN {id}"), "1,2 2,4 4,4 5,1"),
        (format!("LEFT JOIN cleaned.s s ON t.k = s.k AND s.b IN {id}"), "1,2 2,4 3, 4,4 5,1"),
        (format!("LEFT JOIN cleaned.s s ON t.k = s.k AND t.id + 3 IN {id}"), "1,2 2,4 2,6 3, 4, 5,"),
        (format!("LEFT JOIN cleaned.s s ON t.k = s.k AND t.id + 3 NOT IN {id}"), "1, 2, 3, 4,4 4,6 5,1"),
        (
            "RIGHT JOIN cleaned.s s ON t.k = s.k AND t.id > (SELECT min(id) FROM cleaned.t u WHERE u.k <= t.k)".to_owned(),
            "2,4 2,6 4,4 4,6 ,1 ,2 ,3 ,5",
        ),
    ] {
        let sql = format!("SELECT t.id, s.b FROM cleaned.t t {join} ORDER BY 1, 2");
        assert_eq!(csv(&lake, &sql), wanted, "{join}");
    }
    lake.exec(&format!(
        "MERGE INTO cleaned.t USING cleaned.s AS s ON t.k = s.k AND s.b IN {id} \
         WHEN MATCHED THEN UPDATE SET p = 'm' WHEN NOT MATCHED THEN INSERT (id, k) VALUES (s.b + 50, s.k)"
    ));
    assert_eq!(
        csv(&lake, "SELECT id, p FROM cleaned.t ORDER BY 1"),
        "1,m 2,m 3,a 4,m 5,m 53, 55, 56,"
    );
}

#[test]
fn lists_beside_each_other_leave_null_as_it_is() {
    let lake = Lake::new();
    lake.exec(
        "CREATE TABLE cleaned.k AS SELECT * FROM (VALUES (1, NULL), (2, 6), (3, 2), (4, 9)) t(id, k)",
    );
    for (condition, wanted) in [
        ("k NOT IN (6, 4) OR k NOT IN (2, -2)", "2 3 4"),
        ("NOT (k IN (6, 4) AND k IN (2, -2))", "2 3 4"),
        ("NOT ((k = 6 OR k = 4) AND (k = 2 OR k = -2))", "2 3 4"),
        ("k NOT IN (NULL, 6, -2) AND k IN (NULL, 4, 2)", ""),
        ("k IN (6, id) OR k = 2", "2 3"),
        ("k IN (id) AND k IN (6)", ""),
        ("(k IN (6) AND k NOT IN (6, 2)) IS NULL", "1"),
    ] {
        let found = csv(&lake, &format!("SELECT id FROM cleaned.k WHERE {condition} ORDER BY 1"));
        assert_eq!(found, wanted, "{condition}");
    }
}

/// Rows of `cleaned.t` and `cleaned.s`, which has a null.
fn two_tables(lake: &Lake) {
    lake.ok(&[
        "sql",
        "-c",
        "DROP TABLE IF EXISTS cleaned.t; DROP TABLE IF EXISTS cleaned.s;
         CREATE TABLE cleaned.t (id INT, v STRING, n INT, p STRING) PARTITIONED BY (p);
         INSERT INTO cleaned.t VALUES (1,'a',10,'x'),(2,'b',20,'x'),(3,'c',30,'y'),(4,'d',40,NULL),
             (NULL,'e',50,'z');
         CREATE TABLE cleaned.s (id INT, v STRING, n INT, p STRING);
         INSERT INTO cleaned.s VALUES (1,'S1',100,'x'),(3,'S3',300,'w'),(7,'S7',700,NULL),(NULL,'SN',0,'z')",
    ]);
}

/// As other engines answer.
#[test]
fn subqueries_of_changes_see_nulls() {
    let lake = Lake::new();
    for (sql, left) in [
        ("DELETE FROM cleaned.t WHERE id NOT IN (SELECT id FROM cleaned.s) OR n > 45", "a b c d"),
        ("DELETE FROM cleaned.t WHERE n > 45 OR NOT (id IN (SELECT id FROM cleaned.s))", "a b c d"),
        (
            "DELETE FROM cleaned.t WHERE NOT (id = 2 OR id IN (SELECT id FROM cleaned.s))",
            "a b c d e",
        ),
        ("DELETE FROM cleaned.t WHERE (id IN (SELECT id FROM cleaned.s)) IS FALSE", "a b c d e"),
        ("DELETE FROM cleaned.t WHERE (id IN (SELECT id FROM cleaned.s)) IS NULL", "a c"),
        (
            "DELETE FROM cleaned.t WHERE (id NOT IN (SELECT id FROM cleaned.s WHERE id > 0)) IS NULL",
            "a b c d",
        ),
        ("DELETE FROM cleaned.t WHERE coalesce(id IN (SELECT id FROM cleaned.s), true)", ""),
        (
            "DELETE FROM cleaned.t WHERE id NOT IN (SELECT s.id FROM cleaned.s s WHERE s.p = t.p)",
            "a e",
        ),
        (
            "DELETE FROM cleaned.t WHERE n < (SELECT s.n FROM cleaned.s s WHERE s.id = t.id)",
            "b d e",
        ),
        ("DELETE FROM cleaned.t WHERE _pos = 0 AND _spec_id = 0 AND p = 'x'", "b c d e"),
        (
            "UPDATE cleaned.t SET v = CASE WHEN id IN (SELECT id FROM cleaned.s) THEN 'in' ELSE 'no' END",
            "in in no no no",
        ),
        (
            "UPDATE cleaned.t SET v = CASE WHEN EXISTS (SELECT 1 FROM cleaned.s s WHERE s.id = t.id) \
             THEN 'in' ELSE 'no' END",
            "in in no no no",
        ),
        ("UPDATE cleaned.t SET v = (SELECT s.v FROM cleaned.s s WHERE s.id = t.id)", "? ? ? S1 S3"),
        (
            "UPDATE cleaned.t SET v = (SELECT s.v FROM cleaned.s s WHERE s.p = t.p ORDER BY s.n LIMIT 1)",
            "? ? S1 S1 SN",
        ),
        (
            "MERGE INTO cleaned.t t USING cleaned.s s ON t.id = s.id \
             WHEN MATCHED AND t.id IN (SELECT id FROM cleaned.s WHERE n > 200) THEN DELETE \
             WHEN MATCHED THEN UPDATE SET v = 'm' \
             WHEN NOT MATCHED AND NOT EXISTS (SELECT 1 FROM cleaned.t x WHERE x.p = s.p) THEN INSERT *",
            "S7 b d e m",
        ),
    ] {
        two_tables(&lake);
        lake.exec(sql);
        let rows =
            "SELECT string_agg(coalesce(v, '?'), ' ' ORDER BY coalesce(v, '?')) FROM cleaned.t";
        assert_eq!(csv(&lake, rows).trim_matches('"'), left, "{sql}");
    }
    two_tables(&lake);
    lake.exec("INSERT INTO cleaned.s VALUES (1, 'again', 1, 'x')");
    let several = "UPDATE cleaned.t SET v = (SELECT s.v FROM cleaned.s s WHERE s.id = t.id)";
    let error = lake.fails(&["sql", "-c", several], 1);
    assert!(error.contains("gives several rows"), "{error}");
}

#[test]
fn clauses_of_a_merge_change_only_what_they_name() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t (id INT, price DOUBLE, qty BIGINT, l ARRAY<DOUBLE>)");
    lake.exec(
        "INSERT INTO cleaned.t VALUES (1, 1e-20, 9007199254740993, [1e-20]), \
         (2, 0.12345678901234568, 9007199254740995, [NULL])",
    );
    lake.exec(
        "MERGE INTO cleaned.t t USING (SELECT * FROM (VALUES (1), (2), (3)) v(id)) s ON t.id = s.id \
         WHEN MATCHED AND t.id = 1 THEN UPDATE SET price = 2.0 \
         WHEN MATCHED THEN UPDATE SET qty = t.qty * 1.5e0, l = [1, 2.5] \
         WHEN NOT MATCHED THEN INSERT VALUES (s.id, 1e-20, 9007199254740993, [1e-20])",
    );
    assert_eq!(
        csv(&lake, "SELECT id, price, qty, l[1] FROM cleaned.t WHERE id <> 2 ORDER BY id"),
        "1,2.0,9007199254740993,1e-20 3,1e-20,9007199254740993,1e-20"
    );
    assert_eq!(csv(&lake, "SELECT price FROM cleaned.t WHERE id = 2"), "0.12345678901234568");
    let random = "MERGE INTO cleaned.t t USING cleaned.t s ON t.id = s.id \
                  WHEN MATCHED AND random() < 0.5 THEN DELETE WHEN MATCHED THEN UPDATE SET qty = 1";
    let error = lake.fails(
        &["sql", "-c", &random.replace("USING cleaned.t", "USING (SELECT * FROM cleaned.t)")],
        1,
    );
    assert!(error.contains("ask it once, in the source"), "{error}");
}

#[test]
fn properties_that_make_no_sense_are_refused() {
    let lake = Lake::new();
    for (key, value, wanted) in [
        ("write.delete.mode", "foo", "it is copy-on-write or merge-on-read"),
        ("gc.enabled", "no", "it is true or false"),
        ("history.expire.max-ref-age-ms", "5 days", "it is a whole number, without a unit"),
        ("write.parquet.compression-codec", "zip", "it is zstd or snappy"),
        ("write.parquet.compression-level", "high", "1 to 22 for zstd"),
    ] {
        let sql = format!("CREATE TABLE cleaned.t (id INT) TBLPROPERTIES ('{key}' = '{value}')");
        let error = lake.fails(&["sql", "-c", &sql], 1);
        let told = format!("property `{key}` cannot be `{value}`");
        assert!(error.contains(&told) && error.contains(wanted), "{error}");
    }
}

#[test]
fn every_change_says_what_it_inserted_updated_and_deleted() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t (id INT)");
    for (sql, wanted) in [
        ("INSERT INTO cleaned.t VALUES (1), (2), (3)", [3, 0, 0]),
        ("UPDATE cleaned.t SET id = 9 WHERE id = 1", [0, 1, 0]),
        ("DELETE FROM cleaned.t WHERE id = 2", [0, 0, 1]),
        ("TRUNCATE cleaned.t", [0, 0, 2]),
    ] {
        let said = lake.ok(&["sql", "--format", "ndjson", "-c", sql]);
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let found = ["inserted", "updated", "deleted"].map(|it| said[it].as_i64().unwrap());
        assert_eq!(found, wanted, "{sql}");
        assert!(said["snapshot_id"].is_i64(), "{said}");
    }
}

#[test]
fn a_table_shows_values_that_are_wider_than_the_first_rows() {
    let lake = Lake::new();
    let out = lake.ok(&["sql", "-c", "SELECT value AS i FROM generate_series(1, 100000)"]);
    assert!(out.contains("\n 100000\n"), "the last is cut");
}

#[test]
fn statements_may_begin_with_a_comment_and_sums_may_be_long() {
    let lake = Lake::new();
    let out = lake.ok(&["sql", "--format", "csv", "-c", "-- one\nSELECT 1 AS a"]);
    assert_eq!(out, "a\n1\n");
    let sum: Vec<String> = (1..=100).map(|it| it.to_string()).collect();
    assert_eq!(csv(&lake, &format!("SELECT {} AS a", sum.join(" + "))), "5050");
}

#[test]
fn an_interrupt_ends_a_query_that_does_not_look_up() {
    let lake = Lake::new();
    lake.exec("SELECT 1");
    let endless = "SELECT count(*) FROM generate_series(1, 300000) a(x), generate_series(1, 300000) b(y) \
                   WHERE a.x * 7 % 11 = b.y * 13 % 17";
    let mut child = lake
        .command(&["sql", "-c", endless])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
    let killed =
        std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(killed.unwrap().success());
    let since = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(since.elapsed() < Duration::from_secs(60), "it goes on after an interrupt");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn dates_are_compared_with_times_in_every_year() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.d (d DATE, ts TIMESTAMP)");
    lake.exec("INSERT INTO cleaned.d VALUES (DATE '9999-12-31', TIMESTAMP '9999-12-31 00:00:00'), (DATE '1600-01-01', NULL)");
    for (condition, wanted) in [
        ("d > now()", "9999-12-31"),
        ("ts = d", "9999-12-31"),
        ("d = TIMESTAMP '9999-12-31'", "9999-12-31"),
        ("d BETWEEN TIMESTAMP '1599-01-01' AND now()", "1600-01-01"),
    ] {
        assert_eq!(
            csv(&lake, &format!("SELECT d FROM cleaned.d WHERE {condition}")),
            wanted,
            "{condition}"
        );
    }
}

#[test]
fn changes_may_begin_with_with_and_read_the_past() {
    let lake = Lake::new();
    two_tables(&lake);
    let ids =
        "SELECT string_agg(coalesce(CAST(id AS STRING), '?'), ' ' ORDER BY id) FROM cleaned.t";
    lake.exec("WITH q AS (SELECT 2 AS id) DELETE FROM cleaned.t WHERE id IN (SELECT id FROM q)");
    assert_eq!(csv(&lake, ids), "1 3 4 ?");
    lake.exec(
        "WITH q AS (SELECT 3 AS id, 'new' AS v) UPDATE cleaned.t SET v = q.v FROM q WHERE t.id = q.id",
    );
    lake.exec("WITH q AS (SELECT 8 AS id) INSERT INTO cleaned.t SELECT id, 'q', 1, 'x' FROM q");
    lake.exec(
        "WITH q AS (SELECT id, v, n, p FROM cleaned.s WHERE id = 7) MERGE INTO cleaned.t t USING q ON t.id = q.id \
         WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *",
    );
    assert_eq!(csv(&lake, "SELECT v FROM cleaned.t WHERE id IN (3, 7, 8) ORDER BY id"), "new S7 q");
    let before = lake.value("SELECT snapshot_id FROM cleaned.s.snapshots LIMIT 1");
    lake.exec("TRUNCATE cleaned.s");
    lake.exec(&format!(
        "MERGE INTO cleaned.t t USING cleaned.s FOR VERSION AS OF {before} s ON t.id = s.id \
         WHEN MATCHED THEN UPDATE SET v = 'past'"
    ));
    assert_eq!(csv(&lake, "SELECT count(*) FROM cleaned.t WHERE v = 'past'"), "3");
    let error = lake.fails(&["sql", "-c", "SELECT * FROM cleaned.t TABLESAMPLE (10)"], 1);
    assert!(error.contains("TABLESAMPLE cannot be used"), "{error}");
}

#[test]
fn a_merge_may_look_into_structs() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t (id INT, k INT, st STRUCT<x INT>)");
    lake.exec("INSERT INTO cleaned.t SELECT 1, 10, named_struct('x', 1) UNION ALL SELECT 2, 20, named_struct('x', 2)");
    lake.exec("CREATE TABLE cleaned.s AS SELECT 5 AS id, 99 AS k, named_struct('x', 2) AS st");
    lake.exec(
        "MERGE INTO cleaned.t t USING cleaned.s s ON t.st.x = s.st.x \
         WHEN MATCHED THEN UPDATE SET k = s.k WHEN NOT MATCHED THEN INSERT *",
    );
    assert_eq!(csv(&lake, "SELECT id, k FROM cleaned.t ORDER BY id"), "1,10 2,99");
    lake.exec(
        "MERGE INTO cleaned.t t USING (SELECT 7 AS id, named_struct('id', 3, 'v', 30) AS after) s \
         ON t.id = s.after.id WHEN NOT MATCHED THEN INSERT (id, k) VALUES (s.after.id, s.after.v)",
    );
    assert_eq!(csv(&lake, "SELECT id, k FROM cleaned.t ORDER BY id"), "1,10 2,99 3,30");
}

#[test]
fn formats_that_a_command_does_not_write_are_refused() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t (id INT)");
    let error = lake.fails(&["history", "cleaned.t", "--format", "csv"], 2);
    assert!(error.contains("json") && error.contains("ndjson"), "{error}");
    assert_eq!(lake.ok(&["history", "cleaned.t", "--format", "json"]).trim(), "[]");
}

#[test]
fn an_insert_names_columns_in_any_case() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t (\"Name\" STRING, id INT)");
    lake.exec("INSERT INTO cleaned.t (ID, NAME) VALUES (1, 'a')");
    assert_eq!(csv(&lake, "SELECT name, id FROM cleaned.t"), "a,1");
}

#[test]
fn nanoseconds_that_share_a_column_stay() {
    let lake = Lake::new();
    let (nanos, micros) =
        ("TIMESTAMP '2024-01-01 00:00:00.123456789'", "TIMESTAMP '2024-01-01 00:00:00.5'");
    let both = "2024-01-01 00:00:00.123456789 2024-01-01 00:00:00.500";
    for sql in [
        format!("SELECT {nanos} AS x UNION ALL SELECT {micros} ORDER BY x"),
        format!("SELECT {micros} AS x UNION SELECT {nanos} ORDER BY x"),
        format!("SELECT x FROM (VALUES ({micros}), ({nanos})) v(x) ORDER BY x"),
        format!("SELECT coalesce(x, {micros}) FROM (VALUES ({nanos}), (NULL)) v(x) ORDER BY 1"),
        format!("SELECT CASE k WHEN 1 THEN {nanos} ELSE {micros} END FROM (VALUES (1), (2)) v(k)"),
    ] {
        assert_eq!(csv(&lake, &sql), both, "{sql}");
    }
}

#[test]
fn rows_that_an_insert_computes_are_not_rows_of_its_table() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t (id INT, Name STRING, u UUID)");
    lake.exec("INSERT INTO cleaned.t (id, name) SELECT x * 10, y FROM (VALUES (1.5, 'a')) v(x, y)");
    lake.exec(
        "INSERT INTO cleaned.t (id, name) SELECT y, x FROM (VALUES ('b', 7), ('c', 8)) v(x, y)",
    );
    lake.exec("INSERT INTO cleaned.t (name, id) WITH q AS (SELECT 'd' AS n) SELECT n, 9 FROM q");
    assert_eq!(csv(&lake, "SELECT id, name FROM cleaned.t ORDER BY id"), "7,b 8,c 9,d 15,a");
    let error = lake.fails(&["sql", "-c", "INSERT INTO cleaned.t SELECT 1"], 1);
    assert!(error.contains("the INSERT is for 3 columns, and its query gives 1"), "{error}");
    // Names in any case in what is only explained, too.
    lake.exec("EXPLAIN SELECT NAME FROM cleaned.t");
}

#[test]
fn columns_without_a_name_are_called_what_they_compute() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t (v INT, \"Int64(1)\" STRING)");
    lake.exec("INSERT INTO cleaned.t VALUES (1, 'a')");
    let header = |sql: &str| {
        let printed = lake.ok(&["sql", "--format", "csv", "-c", sql]);
        printed.lines().next().unwrap().to_owned()
    };
    assert_eq!(
        header("SELECT v + 1, count(*), max(v) * 1.5 FROM cleaned.t GROUP BY v"),
        "v + 1,count(*),max(v) * 1.5"
    );
    assert_eq!(header("SELECT 1, NULL, true, 'it''s' ORDER BY 1 LIMIT 1"), "1,NULL,true,'it''s'");
    // A column of a table is called what it is called.
    assert_eq!(header("SELECT * FROM cleaned.t"), "v,Int64(1)");
    assert_eq!(header("SELECT 1 AS \"Int64(1)\""), "Int64(1)");
    lake.exec("CREATE TABLE cleaned.made AS SELECT v + 1 FROM cleaned.t");
    assert_eq!(header("SELECT * FROM cleaned.made"), "v + 1");
}

#[test]
fn rewritten_expressions_keep_their_meaning_and_names() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t (id INT, f FLOAT, m DECIMAL(10, 2), d DOUBLE, s STRING)");
    lake.exec("INSERT INTO cleaned.t VALUES (1, 1.5, 1.50, 1.5, 'a'), (4, 0.1, 0.10, 0.1, 'b')");
    lake.exec("CREATE TABLE cleaned.u AS SELECT 1 AS k, 2.25e0 AS v");
    for (sql, wanted) in [
        ("SELECT id FROM cleaned.t WHERE m = f ORDER BY id", "1 4"),
        ("SELECT id FROM cleaned.t WHERE f = 0.1 OR f IN (1.5)", "1 4"),
        ("SELECT a.id FROM cleaned.t a JOIN cleaned.t b ON a.f = b.m ORDER BY 1", "1 4"),
        ("SELECT count(*) FROM (SELECT f FROM cleaned.t UNION SELECT m FROM cleaned.t)", "2"),
        (
            "SELECT count(*) FROM cleaned.t GROUP BY ROLLUP(s, coalesce(d, 0.0)) ORDER BY 1",
            "1 1 1 1 2",
        ),
        (
            "SELECT count(*) FROM cleaned.t GROUP BY ROLLUP(s, id IN (1, NULL)) ORDER BY 1",
            "1 1 1 1 2",
        ),
        (
            "SELECT (SELECT count(*) FROM cleaned.u WHERE u.k = t.id LIMIT 1) FROM cleaned.t ORDER BY id",
            "1 0",
        ),
        (
            "SELECT EXISTS (SELECT max(v) FROM cleaned.u WHERE u.k = t.id) FROM cleaned.t ORDER BY id",
            "true true",
        ),
        (
            "SELECT 0 IN (SELECT count(*) FROM cleaned.u WHERE u.k = t.id) FROM cleaned.t ORDER BY id",
            "false true",
        ),
    ] {
        assert_eq!(csv(&lake, sql), wanted, "{sql}");
    }
}
