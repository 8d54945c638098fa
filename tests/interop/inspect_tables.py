#!/usr/bin/env python3
"""The metadata tables, cell by cell against PyIceberg's `table.inspect`.

    inspect_tables.py ICEFIELD_BINARY [--only REGEX] [--jobs N] [--keep]

What roundtrip.py says of itself holds here too. Every column that PyIceberg shows has to be there under its name, with
the same values; Icefield, like Spark, has more of them.

Where PyIceberg 0.12 shows something else than Spark, and Icefield goes with Spark:
- A table that was never partitioned has no column `partition`; PyIceberg shows an empty struct.
- `partitions` of such a table has no `spec_id`.
- entries() of PyIceberg fails where a delete file has no sizes of columns; there the same is read from files().
- The summary of a snapshot in `snapshots` has no `operation`, which is a column.
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
import decimal
import json
import math
import warnings

import roundtrip

warnings.filterwarnings("ignore", category=UserWarning, module="pyiceberg")

TABLES = ("snapshots", "history", "refs", "metadata_log_entries", "manifests", "partitions", "entries", "files",
          "data_files", "delete_files", "all_manifests", "all_files", "all_data_files", "all_delete_files")
MERGE_ON_READ = ", ".join(f"'write.{it}.mode' = 'merge-on-read'" for it in ("delete", "update", "merge"))


def plain(value):
    """A value as both are compared: what JSON has, times and numbers in one spelling."""
    match value:
        case None | bool():
            return value
        case int() | decimal.Decimal():
            return float(value) if abs(value) < 2 ** 53 else str(value)
        case float():
            return str(value) if math.isnan(value) or math.isinf(value) else value
        case bytes():
            return "0x" + value.hex()
        case dt.datetime():
            return value.replace(tzinfo=None).isoformat(timespec="microseconds")
        case dt.date() | dt.time():
            return value.isoformat()
        case dict():
            return {key: plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [plain(inner) for inner in value]
    text = str(value)
    try:
        number = decimal.Decimal(text)
        return plain(number) if number.is_finite() else text
    except decimal.InvalidOperation:
        pass
    if len(text) >= 19 and text[4] == "-" and text[10] in " T":
        try:
            return plain(dt.datetime.fromisoformat(text.removesuffix("Z").replace("+00:00", "")))
        except ValueError:
            pass
    return text


def fitted(ours, theirs):
    """Ours with the columns that theirs has, also within structs; maps are lists of pairs in both."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return {key: fitted(ours.get(key, "no such column"), inner) for key, inner in theirs.items()}
    if isinstance(theirs, list) and isinstance(ours, list) and len(ours) == len(theirs):
        return [fitted(*pair) for pair in zip(ours, theirs)]
    return ours


def rows_of(table):
    """PyIceberg's rows. Its maps are lists of pairs; their order means nothing."""
    rows = table.to_pylist()
    for row in rows:
        for holder in (row, row.get("data_file") or {}):
            for name in ("column_sizes", "value_counts", "null_value_counts", "nan_value_counts", "lower_bounds",
                         "upper_bounds", "summary"):
                if isinstance(holder.get(name), list):
                    holder[name] = sorted(holder[name], key=lambda pair: str(pair[0]))
    return rows


def sorted_maps(value):
    if isinstance(value, dict):
        return {key: sorted_maps(inner) for key, inner in value.items()}
    is_map = isinstance(value, list) and value and all(isinstance(it, list) and len(it) == 2 for it in value)
    return sorted(value, key=lambda pair: str(pair[0])) if is_map else value


def adapted(kind, row, is_partitioned):
    """A row of PyIceberg's as Spark would have it."""
    if not is_partitioned:
        for holder in (row, row.get("data_file") or {}):
            holder.pop("partition", None)
        if kind == "partitions":
            row.pop("spec_id", None)
    if kind == "entries":
        # Where nothing is known, entries() shows nothing, and files() that it is not known.
        row["data_file"] = {key: None if value == [] else value for key, value in row["data_file"].items()}
    if kind == "snapshots":
        row["summary"] = [pair for pair in row["summary"] if pair[0] != "operation"]
    return row


def compare(lake, name, kinds=TABLES, snapshot=None):
    table = lake.table(name)
    is_partitioned = any(spec.fields for spec in table.specs().values())
    for kind in kinds:
        at, arguments = "", {}
        if snapshot is not None:
            at, arguments = f" FOR VERSION AS OF {snapshot}", {"snapshot_id": snapshot}
        what = f"{name}.{kind}{at}"
        if kind == "entries" and table.inspect.delete_files().num_rows and snapshot is None:
            continue
        theirs = lake.tally.attempt(f"pyiceberg reads {what}", lambda: getattr(table.inspect, kind)(**arguments))
        ours = lake.tally.attempt(f"icefield reads {what}", lambda: lake.run(f"SELECT * FROM {name}.{kind}{at}")[0])
        if theirs is None or ours is None:
            continue
        theirs = [plain(adapted(kind, row, is_partitioned)) for row in rows_of(theirs)]
        key = lambda row: json.dumps(row, sort_keys=True, default=str)
        ours = [sorted_maps(plain(row)) for row in ours]
        shape = theirs[0] if theirs else {}
        ours = sorted((fitted(row, shape) for row in ours), key=key)
        theirs = sorted(theirs, key=key)
        if not lake.tally.check(f"{what} has {len(theirs)} rows", len(ours) == len(theirs), len(ours)):
            continue
        for mine, other in zip(ours, theirs):
            wrong = {name: (mine[name], value) for name, value in other.items() if mine[name] != value}
            lake.tally.check(what, not wrong, f"icefield, pyiceberg: {json.dumps(wrong)[:900]}")


def case_types_and_metrics(lake):
    lake.run("CREATE TABLE cleaned.t (id BIGINT NOT NULL, b BOOLEAN, i INT, f FLOAT, d DOUBLE, n DECIMAL(9, 2), day DATE, "
             "ts TIMESTAMP, tz TIMESTAMPTZ, s STRING, raw BINARY)",
             "INSERT INTO cleaned.t VALUES (1, true, 2, 1.5, CAST('NaN' AS DOUBLE), 12.34, DATE '2026-01-02', "
             "TIMESTAMP '2026-01-02 03:04:05.678901', TIMESTAMPTZ '2026-01-02 03:04:05+00', "
             "'a text of more than sixteen letters', X'00ff'), (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
             "INSERT INTO cleaned.t (id) VALUES (3)")
    compare(lake, "cleaned.t")


def case_partitions_of_two_specs_and_deletes(lake):
    lake.run("CREATE TABLE cleaned.t (id BIGINT, g STRING, day DATE, ts TIMESTAMP) PARTITIONED BY (g, month(day)) "
             f"TBLPROPERTIES ({MERGE_ON_READ})")
    for number in range(3):
        lake.run("INSERT INTO cleaned.t SELECT i, CASE i % 3 WHEN 0 THEN 'a' WHEN 1 THEN 'b' END, "
                 f"DATE '2026-01-31' + CAST(i AS INT), TIMESTAMP '2026-02-03 04:05:06' FROM range({number * 9}, {number * 9 + 9}) r(i)")
    lake.run("DELETE FROM cleaned.t WHERE id % 4 = 1", "ALTER TABLE cleaned.t CREATE TAG early",
             "ALTER TABLE cleaned.t CREATE BRANCH b RETAIN 7 DAYS WITH SNAPSHOT RETENTION 2 SNAPSHOTS 3 DAYS")
    compare(lake, "cleaned.t")
    first = sorted(lake.table("cleaned.t").snapshots(), key=lambda it: it.sequence_number)[1].snapshot_id
    lake.run("ALTER TABLE cleaned.t ADD PARTITION FIELD bucket(4, id)", "ALTER TABLE cleaned.t DROP PARTITION FIELD g",
             "INSERT INTO cleaned.t VALUES (100, 'c', DATE '2026-07-01', NULL)", "UPDATE cleaned.t SET g = 'z' WHERE id = 2",
             "DELETE FROM cleaned.t WHERE id = 100")
    # PyIceberg gives `partitions` the names of each spec alone.
    compare(lake, "cleaned.t", [it for it in TABLES if it != "partitions"])
    compare(lake, "cleaned.t", ("files", "data_files", "delete_files", "entries"), first)


def case_version_3(lake):
    lake.run("CREATE TABLE cleaned.t (id BIGINT, g STRING) PARTITIONED BY (truncate(1, g)) "
             f"TBLPROPERTIES ('format-version' = '3', {MERGE_ON_READ})",
             "INSERT INTO cleaned.t SELECT i, CASE i % 2 WHEN 0 THEN 'xy' ELSE 'uv' END FROM range(0, 50) r(i)",
             "DELETE FROM cleaned.t WHERE id % 5 = 0", "UPDATE cleaned.t SET id = -1 WHERE id = 7")
    compare(lake, "cleaned.t")


def case_position_deletes(lake):
    """Against the rows that are gone, found by their positions."""
    for version in (2, 3):
        name = f"cleaned.p{version}"
        lake.run(f"CREATE TABLE {name} (id BIGINT, g STRING) PARTITIONED BY (g) "
                 f"TBLPROPERTIES ('format-version' = '{version}', {MERGE_ON_READ})",
                 f"INSERT INTO {name} SELECT i, CASE i % 2 WHEN 0 THEN 'x' ELSE 'y' END FROM range(0, 40) r(i)")
        rows, = lake.run(f"SELECT _file AS file_path, _pos AS pos, g FROM {name} WHERE id % 7 = 3 ORDER BY 1, 2")
        lake.run(f"DELETE FROM {name} WHERE id % 7 = 3")
        gone, files = lake.run(f"SELECT file_path, pos, partition.g AS g FROM {name}.position_deletes ORDER BY 1, 2",
                               f"SELECT file_path AS f, content_offset AS o FROM {name}.delete_files ORDER BY 1, 2")
        lake.tally.same(f"positions, version {version}", gone, rows)
        named, counted = lake.run(f"SELECT DISTINCT delete_file_path AS f, content_offset AS o FROM {name}.position_deletes "
                                  "ORDER BY 1, 2", f"SELECT count(*) AS n FROM {name}.position_deletes WHERE pos >= 0 AND row IS NULL")
        lake.tally.same(f"files, version {version}", named, files)
        lake.tally.same(f"count, version {version}", counted, [{"n": len(rows)}])


CASES = {name.removeprefix("case_"): value for name, value in list(globals().items()) if name.startswith("case_")}

if __name__ == "__main__":
    roundtrip.main(CASES, __doc__)
