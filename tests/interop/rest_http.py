"""The REST catalog as its specification has it, asked in plain HTTP: `rest_http.py ICEFIELD`."""
import json
import sys
import threading
import uuid

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
    assert server.ask("GET", "/v1/lake/namespaces/raw")[0] == 200, "the catalog's name as prefix"


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
    refused(server.ask("POST", "/v1/namespaces/raw/tables", {"name": "other", "schema": SCHEMA}, key), 422,
            "UnprocessableEntityException")
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
    for name in ("", ".", "..", "a/b", "a\\b", "a\u001fb", "a\u0000b", "a.b", "x" * 300):
        refused(server.ask("POST", tables, {"name": name, "schema": SCHEMA}), 400, "BadRequestException")
        refused(server.ask("POST", "/v1/namespaces", {"namespace": ["a", name]}), 400, "BadRequestException")
    refused(server.ask("POST", "/v1/namespaces", {"namespace": []}), 400, "BadRequestException")
    for path in ("/v1/namespaces/..%2Fetc", "/v1/namespaces/%00", "/v1/namespaces/a%1F%1Fb", "/v1/namespaces/%ff"):
        refused(server.ask("GET", path), 400, "BadRequestException")
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
    for location, status in (("/etc/passwd", 400), (f"{root}/nothing.json", None), (f"{root}/catalog.db", 400)):
        code, body, _ = server.ask("POST", "/v1/namespaces/raw/register", {"name": "r", "metadata-location": location})
        assert code == status or (status is None and 400 <= code < 500), (location, body)
    last = made["metadata-location"]
    body = {"name": "here", "metadata-location": last}
    refused(server.ask("POST", "/v1/namespaces/raw/register", body), 409, "AlreadyExistsException")
    server.ask("POST", tables + "/here", set_property("k", "1"))
    assert server.ask("POST", "/v1/namespaces/raw/register", {**body, "overwrite": True})[1]["metadata-location"] == last
    status, body, _ = server.ask("POST", tables + "/here/unregister")
    assert status == 200 and body["metadata-location"] == last and body["metadata"]["table-uuid"], body
    refused(server.ask("POST", tables + "/here/unregister"), 404, "NoSuchTableException")


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
    with serving(sys.argv[1]) as server:
        for part in (config, pages, etags, keys, commits, races, places, reports):
            part(server)


if __name__ == "__main__":
    main()
