//! Properties: rows come back as they went in, and no predicate ever loses a row to pruning.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    TimestampNanosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::datasource::MemTable;
use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use icefield_catalog::spec::{Datum, PrimitiveLiteral, PrimitiveType, Transform};
use icefield_catalog::{Env, Storage};
use icefield_query::{Answer, Session};
use icefield_table::manifest::columns::bounds_array;
use icefield_tests::{memory_warehouse, settings};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

type Row = (Option<i64>, Option<String>, Option<f64>, Option<i64>);

fn row() -> impl Strategy<Value = Row> {
    let number = prop_oneof![-5..5_i64, any::<i64>()];
    let text = prop_oneof![
        "[ab]{0,3}",
        "prefix-that-is-long-[a-c]{1,2}",
        Just("\u{10ffff}\u{10ffff}".repeat(10)),
        any::<String>()
    ];
    let float = prop_oneof![Just(f64::NAN), Just(-0.0), Just(0.0), -3.0..3.0_f64];
    // Years 1800 to 2200.
    let time = -5_364_662_400_000_000..7_258_118_400_000_000_i64;
    (
        prop::option::of(number),
        prop::option::of(text),
        prop::option::of(float),
        prop::option::of(prop_oneof![time, -3_600_000_000..3_600_000_000_i64]),
    )
}

fn predicate() -> impl Strategy<Value = String> {
    let compare = prop_oneof![Just("="), Just("<>"), Just("<"), Just("<="), Just(">"), Just(">=")];
    let quoted = |it: &str| format!("'{}'", it.replace('\'', "''"));
    let one = prop_oneof![
        (compare.clone(), -6..6_i64).prop_map(|(op, it)| format!("i {op} {it}")),
        (compare.clone(), row()).prop_map(move |(op, it)| match it.1 {
            Some(text) => format!("s {op} {}", quoted(&text)),
            None => "s IS NULL".to_owned(),
        }),
        "[ab]{1,2}".prop_map(|it| format!("s LIKE '{it}%'")),
        (compare.clone(), -3..3_i64).prop_map(|(op, it)| format!("d {op} {it}")),
        (compare, -100_000..100_000_i64)
            .prop_map(|(op, it)| format!("t {op} to_timestamp_micros({it} * 60000000)")),
        prop::collection::vec(-6..6_i64, 1..4).prop_map(|all| format!("i IN ({})", list(&all))),
        prop::collection::vec(-6..6_i64, 1..4).prop_map(|all| format!("i NOT IN ({})", list(&all))),
        prop_oneof![Just("i IS NULL"), Just("d IS NOT NULL"), Just("t IS NULL")]
            .prop_map(str::to_owned),
    ];
    (one.clone(), one, prop_oneof![Just("AND"), Just("OR"), Just("AND NOT")])
        .prop_map(|(a, b, op)| format!("({a}) {op} ({b})"))
}

fn list(all: &[i64]) -> String {
    all.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")
}

fn batch(rows: &[Row]) -> RecordBatch {
    let time = DataType::Timestamp(TimeUnit::Microsecond, None);
    let schema = Schema::new(vec![
        Field::new("i", DataType::Int64, true),
        Field::new("s", DataType::Utf8, true),
        Field::new("d", DataType::Float64, true),
        Field::new("t", time, true),
    ]);
    RecordBatch::try_new(
        Arc::new(schema),
        vec![
            Arc::new(rows.iter().map(|it| it.0).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|it| it.1.clone()).collect::<StringArray>()),
            Arc::new(rows.iter().map(|it| it.2).collect::<Float64Array>()),
            Arc::new(rows.iter().map(|it| it.3).collect::<TimestampMicrosecondArray>()),
        ],
    )
    .unwrap()
}

/// Rows as comparable text, in any order.
pub(crate) fn texts(batches: &[RecordBatch]) -> Vec<String> {
    use arrow::util::display::{ArrayFormatter, FormatOptions};
    let mut all = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter().map(|array| {
                let options = FormatOptions::new().with_null("NULL");
                ArrayFormatter::try_new(array, &options).unwrap().value(row).to_string()
            });
            all.push(cells.collect::<Vec<_>>().join("|"));
        }
    }
    all.sort();
    all
}

pub(crate) async fn query(session: &Session, sql: &str) -> Vec<RecordBatch> {
    match session.run(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")) {
        Answer::Rows(rows) => rows.stream.try_collect().await.unwrap(),
        Answer::Done(_) => Vec::new(),
    }
}

/// Writes rows into `cleaned.t`.
pub(crate) async fn write(session: &Session, batch: &RecordBatch) {
    let table = session.table("cleaned.t").await.unwrap();
    let memory = datafusion::datasource::memory::MemorySourceConfig::try_new_exec(
        &[vec![batch.clone()]],
        batch.schema(),
        None,
    );
    let done = icefield_query::write_rows(session, memory.unwrap(), &table, Default::default());
    done.await.unwrap();
}

async fn check(files: Vec<Vec<Row>>, spec: &str, predicates: Vec<String>) {
    let tables = memory_warehouse(Storage::new(), Env::real(), |it| it);
    let session = Session::new(tables, settings()).unwrap();
    query(&session, "CREATE NAMESPACE cleaned").await;
    let create =
        format!("CREATE TABLE cleaned.t (i BIGINT, s STRING, d DOUBLE, t TIMESTAMP) {spec}");
    query(&session, &create).await;
    // As it is written: DataFusion's optimizer takes some conditions for true that are null.
    let state = SessionStateBuilder::new().with_default_features().with_optimizer_rules(Vec::new());
    let plain = SessionContext::new_with_state(state.build());
    let mut all = Vec::new();
    for rows in &files {
        let batch = batch(rows);
        all.push(batch.clone());
        write(&session, &batch).await;
    }
    let schema = batch(&[]).schema();
    let memory = MemTable::try_new(schema, vec![all.clone()]).unwrap();
    plain.register_table("t", Arc::new(memory)).unwrap();
    let read = query(&session, "SELECT * FROM cleaned.t").await;
    assert_eq!(texts(&read), texts(&all), "what comes back is not what went in: {spec}");
    for predicate in predicates {
        let wanted = plain.sql(&format!("SELECT * FROM t WHERE {predicate}")).await.unwrap();
        let wanted = texts(&wanted.collect().await.unwrap());
        let found = query(&session, &format!("SELECT * FROM cleaned.t WHERE {predicate}")).await;
        assert_eq!(texts(&found), wanted, "{spec} WHERE {predicate}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, rng_seed: RngSeed::Fixed(20_261_122), ..ProptestConfig::default() })]

    #[test]
    fn pruning_never_loses_a_row(
        files in prop::collection::vec(prop::collection::vec(row(), 1..5), 1..6),
        spec in prop_oneof![
            Just(""), Just("PARTITIONED BY (s)"), Just("PARTITIONED BY (bucket(3, i))"),
            Just("PARTITIONED BY (truncate(2, s))"), Just("PARTITIONED BY (truncate(10, i))"),
            Just("PARTITIONED BY (day(t))"), Just("PARTITIONED BY (hour(t), bucket(2, s))"),
            Just("PARTITIONED BY (year(t))"), Just("PARTITIONED BY (month(t))"),
            Just("PARTITIONED BY (d) ORDERED BY (s DESC, i)"),
            Just("TBLPROPERTIES ('format-version' = '3', 'write.metadata.metrics.default' = 'full')"),
            Just("TBLPROPERTIES ('write.parquet.bloom-filter-enabled.column.s' = 'true')"),
        ],
        predicates in prop::collection::vec(predicate(), 4..10),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2)
            .thread_stack_size(8 << 20).enable_all().build().unwrap();
        runtime.block_on(check(files, spec, predicates));
    }
}

#[test]
fn t72_bounds_of_widened_columns_are_read_by_their_length() {
    let raw = |it: &[u8]| vec![Some(it.to_vec().into())];
    let long = bounds_array(&PrimitiveType::Long, &raw(&7_i32.to_le_bytes()), true);
    assert_eq!(long.as_ref(), &Int64Array::from(vec![7]));
    let double = bounds_array(&PrimitiveType::Double, &raw(&1.5_f32.to_le_bytes()), true);
    assert_eq!(double.as_ref(), &Float64Array::from(vec![1.5]));
    let odd = bounds_array(&PrimitiveType::Long, &raw(&[1, 2, 3]), true);
    assert_eq!(odd.null_count(), 1, "what does not fit is unknown");
}

#[test]
fn t86_buckets_are_those_of_the_specification() {
    let bucket = |datum: Datum| {
        let all =
            iceberg::transform::create_transform_function(&Transform::Bucket(i32::MAX as u32));
        match all.unwrap().transform_literal(&datum).unwrap().unwrap().literal() {
            PrimitiveLiteral::Int(bucket) => *bucket,
            other => panic!("{other:?}"),
        }
    };
    let of = |hash: i32| (hash & i32::MAX) % i32::MAX;
    assert_eq!(bucket(Datum::int(34)), of(2_017_239_379));
    assert_eq!(bucket(Datum::long(34)), of(2_017_239_379));
    assert_eq!(bucket(Datum::string("iceberg")), of(1_210_000_089));
    assert_eq!(bucket(Datum::date(17_486)), of(-653_330_422));
    assert_eq!(bucket(Datum::binary([0, 1, 2, 3])), of(-188_683_207));
    assert_eq!(bucket(Datum::fixed([0, 1, 2, 3])), of(-188_683_207));
    let decimal = Datum::decimal_from_str("14.20").unwrap();
    assert_eq!(bucket(decimal), of(-500_754_589));
    assert_eq!(bucket(Datum::time_from_hms_micro(22, 31, 8, 0).unwrap()), of(-662_762_989));
    let timestamp = Datum::timestamp_from_str("2017-11-16T22:31:08").unwrap();
    assert_eq!(bucket(timestamp), of(-2_047_944_441));
    let zoned = Datum::timestamptz_from_str("2017-11-16T14:31:08-08:00").unwrap();
    assert_eq!(bucket(zoned), of(-2_047_944_441));
    let uuid = Datum::uuid_from_str("f79c3e09-677c-4bbd-a479-3f349cb785e7").unwrap();
    assert_eq!(bucket(uuid), of(1_488_055_340));
}

#[test]
fn t86_nanoseconds_have_the_buckets_of_their_microseconds() {
    let nanos = [-1_i64, -500, -999, -1000, -1001, 0, 1, 999, 1000, i64::MIN, i64::MAX];
    let micros = nanos.map(|it| it.div_euclid(1000));
    let nanos: ArrayRef = Arc::new(TimestampNanosecondArray::from(nanos.to_vec()));
    let micros: ArrayRef = Arc::new(TimestampMicrosecondArray::from(micros.to_vec()));
    for of in [
        Transform::Bucket(1000),
        Transform::Year,
        Transform::Month,
        Transform::Day,
        Transform::Hour,
    ] {
        let apply = |array: &ArrayRef| icefield_table::partition::transform(&of, array).unwrap();
        assert_eq!(&apply(&nanos), &apply(&micros), "{of}");
    }
}

#[test]
fn t86_truncation_and_dates_are_those_of_the_specification() {
    let apply = |transform: Transform, datum: Datum| {
        let made = iceberg::transform::create_transform_function(&transform).unwrap();
        made.transform_literal(&datum).unwrap().unwrap().to_string()
    };
    let ten = || Transform::Truncate(10);
    for (number, wanted) in [(1, "0"), (-1, "-10"), (10, "10"), (-10, "-10"), (-11, "-20")] {
        assert_eq!(apply(ten(), Datum::int(number)), wanted);
        assert_eq!(apply(ten(), Datum::long(i64::from(number))), wanted);
    }
    let decimal = |text: &str| Datum::decimal_from_str(text).unwrap();
    assert_eq!(apply(Transform::Truncate(50), decimal("10.65")), "1050");
    assert_eq!(apply(Transform::Truncate(50), decimal("-0.05")), "-50");
    assert_eq!(apply(Transform::Truncate(3), Datum::string("iceberg")), "\"ice\"");
    let date = || Datum::date_from_str("1969-12-31").unwrap();
    for (transform, wanted) in
        [(Transform::Year, "-1"), (Transform::Month, "-1"), (Transform::Day, "1969-12-31")]
    {
        assert_eq!(apply(transform, date()), wanted);
    }
    let hour = Datum::timestamp_from_str("1969-12-31T23:59:59.999999").unwrap();
    assert_eq!(apply(Transform::Hour, hour), "-1");
}
