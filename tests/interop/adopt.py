#!/usr/bin/env python3
"""Parquet files of pyarrow and DuckDB become tables as they lie there: add_files, snapshot, migrate.

    adopt.py ICEFIELD_BINARY [--only REGEX] [--jobs N] [--keep]

What roundtrip.py says of itself holds here too. What was added is read by all three engines; what cannot be added is
refused by name, and the table is as it was.
"""
import os
import sys

if __name__ == "__main__" and "ICEFIELD_INTEROP_VENV" not in os.environ:
    import subprocess
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    python = subprocess.run([os.path.join(root, "scripts", "python-env")], check=True,
                            stdout=subprocess.PIPE, text=True).stdout.strip()
    os.execve(python, [python, os.path.abspath(__file__), *sys.argv[1:]],
              {**os.environ, "ICEFIELD_INTEROP_VENV": "1", "PYTHONDONTWRITEBYTECODE": "1"})

import datetime as dt
import json
import decimal
import shutil
import warnings

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

import datasketches
import roundtrip
from canonical import canonical_lines
from roundtrip import Refused

warnings.filterwarnings("ignore", category=UserWarning, module="pyiceberg")

TYPES = pa.table({
    "id": pa.array([1, 2, 3], pa.int64()),
    "small": pa.array([1, None, -3], pa.int16()),
    "b": pa.array([True, None, False]),
    "f": pa.array([1.5, float("nan"), None], pa.float32()),
    "d": pa.array([-0.0, 2.5, None], pa.float64()),
    "n": pa.array([decimal.Decimal("12.34"), None, decimal.Decimal("-0.01")], pa.decimal128(9, 2)),
    "day": pa.array([dt.date(1969, 12, 31), None, dt.date(2026, 2, 3)]),
    "ms": pa.array([dt.datetime(2026, 1, 2, 3, 4, 5, 678000), None, dt.datetime(1960, 1, 1)], pa.timestamp("ms")),
    "us": pa.array([dt.datetime(2026, 1, 2, 3, 4, 5, 678901), None, dt.datetime(1960, 1, 1)], pa.timestamp("us")),
    "tz": pa.array([dt.datetime(2026, 1, 2, 3, 4, 5), None, dt.datetime(1960, 1, 1)], pa.timestamp("us", tz="UTC")),
    "s": pa.array(["a text of more than sixteen letters", None, ""]),
    "raw": pa.array([b"\x00\xff", None, b""]),
    "deep": pa.array([{"x": 1, "y": ["p", None]}, None, {"x": None, "y": []}],
                     pa.struct([("x", pa.int32()), ("y", pa.list_(pa.string()))])),
    "m": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int32())),
})


def folder(lake, name):
    path = os.path.join(lake.folder, "..", os.path.basename(lake.folder) + "-files", name)
    os.makedirs(path, exist_ok=True)
    return os.path.abspath(path)


def call(lake, text):
    return lake.run(f"CALL system.{text}")[0][0]


def refuses(lake, what, statement, *parts):
    try:
        lake.run(statement)
        lake.tally.check(f"{what} is refused", False, statement)
    except Refused as refused:
        for part in parts:
            lake.tally.check(f"{what} says why", part in str(refused), f"{part!r} is not in {refused}")


def all_types(lake, name, want):
    rows, = lake.run(f"SELECT id, small, b, CAST(day AS STRING) AS day, CAST(ms AS STRING) AS ms, s, deep FROM {name} ORDER BY id")
    lake.tally.same(f"rows of {name}", len(rows), want)
    lake.tally.same(f"times of {name}", [row["ms"] for row in rows if row["id"] == 1][0][:23].replace(" ", "T"),
                    "2026-01-02T03:04:05.678")


def case_a_folder_becomes_a_table(lake):
    place = folder(lake, "plain")
    pq.write_table(TYPES, f"{place}/one.parquet")
    pq.write_table(TYPES, f"{place}/two.parquet", row_group_size=1, compression="snappy", data_page_version="2.0")
    pq.write_table(TYPES, f"{place}/_hidden.parquet")
    done = call(lake, f"snapshot(source_table => 'parquet.`{place}`', table => 'cleaned.t')")
    lake.tally.same("files", done, {"imported_files_count": 2})
    all_types(lake, "cleaned.t", 6)
    lines = lake.pyiceberg("cleaned.t")
    want = sorted(2 * canonical_lines(TYPES.set_column(1, "small", TYPES["small"].cast(pa.int32()))
                                      .set_column(7, "ms", TYPES["ms"].cast(pa.timestamp("us")))))
    lake.tally.same("pyiceberg reads the files' rows", lines, want)
    lake.all_read("cleaned.t", lines, engines=("duckdb", "icefield"))
    for where, count in (("ms > TIMESTAMP '2026-01-01 00:00:00'", 2), ("ms < TIMESTAMP '1970-01-01 00:00:00'", 2), ("f = 1.5", 2),
                         ("day < DATE '1970-01-01'", 2), ("n < 0", 2), ("s = ''", 2), ("small IS NULL", 2), ("id = 9", 0),
                         ("d = 0", 0), ("us = TIMESTAMP '2026-01-02 03:04:05.678901'", 2)):
        rows, = lake.run(f"SELECT count(*) AS n FROM cleaned.t WHERE {where}")
        # Minus zero is not zero, as docs/features.md has it.
        lake.tally.same(f"rows WHERE {where}", rows[0]["n"], count)
    # The files are not the table's to delete.
    lake.run("DELETE FROM cleaned.t", "DROP TABLE cleaned.t")
    lake.tally.same("files that are left", sorted(os.listdir(place)), ["_hidden.parquet", "one.parquet", "two.parquet"])


def case_folders_that_say_values(lake):
    place = folder(lake, "hive")
    rows = pa.table({"id": pa.array(range(12), pa.int64()), "v": pa.array([f"v{it}" for it in range(12)]),
                     "day": pa.array([dt.date(2026, 1, 1 + it % 3) for it in range(12)]),
                     "k": pa.array([None if it % 4 == 0 else f"a/b {it % 2}" for it in range(12)])})
    pq.write_to_dataset(rows, place, partition_cols=["day", "k"])
    done = call(lake, f"snapshot(source_table => '{place}', table => 'cleaned.h')")
    lake.tally.check("files", done["imported_files_count"] >= 6, done)
    got, = lake.run("SELECT id, v, CAST(day AS STRING) AS day, k FROM cleaned.h ORDER BY id")
    want = [{"id": row["id"], "v": row["v"], "day": str(row["day"]), "k": row["k"]} for row in rows.to_pylist()]
    lake.tally.same("rows", got, want)
    lake.all_read("cleaned.h", lake.pyiceberg("cleaned.h"), engines=("duckdb", "icefield"))
    files, = lake.run("SELECT count(*) AS n FROM cleaned.h.files WHERE partition.day = DATE '2026-01-02'")
    lake.tally.check("partitions", files[0]["n"] >= 1, files)
    # Into a table that is there: only what a filter says, and each file once.
    lake.run("CREATE TABLE cleaned.into (id BIGINT, v STRING, day DATE, k STRING) PARTITIONED BY (day, k)")
    done = call(lake, f"add_files(table => 'cleaned.into', source_table => 'parquet.`{place}`', "
                      "partition_filter => map('day', '2026-01-02'))")
    rows, = lake.run("SELECT count(*) AS n FROM cleaned.into")
    lake.tally.same("rows of a filter", (rows[0]["n"], done["added_records_count"]), (4, 4))
    refuses(lake, "a file that is there", f"CALL system.add_files('cleaned.into', '{place}')", "has the file", "already")
    rows, = lake.run("SELECT count(*) AS n FROM cleaned.into", f"DELETE FROM cleaned.into WHERE day = DATE '2026-01-02'")[:1]
    lake.tally.same("rows after the refusal", rows[0]["n"], 4)
    done = call(lake, f"add_files('cleaned.into', '{place}')")
    lake.tally.same("rows of all", done["added_records_count"], 12)
    lake.all_read("cleaned.into", lake.pyiceberg("cleaned.into"))
    # A table that is not partitioned so would lose what the folders say.
    lake.run("CREATE TABLE cleaned.flat (id BIGINT, v STRING, day DATE, k STRING)")
    refuses(lake, "a value only folders have", f"CALL system.add_files('cleaned.flat', '{place}')", "only its folder says what `day` is")
    refuses(lake, "a filter of nothing", f"CALL system.add_files('cleaned.flat', '{place}', map('x', '1'))", "says what `x` is")


def case_partitions_found_in_the_rows(lake):
    place = folder(lake, "days")
    for day in (1, 2):
        times = [dt.datetime(2026, 1, day, hour) for hour in range(3)]
        pq.write_table(pa.table({"id": pa.array(range(3), pa.int64()), "ts": pa.array(times, pa.timestamp("us"))}),
                       f"{place}/{day}.parquet")
    lake.run("CREATE TABLE cleaned.d (id BIGINT, ts TIMESTAMP) PARTITIONED BY (day(ts))")
    done = call(lake, f"add_files('cleaned.d', '{place}')")
    lake.tally.same("added", (done["added_files_count"], done["changed_partition_count"]), (2, 2))
    lake.all_read("cleaned.d", lake.pyiceberg("cleaned.d"))
    times = [dt.datetime(2026, 1, 3), dt.datetime(2026, 1, 4)]
    pq.write_table(pa.table({"id": pa.array([1, 2], pa.int64()), "ts": pa.array(times, pa.timestamp("us"))}), f"{place}/two.parquet")
    refuses(lake, "a file of two days", f"CALL system.add_files('cleaned.d', '{place}/two.parquet')", "several partitions", "ts_day")
    lake.run("CREATE TABLE cleaned.b (id BIGINT, ts TIMESTAMP) PARTITIONED BY (bucket(4, id))")
    refuses(lake, "a file of any bucket", f"CALL system.add_files('cleaned.b', '{place}/1.parquet')", "several partitions")


def case_columns_that_do_not_fit(lake):
    place = folder(lake, "odd")
    lake.run("CREATE TABLE cleaned.t (id INT NOT NULL, ts TIMESTAMP, s STRING)")
    for name, columns, parts in (
            ("wide", {"id": pa.array([1], pa.int64())}, ("column `id` is Int64", "int in the table")),
            ("case", {"ID": pa.array([1], pa.int32())}, ("column `ID` is `id` in the table",)),
            ("other", {"x": pa.array([1], pa.int32())}, ("none of the table's columns",)),
            ("text", {"id": pa.array(["1"])}, ("column `id` is Utf8",)),
            ("null", {"id": pa.array([None], pa.int32())}, ("may hold nulls",)),
            ("none", {"s": pa.array(["x"])}, ("has no column `id`",)),
            ("nanos", {"id": pa.array([1], pa.int32()), "ts": pa.array([1], pa.timestamp("ns"))}, ("timestamp_ns",))):
        pq.write_table(pa.table(columns), f"{place}/{name}.parquet", version="2.6")
        refuses(lake, name, f"CALL system.add_files('cleaned.t', '{place}/{name}.parquet')", f"{name}.parquet", *parts)
    with open(f"{place}/x.parquet", "w", encoding="utf-8") as file:
        file.write("no Parquet at all")
    refuses(lake, "what is no Parquet", f"CALL system.add_files('cleaned.t', '{place}/x.parquet')", "x.parquet")
    refuses(lake, "nothing", f"CALL system.add_files('cleaned.t', '{place}/nope')", "has no files")
    refuses(lake, "ORC", f"CALL system.add_files('cleaned.t', 'orc.`{place}`')", "only Parquet")
    snapshots, = lake.run("SELECT count(*) AS n FROM cleaned.t.snapshots")
    lake.tally.same("snapshots", snapshots, [{"n": 0}])
    # Files with ids belong to the table that they were written for.
    lake.run("CREATE TABLE cleaned.a (x BIGINT, y BIGINT)", "INSERT INTO cleaned.a VALUES (1, 2)", "CREATE TABLE cleaned.b (y BIGINT, x BIGINT)")
    path = lake.run("SELECT file_path AS p FROM cleaned.a.files")[0][0]["p"]
    refuses(lake, "another table's file", f"CALL system.add_files('cleaned.b', '{path}')", "table `cleaned.a` lies at")
    shutil.copyfile(path.removeprefix("file://"), f"{place}/ids.parquet")
    path = f"{place}/ids.parquet"
    refuses(lake, "other ids", f"CALL system.add_files('cleaned.b', '{path}')", "`x` has the field id 1", "ids are those of another table")
    lake.run("CREATE TABLE cleaned.c (x BIGINT, y BIGINT)", f"CALL system.add_files('cleaned.c', '{path}')")
    lake.tally.same("the same ids", lake.run("SELECT x, y FROM cleaned.c")[0], [{"x": 1, "y": 2}])


def field(name, kind, id):
    return pa.field(name, kind, metadata={"PARQUET:field_id": str(id)} if id else None)


def case_what_would_be_read_as_something_else(lake):
    place = folder(lake, "strange")
    def write(name, *columns, **options):
        fields = [field(*it[:3]) for it in columns]
        pq.write_table(pa.table([pa.array(*it[3:], it[1]) for it in columns], schema=pa.schema(fields)), f"{place}/{name}.parquet", **options)
    def refused(table, name, *parts):
        refuses(lake, name, f"CALL system.add_files('cleaned.{table}', '{place}/{name}.parquet')", *parts)
    ints, texts = pa.int64(), pa.string()
    lake.run("CREATE TABLE cleaned.a (x BIGINT, y BIGINT, s STRUCT<p: INT, q: INT>, l ARRAY<INT>) TBLPROPERTIES ('format-version' = '3')",
             "INSERT INTO cleaned.a VALUES (1, 2, named_struct('p', 1, 'q', 2), [1])")
    write("row_ids", ("x", ints, 1, [1]), ("_row_id", ints, 2147483540, [0]))
    refused("a", "row_ids", "`_row_id` is one that readers make")
    write("some_ids", ("x", ints, 1, [1]), ("y", ints, None, [2]))
    refused("a", "some_ids", "`y` has no field id")
    inner = pa.struct([field("p", pa.int32(), 6), field("q", pa.int32(), 5)])
    write("swapped", ("x", ints, 1, [1]), ("s", inner, 3, [{"p": 1, "q": 2}]))
    refused("a", "swapped", "column `s.", "another table")
    write("twice", ("x", ints, None, [1]), ("x", ints, None, [2]))
    refused("a", "twice", "`x` is there twice")
    write("type", ("x", ints, None, [1]), ("s", pa.struct([("p", texts)]), None, [{"p": "a"}]))
    refused("a", "type", "column `s.p` is Utf8")
    lake.run("CREATE TABLE cleaned.n (x BIGINT, s STRUCT<p: INT, q: INT>)")
    write("before", ("x", ints, None, [1]), ("s", pa.struct([("p", pa.int32())]), None, [{"p": 5}]))
    lake.run(f"CALL system.add_files('cleaned.n', '{place}/before.parquet')", "ALTER TABLE cleaned.n RENAME COLUMN s.p TO r",
             "ALTER TABLE cleaned.n ADD COLUMN s.p STRING")
    write("after", ("x", ints, None, [1]), ("s", pa.struct([("p", texts)]), None, [{"p": "a"}]))
    refused("n", "after", "column `s.p` means another column")
    lake.tally.same("what was there", lake.run("SELECT s FROM cleaned.n")[0], [{"s": {"r": 5, "q": None, "p": None}}])
    # Old times beside nanoseconds are not told apart.
    times = pa.table({"t": pa.array([1], pa.timestamp("us")), "n": pa.array([1], pa.timestamp("ns"))})
    pq.write_table(times.select(["t"]), f"{place}/old.parquet", use_deprecated_int96_timestamps=True)
    lake.run("CREATE TABLE cleaned.old (t TIMESTAMP)", f"CALL system.add_files('cleaned.old', '{place}/old.parquet')")
    lake.tally.same("old times", lake.run("SELECT count(*) AS n FROM cleaned.old WHERE t = TIMESTAMP '1970-01-01 00:00:00.000001'")[0], [{"n": 1}])
    lake.run("CREATE TABLE cleaned.ns (n TIMESTAMP_NS) TBLPROPERTIES ('format-version' = '3')")
    refused("ns", "old", "none of the table's columns")
    pq.write_table(pa.table({"n": pa.array([1], pa.timestamp("us"))}), f"{place}/micros.parquet")
    refused("ns", "micros", "`n` is Timestamp")
    # Delete files, and links to what is there.
    lake.run("CREATE TABLE cleaned.once (x BIGINT)")
    write("one", ("x", ints, None, [1]))
    os.symlink(f"{place}/one.parquet", f"{place}/link.parquet")
    lake.run(f"CALL system.add_files('cleaned.once', '{place}/one.parquet')")
    refused("once", "link", "has the file", "one.parquet` already")
    # Folders.
    for name, text, parts in (("twice", "k=1/k=2", ("two folders",)), ("price", "k=1.005", ("`1.005` is no decimal",)),
                              ("text", "k=%FF", ("is no text",)), ("case", "K=1", ("`K` is, which is no column",))):
        os.makedirs(f"{place}/{name}-folder/{text}")
        shutil.copyfile(f"{place}/one.parquet", f"{place}/{name}-folder/{text}/1.parquet")
        lake.run(f"CREATE TABLE cleaned.by_{name} (x BIGINT, k DECIMAL(5, 2)) PARTITIONED BY (k)")
        refuses(lake, f"folder {text}", f"CALL system.add_files('cleaned.by_{name}', '{place}/{name}-folder')", *parts)
    os.makedirs(f"{place}/hidden/_k=1")
    os.makedirs(f"{place}/hidden/_tmp")
    shutil.copyfile(f"{place}/one.parquet", f"{place}/hidden/_k=1/1.parquet")
    shutil.copyfile(f"{place}/one.parquet", f"{place}/hidden/_tmp/1.parquet")
    done = call(lake, f"snapshot('{place}/hidden', 'cleaned.hidden')")
    lake.tally.same("a column may begin with _", done, {"imported_files_count": 1})
    lake.tally.same("its rows", lake.run("SELECT x, _k FROM cleaned.hidden")[0], [{"x": 1, "_k": 1}])


def case_files_that_are_shared_stay(lake):
    """Whatever lets go of them: only what lies in a table's own folders is its to delete."""
    place = os.path.join(lake.folder, "loose")
    os.makedirs(place)
    pq.write_table(pa.table({"x": pa.array([1], pa.int64())}), f"{place}/a.parquet")
    lake.run("CREATE TABLE cleaned.l1 (x BIGINT)", "CREATE TABLE cleaned.l2 (x BIGINT)",
             f"CALL system.add_files('cleaned.l1', '{place}')", f"CALL system.add_files('cleaned.l2', '{place}')",
             f"CALL system.snapshot('{place}', 'cleaned.s')", "DELETE FROM cleaned.l1",
             "CALL system.expire_snapshots(table => 'cleaned.l1', older_than => TIMESTAMP '2100-01-01 00:00:00', retain_last => 1)")
    for name in ("l2", "s"):
        lake.tally.same(name, lake.run(f"SELECT x FROM cleaned.{name}")[0], [{"x": 1}])
    lake.run("INSERT INTO cleaned.l1 VALUES (5)")
    refuses(lake, "another table's folder", f"CALL system.snapshot('{lake.folder}/cleaned/l1/data', 'cleaned.m')", "table `cleaned.l1` lies at")


def case_statistics_that_mislead(lake):
    """A footer without counts of nulls, and one whose bounds an old writer compared with signs."""
    place = folder(lake, "footers")
    write_footer_without_null_counts(f"{place}/1.parquet")
    lake.run("CREATE TABLE cleaned.t (i BIGINT, s STRING)", f"CALL system.add_files('cleaned.t', '{place}')")
    for where, count in (("i IS NULL", 1), ("i = 2", 1), ("s = 'b'", 1), ("s IS NULL", 1), ("i IS NOT NULL", 2)):
        lake.tally.same(where, lake.run(f"SELECT count(*) AS n FROM cleaned.t WHERE {where}")[0], [{"n": count}])
        rows = lake.run(f"SELECT * FROM cleaned.t WHERE {where}")[0]
        lake.tally.same(f"rows {where}", len(rows), count)


def write_footer_without_null_counts(path):
    """DuckDB writes counts of nulls as pyarrow does; here they are taken out of pyarrow's footer, byte by byte."""
    pq.write_table(pa.table({"i": pa.array([1, None, 2], pa.int64()), "s": ["a", "b", None]}), path, use_dictionary=False, compression="none")
    with open(path, "rb") as file:
        data = file.read()
    length = int.from_bytes(data[-8:-4], "little")
    footer = bytearray(data[-8 - length:-8])
    # Statistics are a struct of compact thrift, whose fields are told by how far they are from the one before. Field 3, with
    # the value 1 and field 5 behind it, is the count of nulls; as field 4 it is one of different values, and harms nobody.
    for before, after in ((b"\x16\x02\x28", b"\x26\x02\x18"), (b"\x36\x02\x28", b"\x46\x02\x18")):
        assert footer.count(before) == 1, footer.hex()
        footer = footer.replace(before, after)
    with open(path, "wb") as file:
        file.write(data[:-8 - length] + bytes(footer) + data[-8:])
    statistics = pq.read_metadata(path).row_group(0).column(0).statistics
    assert statistics is not None and not statistics.has_null_count, statistics


def case_columns_by_name(lake):
    """Columns in another order, missing ones, and names that change afterwards."""
    place = folder(lake, "names")
    pq.write_table(pa.table({"b": pa.array(["x"]), "a": pa.array([7], pa.int64())}), f"{place}/1.parquet")
    for version in (2, 3):
        name = f"cleaned.t{version}"
        lake.run(f"CREATE TABLE {name} (a BIGINT, b STRING, c DOUBLE) TBLPROPERTIES ('format-version' = '{version}')",
                 f"INSERT INTO {name} VALUES (1, 'own', 0.5)", f"CALL system.add_files('{name}', '{place}')",
                 f"ALTER TABLE {name} RENAME COLUMN a TO z", f"ALTER TABLE {name} ADD COLUMN a STRING",
                 f"UPDATE {name} SET c = 2 WHERE z = 7")
        # The new column is another than the one that the files call so.
        rows, = lake.run(f"SELECT z, b, c, a FROM {name} ORDER BY z")
        lake.tally.same(f"rows, version {version}", rows, [{"z": 1, "b": "own", "c": "0.5", "a": None},
                                                            {"z": 7, "b": "x", "c": "2.0", "a": None}])
        lake.all_read(name, lake.pyiceberg(name))
        refuses(lake, "a name of before", f"CALL system.add_files('{name}', '{place}', map(), false)", "`a` means another column")
    # PyIceberg refuses files with columns that the table lacks, and DuckDB then reads none of them.
    pq.write_table(pa.table({"more": pa.array([1]), "a": pa.array([7], pa.int64())}), f"{place}/2.parquet")
    lake.run("CREATE TABLE cleaned.more (a BIGINT)", f"CALL system.add_files('cleaned.more', '{place}/2.parquet')")
    lake.all_read("cleaned.more", ['{"a":7}'], engines=("icefield",))


def case_migrate(lake):
    place = folder(lake, "moved")
    connection = duckdb.connect()
    connection.execute(f"COPY (SELECT i AS id, i % 3 AS k, TIMESTAMP '2026-01-01' + INTERVAL (i) HOUR AS ts FROM range(100) r(i)) "
                       f"TO '{place}' (FORMAT parquet, PARTITION_BY (k), OVERWRITE_OR_IGNORE)")
    done = call(lake, f"migrate(table => 'cleaned.m', source_table => '{place}', properties => map('owner', 'ada'))")
    lake.tally.same("files", done, {"migrated_files_count": 3})
    lake.run("INSERT INTO cleaned.m VALUES (100, TIMESTAMP '2026-02-01 00:00:00', 7)")
    rows, = lake.run("SELECT count(*) AS n, sum(id) AS s, sum(k) AS k FROM cleaned.m")
    lake.tally.same("rows", rows, [{"n": 101, "s": sum(range(101)), "k": sum(it % 3 for it in range(100)) + 7}])
    lake.all_read("cleaned.m", lake.pyiceberg("cleaned.m"))
    where = lake.run("DESCRIBE EXTENDED cleaned.m")[0]
    lake.tally.check("it lies there", any(row["column"] == "Location" and row["type"].endswith("/moved") for row in where), where)
    refuses(lake, "a table's folder", f"CALL system.snapshot('{place}', 'cleaned.again')", "Iceberg table in it", "register_table")
    refuses(lake, "a name that is taken", f"CALL system.migrate('cleaned.m', '{folder(lake, 'odd')}')", "no files")
    call(lake, "rewrite_data_files('cleaned.m', options => map('rewrite-all', 'true'))")
    lake.all_read("cleaned.m", lake.pyiceberg("cleaned.m"), what=" after compaction")


def case_statistics(lake):
    """Sketches that Apache DataSketches reads, and the file that tells of partitions."""
    for version in (2, 3):
        name = f"cleaned.t{version}"
        lake.run(f"CREATE TABLE {name} (id BIGINT, g STRING, v DOUBLE) PARTITIONED BY (g) TBLPROPERTIES "
                 f"('format-version' = '{version}', 'write.delete.mode' = 'merge-on-read')",
                 f"INSERT INTO {name} SELECT i, CASE i % 3 WHEN 0 THEN 'a' WHEN 1 THEN 'b' END, i % 100 FROM range(0, 30000) r(i)",
                 f"DELETE FROM {name} WHERE id % 10 = 3 AND g = 'a'")
        path = call(lake, f"compute_table_stats('{name}')")["statistics_file"]
        statistics, = lake.table(name).metadata.statistics
        lake.tally.same("where it is", statistics.statistics_path, path)
        file = path.removeprefix("file://")
        lake.tally.same("its size", os.path.getsize(file), statistics.file_size_in_bytes)
        with open(file, "rb") as opened:
            data = opened.read()
        lake.tally.same("its footer", data[-statistics.file_footer_size_in_bytes:][:4], b"PFA1")
        footer = json.loads(data[-statistics.file_footer_size_in_bytes + 4:-12])
        counts = {}
        for blob, known in zip(footer["blobs"], statistics.blob_metadata):
            sketch = datasketches.compact_theta_sketch.deserialize(data[blob["offset"]:blob["offset"] + blob["length"]])
            counts[blob["fields"][0]] = round(sketch.get_estimate())
            lake.tally.same("ndv", int(known.properties["ndv"]), counts[blob["fields"][0]])
        lake.tally.check("about 29,000 ids", 28_000 < counts[1] < 30_000, counts)
        lake.tally.same("few are exact", (counts[2], counts[3]), (2, 100))
        path = call(lake, f"compute_partition_stats('{name}')")["statistics_file"]
        partitions = pq.read_table(path.removeprefix("file://"))
        lake.tally.same("field ids", [int(field.metadata[b"PARQUET:field_id"]) for field in partitions.schema], list(range(1, 12 + version - 1)))
        rows = [(row["partition"]["g"], row["data_record_count"], row["position_delete_record_count"],
                 row.get("dv_count"), row["position_delete_file_count"]) for row in partitions.to_pylist()]
        vectors, files = (1, 0) if version == 3 else (None, 1)
        none = 0 if version == 3 else None
        lake.tally.same("partitions", rows, [(None, 10000, 0, none, 0), ("a", 10000, 1000, vectors, files), ("b", 10000, 0, none, 0)])
        plan = lake.run(f"EXPLAIN SELECT * FROM {name} x JOIN {name} y ON x.v = y.v")[0]
        lake.tally.check("EXPLAIN works", bool(plan))
        refuses(lake, "a column that is not there", f"CALL system.compute_table_stats(table => '{name}', columns => array('nope'))", "no column `nope`")
    lake.run("CREATE TABLE cleaned.plain (id BIGINT)")
    lake.tally.same("a table without rows", call(lake, "compute_table_stats('cleaned.plain')"), {"statistics_file": None})
    refuses(lake, "a table without partitions", "CALL system.compute_partition_stats('cleaned.plain')", "is not partitioned")


def case_moved(lake):
    """A table's files copied elsewhere, as rewrite_table_path says, are the same table there."""
    for version in (2, 3):
        name, place, other = f"cleaned.t{version}", folder(lake, f"from{version}"), folder(lake, f"to{version}")
        lake.run(f"CREATE TABLE {name} (id BIGINT, g STRING) PARTITIONED BY (g) LOCATION 'file://{place}' TBLPROPERTIES "
                 f"('format-version' = '{version}', 'write.delete.mode' = 'merge-on-read')",
                 f"INSERT INTO {name} SELECT i, CASE i % 2 WHEN 0 THEN 'x' END FROM range(0, 100) r(i)",
                 f"DELETE FROM {name} WHERE id % 7 = 0", f"ALTER TABLE {name} CREATE TAG early")
        def copy(more=""):
            done = call(lake, f"rewrite_table_path(table => '{name}', source_prefix => 'file://{place}', target_prefix => 'file://{other}'{more})")
            with open(done["file_list_location"].removeprefix("file://"), encoding="utf-8") as listed:
                pairs = [line.rstrip("\n").split(",") for line in listed]
            for source, target in pairs:
                os.makedirs(os.path.dirname(target.removeprefix("file://")), exist_ok=True)
                shutil.copyfile(source.removeprefix("file://"), target.removeprefix("file://"))
            return done, pairs
        done, pairs = copy()
        lake.tally.check("delete files were written anew", done["rewritten_delete_file_paths_count"] >= 1, done)
        lines = lake.pyiceberg(name)
        first = done["latest_version"]
        moved = f"cleaned.moved{version}"
        lake.run(f"CALL system.register_table('{moved}', 'file://{other}/metadata/{first}')")
        # What follows is the copy's alone.
        before = lake.icefield(name)
        lake.run(f"INSERT INTO {name} VALUES (1000, 'x')", f"UPDATE {name} SET g = 'y' WHERE id = 8")
        later = lake.icefield(name)
        kept = place + "-gone"
        os.rename(place, kept)
        lake.all_read(moved, lines)
        lake.tally.same("rows of the tag", lake.icefield(moved, version="'early'"), before)
        os.rename(kept, place)
        # Only what is new since is copied the second time.
        done, pairs = copy(f", start_version => '{first}'")
        data = [target for _, target in pairs if "/data/" in target and target.endswith(".parquet") and "delete" not in target]
        lake.tally.check("few data files", 1 <= len(data) <= 4, data)
        lake.run(f"DROP TABLE {moved}", f"CALL system.register_table('{moved}', 'file://{other}/metadata/{done['latest_version']}')")
        os.rename(place, kept)
        lake.tally.same("rows after the second copy", lake.icefield(moved), later)
        lake.all_read(moved, lake.pyiceberg(moved))
        os.rename(kept, place)
        refuses(lake, "another prefix", f"CALL system.rewrite_table_path('{name}', 'file:///nope', 'file:///x')", "does not begin with the prefix")
        refuses(lake, "a version that is not there",
                f"CALL system.rewrite_table_path('{name}', 'file://{place}', 'file:///x', 'v9.metadata.json')", "no metadata file")


CASES = {name.removeprefix("case_"): value for name, value in list(globals().items()) if name.startswith("case_")}

if __name__ == "__main__":
    roundtrip.main(CASES, __doc__)
