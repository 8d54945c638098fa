//! Traps of columns, their types and defaults, of partition specs and format versions.

use icefield_catalog::spec::{
    Literal, NestedField, PrimitiveLiteral, PrimitiveType, Schema, TableIdent, TableUpdate,
    Transform, Type, UnboundPartitionSpec,
};
use serde_json::json;

use super::{Lake, entries, lines};

/// Gives `cleaned.t` another current schema.
async fn set_columns(lake: &Lake, fields: Vec<NestedField>) {
    let schema = Schema::builder().with_fields(fields.into_iter().map(Into::into));
    let schema = schema.build().unwrap();
    let updates =
        vec![TableUpdate::AddSchema { schema }, TableUpdate::SetCurrentSchema { schema_id: -1 }];
    lake.update("cleaned.t", updates).await;
}

#[tokio::test]
async fn t58_tables_without_counts_keep_all_rows_and_get_ids_for_each() {
    for version in ["2", "3"] {
        let lake = Lake::with(&[
            "CREATE TABLE cleaned.made (id BIGINT)",
            "INSERT INTO cleaned.made VALUES (1), (2)",
            "INSERT INTO cleaned.made VALUES (3)",
        ])
        .await;
        // The same table as an old writer has it: version 1, and a snapshot that names its
        // manifests itself, so that nobody has counted their rows.
        let made = lake.table("cleaned.made").await;
        let manifests: Vec<_> = lines(&made).await.into_iter().map(|it| it.path).collect();
        let mut metadata = serde_json::to_value(made.metadata()).unwrap();
        let head = made.metadata().current_snapshot_id().unwrap();
        let schema = metadata["schemas"][0].clone();
        metadata["format-version"] = json!(1);
        metadata["schema"] = schema;
        metadata["partition-spec"] = json!([]);
        metadata["snapshots"] = json!([{
            "snapshot-id": head, "timestamp-ms": metadata["last-updated-ms"],
            "manifests": manifests, "summary": {"operation": "append"}, "schema-id": 0,
        }]);
        metadata["snapshot-log"] = json!([]);
        metadata["metadata-log"] = json!([]);
        let object = metadata.as_object_mut().unwrap();
        object.remove("last-sequence-number");
        object.remove("next-row-id");
        let location = "memory:///w/cleaned/old/metadata/v1.metadata.json";
        let warehouse = lake.session.tables().warehouse();
        let text = serde_json::to_vec(&metadata).unwrap();
        warehouse.storage.write(location, text.into()).await.unwrap();
        let ident = TableIdent::from_strs(["cleaned", "t"]).unwrap();
        warehouse.catalog.register_table(&ident, location, false).await.unwrap();
        let ids = "SELECT id FROM cleaned.t ORDER BY id";
        assert_eq!(lake.rows(ids).await, "1; 2; 3");
        // Until it is upgraded it is only read, and upkeep leaves it alone.
        let (store, root) = warehouse.storage.resolve("memory:///w").unwrap();
        let files = futures::StreamExt::count(store.list(Some(&root))).await;
        let error = lake.session.run("INSERT INTO cleaned.t VALUES (4)").await.err().unwrap();
        assert!(error.message.contains("format version 1"), "{error}");
        let named = ["cleaned.t".to_owned()];
        let looked = icefield_compaction::maintain::due(&lake.session, &named).await.unwrap();
        assert!(looked[0].left_alone.is_some() && looked[0].actions.is_empty(), "{looked:?}");
        assert!(looked[0].errors.is_empty(), "{looked:?}");
        assert_eq!(futures::StreamExt::count(store.list(Some(&root))).await, files);

        let upgrade =
            format!("ALTER TABLE cleaned.t SET TBLPROPERTIES ('format-version' = '{version}')");
        lake.run(&upgrade).await;
        lake.run("INSERT INTO cleaned.t VALUES (4)").await;
        lake.run("INSERT INTO cleaned.t VALUES (5)").await;
        let answer = lake.other().run(ids).await.unwrap();
        let icefield_query::Answer::Rows(rows) = answer else { panic!() };
        let batches: Vec<_> = futures::TryStreamExt::try_collect(rows.stream).await.unwrap();
        let count: usize = batches.iter().map(|it: &arrow::array::RecordBatch| it.num_rows()).sum();
        assert_eq!(count, 5, "v{version}");
        if version == "3" {
            let distinct = "SELECT count(DISTINCT _row_id) FROM cleaned.t";
            assert_eq!(lake.rows(distinct).await, "5");
        }
    }
}

#[tokio::test]
async fn t70_the_id_of_a_dropped_column_is_not_given_again() {
    let lake = Lake::with(&[
        "CREATE TABLE cleaned.t (a INT, b STRUCT<x: INT, y: INT>)",
        "ALTER TABLE cleaned.t DROP COLUMN b",
        "ALTER TABLE cleaned.t ADD COLUMN c INT",
    ])
    .await;
    let table = lake.table("cleaned.t").await;
    let id = |name: &str| table.metadata().current_schema().field_id_by_name(name);
    assert_eq!((id("a"), id("c")), (Some(1), Some(5)));
    assert_eq!(table.metadata().last_column_id(), 5);
}

#[tokio::test]
async fn t71_columns_become_required_only_if_no_row_is_null() {
    let lake = Lake::with(&["CREATE TABLE cleaned.t (a INT NOT NULL, b INT)"]).await;
    let error = lake.error("ALTER TABLE cleaned.t ADD COLUMN c INT NOT NULL").await;
    assert!(error.contains("null"), "{error}");
    lake.run("INSERT INTO cleaned.t VALUES (1, NULL)").await;
    let error = lake.error("ALTER TABLE cleaned.t ALTER COLUMN b SET NOT NULL").await;
    assert!(error.contains("null in 1 rows"), "{error}");
    lake.run("DELETE FROM cleaned.t WHERE b IS NULL").await;
    lake.run("ALTER TABLE cleaned.t ALTER COLUMN b SET NOT NULL").await;
    lake.error("INSERT INTO cleaned.t VALUES (1, NULL)").await;
    lake.run("ALTER TABLE cleaned.t ALTER COLUMN a DROP NOT NULL").await;
    lake.run("INSERT INTO cleaned.t VALUES (NULL, 1)").await;
}

#[tokio::test]
async fn t73_partitions_stay_the_same_when_their_column_is_widened() {
    for by in ["k", "bucket(4, k)", "truncate(10, k)"] {
        for version in ["2", "3"] {
            let create = format!(
                "CREATE TABLE cleaned.t (id BIGINT, k INT) PARTITIONED BY ({by}) TBLPROPERTIES \
                 ('format-version' = '{version}', 'write.delete.mode' = 'merge-on-read')"
            );
            let lake = Lake::with(&[
                &create,
                "INSERT INTO cleaned.t VALUES (1, 7), (2, 7), (3, -7)",
                "ALTER TABLE cleaned.t ALTER COLUMN k TYPE BIGINT",
                "INSERT INTO cleaned.t VALUES (4, 7)",
                "DELETE FROM cleaned.t WHERE id = 1",
            ])
            .await;
            let at = "SELECT id FROM cleaned.t WHERE k = 7 ORDER BY id";
            assert_eq!(lake.rows(at).await, "2; 4", "{by} v{version}");
            // Old and new files of the partition are one partition.
            lake.run("INSERT OVERWRITE cleaned.t SELECT 5, 7").await;
            assert_eq!(lake.rows(at).await, "5", "{by} v{version}");
            assert_eq!(lake.rows("SELECT id FROM cleaned.t WHERE k = -7").await, "3");
        }
    }
}

#[tokio::test]
async fn t73_dates_become_the_moments_at_which_they_begin() {
    for by in ["", " PARTITIONED BY (days(d))", " PARTITIONED BY (months(d))"] {
        for (kind, default) in [("TIMESTAMP", " DEFAULT '2000-01-01'"), ("TIMESTAMP_NS", "")] {
            let made = |id: i32| match default {
                "" => format!("INSERT INTO cleaned.t VALUES ({id}, '2000-01-01')"),
                _ => format!("INSERT INTO cleaned.t (id) VALUES ({id})"),
            };
            let create = format!(
                "CREATE TABLE cleaned.t (id BIGINT, d DATE{default}){by} TBLPROPERTIES \
                 ('format-version' = '3', 'write.delete.mode' = 'merge-on-read')"
            );
            let lake = Lake::with(&[
                &create,
                "INSERT INTO cleaned.t VALUES (1, DATE '1969-12-31'), (2, DATE '2024-02-29'), (3, NULL)",
                &made(4),
                "ALTER TABLE cleaned.t CREATE TAG was",
                &format!("ALTER TABLE cleaned.t ALTER COLUMN d TYPE {kind}"),
                "INSERT INTO cleaned.t VALUES (5, TIMESTAMP '2024-02-29 12:00:00')",
                &made(6),
                "DELETE FROM cleaned.t WHERE d = TIMESTAMP '1969-12-31 00:00:00'",
            ])
            .await;
            for (condition, wanted) in [
                ("d = TIMESTAMP '2024-02-29 00:00:00'", "2"),
                ("d >= TIMESTAMP '2024-02-29 00:00:00'", "2; 5"),
                ("d > TIMESTAMP '2024-02-29 00:00:00'", "5"),
                ("d < TIMESTAMP '2024-02-29 12:00:00'", "2; 4; 6"),
                ("d IN (TIMESTAMP '2000-01-01 00:00:00')", "4; 6"),
                ("d IS NULL", "3"),
                ("d < TIMESTAMP '1970-01-01 00:00:00'", ""),
            ] {
                let query = format!("SELECT id FROM cleaned.t WHERE {condition} ORDER BY id");
                assert_eq!(lake.rows(&query).await, wanted, "{by} {kind}: {condition}");
            }
            let past =
                "SELECT id, d FROM cleaned.t FOR VERSION AS OF 'was' WHERE id < 3 ORDER BY id";
            assert_eq!(lake.rows(past).await, "1,1969-12-31; 2,2024-02-29", "{by} {kind}");
            lake.run("UPDATE cleaned.t SET id = 7 WHERE d = TIMESTAMP '2024-02-29 00:00:00'").await;
            let compact = "CALL system.rewrite_data_files(table => 'cleaned.t', options => map('rewrite-all', 'true'))";
            lake.run(compact).await;
            let rows =
                "SELECT id FROM cleaned.t WHERE d >= TIMESTAMP '2024-02-29 00:00:00' ORDER BY id";
            assert_eq!(lake.rows(rows).await, "5; 7", "{by} {kind}");
        }
    }
}

#[tokio::test]
async fn t73_dates_that_cannot_be_timestamps_stay_dates() {
    for (create, why) in [
        ("(d DATE) TBLPROPERTIES ('format-version' = '2')", "only in tables of version 3"),
        (
            "(d DATE) PARTITIONED BY (d) TBLPROPERTIES ('format-version' = '3')",
            "partition field `d`",
        ),
        (
            "(d DATE, id INT) PARTITIONED BY (bucket(4, d)) TBLPROPERTIES ('format-version' = '3')",
            "by bucket[4]",
        ),
    ] {
        let lake = Lake::with(&[&format!("CREATE TABLE cleaned.t {create}")]).await;
        let error = lake.error("ALTER TABLE cleaned.t ALTER COLUMN d TYPE TIMESTAMP").await;
        assert!(error.contains(why), "{error}");
    }
    let lake = Lake::with(&[
        "CREATE TABLE cleaned.t (d DATE) TBLPROPERTIES ('format-version' = '3')",
        "INSERT INTO cleaned.t VALUES (DATE '9999-12-31')",
    ])
    .await;
    let error = lake.error("ALTER TABLE cleaned.t ALTER COLUMN d TYPE TIMESTAMPTZ").await;
    assert!(error.contains("cannot become timestamptz"), "{error}");
    lake.run("ALTER TABLE cleaned.t ALTER COLUMN d TYPE TIMESTAMP_NS").await;
    // Nanoseconds do not reach that far: an error, and no other moment.
    lake.error("SELECT d FROM cleaned.t").await;
    assert_eq!(
        lake.rows("SELECT count(*) FROM cleaned.t WHERE d < TIMESTAMP '2000-01-01'").await,
        "0"
    );
}

#[tokio::test]
async fn t74_files_without_a_column_have_its_initial_default() {
    let lake = Lake::with(&[
        "CREATE TABLE cleaned.t (id BIGINT) TBLPROPERTIES ('format-version' = '3')",
        "INSERT INTO cleaned.t VALUES (1)",
    ])
    .await;
    let number = |it| Literal::Primitive(PrimitiveLiteral::Int(it));
    let new = NestedField::optional(2, "n", Type::Primitive(PrimitiveType::Int))
        .with_initial_default(number(34));
    let id = NestedField::optional(1, "id", Type::Primitive(PrimitiveType::Long));
    set_columns(&lake, vec![id, new]).await;
    lake.run("INSERT INTO cleaned.t VALUES (2, NULL), (3, 5)").await;
    let rows = "SELECT id, n FROM cleaned.t ORDER BY id";
    assert_eq!(lake.rows(rows).await, "1,34; 2,NULL; 3,5", "null is a value, not a gap");
    assert_eq!(lake.rows("SELECT id FROM cleaned.t WHERE n = 34").await, "1");
    assert_eq!(lake.rows("SELECT id FROM cleaned.t WHERE n IS NULL").await, "2");
}

#[tokio::test]
async fn t74_columns_that_an_insert_leaves_out_have_their_write_default() {
    let lake =
        Lake::with(&["CREATE TABLE cleaned.t (id BIGINT) TBLPROPERTIES ('format-version' = '3')"])
            .await;
    let number = |it| Literal::Primitive(PrimitiveLiteral::Int(it));
    let new = NestedField::optional(2, "n", Type::Primitive(PrimitiveType::Int))
        .with_initial_default(number(34))
        .with_write_default(number(35));
    let id = NestedField::optional(1, "id", Type::Primitive(PrimitiveType::Long));
    set_columns(&lake, vec![id, new]).await;
    for sql in [
        "INSERT INTO cleaned.t (id) VALUES (2)",
        "INSERT INTO cleaned.t VALUES (3, NULL)",
        "MERGE INTO cleaned.t t USING (SELECT 4 AS id) s ON t.id = s.id WHEN NOT MATCHED THEN INSERT \
         (id) VALUES (s.id)",
        "UPDATE cleaned.t SET n = 1 WHERE id = 4",
        "UPDATE cleaned.t SET n = DEFAULT WHERE id = 4",
    ] {
        lake.run(sql).await;
    }
    assert_eq!(lake.rows("SELECT id, n FROM cleaned.t ORDER BY id").await, "2,35; 3,NULL; 4,35");
    lake.run("INSERT OVERWRITE cleaned.t (id) SELECT 5").await;
    assert_eq!(lake.rows("SELECT id, n FROM cleaned.t").await, "5,35");
}

#[tokio::test]
async fn t75_a_column_that_a_file_lacks_has_the_value_of_its_partition() {
    let lake = Lake::with(&[
        "CREATE TABLE cleaned.t (id BIGINT, k INT) PARTITIONED BY (k)",
        "INSERT INTO cleaned.t VALUES (1, 1)",
        "CREATE TABLE cleaned.migrated AS SELECT CAST(2 AS BIGINT) AS id",
    ])
    .await;
    let mut file = lake.file("cleaned.migrated").await;
    file.partition = vec![Some(PrimitiveLiteral::Int(7))];
    lake.foreign("cleaned.t", &[file], |_| {}).await;
    assert_eq!(lake.rows("SELECT id, k FROM cleaned.t ORDER BY id").await, "1,1; 2,7");
    assert_eq!(lake.rows("SELECT id FROM cleaned.t WHERE k = 7").await, "2");
}

#[tokio::test]
async fn t76_names_are_mapped_only_in_files_without_any_ids() {
    let lake = Lake::with(&["CREATE TABLE cleaned.t AS SELECT 1 AS a, 2 AS b"]).await;
    let mapping = json!([{"field-id": 2, "names": ["a"]}, {"field-id": 1, "names": ["b"]}]);
    lake.run(&format!(
        "ALTER TABLE cleaned.t SET TBLPROPERTIES ('schema.name-mapping.default' = '{mapping}')"
    ))
    .await;
    assert_eq!(lake.rows("SELECT a, b FROM cleaned.t").await, "1,2");
    assert_eq!(lake.rows("SELECT a FROM cleaned.t WHERE b = 2").await, "1");
}

#[tokio::test]
async fn t77_names_that_differ_by_case_are_two_columns() {
    let lake = Lake::with(&["CREATE TABLE cleaned.t AS SELECT 1 AS a, 2 AS b"]).await;
    let field = |id, name| NestedField::optional(id, name, Type::Primitive(PrimitiveType::Long));
    set_columns(&lake, vec![field(1, "a"), field(2, "A")]).await;
    assert_eq!(lake.rows("SELECT * FROM cleaned.t").await, "1,2");
}

#[tokio::test]
async fn t78_newer_types_need_the_newer_format_and_there_is_no_way_back() {
    let lake = Lake::with(&["CREATE TABLE cleaned.t (id BIGINT)"]).await;
    let add = "ALTER TABLE cleaned.t ADD COLUMN ns TIMESTAMP(9)";
    let error = lake.error(add).await;
    assert!(error.contains("v3"), "{error}");
    lake.run("ALTER TABLE cleaned.t SET TBLPROPERTIES ('format-version' = '3')").await;
    lake.run(add).await;
    lake.error("ALTER TABLE cleaned.t SET TBLPROPERTIES ('format-version' = '2')").await;
    lake.run("INSERT INTO cleaned.t VALUES (1, TIMESTAMP '2026-01-01 00:00:00')").await;
    assert_eq!(lake.rows("SELECT count(ns) FROM cleaned.t").await, "1");
}

#[tokio::test]
async fn t89_void_partitions_nothing_and_is_still_a_value() {
    let lake =
        Lake::with(&["CREATE TABLE cleaned.t (id BIGINT)", "INSERT INTO cleaned.t VALUES (1)"])
            .await;
    let spec = UnboundPartitionSpec::builder().add_partition_field(1, "id_void", Transform::Void);
    let spec = spec.unwrap().build();
    let updates = vec![TableUpdate::AddSpec { spec }, TableUpdate::SetDefaultSpec { spec_id: -1 }];
    lake.update("cleaned.t", updates).await;
    lake.run("INSERT INTO cleaned.t VALUES (2), (3)").await;
    assert_eq!(lake.rows("SELECT id FROM cleaned.t WHERE id > 1 ORDER BY id").await, "2; 3");
    let table = lake.table("cleaned.t").await;
    let values: Vec<_> =
        entries(&table).await.into_iter().map(|(_, it)| it.file.partition).collect();
    assert_eq!(values, [vec![None], vec![]]);
}
