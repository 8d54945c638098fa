"""Commits through the server: `serve.py ICEFIELD [--seconds N] [--postgres URL URL]`, in Markdown.

A commit sets a property of a table. 1, 8 and 32 clients commit to one table, and to 32 tables; the baseline is PyIceberg's
SqlCatalog on a database of the same kind, with as many threads. Of commits that conflict, which the baseline has, the ones
that land count. Then 10,000 tables in one namespace, listed and loaded, by the
server and by SqlCatalog on the same database.
"""
import argparse
import http.client
import json
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException
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
    arguments = parser.parse_args()
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
            print(f"\n{kind}: loading a table takes {load:.1f} ms in the middle.\n")
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = crowded(arguments.binary, f"{folder}/warehouse", arguments.tables)
        print(f"{arguments.tables:,} tables in a namespace (SQLite): listed in {ours[0]:.2f} s, a load {ours[1]:.1f} ms; "
              f"SqlCatalog {theirs[0]:.2f} s, {theirs[1]:.1f} ms.")


main()
