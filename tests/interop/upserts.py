#!/usr/bin/env python3
"""Rows that take the place of others without reading them: equality deletes of ours, read by others.

    upserts.py ICEFIELD_BINARY

Iceberg's Java implementation and DuckDB read what Icefield wrote, in a folder as Hadoop's catalog has it.
"""
import sys
import tempfile
from pathlib import Path

from metastores import FAILED, Lake, check, java_of
from read_duckdb import connect


def upserts(binary, version):
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(binary, "--warehouse", folder, "--catalog", "hadoop")
        java = java_of(folder)
        lake.sql("CREATE NAMESPACE s")
        properties = f"'format-version' = '{version}', 'write.upsert.enabled' = 'true'"
        for name, layout in [("plain", ""), ("parted", " PARTITIONED BY (bucket(4, id))")]:
            table = f"s.{name}"
            lake.sql(f"CREATE TABLE {table} (id BIGINT NOT NULL, s TEXT){layout} TBLPROPERTIES ({properties})")
            lake.refused(f"INSERT INTO {table} VALUES (1, 'a')", "no identifier fields")
            lake.sql(f"ALTER TABLE {table} SET IDENTIFIER FIELDS id")
            lake.sql(f"INSERT INTO {table} SELECT value, 'old' || value FROM generate_series(1, 1000)")
            lake.sql(f"INSERT INTO {table} SELECT value, 'new' || value FROM generate_series(900, 1100)")
            lake.sql(f"INSERT INTO {table} VALUES (5, 'third'), (2000, 'first')")
            lake.sql(f"INSERT INTO {table} VALUES (5, 'fourth')")
            want = {it: f"old{it}" for it in range(1, 900)} | {it: f"new{it}" for it in range(900, 1101)}
            want |= {5: "fourth", 2000: "first"}
            rows = {it["id"]: it["s"] for it in lake.sql(f"SELECT id, s FROM {table}")}
            count, = lake.sql(f"SELECT count(*) AS n FROM {table}")
            check(f"{table} of version {version}", rows == want and count["n"] == len(want), count)
            check(f"Java reads {table}", java("read", table) == str(sorted(want)), java("read", table)[:200])
            location = str(Path(folder) / "s" / name)
            found = duck(location)
            check(f"DuckDB reads {table}", found == want, len(found))
            files = lake.sql(f"SELECT content, sum(record_count) AS n FROM {table}.all_delete_files GROUP BY content")
            check(f"delete files of {table}", files == [{"content": 2, "n": 1000 + 201 + 2 + 1}], files)
            said, = lake.sql(f"SELECT summary['total-equality-deletes'] AS n, operation AS o FROM {table}.snapshots "
                             "ORDER BY committed_at DESC LIMIT 1")
            check(f"the summary of {table}", said == {"n": "1204", "o": "overwrite"}, said)
            lake.refused(f"INSERT INTO {table} VALUES (7, 'a'), (7, 'b')", "id = 7")
            lake.refused(f"BEGIN; INSERT INTO {table} VALUES (7, 'a'); COMMIT", "take the place of others")
            lake.sql(f"CALL system.rewrite_data_files(table => '{table}', options => map('rewrite-all', 'true', 'remove-dangling-deletes', 'true'))")
            check(f"{table}, folded in", {it["id"]: it["s"] for it in lake.sql(f"SELECT id, s FROM {table}")} == want)
            check(f"Java reads {table} then", java("read", table) == str(sorted(want)))
            lake.sql(f"ALTER TABLE {table} ADD PARTITION FIELD truncate(10, id)")
            lake.refused(f"INSERT INTO {table} VALUES (7, 'a')", "of another partitioning")
        lake.sql(f"CREATE TABLE s.wrong (id BIGINT NOT NULL, day DATE) PARTITIONED BY (day) TBLPROPERTIES ({properties})")
        lake.sql("ALTER TABLE s.wrong SET IDENTIFIER FIELDS id")
        lake.refused("INSERT INTO s.wrong VALUES (1, DATE '2026-01-01')", "no identifier field")


def duck(location):
    connection = connect()
    connection.execute("SET unsafe_enable_version_guessing = true")
    rows = connection.sql(f"SELECT id, s FROM iceberg_scan('{location}')").fetchall()
    assert len(rows) == len({it for it, _ in rows}), "a key comes twice"
    return dict(rows)


def main():
    for version in [2, 3]:
        upserts(sys.argv[1], version)
    sys.exit(f"{len(FAILED)} failed: {FAILED}" if FAILED else 0)


if __name__ == "__main__":
    main()
