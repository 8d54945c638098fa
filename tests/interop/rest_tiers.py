"""Tables of raw only grow, whoever writes: `rest_tiers.py ICEFIELD [ARGUMENT …]`.

PyIceberg appends, deletes and overwrites; it also claims that its deletes are appends or rewrites, as an engine with a bug
would.
"""
import json
import sys

import pyarrow as pa
from pyiceberg.catalog import load_catalog
from pyiceberg.exceptions import ForbiddenError
from pyiceberg.io.pyarrow import _dataframe_to_data_files
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

        # An administrator lifts the rule, nobody else.
        lift = {"header.X-Icefield-Lift": "erasure%204711"}
        refused(lambda: catalog_of(server, wim, **lift).load_table("raw.t").delete("id = 3"), "administrator")
        catalog_of(server, ada, **lift).load_table("raw.t").delete("id = 3")
        assert catalog.load_table("raw.t").scan().to_arrow().num_rows == 27
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
