#!/usr/bin/env python3
"""Every change of a table's columns, layout and version, after every other: the rows of before and after, at each version.

    evolution_pairs.py ICEFIELD_BINARY [--only REGEX] [--jobs N] [--keep]

What roundtrip.py says of itself holds here too. For each pair of changes a table has rows from before the first, between
the two, and after both. A model of rows by column ids says what each version has to have; Icefield reads all of them,
PyIceberg the ones that are tagged, DuckDB the last one (but it dies of tables that are partitioned no more). Tables of version 3 go through the changes that are other there.
"""
import os
import sys

if __name__ == "__main__" and "ICEFIELD_INTEROP_VENV" not in os.environ:
    import subprocess
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    python = subprocess.run([os.path.join(root, "scripts", "python-env")], check=True,
                            stdout=subprocess.PIPE, text=True).stdout.strip()
    os.execve(python, [python, os.path.abspath(__file__), *sys.argv[1:]],
              {**os.environ, "ICEFIELD_INTEROP_VENV": "1", "PYTHONDONTWRITEBYTECODE": "1"})

import copy
import functools
import json
import warnings

import roundtrip

warnings.filterwarnings("ignore", category=UserWarning, module="pyiceberg")


class Model:
    """Columns, each with an id that it keeps, and rows by these ids."""

    def __init__(self):
        self.columns = [(1, "id"), (2, "a"), (3, "b"), (4, "n")]
        self.rows, self.next, self.defaults = [], 5, {}
        self.count = 0

    def find(self, name):
        return next((id for id, called in self.columns if called == name), None)

    def insert(self):
        """Two rows with a value in each column."""
        statements = []
        for _ in range(2):
            self.count += 1
            row = {}
            for id, name in self.columns:
                row[id] = self.count if name in ("id", "n", "c", "z") else f"{name}{self.count}"
            self.rows.append(row)
            # Columns of one name may be of another kind by now; each is written as its model has it.
            values = [f"'{row[id]}'" if isinstance(row[id], str) else str(row[id]) for id, _ in self.columns]
            statements.append("(" + ", ".join(values) + ")")
        names = ", ".join(name for _, name in self.columns)
        return f"INSERT INTO {self.table} ({names}) VALUES {', '.join(statements)}"

    def shown(self):
        """The rows as all of the columns of now have them."""
        rows = [{name: row.get(id, self.defaults.get(id)) for id, name in self.columns} for row in self.rows]
        return sorted((json.dumps(row, sort_keys=True) for row in rows))


def add(model, name, clause, default=None):
    if model.find(name):
        return None
    id, model.next = model.next, model.next + 1
    model.columns.append((id, name))
    if default is not None:
        model.defaults[id] = default
    return f"ADD COLUMN {name} {clause}"


def first(model):
    if model.find("f"):
        return None
    id, model.next = model.next, model.next + 1
    model.columns.insert(0, (id, "f"))
    return "ADD COLUMN f STRING FIRST"


def drop(model, name):
    if not model.find(name):
        return None
    model.columns = [it for it in model.columns if it[1] != name]
    return f"DROP COLUMN {name}"


def rename(model, old, new):
    if not model.find(old) or model.find(new):
        return None
    model.columns = [(id, new if name == old else name) for id, name in model.columns]
    return f"RENAME COLUMN {old} TO {new}"


def move(model, name):
    if not model.find(name):
        return None
    moved = next(it for it in model.columns if it[1] == name)
    model.columns = [moved] + [it for it in model.columns if it != moved]
    return f"ALTER COLUMN {name} FIRST"


def on(column, clause):
    return lambda model: clause if model.find(column) else None


def always(clause):
    return lambda model: clause


# Each gives the clause of ALTER TABLE, or None where it makes no sense any more.
CHANGES = {
    "add": lambda model: add(model, "c", "BIGINT"),
    "add_first": first,
    "add_default": lambda model: add(model, "d", "STRING DEFAULT 'told'", "told") if model.version == 3 else add(model, "d", "STRING"),
    "drop": lambda model: drop(model, "b"),
    "add_dropped": lambda model: add(model, "b", "STRING"),
    "rename": lambda model: rename(model, "a", "e"),
    "rename_to_dropped": lambda model: rename(model, "a", "b"),
    "swap": lambda model: rename(model, "n", "z"),
    "move": lambda model: move(model, "b"),
    "widen": on("n", "ALTER COLUMN n TYPE BIGINT"),
    "not_null": on("a", "ALTER COLUMN a SET NOT NULL"),
    "nullable": on("id", "ALTER COLUMN id DROP NOT NULL"),
    "comment": on("a", "ALTER COLUMN a COMMENT 'what it is'"),
    "partition": on("a", "ADD PARTITION FIELD truncate(1, a) AS start"),
    "partition_id": on("id", "ADD PARTITION FIELD bucket(3, id) AS part"),
    "unpartition": always("DROP PARTITION FIELD truncate(2, b)"),
    "order": on("id", "WRITE ORDERED BY id DESC"),
    "properties": always("SET TBLPROPERTIES ('write.parquet.compression-codec' = 'snappy')"),
    "upgrade": always("SET TBLPROPERTIES ('format-version' = '3')"),
}


# What refuses a change that the model takes for possible: columns that a partition or an order needs, and nulls.
RULES = ("partition", "null", "NULL", "there is no", "sort", "already")


def step(lake, model, change, tag):
    """A change, two more rows, and a tag; whether the change was done, or refused by a rule."""
    after = copy.deepcopy(model)
    clause = CHANGES[change](after)
    then = lambda of: (of.insert(), f"ALTER TABLE {model.table} CREATE TAG {tag}")
    if clause is None:
        lake.run(*then(model))
        return True
    try:
        lake.run(f"ALTER TABLE {model.table} {clause}", *then(after))
    except roundtrip.Refused as refused:
        # Nothing has happened then.
        lake.run(*then(model))
        return any(word in str(refused) for word in RULES) and "ALTER TABLE" in str(refused)
    model.__dict__.update(after.__dict__)
    return True


def lines(rows):
    return sorted(json.dumps(row, sort_keys=True) for row in rows)


def pairs_of(lake, version, one):
    for number, other in enumerate(CHANGES):
        what, name = f"version {version}: {one}, then {other}", f"cleaned.t{number}"
        model = Model()
        model.version, model.table = version, name
        lake.run(f"CREATE TABLE {name} (id INT NOT NULL, a STRING, b STRING, n INT) PARTITIONED BY (truncate(2, b)) "
                 f"TBLPROPERTIES ('format-version' = '{version}')", model.insert(), f"ALTER TABLE {name} CREATE TAG v0")
        wanted = {"v0": model.shown()}
        for tag, change in (("v1", one), ("v2", other)):
            lake.tally.check(f"{what}: {change} is done, or refused by a rule", step(lake, model, change, tag))
            wanted[tag] = model.shown()
        key = next((name for id, name in model.columns if id == 1))
        versions = [f"SELECT * FROM {name} FOR VERSION AS OF '{tag}'" for tag in wanted]
        now, one_row, *then = lake.run(f"SELECT * FROM {name}", f"SELECT count(*) AS n FROM {name} WHERE {key} = {model.count}", *versions)
        lake.tally.same(f"{what}: rows of now", lines(now), model.shown())
        lake.tally.same(f"{what}: one of the last", one_row, [{"n": 1}])
        table = lake.table(name)
        for (tag, rows), got in zip(wanted.items(), then):
            lake.tally.same(f"{what}: rows of {tag}", lines(got), rows)
            if model.defaults or tag == "v1":
                continue  # PyIceberg does not know defaults
            snapshot = table.refs()[tag].snapshot_id
            got = lake.tally.attempt(f"{what}: pyiceberg reads {tag}", lambda: table.scan(snapshot_id=snapshot).to_arrow().to_pylist())
            if got is not None:
                lake.tally.same(f"{what}: pyiceberg's rows of {tag}", lines(got), rows)
        if not model.defaults and table.spec().fields:
            lake.all_read(name, lake.pyiceberg(name), engines=("duckdb",), what=f", {what}")


def case_of(version, one):
    return functools.partial(pairs_of, version=version, one=one)


CASES = {f"v{version}_{one}": case_of(version, one) for version in (2, 3) for one in CHANGES if version == 2 or one in ("add_default", "drop", "rename")}

if __name__ == "__main__":
    roundtrip.main(CASES, __doc__)
