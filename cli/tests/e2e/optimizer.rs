//! Answers that DataFusion's optimizers get wrong where nothing is done about it (`query/src/mend/optimizer.rs`).

use crate::lake::Lake;

/// The rows of a query: values with commas, rows with blanks between them.
fn csv(lake: &Lake, sql: &str) -> String {
    let printed = lake.ok(&["sql", "--format", "csv", "-c", sql]);
    printed.lines().skip(1).collect::<Vec<_>>().join(" ")
}

fn lake() -> Lake {
    let lake = Lake::new();
    lake.exec(
        "CREATE TABLE cleaned.s AS SELECT * FROM (VALUES (1, 'x', 3), (2, 'y', 3), (3, 'x', 4), \
         (4, 'y', 4), (5, 'z', 3)) v(id, g, n)",
    );
    lake.exec("CREATE TABLE cleaned.l (k INT, a INT)");
    lake.exec("INSERT INTO cleaned.l VALUES (1, 10), (2, 20), (3, 30)");
    lake.exec("CREATE TABLE cleaned.m (k INT, a INT)");
    lake.exec("INSERT INTO cleaned.m VALUES (1, 10), (2, 99)");
    lake
}

fn check(lake: &Lake, wanted: &[(&str, &str)]) {
    for (sql, rows) in wanted {
        assert_eq!(csv(lake, sql), *rows, "{sql}");
    }
}

#[test]
fn rows_have_their_order_beside_subqueries() {
    check(
        &lake(),
        &[
            ("SELECT id FROM cleaned.s WHERE n > (SELECT 0) ORDER BY g DESC, id DESC", "5 4 2 3 1"),
            (
                "SELECT id, (SELECT max(n) FROM cleaned.s) FROM cleaned.s ORDER BY g DESC, id",
                "5,4 2,4 4,4 1,4 3,4",
            ),
            (
                "SELECT id FROM cleaned.s WHERE n > (SELECT 0) ORDER BY g DESC, id DESC LIMIT 2",
                "5 4",
            ),
        ],
    );
}

#[test]
fn columns_beside_computed_ones_are_not_taken_for_unique() {
    let grouped = "(SELECT count(*) c, g FROM cleaned.s GROUP BY g)";
    let lake = lake();
    for (sql, rows) in [
        ("SELECT c, g FROM {} ORDER BY c DESC, g DESC", "2,y 2,x 1,z"),
        ("SELECT DISTINCT c FROM {} ORDER BY 1", "1 2"),
        ("SELECT c, count(*) FROM {} GROUP BY c ORDER BY 1", "1,1 2,2"),
        ("SELECT c, count(*) FROM {} GROUP BY c, g ORDER BY 1", "1,1 2,1 2,1"),
        ("SELECT DISTINCT g FROM {} q CROSS JOIN cleaned.l ORDER BY 1", "x y z"),
        ("SELECT DISTINCT q.g FROM {} q JOIN cleaned.s ON q.g = s.g ORDER BY 1", "x y z"),
        ("SELECT DISTINCT q.g FROM {} q LEFT JOIN cleaned.s ON q.g = s.g ORDER BY 1", "x y z"),
    ] {
        assert_eq!(csv(&lake, &sql.replace("{}", grouped)), rows, "{sql}");
    }
}

#[test]
fn filters_are_of_the_column_that_they_name() {
    let join = "FROM cleaned.l x RIGHT JOIN cleaned.m y ON x.k = y.k";
    let full = "FROM cleaned.l x FULL JOIN cleaned.m y ON x.k = y.k";
    let lake = lake();
    for (sql, rows) in [
        (format!("SELECT x.a, y.a {join} WHERE y.k > 0 AND coalesce(x.a, 0) <> y.a"), "20,99"),
        (format!("SELECT x.a, y.a {join} WHERE y.k > 0 AND coalesce(x.a, 0) = y.a"), "10,10"),
        (format!("SELECT x.a, y.a {join} WHERE x.a IS DISTINCT FROM y.a"), "20,99"),
        (format!("SELECT x.a, y.a {join} WHERE coalesce(x.a, 0) = 20"), "20,99"),
        (
            format!("SELECT x.a, y.a {full} WHERE coalesce(x.a, 0) = coalesce(y.a, 30) + 0"),
            "10,10 30,",
        ),
        (format!("SELECT x.a, y.a {join} ORDER BY x.a DESC LIMIT 1"), "20,99"),
    ] {
        assert_eq!(csv(&lake, &sql), rows, "{sql}");
    }
}

#[test]
fn columns_of_using_are_those_of_either_side() {
    let lake = lake();
    lake.exec("INSERT INTO cleaned.m VALUES (9, 90)");
    check(
        &lake,
        &[
            ("SELECT k FROM cleaned.l JOIN cleaned.m USING (k) WHERE k = 1", "1"),
            ("SELECT k FROM cleaned.l FULL JOIN cleaned.m USING (k) ORDER BY k", "1 2 3 9"),
            ("SELECT k FROM cleaned.l x FULL JOIN cleaned.m y USING (k) WHERE k > 5", "9"),
            (
                "SELECT k, count(*) FROM cleaned.l RIGHT JOIN cleaned.m USING (k) GROUP BY k ORDER BY 1",
                "1,1 2,1 9,1",
            ),
            (
                "SELECT k + 1 FROM cleaned.l LEFT JOIN cleaned.m USING (k) WHERE k > 1 ORDER BY 1",
                "3 4",
            ),
        ],
    );
    let all = "SELECT * FROM cleaned.l FULL JOIN cleaned.m USING (k)";
    let error = lake.fails(&["sql", "-c", all], 1);
    assert!(error.contains("list the columns"), "{error}");
    for sql in ["VALUES (1), (1) EXCEPT ALL VALUES (1)", "VALUES (1), (1) INTERSECT ALL VALUES (1)"]
    {
        let error = lake.fails(&["sql", "-c", sql], 1);
        assert!(error.contains("INTERSECT ALL and EXCEPT ALL"), "{error}");
    }
}

#[test]
fn lengths_of_time_are_compared_as_such() {
    let four = "TIMESTAMP '2020-01-05' - TIMESTAMP '2020-01-01'";
    let lake = Lake::new();
    for (condition, holds) in [
        (format!("{four} >= INTERVAL '2 days'"), "true"),
        (format!("{four} = INTERVAL '4 days'"), "true"),
        (format!("{four} BETWEEN INTERVAL '1 day' AND INTERVAL '10 days'"), "true"),
        (format!("{four} > INTERVAL '97 hours'"), "false"),
        ("INTERVAL '24 hours' = INTERVAL '1 day'".to_owned(), "true"),
        ("INTERVAL '1 month' > INTERVAL '29 days'".to_owned(), "true"),
        ("INTERVAL '-1 day' < INTERVAL '0 days'".to_owned(), "true"),
    ] {
        assert_eq!(csv(&lake, &format!("SELECT {condition}")), holds, "{condition}");
    }
    check(
        &lake,
        &[
            ("SELECT DATE '2020-01-01' + INTERVAL '12 hours'", "2020-01-01 12:00:00"),
            ("SELECT DATE '2020-01-01' - INTERVAL '1 minute'", "2019-12-31 23:59:00"),
            ("SELECT DATE '2020-01-31' + INTERVAL '1 month'", "2020-02-29"),
        ],
    );
}

#[test]
fn what_other_engines_know_is_known() {
    check(
        &lake(),
        &[
            (
                "WITH RECURSIVE r(i, s) AS (SELECT 1, 'a' UNION ALL SELECT i + 1, s FROM r WHERE i < 3) \
                 SELECT i, s FROM r ORDER BY i",
                "1,a 2,a 3,a",
            ),
            ("SELECT id FROM cleaned.s ORDER BY id FETCH FIRST 2 ROWS ONLY", "1 2"),
            ("SELECT id FROM cleaned.s ORDER BY id OFFSET 3 ROWS FETCH NEXT ROW ONLY", "4"),
            ("SELECT mod(7, 4), mod(id + 1, 2) FROM cleaned.s WHERE id = 2", "3,1"),
            ("SELECT sign(-2.5), sign(3)", "-1.0,1.0"),
            ("SELECT DISTINCT (id < 3) IS TRUE AS x FROM cleaned.s ORDER BY x", "false true"),
            (
                "SELECT (id = NULL) IS NOT FALSE AS x, (id = 1) IS NOT TRUE AS y, count(*) FROM cleaned.s \
                 GROUP BY (id = NULL) IS NOT FALSE, (id = 1) IS NOT TRUE ORDER BY y",
                "true,false,1 true,true,4",
            ),
            ("SELECT 'a%b' LIKE 'a!%b' ESCAPE '!', 'axb' LIKE 'a!%b' ESCAPE '!'", "true,false"),
            ("SELECT 'a\\b' LIKE 'a\\b' ESCAPE '!', 'A_' ILIKE 'a#_' ESCAPE '#'", "true,true"),
            ("SELECT 'a!b' LIKE 'a!!b' ESCAPE '!', 'a\\b' LIKE 'a\\b' ESCAPE ''", "true,true"),
            ("SELECT DATE '2020-01-01' + INTERVAL '1 day' * 3", "2020-01-04"),
            (
                "SELECT DATE '2020-01-01' + id * INTERVAL '1 month' FROM cleaned.s WHERE id = 2",
                "2020-03-01",
            ),
            ("SELECT INTERVAL '1 hour' / 4 = INTERVAL '15 minutes'", "true"),
            (
                "SELECT CAST(TIMESTAMPTZ '2020-01-01 00:00:00Z' AT TIME ZONE 'America/New_York' AS TIMESTAMP)",
                "2019-12-31 19:00:00",
            ),
        ],
    );
}

#[test]
fn rows_are_looked_for_in_queries() {
    let lake = lake();
    lake.exec("CREATE TABLE cleaned.pairs AS VALUES (1, 1), (2, 2), (3, CAST(NULL AS INT))");
    let two = "(SELECT column1, column2 FROM cleaned.pairs WHERE column1 < 3)";
    let all = "(SELECT column1, column2 FROM cleaned.pairs)";
    let of = "FROM (VALUES (1, 1), (1, 2), (3, 3), (4, NULL), (NULL, 2)) v(a, b) WHERE";
    check(
        &lake,
        &[
            (&format!("SELECT a, b {of} (a, b) IN {two}"), "1,1"),
            (&format!("SELECT a, b {of} a = 1 AND ((a, b) IN {all})"), "1,1"),
            (&format!("SELECT a, b {of} (a, b) NOT IN {two} ORDER BY a"), "1,2 3,3 4,"),
            // Of 3 and null nobody can say that it is not 3 and 3.
            (&format!("SELECT a, b {of} (a, b) NOT IN {all} ORDER BY a"), "1,2 4,"),
        ],
    );
    lake.exec(&format!("DELETE FROM cleaned.pairs WHERE (column1, column2) IN {two}"));
    assert_eq!(csv(&lake, "SELECT column1 FROM cleaned.pairs"), "3");
}

#[test]
fn nan_is_the_greatest_in_groups_too() {
    check(
        &Lake::new(),
        &[
            (
                "SELECT g, min(x), max(x) FROM (VALUES (1, 1.0::DOUBLE), (1, 'nan'::DOUBLE), \
                 (1, 2.0::DOUBLE), (2, 'nan'::DOUBLE)) v(g, x) GROUP BY g ORDER BY g",
                "1,1.0,NaN 2,NaN,NaN",
            ),
            (
                "SELECT g, min(x), max(x) FROM (VALUES ('a', 'nan'::FLOAT), ('a', 2.5::FLOAT), \
                 ('a', NULL)) v(g, x) GROUP BY g",
                "a,2.5,NaN",
            ),
        ],
    );
}

#[test]
fn groups_by_a_constant_are_groups() {
    check(
        &lake(),
        &[
            ("SELECT 'total' l, sum(n) FROM cleaned.s WHERE n > 99 GROUP BY l", ""),
            ("SELECT 'total' l, sum(n) FROM cleaned.s GROUP BY l", "total,17"),
            ("SELECT g, sum(n) FROM cleaned.s GROUP BY g, 1 + 1 ORDER BY 1", "x,7 y,7 z,3"),
        ],
    );
}

#[test]
fn a_query_in_a_list_may_be_of_the_table_beside_it() {
    let lake = lake();
    lake.exec("CREATE TABLE cleaned.x AS VALUES (1, 1), (2, 2), (3, CAST(NULL AS INT))");
    let of = "column2 IN (SELECT column2 FROM cleaned.x WHERE column1 = 1)";
    check(
        &lake,
        &[
            (&format!("SELECT column1, {of} FROM cleaned.x ORDER BY 1"), "1,true 2,false 3,"),
            (
                &format!(
                    "SELECT column1, CASE WHEN {of} THEN 'in' ELSE 'out' END FROM cleaned.x ORDER BY 1"
                ),
                "1,in 2,out 3,out",
            ),
        ],
    );
}
