//! Traps of deletes: what they reach, and what becomes of them.

use icefield_catalog::spec::{
    DataContentType, DataFileFormat, ManifestContentType, PrimitiveLiteral, TableUpdate, Transform,
    UnboundPartitionSpec,
};
use icefield_query::{Session, Settings};
use icefield_table::commit::{Change, Check, change};
use icefield_table::deletes::positions;
use icefield_table::manifest::DataFile;
use roaring::RoaringTreemap;

use super::{Lake, entries, live_deletes};

/// Gives `cleaned.t` another default partition spec.
async fn partition_by(lake: &Lake, source: i32, name: &str, transform: Transform) {
    let spec = UnboundPartitionSpec::builder().add_partition_field(source, name, transform);
    let spec = spec.unwrap().build();
    let updates = vec![TableUpdate::AddSpec { spec }, TableUpdate::SetDefaultSpec { spec_id: -1 }];
    lake.update("cleaned.t", updates).await;
}

/// A position delete file that another writer made, of one data file.
async fn position_deletes(lake: &Lake, target: &DataFile, all: &[u64]) -> DataFile {
    let warehouse = lake.session.tables().warehouse();
    let path = format!("memory:///w/cleaned/t/data/{}.parquet", warehouse.env.uuid());
    let all: RoaringTreemap = all.iter().copied().collect();
    let (bytes, file) = positions::encode(path.clone(), target, &all).unwrap();
    warehouse.storage.write(&path, bytes.into()).await.unwrap();
    file
}

#[tokio::test]
async fn t31_positions_of_the_same_commit_go_and_equal_rows_of_it_stay() {
    let lake = Lake::with(&[
        "CREATE TABLE cleaned.t (id BIGINT)",
        "INSERT INTO cleaned.t VALUES (1), (2)",
        "CREATE TABLE cleaned.new AS SELECT * FROM (VALUES (CAST(1 AS BIGINT)), (5)) v(id)",
        "CREATE TABLE cleaned.k AS SELECT CAST(1 AS BIGINT) AS id",
    ])
    .await;
    let new = lake.file("cleaned.new").await;
    let equal = lake.equality("cleaned.k", &[1], 0, Vec::new()).await;
    let fifth = position_deletes(&lake, &new, &[1]).await;
    lake.foreign("cleaned.t", &[new, equal, fifth], |_| {}).await;
    // The old 1 is gone by its value, the 5 by its place; the new 1 is as old as the delete.
    assert_eq!(lake.rows("SELECT id FROM cleaned.t ORDER BY id").await, "1; 2");
    assert_eq!(lake.rows("SELECT _pos FROM cleaned.t WHERE id = 1").await, "0");
}

#[tokio::test]
async fn equality_deletes_compare_fields_of_structs() {
    let columns = "(id BIGINT, s STRUCT<a INT, t STRUCT<b DOUBLE, c STRING>>)";
    let row = |id: i32, a: &str, b: &str| {
        format!("({id}, named_struct('a', {a}, 't', named_struct('b', {b}, 'c', 'c{id}')))")
    };
    let nan = "CAST('NaN' AS DOUBLE)";
    let rows =
        [row(1, "1", "1.5"), row(2, "2", nan), row(3, "NULL", "NULL"), "(4, NULL)".to_owned()];
    let lake = Lake::with(&[
        &format!("CREATE TABLE cleaned.t {columns}"),
        &format!("CREATE TABLE cleaned.k {columns}"),
    ])
    .await;
    // Ids: id 1, s 2, s.a 3, s.t 4, s.t.b 5, s.t.c 6.
    for (key, ids, left) in [
        (row(9, "1", "7"), vec![3], "2; 3; 4"),
        (row(9, "NULL", "7"), vec![3], "1; 2"),
        (row(9, "7", nan), vec![5], "1; 3; 4"),
        ("(9, NULL)".to_owned(), vec![5], "1; 2"),
        (row(2, "2", nan), vec![1, 5, 3], "1; 3; 4"),
        (row(1, "2", nan), vec![1, 5, 3], "1; 2; 3; 4"),
    ] {
        lake.run("TRUNCATE cleaned.t").await;
        lake.run("TRUNCATE cleaned.k").await;
        lake.run(&format!("INSERT INTO cleaned.t VALUES {}", rows.join(", "))).await;
        lake.run(&format!("INSERT INTO cleaned.k VALUES {key}")).await;
        let deletes = lake.equality("cleaned.k", &ids, 0, Vec::new()).await;
        lake.foreign("cleaned.t", &[deletes], |_| {}).await;
        assert_eq!(lake.rows("SELECT id FROM cleaned.t ORDER BY id").await, left, "{ids:?} {key}");
    }
}

#[tokio::test]
async fn t32_deletes_reach_files_of_their_own_spec_and_partition() {
    let lake = Lake::with(&[
        "CREATE TABLE cleaned.t (a INT, b INT) PARTITIONED BY (a)",
        "INSERT INTO cleaned.t VALUES (1, 1)",
        "CREATE TABLE cleaned.k (a INT, b INT)",
        "INSERT INTO cleaned.k VALUES (1, 1)",
    ])
    .await;
    partition_by(&lake, 2, "b", Transform::Identity).await;
    lake.run("INSERT INTO cleaned.t VALUES (1, 1)").await;
    let one = || vec![Some(PrimitiveLiteral::Int(1))];
    let deletes = lake.equality("cleaned.k", &[1], 1, one()).await;
    lake.foreign("cleaned.t", &[deletes], |_| {}).await;
    // Both files have the partition (1); the delete is of the second spec.
    assert_eq!(lake.rows("SELECT _spec_id FROM cleaned.t").await, "0");

    // A spec of nothing but void partitions nothing, so its equality deletes reach everything.
    partition_by(&lake, 1, "a_void", Transform::Void).await;
    let base = lake.table("cleaned.t").await;
    let all = entries(&base).await;
    let old =
        all.iter().find(|(line, _)| line.spec_id == 0 && line.content == ManifestContentType::Data);
    let removed = vec![old.unwrap().1.file.clone()];
    let deletes = lake.equality("cleaned.k", &[1], 2, vec![None]).await;
    lake.foreign("cleaned.t", &[deletes], |_| {}).await;
    assert_eq!(lake.rows("SELECT count(*) FROM cleaned.t WHERE b = 1").await, "0");
    // Who copies a file without knowing of that delete would bring its rows back.
    let from = base.metadata().current_snapshot_id();
    let checks = vec![Check { from, ..Check::default() }];
    let copy = Change { removed, checks, ..Change::default() };
    let error = change(&base, copy).await.unwrap_err();
    assert!(error.message().contains("deleted rows of data file"), "{error}");
}

#[tokio::test]
async fn t33_deletes_have_the_spec_and_partition_of_their_data_file() {
    for version in ["2", "3"] {
        let create = format!(
            "CREATE TABLE cleaned.t (a INT, b INT) PARTITIONED BY (a) TBLPROPERTIES \
             ('format-version' = '{version}', 'write.delete.mode' = 'merge-on-read')"
        );
        let lake = Lake::with(&[&create, "INSERT INTO cleaned.t VALUES (1, 10), (1, 11)"]).await;
        partition_by(&lake, 2, "b", Transform::Identity).await;
        lake.run("INSERT INTO cleaned.t VALUES (2, 20), (3, 20)").await;
        lake.run("DELETE FROM cleaned.t WHERE b = 10 OR a = 2").await;
        let table = lake.table("cleaned.t").await;
        let all = entries(&table).await;
        let deletes = all.iter().filter(|(line, _)| line.content == ManifestContentType::Deletes);
        let mut found: Vec<_> = deletes
            .map(|(line, it)| (line.spec_id, it.file.spec_id, it.file.partition.clone()))
            .collect();
        found.sort_by_key(|it| it.0);
        let value = |it: i32| vec![Some(PrimitiveLiteral::Int(it))];
        // Each manifest is of one spec (trap T-83).
        assert_eq!(found, [(0, 0, value(1)), (1, 1, value(20))], "v{version}");
        assert_eq!(lake.rows("SELECT a, b FROM cleaned.t ORDER BY a").await, "1,11; 3,20");
    }
}

#[tokio::test]
async fn t34_one_vector_a_file_holds_all_that_was_deleted_before() {
    let lake = Lake::with(&[
        "CREATE TABLE cleaned.t TBLPROPERTIES ('write.delete.mode' = 'merge-on-read') \
         AS SELECT i AS id FROM range(0, 10) r(i)",
    ])
    .await;
    // Another writer's deletes of a whole partition, and ours of the one file.
    let mut shared = position_deletes(&lake, &lake.file("cleaned.t").await, &[0]).await;
    shared.referenced_data_file = None;
    (shared.metrics.lower_bounds, shared.metrics.upper_bounds) = Default::default();
    lake.foreign("cleaned.t", &[shared], |_| {}).await;
    lake.run("DELETE FROM cleaned.t WHERE id = 1").await;
    lake.run("ALTER TABLE cleaned.t SET TBLPROPERTIES ('format-version' = '3')").await;
    lake.run("DELETE FROM cleaned.t WHERE id = 2").await;
    lake.run("DELETE FROM cleaned.t WHERE id = 3").await;
    let table = lake.table("cleaned.t").await;
    let found = live_deletes(&table).await;
    let vectors: Vec<_> = found.iter().filter(|it| it.format == DataFileFormat::Puffin).collect();
    assert_eq!(vectors.len(), 1, "{found:?}");
    assert_eq!(vectors[0].record_count, 4, "rows 0 to 3");
    // Deletes of one file alone are replaced; those that may be of others stay.
    assert_eq!(found.len(), 2);
    let left = "SELECT count(*), min(id) FROM cleaned.t";
    assert_eq!(lake.rows(left).await, "6,4");

    // What has two vectors is damaged, and no answer is better than a wrong one.
    let second = vectors[0].clone();
    lake.foreign("cleaned.t", &[second], |_| {}).await;
    let error = lake.error("SELECT sum(id) FROM cleaned.t").await;
    assert!(error.contains("2 deletion vectors"), "{error}");
}

#[tokio::test]
async fn t36_deletes_go_when_all_data_is_newer_and_not_before() {
    let lake = Lake::with(&[
        "CREATE TABLE cleaned.t (id BIGINT) TBLPROPERTIES ('write.update.mode' = 'copy-on-write')",
        "INSERT INTO cleaned.t VALUES (1), (2)",
        "CREATE TABLE cleaned.new AS SELECT CAST(9 AS BIGINT) AS id",
        "CREATE TABLE cleaned.k AS SELECT CAST(1 AS BIGINT) AS id",
    ])
    .await;
    let deletes = lake.equality("cleaned.k", &[1], 0, Vec::new()).await;
    lake.foreign("cleaned.t", &[lake.file("cleaned.new").await, deletes], |_| {}).await;
    lake.run("UPDATE cleaned.t SET id = 20 WHERE id = 2").await;
    // The oldest file is as old as the delete.
    assert_eq!(live_deletes(&lake.table("cleaned.t").await).await.len(), 1);
    lake.run("UPDATE cleaned.t SET id = 90 WHERE id = 9").await;
    let table = lake.table("cleaned.t").await;
    assert!(live_deletes(&table).await.is_empty());
    let head = table.metadata().current_snapshot().unwrap().summary();
    assert_eq!(head.additional_properties["removed-equality-deletes"], "1");
    assert_eq!(lake.rows("SELECT id FROM cleaned.t ORDER BY id").await, "20; 90");
}

#[tokio::test]
async fn t39_values_are_compared_by_field_id_nulls_and_nans_equal() {
    let nan = "CAST('NaN' AS DOUBLE)";
    let lake = Lake::with(&[
        "CREATE TABLE cleaned.t (id BIGINT, d DOUBLE, c TEXT)",
        &format!(
            "INSERT INTO cleaned.t VALUES (1, 1.0, 'a'), (2, {nan}, 'b'), (3, NULL, 'c'), (4, 4.0, 'x')"
        ),
        "CREATE TABLE cleaned.k (id BIGINT, d DOUBLE, c TEXT, e INT)",
        &format!("INSERT INTO cleaned.k VALUES (7, {nan}, 'k', 1), (7, NULL, 'k', 1)"),
    ])
    .await;
    let ids = "SELECT id FROM cleaned.t ORDER BY id";
    let deletes = lake.equality("cleaned.k", &[2], 0, Vec::new()).await;
    lake.foreign("cleaned.t", &[deletes], |_| {}).await;
    assert_eq!(lake.rows(ids).await, "1; 4");
    // A column that is dropped later is still compared.
    lake.run("INSERT INTO cleaned.k VALUES (7, 7.0, 'x', 1)").await;
    let deletes = lake.equality("cleaned.k", &[3], 0, Vec::new()).await;
    lake.foreign("cleaned.t", &[deletes], |_| {}).await;
    lake.run("ALTER TABLE cleaned.t DROP COLUMN c").await;
    assert_eq!(lake.rows(ids).await, "1");
    // One that was added later is null in older files.
    lake.run("ALTER TABLE cleaned.t ADD COLUMN e INT").await;
    lake.run("INSERT INTO cleaned.t VALUES (5, 5.0, 7)").await;
    lake.run("INSERT INTO cleaned.k VALUES (7, 7.0, 'k', NULL)").await;
    let deletes = lake.equality("cleaned.k", &[4], 0, Vec::new()).await;
    lake.foreign("cleaned.t", &[deletes], |_| {}).await;
    assert_eq!(lake.rows(ids).await, "5");
}

#[tokio::test]
async fn t41_a_table_that_became_v3_gets_no_more_position_delete_files() {
    let lake = Lake::with(&[
        "CREATE TABLE cleaned.t TBLPROPERTIES ('write.delete.mode' = 'merge-on-read') \
         AS SELECT i AS id FROM range(0, 10) r(i)",
        "DELETE FROM cleaned.t WHERE id = 1",
    ])
    .await;
    // The upgrade comes between the two attempts, after a position delete file was written.
    lake.meanwhile("ALTER TABLE cleaned.t SET TBLPROPERTIES ('format-version' = '3')");
    lake.run("DELETE FROM cleaned.t WHERE id = 2").await;
    let found = live_deletes(&lake.table("cleaned.t").await).await;
    let formats: Vec<_> = found.iter().map(|it| (it.format, it.record_count)).collect();
    assert_eq!(formats, [(DataFileFormat::Puffin, 2)]);
    assert_eq!(lake.rows("SELECT count(*) FROM cleaned.t").await, "8");
}

#[tokio::test]
async fn t43_positions_count_the_rows_that_pruning_leaves_out() {
    let lake = Lake::with(&[
        "CREATE TABLE cleaned.t (id BIGINT, v TEXT) TBLPROPERTIES ('format-version' = '3', \
         'write.delete.mode' = 'merge-on-read', 'write.parquet.page-row-limit' = '100', \
         'write.parquet.row-group-size-bytes' = '50000')",
    ])
    .await;
    // One thread writes one file, in order.
    let settings = Settings { threads: Some(1), ..Settings::default() };
    let one = Session::new(lake.session.tables().clone(), settings).unwrap();
    one.run("INSERT INTO cleaned.t SELECT i, CAST(i AS TEXT) FROM range(0, 50000) r(i)")
        .await
        .unwrap();
    assert_eq!(lake.rows("SELECT count(*) FROM cleaned.t.files").await, "1");
    let groups = lake.file("cleaned.t").await.split_offsets.unwrap();
    assert!(groups.len() > 3, "one row group would show nothing: {groups:?}");
    assert_eq!(lake.rows("SELECT _pos FROM cleaned.t WHERE id = 43210").await, "43210");
    lake.run("DELETE FROM cleaned.t WHERE id IN (77, 25000, 43210)").await;
    assert_eq!(lake.rows("SELECT id, _pos FROM cleaned.t WHERE id = 43211").await, "43211,43211");
    for id in [77, 25000, 43210] {
        let near = format!("SELECT id FROM cleaned.t WHERE id BETWEEN {} AND {}", id - 1, id + 1);
        let found = lake.rows(&format!("{near} ORDER BY id")).await;
        assert_eq!(found, format!("{}; {}", id - 1, id + 1));
    }
    assert_eq!(
        lake.rows("SELECT count(*), count(DISTINCT id) FROM cleaned.t").await,
        "49997,49997"
    );
}

#[tokio::test]
async fn t94_counts_and_extremes_know_of_deletes_and_of_bounds_cut_short() {
    for version in ["2", "3"] {
        let create = format!(
            "CREATE TABLE cleaned.t (id BIGINT, s TEXT) TBLPROPERTIES ('format-version' = '{version}', \
             'write.delete.mode' = 'merge-on-read')"
        );
        let lake = Lake::with(&[
            &create,
            "INSERT INTO cleaned.t SELECT i, 'a text longer than sixteen ' || i FROM range(0, 10) r(i)",
        ])
        .await;
        let extremes = "SELECT count(*), min(id), max(id), max(s) FROM cleaned.t";
        assert_eq!(lake.rows(extremes).await, "10,0,9,a text longer than sixteen 9");
        lake.run("DELETE FROM cleaned.t WHERE id IN (0, 9)").await;
        assert_eq!(lake.rows(extremes).await, "8,1,8,a text longer than sixteen 8", "v{version}");
        assert_eq!(lake.rows("SELECT max(id) FROM cleaned.t").await, "8");
        assert_eq!(lake.rows("SELECT count(*) FROM cleaned.t").await, "8");
    }
}

#[tokio::test]
async fn t104_what_is_encrypted_is_refused_and_not_misread() {
    let lake = Lake::with(&["CREATE TABLE cleaned.t AS SELECT 1 AS id"]).await;
    let mut file = lake.file("cleaned.t").await;
    file.path.push_str(".other");
    lake.foreign("cleaned.t", &[file], |lines| lines[0].key_metadata = Some(vec![1, 2, 3])).await;
    let error = lake.error("SELECT * FROM cleaned.t").await;
    assert!(error.contains("encrypted"), "{error}");
}

#[tokio::test]
async fn t37_a_file_takes_its_vector_along() {
    let lake = Lake::with(&[
        "CREATE TABLE cleaned.t TBLPROPERTIES ('format-version' = '3', \
         'write.delete.mode' = 'merge-on-read', 'write.update.mode' = 'copy-on-write') \
         AS SELECT i AS id FROM range(0, 10) r(i)",
        "DELETE FROM cleaned.t WHERE id = 1",
        "UPDATE cleaned.t SET id = 50 WHERE id = 5",
    ])
    .await;
    let table = lake.table("cleaned.t").await;
    assert!(live_deletes(&table).await.is_empty());
    let head = table.metadata().current_snapshot().unwrap();
    let gone = entries(&table).await.into_iter().filter(|(_, it)| {
        it.file.content == DataContentType::PositionDeletes
            && it.snapshot_id == Some(head.snapshot_id())
    });
    assert_eq!(gone.count(), 1, "it is said to be deleted by this snapshot");
    assert_eq!(lake.rows("SELECT count(*), max(id) FROM cleaned.t").await, "9,50");
}
