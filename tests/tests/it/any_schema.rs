//! Any schema and rows that are written come back equal: as they were inserted, and after row changes of every
//! kind, both ways of deleting, as the same changes of rows in memory have it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray,
    Float32Array, Float64Array, Int32Array, Int64Array, ListArray, MapArray, NullArray,
    RecordBatch, StringArray, StructArray, Time64MicrosecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Fields};
use icefield_catalog::spec::{NestedField, PrimitiveType, Type, V3Type};
use icefield_catalog::{Env, Storage};
use icefield_query::Session;
use icefield_table::arrow as shapes;
use icefield_tests::{memory_warehouse, settings};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::changes::Dice;
use crate::properties::{query, texts, write};

/// A column's type as SQL writes it; `format-version` 3 has some more.
fn kind(is_v3: bool) -> impl Strategy<Value = String> {
    let mut simple: Vec<&str> = vec![
        "BOOLEAN",
        "INT",
        "BIGINT",
        "FLOAT",
        "DOUBLE",
        "DECIMAL(9, 2)",
        "DECIMAL(18, 0)",
        "DECIMAL(38, 10)",
        "DATE",
        "TIME",
        "TIMESTAMP",
        "TIMESTAMPTZ",
        "STRING",
        "UUID",
        "FIXED(3)",
        "BINARY",
    ];
    if is_v3 {
        simple.extend(["TIMESTAMP(9)", "TIMESTAMPTZ(9)", "VARIANT", "GEOMETRY"]);
    }
    let leaf = prop::sample::select(simple).prop_map(str::to_owned);
    leaf.prop_recursive(3, 8, 3, |inner| {
        let key = prop::sample::select(vec!["STRING", "INT", "BIGINT", "DATE"]);
        let field = (inner.clone(), prop::bool::weighted(0.3));
        prop_oneof![
            inner.clone().prop_map(|it| format!("ARRAY<{it}>")),
            (key, inner).prop_map(|(key, it)| format!("MAP<{key}, {it}>")),
            prop::collection::vec(field, 1..4).prop_map(|fields| {
                let fields = fields.iter().enumerate().map(|(place, (kind, required))| {
                    format!("f{place}: {kind}{}", if *required { " NOT NULL" } else { "" })
                });
                format!("STRUCT<{}>", fields.collect::<Vec<_>>().join(", "))
            }),
        ]
    })
}

/// Values of a type, in the shape that queries have it in.
pub(crate) fn values(field: &NestedField, to: &DataType, rows: usize, dice: &mut Dice) -> ArrayRef {
    let nulls: Vec<bool> = (0..rows).map(|_| !field.required && dice.roll(4) == 0).collect();
    let nulls = NullBuffer::from_iter(nulls.iter().map(|it| !it));
    let array: ArrayRef = match (field.field_type.as_ref(), to) {
        (Type::Primitive(kind), _) => primitive(kind, &nulls, dice),
        (Type::Struct(of), DataType::Struct(fields)) => {
            let inner = of.fields().iter().zip(fields);
            let inner =
                inner.map(|(field, to)| values(field, to.data_type(), rows, dice)).collect();
            Arc::new(StructArray::new(fields.clone(), inner, Some(nulls)))
        }
        (Type::List(of), DataType::List(element)) => {
            let offsets = lengths(&nulls, dice);
            let count = *offsets.last().unwrap() as usize;
            let inner = values(&of.element_field, element.data_type(), count, dice);
            Arc::new(ListArray::new(Arc::clone(element), offsets, inner, Some(nulls)))
        }
        (Type::Map(of), DataType::Map(entries, sorted)) => {
            let offsets = lengths(&nulls, dice);
            let count = *offsets.last().unwrap() as usize;
            let DataType::Struct(pair) = entries.data_type() else { panic!("{entries}") };
            // Keys differ within a map.
            let keys = Int32Array::from_iter_values(0..count as i32);
            let keys = cast(&keys, pair[0].data_type()).unwrap();
            let inner = values(&of.value_field, pair[1].data_type(), count, dice);
            let pair = StructArray::new(Fields::clone(pair), vec![keys, inner], None);
            Arc::new(MapArray::new(Arc::clone(entries), offsets, pair, Some(nulls), *sorted))
        }
        (kind, to) => panic!("{kind} as {to}"),
    };
    if array.data_type() == to { array } else { cast(&array, to).unwrap() }
}

fn lengths(nulls: &NullBuffer, dice: &mut Dice) -> OffsetBuffer<i32> {
    OffsetBuffer::from_lengths(nulls.iter().map(|it| if it { dice.roll(4) as usize } else { 0 }))
}

fn primitive(kind: &PrimitiveType, nulls: &NullBuffer, dice: &mut Dice) -> ArrayRef {
    macro_rules! each {
        ($array:ident, $value:expr) => {
            Arc::new($array::from_iter(nulls.iter().map(|it| it.then(|| $value)))) as ArrayRef
        };
    }
    let mut any = || {
        let extremes = [0, 1, -1, i64::MAX, i64::MIN, 1 << 40];
        match dice.roll(3) {
            0 => extremes[dice.roll(extremes.len() as u64) as usize],
            1 => dice.roll(10) as i64 - 5,
            _ => (dice.roll(1 << 32) << 32 | dice.roll(1 << 32)).cast_signed(),
        }
    };
    // Years 1 to 9999, in days and in microseconds.
    let day = |it: i64| (it.rem_euclid(3_652_059) - 719_162) as i32;
    let micros = |it: i64| i64::from(day(it)) * 86_400_000_000 + it.rem_euclid(86_400_000_000);
    if let Some(kind) = V3Type::of(kind) {
        return match kind {
            V3Type::Unknown => Arc::new(NullArray::new(nulls.len())),
            V3Type::Variant => {
                let json = each!(StringArray, json(any()));
                icefield_query::variant::from_json(&json, false).unwrap()
            }
            _ => each!(
                BinaryArray,
                icefield_query::geo::from_text(&format!("POINT ({} 0.5)", any())).unwrap()
            ),
        };
    }
    match kind {
        PrimitiveType::Boolean => each!(BooleanArray, any() % 2 == 0),
        PrimitiveType::Int => each!(Int32Array, any() as i32),
        PrimitiveType::Long => each!(Int64Array, any()),
        PrimitiveType::Float => each!(Float32Array, f32::from_bits(any() as u32)),
        PrimitiveType::Double => each!(Float64Array, f64::from_bits(any().cast_unsigned())),
        PrimitiveType::Decimal { precision, scale } => {
            let limit = 10_i128.pow(*precision);
            let all = each!(Decimal128Array, (i128::from(any()) * i128::from(any())) % limit);
            let to = DataType::Decimal128(*precision as u8, *scale as i8);
            arrow::array::make_array(all.to_data().into_builder().data_type(to).build().unwrap())
        }
        PrimitiveType::Date => each!(Date32Array, day(any())),
        PrimitiveType::Time => each!(Time64MicrosecondArray, any().rem_euclid(86_400_000_000)),
        PrimitiveType::Timestamp | PrimitiveType::Timestamptz => {
            let to = shapes::primitive_type(kind);
            cast(&each!(Int64Array, micros(any())), &to).unwrap()
        }
        PrimitiveType::TimestampNs | PrimitiveType::TimestamptzNs => {
            let to = shapes::primitive_type(kind);
            cast(&each!(Int64Array, any()), &to).unwrap()
        }
        PrimitiveType::String => each!(StringArray, text(any())),
        PrimitiveType::Binary => each!(BinaryArray, text(any()).into_bytes()),
        PrimitiveType::Uuid | PrimitiveType::Fixed(_) => {
            let length = if *kind == PrimitiveType::Uuid { 16 } else { 3 };
            let values = nulls.iter().map(|it| {
                it.then(|| [any().to_be_bytes(), any().to_be_bytes()].concat()[..length].to_vec())
            });
            let all: Vec<_> = values.collect();
            Arc::new(
                FixedSizeBinaryArray::try_from_sparse_iter_with_size(
                    all.into_iter(),
                    length as i32,
                )
                .unwrap(),
            )
        }
    }
}

/// Values of every kind that JSON has.
fn json(it: i64) -> String {
    let text = serde_json::Value::from(text(it));
    match it.rem_euclid(6) {
        0 => "null".to_owned(),
        1 => it.to_string(),
        2 => text.to_string(),
        3 => format!("[{it}, {text}, []]"),
        4 => format!("{{\"b\": {it}, \"a\": {{\"c\": [{text}]}}}}"),
        _ => format!("{{\"{it}\": true, \"\": 1.5}}"),
    }
}

/// Short and long texts, empty ones, and such as are hard to put in order.
fn text(it: i64) -> String {
    match it.rem_euclid(5) {
        0 => String::new(),
        1 => "\u{10ffff}".repeat(1 + (it.rem_euclid(20)) as usize),
        2 => format!("{it}'\"\\\n\0"),
        3 => "long ".repeat(40) + &it.to_string(),
        _ => it.to_string(),
    }
}

async fn check(kinds: Vec<(String, bool)>, version: u8, rows: usize, seed: u64) {
    let tables = memory_warehouse(Storage::new(), Env::real(), |it| it);
    let session = Session::new(tables, settings()).unwrap();
    query(&session, "CREATE NAMESPACE cleaned").await;
    let columns = kinds.iter().enumerate().map(|(place, (kind, required))| {
        format!("c{place} {kind}{}", if *required { " NOT NULL" } else { "" })
    });
    let columns = columns.collect::<Vec<_>>().join(", ");
    let mode = if seed.is_multiple_of(2) { "copy-on-write" } else { "merge-on-read" };
    let create = format!(
        "CREATE TABLE cleaned.t ({columns}, id BIGINT) TBLPROPERTIES ('format-version' = '{version}', \
         'write.update.mode' = '{mode}', 'write.delete.mode' = '{mode}', 'write.merge.mode' = '{mode}')"
    );
    query(&session, &create).await;
    let table = session.table("cleaned.t").await.unwrap();
    let schema = table.metadata().current_schema();
    let seen = shapes::schema(schema);
    let mut dice = Dice(seed | 1);
    let mut all = Vec::new();
    for number in 0..2 {
        let fields = schema.as_struct().fields().iter().zip(seen.fields());
        let columns = fields.map(|(field, to)| match field.name.as_str() {
            "id" => {
                let first = number * rows as i64;
                Arc::new(Int64Array::from_iter_values(first..first + rows as i64)) as ArrayRef
            }
            _ => values(field, to.data_type(), rows, &mut dice),
        });
        let columns = columns.collect();
        let batch = RecordBatch::try_new(Arc::clone(&seen), columns).unwrap();
        write(&session, &batch).await;
        all.push(batch);
    }
    let wanted = texts(&all);
    let read = query(&session, "SELECT * FROM cleaned.t").await;
    assert_eq!(texts(&read), wanted, "as inserted: {create}");
    let snapshots = query(&session, "SELECT max(snapshot_id) FROM cleaned.t.refs").await;
    let first = texts(&snapshots).remove(0);
    change(&session, kinds.len(), by_id(&all), &create).await;
    let past = format!("SELECT * FROM cleaned.t FOR VERSION AS OF {first}");
    assert_eq!(texts(&query(&session, &past).await), wanted, "the past: {create}");
}

/// Rows by their id, which is the last column; the others as text.
fn by_id(batches: &[RecordBatch]) -> BTreeMap<i64, String> {
    let rows = texts(batches).into_iter().map(|row| {
        let (others, id) = row.rsplit_once('|').unwrap();
        (id.parse().unwrap(), others.to_owned())
    });
    rows.collect()
}

/// A change of a model.
type Step<'a> = &'a dyn Fn(&mut BTreeMap<i64, String>);

/// Changes rows of the table and of a model alike.
async fn change(session: &Session, columns: usize, mut model: BTreeMap<i64, String>, create: &str) {
    let columns: Vec<_> = (0..columns).map(|it| format!("c{it}")).collect();
    let merge = format!(
        "MERGE INTO cleaned.t t USING (SELECT id + 5 AS id, {} FROM cleaned.t) s ON t.id = s.id \
         WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *",
        columns.join(", ")
    );
    let from_mates = format!(
        "UPDATE cleaned.t SET {} FROM cleaned.t s WHERE s.id = cleaned.t.id - 1 AND cleaned.t.id % 4 = 3",
        columns.iter().map(|it| format!("{it} = s.{it}")).collect::<Vec<_>>().join(", ")
    );
    let old = |model: &BTreeMap<i64, String>, by: i64| -> Vec<(i64, String)> {
        model.iter().map(|(id, row)| (id + by, row.clone())).collect()
    };
    let steps: [(&str, Step<'_>); 6] = [
        ("UPDATE cleaned.t SET c0 = c0", &|_| ()),
        ("DELETE FROM cleaned.t WHERE id % 3 = 0", &|it| it.retain(|id, _| id % 3 != 0)),
        (&merge, &|it| it.extend(old(it, 5))),
        (&from_mates, &|it| {
            let mates = old(it, 1).into_iter().filter(|(id, _)| id % 4 == 3 && it.contains_key(id));
            let mates: Vec<_> = mates.collect();
            it.extend(mates);
        }),
        ("INSERT OVERWRITE cleaned.t WHERE id < 10 SELECT * FROM cleaned.t WHERE id < 5", &|it| {
            it.retain(|id, _| *id < 5 || *id >= 10);
        }),
        ("DELETE FROM cleaned.t WHERE c0 IS NULL", &|it| {
            it.retain(|_, row| !row.starts_with("NULL"));
        }),
    ];
    for (sql, alike) in steps {
        query(session, sql).await;
        alike(&mut model);
        let found = by_id(&query(session, "SELECT * FROM cleaned.t").await);
        assert_eq!(found, model, "after {sql}: {create}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, rng_seed: RngSeed::Fixed(20_261_126), ..ProptestConfig::default() })]

    #[test]
    fn any_schema_and_rows_come_back_equal(
        (kinds, version) in prop_oneof![Just(2_u8), Just(3)].prop_flat_map(|version| {
            let column = (kind(version == 3), prop::bool::weighted(0.3));
            let unknown = Just(("UNKNOWN".to_owned(), false));
            let column = prop_oneof![if version == 3 { 1 } else { 0 } => unknown, 12 => column];
            (prop::collection::vec(column, 1..6), Just(version))
        }),
        rows in 1..40_usize,
        seed in any::<u64>(),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2)
            .thread_stack_size(8 << 20).enable_all().build().unwrap();
        runtime.block_on(check(kinds, version, rows, seed));
    }
}
