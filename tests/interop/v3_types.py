#!/usr/bin/env python3
"""Types of format version 3 between engines: variant, geometry, geography, unknown, and transforms nobody knows.

    v3_types.py ICEFIELD_BINARY [--only REGEX] [--jobs N] [--keep]

What roundtrip.py says of itself holds here too. PyIceberg 0.12 has no variant, and wants quotes around the reference system
of a geometry, which the specification and Java do not write; DuckDB without its extension of Iceberg reads data files.
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

import glob
import json
import struct
import warnings

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.table import StaticTable

import roundtrip
from adopt import call, folder, refuses

warnings.filterwarnings("ignore", category=UserWarning, module="pyiceberg")
V3 = "TBLPROPERTIES ('format-version' = '3', 'write.delete.mode' = 'merge-on-read')"


def metadata_of(lake, name):
    """The newest metadata file of a table, and what is in it."""
    found = os.path.join(lake.folder, *name.split("."), "metadata", "*.metadata.json")
    path = max(glob.glob(found), key=lambda it: int(os.path.basename(it).split("-")[0]))
    with open(path, encoding="utf-8") as opened:
        return path, json.load(opened)


def data_files(lake, name):
    rows, = lake.run(f"SELECT file_path FROM {name}.files WHERE content = 0 ORDER BY file_path")
    return [row["file_path"].removeprefix("file://") for row in rows]


def types_of(lake, name):
    _, metadata = metadata_of(lake, name)
    schema = next(it for it in metadata["schemas"] if it["schema-id"] == metadata["current-schema-id"])
    return {field["name"]: field["type"] for field in schema["fields"]}


def corners(lake, name, field):
    rows, = lake.run(f"SELECT lower_bounds, upper_bounds FROM {name}.files WHERE content = 0")
    found = []
    for row in rows:
        pair = [dict(map(tuple, row[key])).get(str(field)) or dict((int(k), v) for k, v in row[key]).get(field)
                for key in ("lower_bounds", "upper_bounds")]
        found.append(tuple(None if it is None else struct.unpack(f"<{(len(it) - 2) // 16}d", bytes.fromhex(it[2:])) for it in pair))
    return sorted(found, key=str)


JSONS = ['{"a": 1, "b": [true, null, "x"], "c": {"d": 2.5}}', '[]', '{}', '17', '-9223372036854775808', '"text of more than sixty-four letters, '
         'which is no short string any more, is it"', 'null', 'true', '1.25', '""', '[[1, 2], [{"k": []}]]', '{"ä ö": "ü", "": 0}']


def case_variants_for_others(lake):
    """DuckDB reads our data files as variants of the same values."""
    rows = ", ".join(f"({at}, parse_json('{text}'))" for at, text in enumerate(JSONS))
    lake.run(f"CREATE TABLE cleaned.t (id BIGINT, v VARIANT, deep STRUCT<l: ARRAY<VARIANT>>) {V3}",
             f"INSERT INTO cleaned.t (id, v) VALUES {rows}, (100, NULL)",
             "INSERT INTO cleaned.t SELECT 200, parse_json('1'), named_struct('l', [parse_json('[1]'), parse_json('\"z\"')])")
    lake.tally.same("types", types_of(lake, "cleaned.t")["v"], "variant")
    connection = duckdb.connect()
    found = {}
    for path in data_files(lake, "cleaned.t"):
        kinds = dict(connection.execute(f"SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM read_parquet('{path}'))").fetchall())
        lake.tally.same("type in DuckDB", kinds["v"], "VARIANT")
        found.update(connection.execute(f"SELECT id, CASE WHEN v IS NOT NULL THEN CAST(v AS JSON)::VARCHAR END FROM read_parquet('{path}')").fetchall())
        schema = connection.execute(f"SELECT name, field_id FROM parquet_schema('{path}') WHERE name IN ('metadata', 'value')").fetchall()
        lake.tally.same("the parts have no field ids", {it[1] for it in schema}, {None})
    lake.tally.same("no variant", found.pop(100), None)
    lake.tally.same("elements", found.pop(200), "1")
    # To DuckDB the null of JSON is the one of SQL.
    values = {at: None if text is None else json.loads(text) for at, text in found.items()}
    lake.tally.same("values", values, {at: json.loads(text) for at, text in enumerate(JSONS)})
    # Rows that are changed, merged and moved keep theirs.
    lake.run("DELETE FROM cleaned.t WHERE id = 3", "UPDATE cleaned.t SET v = parse_json('{\"new\": 1}') WHERE id = 0",
             "CALL system.rewrite_data_files(table => 'cleaned.t', options => map('rewrite-all', 'true'))")
    rows, = lake.run("SELECT id, to_json(v) AS v, to_json(deep.l[1]) AS first FROM cleaned.t ORDER BY id")
    want = {at: json.loads(text) for at, text in enumerate(JSONS) if at != 3} | {0: {"new": 1}, 100: None, 200: 1}
    lake.tally.same("values after compaction", {row["id"]: row["v"] and json.loads(row["v"]) for row in rows}, want)
    lake.tally.same("an element of a list in a struct", rows[-1]["first"], "[1]")
    before, = lake.run("SELECT count(*) AS n, count(v) AS v FROM cleaned.t VERSION AS OF "
                       + str(lake.run("SELECT min(snapshot_id) AS it FROM cleaned.t.snapshots WHERE parent_id IS NULL")[0][0]["it"]))
    lake.tally.same("the past", before, [{"n": len(JSONS) + 1, "v": len(JSONS)}])


def case_shredded(lake):
    """Variants whose fields lie in columns of their own, as DuckDB writes them, are put together."""
    place = folder(lake, "shredded")
    connection = duckdb.connect()
    shapes = {
        "object": "{'a': i, 'b': 't' || i}::VARIANT",
        "list": "[i, i + 1]::VARIANT",
        "number": "i::VARIANT",
        "text": "('t' || i)::VARIANT",
        "mixed": "CASE i % 4 WHEN 0 THEN {'a': i, 'b': 't'}::VARIANT WHEN 1 THEN i::VARIANT WHEN 2 THEN [i]::VARIANT ELSE {'a': 'x', 'c': 1.5}::VARIANT END",
        "deep": "{'o': {'p': {'q': [{'r': i}]}}, 'day': DATE '2026-01-02'}::VARIANT",
    }
    for name, shape in shapes.items():
        path = f"{place}/{name}.parquet"
        connection.execute(f"COPY (SELECT i AS id, {shape} AS v FROM range(3000) r(i)) TO '{path}' (FORMAT parquet)")
        columns = {it[0] for it in connection.execute(f"SELECT name FROM parquet_schema('{path}')").fetchall()}
        lake.tally.check(f"{name} is shredded", "typed_value" in columns, columns)
        lake.run(f"CREATE TABLE cleaned.{name} (id BIGINT, v VARIANT) {V3}")
        call(lake, f"add_files('cleaned.{name}', 'parquet.`{path}`')")
        want = {row[0]: json.loads(row[1]) for row in
                connection.execute(f"SELECT id, CAST(v AS JSON)::VARCHAR FROM read_parquet('{path}')").fetchall()}
        for when in ("as it lies there", "after rows were deleted", "after compaction"):
            rows, = lake.run(f"SELECT id, to_json(v) AS v FROM cleaned.{name}")
            got = {row["id"]: json.loads(row["v"]) for row in rows}
            lake.tally.same(f"{name} {when}: ids", len(got), len(want))
            wrong = [(at, got.get(at), want[at]) for at in want if got.get(at) != want[at]]
            lake.tally.check(f"{name} {when}: values", not wrong, wrong[:2])
            if when == "as it lies there":
                lake.run(f"DELETE FROM cleaned.{name} WHERE id % 10 = 7")
                want = {at: value for at, value in want.items() if at % 10 != 7}
            else:
                lake.run(f"CALL system.rewrite_data_files(table => 'cleaned.{name}', options => map('rewrite-all', 'true'))")
    rows, = lake.run("SELECT sum(variant_get(v, '$.o.p.q[0].r', 'bigint')) AS n FROM cleaned.deep WHERE CAST(variant_get(v, '$.day') AS DATE) = DATE '2026-01-02'")
    lake.tally.same("a field deep within", rows[0]["n"], sum(i for i in range(3000) if i % 10 != 7))
    rows, = lake.run("SELECT count(*) AS n FROM cleaned.mixed WHERE try_variant_get(v, '$.a', 'bigint') >= 0")
    lake.tally.same("numbers among other values", rows[0]["n"], len([i for i in range(3000) if i % 4 == 0 and i % 10 != 7]))
    call(lake, f"snapshot(source_table => 'parquet.`{place}/object.parquet`', table => 'cleaned.of_files', properties => map('format-version', '3'))")
    lake.tally.same("a table of the file has a variant", types_of(lake, "cleaned.of_files"), {"id": "long", "v": "variant"})
    lake.run(f"CREATE TABLE cleaned.plain (id BIGINT, v STRUCT<a: BIGINT>) {V3}")
    refuses(lake, "a variant for a struct", f"CALL system.add_files('cleaned.plain', 'parquet.`{place}/text.parquet`')", "column `v")


def case_geometries(lake):
    lake.run(f"CREATE TABLE cleaned.t (id BIGINT, g GEOMETRY, gg GEOGRAPHY, other GEOMETRY('srid:3857'), karney GEOGRAPHY('srid:4326', karney)) {V3}",
             "INSERT INTO cleaned.t (id, g, gg, other) VALUES (1, st_point(1, 2), st_point(-170, 10), st_point(5, 5)), "
             "(2, st_geomfromtext('POLYGON ((0 0, 4 -1, 4 4, 0 0))'), st_geogfromtext('MULTIPOINT ((10 20), (30 -40))'), NULL), (3, NULL, NULL, NULL)",
             "INSERT INTO cleaned.t (id, g, gg) VALUES (4, st_geomfromtext('LINESTRING Z (1 2 3, 4 5 6)'), st_geogfromtext('LINESTRING (0 50, 90 50)'))")
    lake.tally.same("types", types_of(lake, "cleaned.t"), {"id": "long", "g": "geometry", "gg": "geography", "other": "geometry(srid:3857)",
                                                           "karney": "geography(srid:4326, karney)"})
    lake.tally.same("boxes of geometries", corners(lake, "cleaned.t", 2), [((0.0, -1.0), (4.0, 4.0)), ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))])
    # An edge of a geography leaves the box of its ends; points have none.
    lake.tally.same("boxes of geographies", corners(lake, "cleaned.t", 3), [((-170.0, -40.0), (30.0, 20.0)), (None, None)])
    lake.tally.same("no box of nothing", corners(lake, "cleaned.t", 5), [(None, None), (None, None)])
    connection = duckdb.connect()
    logical = {}
    for path in data_files(lake, "cleaned.t"):
        logical.update(connection.execute(f"SELECT name, logical_type FROM parquet_schema('{path}')").fetchall())
    lake.tally.same("Parquet's types", {name: logical[name] for name in ("g", "gg", "other", "karney")},
                    {"g": "GeometryType(crs=<null>)", "gg": "GeographyType(crs=<null>, algorithm=SPHERICAL)",
                     "other": "GeometryType(crs=srid:3857)", "karney": "GeographyType(crs=srid:4326, algorithm=KARNEY)"})
    lake.run("ALTER TABLE cleaned.t DROP COLUMN other", "ALTER TABLE cleaned.t DROP COLUMN karney",
             f"CREATE TABLE cleaned.plain (id BIGINT, g GEOMETRY, gg GEOGRAPHY) {V3}", "INSERT INTO cleaned.plain SELECT id, g, gg FROM cleaned.t")
    path, _ = metadata_of(lake, "cleaned.plain")
    # PyIceberg 0.12 knows the types, and reads no rows of them.
    kinds = {field.name: str(field.field_type) for field in StaticTable.from_metadata(path).schema().fields}
    lake.tally.same("PyIceberg's types", (kinds["g"], kinds["gg"]), ("geometry", "geography"))
    read = {}
    for file in data_files(lake, "cleaned.plain"):
        read.update(connection.execute(f"SELECT id, g FROM read_parquet('{file}')").fetchall())
    lake.tally.same("DuckDB reads a point", read[1], struct.pack("<BIdd", 1, 1, 1, 2))
    lake.tally.same("DuckDB reads no geometry", read[3], None)
    lake.run("DELETE FROM cleaned.plain WHERE id = 2")
    found = [it for it in corners(lake, "cleaned.plain", 2) if it[0]]
    box = [pick(end[at] for end in (it[side] for it in found)) for side, pick in ((0, min), (1, max)) for at in (0, 1)]
    lake.tally.same("the box stays while a deleted row is in the file", box, [0.0, -1.0, 4.0, 5.0])
    lake.run("CALL system.rewrite_data_files(table => 'cleaned.plain', options => map('rewrite-all', 'true'))")
    lake.tally.same("the box of what is left", corners(lake, "cleaned.plain", 2), [((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))])
    for where, count in (("g = st_point(1, 2)", 1), ("g = st_point(2, 2)", 0), ("g IS NULL", 1), ("st_x(g) = 1 AND id = 1", 1)):
        rows, = lake.run(f"SELECT count(*) AS n FROM cleaned.plain WHERE {where}")
        lake.tally.same(f"rows WHERE {where}", rows[0]["n"], count)
    refuses(lake, "bytes that are none", "INSERT INTO cleaned.plain (id, g) VALUES (9, X'0102')", "`g` holds geometries")
    refuses(lake, "a text that is none", "INSERT INTO cleaned.plain SELECT 9, st_geomfromtext('POINT (1'), NULL", "is no well-known text")


def case_unknown(lake):
    lake.run(f"CREATE TABLE cleaned.t (id BIGINT, u UNKNOWN, s STRUCT<a: INT, u: VOID>) {V3}",
             "INSERT INTO cleaned.t (id, s) VALUES (1, named_struct('a', 5, 'u', NULL)), (2, NULL)")
    for path in data_files(lake, "cleaned.t"):
        lake.tally.same("columns that are stored", pq.read_schema(path).names, ["id", "s"])
        lake.tally.same("fields that are stored", [it.name for it in pq.read_schema(path).field("s").type], ["a"])
    rows, = lake.run("SELECT * FROM cleaned.t ORDER BY id")
    lake.tally.same("rows", rows, [{"id": 1, "u": None, "s": {"a": 5, "u": None}}, {"id": 2, "u": None, "s": None}])
    refuses(lake, "a struct of nothing", f"CREATE TABLE cleaned.bad (id INT, s STRUCT<u: UNKNOWN>) {V3}", "could not be stored")
    refuses(lake, "a table of nothing", f"CREATE TABLE cleaned.bad (u UNKNOWN) {V3}", "would store nothing")
    path, _ = metadata_of(lake, "cleaned.t")
    read = sorted(StaticTable.from_metadata(path).scan().to_arrow().to_pylist(), key=lambda it: it["id"])
    lake.tally.same("PyIceberg reads it", [(it["id"], it["u"]) for it in read], [(1, None), (2, None)])
    refuses(lake, "a value", "INSERT INTO cleaned.t (id, u) VALUES (3, 5)", "")
    lake.run("ALTER TABLE cleaned.t ALTER COLUMN u TYPE STRING", "INSERT INTO cleaned.t (id, u) VALUES (3, 'now')")
    rows, = lake.run("SELECT id, u FROM cleaned.t WHERE u IS NOT NULL OR id = 1 ORDER BY id")
    lake.tally.same("it became text", rows, [{"id": 1, "u": None}, {"id": 3, "u": "now"}])
    lake.tally.same("types", types_of(lake, "cleaned.t")["u"], "string")


def case_variants_of_anything(lake):
    """Values of every type become variants and come back, also where they lie within each other."""
    lake.run(f"CREATE TABLE cleaned.t (id BIGINT, v VARIANT) {V3}", "INSERT INTO cleaned.t VALUES (1, parse_json('0'))",
             "MERGE INTO cleaned.t t USING (SELECT 1 AS id, 7 AS v UNION ALL SELECT 2, 8) s ON t.id = s.id "
             "WHEN MATCHED THEN UPDATE SET v = s.v WHEN NOT MATCHED THEN INSERT *",
             "INSERT INTO cleaned.t SELECT 3, [parse_json('[1]'), NULL]",
             "INSERT INTO cleaned.t SELECT 4, named_struct('v', parse_json('{\"k\": true}'), 'l', [parse_json('1')], 'n', NULL)",
             "INSERT INTO cleaned.t SELECT 5, CAST('nan' AS DOUBLE)")
    rows, = lake.run("SELECT id, to_json(v) AS v FROM cleaned.t ORDER BY id")
    lake.tally.same("values", {row["id"]: json.loads(row["v"]) for row in rows},
                    {1: 7, 2: 8, 3: [[1], None], 4: {"v": {"k": True}, "l": [1], "n": None}, 5: "NaN"})
    for value, kind, want in (('["1", 2]', "array<int>", [1, 2]), ('[1, true, "x", null]', "array<string>", ["1", "true", "x", None]),
                              ('{"a": "5"}', "struct<a: int, b: string>", {"a": 5, "b": None}), ('[[1], []]', "array<array<int>>", [[1], []]),
                              ('{"a": 1, "b": "2"}', "map<string, int>", [["a", 1], ["b", 2]]), ('[1, {"z": 1}]', "array<variant>", [1, {"z": 1}]),
                              ('"f79c3e09-677c-4bbd-a479-3f349cb785e7"', "uuid", "f79c3e09-677c-4bbd-a479-3f349cb785e7")):
        rows, = lake.run(f"SELECT variant_get(parse_json('{value}'), '$', '{kind}') AS it")
        lake.tally.same(f"{value} as {kind}", rows[0]["it"], want)
    for value, kind in (('[1, "a"]', "array<int>"), ("5", "struct<a: int>"), ('"abc"', "binary"), ("3000000000", "int")):
        refuses(lake, f"{value} as {kind}", f"SELECT variant_get(parse_json('{value}'), '$', '{kind}')", "is no ")
        rows, = lake.run(f"SELECT try_variant_get(parse_json('{value}'), '$', '{kind}') AS it")
        lake.tally.check(f"{value} tried as {kind}", rows[0]["it"] in (None, [1, None]), rows)
    for text in ("1e400", "[" * 200, '"\\ud83d"'):
        rows, = lake.run(f"SELECT try_parse_json('{text}') AS it")
        lake.tally.same("what is no variant", rows[0]["it"], None)
    refuses(lake, "a text", "INSERT INTO cleaned.t SELECT 9, '{}'", "does not fit a column of VARIANT", "parse_json")
    # A struct that has the parts of a variant by name is none.
    lake.run("CREATE TABLE cleaned.parts (id BIGINT, s STRUCT<metadata: BINARY, value: BINARY>)",
             "INSERT INTO cleaned.parts SELECT 1, named_struct('metadata', X'010000', 'value', X'0C07')",
             "CREATE TABLE cleaned.more AS SELECT * FROM cleaned.parts")
    for name in ("parts", "more"):
        rows, = lake.run(f"SELECT s FROM cleaned.{name}")
        lake.tally.same(f"a struct in {name}", rows[0]["s"], {"metadata": "0x010000", "value": "0x0c07"})


def case_hostile_values(lake):
    """Nothing that a file or a text says stops the process."""
    deep = "GEOMETRYCOLLECTION(" * 5000
    refuses(lake, "shapes within shapes", f"SELECT st_geomfromtext('{deep}')", "lie within each other")
    for text in ("POINT (1 2) x", "POINT (1 2)garbage", "POINT", "", "CIRCLE (1 2)"):
        refuses(lake, f"{text!r}", f"SELECT st_geomfromtext('{text}')", "is no well-known text")
    lake.run(f"CREATE TABLE cleaned.g (id BIGINT, g GEOMETRY) {V3}",
             "INSERT INTO cleaned.g SELECT 1, st_geomfromtext('MULTIPOLYGON (((0 0, 1 0, 1 1, 0 0)), EMPTY)')")
    rows, = lake.run("SELECT g FROM cleaned.g")
    lake.tally.check("an empty shape within another", rows[0]["g"].startswith("0x"), rows)
    point = struct.pack("<BIdd", 1, 1, 1, 2)
    refuses(lake, "bytes behind the shape", f"INSERT INTO cleaned.g VALUES (2, X'{point.hex()}00')", "longer than its shape")
    refuses(lake, "a reference system within", f"INSERT INTO cleaned.g VALUES (2, X'{struct.pack('<BIIdd', 1, 0x20000001, 4326, 1, 2).hex()}')", "`g` holds geometries")
    # Files whose variants are none: a date that no calendar has, and no variant at all.
    place = folder(lake, "bad")
    for name, value in (("date", b"\x2c\xff\xff\xff\x7f"), ("cut", b"\x02\xff"), ("none", b"")):
        parts = pa.StructArray.from_arrays([pa.array([b"\x01\x00\x00"]), pa.array([value])], fields=[
            pa.field("metadata", pa.binary(), False), pa.field("value", pa.binary(), False)])
        lake.run(f"CREATE TABLE cleaned.{name} (id BIGINT, v VARIANT) {V3}", f"INSERT INTO cleaned.{name} VALUES (1, parse_json('1'))")
        path, = data_files(lake, f"cleaned.{name}")
        ids = [pa.field("id", pa.int64(), metadata={"PARQUET:field_id": "1"}), pa.field("v", parts.type, metadata={"PARQUET:field_id": "2"})]
        pq.write_table(pa.table([pa.array([1]), parts], schema=pa.schema(ids)), path)
        lake.run(f"SELECT id, v FROM cleaned.{name}")
        refuses(lake, f"{name} as JSON", f"SELECT to_json(v) FROM cleaned.{name}", "no variant")


def case_loaded(lake):
    place = folder(lake, "load")
    def file(name, text):
        with open(f"{place}/{name}", "w", encoding="utf-8") as opened:
            opened.write(text)
        return f"{place}/{name}"
    lake.run(f"CREATE TABLE cleaned.t (id BIGINT, v VARIANT, g GEOMETRY, u UNKNOWN) {V3}")
    lines = ['{"id": 1, "v": [null, {"z": 1}], "g": "POINT (1 2)"}', '{"id": 2, "v": {"a": [[1], 1]}, "g": "0101000000000000000000f03f0000000000000040"}',
             '{"id": 3, "v": "text"}', '{"id": 4, "v": null, "u": null}', '{"id": 5}']
    lake.command("ingest", file("a.json", "\n".join(lines)), "--into", "cleaned.t")
    lake.command("ingest", file("b.csv", 'id,v,g,u\n6,"{""a"": 1.5}",POINT (3 4),\n7,,,\n'), "--into", "cleaned.t")
    want = {1: ("[null,{\"z\":1}]", "POINT(1 2)"), 2: ("{\"a\":[[1],1]}", "POINT(1 2)"), 3: ('"text"', None), 4: (None, None), 5: (None, None),
            6: ('{"a":1.5}', "POINT(3 4)"), 7: (None, None)}
    rows, = lake.run("SELECT id, to_json(v) AS v, st_astext(g) AS g FROM cleaned.t")
    lake.tally.same("rows", {row["id"]: (row["v"], row["g"]) for row in rows}, want)
    bad = file("c.csv", "id,v,g\n8,nojson,\n9,1e400,\n10,,POINT x\n11,1,\n")
    lake.command("ingest", bad, "--into", "cleaned.t", "--bad-records", f"{place}/bad")
    with open(f"{place}/bad", encoding="utf-8") as opened:
        lake.tally.same("bad records", [json.loads(line)["line"] for line in opened], [2, 3, 4])
    lake.command("ingest", file("d.json", '{"id": 12, "u": 5}'), "--into", "cleaned.t", "--evolve")
    rows, = lake.run("SELECT id, u FROM cleaned.t WHERE u IS NOT NULL")
    lake.tally.same("what was unknown", rows, [{"id": 12, "u": 5}])
    connection = duckdb.connect()
    connection.execute(f"COPY (SELECT 1::BIGINT AS id, {{'a': 1}}::VARIANT AS v) TO '{place}/new.parquet' (FORMAT parquet)")
    lake.command("ingest", f"{place}/new.parquet", "--into", "cleaned.made")
    lake.tally.same("a new table of a variant", types_of(lake, "cleaned.made"), {"id": "long", "v": "variant"})


def case_transforms_of_others(lake):
    """A partition of several columns by a transform nobody knows is read, kept, and not written to."""
    lake.run(f"CREATE TABLE cleaned.made (a BIGINT, b STRING, c BIGINT) PARTITIONED BY (truncate(100, b)) {V3}",
             "INSERT INTO cleaned.made VALUES (1, 'x', 1), (2, 'y', 2)", "INSERT INTO cleaned.made VALUES (3, 'x', 3)")
    path, metadata = metadata_of(lake, "cleaned.made")
    field = {"field-id": 1000, "source-ids": [1, 2], "transform": "hilbert[16]", "name": "curve"}
    metadata["partition-specs"] = [{"spec-id": 0, "fields": [field]}]
    order = {"source-ids": [1, 3], "transform": "zorder", "direction": "asc", "null-order": "nulls-first"}
    metadata["sort-orders"] = [{"order-id": 1, "fields": [order]}]
    metadata["default-sort-order-id"] = 1
    other = os.path.join(os.path.dirname(path), "00099-11111111-1111-4111-8111-111111111111.metadata.json")
    with open(other, "w", encoding="utf-8") as opened:
        json.dump(metadata, opened)
    lake.run("DROP TABLE cleaned.made", f"CALL system.register_table('cleaned.t', 'file://{other}')")
    for where, want in (("true", 3), ("b = 'x'", 2), ("a = 2", 1), ("b = 'z'", 0), ("a IN (1, 3) AND c > 1", 1)):
        rows, = lake.run(f"SELECT count(*) AS n FROM cleaned.t WHERE {where}")
        lake.tally.same(f"rows WHERE {where}", rows[0]["n"], want)
    refuses(lake, "writing", "INSERT INTO cleaned.t VALUES (4, 'z', 4)", "`curve`", "transform that is not known")
    refuses(lake, "changing", "UPDATE cleaned.t SET c = 0", "`curve`")
    lake.run("ALTER TABLE cleaned.t SET TBLPROPERTIES ('k' = 'v')")
    def kept(now):
        lake.tally.same("the spec is as it was", next(it for it in now["partition-specs"] if it["spec-id"] == 0)["fields"], [field])
        lake.tally.same("the order is as it was", next(it for it in now["sort-orders"] if it["order-id"] == 1)["fields"], [order])
    now = newest(path)
    lake.tally.same("the property is set", now["properties"].get("k"), "v")
    kept(now)
    lake.run("ALTER TABLE cleaned.t DROP PARTITION FIELD curve", "ALTER TABLE cleaned.t WRITE UNORDERED",
             "INSERT INTO cleaned.t VALUES (4, 'z', 4)", "DELETE FROM cleaned.t WHERE a = 1")
    kept(newest(path))
    rows, = lake.run("SELECT a FROM cleaned.t ORDER BY a")
    lake.tally.same("rows", [row["a"] for row in rows], [2, 3, 4])
    lake.run("CALL system.rewrite_manifests('cleaned.t')",
             "CALL system.rewrite_data_files(table => 'cleaned.t', options => map('rewrite-all', 'true'))")
    rows, = lake.run("SELECT a FROM cleaned.t ORDER BY a")
    lake.tally.same("rows after upkeep", [row["a"] for row in rows], [2, 3, 4])


def newest(path):
    found = max(glob.glob(os.path.join(os.path.dirname(path), "*.metadata.json")), key=os.path.getmtime)
    with open(found, encoding="utf-8") as opened:
        return json.load(opened)


CASES = {name.removeprefix("case_"): value for name, value in list(globals().items()) if name.startswith("case_")}

if __name__ == "__main__":
    roundtrip.main(CASES, __doc__)
