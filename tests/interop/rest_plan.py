"""Scan planning by the server: `rest_plan.py ICEFIELD`.

PyIceberg reads tables by plans of the server and by plans of its own: both find the same rows, whatever the filter.
"""
import sys

from pyiceberg.catalog import load_catalog

from rest_server import serving

FILTERS = [
    "id = 17", "id > 900", "id <= 100 and kind = 'b'", "not (id > 50)", "kind in ('a', 'c')", "kind not in ('a', 'c')",
    "name like 'n9%'", "name not like 'n9%'", "name is null", "name is not null", "day >= '2026-03-01'", "amount < '1.50'",
    "amount = '100.25'", "at < '2026-01-02T00:00:00+00:00'", "ok = true", "ratio > 0.5 or id = 3", "id = 17 and id = 18",
    "id != 17", "not (kind = 'a')", "ratio is nan", "id < 100 and not (name is null)",
]
MAKE = """
CREATE TABLE cleaned.{name} (id BIGINT, kind TEXT, name TEXT, day DATE, at TIMESTAMPTZ, amount DECIMAL(10, 2), ratio DOUBLE,
  ok BOOLEAN) PARTITIONED BY (kind, bucket(4, id)) TBLPROPERTIES ('format-version' = '{version}',
  'write.delete.mode' = 'merge-on-read')
"""
FILL = """
INSERT INTO cleaned.{name} SELECT v, CASE v % 3 WHEN 0 THEN 'a' WHEN 1 THEN 'b' ELSE 'c' END,
  CASE WHEN v % 7 = 0 THEN NULL ELSE 'n' || v END, DATE '2026-01-01' + CAST(v / 10 AS INT),
  TIMESTAMP '2026-01-01T00:00:00Z' + v * INTERVAL '1' HOUR, CAST(v AS DECIMAL(10, 2)) + 0.25,
  CASE WHEN v % 11 = 0 THEN CAST('NaN' AS DOUBLE) ELSE v / 1000.0 END, v % 2 = 0 FROM range({start}, {stop}) t(v)
"""


def rows(table, **scan):
    return sorted(map(repr, table.scan(**scan).to_arrow().to_pylist()))


def agrees(server, name, version):
    server.sql(MAKE.format(name=name, version=version))
    for start in (0, 400, 800):
        server.sql(FILL.format(name=name, start=start, stop=start + 400))
    server.sql(f"DELETE FROM cleaned.{name} WHERE id % 10 = 7 AND id < 600")
    own = load_catalog("own", type="rest", uri=server.url).load_table(f"cleaned.{name}")
    planned = load_catalog("planned", type="rest", uri=server.url, **{"scan-planning-mode": "server"}).load_table(f"cleaned.{name}")
    all_files = len(list(planned.scan().plan_files()))
    assert rows(own) == rows(planned) and len(rows(own)) == 1200 - 60, len(rows(own))
    fewer = 0
    for text in FILTERS:
        scan = {"row_filter": text}
        assert rows(own, **scan) == rows(planned, **scan), (name, text)
        files = len(list(planned.scan(**scan).plan_files()))
        least = len(list(own.scan(**scan).plan_files()))
        assert least <= files <= all_files or least > files, (text, files, least)
        fewer += files < all_files
    assert fewer > len(FILTERS) / 2, "filters leave files out"
    old = own.snapshots()[0].snapshot_id
    assert rows(own, snapshot_id=old) == rows(planned, snapshot_id=old)
    return all_files


def over_http(server):
    """What PyIceberg does not ask for: statistics, increments, many files, plans by their ids, and nonsense."""
    path = "/v1/namespaces/cleaned/tables/two"
    plan = lambda **body: server.ask("POST", path + "/plan", body)  # noqa: E731
    status, body, _ = plan(**{"filter": {"type": "eq", "term": "id", "value": 17}, "stats-fields": ["id"]})
    assert status == 200 and body["status"] == "completed" and body["file-scan-tasks"], body
    file = body["file-scan-tasks"][0]["data-file"]
    assert file["content"] == "data" and file["file-format"] == "parquet" and len(file["partition"]) == 2, file
    assert file["lower-bounds"]["keys"] == [1] and file["lower-bounds"]["values"][0] <= 17 <= file["upper-bounds"]["values"][0]
    assert body["delete-files"][0]["content"] == "position-deletes", body["delete-files"]
    assert body["file-scan-tasks"][0]["residual-filter"]["value"] == 17
    status, again, _ = server.ask("GET", f"{path}/plan/{body['plan-id']}")
    assert status == 200 and again["status"] == "completed" and again["file-scan-tasks"] == body["file-scan-tasks"], again
    assert server.ask("DELETE", f"{path}/plan/{body['plan-id']}")[0] == 204
    for wrong, code in (("nothing", 404), ("e30", 404)):
        status, refused, _ = server.ask("GET", f"{path}/plan/{wrong}")
        assert status == code and refused["error"]["type"] == "NoSuchPlanIdException", refused
    status, refused, _ = server.ask("POST", path + "/tasks", {"plan-task": "nothing"})
    assert status == 404 and refused["error"]["type"] == "NoSuchPlanTaskException", refused
    status, refused, _ = server.ask("GET", f"/v1/namespaces/cleaned/tables/three/plan/{body['plan-id']}")
    assert status == 404, "a plan of another table"
    snapshots = [it["snapshot_id"] for it in server.sql("SELECT snapshot_id FROM cleaned.two.snapshots ORDER BY committed_at")]
    status, body, _ = plan(**{"start-snapshot-id": snapshots[0], "end-snapshot-id": snapshots[-1]})
    added = sum(it["data-file"]["record-count"] for it in body["file-scan-tasks"])
    assert status == 200 and added == 800, (added, "two appends, and not the delete")
    for wrong in ({"snapshot-id": 1}, {"start-snapshot-id": snapshots[0]}, {"select": ["nothing"]}, {"filter": {"type": "so"}},
                  {"filter": {"type": "eq", "term": "nothing", "value": 1}}, {"filter": 3},
                  {"start-snapshot-id": snapshots[-1], "end-snapshot-id": snapshots[0]}):
        status, refused, _ = plan(**wrong)
        assert status == 400 and refused["error"]["message"], (wrong, status, refused)
    assert server.ask("POST", "/v1/namespaces/cleaned/tables/nothing/plan", {})[0] == 404


def many(server):
    server.sql("CREATE TABLE cleaned.many (id BIGINT) PARTITIONED BY (id)")
    server.sql("INSERT INTO cleaned.many SELECT * FROM range(0, 2500) t(v)")
    path = "/v1/namespaces/cleaned/tables/many"
    status, body, _ = server.ask("POST", path + "/plan", {})
    assert status == 200 and len(body["plan-tasks"]) == 2 and "file-scan-tasks" not in body, body
    paths = set()
    for task in body["plan-tasks"]:
        status, part, _ = server.ask("POST", path + "/tasks", {"plan-task": task})
        assert status == 200, part
        paths |= {it["data-file"]["file-path"] for it in part["file-scan-tasks"]}
    assert len(paths) == server.sql("SELECT count(*) AS n FROM cleaned.many")[0]["n"], len(paths)
    planned = load_catalog("planned", type="rest", uri=server.url, **{"scan-planning-mode": "server"}).load_table("cleaned.many")
    assert len(list(planned.scan().plan_files())) == len(paths)


def main():
    binary, *arguments = sys.argv[1:]
    with serving(binary, *arguments) as server:
        agrees(server, "two", 2)
        agrees(server, "three", 3)
        over_http(server)
        many(server)


main()
