#!/usr/bin/env python3
"""Prints the rows of a table of Icefield's SQLite catalog, as PyIceberg reads them (see canonical.py).

    read_pyiceberg.py WAREHOUSE_DIR CATALOG_DB TABLE [--snapshot-id N]

PyIceberg 0.12 refuses tables with equality deletes and cannot read Avro data files. It shows a
null list of structs, or a null map with structs as values, as an empty one.
"""
import argparse
import os

from pyiceberg.catalog.sql import SqlCatalog

from canonical import main_guard, print_rows


def open_catalog(warehouse, database):
    return SqlCatalog("lake", uri="sqlite:///" + os.path.abspath(database),
                      warehouse="file://" + os.path.abspath(warehouse))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("warehouse")
    parser.add_argument("database")
    parser.add_argument("table", help="such as cleaned.flights")
    parser.add_argument("--snapshot-id", type=int)
    args = parser.parse_args()
    # SQLite makes a missing database; a reader must not.
    if not os.path.isfile(args.database):
        raise FileNotFoundError(args.database)
    table = open_catalog(args.warehouse, args.database).load_table(args.table)
    print_rows(table.scan(snapshot_id=args.snapshot_id).to_arrow())


if __name__ == "__main__":
    main_guard(main)
