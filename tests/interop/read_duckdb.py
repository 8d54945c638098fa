#!/usr/bin/env python3
"""Prints the rows of a table, as DuckDB's iceberg_scan reads them (see canonical.py).

    read_duckdb.py METADATA_JSON_PATH [--snapshot-id N]

DuckDB 1.5.5 applies equality deletes across partitions.
"""
import argparse
import importlib.resources
import os

import duckdb

from canonical import main_guard, print_rows


def connect(*extensions):
    """A connection with the Iceberg extension, and others, loaded where its package from PyPI keeps it.

    duckdb_extensions.import_extension() would copy it to the home folder, where parallel tests meet.
    """
    connection = duckdb.connect()
    for name in (*extensions, "avro", "iceberg"):
        package = importlib.resources.files(f"duckdb_extension_{name}")
        file = package / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
        connection.execute(f"load '{file}'")
    connection.execute("set timezone = 'UTC'")
    return connection


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("metadata", help="path of a metadata.json")
    parser.add_argument("--snapshot-id", type=int)
    args = parser.parse_args()
    path = args.metadata.removeprefix("file://")
    if not os.path.isfile(path):
        raise FileNotFoundError(path)
    at = "" if args.snapshot_id is None else f", snapshot_from_id => {args.snapshot_id}"
    quoted = path.replace("'", "''")
    print_rows(connect().execute(f"select * from iceberg_scan('{quoted}'{at})").to_arrow_table())


if __name__ == "__main__":
    main_guard(main)
