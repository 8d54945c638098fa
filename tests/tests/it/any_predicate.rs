//! No predicate prunes a row that it holds for: over columns of every type, under every transform that the type
//! has, with the bounds that our writer gives. What it holds for is asked without a filter.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use icefield_catalog::{Env, Storage};
use icefield_query::Session;
use icefield_table::arrow as shapes;
use icefield_tests::{memory_warehouse, settings};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::any_schema::values;
use crate::changes::Dice;
use crate::properties::{query, write};

/// Types, and the transforms that each has.
const KINDS: [(&str, &[&str]); 16] = [
    ("BOOLEAN", &["c"]),
    ("INT", &["c", "bucket(3, c)", "truncate(7, c)"]),
    ("BIGINT", &["c", "bucket(3, c)"]),
    ("FLOAT", &[]),
    ("DOUBLE", &[]),
    ("DECIMAL(9, 2)", &["c", "bucket(3, c)", "truncate(50, c)"]),
    ("DECIMAL(38, 10)", &["c", "bucket(3, c)"]),
    ("DATE", &["c", "bucket(3, c)", "year(c)", "month(c)", "day(c)"]),
    ("TIME", &["c", "bucket(3, c)"]),
    ("TIMESTAMP", &["c", "bucket(3, c)", "year(c)", "month(c)", "day(c)", "hour(c)"]),
    ("TIMESTAMPTZ", &["c", "bucket(3, c)", "year(c)", "hour(c)"]),
    ("TIMESTAMP(9)", &["c", "bucket(3, c)", "month(c)", "hour(c)"]),
    ("STRING", &["c", "bucket(3, c)", "truncate(2, c)"]),
    ("UUID", &["c", "bucket(3, c)"]),
    ("FIXED(3)", &["c", "bucket(3, c)"]),
    ("BINARY", &["c", "bucket(3, c)", "truncate(2, c)"]),
];

/// A value of a column as SQL writes it.
fn literal(kind: &str, array: &ArrayRef, row: usize) -> String {
    if array.is_null(row) {
        return "NULL".to_owned();
    }
    let hex = |bytes: &[u8]| bytes.iter().map(|it| format!("{it:02x}")).collect::<String>();
    match array.data_type() {
        DataType::FixedSizeBinary(16) => {
            format!("CAST('{}' AS UUID)", hex(array.as_fixed_size_binary().value(row)))
        }
        DataType::FixedSizeBinary(_) => {
            format!("X'{}'", hex(array.as_fixed_size_binary().value(row)))
        }
        DataType::BinaryView => format!("X'{}'", hex(array.as_binary_view().value(row))),
        _ => {
            let options = FormatOptions::new();
            let text = ArrayFormatter::try_new(array, &options).unwrap().value(row).to_string();
            format!("CAST('{}' AS {kind})", text.replace('\'', "''"))
        }
    }
}

fn ids(batches: &[RecordBatch]) -> BTreeSet<i64> {
    let ids = batches.iter().flat_map(|it| it.column(0).as_primitive::<Int64Type>().values());
    ids.copied().collect()
}

async fn check(kind: &str, transform: Option<&str>, rows: usize, seed: u64) {
    let tables = memory_warehouse(Storage::new(), Env::real(), |it| it);
    let session = Session::new(tables, settings()).unwrap();
    query(&session, "CREATE NAMESPACE cleaned").await;
    let partitioned = transform.map_or(String::new(), |it| format!("PARTITIONED BY ({it})"));
    let create = format!(
        "CREATE TABLE cleaned.t (id BIGINT, c {kind}) {partitioned} TBLPROPERTIES ('format-version' = '3', \
         'write.parquet.bloom-filter-enabled.column.c' = 'true')"
    );
    query(&session, &create).await;
    let table = session.table("cleaned.t").await.unwrap();
    let schema = table.metadata().current_schema();
    let seen = shapes::schema(schema);
    let mut dice = Dice(seed | 1);
    let mut literals = Vec::new();
    for file in 0..4 {
        let first = file * rows as i64;
        let field = &schema.as_struct().fields()[1];
        let of_column = values(field, seen.field(1).data_type(), rows, &mut dice);
        literals.extend((0..rows).map(|row| literal(kind, &of_column, row)));
        let of_ids: ArrayRef = Arc::new(Int64Array::from_iter_values(first..first + rows as i64));
        let batch = RecordBatch::try_new(Arc::clone(&seen), vec![of_ids, of_column]).unwrap();
        write(&session, &batch).await;
    }
    for _ in 0..12 {
        let mut some = || literals[dice.roll(literals.len() as u64) as usize].clone();
        let (one, other) = (some(), some());
        let predicate = match dice.roll(9) {
            0 => format!("c = {one}"),
            1 => format!("c <> {one}"),
            2 => format!("c < {one}"),
            3 => format!("c <= {one} AND NOT (c = {other})"),
            4 => format!("c > {one} OR c = {other}"),
            5 => format!("NOT (c >= {one})"),
            6 => format!("c BETWEEN {one} AND {other}"),
            7 => format!("c IN ({one}, {other}) OR c IS NULL"),
            _ => format!("c NOT IN ({one}, {other})"),
        };
        let sql = format!("SELECT id FROM cleaned.t WHERE {predicate}");
        let found = ids(&query(&session, &sql).await);
        let all = format!("SELECT id, {predicate} AS holds FROM cleaned.t");
        let mut wanted = BTreeSet::new();
        for batch in query(&session, &all).await {
            let holds = batch.column(1).as_boolean();
            let ids = batch.column(0).as_primitive::<Int64Type>();
            let holding =
                (0..batch.num_rows()).filter(|it| holds.is_valid(*it) && holds.value(*it));
            wanted.extend(holding.map(|it| ids.value(it)));
        }
        assert_eq!(found, wanted, "{predicate}: {create}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, failure_persistence: None, rng_seed: RngSeed::Fixed(20_261_127), ..ProptestConfig::default() })]

    #[test]
    fn no_predicate_over_any_type_prunes_a_row(
        kind in prop::sample::select(KINDS.to_vec()),
        transform in any::<prop::sample::Index>(),
        rows in 1..12_usize,
        seed in any::<u64>(),
    ) {
        let (kind, transforms) = kind;
        // Not partitioned, too.
        let transform = transforms.get(transform.index(transforms.len() + 1)).copied();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2)
            .thread_stack_size(8 << 20).enable_all().build().unwrap();
        runtime.block_on(check(kind, transform, rows, seed));
    }
}
