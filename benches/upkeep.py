#!/usr/bin/env python3
"""Upkeep against what it costs elsewhere, in one run.

    ICEFIELD_BIN=… python upkeep.py --data DIR [--only PARTS] [--runs N] [--work DIR]

`--data` is the folder of one scale factor that the peers' harness made (it has tables.json): lineitem in 2,000
small files is its table `lineitem_small`. Besides the harness' Python packages this needs fastavro. Work is done,
and removed, in a folder beside the data: files are linked there, so it has to be the same file system; with SF1 it
takes 6 GB.

    compact   the small files into one, by copying row groups and decoded; baselines: DuckDB's COPY of the same
              files to one zstd Parquet file, and `cat` of their bytes
    sort      by l_shipdate, and along curves through l_shipdate and l_partkey; baseline: DuckDB's COPY with ORDER BY
    memory    the peak of icefield at a quarter of the data and at ten times that
    metadata  remove_orphan_files and expire_snapshots for up to 10,000 snapshots and 1,000,000 empty files; baselines:
              `find` listing the folder, and `find -delete` of as many files
    queries   on the small files, compacted and sorted ones; and what `icefield health` predicts. Baseline: the small
              files

Whole processes are timed, page cache warm, the median of --runs. Answers are compared with those before. Peaks are
VmHWM. The report is Markdown, on standard output.
"""
import argparse
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

BIN = os.environ.get("ICEFIELD_BIN", "icefield")
PARTS = ["compact", "sort", "memory", "metadata", "queries"]
MB = 1e6
SUMS = "count(*) AS n, sum(l_orderkey) AS k, sum(l_extendedprice) AS p, sum(length(l_comment)) AS c"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Ran:
    """A process that ended well: its seconds, its peak of memory, what it printed."""

    def __init__(self, command: list[str], stdout=None):
        start = time.perf_counter()
        # Its own words go to files, so that no pipe fills up.
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout or out, stderr=error)
            self.peak_mb = 0.0
            watch = threading.Thread(target=self.watch, args=(process.pid,))
            watch.start()
            code = process.wait()
            self.seconds = time.perf_counter() - start
            watch.join()
            error.seek(0)
            if code != 0:
                raise SystemExit(f"exit {code}: {' '.join(command)[:600]}\n{error.read().decode()[-3000:]}")
            out.seek(0)
            self.out = out.read().decode()

    def watch(self, pid: int) -> None:
        """The high-water mark, read while there is one: rusage would count this process' own before the exec."""
        while True:
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                return
            marks = [line for line in status.splitlines() if line.startswith("VmHWM")]
            if not marks:
                return
            self.peak_mb = max(self.peak_mb, int(marks[0].split()[1]) * 1024 / MB)
            time.sleep(0.005)


def icefield(warehouse: Path, *arguments: str) -> Ran:
    return Ran([BIN, arguments[0], "--warehouse", str(warehouse), *arguments[1:]])


def sql(warehouse: Path, *statements: str) -> Ran:
    return icefield(warehouse, "sql", "--format", "ndjson", *[part for it in statements for part in ("-c", it)])


def rows(ran: Ran) -> list[dict]:
    return [json.loads(line, parse_float=str) for line in ran.out.splitlines() if line.startswith("{")]


def duckdb(code: str) -> Ran:
    return Ran([sys.executable, "-W", "ignore", "-c", f"import duckdb; c = duckdb.connect(); {code}"])


def cell(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:.0f} s"


# -- tables ----------------------------------------------------------------------------------------

class Small:
    """lineitem in many small files, and tables made of them."""

    def __init__(self, a):
        from pyiceberg.table import StaticTable

        metadata = json.loads((a.data / "tables.json").read_text())["lineitem_small"]["metadata"]
        self.metadata = metadata
        files = [it.file for it in StaticTable.from_metadata(metadata).scan().plan_files()]
        self.files = sorted(files, key=lambda it: it.file_path)
        self.work = a.work

    def paths(self) -> list[str]:
        return [it.file_path.removeprefix("file://") for it in self.files]

    def table(self, name: str, files=None, copies: int = 1) -> Path:
        """A warehouse with the table cleaned.t of these files, by 20 commits; several copies of each by links."""
        from pyiceberg.catalog.sql import SqlCatalog
        from pyiceberg.manifest import DataFile

        warehouse = self.work / name
        sql(warehouse, f"CREATE TABLE cleaned.t AS SELECT * FROM iceberg_scan('{self.metadata}') LIMIT 0")
        catalog = SqlCatalog("lake", uri=f"sqlite:///{warehouse}/catalog.db", warehouse=f"file://{warehouse}")
        table = catalog.load_table("cleaned.t")
        keys = ("content", "file_format", "partition", "record_count", "file_size_in_bytes", "column_sizes", "value_counts",
                "null_value_counts", "nan_value_counts", "lower_bounds", "upper_bounds", "split_offsets", "sort_order_id",
                "spec_id")
        folder = warehouse / "links"
        folder.mkdir()
        made = []
        for copy in range(copies):
            for file in files or self.files:
                link = folder / f"{copy}-{os.path.basename(file.file_path)}"
                os.link(file.file_path.removeprefix("file://"), link)
                made.append(DataFile.from_args(file_path=f"file://{link}", equality_ids=None, key_metadata=None,
                                               **{key: getattr(file, key) for key in keys}))
        each = -(-len(made) // 20)
        for start in range(0, len(made), each):
            with table.transaction() as transaction, transaction.update_snapshot().fast_append() as append:
                for file in made[start:start + each]:
                    append.append_data_file(file)
        return warehouse

    def sums(self, warehouse: Path) -> dict:
        return rows(sql(warehouse, f"SELECT {SUMS} FROM cleaned.t"))[0]


def compacted(warehouse: Path, *arguments: str) -> Ran:
    """Compacts cleaned.t into one file if it fits."""
    given = [part for it in arguments for part in (("-o", it) if "=" in it else (it,))]
    return icefield(warehouse, "compact", "cleaned.t", "--format", "json", *given)


WAYS = {
    "icefield, row groups copied": ["copy-row-groups=always"],
    "icefield, as it chooses": [],
    "icefield, decoded": ["copy-row-groups=never"],
}
ORDERS = {
    "icefield, sort by l_shipdate": ["--order-by", "l_shipdate"],
    "icefield, zorder(l_shipdate, l_partkey)": ["--order-by", "zorder(l_shipdate, l_partkey)"],
    "icefield, hilbert(l_shipdate, l_partkey)": ["--order-by", "hilbert(l_shipdate, l_partkey)"],
}


def size_of(folder: Path) -> float:
    return sum(it.stat().st_size for it in folder.rglob("*") if it.is_file()) / MB


def copy_of(small: Small, out: Path, order: str = "") -> str:
    """DuckDB's way: one file of all."""
    source = small.work / "files.json"
    source.write_text(json.dumps(small.paths()))
    return (f"import json; files = json.load(open({str(source)!r})); "
            f"c.execute(\"COPY (SELECT * FROM read_parquet(\" + repr(files) + \") {order}) TO '{out}' "
            "(FORMAT parquet, COMPRESSION zstd)\")")


def measured_rewrites(a, small: Small, ways: dict, baselines: dict) -> None:
    """Rewrites in turn, each on a fresh table, against baselines: name to a function that gives a run and MB."""
    times: dict[str, list[float]] = {}
    peaks, sizes = {}, {}
    for run in range(a.runs):
        for name, baseline in baselines.items():
            ran, written = baseline()
            times.setdefault(name, []).append(ran.seconds)
            peaks[name], sizes[name] = max(peaks.get(name, 0), ran.peak_mb), written
            say(f"{name}: {ran.seconds:.2f} s")
        for name, arguments in ways.items():
            warehouse = small.table("table")
            want = small.sums(warehouse)
            ran = compacted(warehouse, *arguments)
            done = json.loads(ran.out)
            if small.sums(warehouse) != want or done["failed_data_files_count"]:
                raise SystemExit(f"{name}: the rows are not those before: {done}")
            times.setdefault(name, []).append(ran.seconds)
            peaks[name], sizes[name] = max(peaks.get(name, 0), ran.peak_mb), done["added_bytes_count"] / MB
            say(f"{name}: {ran.seconds:.2f} s, {done}")
            shutil.rmtree(warehouse)
    middle = {name: statistics.median(it) for name, it in times.items()}
    first = list(baselines)
    print("| what | time | " + " | ".join(f"to {name}" for name in first) + " | MB written | peak MB |")
    print("|---|---:|" + "---:|" * (len(first) + 2))
    for name, seconds in middle.items():
        ratios = " | ".join(f"{seconds / middle[it]:.2f}" for it in first)
        print(f"| {name} | {cell(seconds)} | {ratios} | {sizes[name]:.0f} | {peaks[name]:.0f} |")
    print(flush=True)


def compact(a) -> None:
    small = Small(a)
    out = a.work / "out.parquet"

    def copy():
        return duckdb(copy_of(small, out)), out.stat().st_size / MB

    def cat():
        with open(out, "wb") as file:
            ran = Ran(["cat", *small.paths()], stdout=file)
        return ran, out.stat().st_size / MB

    n = len(small.files)
    print(f"## Compacting {n:,} small files of lineitem\n")
    measured_rewrites(a, small, WAYS, {"DuckDB's COPY": copy, "`cat`": cat})
    out.unlink()


def sort(a) -> None:
    small = Small(a)
    out = a.work / "out.parquet"

    def copy():
        return duckdb(copy_of(small, out, "ORDER BY l_shipdate")), out.stat().st_size / MB

    print(f"## Sorting {len(small.files):,} small files of lineitem\n")
    measured_rewrites(a, small, ORDERS, {"DuckDB's COPY … ORDER BY l_shipdate": copy})
    out.unlink()


def memory(a) -> None:
    small = Small(a)
    # More than a row group, so that what is held for one is held in both.
    count = sum(it.record_count for it in small.files)
    print(f"## Peak memory, {count:,} rows and ten times as many\n")
    print("| what | 1x MB | 10x MB | ratio | 1x | 10x | 10x, time to 10 times 1x |\n|---|---:|---:|---:|---:|---:|---:|")
    ways = {
        "row groups copied": ["copy-row-groups=always"],
        "decoded": ["copy-row-groups=never"],
        "sort by l_shipdate": ["--order-by", "l_shipdate"],
        "sort by l_shipdate, limit of 512 MB": ["--order-by", "l_shipdate", "--memory-limit", "512MB"],
    }
    for name, arguments in ways.items():
        ran = []
        for copies in (1, 10):
            warehouse = small.table("table", copies=copies)
            want = small.sums(warehouse)
            ran.append(compacted(warehouse, *arguments))
            if small.sums(warehouse) != want:
                raise SystemExit(f"{name}, {copies}x: the rows are not those before")
            say(f"{name}, {copies}x: {ran[-1].seconds:.2f} s, {ran[-1].peak_mb:.0f} MB, {size_of(warehouse):.0f} MB on disk")
            shutil.rmtree(warehouse)
        one, ten = ran
        print(f"| {name} | {one.peak_mb:.0f} | {ten.peak_mb:.0f} | {ten.peak_mb / one.peak_mb:.2f} | {cell(one.seconds)} | "
              f"{cell(ten.seconds)} | {ten.seconds / one.seconds / 10:.2f} |", flush=True)
    print()


# -- metadata --------------------------------------------------------------------------------------

FILES_EACH = 100  # new data files of a snapshot
WINDOW = 10       # snapshots whose files are part of the table at a time


def avro(path: Path):
    """The schema, the metadata and the records of an Avro file."""
    import fastavro

    with open(path, "rb") as file:
        reader = fastavro.reader(file)
        records = list(reader)
        kept = {key: value for key, value in reader.metadata.items() if not key.startswith("avro.")}
        return reader.writer_schema, kept, records


def write_avro(path: Path, schema, metadata: dict, records: list) -> int:
    import fastavro

    with open(path, "wb") as file:
        fastavro.writer(file, schema, records, codec="deflate", metadata=metadata)
        return file.tell()


def synthetic(warehouse: Path, snapshots: int) -> tuple[Path, int]:
    """A table whose every snapshot adds 100 files and lets go of those from ten before. The data files are empty.

    The first snapshot is Icefield's own; all others are made after its likeness. Gives the table's folder, and how
    many files lie below `data`.
    """
    sql(warehouse, "CREATE TABLE cleaned.t (id BIGINT, s STRING)", "INSERT INTO cleaned.t VALUES (1, 'a')")
    database = sqlite3.connect(warehouse / "catalog.db")
    (location,) = database.execute("SELECT metadata_location FROM iceberg_tables").fetchone()
    table = Path(location.removeprefix("file://")).parent.parent
    metadata = json.loads(Path(location.removeprefix("file://")).read_text())
    model = metadata["snapshots"][-1]
    list_schema, list_head, (line,) = avro(Path(model["manifest-list"].removeprefix("file://")))
    schema, head, (entry,) = avro(Path(line["manifest_path"].removeprefix("file://")))
    prefix = "file://" if location.startswith("file://") else ""
    now = int(time.time() * 1000) - snapshots * 1000
    lines, made, log = [], [], []
    for number in range(snapshots):
        snapshot_id, sequence = 1_000_000_000_000 + number, number + 1
        folder = table / "data" / f"{number % 1000:03}"
        folder.mkdir(parents=True, exist_ok=True)
        entries = []
        for place in range(FILES_EACH):
            path = folder / f"{number:06}-{place:03}-{uuid.uuid4()}.parquet"
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
            file = entry["data_file"] | {"file_path": f"{prefix}{path}"}
            entries.append(entry | {"snapshot_id": snapshot_id, "data_file": file})
        manifest = table / "metadata" / f"{number:06}-m0.avro"
        length = write_avro(manifest, schema, head, entries)
        lines.append(line | {
            "manifest_path": f"{prefix}{manifest}", "manifest_length": length, "sequence_number": sequence,
            "min_sequence_number": sequence, "added_snapshot_id": snapshot_id, "added_files_count": FILES_EACH,
            "added_rows_count": FILES_EACH})
        lines = lines[-WINDOW:]
        at = table / "metadata" / f"snap-{snapshot_id}-0-{number:06}.avro"
        parent = {} if number == 0 else {"parent-snapshot-id": snapshot_id - 1}
        write_avro(at, list_schema, list_head | {"snapshot-id": str(snapshot_id), "sequence-number": str(sequence)}, lines)
        made.append({key: value for key, value in model.items() if key != "parent-snapshot-id"} | parent | {
            "snapshot-id": snapshot_id, "sequence-number": sequence, "timestamp-ms": now + number * 1000,
            "manifest-list": f"{prefix}{at}"})
        log.append({"snapshot-id": snapshot_id, "timestamp-ms": now + number * 1000})
    last = made[-1]["snapshot-id"]
    # What the first snapshot really wrote is for remove_orphan_files to find, with a tenth of other files.
    orphans = max(1, snapshots * FILES_EACH // 10)
    for number in range(orphans):
        folder = table / "data" / f"{number % min(snapshots, 1000):03}"
        os.close(os.open(folder / f"orphan-{number:07}.parquet", os.O_CREAT | os.O_WRONLY))
    metadata |= {"snapshots": made, "snapshot-log": log, "current-snapshot-id": last, "last-sequence-number": snapshots,
                 "last-updated-ms": now + snapshots * 1000, "metadata-log": []}
    metadata["refs"] = {"main": {"type": "branch", "snapshot-id": last}}
    to = table / "metadata" / f"00002-{uuid.uuid4()}.metadata.json"
    to.write_text(json.dumps(metadata))
    with database:
        database.execute("UPDATE iceberg_tables SET metadata_location = ?, previous_metadata_location = NULL", (f"{prefix}{to}",))
    database.close()
    return table, orphans


def metadata(a) -> None:
    print("## Snapshots and files of a table with synthetic metadata\n")
    print("| snapshots | files | what | gone | time | baseline | to it | µs a file | peak MB |\n"
          "|---:|---:|---|---:|---:|---|---:|---:|---:|")
    for snapshots in a.snapshots:
        files = snapshots * FILES_EACH
        warehouse = a.work / "lake"
        table, orphans = synthetic(warehouse, snapshots)
        say(f"{snapshots} snapshots: made")
        live = sql(warehouse, "SELECT count(*) AS n FROM cleaned.t.files")
        if rows(live) != [{"n": min(snapshots, WINDOW) * FILES_EACH}]:
            raise SystemExit(f"the synthetic table has other files: {live.out}")
        find = Ran(["find", str(table), "-type", "f", "-printf", ""])
        future = "older_than => TIMESTAMP '2100-01-01 00:00:00'"
        removed = sql(warehouse, f"CALL system.remove_orphan_files(table => 'cleaned.t', {future}, allow_recent => true)")
        gone = removed.out.count("orphan-")
        if gone != orphans:
            raise SystemExit(f"{gone} orphans are gone, not {orphans}")
        lines = [("remove_orphan_files", gone, removed, "find, listing", find)]
        twin = a.work / "twin"
        for number in range(snapshots):
            folder = twin / f"{number % 1000:03}"
            folder.mkdir(parents=True, exist_ok=True)
            for place in range(FILES_EACH):
                os.close(os.open(folder / f"{number:06}-{place:03}.parquet", os.O_CREAT | os.O_WRONLY))
        delete = Ran(["find", str(twin), "-delete"])
        expired = sql(warehouse, f"CALL system.expire_snapshots(table => 'cleaned.t', {future}, retain_last => 1)")
        gone = int(rows(expired)[0]["deleted_data_files_count"])
        if gone != files - min(snapshots, WINDOW) * FILES_EACH:
            raise SystemExit(f"{gone} data files are gone: {expired.out}")
        lines.append(("expire_snapshots", gone, expired, "find -delete", delete))
        for what, gone, ran, baseline, other in lines:
            print(f"| {snapshots:,} | {files:,} | {what} | {gone:,} | {cell(ran.seconds)} | {baseline}: {cell(other.seconds)} | "
                  f"{ran.seconds / other.seconds:.1f} | {ran.seconds / files * 1e6:.0f} | {ran.peak_mb:.0f} |", flush=True)
        shutil.rmtree(warehouse)
    print()


# -- queries ---------------------------------------------------------------------------------------

QUERIES = {
    "full scan": "SELECT count(*) AS n, sum(l_quantity) AS q, sum(l_extendedprice) AS p, max(l_comment) AS c FROM cleaned.t",
    "one day": "SELECT count(*) AS n, sum(l_extendedprice) AS p FROM cleaned.t WHERE l_shipdate = DATE '1995-06-17'",
    "count(*)": "SELECT count(*) AS n FROM cleaned.t",
    "point lookup": "SELECT count(*) AS n, sum(l_tax) AS t FROM cleaned.t WHERE l_orderkey = 1234567 AND l_linenumber = 1",
}


def queries(a) -> None:
    small = Small(a)
    states = {"small files": None, "row groups copied": WAYS["icefield, row groups copied"], "decoded": WAYS["icefield, decoded"],
              "sorted by l_shipdate": ["--order-by", "l_shipdate"],
              "zorder(l_shipdate, l_orderkey)": ["--order-by", "zorder(l_shipdate, l_orderkey)"]}
    # Files of a size that leaves some for a filter to pass by.
    target = max(1 << 20, sum(it.file_size_in_bytes for it in small.files) // 8)
    took, said, answers = {}, {}, {}
    for state, arguments in states.items():
        warehouse = small.table("table")
        if arguments is not None:
            compacted(warehouse, *arguments, f"target-file-size-bytes={target}", "max-file-size-bytes=100000000000")
        said[state] = json.loads(icefield(warehouse, "health", "cleaned.t", "--format", "ndjson").out.splitlines()[0])
        for name, text in QUERIES.items():
            runs = [sql(warehouse, text) for _ in range(a.runs + 1)][1:]
            took[state, name] = statistics.median(it.seconds for it in runs)
            if answers.setdefault(name, rows(runs[0])) != rows(runs[0]):
                raise SystemExit(f"{name}, {state}: {rows(runs[0])}, not {answers[name]}")
        say(f"{state}: {[f'{took[state, name]:.3f}' for name in QUERIES]}")
        shutil.rmtree(warehouse)
    first = "small files"
    print(f"## Queries before and after compaction of {len(small.files):,} files\n")
    print("| table | files | " + " | ".join(QUERIES) + " |\n|---|---:|" + "---:|" * len(QUERIES))
    for state in states:
        cells = [f"{1e3 * took[state, name]:.0f} ms, {took[state, name] / took[first, name]:.2f}" for name in QUERIES]
        print(f"| {state} | {said[state]['data_files']:,} | " + " | ".join(cells) + " |")
    print("\nRatios are to the small files. What `icefield health` says a full scan costs:\n")
    print("| table | predicted | to the small files | measured, to them |\n|---|---:|---:|---:|")
    cost = lambda state, key="scan_cost_ms": float(said[state][key])
    for state in states:
        print(f"| {state} | {cost(state):.0f} ms | {cost(state) / cost(first):.2f} | "
              f"{took[state, 'full scan'] / took[first, 'full scan']:.2f} |")
    print(f"| small files, after the upkeep that is due | {cost(first, 'scan_cost_after_ms'):.0f} ms | "
          f"{cost(first, 'scan_cost_after_ms') / cost(first):.2f} | |\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--snapshots", default="100,1000,10000", help="sizes of the part metadata, 100 files a snapshot")
    parser.add_argument("--work", type=Path, help="where a folder for the work is made [default: --data]")
    a = parser.parse_args()
    a.data = a.data.resolve()
    a.snapshots = [int(it) for it in a.snapshots.split(",")]
    wanted = a.only.split(",")
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if not shutil.which(BIN):
        parser.error(f"there is no {BIN}; set ICEFIELD_BIN")
    # The user's own settings must not reach the runs.
    for name in [name for name in os.environ if name.startswith("ICEFIELD_") and name != "ICEFIELD_BIN"]:
        del os.environ[name]
    a.work = Path(tempfile.mkdtemp(prefix="icefield-upkeep-", dir=a.work or a.data)).resolve()
    try:
        for part, run in (("compact", compact), ("sort", sort), ("memory", memory), ("metadata", metadata),
                          ("queries", queries)):
            if part in wanted:
                start = time.perf_counter()
                run(a)
                say(f"{part}: {time.perf_counter() - start:.0f} s in all")
    finally:
        shutil.rmtree(a.work, ignore_errors=True)


if __name__ == "__main__":
    main()
