#!/usr/bin/env python3
"""Iceberg's Java implementation, on our server.

    java_client.py ICEFIELD_BINARY [--only REGEX]

Its own tests of catalogs and of views, as any server is tried with; and tables in Avro, ORC and Parquet that it writes: the
three have the same rows, so what we read of the first two is compared with what we read of the third. And its own server,
of which Icefield is the client.
"""
import contextlib
import http.server
import json
import re
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from pathlib import Path

from rest_server import serving

ROOT = Path(__file__).resolve().parents[2]
FAILED = []


def check(what, good, why=""):
    print(f"{'ok' if good else 'FAILED'}: {what}{'' if good else f': {why}'}", flush=True)
    if not good:
        FAILED.append(what)


def class_path():
    return subprocess.run([ROOT / "scripts/java-env"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def java(server, *arguments):
    # Beside other tests, a quarter of a gigabyte is enough.
    base = f"file:{server.warehouse.resolve()}"
    options = ["-Xmx256m", "-XX:+UseSerialGC", f"-Duri={server.url}", f"-Dbase={base}", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"]
    command = ["java", *options, "-cp", class_path(), *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def suite(server, name, least):
    """One of the suites of the implementation; at least so many of its tests have to have run."""
    done = java(server, "org.junit.platform.console.ConsoleLauncher", "execute", f"--select-class={name}",
                "--details=tree", "--disable-banner", "--disable-ansi-colors")
    passed = int((re.findall(r"\[\s*(\d+) tests successful", done.stdout) or ["0"])[-1])
    check(f"{name}: {passed} tests pass", done.returncode == 0 and passed >= least, done.stdout[-8000:])


def catalogs(server):
    suite(server, "CatalogSuite", 102)
    suite(server, "ViewSuite", 50)


def formats(server):
    done = java(server, "Formats")
    check("Java writes tables of all formats", done.returncode == 0, done.stdout[-4000:])
    for name, rows in [("all", 3000), ("deletes", None), ("evolved", 2)]:
        want = server.sql(f"SELECT * FROM cleaned.{name}_parquet ORDER BY id, 2")
        if rows:
            check(f"{name} has its rows", len(want) == rows, len(want))
        for other in ["avro", "orc"]:
            found = server.sql(f"SELECT * FROM cleaned.{name}_{other} ORDER BY id, 2")
            different = [(a, b) for a, b in zip(found, want) if a != b]
            check(f"{name} in {other} as in Parquet", found == want, f"{len(found)} rows, {different[:2]}")
    parts = server.sql("SELECT sum(small_too) AS d, count(DISTINCT u_too) AS u FROM cleaned.all_parquet")
    for other in ["avro", "orc"]:
        for column in ["sum(small_too) AS d", "count(DISTINCT u_too) AS u"]:
            found, = server.sql(f"SELECT {column} FROM cleaned.all_{other}")
            check(f"{column} of {other} alone", found.items() <= parts[0].items(), (found, parts))
    deleted(server)
    damaged(server)
    for other in ["avro", "orc"]:
        changed(server, other)


def deleted(server):
    # By position each tenth of a, each thousandth of b; by value 5 and null of a, 7 of b.
    gone = {("a", row) for row in range(3000) if row % 10 == 0 or row % 100 in (5, 99)}
    gone |= {("b", row) for row in range(3000) if row % 1000 == 0 or row % 100 == 7}
    for name in ["avro", "orc", "parquet"]:
        found = {(it["kind"], it["id"]) for it in server.sql(f"SELECT kind, id FROM cleaned.deletes_{name}")}
        want = {(kind, row) for kind in "ab" for row in range(3000)} - gone
        check(f"deletes in {name}", found == want, sorted(found ^ want)[:5])
        positions, = server.sql(f"SELECT count(*) AS n FROM cleaned.deletes_{name}.position_deletes")
        check(f"position deletes of {name} are shown", positions["n"] == 303, positions)
        numbered, = server.sql(f"SELECT count(*) AS n FROM cleaned.deletes_{name} WHERE _pos = id")
        check(f"rows of {name} are numbered", numbered["n"] == len(want), numbered)
        few = server.sql(f"SELECT id FROM cleaned.deletes_{name} WHERE kind = 'b' AND v = 3 AND id > 2000 ORDER BY id LIMIT 2")
        check(f"filters on {name}", [it["id"] for it in few] == [2003, 2103], few)


def damaged(server):
    """A delete file that was cut off deletes what it should, or is an error."""
    paths = server.sql("SELECT file_path AS p FROM cleaned.deletes_avro.delete_files WHERE content = 2")
    path = Path(paths[0]["p"].removeprefix("file:"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    try:
        server.sql("SELECT count(*) FROM cleaned.deletes_avro WHERE v = 5")
        check("a file that was cut off is refused", False)
    except AssertionError as error:
        check("a file that was cut off is refused", "ends within a block" in str(error), error)
    path.write_bytes(whole)


def changed(server, name):
    """Rows of such files are changed, and compaction makes Parquet of them."""
    table = f"cleaned.deletes_{name}"
    before, = server.sql(f"SELECT count(*) AS n, sum(v) AS v FROM {table}")
    server.sql(f"UPDATE {table} SET v = v + 1 WHERE id = 2101")
    server.sql(f"DELETE FROM {table} WHERE id = 2102")
    after, = server.sql(f"SELECT count(*) AS n, sum(v) AS v FROM {table}")
    check(f"{name} is changed", after == {"n": before["n"] - 2, "v": before["v"] + 2 - 4}, (before, after))
    server.sql(f"CALL system.rewrite_data_files(table => '{table}', options => map('rewrite-all', 'true'))")
    files = server.sql(f"SELECT DISTINCT file_format AS f FROM {table}.data_files")
    check(f"{name} becomes Parquet", [it["f"].upper() for it in files] == ["PARQUET"], files)
    compacted, = server.sql(f"SELECT count(*) AS n, sum(v) AS v FROM {table}")
    check(f"{name} has the same rows then", compacted == after, (after, compacted))


@contextlib.contextmanager
def java_server():
    """The Java implementation's own server, for as long as a `with` lasts."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["-Xmx256m", "-XX:+UseSerialGC", f"-Dfolder={folder}", "-Dorg.slf4j.simpleLogger.defaultLogLevel=off"]
        command = ["java", *options, "-cp", class_path(), "JavaServer"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                line = process.stdout.readline()
                assert " at http" in line, line
                yield line.split()[-1], folder
            finally:
                process.kill()


def client(binary):
    """Icefield as the client of that server."""
    with java_server() as (url, folder):
        def sql(*statements, fails=None):
            rows = None
            for text in statements:
                command = [binary, "sql", "--catalog", url, "--format", "json", "-c", text]
                done = subprocess.run(command, capture_output=True, text=True)
                if fails is not None:
                    check(f"{text} is refused", done.returncode == 1 and fails in done.stderr, done.stderr)
                elif done.returncode != 0:
                    check(text, False, done.stderr)
                with contextlib.suppress(ValueError):
                    rows = json.loads(done.stdout)
            return rows

        def same(what, statement, want):
            found = sql(statement)
            check(what, found == want, found)

        sql("CREATE NAMESPACE ns", "CREATE TABLE ns.t (id BIGINT NOT NULL, name TEXT, at TIMESTAMP) PARTITIONED BY (bucket(4, id))",
            "INSERT INTO ns.t VALUES (1, 'a', TIMESTAMP '2026-01-01 00:00:00'), (2, 'b', TIMESTAMP '2026-02-01 00:00:00')",
            # Layouts and columns that were before, also.
            "ALTER TABLE ns.t ADD PARTITION FIELD truncate(1, name)", "ALTER TABLE ns.t DROP PARTITION FIELD bucket(4, id)",
            "ALTER TABLE ns.t REPLACE PARTITION FIELD truncate(1, name) WITH months(at)",
            "ALTER TABLE ns.t DROP PARTITION FIELD months(at)", "ALTER TABLE ns.t ADD PARTITION FIELD bucket(4, id)",
            "ALTER TABLE ns.t ADD COLUMN x INT", "ALTER TABLE ns.t DROP COLUMN x",
            "ALTER TABLE ns.t RENAME COLUMN name TO called", "ALTER TABLE ns.t RENAME COLUMN called TO name",
            "ALTER TABLE ns.t SET IDENTIFIER FIELDS id", "ALTER TABLE ns.t DROP IDENTIFIER FIELDS id",
            "ALTER TABLE ns.t WRITE ORDERED BY name", "ALTER TABLE ns.t WRITE ORDERED BY id",
            "ALTER TABLE ns.t WRITE ORDERED BY name", "ALTER TABLE ns.t WRITE UNORDERED",
            "INSERT INTO ns.t VALUES (3, 'c', NULL)", "UPDATE ns.t SET name = 'bb' WHERE id = 2", "DELETE FROM ns.t WHERE id = 1")
        same("rows after layouts came and went", "SELECT id, name FROM ns.t ORDER BY id", [{"id": 2, "name": "bb"}, {"id": 3, "name": "c"}])
        # A table made anew: with columns and layouts like those before, and others.
        sql("CREATE TABLE ns.r (a INT, b TEXT)", "INSERT INTO ns.r VALUES (1, 'x')",
            "CREATE OR REPLACE TABLE ns.r (a INT, b TEXT)", "CREATE OR REPLACE TABLE ns.r (c INT) PARTITIONED BY (c) WRITE ORDERED BY c",
            "CREATE OR REPLACE TABLE ns.r (a INT, b TEXT)", "CREATE OR REPLACE TABLE ns.r AS SELECT 7 AS a, 'y' AS d")
        same("a table made anew", "SELECT * FROM ns.r", [{"a": 7, "d": "y"}])
        sql("CREATE OR REPLACE TABLE ns.r AS SELECT 'text' AS c", fails="partition field of an earlier layout")
        views(sql, same, url)
        # One transaction, two tables.
        sql("CREATE TABLE ns.one (n INT)", "CREATE TABLE ns.two (n INT)",
            "BEGIN; INSERT INTO ns.one VALUES (1); INSERT INTO ns.two VALUES (2); COMMIT")
        same("a transaction", "SELECT n FROM ns.one UNION ALL SELECT n FROM ns.two ORDER BY n", [{"n": 1}, {"n": 2}])
        halves(binary, url)
        lost(binary, url)
        unreadable(sql, same, folder)


def views(sql, same, url):
    sql("CREATE VIEW ns.v AS SELECT id FROM ns.t")
    same("a view", "SELECT count(*) AS n FROM ns.v", [{"n": 2}])
    sql("CREATE OR REPLACE VIEW ns.v AS SELECT id, name FROM ns.t WHERE id > 2",
        "ALTER VIEW ns.v SET TBLPROPERTIES ('comment' = 'some')")
    same("a view that was replaced", "SELECT * FROM ns.v", [{"id": 3, "name": "c"}])
    # As Java makes them: metadata is gzip there, and Spark's words are not ours.
    def foreign(name, query, types, dialect="spark"):
        fields = [{"id": place, "name": f"c{place}", "required": False, "type": kind} for place, kind in enumerate(types)]
        version = {"version-id": 1, "timestamp-ms": 1, "schema-id": 0, "summary": {}, "default-namespace": ["ns"],
                   "representations": [{"type": "sql", "sql": query, "dialect": dialect}]}
        body = {"name": name, "schema": {"type": "struct", "schema-id": 0, "fields": fields}, "view-version": version, "properties": {}}
        request = urllib.request.Request(f"{url}/v1/namespaces/ns/views", data=json.dumps(body).encode(), method="POST",
                                         headers={"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=60).close()

    foreign("like", "SELECT concat(name, NULL), row_number() OVER w, id FROM spark_alias.ns.t WINDOW w AS (ORDER BY at) "
            "ORDER BY at LIMIT 1", ["string", "int", "long"])
    same("what Spark says otherwise", "SELECT c0, c1, c2 FROM ns.like", [{"c0": None, "c1": 1, "c2": 3}])
    for name, query, types, why in [
        ("half", "SELECT id / 2 FROM ns.t", ["double"], "a division of whole numbers"),
        ("hidden", "SELECT id FROM ns.t WHERE id / 2 > 1.2", ["long"], "a division of whole numbers"),
        ("formatted", "SELECT date_format(at, 'yyyy') FROM ns.t", ["string"], "`date_format`"),
        ("replaced", "SELECT regexp_replace(name, 'b', 'c') FROM ns.t", ["string"], "`regexp_replace`"),
        ("zeroth", "SELECT substring(name, 0, 1) FROM ns.t", ["string"], "`substring`"),
        ("tab", "SELECT 'a\\tb' FROM ns.t", ["string"], "a backslash"),
        ("number", "SELECT CAST(id * 1.5D AS STRING) FROM ns.t".replace("1.5D", "CAST(1.5 AS DOUBLE)"), ["string"], "casts to a text"),
        ("quoted", 'SELECT id FROM ns.t WHERE name = "name"', ["long"], "double quotes"),
        ("sampled", "SELECT id FROM ns.t TABLESAMPLE (1 PERCENT)", ["long"], "TABLESAMPLE"),
        ("cut", "SELECT CAST(name AS VARCHAR(1)) FROM ns.t", ["string"], "of some length"),
        ("joined", "SELECT concat(CAST(id AS DOUBLE), 'x') FROM ns.t", ["string"], "joins to a text"),
        ("divided", "SELECT 1 / CAST(id AS DOUBLE) FROM ns.t", ["double"], "may be zero"),
        ("other", "SELECT id FROM ns.t", ["string"], "Int64 here"),
    ]:
        foreign(name, query, types)
        sql(f"SELECT * FROM ns.{name}", fails=why)
    foreign("of_trino", "SELECT concat(name, NULL), id / 2, greatest(id, 2) FROM ns.t", ["string", "long", "long"], "trino")
    sql("SELECT * FROM ns.of_trino", fails="`greatest`")
    foreign("of_duckdb", "SELECT id / 2 FROM ns.t", ["double"], "duckdb")
    sql("SELECT * FROM ns.of_duckdb", fails="a division of whole numbers")
    foreign("of_postgres", "SELECT id / 2, CAST(id AS INT) FROM ns.t ORDER BY id", ["long", "long"], "postgres")
    same("what PostgreSQL says alike", "SELECT c0, c1 FROM ns.of_postgres ORDER BY c1", [{"c0": 1, "c1": 2}, {"c0": 1, "c1": 3}])


class Between(http.server.BaseHTTPRequestHandler):
    """What stands between: it hands on what comes, but for what `Between.turn` makes of a change."""
    server_url, turn = None, None

    def do_any(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body, answer = Between.turn(self, body) if self.command in ("POST", "DELETE") else (body, None)
        request = urllib.request.Request(Between.server_url + self.path, data=body or None, method=self.command)
        if self.headers.get("Content-Type"):
            request.add_header("Content-Type", self.headers["Content-Type"])
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                status, text = reply.status, reply.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        if answer is not None:
            status, text = answer, b"the answer was lost on its way"
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_HEAD = do_POST = do_DELETE = do_any

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def between(url, turn):
    Between.server_url, Between.turn = url, staticmethod(turn)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Between) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def halves(binary, url):
    """A server that commits a transaction's tables one by one, and does not come to the second."""
    def first(_, body):
        asked = json.loads(body) if body else {}
        if "table-changes" in asked:
            asked["table-changes"] = asked["table-changes"][:1]
            return json.dumps(asked).encode(), 500
        return body, None

    with between(url, first) as there:
        text = "BEGIN; INSERT INTO ns.one VALUES (3); INSERT INTO ns.two VALUES (4); COMMIT"
        done = subprocess.run([binary, "sql", "--catalog", there, "-c", text], capture_output=True, text=True)
        check("half a transaction is no success", done.returncode == 1 and "`ns.two` did not" in done.stderr, done.stderr)


def lost(binary, url):
    """Answers that get lost: what was done is found to be done."""
    def turn(_, body):
        return body, 500

    with between(url, turn) as there:
        for text in ["CREATE NAMESPACE far", "CREATE TABLE far.t (n INT)", "ALTER TABLE far.t RENAME TO far.u",
                     "INSERT INTO far.u VALUES (1)", "DROP TABLE far.u"]:
            done = subprocess.run([binary, "sql", "--catalog", there, "-c", text], capture_output=True, text=True)
            check(f"{text}, of which the answer is lost", done.returncode == 0, done.stderr)


def unreadable(sql, same, folder):
    sql("CREATE TABLE ns.broken (n INT)")
    for file in Path(folder).glob("**/broken*/metadata/*.json"):
        file.unlink()
    names = [it["table_name"] for it in sql("SELECT table_name FROM system.tables WHERE error IS NULL")]
    check("tables beside one that cannot be read", "ns.t" in names and "ns.broken" not in names, names)
    sql("DROP TABLE ns.broken")
    same("a table that could not be read is gone", "SELECT table_name FROM system.tables WHERE table_name = 'ns.broken'", [])


def main():
    binary = sys.argv[1]
    only = sys.argv[sys.argv.index("--only") + 1] if "--only" in sys.argv else ""
    for case in [catalogs, formats]:
        if re.search(only, case.__name__):
            with serving(binary) as server:
                case(server)
    if re.search(only, "client"):
        client(binary)
    sys.exit(f"{len(FAILED)} failed: {FAILED}" if FAILED else 0)


if __name__ == "__main__":
    main()
