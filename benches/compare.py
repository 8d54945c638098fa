#!/usr/bin/env python3
"""icefield against DuckDB and Polars on the same tables, in the same run.

    python compare.py --harness DIR --data DIR --out DIR [--only tpch,micro,startup,commits,ctas]
    python compare.py --out DIR --only report        # the Markdown of what is in --out

`--harness` is the folder of the peers' harness, `--data` what its gen.py made. icefield is
$ICEFIELD_BIN [default: icefield]. Run it with the harness' Python environment. Parts that are
measured again replace what was there.

    tpch     q1..q22, and whether all answers equal DuckDB's
    micro    w1..w8, their answers, and x_*: planning alone (EXPLAIN)
    startup  whole processes that answer SELECT 1
    commits  200 INSERTs of one row each, one process; baseline: PyIceberg's append, SQLite catalog
    ctas     lineitem into a new table, by CREATE TABLE AS and by INSERT … SELECT; baseline: DuckDB's COPY to
             zstd Parquet
"""
from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
BIN = os.environ.get("ICEFIELD_BIN", "icefield")
PEERS = ["duckdb", "polars"]
ENGINES = [*PEERS, "icefield"]
COMMITS = 200
PARTS = ["tpch", "micro", "startup", "commits", "ctas"]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def save(a, part: str, records: list[dict]) -> None:
    (a.out / f"{part}.jsonl").write_text("".join(json.dumps(it) + "\n" for it in records))


def load(a, part: str) -> list[dict]:
    path = a.out / f"{part}.jsonl"
    return [json.loads(it) for it in path.read_text().splitlines()] if path.exists() else []


# -- queries ---------------------------------------------------------------------------------------

def queries(a, part: str, names: list[str]) -> None:
    """Engines interleaved per query, one process each, as the harness' bench.py does it."""
    import bench

    records = []
    for q in names:
        for engine in ENGINES:
            script = HERE / "run_icefield.py" if engine == "icefield" else a.harness / f"run_{engine}.py"
            cmd = [sys.executable, "-W", "ignore", str(script), "--data", str(a.data), "--sf", a.sf, "--query", q,
                   "--runs", str(a.runs), "--answers", str(a.out / "answers")]
            bench.wait_quiet(10)
            (b0, c0), t0 = bench.cpu(), time.monotonic()
            text, why, top = bench.run_one(cmd, a.timeout, 0)
            b1, c1 = bench.cpu()
            lines = [it for it in text.splitlines() if it.startswith("{")]
            record = json.loads(lines[-1]) if lines else {
                "engine": engine, "query": q, "sf": a.sf, "median_s": None, "first_s": None,
                "peak_rss_mb": round(top), "error": why or "no output"}
            busy = max(0.0, (b1 - b0) - (c1 - c0))
            record["others_cpu"] = round(busy / ((time.monotonic() - t0) * os.cpu_count()), 3)
            records.append(record)
            save(a, part, records)
            say(f"{q:18} {engine:9} first {record['first_s']}  warm {record['median_s']} s  {record['peak_rss_mb']} MB"
                f"  others {record['others_cpu']:.0%}  {(record.get('error') or '')[:120]}")


def differences(a, names: list[str]) -> list[str]:
    """Where icefield's answer is not DuckDB's."""
    import verify

    out = []
    for q in names:
        if q.startswith("x_"):
            continue
        mine, theirs = (a.out / "answers" / f"sf{a.sf}" / e / f"{q}.json" for e in ("icefield", "duckdb"))
        if not theirs.exists():
            out.append(f"{q}: no answer of DuckDB's")
        elif not mine.exists():
            out.append(f"{q}: no answer of icefield's")
        elif wrong := verify.same(json.loads(mine.read_text()), json.loads(theirs.read_text())):
            out.append(f"{q}: {wrong} (icefield against DuckDB)")
    return out


# -- whole processes -------------------------------------------------------------------------------

def process_s(cmd: list[str], runs: int, **kw) -> list[float]:
    out = []
    for i in range(runs + 3):
        t0 = time.perf_counter()
        subprocess.run(cmd, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, **kw)
        if i >= 3:
            out.append(time.perf_counter() - t0)
    return out


def startup(a) -> None:
    nation = index(a)["nation"]["metadata"]
    scan = f"SELECT count(*) FROM iceberg_scan('{nation}')"
    duck = "import duckdb; c = duckdb.connect(); {}c.execute(\"{}\").fetchall()"
    extensions = "c.execute('load avro; load iceberg');"
    with tempfile.TemporaryDirectory() as w:
        icefield = [BIN, "sql", "--warehouse", w, "-c"]
        py = [sys.executable, "-c"]
        polars = "import polars as pl; "
        cases = [
            ("SELECT 1", "icefield", [*icefield, "SELECT 1"]),
            ("SELECT 1", "duckdb", [*py, duck.format("", "SELECT 1")]),
            ("SELECT 1", "polars", [*py, polars + "pl.SQLContext().execute('SELECT 1 AS a').collect()"]),
            ("count a table of 25 rows", "icefield", [*icefield, scan]),
            ("count a table of 25 rows", "duckdb", [*py, duck.format(extensions, scan)]),
            ("count a table of 25 rows", "polars", [*py, polars + f"pl.scan_iceberg('{nation}').select(pl.len()).collect()"]),
            ("--version", "icefield", [BIN, "--version"]),
            ("--version", "python", [sys.executable, "--version"]),
        ]
        records = []
        for what, engine, cmd in cases:
            try:
                took = process_s(cmd, 20, cwd=w, stderr=subprocess.DEVNULL)
                records.append({"what": what, "engine": engine, "median_s": statistics.median(took),
                                "min_s": min(took), "max_s": max(took), "runs": len(took)})
            except subprocess.CalledProcessError as e:
                records.append({"what": what, "engine": engine, "error": str(e)[:300]})
            say(json.dumps(records[-1]))
    save(a, "startup", records)


def arrivals(cmd: list[str], **kw) -> list[float]:
    """When each line of its output arrived."""
    p = subprocess.Popen(cmd, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, **kw)
    times = []
    for _ in p.stdout:
        times.append(time.perf_counter())
    said = p.stderr.read().decode()
    if p.wait() != 0:
        raise RuntimeError(f"exit {p.returncode} after {len(times)} lines: {said[:500]}")
    return times


def commits(a) -> None:
    import bench

    records = []
    for run in range(3):
        with tempfile.TemporaryDirectory(dir=a.out) as w:
            script = Path(w) / "commits.sql"
            inserts = "".join(f"INSERT INTO raw.t VALUES ({i}, 'k{i}', {i * 0.5});\n" for i in range(COMMITS))
            script.write_text("CREATE TABLE raw.t (id BIGINT, k VARCHAR, v DOUBLE);\n" + inserts)
            icefield = [BIN, "sql", "--warehouse", w, "--format", "ndjson"]
            bench.wait_quiet(10)
            at = arrivals([*icefield, "-f", str(script)], cwd=w)
            each = [y - x for x, y in zip(at, at[1:])]
            check = "SELECT count(*) AS n, sum(id) AS s FROM raw.t"
            got = json.loads(subprocess.run([*icefield, "-c", check], check=True, capture_output=True).stdout)
            records.append(rate("icefield", each) | {
                "ok": len(each) == COMMITS and got == {"n": COMMITS, "s": COMMITS * (COMMITS - 1) // 2}})
            say(json.dumps(records[-1]))
        with tempfile.TemporaryDirectory(dir=a.out) as w:
            bench.wait_quiet(10)
            code = PYICEBERG.format(w=w, n=COMMITS)
            got = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True)
            got = json.loads(got.stdout)
            records.append(rate("pyiceberg", got["each"]) | {"ok": got["rows"] == COMMITS})
            say(json.dumps(records[-1]))
        save(a, "commits", records)


def rate(engine: str, each: list[float]) -> dict:
    return {"engine": engine, "commits": len(each), "per_s": len(each) / sum(each),
            "ms_1_20": 1e3 * sum(each[:20]) / 20, "ms_181_200": 1e3 * sum(each[-20:]) / 20,
            "ms_median": 1e3 * statistics.median(each), "ms_max": 1e3 * max(each)}


PYICEBERG = """
import json, time
import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog
cat = SqlCatalog("b", uri="sqlite:///{w}/catalog.db", warehouse="file://{w}")
cat.create_namespace("b")
t = cat.create_table("b.t", pa.schema([("id", pa.int64()), ("k", pa.string()), ("v", pa.float64())]))
out = []
for i in range({n}):
    t0 = time.perf_counter()
    t.append(pa.table({{"id": pa.array([i], pa.int64()), "k": [f"k{{i}}"], "v": [i * 0.5]}}))
    out.append(time.perf_counter() - t0)
print(json.dumps({{"each": out, "rows": cat.load_table("b.t").scan().to_arrow().num_rows}}))
"""

SUMS = "count(*) AS n, sum(l_orderkey) AS k, sum(l_extendedprice) AS p, sum(length(l_comment)) AS c"

DUCKDB = """
import json, time
from run_duckdb import Engine
c = Engine({{}}).c
t0 = time.perf_counter()
c.execute("copy (select * from iceberg_scan('{metadata}')) to '{out}' (format parquet, compression zstd)")
print(json.dumps(time.perf_counter() - t0))
"""


WAYS = {
    "CREATE TABLE AS": ("SELECT 1 AS marker", "CREATE TABLE raw.lineitem AS {}"),
    "INSERT": ("CREATE TABLE raw.lineitem AS {} WHERE false", "INSERT INTO raw.lineitem {}"),
}


def written(a, way: str, metadata: str, is_checked: bool) -> dict:
    """The last of two statements, in a process and a warehouse of their own."""
    import bench
    from run_duckdb import Engine

    with tempfile.TemporaryDirectory(dir=a.out) as w:
        bench.wait_quiet(10)
        statements = [it.format(f"SELECT * FROM iceberg_scan('{metadata}')") for it in WAYS[way]]
        at = arrivals([BIN, "sql", "--warehouse", w, "--format", "ndjson", "-c", statements[0], "-c", statements[1]], cwd=w)
        files = list(Path(w).rglob("*.parquet"))
        record = {"engine": f"icefield, {way}", "seconds": at[1] - at[0], "files": len(files),
                  "mb": sum(it.stat().st_size for it in files) / 1e6}
        if is_checked:  # what was written, as DuckDB reads it, against what was read
            made = max(Path(w).rglob("*.metadata.json"), key=lambda it: it.stat().st_mtime)
            c = Engine({}).c
            got, want = (c.execute(f"select {SUMS} from iceberg_scan('{it}')").fetchone() for it in (made, metadata))
            record |= {"ok": got == want, "got": str(got), "want": str(want)}
        return record


def ctas(a) -> None:
    import bench

    metadata = index(a)["lineitem"]["metadata"]
    records = []
    for run in range(4):
        for way in WAYS:
            records.append({"run": run} | written(a, way, metadata, run == 0))
            say(json.dumps(records[-1]))
        with tempfile.TemporaryDirectory(dir=a.out) as w:
            bench.wait_quiet(10)
            code = DUCKDB.format(metadata=metadata, out=f"{w}/out.parquet")
            got = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True,
                                 env=os.environ | {"PYTHONPATH": str(a.harness)})
            files = list(Path(w).rglob("*.parquet"))
            records.append({"engine": "duckdb", "run": run, "seconds": float(got.stdout.split()[-1]), "files": len(files),
                            "mb": sum(it.stat().st_size for it in files) / 1e6})
            say(json.dumps(records[-1]))
        save(a, "ctas", records)


def index(a) -> dict:
    import common

    return common.load_index(a.data, a.sf)


# -- report ----------------------------------------------------------------------------------------

def cell(v: float | None) -> str:
    return "fail" if v is None else f"{v:.3f}" if v < 10 else f"{v:.1f}"


def mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def table(records: list[dict], field: str = "median_s", only=lambda q: True) -> None:
    by = {(r["query"], r["engine"]): r.get(field) if not r.get("error") else None for r in records}
    names = [q for q in dict.fromkeys(r["query"] for r in records) if only(q)]
    print("| query | DuckDB s | Polars s | icefield s | icefield / best peer | the best |")
    print("|---|---:|---:|---:|---:|---|")
    ratios = {"best": [], **{p: [] for p in PEERS}}
    for q in names:
        seconds = {e: by.get((q, e)) for e in ENGINES}
        peers = {e: seconds[e] for e in PEERS if seconds[e]}
        ratio, winner = "-", "-"
        if peers:
            winner = min(peers, key=peers.get)
            if seconds["icefield"]:
                ratio = f"{seconds['icefield'] / peers[winner]:.2f}"
                ratios["best"].append(seconds["icefield"] / peers[winner])
                for e, s in peers.items():
                    ratios[e].append(seconds["icefield"] / s)
        print(f"| {q} | " + " | ".join(cell(seconds[e]) for e in ENGINES) + f" | {ratio} | {winner} |")
    if ratios["best"]:
        n = len(ratios["best"])
        print(f"| **geometric mean of ratios** ({n}) | " + " | ".join(
            f"to it: {mean(ratios[p]):.2f} ({len(ratios[p])})" if ratios[p] else "-" for p in PEERS)
            + f" | | **{mean(ratios['best']):.2f}** | |")
    print()


def report(a) -> None:
    if records := load(a, "tpch"):
        print(f"## TPC-H SF{a.sf}, warm (median of {a.runs})\n")
        table(records)
        print(f"## TPC-H SF{a.sf}, first execution in a process\n")
        table(records, "first_s")
    if records := load(a, "micro"):
        print("## Micro workloads, warm\n")
        table(records, only=lambda q: q.startswith("w"))
        print("## Micro workloads, first execution in a process\n")
        table(records, "first_s", only=lambda q: q.startswith("w"))
        print("## Planning alone (EXPLAIN), first execution in a process\n")
        table(records, "first_s", only=lambda q: q.startswith("x"))
        print("## Planning alone (EXPLAIN), warm\n")
        table(records, only=lambda q: q.startswith("x"))
    if records := load(a, "startup"):
        print("## Whole processes\n\n| what | engine | median ms | min ms | max ms |\n|---|---|---:|---:|---:|")
        for r in records:
            ms = [f"{1e3 * r[k]:.0f}" if k in r else "fail" for k in ("median_s", "min_s", "max_s")]
            print(f"| {r['what']} | {r['engine']} | " + " | ".join(ms) + " |")
        print()
    if records := load(a, "commits"):
        print("## 200 commits of one row\n\n| engine | run | commits/s | ms, 1-20 | ms, 181-200 | median ms | max ms |\n"
              "|---|---:|---:|---:|---:|---:|---:|")
        count: dict[str, int] = {}
        for r in records:
            count[r["engine"]] = count.get(r["engine"], 0) + 1
            print(f"| {r['engine']} | {count[r['engine']]} | {r['per_s']:.1f} | {r['ms_1_20']:.1f} | "
                  f"{r['ms_181_200']:.1f} | {r['ms_median']:.1f} | {r['ms_max']:.1f} |")
        print()
    if records := load(a, "ctas"):
        print("## lineitem into a new table\n\n| engine | runs, s | median of the last three, s | files | MB |\n"
              "|---|---|---:|---:|---:|")
        middle = {}
        for engine in dict.fromkeys(r["engine"] for r in records):
            mine = [r for r in records if r["engine"] == engine]
            middle[engine] = statistics.median([r["seconds"] for r in mine][-3:])
            print(f"| {engine} | {', '.join(cell(r['seconds']) for r in mine)} | {cell(middle[engine])} | "
                  f"{mine[-1]['files']} | {mine[-1]['mb']:.0f} |")
        for engine, seconds in middle.items():
            print(f"\n{engine} / DuckDB: {seconds / middle['duckdb']:.2f}")
        print()


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--harness", type=Path)
    ap.add_argument("--data", type=Path)
    ap.add_argument("--out", type=Path, required=True)
    ap.add_argument("--sf", default="1")
    ap.add_argument("--only", default=",".join([*PARTS, "report"]))
    ap.add_argument("--runs", type=int, default=5)
    ap.add_argument("--timeout", type=float, default=120)
    a = ap.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    a.out = a.out.resolve()
    wanted = a.only.split(",")
    wrong = []
    if any(it in PARTS for it in wanted):
        a.harness, a.data = a.harness.resolve(), a.data.resolve()
        sys.path.insert(0, str(a.harness))
        os.environ["BENCH_HARNESS"] = str(a.harness)
        if not shutil.which(BIN):
            ap.error(f"there is no {BIN}; set ICEFIELD_BIN")
        import common

        for part, which in (("tpch", "all"), ("micro", "micro")):
            if part in wanted:
                queries(a, part, common.names(which))
                wrong += differences(a, common.names(which))
        for part, run in (("startup", startup), ("commits", commits), ("ctas", ctas)):
            if part in wanted:
                run(a)
    if "report" in wanted:
        report(a)
    for it in wrong:
        say(f"WRONG {it}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
