#!/usr/bin/env python3
"""Catalogs of others that know where tables stand, with others on the same tables.

    metastores.py ICEFIELD_BINARY [--only REGEX] [--all]

A folder as Hadoop's catalog has it, with Iceberg's Java implementation; AWS Glue (moto's) and Hive metastores, with PyIceberg.
"""
import json
import os
import re
import subprocess
import sys
import tempfile
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow

ROOT = Path(__file__).resolve().parents[2]
FAILED = []


def check(what, good, why=""):
    print(f"{'ok' if good else 'FAILED'}: {what}{'' if good else f': {why}'}", flush=True)
    if not good:
        FAILED.append(what)


class Lake:
    """Icefield on one of these catalogs."""

    def __init__(self, binary, *arguments, env=None):
        self.binary, self.arguments, self.env = binary, arguments, {**os.environ, **(env or {})}

    def run(self, text, *more):
        command = [self.binary, "sql", *self.arguments, *more, "--format", "json", "-c", text]
        return subprocess.run(command, capture_output=True, text=True, env=self.env)

    def sql(self, text, *more):
        done = self.run(text, *more)
        assert done.returncode == 0, f"{text}: {done.stderr}"
        # Of several statements, the last one's.
        last = ("\n" + done.stdout).rfind("\n[")
        return json.JSONDecoder().raw_decode(done.stdout[last:])[0] if last >= 0 else []

    def ids(self, table):
        return [it["id"] for it in self.sql(f"SELECT id FROM {table} ORDER BY id")]

    def refused(self, text, words):
        done = self.run(text)
        check(f"{text}: {words}", done.returncode != 0 and words in done.stderr, done.stderr or "it was done")


def life(lake, space):
    """What every such catalog can: a table's life, of both versions. Leaves `v2` and `v3` with the ids 1, 2, 3, 5."""
    for version in [2, 3]:
        table = f"{space}.v{version}"
        lake.sql(f"CREATE TABLE {table} (id BIGINT, s TEXT) TBLPROPERTIES ('format-version' = '{version}', "
                 "'write.delete.mode' = 'merge-on-read')")
        lake.sql(f"INSERT INTO {table} VALUES (1, 's1'), (2, 's2'), (3, 's3'), (4, 's4')")
        lake.sql(f"DELETE FROM {table} WHERE id = 4")
        lake.sql(f"MERGE INTO {table} t USING (SELECT 5 AS id) s ON t.id = s.id WHEN NOT MATCHED THEN INSERT (id, s) VALUES (s.id, 's5')")
        check(f"rows of {table}", lake.ids(table) == [1, 2, 3, 5], lake.ids(table))
        lake.sql(f"ALTER TABLE {table} ADD COLUMN more INT")
        lake.sql(f"ALTER TABLE {table} DROP COLUMN more")
        first, *_ = lake.sql(f"SELECT snapshot_id AS id FROM {table}.snapshots ORDER BY committed_at")
        past, = lake.sql(f"SELECT count(*) AS n FROM {table} FOR VERSION AS OF {first['id']}")
        check(f"the past of {table}", past["n"] == 4, past)
        lake.refused(f"CREATE TABLE {table} (id INT)", "exists already")
    lake.sql(f"CREATE TABLE {space}.made AS SELECT id, s FROM {space}.v2")
    check("a table made of another", lake.ids(f"{space}.made") == [1, 2, 3, 5])
    lake.sql(f"CALL system.rewrite_data_files(table => '{space}.made', options => map('rewrite-all', 'true'))")
    check("it is compacted", lake.ids(f"{space}.made") == [1, 2, 3, 5])
    names = {it["table_name"] for it in lake.sql(f"SELECT table_name FROM system.tables WHERE table_name LIKE '{space}.%'")}
    check("tables are listed", {f"{space}.{it}" for it in ["v2", "v3", "made"]} <= names, names)
    lake.sql(f"DROP TABLE {space}.made")
    lake.refused(f"SELECT * FROM {space}.made", "made")
    lake.refused(f"DROP NAMESPACE {space}", "not empty")
    lake.refused(f"BEGIN; INSERT INTO {space}.v2 VALUES (9, ''); INSERT INTO {space}.v3 VALUES (9, ''); COMMIT",
                 "one table at a time")
    check("nothing of two tables is done", lake.ids(f"{space}.v2") == lake.ids(f"{space}.v3") == [1, 2, 3, 5])
    lake.refused(f"CREATE VIEW {space}.v AS SELECT 1 AS a", "no views")


def race(lake, table, writers=4, each=5):
    """Several processes append to one table: every row is there, once."""
    lake.sql(f"CREATE TABLE {table} (id BIGINT)")

    def write(writer):
        for turn in range(each):
            lake.sql(f"INSERT INTO {table} VALUES ({writer * each + turn})")

    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(write, range(writers)))
    check(f"{writers * each} racing appends", lake.ids(table) == list(range(writers * each)), lake.ids(table))


def class_path():
    return subprocess.run([ROOT / "scripts/java-env"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def java_of(folder):
    """Java's catalog of a folder: does one thing, and gives what it says."""
    path = class_path()

    def java(*told):
        options = ["-Xmx256m", "-XX:+UseSerialGC", f"-Dfolder={folder}", "-Dorg.slf4j.simpleLogger.defaultLogLevel=off"]
        done = subprocess.run(["java", *options, "-cp", path, "Folder", *map(str, told)], capture_output=True, text=True)
        assert done.returncode == 0, f"{told}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    return java


def hadoop(binary):
    with tempfile.TemporaryDirectory() as folder:
        warehouse = Path(folder) / "w"
        java = java_of(warehouse)
        lake = Lake(binary, "--warehouse", str(warehouse), "--catalog", "hadoop")
        lake.sql("CREATE NAMESPACE sales")
        lake.sql("CREATE NAMESPACE sales.inner")
        spaces = {it["namespace"] for it in lake.sql("SHOW NAMESPACES")}
        check("namespaces are folders", {"sales", "sales.inner"} <= spaces, spaces)
        life(lake, "sales")
        for version in [2, 3]:
            table = f"sales.v{version}"
            check(f"Java reads {table}", java("read", table) == "[1, 2, 3, 5]", java("read", table))
            java("append", table, 10, 12)
            check(f"{table} after Java's append", lake.ids(table) == [1, 2, 3, 5, 10, 11], lake.ids(table))
            lake.sql(f"UPDATE {table} SET s = 'changed' WHERE id = 10")
            java("append", table, 12, 13)
            check(f"{table} after one more of each", java("read", table) == "[1, 2, 3, 5, 10, 11, 12]", java("read", table))
            java("create", f"sales.inner.java{version}", version)
            lake.sql(f"INSERT INTO sales.inner.java{version} VALUES (1, 'a')")
            check(f"Java's own table of version {version}", java("read", f"sales.inner.java{version}") == "[1]")
        # A hint that is behind, or gone, or of somebody who wrote it by half.
        hint = warehouse / "sales/v2/metadata/version-hint.text"
        for text in ["1", None, "", "x"]:
            if text is None:
                hint.unlink()
            else:
                hint.write_text(text)
            check(f"a version hint of {text!r}", lake.ids("sales.v2") == [1, 2, 3, 5, 10, 11, 12], lake.ids("sales.v2"))
            lake.sql(f"ALTER TABLE sales.v2 SET TBLPROPERTIES ('k' = '{text}')")
        for told in [("property", "sales.v2", "write.metadata.compression-codec", "gzip"), ("append", "sales.v2", 13, 14)]:
            java(*told)
        lake.sql("INSERT INTO sales.v2 VALUES (14, 's14')")
        check("compressed metadata", java("read", "sales.v2") == "[1, 2, 3, 5, 10, 11, 12, 13, 14]", java("read", "sales.v2"))
        check("and is written so", list((warehouse / "sales/v2/metadata").glob("v*.gz.metadata.json")) != [])
        race(lake, "sales.race")
        check("Java reads what raced", java("read", "sales.race") == str(list(range(20))), java("read", "sales.race"))
        lake.refused("ALTER TABLE sales.race RENAME TO sales.other", "renames none")
        lake.refused("CREATE TABLE sales.away (id INT) LOCATION '/tmp/away'", "leave LOCATION out")
        lake.refused("CREATE NAMESPACE sales.v2", "exists already")
        lake.refused("ALTER TABLE sales.race SET TBLPROPERTIES ('write.metadata.path' = '/tmp/m')", "in the table's folder")
        lake.refused("CREATE TABLE nowhere.t (id INT)", "no namespace")
        lake.sql("DROP TABLE sales.race")
        check("Java does not see what was dropped", "race" not in java("list", "sales"), java("list", "sales"))
        lake.sql("CREATE TABLE sales.race (id BIGINT)")
        check("a table in its place is empty", java("read", "sales.race") == "[]")
        java("drop", "sales.race")
        lake.refused("SELECT * FROM sales.race", "race")
        attached = Lake(binary, "--warehouse", str(Path(folder) / "own"))
        rows = attached.sql(f"ATTACH '{warehouse}' AS h (TYPE hadoop); INSERT INTO h.sales.inner.java2 VALUES (2, 'b'); "
                            "SELECT count(*) AS n FROM h.sales.inner.java2")
        check("attached, it is written too", rows[-1:] == [{"n": 2}], rows)
        read = attached.run(f"ATTACH '{warehouse}' AS h (TYPE folder); DELETE FROM h.sales.v2 WHERE true")
        check("attached as a folder, it is not", read.returncode == 1 and "only be read" in read.stderr, read.stderr)
        remote = Lake(binary, "--warehouse", "s3://bucket/w", "--catalog", "hadoop")
        remote.refused("SHOW NAMESPACES", "on a file system")


def script(name, **env):
    command = [ROOT / "scripts" / name]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **env}).stdout.strip()


def glue(binary):
    from pyiceberg.catalog.glue import GlueCatalog

    env = {"AWS_ENDPOINT_URL": script("s3"), "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
    os.environ.update(env)
    name = f"g{uuid.uuid4().hex[:8]}"
    subprocess.run(["curl", "-sf", "-X", "PUT", f"{env['AWS_ENDPOINT_URL']}/{name}"], check=True)
    lake = Lake(binary, "--warehouse", f"s3://{name}", "--catalog", "glue", env=env)
    lake.sql(f"CREATE NAMESPACE {name}")
    lake.sql(f"ALTER NAMESPACE {name} SET PROPERTIES ('comment' = 'of a test', 'a' = 'b')")
    life(lake, name)
    other = GlueCatalog("glue", **{"glue.endpoint": env["AWS_ENDPOINT_URL"], "s3.endpoint": env["AWS_ENDPOINT_URL"],
                                   "client.region": "us-east-1", "warehouse": f"s3://{name}/theirs", "client.access-key-id": "any", "client.secret-access-key": "any"})
    found = other.load_namespace_properties(name)
    check("PyIceberg sees the database", found.get("a") == "b" and "of a test" in found.values(), found)
    rows = pyarrow.table({"id": [10, 11], "s": ["a", "b"]})
    for table in ["v2", "v3"]:
        theirs = other.load_table(f"{name}.{table}")
        if table == "v2":
            found = sorted(theirs.scan().to_arrow()["id"].to_pylist())
            check(f"PyIceberg reads {table}", found == [1, 2, 3, 5], found)
            theirs.append(rows)
            check(f"{table} after PyIceberg's append", lake.ids(f"{name}.{table}") == [1, 2, 3, 5, 10, 11])
            lake.sql(f"INSERT INTO {name}.{table} VALUES (12, 'c')")
            found = sorted(other.load_table(f"{name}.{table}").scan().to_arrow()["id"].to_pylist())
            check(f"PyIceberg reads {table} after one more of each", found == [1, 2, 3, 5, 10, 11, 12], found)
        else:
            check(f"PyIceberg loads {table}", theirs.metadata.format_version == 3, theirs.metadata.format_version)
    made = other.create_table(f"{name}.theirs", rows.schema)
    made.append(rows)
    lake.sql(f"UPDATE {name}.theirs SET s = upper(s) WHERE id = 10")
    found = other.load_table(f"{name}.theirs").scan().to_arrow().sort_by("id")["s"].to_pylist()
    check("PyIceberg's own table", found == ["A", "b"], found)
    lake.sql(f"ALTER TABLE {name}.theirs RENAME TO {name}.renamed")
    check("it is renamed", other.table_exists(f"{name}.renamed") and not other.table_exists(f"{name}.theirs"))
    location = other.load_table(f"{name}.renamed").metadata_location
    lake.sql(f"DROP TABLE {name}.renamed")
    check("it is dropped", not other.table_exists(f"{name}.renamed"))
    lake.sql(f"CALL system.register_table('{name}.again', '{location}')")
    check("it is registered", lake.ids(f"{name}.again") == [10, 11])
    lake.refused(f"CREATE NAMESPACE {name}.inner", "one level")
    lake.refused(f"CREATE NAMESPACE {name}", "exists already")
    lake.refused("CREATE TABLE nowhere_at_all.t (id INT)", "no namespace")
    attached = Lake(binary, "--warehouse", tempfile.mkdtemp(), env=env)
    rows = attached.sql(f"ATTACH '' AS g (TYPE glue); SELECT count(*) AS n FROM g.{name}.again")
    check("it is attached", rows[-1:] == [{"n": 2}], rows)
    for table in ["v2", "v3", "again"]:
        lake.sql(f"DROP TABLE {name}.{table}")
    lake.sql(f"DROP NAMESPACE {name}")
    check("PyIceberg does not see the database", (name,) not in other.list_namespaces())


def hive(binary):
    """Servers of Hive 4, which compare what they are told to; with --all also of Hive 3, which does not, and listens everywhere."""
    from pyiceberg.catalog.hive import HiveCatalog

    script("java-env")
    for version in ["4.0.0", "4.0.1", *(["3.1.3"] if "--all" in sys.argv else [])]:
        with tempfile.TemporaryDirectory() as folder:
            url = script("hive", ICEFIELD_HIVE_VERSION=version)
            name = f"h{uuid.uuid4().hex[:8]}"
            lake = Lake(binary, "--warehouse", folder, "--catalog", url)
            lake.sql(f"CREATE NAMESPACE {name}")
            lake.sql(f"ALTER NAMESPACE {name} SET PROPERTIES ('comment' = 'of a test')")
            life(lake, name)
            race(lake, f"{name}.race")
            lake.sql(f"ALTER TABLE {name}.race RENAME TO {name}.raced")
            check(f"renamed in Hive {version}", len(lake.ids(f"{name}.raced")) == 20)
            lake.refused(f"ALTER TABLE {name}.raced RENAME TO {name}.v2", "exists already")
            lake.refused(f"CREATE NAMESPACE {name}", "exists already")
            lake.refused("CREATE TABLE nowhere_at_all.t (id INT)", "no namespace")
            # Of the versions after 4.0.0 PyIceberg 0.12 asks for what they do not have any more.
            if version != "4.0.1":
                others_in_hive(lake, HiveCatalog("hive", uri=url), name, version)
            attached = Lake(binary, "--warehouse", folder + "/own")
            rows = attached.sql(f"ATTACH '{url}' AS h (TYPE hive); SELECT count(*) AS n FROM h.{name}.v3")
            check(f"Hive {version} is attached", rows[-1:] == [{"n": 4}], rows)
            for table in ["v2", "v3", "raced"]:
                lake.sql(f"DROP TABLE {name}.{table}")
            lake.sql(f"DROP NAMESPACE {name}")
            lake.refused(f"SHOW TABLES IN {name}", "no namespace")
    lake.refused("SELECT 1 FROM a.b", "b")
    nobody = Lake(binary, "--warehouse", "/tmp/none", "--catalog", "thrift://127.0.0.1:1")
    nobody.refused("SHOW NAMESPACES", "cannot reach the server")


def others_in_hive(lake, other, name, version):
    rows = pyarrow.table({"id": [10, 11], "s": ["a", "b"]})
    theirs = other.load_table(f"{name}.v2")
    found = sorted(theirs.scan().to_arrow()["id"].to_pylist())
    check(f"PyIceberg reads v2 in Hive {version}", found == [1, 2, 3, 5], found)
    theirs.append(rows)
    check(f"v2 after PyIceberg's append in Hive {version}", lake.ids(f"{name}.v2") == [1, 2, 3, 5, 10, 11])
    lake.sql(f"INSERT INTO {name}.v2 VALUES (12, 'c')")
    found = sorted(other.load_table(f"{name}.v2").scan().to_arrow()["id"].to_pylist())
    check(f"PyIceberg reads v2 after one more of each in Hive {version}", found == [1, 2, 3, 5, 10, 11, 12], found)
    check("PyIceberg loads v3", other.load_table(f"{name}.v3").metadata.format_version == 3)
    made = other.create_table(f"{name}.theirs", rows.schema)
    made.append(rows)
    lake.sql(f"UPDATE {name}.theirs SET s = upper(s) WHERE id = 10")
    found = other.load_table(f"{name}.theirs").scan().to_arrow().sort_by("id")["s"].to_pylist()
    check(f"PyIceberg's own table in Hive {version}", found == ["A", "b"], found)
    # What PyIceberg has loaded is overtaken each time: it tries again, and nothing is lost. (Many of it at once leave locks behind.)
    for turn in range(3):
        stale = other.load_table(f"{name}.theirs")
        lake.sql(f"INSERT INTO {name}.theirs VALUES ({100 + turn}, '')")
        stale.append(pyarrow.table({"id": [200 + turn], "s": [""]}))
    found = [it for it in lake.ids(f"{name}.theirs") if it >= 100]
    check(f"commits that were overtaken in Hive {version}", found == [100, 101, 102, 200, 201, 202], found)
    location = other.load_table(f"{name}.theirs").metadata_location
    lake.sql(f"DROP TABLE {name}.theirs")
    check("it is dropped", not other.table_exists(f"{name}.theirs"))
    lake.sql(f"CALL system.register_table('{name}.again', '{location}')")
    check("it is registered", 10 in lake.ids(f"{name}.again"))
    lake.sql(f"DROP TABLE {name}.again")


def nessie(binary):
    """Nessie speaks the REST protocol, for tables of version 2: those of version 3 it makes of version 2, without a word."""
    url = script("nessie")
    env = {"AWS_ENDPOINT_URL": script("s3"), "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
    for warehouse in ["plain", "vended"]:
        name = f"n{uuid.uuid4().hex[:8]}"
        lake = Lake(binary, "--warehouse", warehouse, "--catalog", url, env=env)
        lake.sql(f"CREATE NAMESPACE {name}")
        table = f"{name}.t"
        lake.sql(f"CREATE TABLE {table} (id BIGINT, s TEXT) PARTITIONED BY (bucket(2, id)) TBLPROPERTIES ('write.delete.mode' = 'merge-on-read')")
        lake.sql(f"INSERT INTO {table} VALUES (1, 's1'), (2, 's2'), (3, 's3'), (4, 's4')")
        lake.sql(f"DELETE FROM {table} WHERE id = 4")
        lake.sql(f"ALTER TABLE {table} ADD COLUMN more INT")
        lake.sql(f"UPDATE {table} SET more = 7 WHERE id = 1")
        lake.sql(f"ALTER TABLE {table} SET TBLPROPERTIES ('a' = 'b')")
        rows = lake.sql(f"SELECT id, more FROM {table} ORDER BY id")
        check(f"rows of Nessie's {warehouse}", rows == [{"id": 1, "more": 7}, {"id": 2, "more": None}, {"id": 3, "more": None}], rows)
        lake.sql(f"CALL system.rewrite_data_files(table => '{table}', options => map('rewrite-all', 'true'))")
        check(f"compacted in Nessie's {warehouse}", lake.ids(table) == [1, 2, 3], lake.ids(table))
        race(lake, f"{name}.race")
        lake.sql(f"ALTER TABLE {name}.race RENAME TO {name}.raced")
        lake.sql(f"CREATE TABLE {name}.made AS SELECT id FROM {table}") if warehouse == "plain" else None
        lake.refused(f"DROP NAMESPACE {name}", "")
        from pyiceberg.catalog import load_catalog
        theirs = load_catalog("n", type="rest", uri=url, warehouse=warehouse, **{"s3.access-key-id": "any", "s3.secret-access-key": "any"})
        found = sorted(theirs.load_table(table).scan().to_arrow()["id"].to_pylist())
        check(f"PyIceberg reads it in Nessie's {warehouse}", found == [1, 2, 3], found)
        theirs.load_table(f"{name}.raced").append(pyarrow.table({"id": [100]}))
        check("and we what it appends", lake.ids(f"{name}.raced") == [*range(20), 100])
        for it in lake.sql(f"SHOW TABLES IN {name}"):
            lake.sql(f"DROP TABLE {name}.{it['table']}")
        lake.sql(f"DROP NAMESPACE {name}")


def main():
    binary = sys.argv[1]
    only = sys.argv[sys.argv.index("--only") + 1] if "--only" in sys.argv else ""
    for case in [hadoop, glue, hive, nessie]:
        if re.search(only, case.__name__):
            case(binary)
    sys.exit(f"{len(FAILED)} failed: {FAILED}" if FAILED else 0)


if __name__ == "__main__":
    main()
