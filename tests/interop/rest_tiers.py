"""Tables of raw only grow, whoever writes: `rest_tiers.py ICEFIELD [ARGUMENT …]`.

PyIceberg appends, deletes and overwrites; it also claims that its deletes are appends or rewrites, as an engine with a bug
would.
"""
import itertools
import json
import sys
import time

import pyarrow as pa
from pyiceberg.catalog import load_catalog
from pyiceberg.exceptions import ForbiddenError
from pyiceberg.io.pyarrow import _dataframe_to_data_files
from pyiceberg.manifest import ManifestFile, write_manifest, write_manifest_list
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update import AddSnapshotUpdate
from pyiceberg.types import LongType

from rest_server import serving

ROWS = pa.table({"id": pa.array(range(10), pa.int64()), "name": [f"n{it}" for it in range(10)]})


def catalog_of(server, credential, **more):
    return load_catalog("rest", uri=server.url, credential=credential, type="rest", **more)


def claiming(catalog, operation):
    """The catalog, which says of every snapshot that it is an `operation`."""
    commit = catalog.commit_table

    def claim(table, requirements, updates):
        for update in updates:
            if isinstance(update, AddSnapshotUpdate):
                update.snapshot.summary.__dict__["operation"] = operation
        return commit(table, requirements, updates)

    catalog.commit_table = claim
    return catalog


def refused(what, wanted):
    try:
        what()
    except ForbiddenError as error:
        assert wanted in str(error), (wanted, error)
        return
    raise AssertionError(f"allowed, though {wanted}")


def rewritten(table, rows):
    """The first file of a table written anew with other rows, by one snapshot."""
    old = next(iter(table.scan().plan_files())).file
    with table.transaction() as transaction:
        with transaction.update_snapshot().overwrite() as overwrite:
            for file in _dataframe_to_data_files(table.metadata, rows, table.io):
                overwrite.append_data_file(file)
            overwrite.delete_data_file(old)


def forged(server, headers, catalog):
    """Snapshots made by hand, of which each says that it only appends, or that it is one that is there."""
    made = itertools.count()

    def table():
        table = catalog.create_table(f"raw.forged{next(made)}", ROWS.schema)
        table.append(ROWS)
        table.append(ROWS)
        return catalog.load_table(table.name())

    def listed(table, snapshot, parent, number, manifests):
        path = f"{table.location()}/metadata/forged-{snapshot}.avro"
        with write_manifest_list(format_version=2, output_file=table.io.new_output(path), snapshot_id=snapshot,
                                 parent_snapshot_id=parent, sequence_number=number, avro_compression="deflate") as writer:
            writer.add_manifests(manifests)
        return {"action": "add-snapshot", "snapshot": {
            "snapshot-id": snapshot, "sequence-number": number, "timestamp-ms": int(time.time() * 1000), "manifest-list": path,
            "summary": {"operation": "append"}, "schema-id": 0, **({"parent-snapshot-id": parent} if parent else {})}}

    def main_at(snapshot, kind="branch"):
        return {"action": "set-snapshot-ref", "ref-name": "main", "type": kind, "snapshot-id": snapshot}

    def line(of, **other):
        said = {name: getattr(of, name) for name in (
            "manifest_path", "manifest_length", "partition_spec_id", "content", "sequence_number", "min_sequence_number",
            "added_snapshot_id", "added_files_count", "existing_files_count", "deleted_files_count", "added_rows_count",
            "existing_rows_count", "deleted_rows_count", "partitions", "key_metadata")}
        return ManifestFile.from_args(_table_format_version=2, **{**said, **other})

    def commit(table, updates, wanted, status=403):
        body = {"requirements": [], "updates": updates}
        answer = server.ask("POST", f"/v1/namespaces/raw/tables/{table.name()[1]}", body, headers)
        assert answer[0] == status and wanted in answer[1]["error"]["message"], (wanted, answer[:2])
        assert catalog.load_table(table.name()).scan().to_arrow().num_rows == 20, wanted

    here = table()
    head = here.current_snapshot()
    again = [{"action": "remove-snapshots", "snapshot-ids": [head.snapshot_id]},
             listed(here, head.snapshot_id, head.parent_snapshot_id, 3, []), main_at(head.snapshot_id)]
    commit(here, again, "would be another one")
    commit(here, [*again[:2], listed(here, 77, head.snapshot_id, 4, []), main_at(77)], "would be another one")
    manifests = head.manifests(here.io)
    none = {"added_files_count": 0, "existing_files_count": 0, "added_rows_count": 0, "existing_rows_count": 0}
    for number, lines in enumerate(([line(it, **none) for it in manifests], [*manifests, manifests[0]],
                                    [line(it, manifest_path="file:///etc/passwd") for it in manifests],
                                    [line(it, sequence_number=9) for it in manifests])):
        wanted = ["says other things", "a manifest twice", "lies elsewhere", "says other things"][number]
        commit(here, [listed(here, 80 + number, head.snapshot_id, 3, lines), main_at(80 + number)], wanted)
    # The old files in a new manifest, of which it says something else.
    for number, (change, wanted) in enumerate([
            (lambda file: {10: {**file.lower_bounds, 1: (1000).to_bytes(8, "little")}}, "says other things"),
            (lambda file: {8: {**file.null_value_counts, 1: file.record_count}}, "says other things")]):
        path = f"{here.location()}/metadata/forged-m{number}.avro"
        with write_manifest(2, here.spec(), here.schema(), here.io.new_output(path), 90 + number, "deflate") as writer:
            for entry in (it for manifest in manifests for it in manifest.fetch_manifest_entry(here.io)):
                for place, value in change(entry.data_file).items():
                    entry.data_file._data[place] = value
                writer.existing(entry)
        lines = [writer.to_manifest_file()]
        commit(here, [listed(here, 90 + number, head.snapshot_id, 3, lines), main_at(90 + number)], wanted)
    commit(here, [main_at(head.snapshot_id, "tag")], "`main` is a branch", 400)

    def schema(field):
        fields = [{"id": 1, "name": "id", "type": "long", "required": False}, {"id": 2, "name": "name", "type": "string", "required": False}]
        fields = [field if it["id"] == field["id"] else it for it in fields] + ([field] if field["id"] > 2 else [])
        return [{"action": "add-schema", "schema": {"type": "struct", "fields": fields}, "last-column-id": 3},
                {"action": "set-current-schema", "schema-id": -1}]

    commit(here, schema({"id": 1, "name": "id", "type": "int", "required": False}), "would become int")
    commit(here, schema({"id": 1, "name": "id", "type": "long", "required": True}), "could not be null any more")
    commit(here, schema({"id": 3, "name": "new", "type": "long", "required": True}), "have no value")
    spec = [{"action": "add-spec", "spec": {"spec-id": 1, "fields": [
        {"name": "b", "transform": "bucket[4]", "source-id": 1, "field-id": 1000}]}}, {"action": "set-default-spec", "spec-id": -1}]
    assert server.ask("POST", f"/v1/namespaces/raw/tables/{here.name()[1]}", {"requirements": [], "updates": spec}, headers)[0] == 200
    commit(here, [{"action": "remove-partition-specs", "spec-ids": [0]}], "has files of the partition spec 0", 400)
    catalog.load_table(here.name()).append(ROWS)


def main():
    arguments = sys.argv[2:]
    before = ["CREATE PRINCIPAL ada", "CREATE PRINCIPAL wim", "GRANT administrator ON CATALOG TO ada",
              "GRANT owner ON NAMESPACE raw TO wim", "GRANT owner ON NAMESPACE cleaned TO wim"]
    with serving(sys.argv[1], *arguments, before=before) as server:
        ada, wim = (f"{name}:{server.said[place][0]['client_secret']}" for place, name in enumerate(("ada", "wim")))
        catalog = catalog_of(server, wim)
        table = catalog.create_table("raw.t", ROWS.schema)
        table.append(ROWS)
        table.append(ROWS)

        def untouched(what, wanted, catalog=catalog):
            state = catalog.load_table("raw.t").metadata
            refused(lambda: what(catalog.load_table("raw.t")), wanted)
            assert catalog.load_table("raw.t").metadata == state, wanted

        # What says what it does.
        untouched(lambda it: it.delete("id = 3"), "is an `overwrite`")
        untouched(lambda it: it.delete(), "operation that deletes")
        untouched(lambda it: it.overwrite(ROWS.slice(0, 3)), "operation that deletes")
        untouched(lambda it: it.update_schema().delete_column("name").commit(), "column `name` would be gone")
        untouched(lambda it: it.update_schema().rename_column("name", "n").commit(), "would be called `n`")
        first = catalog.load_table("raw.t").current_snapshot().parent_snapshot_id
        untouched(lambda it: it.manage_snapshots().rollback_to_snapshot(first).commit(), "which is not after it")

        # What says something else.
        for operation, wanted in ((Operation.APPEND, "leaves files out"), (Operation.REPLACE, "makes 0 rows of 20")):
            liar = claiming(catalog_of(server, wim), operation)
            untouched(lambda it: it.delete(), wanted, liar)
        liar = claiming(catalog_of(server, wim), Operation.REPLACE)
        untouched(lambda it: rewritten(it, ROWS.slice(0, 9)), "makes 9 rows of 10", liar)
        untouched(lambda it: rewritten(it, ROWS), "is an `overwrite`")
        rewritten(liar.load_table("raw.t"), ROWS)
        assert catalog.load_table("raw.t").scan().to_arrow().num_rows == 20

        # What only grows.
        with catalog.load_table("raw.t").update_schema() as update:
            update.add_column("more", LongType())
        catalog.load_table("raw.t").append(ROWS)
        catalog.create_table("cleaned.t", ROWS.schema).append(ROWS)
        catalog.load_table("cleaned.t").delete("id = 3")

        # In a transaction of several tables, and by names.
        location = catalog.load_table("cleaned.t").metadata_location
        token = server.token(*wim.split(":"))
        headers = {"Authorization": f"Bearer {token}"}
        admin = {"Authorization": f"Bearer {server.token(*ada.split(':'))}"}
        drop = {"requirements": [], "updates": [{"action": "remove-snapshot-ref", "ref-name": "main"}]}
        both = {"table-changes": [{"identifier": {"namespace": [tier], "name": "t"}, **drop} for tier in ("cleaned", "raw")]}
        rename = {"source": {"namespace": ["raw"], "name": "t"}, "destination": {"namespace": ["cleaned"], "name": "u"}}
        register = {"name": "t", "metadata-location": location, "overwrite": True}
        for path, body, who in (("transactions/commit", both, headers), ("namespaces/raw/tables/t", drop, headers),
                                ("tables/rename", rename, headers), ("namespaces/raw/register", register, admin)):
            status, answer, _ = server.ask("POST", f"/v1/{path}", body, who)
            assert status == 403, (path, status, answer)
            assert answer["error"]["type"] == "ForbiddenException" and "only grow" in answer["error"]["message"], answer
            assert "X-Icefield-Lift" in answer["error"]["message"], answer
        assert catalog.load_table("cleaned.t").current_snapshot() is not None

        forged(server, headers, catalog)

        # An administrator lifts the rule, nobody else.
        lift = {"header.X-Icefield-Lift": "erasure%204711"}
        refused(lambda: catalog_of(server, wim, **lift).load_table("raw.t").delete("id = 3"), "administrator")
        catalog_of(server, ada, **lift).load_table("raw.t").delete("id = 3")
        assert catalog.load_table("raw.t").scan().to_arrow().num_rows == 27
        assert catalog_of(server, wim, **lift).load_table("cleaned.t"), "who only reads may say it"
        untouched(lambda it: it.delete("id = 4"), "overwrite")
        log = server.sql("SELECT principal, outcome, detail FROM system.audit_log WHERE object = 'raw.t' ORDER BY at")
        lifted = [it for it in log if "lifted" in json.loads(it["detail"])]
        assert lifted and all(it["principal"] == "ada" for it in lifted), lifted
        assert json.loads(lifted[0]["detail"])["lifted"] == "erasure 4711", lifted
        denied = [it for it in log if it["outcome"] == "denied" and it["principal"] == "wim" and "why" in json.loads(it["detail"])]
        assert len(denied) >= 10, len(denied)
        status, answer, _ = server.ask("DELETE", "/v1/namespaces/raw/tables/t", None, headers)
        assert status == 204, answer


main()
