//! Traps of transforms, metrics and file sizes.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array, StringArray};
use arrow::datatypes::Int32Type;
use icefield_catalog::spec::Transform;
use icefield_table::partition;

use super::{Lake, lines};

#[test]
fn t87_truncation_goes_down_and_counts_code_points() {
    let numbers: ArrayRef = Arc::new(Int32Array::from(vec![-1, -10, -11, 0, 9, 10]));
    let cut = partition::transform(&Transform::Truncate(10), &numbers).unwrap();
    assert_eq!(cut.as_primitive::<Int32Type>().values(), &[-10, -10, -20, 0, 0, 10]);
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["日本語", "ab", "é𝄞x"]));
    let cut = partition::transform(&Transform::Truncate(2), &texts).unwrap();
    let cut: Vec<_> = cut.as_string::<i32>().iter().flatten().collect();
    assert_eq!(cut, ["日本", "ab", "é𝄞"]);
}

#[tokio::test]
async fn t87_prefixes_longer_than_the_partition_find_their_rows() {
    let lake = Lake::with(&[
        "CREATE TABLE cleaned.t (s TEXT) PARTITIONED BY (truncate(2, s))",
        "INSERT INTO cleaned.t VALUES ('ab'), ('abc'), ('abd'), ('b')",
    ])
    .await;
    for (filter, count) in [
        ("LIKE 'abc%'", "1"),
        ("LIKE 'a%'", "3"),
        ("< 'abd'", "2"),
        ("> 'ab'", "3"),
        ("= 'abd'", "1"),
    ] {
        let found = lake.rows(&format!("SELECT count(*) FROM cleaned.t WHERE s {filter}")).await;
        assert_eq!(found, count, "{filter}");
    }
}

#[tokio::test]
async fn t90_metrics_are_kept_as_the_table_says() {
    let lake = Lake::with(&[
        "CREATE TABLE cleaned.t (a TEXT, b TEXT, c TEXT, d TEXT) ORDERED BY (d) TBLPROPERTIES \
         ('write.metadata.metrics.default' = 'counts', \
         'write.metadata.metrics.column.b' = 'full', 'write.metadata.metrics.column.c' = 'none')",
        "INSERT INTO cleaned.t SELECT repeat('x', 20), repeat('x', 20), repeat('x', 20), repeat('x', 20)",
    ])
    .await;
    let metrics = lake.file("cleaned.t").await.metrics;
    let counted: Vec<i32> = metrics.value_counts.keys().copied().collect();
    assert_eq!(counted, [1, 2, 4]);
    let lengths: Vec<_> = metrics.upper_bounds.iter().map(|(id, it)| (*id, it.len())).collect();
    // Sorted columns have bounds in any case.
    assert_eq!(lengths, [(2, 20), (4, 16)]);

    // Properties follow their column (and a bloom filter's would refuse every write if it did not).
    lake.run(
        "ALTER TABLE cleaned.t SET TBLPROPERTIES \
         ('write.parquet.bloom-filter-enabled.column.b' = 'true')",
    )
    .await;
    lake.run("ALTER TABLE cleaned.t RENAME COLUMN b TO z").await;
    lake.run("ALTER TABLE cleaned.t DROP COLUMN c").await;
    lake.run("INSERT INTO cleaned.t SELECT repeat('x', 20), repeat('x', 20), 'd'").await;
    let metrics = lake.file("cleaned.t").await.metrics;
    let lengths: Vec<_> = metrics.upper_bounds.iter().map(|(id, it)| (*id, it.len())).collect();
    assert_eq!(lengths, [(2, 20), (4, 1)]);
    let table = lake.table("cleaned.t").await;
    let mut named: Vec<_> =
        table.metadata().properties().keys().filter(|it| it.contains(".column.")).collect();
    named.sort();
    let wanted = ["write.metadata.metrics.column.z", "write.parquet.bloom-filter-enabled.column.z"];
    assert_eq!(named, wanted);

    let columns: Vec<_> = (0..103).map(|it| format!("c{it} INT")).collect();
    let values: Vec<_> = (0..103).map(|it| it.to_string()).collect();
    lake.run(&format!("CREATE TABLE cleaned.wide ({})", columns.join(", "))).await;
    lake.run(&format!("INSERT INTO cleaned.wide VALUES ({})", values.join(", "))).await;
    let metrics = lake.file("cleaned.wide").await.metrics;
    assert_eq!(metrics.lower_bounds.len(), 100, "the first hundred columns have bounds");
    assert!(!metrics.lower_bounds.contains_key(&101));
}

#[tokio::test]
async fn t92_nan_is_counted_and_in_no_bound() {
    let lake = Lake::with(&[
        "CREATE TABLE cleaned.t (d DOUBLE)",
        "INSERT INTO cleaned.t VALUES (0.0), (CAST('NaN' AS DOUBLE)), (NULL)",
    ])
    .await;
    let metrics = lake.file("cleaned.t").await.metrics;
    assert_eq!(metrics.nan_value_counts[&1], 1);
    assert_eq!(metrics.lower_bounds[&1], (-0.0_f64).to_le_bytes());
    assert_eq!(metrics.upper_bounds[&1], 0.0_f64.to_le_bytes());
    lake.run("INSERT INTO cleaned.t VALUES (CAST('NaN' AS DOUBLE))").await;
    let metrics = lake.file("cleaned.t").await.metrics;
    assert_eq!(metrics.nan_value_counts[&1], 1);
    assert!(metrics.lower_bounds.is_empty() && metrics.upper_bounds.is_empty());
    let count = |filter: &str| format!("SELECT count(*) FROM cleaned.t WHERE d {filter}");
    for (filter, rows) in [("<> 0.0", "2"), ("NOT IN (5.0)", "3"), ("IS NULL", "1"), ("> 1", "2")] {
        assert_eq!(lake.rows(&count(filter)).await, rows, "{filter}");
    }
}

#[tokio::test]
async fn t93_counts_have_the_nulls_in_them_and_lists_have_no_bounds() {
    let lake = Lake::with(&[
        "CREATE TABLE cleaned.t (i INT, a ARRAY<INT>, s STRUCT<x: INT>, m MAP<TEXT, INT>)",
        "INSERT INTO cleaned.t VALUES (1, [5, 6], named_struct('x', 3), MAP(['k'], [7])), \
         (NULL, NULL, NULL, NULL)",
    ])
    .await;
    let metrics = lake.file("cleaned.t").await.metrics;
    let table = lake.table("cleaned.t").await;
    let id = |name: &str| table.metadata().current_schema().field_id_by_name(name).unwrap();
    assert_eq!((metrics.value_counts[&1], metrics.null_value_counts[&1]), (2, 1));
    let bounded: Vec<i32> = metrics.lower_bounds.keys().copied().collect();
    assert_eq!(bounded, [id("i"), id("s.x")]);
}

#[tokio::test]
async fn t96_a_list_says_of_partitions_what_is_null_nan_least_and_greatest() {
    let lake = Lake::with(&[
        "CREATE TABLE cleaned.t (d DOUBLE, s TEXT) PARTITIONED BY (d, s)",
        "INSERT INTO cleaned.t VALUES (CAST('NaN' AS DOUBLE), 'a'), (NULL, 'b'), (1.5, NULL), (2.5, 'ab')",
    ])
    .await;
    let found = lines(&lake.table("cleaned.t").await).await;
    let [d, s] = found[0].partitions.as_slice() else { panic!("{found:?}") };
    assert!(d.contains_null && d.contains_nan == Some(true), "{d:?}");
    assert_eq!(d.lower_bound.as_deref(), Some(1.5_f64.to_le_bytes().as_slice()));
    assert_eq!(d.upper_bound.as_deref(), Some(2.5_f64.to_le_bytes().as_slice()));
    assert!(s.contains_null && s.contains_nan != Some(true), "{s:?}");
    assert_eq!(s.lower_bound.as_deref(), Some(b"a".as_slice()));
    assert_eq!(s.upper_bound.as_deref(), Some(b"b".as_slice()));
}

#[tokio::test]
async fn t122_the_size_of_files_is_what_they_have_on_disk() {
    let lake = Lake::with(&[
        "CREATE TABLE cleaned.t (id BIGINT, s TEXT) PARTITIONED BY (truncate(1000000, id)) \
         TBLPROPERTIES ('write.target-file-size-bytes' = '100000')",
        "INSERT INTO cleaned.t SELECT i * 7919 % 100003, repeat(CAST(i * 7919 % 100003 AS TEXT), 10) \
         FROM range(0, 100000) r(i)",
    ])
    .await;
    let sizes =
        "SELECT sum(file_size_in_bytes), count(*), max(file_size_in_bytes) FROM cleaned.t.files";
    let found = lake.rows(sizes).await;
    let numbers: Vec<i64> = found.split(',').map(|it| it.parse().unwrap()).collect();
    let [total, count, most] = numbers.as_slice() else { panic!("{found}") };
    assert!(*total > 400_000, "too few bytes to tell: {found}");
    assert!(total / count > 50_000 && *most < 200_000, "{found}");
}
