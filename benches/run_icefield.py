#!/usr/bin/env python3
"""icefield: iceberg_scan() on the metadata JSON, through the command as users run it.

A runner of the peers' harness (see README.md): same arguments, same JSON line. One `icefield sql`
process runs a marker and then the query `--runs` + 1 times. Each answer is flushed when it is
complete, so the time from the end of one answer to the end of the next is that of one execution,
from the statement's text to its rows as JSON. The process' start is not in it, as the peers' is not
in theirs; writing the rows as JSON is, where the peers have them as Arrow.

    ICEFIELD_BIN   the binary [default: icefield]
    ICEFIELD_SETTINGS  settings to try, `name = value` with semicolons between
    BENCH_HARNESS  folder of the peers' harness [default: this file's]
"""
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

for _folder in (os.environ.get("BENCH_HARNESS"), os.path.dirname(os.path.abspath(sys.argv[0]))):
    if _folder:
        sys.path.append(_folder)

import common  # noqa: E402
import dialects  # noqa: E402

NAME = "icefield"
BIN = os.environ.get("ICEFIELD_BIN", "icefield")
MARKER = "SELECT 1 AS marker"
dialects.LITERALS.setdefault(NAME, dialects.LITERALS["duckdb"])  # timestamptz '…+00'


def with_tables(sql: str, index: dict) -> str:
    """The statement with a CTE for each table it names: there are no views."""
    ctes = ", ".join(
        f"{t} AS (SELECT * FROM iceberg_scan('{index[t]['metadata']}'))"
        for t in common.tables_in(sql, index)
    )
    body, explain = sql.strip(), ""
    if body.lower().startswith("explain "):
        explain, body = "EXPLAIN ", body[len("explain "):].strip()
    if body.lower().startswith("with "):
        return f"{explain}WITH {ctes}, {body[len('with '):]}"
    return f"{explain}WITH {ctes} {body}"


def answers(stream):
    """Raw JSON answers as they arrive, each with the time its last byte did."""
    got, seen = bytearray(), 0
    while chunk := os.read(stream.fileno(), 1 << 20):
        now = time.perf_counter()
        got += chunk
        # An answer ends with a line `]`, or is the line `[]`, or the one of what was done.
        while True:
            mark = b"\n]\n" if got.startswith(b"[\n") else b"\n"
            end = got.find(mark, max(0, seen - 3))
            if end < 0:
                seen = len(got)
                break
            end, seen = end + len(mark), 0
            yield now, bytes(got[:end])
            del got[:end]


def high_water_mb(pid: int) -> float:
    try:
        for line in open(f"/proc/{pid}/status"):
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


def execute(sql: str, runs: int, warehouse: str):
    """Seconds of each execution, the last answer, RSS at the marker and at the end."""
    cmd = [BIN, "sql", "--warehouse", warehouse, "--format", "json"]
    for setting in filter(None, os.environ.get("ICEFIELD_SETTINGS", "").split(";")):
        cmd += ["-c", f"SET {setting}"]
    cmd += ["-c", MARKER]
    cmd += ["-c", sql] * runs
    with tempfile.TemporaryFile() as errors:
        p = subprocess.Popen(cmd, stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL, cwd=warehouse)
        ends, last, base = [], b"[]", 0.0
        for now, last in answers(p.stdout):
            if b'"SET"' in last:
                continue
            if not ends:
                base = high_water_mb(p.pid)
            ends.append(now)
        _, status, usage = os.wait4(p.pid, 0)
        p.returncode = os.waitstatus_to_exitcode(status)
        if p.returncode != 0 or len(ends) != runs + 1:
            errors.seek(0)
            said = errors.read().decode("utf-8", "replace").strip()
            raise RuntimeError(f"exit {p.returncode} after {max(0, len(ends) - 1)} answers: {said}")
        return [b - a for a, b in zip(ends, ends[1:])], last, base, usage.ru_maxrss / 1024


def rows_of(answer: bytes) -> list[list]:
    # Pairs, since columns may share a name.
    rows = json.loads(answer, object_pairs_hook=lambda pairs: [value for _, value in pairs])
    return [list(row) for row in rows]


def main() -> None:
    a = common.parse_args(__doc__)
    index = common.load_index(a.data, a.sf)
    version = subprocess.run([BIN, "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
    with tempfile.TemporaryDirectory() as warehouse:
        for q in common.names(a.query):
            secs, rows, base, peak, err = [], None, 0.0, 0.0, None
            try:
                sql = with_tables(common.query_text(q, NAME, a.sf), index)
                secs, last, base, peak = execute(sql, a.runs + 1, warehouse)
                got = rows_of(last)
                rows = len(got)
                if a.answers:
                    folder = a.answers / f"sf{a.sf}" / NAME
                    folder.mkdir(parents=True, exist_ok=True)
                    (folder / f"{q}.json").write_text(json.dumps(got))
            except Exception as e:
                err = f"{type(e).__name__}: {e}"[:400]
            warm = secs[1:]
            common.emit(
                engine=NAME, version=version, sf=a.sf, query=q,
                seconds=[round(s, 4) for s in warm],
                first_s=round(secs[0], 4) if secs else None,
                min_s=round(min(warm), 4) if warm and not err else None,
                median_s=round(statistics.median(warm), 4) if warm and not err else None,
                rows=rows, base_rss_mb=round(base), peak_rss_mb=round(peak), error=err,
            )


if __name__ == "__main__":
    main()
