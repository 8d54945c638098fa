#!/usr/bin/env python3
"""Writes one of the cases below with PyIceberg, and prints the rows the table must hold then.

    write_pyiceberg.py WAREHOUSE_DIR CATALOG_DB TABLE CASE [--info FILE]

The rows are stated here, not read back (`append` alone begins with what it finds in the table); they
are printed as canonical.py has them. PyIceberg must read the same, or the program fails. --info writes
JSON: the path of the metadata, and for each branch and tag its snapshot and rows.

Limits of PyIceberg 0.12:
- It deletes by rewriting files only; it writes no position deletes.
- A null list of structs, or a null map with structs as values, turns into an empty one, when it writes and
  when it reads (its ArrowProjectionVisitor rebuilds them from offsets, without the nulls). So no case holds
  such a null, and read_pyiceberg.py cannot show one that another engine wrote; DuckDB can.
"""
import argparse
import datetime as dt
import decimal
import json
import math
import uuid

import pyarrow as pa
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import (BucketTransform, DayTransform, HourTransform, IdentityTransform, MonthTransform,
                                  TruncateTransform, YearTransform)
from pyiceberg.types import (BinaryType, BooleanType, DateType, DecimalType, DoubleType, FixedType, FloatType,
                             IntegerType, ListType, LongType, MapType, NestedField, StringType, StructType,
                             TimestampType, TimestamptzType, TimeType, UUIDType)

from canonical import canonical_lines, main_guard, print_rows, require_same
from read_pyiceberg import open_catalog

UTC = dt.timezone.utc
FORMAT = {"format-version": "2"}


def field(number, name, kind):
    return NestedField(number, name, kind, required=False)


def create(catalog, name, schema, **more):
    catalog.create_namespace_if_not_exists(name.rsplit(".", 1)[0])
    return catalog.create_table(name, schema, properties=FORMAT, **more)


def rows_of(table, rows):
    """Rows as an Arrow table of the Iceberg table's schema; a column that a row leaves out is null."""
    names = [column.name for column in table.schema().fields]
    for row in rows:
        if not set(row) <= set(names):
            raise ValueError(f"columns {sorted(set(row) - set(names))} are not in the table")
    schema = table.schema().as_arrow()
    return pa.table({name: pa.array([row.get(name) for row in rows], schema.field(name).type)
                     for name in names}, schema=schema)


def append(table, rows, **more):
    table.append(rows_of(table, rows), **more)


def case_types(catalog, name):
    schema = Schema(
        field(1, "id", LongType()), field(2, "boolean", BooleanType()), field(3, "integer", IntegerType()),
        field(4, "long", LongType()), field(5, "float", FloatType()), field(6, "double", DoubleType()),
        field(7, "decimal_9_2", DecimalType(9, 2)), field(8, "decimal_18_4", DecimalType(18, 4)),
        field(9, "decimal_38_10", DecimalType(38, 10)), field(10, "date", DateType()), field(11, "time", TimeType()),
        field(12, "timestamp", TimestampType()), field(13, "timestamptz", TimestamptzType()),
        field(14, "string", StringType()), field(15, "uuid", UUIDType()), field(16, "fixed_4", FixedType(4)),
        field(17, "binary", BinaryType()),
        field(18, "struct", StructType(
            field(21, "x", IntegerType()), field(22, "y", StringType()),
            field(23, "inner", StructType(field(24, "z", DecimalType(9, 2)), field(25, "at", TimestamptzType()))))),
        field(19, "list", ListType(26, LongType(), element_required=False)),
        field(20, "map", MapType(27, StringType(), 28, DoubleType(), value_required=False)),
        field(29, "list_of_struct", ListType(30, StructType(
            field(31, "k", StringType()), field(32, "v", BinaryType())), element_required=False)),
        field(33, "map_of_lists", MapType(34, IntegerType(), 35,
                                          ListType(36, StringType(), element_required=False), value_required=False)),
    )
    number = decimal.Decimal
    float_max = 3.4028234663852886e38
    rows = [
        dict(id=1, boolean=True, integer=42, long=4_200_000_000, float=1.5, double=0.1,
             decimal_9_2=number("12.30"), decimal_18_4=number("12345.6789"), decimal_38_10=number("1.0000000001"),
             date=dt.date(2013, 1, 1), time=dt.time(5, 17, 0, 1), timestamp=dt.datetime(2013, 1, 1, 5, 17, 0, 123456),
             timestamptz=dt.datetime(2013, 1, 1, 5, 17, tzinfo=UTC), string="plain",
             uuid=uuid.UUID("f79c3e09-677c-4bbd-a479-3f349cb785e7"), fixed_4=b"\x00\x01\xfe\xff", binary=b"bytes",
             struct=dict(x=1, y="why", inner=dict(z=number("0.05"), at=dt.datetime(2020, 2, 29, tzinfo=UTC))),
             list=[1, 2, 3], map={"b": 2.5, "a": 1.5}, list_of_struct=[dict(k="one", v=b"\x01"), dict(k="two", v=b"")],
             map_of_lists={2: ["b"], 1: ["a", "aa"]}),
        # Only the key and the list that cannot be null: everything else is.
        dict(id=2, list_of_struct=[]),
        # The least values, and times before 1970.
        dict(id=3, boolean=False, integer=-2**31, long=-2**63, float=-float_max, double=-1.7976931348623157e308,
             decimal_9_2=number("-9999999.99"), decimal_18_4=number("-99999999999999.9999"),
             decimal_38_10=number("-9999999999999999999999999999.9999999999"), date=dt.date(1, 1, 1), time=dt.time(0),
             timestamp=dt.datetime(1, 1, 1), timestamptz=dt.datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
             string="", uuid=uuid.UUID(int=0), fixed_4=b"\0\0\0\0", binary=b"",
             struct=dict(x=-1, y="", inner=None), list=[], map={}, list_of_struct=[], map_of_lists={}),
        # The greatest values.
        dict(id=4, boolean=True, integer=2**31 - 1, long=2**63 - 1, float=float_max, double=1.7976931348623157e308,
             decimal_9_2=number("9999999.99"), decimal_18_4=number("99999999999999.9999"),
             decimal_38_10=number("9999999999999999999999999999.9999999999"), date=dt.date(9999, 12, 31),
             time=dt.time(23, 59, 59, 999999), timestamp=dt.datetime(9999, 12, 31, 23, 59, 59, 999999),
             timestamptz=dt.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), string="grün 东京 🚀 \"'\\\t",
             uuid=uuid.UUID(int=2**128 - 1), fixed_4=b"\xff\xff\xff\xff", binary=bytes(range(256)),
             struct=dict(x=None, y=None, inner=dict(z=None, at=None)), list=[None, -2**63, 2**63 - 1],
             map={"": None, "ä": 0.5}, list_of_struct=[None, dict(k=None, v=None)], map_of_lists={-1: None, 0: [None]}),
        # Not numbers.
        dict(id=5, float=math.nan, double=math.nan, list=[7], map={"nan": math.nan}, list_of_struct=[]),
        dict(id=6, float=math.inf, double=-math.inf, date=dt.date(1969, 12, 31),
             timestamp=dt.datetime(1969, 12, 31, 23, 59, 59, 999999), list_of_struct=[]),
        dict(id=7, float=-0.0, double=5e-324, decimal_9_2=number("0.00"), decimal_18_4=number("-0.0001"),
             decimal_38_10=number("0"), list_of_struct=[]),
    ]
    table = create(catalog, name, schema)
    append(table, rows[:4])
    append(table, rows[4:])
    return table, rows_of(table, rows)


def case_partitioned(catalog, name):
    schema = Schema(
        field(1, "id", LongType()), field(2, "name", StringType()), field(3, "region", StringType()),
        field(4, "born", DateType()), field(5, "joined", TimestampType()), field(6, "seen", TimestamptzType()),
        field(7, "at", TimestampType()))
    spec = PartitionSpec(
        PartitionField(3, 1000, IdentityTransform(), "region"),
        PartitionField(1, 1001, BucketTransform(8), "id_bucket"),
        PartitionField(2, 1002, TruncateTransform(3), "name_trunc"),
        PartitionField(4, 1003, YearTransform(), "born_year"),
        PartitionField(5, 1004, MonthTransform(), "joined_month"),
        PartitionField(6, 1005, DayTransform(), "seen_day"),
        PartitionField(7, 1006, HourTransform(), "at_hour"))

    def row(number, person, region, born, joined, seen, at):
        return dict(id=number, name=person, region=region, born=born, joined=joined, seen=seen, at=at)

    when = dt.datetime
    rows = [
        row(1, "Ada Lovelace", "eu", dt.date(1815, 12, 10), when(2024, 2, 29, 12), when(2024, 2, 29, 23, 59, tzinfo=UTC),
            when(2024, 2, 29, 23, 59, 59)),
        row(2, "Ada Yonath", "asia", dt.date(1939, 6, 22), when(2024, 3, 1), when(2024, 3, 1, tzinfo=UTC),
            when(2024, 3, 1)),
        row(34, "Adam", "eu", dt.date(1815, 1, 1), when(2024, 2, 1), when(2024, 2, 29, tzinfo=UTC), when(2024, 2, 29, 23)),
        # A microsecond before 1970: every time transform must round down, not towards zero.
        row(-5, "Éa", "north/west=a b%2F", dt.date(1969, 12, 31), when(1969, 12, 31, 23, 59, 59, 999999),
            when(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), when(1969, 12, 31, 23, 59, 59, 999999)),
        # Truncation counts code points, not bytes.
        row(2**63 - 1, "日本語テキスト", "", dt.date(1970, 1, 1), when(1970, 1, 1), when(1970, 1, 1, tzinfo=UTC),
            when(1970, 1, 1)),
        row(-2**63, "", "eu", dt.date(1968, 1, 1), when(1969, 1, 1), when(1969, 12, 30, tzinfo=UTC), when(1969, 12, 31, 22)),
        row(None, None, None, None, None, None, None),
    ]
    table = create(catalog, name, schema, partition_spec=spec)
    append(table, rows[:3])
    append(table, rows[3:])
    return table, rows_of(table, rows)


def case_evolution(catalog, name):
    table = create(catalog, name, Schema(
        field(1, "id", IntegerType()), field(2, "amount", FloatType()), field(3, "price", DecimalType(9, 2)),
        field(4, "name", StringType()), field(5, "note", StringType())))
    number = decimal.Decimal
    append(table, [dict(id=1, amount=1.5, price=number("10.25"), name="one", note="lost"),
                   dict(id=-2**31, amount=-0.25, price=number("-9999999.99"), name=None, note="lost too"),
                   dict(id=None, amount=None, price=None, name="three", note=None)])
    with table.update_schema() as update:
        update.rename_column("name", "full_name")
        update.add_column("added", LongType())
    append(table, [dict(id=4, amount=4.0, price=number("4.00"), full_name="four", note="lost as well", added=44)])
    # The second `note` is another column than the first: what the first held must not show.
    with table.update_schema() as update:
        update.delete_column("note")
    with table.update_schema() as update:
        update.add_column("note", StringType())
    with table.update_schema() as update:
        update.update_column("id", LongType())
        update.update_column("amount", DoubleType())
        update.update_column("price", DecimalType(18, 2))
    with table.update_schema() as update:
        update.move_first("full_name")
        update.move_after("added", "id")
        update.move_before("note", "price")
    append(table, [dict(id=2**40, amount=0.1, price=number("1234567890123456.78"), full_name="five", note="kept", added=-1)])
    return table, rows_of(table, [
        dict(full_name="one", id=1, added=None, amount=1.5, note=None, price=number("10.25")),
        dict(full_name=None, id=-2**31, added=None, amount=-0.25, note=None, price=number("-9999999.99")),
        dict(full_name="three"),
        dict(full_name="four", id=4, added=44, amount=4.0, note=None, price=number("4.00")),
        dict(full_name="five", id=2**40, added=-1, amount=0.1, note="kept", price=number("1234567890123456.78"))])


def appended_value(kind, at):
    """A value of an Iceberg type for the appended row `at`; null for types that need no more than that.

    What PyIceberg would write in place of a null, by its limits above, is stated as that: an empty list or map.
    """
    if isinstance(kind, LongType):
        return 9_000_000_001 + at
    if isinstance(kind, IntegerType):
        return 900_001 + at
    if isinstance(kind, StringType):
        return f"pyiceberg-{at}"
    if isinstance(kind, (FloatType, DoubleType)):
        return at + 0.5
    if isinstance(kind, DateType):
        return dt.date(2013, 12, 29 + at)
    if isinstance(kind, TimestampType):
        return dt.datetime(2013, 12, 29 + at, 5)
    if isinstance(kind, TimestamptzType):
        return dt.datetime(2013, 12, 29 + at, 5, tzinfo=UTC)
    if isinstance(kind, ListType) and isinstance(kind.element_type, StructType):
        return []
    if isinstance(kind, MapType) and isinstance(kind.value_type, StructType):
        return {}
    return None


def case_append(catalog, name):
    try:
        table = catalog.load_table(name)
    except NoSuchTableError:
        table = create(catalog, name, Schema(field(1, "id", LongType()), field(2, "name", StringType())))
    before = table.scan().to_arrow()
    # `required` columns of the table make required Arrow fields: rows_of takes the schema as it is.
    more = rows_of(table, [{column.name: appended_value(column.field_type, at) for column in table.schema().fields}
                           for at in range(3)])
    table.append(more)
    return table, pa.concat_tables([before.cast(more.schema), more])


def case_nested_evolution(catalog, name):
    table = create(catalog, name, Schema(
        field(1, "id", LongType()),
        field(2, "place", StructType(
            field(5, "city", StringType()),
            field(6, "geo", StructType(field(7, "lat", DoubleType()), field(8, "lon", DoubleType()))))),
        field(3, "visits", ListType(9, StructType(
            field(10, "on", DateType()), field(11, "score", IntegerType())), element_required=False)),
        field(4, "tags", MapType(12, StringType(), 13, StructType(field(14, "weight", FloatType())),
                                 value_required=False))))
    day = dt.date
    append(table, [
        dict(id=1, place=dict(city="Paris", geo=dict(lat=48.5, lon=2.25)),
             visits=[dict(on=day(2013, 1, 1), score=5), dict(on=None, score=None), None], tags={"a": dict(weight=0.5)}),
        dict(id=2, place=None, visits=[], tags={}),
        dict(id=3, place=dict(city=None, geo=None), visits=[], tags={})])
    with table.update_schema() as update:
        update.rename_column(("place", "city"), "town")
        update.add_column(("place", "country"), StringType())
        update.add_column(("place", "geo", "height"), DecimalType(9, 2))
        update.rename_column(("visits", "element", "score"), "points")
        update.add_column(("visits", "element", "remark"), StringType())
        update.rename_column(("tags", "value", "weight"), "mass")
        update.add_column(("tags", "value", "unit"), StringType())
    with table.update_schema() as update:
        update.update_column(("visits", "element", "points"), LongType())
        update.update_column(("tags", "value", "mass"), DoubleType())
        update.move_first(("place", "country"))
    new = dict(id=4, place=dict(country="FR", town="Lyon", geo=dict(lat=45.75, lon=4.75, height=decimal.Decimal("173.00"))),
               visits=[dict(on=day(2013, 2, 1), points=2**40, remark="far")], tags={"b": dict(mass=0.1, unit="kg")})
    append(table, [new])
    return table, rows_of(table, [
        dict(id=1, place=dict(country=None, town="Paris", geo=dict(lat=48.5, lon=2.25, height=None)),
             visits=[dict(on=day(2013, 1, 1), points=5, remark=None), dict(on=None, points=None, remark=None), None],
             tags={"a": dict(mass=0.5, unit=None)}),
        dict(id=2, place=None, visits=[], tags={}),
        dict(id=3, place=dict(country=None, town=None, geo=None), visits=[], tags={}),
        new])


def two_columns(catalog, name):
    return create(catalog, name, Schema(field(1, "id", LongType()), field(2, "name", StringType())))


def named(*numbers):
    return [dict(id=number, name=f"row {number}") for number in numbers]


def case_deletes_cow(catalog, name):
    table = two_columns(catalog, name)
    append(table, named(1, 2, 3))
    append(table, named(4, 5))
    append(table, named(6))
    # A row of the first file, which is rewritten, and all of the last one, which is dropped.
    table.delete("id = 2")
    table.delete("id = 6")
    return table, rows_of(table, named(1, 3, 4, 5))


def case_branch_tag(catalog, name):
    """main holds 1 to 3; the tag `first` holds 1; the branch `audit` holds 1, 2 and 9."""
    table = two_columns(catalog, name)
    append(table, named(1))
    table.manage_snapshots().create_tag(table.current_snapshot().snapshot_id, "first").commit()
    append(table, named(2))
    table.manage_snapshots().create_branch(table.current_snapshot().snapshot_id, "audit").commit()
    append(table, named(9), branch="audit")
    append(table, named(3))
    for ref, numbers in (("first", [1]), ("audit", [1, 2, 9])):
        require_same(canonical_lines(table.scan().use_ref(ref).to_arrow()),
                     canonical_lines(rows_of(table, named(*numbers))), f"PyIceberg reads {ref} of {name}")
    return table, rows_of(table, named(1, 2, 3))


CASES = {name.removeprefix("case_"): value for name, value in list(globals().items()) if name.startswith("case_")}


def info(table):
    refs = {ref: dict(type=str(held.snapshot_ref_type.value), snapshot_id=held.snapshot_id,
                      rows=[json.loads(line) for line in
                            canonical_lines(table.scan(snapshot_id=held.snapshot_id).to_arrow())])
            for ref, held in table.refs().items()}
    return dict(metadata=table.metadata_location.removeprefix("file://"), refs=refs)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("warehouse")
    parser.add_argument("database")
    parser.add_argument("table", help="such as cleaned.flights")
    parser.add_argument("case", choices=sorted(CASES))
    parser.add_argument("--info", metavar="FILE")
    args = parser.parse_args()
    table, expected = CASES[args.case](open_catalog(args.warehouse, args.database), args.table)
    # As another program would find it: from the catalog, not from this one's memory.
    table = open_catalog(args.warehouse, args.database).load_table(args.table)
    require_same(canonical_lines(table.scan().to_arrow()), canonical_lines(expected), f"PyIceberg reads {args.table}")
    if args.info:
        with open(args.info, "w", encoding="utf-8") as file:
            json.dump(info(table), file, ensure_ascii=False)
    print_rows(expected)


if __name__ == "__main__":
    main_guard(main)
