#!/usr/bin/env python3
"""Row changes against rewriting the table, in one run.

    ICEFIELD_BIN=… python changes.py --data DIR [--peer]

`--data` is the folder of one scale factor that the peers' harness made (it has tables.json). The
baseline is CREATE TABLE AS of lineitem; then on such tables, for format v2 and v3 and both modes:

    delete   1% of the rows, scattered over all files
    update   5% of the rows, scattered
    merge    100,000 changes: three quarters updates, a quarter inserts
    scan     an aggregate over the table after all of them, and over one without deletes
    deleted  the same and a sum of one column, warm in one process, over a table of which 10% of the rows are
             deleted, scattered, to one that never had them: per row that is left; with columns in memory, and
             with --cache-limit 0

Whole processes are timed, each statement in one of its own, and three times, in turn with the baseline, about other rows
each time; the least of each counts, since others at work on a machine only ever add. With --peer, PyIceberg deletes the same
500 keys from a table of the same rows, and upserts 1,000 rows. The report is Markdown, on standard output.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BIN = os.environ.get("ICEFIELD_BIN", "icefield")
SCAN = "SELECT count(*), sum(l_quantity), sum(l_extendedprice), max(l_shipdate) FROM {}"
ROUNDS = 3
MERGE_SOURCE = """CREATE TABLE cleaned.changes{n} AS
SELECT * FROM (SELECT * FROM cleaned.base WHERE l_orderkey % 60 = 11 + 2 * {n} LIMIT 75000)
UNION ALL
SELECT * FROM (SELECT l_orderkey + 100000000 * (1 + {n}) AS l_orderkey, l_partkey, l_suppkey, l_linenumber, l_quantity,
  l_extendedprice, l_discount, l_tax, l_returnflag, l_linestatus, l_shipdate, l_commitdate, l_receiptdate,
  l_shipinstruct, l_shipmode, l_comment FROM cleaned.base WHERE l_orderkey % 60 = 12 LIMIT 25000)"""
STATEMENTS = {
    "delete 1%": "DELETE FROM {t} WHERE (l_orderkey * 7 + l_linenumber) % 100 = 3 + {n}",
    "update 5%": "UPDATE {t} SET l_tax = l_tax + 0.01 WHERE (l_orderkey * 3 + l_linenumber) % 20 = 1 + {n}",
    "merge 100,000": "MERGE INTO {t} t USING cleaned.changes{n} s ON t.l_orderkey = s.l_orderkey AND "
                     "t.l_linenumber = s.l_linenumber WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *",
}


def sql(warehouse: Path, text: str) -> float:
    start = time.perf_counter()
    run = subprocess.run([BIN, "sql", "--warehouse", str(warehouse), "--format", "ndjson", "-c", text],
                         capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if run.returncode != 0:
        sys.exit(f"{text}\n{run.stderr}")
    return seconds


def warm(warehouse: Path, queries: list[str], *arguments: str, runs: int = 40) -> list[float]:
    """Seconds of each query, the median of several executions in one process, taken in turn."""
    process = subprocess.Popen([BIN, "sql", "--warehouse", str(warehouse), "--format", "ndjson", *arguments],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    times = [[] for _ in queries]
    for run in range(runs + 2):
        for number, query in enumerate(queries):
            start = time.perf_counter()
            process.stdin.write(query + ";\n")
            process.stdin.flush()
            process.stdout.readline()
            if run > 1:
                times[number].append(time.perf_counter() - start)
    process.stdin.close()
    process.wait()
    return [statistics.median(it) for it in times]


def deleted(warehouse: Path) -> None:
    """What deletes cost a scan: 10% of the rows, scattered over all pages."""
    keep = "(l_orderkey * 7 + l_linenumber) % 10 <> 3"
    sql(warehouse, f"CREATE TABLE cleaned.never AS SELECT * FROM cleaned.base WHERE {keep}")
    names = {}
    for version in (2, 3):
        names[version] = f"cleaned.deleted{version}"
        create(warehouse, names[version], "cleaned.base", version, "merge-on-read")
        sql(warehouse, f"DELETE FROM {names[version]} WHERE NOT ({keep})")
    print("\n| scan of a table with 10% deleted, to one that never had them | v2 | v3 | v2, read from files | v3, read from "
          "files |\n|---|---:|---:|---:|---:|")
    for name, query in {"four aggregates": SCAN, "one sum": "SELECT sum(l_extendedprice) FROM {}",
                        "a filter": "SELECT count(*) FROM {} WHERE l_discount > 0.05"}.items():
        all_three = [query.format(it) for it in ("cleaned.never", names[2], names[3])]
        cells = []
        for arguments in ((), ("--cache-limit", "0")):
            plain, two, three = warm(warehouse, all_three, *arguments)
            cells += [f"{two / plain:.2f}", f"{three / plain:.2f}"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def create(warehouse: Path, table: str, source: str, version: int, mode: str) -> float:
    modes = ", ".join(f"'write.{it}.mode' = '{mode}'" for it in ("delete", "update", "merge"))
    return sql(warehouse, f"CREATE TABLE {table} TBLPROPERTIES ('format-version' = '{version}', {modes}) "
                          f"AS SELECT * FROM {source}")


def peer(warehouse: Path) -> float:
    """PyIceberg deletes the same 1%, copy-on-write, which is the way it has."""
    code = (
        "import sys, time; from pyiceberg.catalog.sql import SqlCatalog\n"
        "w = sys.argv[1]\n"
        "c = SqlCatalog('lake', uri=f'sqlite:///{w}/catalog.db', warehouse=w)\n"
        "t = c.load_table('cleaned.peer'); s = time.perf_counter()\n"
        "keys = [k for k in range(0, 6000001, 100)]\n"
        "t.delete(f'l_orderkey in ({\", \".join(map(str, keys[:500]))})')\n"
        "print(time.perf_counter() - s)")
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(warehouse)], capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(run.stderr)
    return float(run.stdout)


def peer_upsert(warehouse: Path) -> float:
    """PyIceberg upserts the rows of cleaned.few into cleaned.peer."""
    code = (
        "import sys, time; from pyiceberg.catalog.sql import SqlCatalog\n"
        "w = sys.argv[1]\n"
        "c = SqlCatalog('lake', uri=f'sqlite:///{w}/catalog.db', warehouse=w)\n"
        "t = c.load_table('cleaned.peer'); few = c.load_table('cleaned.few').scan().to_arrow(); s = time.perf_counter()\n"
        "t.upsert(few, join_cols=['l_orderkey', 'l_linenumber'])\n"
        "print(time.perf_counter() - s)")
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(warehouse)], capture_output=True, text=True,
                         timeout=900)
    if run.returncode != 0:
        sys.exit(run.stderr)
    return float(run.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--peer", action="store_true")
    a = parser.parse_args()
    source = json.loads((a.data / "tables.json").read_text())["lineitem"]["metadata"]
    warehouse = Path(tempfile.mkdtemp(prefix="icefield-changes-"))
    try:
        create(warehouse, "cleaned.base", f"iceberg_scan('{source}')", 2, "copy-on-write")
        for number in range(ROUNDS):
            sql(warehouse, MERGE_SOURCE.format(n=number))
        kinds = [(v, m) for v in (2, 3) for m in ("copy-on-write", "merge-on-read")]
        names = {kind: f"cleaned.t{number}" for number, kind in enumerate(kinds)}
        for kind in kinds:
            create(warehouse, names[kind], "cleaned.base", *kind)
        base, found = [], {}
        for number in range(ROUNDS):
            for name, text in STATEMENTS.items():
                base.append(create(warehouse, f"cleaned.base_{len(base)}", f"iceberg_scan('{source}')", 2, "copy-on-write"))
                for kind in kinds:
                    seconds = sql(warehouse, text.format(t=names[kind], n=number))
                    found[name, kind] = min(seconds, found.get((name, kind), seconds))
        print(f"CREATE TABLE AS of lineitem: {min(base):.2f} s, the least of {len(base)} (the greatest {max(base):.2f} s). Times "
              f"are whole processes, the least of {ROUNDS}; ratios are to it.\n")
        print("| statement | v2 copy-on-write | v2 merge-on-read | v3 copy-on-write | v3 merge-on-read |")
        print("|---|---:|---:|---:|---:|")
        for name in STATEMENTS:
            times = [found[name, kind] for kind in kinds]
            print(f"| {name} | " + " | ".join(f"{it:.2f} s, {it / min(base):.2f}" for it in times) + " |", flush=True)
        plain = min(sql(warehouse, SCAN.format("cleaned.base")) for _ in range(3))
        times = [min(sql(warehouse, SCAN.format(names[kind])) for _ in range(3)) for kind in kinds]
        print("| scan after, to one without | " + " | ".join(f"{it:.2f} s, {it / plain:.2f}" for it in times) + " |")
        deleted(warehouse)
        if a.peer:
            create(warehouse, "cleaned.peer", "cleaned.base", 2, "copy-on-write")
            create(warehouse, "cleaned.ours", "cleaned.base", 2, "copy-on-write")
            keys = ", ".join(str(it) for it in range(0, 6000001, 100)[:500])
            theirs = peer(warehouse)
            ours = sql(warehouse, f"DELETE FROM cleaned.ours WHERE l_orderkey IN ({keys})")
            print(f"\nDELETE of 500 keys, copy-on-write: PyIceberg {theirs:.2f} s (without its start), "
                  f"icefield {ours:.2f} s, {ours / theirs:.2f}.", flush=True)
            sql(warehouse, f"CREATE TABLE cleaned.few AS SELECT * FROM (SELECT * FROM cleaned.changes0 WHERE l_orderkey < 100000000 "
                           f"LIMIT 750) UNION ALL SELECT * FROM (SELECT * FROM cleaned.changes0 WHERE l_orderkey > 100000000 LIMIT 250)")
            theirs = peer_upsert(warehouse)
            ours = sql(warehouse, STATEMENTS["merge 100,000"].format(t="cleaned.ours", n=0).replace("cleaned.changes0", "cleaned.few"))
            print(f"Upsert of 1,000 rows, copy-on-write: PyIceberg {theirs:.2f} s (without its start), "
                  f"icefield {ours:.2f} s, {ours / theirs:.2f}.")
    finally:
        shutil.rmtree(warehouse, ignore_errors=True)


if __name__ == "__main__":
    main()
