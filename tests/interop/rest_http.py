"""The REST catalog as its specification has it, asked in plain HTTP: `rest_http.py ICEFIELD [ARGUMENT …]`."""
import json
import sys
import threading
import uuid
from pathlib import Path

from rest_server import serving

SCHEMA = {"type": "struct", "fields": [{"id": 1, "name": "id", "required": False, "type": "long"}]}


def refused(answer, status, kind):
    code, body, _ = answer
    assert code == status and body["error"]["type"] == kind and body["error"]["code"] == status, answer[:2]
    assert body["error"]["message"], body
    return body["error"]["message"]


def make(server, name, **more):
    status, body, _ = server.ask("POST", "/v1/namespaces/raw/tables", {"name": name, "schema": SCHEMA, **more})
    assert status == 200, body
    return body


def set_property(key, value, *requirements):
    return {"requirements": list(requirements), "updates": [{"action": "set-properties", "updates": {key: value}}]}


def config(server):
    status, body, _ = server.ask("GET", "/v1/config?warehouse=lake")
    assert status == 200 and body["overrides"]["warehouse"].startswith("file://"), body
    assert "POST /v1/{prefix}/transactions/commit" in body["endpoints"], body
    assert body["idempotency-key-lifetime"] == "PT24H"
    refused(server.ask("GET", "/v1/nothing"), 404, "NoSuchEndpointException")
    status, body, _ = server.ask("PUT", "/v1/namespaces/raw")
    assert status == 405 and body["error"]["code"] == 405, body
    assert server.ask("GET", "/health")[1] == "ok\n" and server.ask("GET", "/ready")[1] == "ready\n"
    assert 'route="/v1/config",status="200"' in server.ask("GET", "/metrics")[1]
    refused(server.ask("GET", "/v1/config", headers={"Origin": "https://elsewhere.example"}), 403, "ForbiddenException")
    refused(server.ask("GET", "/v1/config", headers={"Host": "elsewhere.example:8181"}), 403, "ForbiddenException")
    assert server.ask("GET", "/v1/lake/namespaces/raw")[0] == 200, "any prefix"


def pages(server):
    for number in range(5):
        make(server, f"p{number}")
    names, token = [], ""
    while token is not None:
        status, body, _ = server.ask("GET", f"/v1/namespaces/raw/tables?pageSize=2&pageToken={token}")
        assert status == 200 and len(body["identifiers"]) <= 2, body
        names += [it["name"] for it in body["identifiers"]]
        token = body["next-page-token"]
    assert names == [f"p{number}" for number in range(5)], names
    assert len(server.ask("GET", "/v1/namespaces/raw/tables?pageSize=2")[1]["identifiers"]) == 5, "all, without a token"
    refused(server.ask("GET", "/v1/namespaces/raw/tables?pageToken=&pageSize=0"), 400, "BadRequestException")
    status, body, _ = server.ask("GET", "/v1/namespaces?pageToken=&pageSize=1")
    assert body == {"namespaces": [["cleaned"]], "next-page-token": "cleaned"}, body


def etags(server):
    made = make(server, "tagged")
    path = "/v1/namespaces/raw/tables/tagged"
    status, body, headers = server.ask("GET", path)
    assert status == 200 and body["metadata-location"] == made["metadata-location"]
    tag = headers["ETag"]
    assert server.ask("GET", path, headers={"If-None-Match": tag})[0] == 304
    assert server.ask("GET", path + "?snapshots=refs", headers={"If-None-Match": tag})[0] == 200, "another body"
    assert server.ask("POST", path, set_property("a", "1"))[0] == 200
    assert server.ask("GET", path, headers={"If-None-Match": tag})[0] == 200
    server.sql("INSERT INTO raw.tagged VALUES (1)")
    server.sql("INSERT INTO raw.tagged VALUES (2)")
    assert len(server.ask("GET", path)[1]["metadata"]["snapshots"]) == 2
    assert len(server.ask("GET", path + "?snapshots=refs")[1]["metadata"]["snapshots"]) == 1
    refused(server.ask("GET", path + "?snapshots=some"), 400, "BadRequestException")
    assert server.ask("HEAD", path)[0] == 204 and server.ask("HEAD", path + "x")[0] == 404


def keys(server):
    """T-100: a request with a key is done once, whatever becomes of the answer."""
    key = {"Idempotency-Key": str(uuid.uuid4())}
    body = {"name": "once", "schema": SCHEMA}
    first = server.ask("POST", "/v1/namespaces/raw/tables", body, key)
    again = server.ask("POST", "/v1/namespaces/raw/tables", body, key)
    assert first[0] == again[0] == 200 and first[1]["metadata"]["table-uuid"] == again[1]["metadata"]["table-uuid"]
    assert again[2]["Idempotency-Replayed"] == "true" and "Idempotency-Replayed" not in first[2]
    refused(server.ask("POST", "/v1/namespaces/raw/tables", {"name": "other", "schema": SCHEMA}, key), 400,
            "BadRequestException")
    path = "/v1/namespaces/raw/tables/once"
    change = set_property("a", "1", {"type": "assert-ref-snapshot-id", "ref": "main", "snapshot-id": None})
    key = {"Idempotency-Key": str(uuid.uuid4())}
    locations = {server.ask("POST", path, change, key)[1]["metadata-location"] for _ in range(3)}
    assert len(locations) == 1, "one commit, answered three times"
    # A refusal is final too: the table that is made meanwhile changes nothing about it.
    key = {"Idempotency-Key": str(uuid.uuid4())}
    missing = "/v1/namespaces/raw/tables/late"
    refused(server.ask("POST", missing, set_property("a", "1"), key), 404, "NoSuchTableException")
    make(server, "late")
    refused(server.ask("POST", missing, set_property("a", "1"), key), 404, "NoSuchTableException")
    key = {"Idempotency-Key": str(uuid.uuid4())}
    for _ in range(2):
        assert server.ask("DELETE", missing, headers=key)[0] == 204
    refused(server.ask("DELETE", path, headers={"Idempotency-Key": "7"}), 400, "BadRequestException")
    # Many at once are still one.
    key, answers = {"Idempotency-Key": str(uuid.uuid4())}, []
    body = {"name": "rush", "schema": SCHEMA}
    rush = [threading.Thread(target=lambda: answers.append(server.ask("POST", "/v1/namespaces/raw/tables", body, key)))
            for _ in range(8)]
    [it.start() for it in rush]
    [it.join() for it in rush]
    assert [it[0] for it in answers] == [200] * 8, [it[:2] for it in answers]
    assert len({it[1]["metadata"]["table-uuid"] for it in answers}) == 1


def commits(server):
    made = make(server, "c1")
    make(server, "c2")
    path = "/v1/namespaces/raw/tables/c1"
    table = {"type": "assert-table-uuid", "uuid": made["metadata"]["table-uuid"]}
    assert server.ask("POST", path, set_property("k", "1", table))[0] == 200
    other = {"type": "assert-table-uuid", "uuid": str(uuid.uuid4())}
    assert "UUID" in refused(server.ask("POST", path, set_property("k", "2", other)), 409, "CommitFailedException")
    # T-10: what is not known is refused; fields that are not known are left out.
    for body in [{"requirements": [], "updates": [{"action": "make-coffee"}]},
                 {"requirements": [{"type": "assert-weather"}], "updates": []},
                 {"updates": []}, {"requirements": []}, {}, [], "x", b"{", b"", b"\xff",
                 b"[" * 100000, {"requirements": [], "updates": [{"action": "set-current-schema", "schema-id": 99}]},
                 {"requirements": [], "updates": [{"action": "set-default-spec", "spec-id": 99}]},
                 {"requirements": [], "updates": [{"action": "set-snapshot-ref", "ref-name": "main", "type": "branch",
                                                   "snapshot-id": 99}]},
                 {"requirements": [], "updates": [{"action": "upgrade-format-version", "format-version": 1}]},
                 {"identifier": {"namespace": ["raw"], "name": "c2"}, **set_property("k", "3")}]:
        refused(server.ask("POST", path, body), 400, "BadRequestException")
    odd = set_property("k", "4", {**table, "odd": 1})
    odd["updates"][0]["odd"] = {"x": []}
    assert server.ask("POST", path, {**odd, "odd": None})[1]["metadata"]["properties"]["k"] == "4"
    # T-101: all or nothing, and no table twice.
    named = lambda name, change: {"identifier": {"namespace": ["raw"], "name": name}, **change}  # noqa: E731
    both = {"table-changes": [named("c1", set_property("k", "5")), named("c2", set_property("k", "5"))]}
    assert server.ask("POST", "/v1/transactions/commit", both)[0] == 204
    fails = {"table-changes": [named("c1", set_property("k", "6")), named("c2", set_property("k", "6", other))]}
    refused(server.ask("POST", "/v1/transactions/commit", fails), 409, "CommitFailedException")
    for name in ("c1", "c2"):
        status, body, _ = server.ask("GET", f"/v1/namespaces/raw/tables/{name}")
        assert body["metadata"]["properties"]["k"] == "5", body["metadata"]["properties"]
    twice = {"table-changes": [named("c1", set_property("k", "7"))] * 2}
    refused(server.ask("POST", "/v1/transactions/commit", twice), 400, "BadRequestException")
    refused(server.ask("POST", "/v1/transactions/commit", {"table-changes": [set_property("k", "8")]}), 400,
            "BadRequestException")
    # T-102: a table that is staged is not there, and comes with the commit that asserts so; also beside another.
    staged = make(server, "c3", **{"stage-create": True})
    assert "metadata-location" not in staged and server.ask("HEAD", "/v1/namespaces/raw/tables/c3")[0] == 404
    metadata = staged["metadata"]
    create = {"requirements": [{"type": "assert-create"}], "updates": [
        {"action": "assign-uuid", "uuid": metadata["table-uuid"]},
        {"action": "upgrade-format-version", "format-version": 2},
        {"action": "add-schema", "schema": metadata["schemas"][0]}, {"action": "set-current-schema", "schema-id": -1},
        {"action": "add-spec", "spec": metadata["partition-specs"][0]}, {"action": "set-default-spec", "spec-id": -1},
        {"action": "add-sort-order", "sort-order": metadata["sort-orders"][0]},
        {"action": "set-default-sort-order", "sort-order-id": -1},
        {"action": "set-location", "location": metadata["location"]}]}
    beside = {"table-changes": [named("c3", create), named("c1", set_property("k", "9"))]}
    assert server.ask("POST", "/v1/transactions/commit", beside)[0] == 204
    status, body, _ = server.ask("GET", "/v1/namespaces/raw/tables/c3")
    assert status == 200 and body["metadata"]["table-uuid"] == metadata["table-uuid"]
    refused(server.ask("POST", "/v1/namespaces/raw/tables/c3", create), 409, "CommitFailedException")
    assert server.sql("SELECT count(*) AS n FROM raw.c3") == [{"n": 0}]


def races(server, clients=16, each=10):
    """Commits that require nothing of each other all land, and no client hears of a conflict."""
    make(server, "busy")
    statuses = []

    def work(number):
        for round in range(each):
            change = set_property(f"k{number}-{round}", "1")
            statuses.append(server.ask("POST", "/v1/namespaces/raw/tables/busy", change)[0])

    threads = [threading.Thread(target=work, args=(it,)) for it in range(clients)]
    [it.start() for it in threads]
    [it.join() for it in threads]
    assert statuses == [200] * (clients * each), sorted(set(statuses))
    found = server.ask("GET", "/v1/namespaces/raw/tables/busy")[1]["metadata"]["properties"]
    assert len([it for it in found if it.startswith("k")]) == clients * each


def places(server):
    root = server.ask("GET", "/v1/config")[1]["overrides"]["warehouse"]
    tables = "/v1/namespaces/raw/tables"
    for name in ("", ".", "..", "a/../b", "/a", "a/", "a\\b", "a\u001fb", "a\u0000b", "%2e%2e", "a%2Fb", "x" * 300):
        refused(server.ask("POST", tables, {"name": name, "schema": SCHEMA}), 400, "BadRequestException")
        refused(server.ask("POST", "/v1/namespaces", {"namespace": ["a", name]}), 400, "BadRequestException")
    refused(server.ask("POST", "/v1/namespaces", {"namespace": []}), 400, "BadRequestException")
    for path in ("/v1/namespaces/..%2Fetc", "/v1/namespaces/%00", "/v1/namespaces/a%1F%1Fb", "/v1/namespaces/%ff"):
        refused(server.ask("GET", path), 400, "BadRequestException")
    odd_names(server)
    made = make(server, "here")
    for location in ("file:///etc/icefield", "/tmp", root, f"{root}/../x", f"{root}/a/..", f"{root}/%2e%2e/x", f"{root}x/y",
                     "s3://bucket/x", "", "nonsense", made["metadata"]["location"], made["metadata"]["location"] + "/in",
                     f"{root}/raw"):
        answer = server.ask("POST", tables, {"name": "there", "schema": SCHEMA, "location": location})
        if location == "":
            assert answer[0] == 200 and server.ask("DELETE", tables + "/there")[0] == 204
            continue
        refused(answer, 400, "BadRequestException")
        moved = {"requirements": [], "updates": [{"action": "set-location", "location": location}]}
        if location != made["metadata"]["location"]:
            if not location.endswith(("/in", "/raw")):
                refused(server.ask("POST", tables + "/here", moved), 400, "BadRequestException")
        moved = {"requirements": [], "updates": [{"action": "set-properties", "updates": {"write.data.path": "/etc/x"}}]}
        refused(server.ask("POST", tables + "/here", moved), 400, "BadRequestException")
    assert server.ask("POST", tables, {"name": "there", "schema": SCHEMA, "location": f"{root}/elsewhere"})[0] == 200
    assert server.ask("POST", "/v1/namespaces", {"namespace": ["raw", "here"]})[0] == 200, "called as a table is"
    status, body, _ = server.ask("POST", "/v1/namespaces/raw%1Fhere/tables", {"name": "t", "schema": SCHEMA})
    assert status == 200 and not body["metadata"]["location"].startswith(made["metadata"]["location"] + "/"), body
    Path(root.removeprefix("file://"), "text.json").write_text("no metadata")
    for location, status in (("/etc/passwd", 400), (f"{root}/nothing.json", None), (f"{root}/text.json", 400)):
        code, body, _ = server.ask("POST", "/v1/namespaces/raw/register", {"name": "r", "metadata-location": location})
        assert code == status or (status is None and 400 <= code < 500), (location, body)
    last = made["metadata-location"]
    cleaned = "/v1/namespaces/cleaned/tables"
    body = {"name": "here", "metadata-location": last}
    assert server.ask("POST", "/v1/namespaces/cleaned/register", body)[0] == 200
    refused(server.ask("POST", "/v1/namespaces/cleaned/register", body), 409, "AlreadyExistsException")
    server.ask("POST", cleaned + "/here", set_property("k", "1"))
    assert server.ask("POST", "/v1/namespaces/cleaned/register", {**body, "overwrite": True})[1]["metadata-location"] == last
    again = {"name": "here", "metadata-location": last, "overwrite": True}
    refused(server.ask("POST", "/v1/namespaces/raw/register", again), 403, "ForbiddenException")
    status, body, _ = server.ask("POST", cleaned + "/here/unregister")
    assert status == 200 and body["metadata-location"] == last and body["metadata"]["table-uuid"], body
    refused(server.ask("POST", cleaned + "/here/unregister"), 404, "NoSuchTableException")


def odd_names(server):
    """Dots and slashes within names, and blanks as Java's client writes them: all lead where they say, and nowhere else."""
    java = {"X-Client-Version": "Apache Iceberg 1.11.0 (commit 0)"}
    for name, path in (("a.b", "a.b"), ("a/b", "a%2Fb"), ("a b", "a+b"), ("a+b", "a%2Bb")):
        assert server.ask("POST", "/v1/namespaces", {"namespace": [name]})[0] == 200, name
        assert server.ask("GET", f"/v1/namespaces/{path}", headers=java)[1]["namespace"] == [name], name
        assert [name] in server.ask("GET", "/v1/namespaces")[1]["namespaces"], name
        tables = f"/v1/namespaces/{path}/tables"
        status, body, _ = server.ask("POST", tables, {"name": name, "schema": SCHEMA}, java)
        assert status == 200, body
        assert server.ask("GET", f"{tables}/{path}", headers=java)[1]["metadata"]["table-uuid"] == body["metadata"]["table-uuid"]
        assert server.ask("GET", tables, headers=java)[1]["identifiers"] == [{"namespace": [name], "name": name}], name
        assert server.ask("POST", f"{tables}/{path}", {"identifier": {"namespace": [name], "name": name}, "requirements": [],
                                                       "updates": []}, java)[0] == 200, name
    assert server.ask("GET", "/v1/namespaces/a+b")[1]["namespace"] == ["a+b"], "other clients mean a plus"
    refused(server.ask("GET", "/v1/namespaces/a%1Fb"), 404, "NoSuchNamespaceException")
    assert server.ask("DELETE", "/v1/namespaces/a.b/tables/a.b")[0] == 204
    refused(server.ask("GET", "/v1/namespaces/a.b/tables/a.b"), 404, "NoSuchTableException")
    # Spark's client reads metadata columns itself; its tables of version 1 lose a partition field by making it void.
    spec = {"spec-id": 0, "fields": [{"source-id": 1, "field-id": 1000, "name": "id", "transform": "identity"}]}
    made = server.ask("POST", "/v1/namespaces/a%2Bb/tables", {"name": "v1", "schema": SCHEMA, "partition-spec": spec,
                                                              "properties": {"format-version": "1"}})
    assert made[0] == 200, made
    table = "/v1/namespaces/a%2Bb/tables/v1"
    void = {"spec-id": 1, "fields": [{"source-id": 1, "field-id": 1000, "name": "id", "transform": "void"}]}
    status, body, _ = server.ask("POST", table, {"requirements": [], "updates": [
        {"action": "add-spec", "spec": void}, {"action": "set-default-spec", "spec-id": -1}]})
    assert status == 200 and body["metadata"]["partition-spec"][0]["transform"] == "void", body
    assert server.ask("POST", f"{table}/plan", {"select": ["id", "_file", "_pos", "_row_id"]})[0] == 200


def ordered(metadata):
    """With its versions and schemas in order, of which they have none."""
    return {key: sorted(value, key=json.dumps) if isinstance(value, list) else value for key, value in metadata.items()}


def views(server):
    made = make(server, "taken")
    path = "/v1/namespaces/raw/views"
    version = {"version-id": 1, "timestamp-ms": 1573518431292, "schema-id": 0, "summary": {"engine-name": "test"},
               "default-namespace": ["raw"],
               "representations": [{"type": "sql", "sql": "SELECT 1 AS id", "dialect": "spark"}]}
    view = {"name": "v", "schema": SCHEMA, "view-version": version, "properties": {"comment": "one"}}
    key = {"Idempotency-Key": str(uuid.uuid4())}
    status, body, _ = server.ask("POST", path, view, key)
    assert status == 200 and body["metadata"]["properties"] == {"comment": "one"}, body
    assert server.ask("POST", path, view, key)[1]["metadata"]["view-uuid"] == body["metadata"]["view-uuid"]
    first = body
    refused(server.ask("POST", path, view), 409, "AlreadyExistsException")
    refused(server.ask("POST", path, {**view, "name": "taken"}), 409, "AlreadyExistsException")
    refused(server.ask("POST", "/v1/namespaces/raw/tables", {"name": "v", "schema": SCHEMA}), 409, "AlreadyExistsException")
    refused(server.ask("POST", "/v1/namespaces/nowhere/views", view), 404, "NoSuchNamespaceException")
    for wrong in ({**view, "name": "a\\b"}, {**view, "name": "x", "location": "/etc"}, {"name": "x"},
                  {**view, "name": "x", "location": made["metadata"]["location"]},
                  {**view, "name": "x", "properties": {"write.metadata.path": "/etc"}}):
        refused(server.ask("POST", path, wrong), 400, "BadRequestException")
    twice = {**view, "name": "x", "view-version": {**version, "representations": [version["representations"][0]] * 2}}
    refused(server.ask("POST", path, twice), 400, "IllegalArgumentException")
    assert [it["name"] for it in server.ask("GET", path)[1]["identifiers"]] == ["v"]
    assert "v" not in [it["name"] for it in server.ask("GET", "/v1/namespaces/raw/tables")[1]["identifiers"]]
    assert server.ask("GET", path + "/v")[1]["metadata"] == first["metadata"]
    assert server.ask("HEAD", path + "/v")[0] == 204 and server.ask("HEAD", path + "/w")[0] == 404
    refused(server.ask("GET", path + "/taken"), 404, "NoSuchViewException")
    refused(server.ask("GET", "/v1/namespaces/raw/tables/v"), 404, "NoSuchTableException")

    wide = {"type": "struct", "fields": [*SCHEMA["fields"], {"id": 2, "name": "n", "required": False, "type": "string"}]}
    change = {"requirements": [{"type": "assert-view-uuid", "uuid": first["metadata"]["view-uuid"]}], "updates": [
        {"action": "add-schema", "schema": wide}, {"action": "set-properties", "updates": {"comment": "two"}},
        {"action": "add-view-version", "view-version": {**version, "version-id": 2, "schema-id": -1, "representations": [
            {"type": "sql", "sql": "SELECT 1 AS id, 'a' AS n", "dialect": "spark"}]}},
        {"action": "set-current-view-version", "view-version-id": -1}]}
    status, body, _ = server.ask("POST", path + "/v", change)
    metadata = body["metadata"]
    assert status == 200 and metadata["current-version-id"] == 2 and len(metadata["versions"]) == 2, body
    assert metadata["properties"] == {"comment": "two"} and len(metadata["schemas"]) == 2, metadata
    assert body["metadata-location"] != first["metadata-location"]
    other = {"requirements": [{"type": "assert-view-uuid", "uuid": str(uuid.uuid4())}], "updates": []}
    refused(server.ask("POST", path + "/v", other), 409, "CommitFailedException")
    for wrong in ({"updates": [{"action": "add-snapshot"}]}, {}, {"requirements": [{"type": "assert-create"}], "updates": []},
                  {"updates": [{"action": "set-current-view-version", "view-version-id": 99}]}):
        refused(server.ask("POST", path + "/v", wrong), 400, "BadRequestException")

    name = lambda it: {"namespace": ["cleaned"] if it == "w" else ["raw"], "name": it}  # noqa: E731
    rename = lambda a, b: server.ask("POST", "/v1/views/rename", {"source": name(a), "destination": name(b)})  # noqa: E731
    refused(rename("v", "taken"), 409, "AlreadyExistsException")
    refused(rename("nothing", "x"), 404, "NoSuchViewException")
    assert rename("v", "w")[0] == 204
    assert ordered(server.ask("GET", "/v1/namespaces/cleaned/views/w")[1]["metadata"]) == ordered(metadata)
    refused(server.ask("DELETE", path + "/v"), 404, "NoSuchViewException")
    assert server.ask("DELETE", "/v1/namespaces/cleaned/views/w")[0] == 204
    again = {"name": "v", "metadata-location": body["metadata-location"]}
    assert ordered(server.ask("POST", "/v1/namespaces/raw/register-view", again)[1]["metadata"]) == ordered(metadata)
    refused(server.ask("POST", "/v1/namespaces/raw/register-view", again), 409, "AlreadyExistsException")
    again = {"name": "u", "metadata-location": made["metadata-location"]}
    refused(server.ask("POST", "/v1/namespaces/raw/register-view", again), 400, "BadRequestException")


def reports(server):
    make(server, "told")
    path = "/v1/namespaces/raw/tables/told/metrics"
    report = {"report-type": "scan-report", "table-name": "told", "snapshot-id": 1, "filter": True, "schema-id": 0,
              "projected-field-ids": [1], "projected-field-names": ["id"], "metrics": {}}
    assert server.ask("POST", path, report)[0] == 204
    refused(server.ask("POST", path, {}), 400, "BadRequestException")
    refused(server.ask("POST", path.replace("told", "untold"), report), 404, "NoSuchTableException")
    kept = server.sql("SELECT table_name, report FROM system.metrics_reports")
    assert len(kept) == 1 and kept[0]["table_name"] == "raw.told" and "scan-report" in json.dumps(kept[0]["report"]), kept
    assert server.ask("GET", "/v1/namespaces/raw/tables/told/credentials")[1] == {"storage-credentials": []}
    assert server.ask("GET", "/v1/namespaces/raw/functions")[1]["identifiers"] == []
    refused(server.ask("GET", "/v1/namespaces/nowhere/functions"), 404, "NoSuchNamespaceException")


def main():
    with serving(*sys.argv[1:]) as server:
        for part in (config, pages, etags, keys, commits, races, places, views, reports):
            part(server)


if __name__ == "__main__":
    main()
