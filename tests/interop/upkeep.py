#!/usr/bin/env python3
"""PyIceberg and DuckDB read what Icefield's upkeep wrote, and PyIceberg goes on from there.

    upkeep.py ICEFIELD_BINARY [--only REGEX] [--jobs N] [--keep]

What roundtrip.py says of itself holds here too. A table is read before upkeep and after it: the rows have to be
the same, in all engines, at all snapshots and tags that stay; in format v3 row ids and the numbers of last updates
as well, which Icefield reads alone.
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

import functools
import json
import time
import warnings

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import schema_to_pyarrow

import roundtrip
from canonical import canonical_lines
from pages import wrong_pages
from roundtrip import check_files, check_partitions, inspected

# PyIceberg says at length which properties of a table it does not know.
warnings.filterwarnings("ignore", category=UserWarning, module="pyiceberg")

# Values that bounds and counts are easily wrong for: nulls, NaN, zeros of both signs, long texts, and in one of
# the INSERTs nothing but NaN, in another nothing but nulls.
ROWS = """SELECT i AS id, CASE WHEN i % 3 = 0 THEN 'a' WHEN i % 3 = 1 THEN 'b' END AS g,
  CASE WHEN {number} = 2 THEN CAST('NaN' AS DOUBLE) WHEN {number} = 3 OR i % 11 = 0 THEN NULL
       WHEN i % 5 = 0 THEN CAST('NaN' AS DOUBLE) WHEN i % 7 = 0 THEN CAST('-0' AS DOUBLE) ELSE CAST(i AS DOUBLE) / 2 - 40 END AS v,
  CASE WHEN i % 4 > 0 THEN 'a name of more than sixteen ' || CAST(i * 7919 % 1009 AS STRING) END AS s,
  DATE '2024-01-01' + CAST(i % 60 AS INT) AS d, CAST(i * 7919 % 100003 AS DECIMAL(12, 2)) AS p
FROM range({start}, {end}) r(i)"""
INSERTS, EACH = 6, 400


def fill(lake, version=2, by="", order=""):
    """A table of several files, and a tag after the second INSERT."""
    partitioned = f"PARTITIONED BY ({by})" if by else ""
    ordered = f"ORDERED BY ({order})" if order else ""
    modes = ", ".join(f"'write.{it}.mode' = 'merge-on-read'" for it in ("delete", "update", "merge"))
    lake.run(f"CREATE TABLE cleaned.t (id BIGINT, g STRING, v DOUBLE, s STRING, d DATE, p DECIMAL(12, 2)) {partitioned} "
             f"{ordered} TBLPROPERTIES ('format-version' = '{version}', {modes}, "
             "'write.parquet.page-row-limit' = '100', 'write.parquet.row-group-size-bytes' = '6000')")
    for number in range(INSERTS):
        rows = ROWS.format(number=number, start=number * EACH, end=(number + 1) * EACH)
        lake.run(f"INSERT INTO cleaned.t {rows}")
        if number == 1:
            lake.run("ALTER TABLE cleaned.t CREATE TAG early")


def change(lake):
    """Deleted and updated rows, in several commits."""
    lake.run("DELETE FROM cleaned.t WHERE id % 13 = 4", "UPDATE cleaned.t SET v = 7, s = 'updated' WHERE id % 17 = 5",
             "DELETE FROM cleaned.t WHERE id BETWEEN 390 AND 410")


def lineage(lake, version):
    """What format v3 has rows keep."""
    if version < 3:
        return []
    rows, = lake.run("SELECT id, _row_id, _last_updated_sequence_number FROM cleaned.t ORDER BY id")
    lake.tally.check("every row has an id of its own", len({row["_row_id"] for row in rows}) == len(rows) > 0, rows[:3])
    return rows


class Before:
    """What has to be the same after upkeep."""

    def __init__(self, lake, version=2):
        self.lake, self.version = lake, version
        self.lines = lake.pyiceberg("cleaned.t")
        self.lineage = lineage(lake, version)
        table = lake.table("cleaned.t")
        self.snapshots = {it.snapshot_id: lake.pyiceberg("cleaned.t", snapshot_id=it.snapshot_id)
                          for it in sorted(table.snapshots(), key=lambda it: it.sequence_number)}
        self.tagged = table.refs()["early"].snapshot_id

    def check(self, what, snapshots=None):
        """The rows now, at some of the snapshots, and at the tag."""
        lake, tally = self.lake, self.lake.tally
        lake.all_read("cleaned.t", self.lines, what=f" after {what}")
        if self.version >= 3:
            tally.same(f"row ids after {what}", lineage(lake, self.version), self.lineage)
        for snapshot_id in snapshots if snapshots is not None else [self.tagged, list(self.snapshots)[-2]]:
            lake.all_read_at("cleaned.t", snapshot_id, self.snapshots[snapshot_id], what=f" after {what}")
        reads = (("pyiceberg", lambda: canonical_lines(lake.table("cleaned.t").scan().use_ref("early").to_arrow())),
                 ("icefield", lambda: lake.icefield("cleaned.t", version="'early'")))
        for engine, read in reads:
            lines = tally.attempt(f"{engine} reads the tag after {what}", read)
            if lines is not None:
                tally.same(f"{engine} reads the tag after {what}", lines, self.snapshots[self.tagged])
        for where in ("v = 3.5", "s LIKE 'a name of more than sixteen 7%'", "d = DATE '2024-02-03'", "id = 1999",
                      "v IS NULL", "p > 90000"):
            got = tally.attempt(f"icefield WHERE {where}", lambda: lake.icefield("cleaned.t", where=f"WHERE {where}"))
            want = tally.attempt(f"duckdb WHERE {where}", lambda: lake.duckdb("cleaned.t", where=f"WHERE {where}"))
            if got is not None and want is not None:
                tally.same(f"icefield and duckdb WHERE {where} after {what}", got, want)


def files_of(lake):
    return [it["data_file"] for it in inspected(lake.table("cleaned.t"))]


def local(path):
    return path.removeprefix("file://")


def check_pages(lake):
    wrong, seen = [], 0
    for it in files_of(lake):
        found, count = wrong_pages(local(it["file_path"]))
        wrong += [f"{os.path.basename(it['file_path'])[:12]}: {line}" for line in found]
        seen += count
    lake.tally.check("page indexes", not wrong and seen > 0, "\n     ".join(wrong[:8]))


def call(lake, text):
    answer, = lake.run(f"CALL system.{text}")
    return answer


def count(answer, key):
    return int(answer[0][key])


def compact(lake, *arguments):
    options = [part for it in arguments if "=" in it for part in ("-o", it)]
    rest = [it for it in arguments if "=" not in it]
    return json.loads(lake.command("compact", "cleaned.t", "--format", "json", *rest, *options))


def pyiceberg_goes_on(lake, lines):
    """PyIceberg appends and deletes, Icefield reads that, and does its upkeep again."""
    tally, table = lake.tally, lake.table("cleaned.t")
    rows = pa.table({"id": [90_001, 90_002], "g": ["a", None], "v": [float("nan"), 1.0], "s": ["new", None],
                     "d": pa.array([19_800, None], pa.date32()), "p": pa.array([1, None], pa.decimal128(12, 2))},
                    schema=schema_to_pyarrow(table.schema(), include_field_ids=False))
    tally.attempt("PyIceberg appends", lambda: table.append(rows))
    lines = sorted(lines + canonical_lines(rows))
    lake.all_read("cleaned.t", lines, what=" after PyIceberg's append")
    tally.attempt("PyIceberg deletes", lambda: lake.table("cleaned.t").delete("id < 100 or id = 90002"))
    gone = lambda line: (number := json.loads(line)["id"]) < 100 or number == 90_002
    lines = [line for line in lines if not gone(line)]
    lake.all_read("cleaned.t", lines, what=" after PyIceberg's delete")
    done = tally.attempt("upkeep after PyIceberg", lambda: compact(lake, "rewrite-all=true"))
    if done is not None:
        tally.same("files that failed", done["failed_data_files_count"], 0)
        lake.all_read("cleaned.t", lines, what=" after upkeep once more")


def compaction(lake, version, by, way):
    """A table compacted in one of the ways."""
    tally = lake.tally
    order = "s, id DESC" if way == "table's order" else ""
    fill(lake, version, by, order)
    if way not in ("copied", "copied after deletes"):
        change(lake)
    elif way == "copied after deletes":
        # What holds deletes is decoded, the rest is copied.
        lake.run("DELETE FROM cleaned.t WHERE id < 300 AND id % 3 = 0")
    before = Before(lake, version)
    replaced = {it["file_path"] for it in files_of(lake)}
    arguments = {
        "copied": ["copy-row-groups=always", "min-input-files=2"],
        "copied after deletes": ["copy-row-groups=always", "min-input-files=2"],
        "decoded": ["copy-row-groups=never", "rewrite-all=true"],
        "sort": ["--order-by", "d DESC, s", "rewrite-all=true"],
        "table's order": ["--strategy", "sort", "rewrite-all=true"],
        "zorder": ["--order-by", "zorder(id, d)", "rewrite-all=true"],
        "hilbert": ["--order-by", "hilbert(s, v)", "rewrite-all=true"],
        "by and by": ["rewrite-all=true", "max-file-group-size-bytes=40000", "partial-progress.enabled=true",
                      "partial-progress.max-commits=3"],
    }[way]
    done = compact(lake, *arguments)
    tally.check("files are rewritten", done["rewritten_data_files_count"] > 1 and done["failed_data_files_count"] == 0, done)
    tally.check("row groups are copied if they can be", (done["copied_groups_count"] > 0) == (way == "copied")
                or way in ("copied after deletes", "by and by"), done)
    files = files_of(lake)
    if way == "copied" or "rewrite-all=true" in arguments:
        tally.check("no file is left as it was", not replaced & {it["file_path"] for it in files}, files[:1])
        tally.same("delete files", lake.table("cleaned.t").inspect.delete_files().num_rows, 0)
    if not by and way not in ("by and by", "copied after deletes"):
        tally.same("files after compaction", len(files), 1)
        if way == "copied":
            groups = pq.ParquetFile(local(files[0]["file_path"])).metadata.num_row_groups
            tally.check("it has the row groups of all", groups >= INSERTS, groups)
    before.check(f"compaction, {way}")
    check_files(lake, "cleaned.t")
    check_pages(lake)
    if by:
        check_partitions(lake, "cleaned.t")
    check_numbers(lake)
    check_order(lake, way)
    if version < 3:
        pyiceberg_goes_on(lake, before.lines)
    elif way == "copied":
        # Once more, from files that hold row ids now.
        compact(lake, "rewrite-all=true", "copy-row-groups=always")
        before.check("compaction of what was compacted")


def check_numbers(lake):
    """The new files count as old as what they were read from, and the snapshot says what it did."""
    tally, table = lake.tally, lake.table("cleaned.t")
    snapshot = table.current_snapshot()
    tally.same("operation", snapshot.summary.operation.value, "replace")
    sequence = {it.snapshot_id: it.sequence_number for it in table.snapshots()}
    for it in inspected(table):
        if it["snapshot_id"] == snapshot.snapshot_id:
            tally.check("data sequence number of a new file", it["sequence_number"] < snapshot.sequence_number, it["sequence_number"])
            tally.same("file sequence number", it["file_sequence_number"], sequence[it["snapshot_id"]])
    files = files_of(lake)
    summary = snapshot.summary.additional_properties
    tally.same("total-data-files", summary["total-data-files"], str(len(files)))
    tally.same("total-records", summary["total-records"], str(sum(it["record_count"] for it in files)))
    tally.same("total-files-size", summary["total-files-size"], str(sum(it["file_size_in_bytes"] for it in files)))


def check_order(lake, way):
    """Sorted files are in order; only those in the table's own order say so."""
    table = lake.table("cleaned.t")
    for it in files_of(lake):
        if way in ("sort", "table's order"):
            held = pq.read_table(local(it["file_path"]), partitioning=None)
            keys = {"sort": [("d", "descending"), ("s", "ascending")],
                    "table's order": [("s", "ascending"), ("id", "descending")]}[way]
            columns = held.select([name for name, _ in keys])
            places = {"descending": "at_end", "ascending": "at_start"}
            nulls_first = pc.sort_indices(columns, sort_keys=[(*key, places[key[1]]) for key in keys])
            lake.tally.check("rows are in order", columns.take(nulls_first).equals(columns), it["file_path"])
        want = table.sort_order().order_id if way == "table's order" else None
        if way != "copied after deletes" and way != "by and by":
            lake.tally.same("sort_order_id", it["sort_order_id"], want)


# Each way at least once in each format version or layout; all of each with each would take minutes.
MATRIX = {
    (2, "plain"): ["copied", "sort", "table's order", "hilbert"],
    (2, "partitioned"): ["copied", "copied after deletes", "decoded", "zorder", "by and by"],
    (3, "plain"): ["copied", "decoded", "table's order"],
    (3, "partitioned"): ["copied", "copied after deletes", "sort", "zorder", "by and by"],
}
for (version, layout), ways in MATRIX.items():
    for way in ways:
        title = f"case_v{version}_{layout}_{way}".replace("'", "").replace(" ", "_")
        by = "g, bucket(2, id)" if layout == "partitioned" else ""
        globals()[title] = functools.partial(compaction, version=version, by=by, way=way)


def delete_files(lake, version, upgrade):
    """Delete files become one for each data file; after an upgrade, a deletion vector."""
    tally = lake.tally
    fill(lake, version, "g")
    change(lake)
    if upgrade:
        lake.run("ALTER TABLE cleaned.t SET TBLPROPERTIES ('format-version' = '3')", "DELETE FROM cleaned.t WHERE id % 29 = 3")
    is_v3 = upgrade or version == 3
    before = Before(lake, 3 if is_v3 else 2)
    held = lake.table("cleaned.t").inspect.delete_files().to_pylist()
    answer = call(lake, "rewrite_position_delete_files(table => 'cleaned.t', options => map('rewrite-all', 'true'))")
    after = lake.table("cleaned.t").inspect.delete_files().to_pylist()
    tally.same("delete files that were added", count(answer, "added_delete_files_count"), len(after))
    tally.check("delete files are not more", len(after) <= len(held), f"{len(held)}, then {len(after)}")
    formats = {str(it["file_format"]).upper() for it in after}
    tally.same("formats", formats, {"PUFFIN"} if is_v3 else {"PARQUET"})
    if is_v3 and not upgrade:
        # A vector is never more than one a data file, so there was nothing to merge but all was written anew.
        tally.same("delete files", len(after), len(held))
    before.check("rewrite_position_delete_files")
    check_files(lake, "cleaned.t")
    lake.run("DELETE FROM cleaned.t WHERE id % 31 = 1")
    lines = [line for line in before.lines if json.loads(line)["id"] % 31 != 1]
    lake.all_read("cleaned.t", lines, what=" after another DELETE")
    done = compact(lake, "rewrite-all=true")
    tally.check("deletes are folded in", done["removed_delete_files_count"] > 0, done)
    lake.all_read("cleaned.t", lines, what=" after the deletes were folded in")
    if not is_v3:
        pyiceberg_goes_on(lake, lines)


def case_delete_files_v2(lake):
    delete_files(lake, 2, False)


def case_delete_files_v3(lake):
    delete_files(lake, 3, False)


def case_delete_files_upgraded(lake):
    delete_files(lake, 2, True)


def manifests(lake, version):
    """Manifests are written anew: entries stay what they were."""
    tally = lake.tally
    fill(lake, version, "g")
    change(lake)
    before = Before(lake, version)

    def entries():
        return sorted((it["data_file"]["file_path"], it["snapshot_id"], it["sequence_number"], it["file_sequence_number"],
                       str(it["data_file"]["partition"]), str(it["data_file"]["lower_bounds"]))
                      for it in inspected(lake.table("cleaned.t")))

    def number(content):
        table = lake.table("cleaned.t")
        return sum(int(it.content) == content for it in table.current_snapshot().manifests(table.io))

    held, data = entries(), number(0)
    answer = call(lake, "rewrite_manifests('cleaned.t')")
    tally.same("manifests that were rewritten", count(answer, "rewritten_manifests_count"), data)
    tally.same("data manifests", number(0), 1)
    tally.same("entries", entries(), held)
    tally.same("operation", lake.table("cleaned.t").current_snapshot().summary.operation.value, "replace")
    before.check("rewrite_manifests")
    lake.run("INSERT INTO cleaned.t VALUES (70000, 'z', 1, 'after', DATE '2024-01-01', 1)",
             "DELETE FROM cleaned.t WHERE id = 70000")
    before.check("another INSERT and DELETE", [])
    if version < 3:
        pyiceberg_goes_on(lake, before.lines)


def case_manifests_v2(lake):
    manifests(lake, 2)


def case_manifests_v3(lake):
    manifests(lake, 3)


def expire(lake, version):
    """Old snapshots and their files go; what a tag holds stays, and orphans go."""
    tally = lake.tally
    fill(lake, version, "g")
    change(lake)
    before = Before(lake, version)
    compact(lake, "rewrite-all=true")
    time.sleep(0.01)
    answer = call(lake, "expire_snapshots(table => 'cleaned.t', older_than => TIMESTAMP '2100-01-01 00:00:00', retain_last => 1)")
    tally.check("data files go", count(answer, "deleted_data_files_count") > 0, answer)
    tally.check("delete files go", sum(int(answer[0][f"deleted_{it}_delete_files_count"]) for it in ("position", "equality")) > 0,
                answer)
    table = lake.table("cleaned.t")
    tally.same("snapshots that stay", {it.snapshot_id for it in table.snapshots()},
               {before.tagged, table.current_snapshot().snapshot_id})
    before.check("expire_snapshots", [before.tagged])

    def reached():
        held = set()
        for snapshot in lake.table("cleaned.t").snapshots():
            for manifest in snapshot.manifests(table.io):
                held |= {os.path.basename(it.data_file.file_path) for it in manifest.fetch_manifest_entry(table.io)}
        return held

    def on_disk():
        data = os.path.join(local(table.location()), "data")
        return {name for _, _, names in os.walk(data) for name in names}

    tally.same("files on disk that nothing leads to", on_disk() - reached(), set())
    tally.same("files that are missing", reached() - on_disk(), set())
    orphan = os.path.join(local(table.location()), "data", "g=a", "of-a-crash.parquet")
    os.makedirs(os.path.dirname(orphan), exist_ok=True)
    with open(orphan, "wb") as file:
        file.write(b"PAR1")
    os.utime(orphan, (1_600_000_000, 1_600_000_000))
    answer = call(lake, "remove_orphan_files('cleaned.t')")
    tally.same("orphans", [os.path.basename(it["orphan_file_location"]) for it in answer], ["of-a-crash.parquet"])
    tally.check("the orphan is gone", not os.path.exists(orphan), orphan)
    before.check("remove_orphan_files", [before.tagged])
    if version < 3:
        pyiceberg_goes_on(lake, before.lines)


def case_expire_v2(lake):
    expire(lake, 2)


def case_expire_v3(lake):
    expire(lake, 3)


def new_spec(lake, version, field, drop):
    """Rows move to the partitions of a spec that came later."""
    tally = lake.tally
    fill(lake, version, "g" if drop else "")
    change(lake)
    lake.run(f"ALTER TABLE cleaned.t ADD PARTITION FIELD {field}")
    if drop:
        lake.run("ALTER TABLE cleaned.t DROP PARTITION FIELD g")
    lake.run(f"INSERT INTO cleaned.t {ROWS.format(number=9, start=5000, end=5100)}")
    before = Before(lake, version)
    specs = {it["spec_id"] for it in files_of(lake)}
    tally.check("files are of two specs", len(specs) == 2, specs)
    compact(lake, "rewrite-all=true")
    table = lake.table("cleaned.t")
    tally.same("specs", {it["spec_id"] for it in files_of(lake)}, {table.spec().spec_id})
    before.check("compaction into a new spec")
    check_partitions(lake, "cleaned.t")
    check_files(lake, "cleaned.t")
    if version < 3:
        pyiceberg_goes_on(lake, before.lines)
    compact(lake, "rewrite-all=true", "output-spec-id=0")
    tally.same("specs", {it["spec_id"] for it in files_of(lake)}, {0})
    check_partitions(lake, "cleaned.t")


def case_new_spec_v2(lake):
    new_spec(lake, 2, "bucket(3, id)", False)


def case_new_spec_v3(lake):
    new_spec(lake, 3, "month(d)", True)


def case_evolved(lake):
    """Files of an older schema are decoded into the newer one; those of the newer are copied."""
    tally = lake.tally
    fill(lake, 2)
    lake.run("ALTER TABLE cleaned.t RENAME COLUMN s TO text", "ALTER TABLE cleaned.t DROP COLUMN p", "ALTER TABLE cleaned.t ADD COLUMN p STRING",
             "ALTER TABLE cleaned.t ADD COLUMN n INT", "INSERT INTO cleaned.t VALUES (60000, 'a', 1, 'x', DATE '2024-01-01', 'y', 5)")
    want = lake.pyiceberg("cleaned.t")
    done = compact(lake, "copy-row-groups=always", "rewrite-all=true")
    tally.same("groups that were copied", done["copied_groups_count"], 0)
    lake.all_read("cleaned.t", want, what=" after compaction")
    check_files(lake, "cleaned.t")
    lake.run("INSERT INTO cleaned.t VALUES (60001, 'a', 1, 'x', DATE '2024-01-01', 'y', 5)")
    want = lake.pyiceberg("cleaned.t")
    done = compact(lake, "copy-row-groups=always", "rewrite-all=true")
    tally.same("groups that were copied", done["copied_groups_count"], 1)
    lake.all_read("cleaned.t", want, what=" after compaction of files of one schema")
    check_files(lake, "cleaned.t")
    check_pages(lake)


def case_foreign_files(lake):
    """Files that PyIceberg wrote, among them of other codecs, together with Icefield's."""
    fill(lake, 2)
    rows = lake.table("cleaned.t").scan().to_arrow()
    lake.table("cleaned.t").append(rows)
    with lake.table("cleaned.t").transaction() as transaction:
        transaction.set_properties({"write.parquet.compression-codec": "gzip"})
    lake.table("cleaned.t").append(rows.slice(0, 50))
    want = lake.pyiceberg("cleaned.t")
    for mode in ("always", "never"):
        done = compact(lake, f"copy-row-groups={mode}", "rewrite-all=true")
        lake.tally.same("files that failed", done["failed_data_files_count"], 0)
        lake.all_read("cleaned.t", want, what=f" after compaction, {mode}")
        check_files(lake, "cleaned.t")


def case_files_without_page_indexes(lake):
    """PyIceberg's files have no index of their pages: none are joined to those that have one."""
    for version in (2, 3):
        name = f"cleaned.p{version}"
        lake.run(f"CREATE TABLE {name} (id BIGINT)")
        for number in range(3):
            lake.table(name).append(pa.table({"id": pa.array([number] * 60000, pa.int64())}))
            lake.run(f"INSERT INTO {name} SELECT {number} FROM range(0, 60000) r(i)")
        if version == 3:
            lake.run(f"ALTER TABLE {name} SET TBLPROPERTIES ('format-version' = '3')",
                     f"INSERT INTO {name} SELECT 9 FROM range(0, 60000) r(i)")
        done = call(lake, f"rewrite_data_files('{name}', options => map('rewrite-all', 'true'))")
        lake.tally.same(f"files that failed, v{version}", count(done, "failed_data_files_count"), 0)
        rows, = lake.run(f"SELECT id, count(*) AS n FROM {name} GROUP BY id ORDER BY id")
        wanted = [{"id": number, "n": 120000} for number in range(3)]
        lake.tally.same(f"rows, v{version}", rows, wanted + ([{"id": 9, "n": 60000}] if version == 3 else []))


CASES = {name.removeprefix("case_"): value for name, value in list(globals().items()) if name.startswith("case_")}

if __name__ == "__main__":
    roundtrip.main(CASES, __doc__)
