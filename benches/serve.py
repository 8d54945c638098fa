"""Commits through the server: `serve.py ICEFIELD [--seconds N] [--postgres URL URL]`, in Markdown.

A commit sets a property of a table. 1, 8 and 32 clients commit to one table, and to 32 tables; the baseline is PyIceberg's
SqlCatalog on a database of the same kind, with as many threads. Of commits that conflict, which the baseline has, the ones
that land count. The same by 32 processes of icefield without a server, and so without its queue. Rows appended by shells
through the server, to a table that may be changed and to one of `raw`. A scan of 100,000 files planned by the server, and by
PyIceberg on the same table. Then 10,000 tables in one namespace, listed and loaded, by the
server and by SqlCatalog on the same database.
"""
import argparse
import http.client
import json
import os
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.schema import Schema
from pyiceberg.types import LongType, NestedField

CLIENTS, TABLES = (1, 8, 32), 32
SCHEMA = Schema(NestedField(1, "id", LongType()))
FIELDS = {"type": "struct", "fields": [{"id": 1, "name": "id", "required": False, "type": "long"}]}


def measured(clients, seconds, make):
    """Commits a second and the 99th percentile in ms, of clients that each commit until time is up."""
    took, until = [], time.monotonic() + seconds
    def work(number):
        commit = make(number)
        while time.monotonic() < until:
            began = time.monotonic()
            if commit():
                took.append(time.monotonic() - began)
    threads = [threading.Thread(target=work, args=(it,)) for it in range(clients)]
    began = time.monotonic()
    [it.start() for it in threads]
    [it.join() for it in threads]
    took.sort()
    return len(took) / (time.monotonic() - began), took[int(len(took) * 0.99)] * 1000 if took else 0


def served(binary, warehouse, catalog, seconds):
    command = [binary, "serve", "--warehouse", warehouse, "--listen", "127.0.0.1:0", *(["--catalog", catalog] if catalog else [])]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    address = server.stdout.readline().split("http://")[1].strip()
    def ask(connection, method, path, body=None):
        connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, text
    first = http.client.HTTPConnection(address)
    for number in range(TABLES):
        status, text = ask(first, "POST", "/v1/namespaces/raw/tables", {"name": f"t{number}", "schema": FIELDS})
        assert status == 200, text
    def client(several):
        def make(number):
            connection = http.client.HTTPConnection(address)
            path = f"/v1/namespaces/raw/tables/t{number if several else 0}"
            count = iter(range(10**9))
            def commit():
                updates = [{"action": "set-properties", "updates": {f"k{number}": str(next(count))}}]
                status, text = ask(connection, "POST", path, {"requirements": [], "updates": updates})
                assert status == 200, text
                return True
            return commit
        return make
    try:
        one = [measured(it, seconds, client(False)) for it in CLIENTS]
        many = measured(TABLES, seconds, client(True))
        loads = []
        for _ in range(300):
            began = time.monotonic()
            assert ask(first, "GET", "/v1/namespaces/raw/tables/t0")[0] == 200
            loads.append(time.monotonic() - began)
        return one, many, sorted(loads)[150] * 1000
    finally:
        server.terminate()
        server.wait()


def shells(binary, options, seconds, count, statement):
    """What `count` processes of icefield get done in a second and the 99th percentile in ms: each runs
    `statement(process, number)` time after time."""
    open_shells = {}
    def opened(number):
        shell = subprocess.Popen([binary, "sql", "--format", "ndjson", *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                 stderr=subprocess.DEVNULL, text=True)
        open_shells[number] = shell
        shell.stdin.write("SELECT 1;\n")
        shell.stdin.flush()
        shell.stdout.readline()
    def make(number):
        numbers = iter(range(10**9))
        def once():
            shell = open_shells[number]
            shell.stdin.write(statement(number, next(numbers)) + ";\n")
            shell.stdin.flush()
            if shell.stdout.readline():
                return True
            # What is refused ends it.
            shell.communicate()
            opened(number)
            return False
        return once
    try:
        [opened(number) for number in range(count)]
        return measured(count, seconds, make)
    finally:
        for shell in open_shells.values():
            shell.communicate()


def without_a_server(binary, warehouse, catalog, seconds):
    """32 processes on one table."""
    options = ["--warehouse", warehouse, *(["--catalog", catalog] if catalog else [])]
    subprocess.run([binary, "sql", *options, "-c", "CREATE TABLE cleaned.alone (id BIGINT)"], check=True, capture_output=True)
    return shells(binary, options, seconds, TABLES, lambda process, number:
                  f"ALTER TABLE cleaned.alone SET TBLPROPERTIES ('k{process}' = '{number}')")


def appends(binary, warehouse, seconds):
    """Rows appended a second, through the server by 8 shells: to a table of `cleaned`, and of `raw`."""
    server = subprocess.Popen([binary, "serve", "--warehouse", warehouse, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True)
    address = server.stdout.readline().split(": ", 1)[-1].strip()
    address = address[address.index("http://"):]
    try:
        found = []
        for table in ("cleaned.appended", "raw.appended"):
            options = ["--catalog", address]
            subprocess.run([binary, "sql", *options, "-c", f"CREATE TABLE {table} (id BIGINT)"], check=True, capture_output=True)
            found.append(shells(binary, options, seconds, 8, lambda process, number: f"INSERT INTO {table} VALUES ({number})"))
        return found
    finally:
        server.terminate()
        server.wait()


def planned(binary, warehouse, files):
    """Seconds in which the server plans a scan of so many files, asked by HTTP, and one for a few of them; PyIceberg the
    same, with the table loaded."""
    folder = Path(warehouse) / "loose"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"id": pa.array([7], pa.int64())}), folder / "f0.parquet")
    # A file has only so many links.
    for number in range(1, files):
        source, target = folder / f"f{number // 1000 * 1000}.parquet", folder / f"f{number}.parquet"
        if number % 1000 == 0:
            target.write_bytes((folder / "f0.parquet").read_bytes())
        else:
            os.link(source, target)
    subprocess.run([binary, "sql", "--warehouse", warehouse, "-c",
                    f"CREATE TABLE cleaned.many (id BIGINT); CALL system.add_files('cleaned.many', '{folder}')"],
                   check=True, capture_output=True)
    server = subprocess.Popen([binary, "serve", "--warehouse", warehouse, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True)
    address = server.stdout.readline().split("http://")[1].strip()
    connection = http.client.HTTPConnection(address)
    def ask(path, body):
        connection.request("POST", f"/v1/namespaces/cleaned/tables/many/{path}", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == 200, text
        return json.loads(text)
    def ours(body):
        began = time.monotonic()
        plan = ask("plan", body)
        assert plan["status"] == "completed", plan["status"]
        tasks, found = list(plan.get("plan-tasks", [])), len(plan.get("file-scan-tasks", []))
        while tasks:
            part = ask("tasks", {"plan-task": tasks.pop()})
            tasks += part.get("plan-tasks", [])
            found += len(part.get("file-scan-tasks", []))
        return time.monotonic() - began, found
    catalog = SqlCatalog("lake", uri=f"sqlite:///{warehouse}/catalog.db", warehouse=f"file://{warehouse}")
    def theirs(condition):
        began = time.monotonic()
        found = len(list(table.scan(row_filter=condition).plan_files()))
        return time.monotonic() - began, found
    try:
        table, rows = catalog.load_table("cleaned.many"), []
        for name, body, condition, count in (
                ("every file", {}, "true", files),
                ("no file", {"filter": {"type": "eq", "term": "id", "value": 8}}, "id = 8", 0)):
            own = [ours(body) for _ in range(3)]
            first = own[0][0]
            own.sort()
            peer = sorted(theirs(condition if condition != "true" else AlwaysTrue()) for _ in range(3))
            assert own[1][1] == peer[1][1] == count, (own, peer)
            rows.append((name, first, own[1][0], peer[1][0]))
        return rows
    finally:
        server.terminate()
        server.wait()


def baseline(warehouse, uri, seconds):
    catalog = SqlCatalog("lake", uri=uri, warehouse=f"file://{warehouse}")
    catalog.create_namespace("raw")
    for number in range(TABLES):
        catalog.create_table(f"raw.t{number}", SCHEMA)
    def client(several):
        def make(number):
            own = SqlCatalog("lake", uri=uri, warehouse=f"file://{warehouse}")
            name = f"raw.t{number if several else 0}"
            count = iter(range(10**9))
            def commit():
                try:
                    with own.load_table(name).transaction() as transaction:
                        transaction.set_properties(**{f"k{number}": str(next(count))})
                    return True
                except CommitFailedException:
                    return False
                except Exception as error:  # noqa: BLE001
                    if "locked" in str(error):
                        return False
                    raise
            return commit
        return make
    return [measured(it, seconds, client(False)) for it in CLIENTS], measured(TABLES, seconds, client(True))


def crowded(binary, warehouse, count):
    """Seconds to list a namespace of so many tables and milliseconds to load one in the middle of it, by the server and by
    SqlCatalog on the same database."""
    command = [binary, "serve", "--warehouse", warehouse, "--listen", "127.0.0.1:0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    address = server.stdout.readline().split("http://")[1].strip()
    def ask(connection, method, path, body=None):
        connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == 200, text
        return json.loads(text)
    def make(numbers):
        connection = http.client.HTTPConnection(address)
        for number in numbers:
            ask(connection, "POST", "/v1/namespaces/cleaned/tables", {"name": f"t{number}", "schema": FIELDS})
    try:
        threads = [threading.Thread(target=make, args=(range(it, count, 8),)) for it in range(8)]
        [it.start() for it in threads]
        [it.join() for it in threads]
        connection = http.client.HTTPConnection(address)
        def listed():
            names, token = [], ""
            while token is not None:
                page = ask(connection, "GET", f"/v1/namespaces/cleaned/tables?pageSize=1000&pageToken={token}")
                names += page["identifiers"]
                token = page.get("next-page-token")
            return len(names)
        theirs = SqlCatalog("lake", uri=f"sqlite:///{warehouse}/catalog.db", warehouse=f"file://{warehouse}")
        found = []
        for listing, loading in ((listed, lambda it: ask(connection, "GET", f"/v1/namespaces/cleaned/tables/t{it}")),
                                 (lambda: len(theirs.list_tables("cleaned")), lambda it: theirs.load_table(f"cleaned.t{it}"))):
            began = time.monotonic()
            assert listing() == count
            seconds, loads = time.monotonic() - began, []
            for number in range(count // 2, count // 2 + 200):
                began = time.monotonic()
                loading(number)
                loads.append(time.monotonic() - began)
            found.append((seconds, sorted(loads)[100] * 1000))
        return found
    finally:
        server.terminate()
        server.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--postgres", nargs=2, metavar="URL")
    parser.add_argument("--tables", type=int, default=10_000, help="in one namespace")
    parser.add_argument("--files", type=int, default=100_000, help="of the scan that is planned")
    parser.add_argument("--only", choices=("commits", "appends", "plan", "tables"))
    arguments = parser.parse_args()
    parts = {"commits": commits, "appends": append_report, "plan": plan_report, "tables": tables_report}
    for name, part in parts.items():
        if arguments.only in (None, name):
            part(arguments)


def commits(arguments):
    kinds = [("SQLite", None, None)]
    if arguments.postgres:
        kinds.append(("PostgreSQL", *arguments.postgres))
    print("| database | clients | tables | commits/s | p99 ms | SqlCatalog commits/s | p99 ms | ratio |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for kind, ours, theirs in kinds:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "theirs").mkdir()
            one, many, load = served(arguments.binary, f"{folder}/ours", ours, arguments.seconds)
            uri = theirs.replace("postgres://", "postgresql+psycopg2://") if theirs else f"sqlite:///{folder}/theirs/c.db"
            base, base_many = baseline(f"{folder}/theirs", uri, arguments.seconds)
            rows = [(it, 1, *a, *b) for it, a, b in zip(CLIENTS, one, base)] + [(TABLES, TABLES, *many, *base_many)]
            for clients, tables, rate, p99, base_rate, base_p99 in rows:
                ratio = rate / base_rate if base_rate else float("inf")
                print(f"| {kind} | {clients} | {tables} | {rate:.0f} | {p99:.0f} | {base_rate:.0f} | {base_p99:.0f} | {ratio:.1f} |")
            rate, p99 = without_a_server(arguments.binary, f"{folder}/alone", ours, arguments.seconds)
            assert rate, "no process got a commit done"
            print(f"\n{kind}: loading a table takes {load:.1f} ms in the middle. Without the server, and so without its queue, "
                  f"{TABLES} processes get {rate:.0f} commits a second done on one table (p99 {p99:.0f} ms): through the server one "
                  f"table gets {one[-1][0] / rate:.1f} times that, {TABLES} tables {many[0] / rate:.1f} times.\n")


def append_report(arguments):
    with tempfile.TemporaryDirectory() as folder:
        cleaned, raw = appends(arguments.binary, f"{folder}/warehouse", arguments.seconds)
        print(f"8 shells that each append a row time after time, through the server: {cleaned[0]:.0f} a second to a table of "
              f"`cleaned` (p99 {cleaned[1]:.0f} ms), {raw[0]:.0f} to one of `raw` (p99 {raw[1]:.0f} ms), where each is judged: "
              f"{raw[0] / cleaned[0]:.2f}.\n")


def plan_report(arguments):
    with tempfile.TemporaryDirectory() as folder:
        print(f"| a scan of {arguments.files:,} files that needs | the server, at first | the middle of three | PyIceberg | ratio |")
        print("|---|--:|--:|--:|--:|")
        for name, first, middle, theirs in planned(arguments.binary, f"{folder}/warehouse", arguments.files):
            print(f"| {name} | {first:.2f} s | {middle:.2f} s | {theirs:.2f} s | {middle / theirs:.2f} |")
        print()


def tables_report(arguments):
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = crowded(arguments.binary, f"{folder}/warehouse", arguments.tables)
        print(f"{arguments.tables:,} tables in a namespace (SQLite): listed in {ours[0]:.2f} s, a load {ours[1]:.1f} ms; "
              f"SqlCatalog {theirs[0]:.2f} s, {theirs[1]:.1f} ms.")


main()
