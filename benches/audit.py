#!/usr/bin/env python3
"""Changes between versions, metadata tables, EXPLAIN: each against a named baseline, in one run.

    ICEFIELD_BIN=… python audit.py [--rows N] [--files N] [--only changes|files|explain]

    changes  table_changes over 100 snapshots, each of which updates or deletes a thousand rows, against a full diff of
             the two versions in SQL (what is in one and not in the other, both ways)
    files    metadata tables of a table of 100,000 files (one Parquet file under as many names, added by add_files),
             against PyIceberg's table.inspect on the same table
    explain  EXPLAIN of a query on that table against the query itself, and EXPLAIN ANALYZE of a query that reads rows
             against that query

Whole processes are timed, and the median of several is taken. The report is Markdown, on standard output.
"""
import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog.sql import SqlCatalog

BIN = os.environ.get("ICEFIELD_BIN", "icefield")
SNAPSHOTS = 100


def sql(warehouse, *statements, runs=1):
    """Seconds of a process that runs these statements, the median of several."""
    took = []
    for _ in range(runs):
        start = time.perf_counter()
        arguments = [part for statement in statements for part in ("-c", statement)]
        run = subprocess.run([BIN, "sql", "--warehouse", str(warehouse), "--format", "ndjson", *arguments],
                             capture_output=True, text=True)
        took.append(time.perf_counter() - start)
        if run.returncode != 0:
            sys.exit(f"{statements}\n{run.stderr}")
    return statistics.median(took), run.stdout


def changes(warehouse, rows):
    print(f"### Changes over {SNAPSHOTS} snapshots, a table of {rows:,} rows\n")
    print("| table | rows that changed | table_changes | net | full diff in SQL | ratio | ratio, net |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for version in (2, 3):
        for mode in ("merge-on-read", "copy-on-write"):
            name = f"cleaned.c{version}{mode[0]}"
            modes = ", ".join(f"'write.{it}.mode' = '{mode}'" for it in ("delete", "update", "merge"))
            script = [f"CREATE TABLE {name} (id BIGINT NOT NULL, g BIGINT, v DOUBLE, s STRING) "
                      f"TBLPROPERTIES ('format-version' = '{version}', {modes})",
                      f"INSERT INTO {name} SELECT i, i % 1000, i * 0.5, 'text ' || i FROM range(0, {rows}) r(i)",
                      f"ALTER TABLE {name} SET IDENTIFIER FIELDS id", f"ALTER TABLE {name} CREATE TAG before"]
            for number in range(SNAPSHOTS):
                where = f"id BETWEEN {number * 5000} AND {number * 5000 + 999}"
                script.append(f"DELETE FROM {name} WHERE {where}" if number % 4 == 3 else
                              f"UPDATE {name} SET v = v + 1 WHERE {where}")
            sql(warehouse, *script)
            log, out = sql(warehouse, f"SELECT count(*) AS n FROM table_changes('{name}', 'before')", runs=3)
            net, _ = sql(warehouse, f"SELECT count(*) AS n FROM table_changes('{name}', 'before', net => true)", runs=3)
            then = f"SELECT * FROM {name} FOR VERSION AS OF 'before'"
            full, _ = sql(warehouse, f"SELECT (SELECT count(*) FROM (SELECT * FROM {name} EXCEPT {then})) + "
                                     f"(SELECT count(*) FROM ({then} EXCEPT SELECT * FROM {name})) AS n", runs=3)
            count = out.strip().split(":")[1].rstrip("}")
            print(f"| v{version}, {mode} | {int(count):,} | {log:.2f} s | {net:.2f} s | {full:.2f} s | {log / full:.2f} | {net / full:.2f} |")
    print()


def fill(warehouse, files):
    """A table of so many files: one file, linked under as many names."""
    folder = Path(warehouse) / "files"
    folder.mkdir()
    first = folder / "0.parquet"
    pq.write_table(pa.table({"id": pa.array(range(10), pa.int64()), "v": pa.array([0.5] * 10)}), first)
    # A file has only so many links.
    for number in range(1, files):
        source = folder / f"{number // 1000 * 1000}.parquet"
        target = folder / f"{number}.parquet"
        if number % 1000 == 0:
            target.write_bytes(first.read_bytes())
        else:
            os.link(source, target)
    took, _ = sql(warehouse, "CREATE TABLE cleaned.t (id BIGINT, v DOUBLE)", f"CALL system.add_files('cleaned.t', '{folder}')")
    print(f"`add_files` of {files:,} files: {took:.1f} s.\n")


def files_of(warehouse, files):
    print(f"### Metadata tables of {files:,} files\n")
    print("| table | icefield, two columns | icefield, all columns | PyIceberg inspect | ratio, all columns |")
    print("|---|---:|---:|---:|---:|")
    catalog = SqlCatalog("lake", uri=f"sqlite:///{warehouse}/catalog.db", warehouse=f"file://{warehouse}")
    for kind, few in (("files", "count(*), sum(record_count)"), ("entries", "count(*), max(sequence_number)"),
                      ("partitions", "count(*), sum(record_count)"), ("manifests", "count(*), sum(length)"),
                      ("all_files", "count(*), sum(record_count)")):
        two, _ = sql(warehouse, f"SELECT {few} FROM cleaned.t.{kind}", runs=3)
        # Every column is made; the rows are not printed.
        every, _ = sql(warehouse, f"CREATE OR REPLACE TEMPORARY VIEW x AS SELECT * FROM cleaned.t.{kind}",
                       f"SELECT * FROM cleaned.t.{kind} LIMIT 1", runs=3)
        start = time.perf_counter()
        getattr(catalog.load_table("cleaned.t").inspect, kind)()
        theirs = time.perf_counter() - start
        print(f"| `{kind}` | {two:.2f} s | {every:.2f} s | {theirs:.2f} s | {every / theirs:.2f} |")
    print()


def explain(warehouse, files):
    print("### EXPLAIN\n")
    print("| query | the query | EXPLAIN | ratio | EXPLAIN ANALYZE | ratio |")
    print("|---|---:|---:|---:|---:|---:|")
    sql(warehouse, "CREATE TABLE cleaned.big AS SELECT i AS id, i % 1000 AS g, i * 0.5 AS v FROM range(0, 5000000) r(i)")
    for name, query in ((f"one row of {files:,} files", "SELECT * FROM cleaned.t WHERE id = 99"),
                        ("5 million rows in groups", "SELECT g, sum(v) FROM cleaned.big GROUP BY g ORDER BY 2 DESC LIMIT 3")):
        took, _ = sql(warehouse, query, runs=5)
        plan, _ = sql(warehouse, f"EXPLAIN {query}", runs=5)
        analyzed, _ = sql(warehouse, f"EXPLAIN ANALYZE {query}", runs=5)
        print(f"| {name} | {took:.3f} s | {plan:.3f} s | {plan / took:.2f} | {analyzed:.3f} s | {analyzed / took:.2f} |")
    print()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--only", choices=("changes", "files", "explain"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as warehouse:
        if args.only in (None, "changes"):
            changes(warehouse, args.rows)
        if args.only in (None, "files", "explain"):
            fill(warehouse, args.files)
        if args.only in (None, "files"):
            files_of(warehouse, args.files)
        if args.only in (None, "explain"):
            explain(warehouse, args.files)


if __name__ == "__main__":
    main()
