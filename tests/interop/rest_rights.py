"""Who comes in and what they may: `rest_rights.py ICEFIELD [ARGUMENT …]`.

Every route is asked by principals of every role on every kind of object, and answered exactly as a model of the rights
has it, written here once more and without looking at the server's.
"""
import sys
import time
import urllib.parse

import pyarrow as pa
from pyiceberg.catalog import load_catalog
from pyiceberg.exceptions import ForbiddenError, UnauthorizedError
from pyiceberg.schema import Schema
from pyiceberg.types import LongType, NestedField

from rest_server import serving

ROLES = ["reader", "writer", "owner", "administrator"]
SCHEMA = {"type": "struct", "fields": [{"id": 1, "name": "id", "required": False, "type": "long"}]}

CATALOG, RAW, WEB, CLEANED = (), ("raw",), ("raw", "web"), ("cleaned",)
T, DEEP, O = ("raw", "t", "."), ("raw", "web", "deep", "."), ("cleaned", "o", ".")  # the dot says: a table
OBJECTS = {"CATALOG": CATALOG, "NAMESPACE raw": RAW, "NAMESPACE raw.web": WEB, "TABLE raw.t": T, "raw.web.deep": DEEP}


def covers(one, other):
    """Whether what holds for one holds for the other."""
    return one == other or (one[-1:] != (".",) and other[: len(one)] == one)


def path_of(target, kind="tables"):
    space = urllib.parse.quote("\x1f".join(target[:-2]))
    return f"/v1/namespaces/{space}/{kind}/{target[-2]}"


def body_of(target):
    return {"namespace": list(target[:-2]), "name": target[-2]}


def routes():
    """Verb, path, body, and what it takes: each a role on an object, or `sees` and an object."""
    for space in (RAW, WEB, CLEANED):
        url = "/v1/namespaces/" + urllib.parse.quote("\x1f".join(space))
        for verb in ("GET", "HEAD"):
            yield verb, url, None, [("sees", space)]
        yield "DELETE", url, None, [("owner", space)]
        yield "POST", url + "/properties", {"updates": {}}, [("owner", space)]
        yield "GET", url + "/tables", None, [("sees", space)]
        yield "GET", url + "/views", None, [("sees", space)]
        yield "GET", url + "/functions", None, [("sees", space)]
        yield "GET", url + "/functions/f", None, [("sees", space)]
        yield "GET", "/v1/namespaces?parent=" + urllib.parse.quote("\x1f".join(space)), None, [("sees", space)]
        yield "POST", url + "/tables", {"name": "new", "schema": SCHEMA}, [("writer", space)]
        yield "POST", url + "/views", {"name": "new"}, [("writer", space)]
        yield "POST", url + "/register", {"name": "n", "metadata-location": "x"}, [("administrator", CATALOG)]
        yield "POST", url + "/register-view", {"name": "n", "metadata-location": "x"}, [("administrator", CATALOG)]
        yield "POST", "/v1/namespaces", {"namespace": [*space, "below"]}, [("owner", space)]
    yield "POST", "/v1/namespaces", {"namespace": ["beside"]}, [("owner", CATALOG)]
    yield "GET", "/v1/namespaces", None, []
    yield "GET", "/v1/config", None, []
    yield "GET", "/metrics", None, [("reader", CATALOG)]
    for target in (T, DEEP, O):
        url = path_of(target)
        for verb, path in (("GET", url), ("HEAD", url), ("GET", url + "/credentials")):
            yield verb, path, None, [("reader", target)]
        for verb, role in (("GET", "reader"), ("PUT", "writer"), ("DELETE", "writer")):
            request = {"region": "", "uri": "http://s3.example/b/k", "method": verb, "headers": {}, "provider": "none"}
            yield "POST", url + "/sign", request, [(role, target)]
        yield "POST", url + "/metrics", {"report-type": 1}, [("reader", target)]
        yield "DELETE", url, None, [("owner", target)]
        yield "POST", url + "/unregister", {}, [("owner", target)]
        for action, role in (("add-snapshot", "writer"), ("set-properties", "owner"), ("remove-snapshots", "owner")):
            change = {"requirements": [], "updates": [{"action": action}]}
            yield "POST", url, change, [(role, target)]
            both = {"table-changes": [{"identifier": body_of(target), **change},
                                      {"identifier": body_of(O), "requirements": [], "updates": []}]}
            yield "POST", "/v1/transactions/commit", both, [(role, target), ("writer", O)]
        create = {"requirements": [{"type": "assert-create"}], "updates": [{"action": "set-properties"}]}
        yield "POST", url, create, [("writer", target[:-2])]
        for kind in ("tables", "views"):
            rename = {"source": body_of(target), "destination": {"namespace": ["raw"], "name": "else"}}
            yield "POST", f"/v1/{kind}/rename", rename, [("owner", target), ("writer", RAW)]
        view = path_of(target, "views")
        for verb in ("GET", "HEAD"):
            yield verb, view, None, [("reader", target)]
        yield "DELETE", view, None, [("owner", target)]
        yield "POST", view, {"updates": []}, [("owner", target)]


def allowed(grant, needs):
    if grant is None:
        return not needs
    role, object = grant
    for wanted, target in needs:
        if wanted == "sees":
            if not (covers(object, target) or covers(target, object)):
                return False
        elif not (covers(object, target) and ROLES.index(role) >= ROLES.index(wanted)):
            return False
    return True


def matrix(server, admin):
    """Every role on every object asks every route, with a key that is none, so that nothing is done."""
    grants = {"nobody": None}
    for role in ROLES:
        for number, text in enumerate(OBJECTS):
            grants[f"{role}{number}"] = (role, OBJECTS[text])
            secret = server.sql(f"CREATE PRINCIPAL {role}{number}")[0]["client_secret"]
            server.sql(f"GRANT {role} ON {text} TO {role}{number}")
            grants[f"{role}{number}"] += (secret,)
    secret = server.sql("CREATE PRINCIPAL nobody")[0]["client_secret"]
    asked = 0
    all_routes = list(routes())
    seen = {verb + " " + path for verb, path, *_ in all_routes}
    assert len(seen) > 60, len(seen)
    for name, grant in grants.items():
        token = server.token(name, grant[2] if grant else secret)
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "none"}
        for verb, path, body, needs in all_routes:
            status = server.ask(verb, path, body, headers)[0]
            wanted = allowed(grant[:2] if grant else None, needs)
            assert (status != 403) == wanted and status not in (401, 500), (name, verb, path, body, status, wanted)
            asked += 1
    for verb, path, body, _ in all_routes:
        assert server.ask(verb, path, body)[0] == 401, (verb, path)
        assert server.ask(verb, path, body, {"Authorization": "Bearer guessed"})[0] in (401, 429), (verb, path)
    print(f"{asked} requests were answered as they had to be")


def lists(server, admin):
    """Who sees a part is shown that part."""
    auth = {"Authorization": "Bearer " + server.token("ada", server.ada)}
    server.sql("GRANT reader ON raw.web.deep TO ada")
    assert server.ask("GET", "/v1/namespaces", headers=auth)[1]["namespaces"] == [["raw"]]
    assert server.ask("GET", "/v1/namespaces?parent=raw", headers=auth)[1]["namespaces"] == [["raw", "web"]]
    assert server.ask("GET", "/v1/namespaces/raw/tables", headers=auth)[1]["identifiers"] == []
    found = server.ask("GET", "/v1/namespaces/raw%1Fweb/tables", headers=auth)[1]["identifiers"]
    assert [it["name"] for it in found] == ["deep"], found
    server.sql("REVOKE reader ON raw.web.deep FROM ada")
    assert server.ask("GET", "/v1/namespaces", headers=auth)[1]["namespaces"] == [], "revoked, at once"


def pyiceberg(server, admin):
    """OAuth2 as PyIceberg does it; what somebody makes is their own."""
    open_as = lambda name, secret: load_catalog(name, type="rest", uri=server.url, credential=f"{name}:{secret}")  # noqa: E731
    ada, root = open_as("ada", server.ada), open_as("root", server.root)
    schema = Schema(NestedField(1, "id", LongType()))
    try:
        ada.create_table("raw.hers", schema)
        raise AssertionError("ada may not make tables yet")
    except ForbiddenError as error:
        assert "would have to be writer of namespace `raw`" in str(error), error
    server.sql("GRANT writer ON NAMESPACE raw TO ada")
    table = ada.create_table("raw.hers", schema)
    table.append(pa.table({"id": pa.array([1, 2], pa.int64())}))
    with table.transaction() as transaction:
        transaction.set_properties(owner="ada")
    theirs = root.create_table("raw.theirs", schema)
    ada.load_table("raw.theirs").append(pa.table({"id": pa.array([3], pa.int64())}))
    for refused in (
        lambda: ada.drop_table("raw.theirs"),
        lambda: ada.load_table("raw.theirs").transaction().set_properties(a="b").commit_transaction(),
        lambda: ada.load_table("cleaned.o"),
    ):
        try:
            refused()
            raise AssertionError("ada may not")
        except ForbiddenError:
            pass
    # The roles on a table follow its name, and go with it.
    ada.rename_table("raw.hers", "raw.renamed")
    assert len(ada.load_table("raw.renamed").scan().to_arrow()) == 2
    ada.drop_table("raw.renamed")
    root.create_table("raw.renamed", schema)
    try:
        ada.drop_table("raw.renamed")
        raise AssertionError("it is another table")
    except ForbiddenError:
        pass
    assert theirs.refresh().scan().to_arrow()["id"].to_pylist() == [3]
    try:
        open_as("ada", "guessed").list_namespaces()
        raise AssertionError("a wrong secret")
    except Exception as error:  # noqa: BLE001
        assert "invalid_client" in str(error) or isinstance(error, UnauthorizedError), error


def tokens(server, admin):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    encode = lambda **it: urllib.parse.urlencode(it).encode()  # noqa: E731
    exchange = "urn:ietf:params:oauth:grant-type:token-exchange"
    status, body, headers = server.ask(
        "POST", "/v1/oauth/tokens", encode(grant_type=exchange, subject_token=admin), form)
    assert status == 200 and body["token_type"] == "bearer" and body["expires_in"] == 3600, body
    assert headers["Cache-Control"] == "no-store"
    auth = {"Authorization": f"Bearer {body['access_token']}"}
    assert server.ask("GET", "/v1/namespaces", headers=auth)[0] == 200
    for wrong, kind in (
        (encode(grant_type="password"), "unsupported_grant_type"),
        (encode(grant_type="client_credentials", client_id="root"), "invalid_request"),
        (encode(grant_type=exchange), "invalid_request"),
        (b"\xff\xfe", "unsupported_grant_type"),
    ):
        status, body, _ = server.ask("POST", "/v1/oauth/tokens", wrong, form)
        assert status == 400 and body["error"] == kind, body
    status, body, _ = server.ask("POST", "/v1/oauth/tokens", encode(grant_type=exchange, subject_token="x"), form)
    assert status == 401 and body["error"] == "invalid_client", body
    # A new secret ends the old one and its tokens; a principal that is gone has none.
    bob = server.sql("CREATE PRINCIPAL bob")[0]["client_secret"]
    token = {"Authorization": f"Bearer {server.token('bob', bob)}"}
    assert server.ask("GET", "/v1/namespaces", headers=token)[0] == 200
    rotated = server.sql("ALTER PRINCIPAL bob ROTATE SECRET")[0]["client_secret"]
    assert server.token("bob", bob) is None and server.ask("GET", "/v1/namespaces", headers=token)[0] == 401
    token = {"Authorization": f"Bearer {server.token('bob', rotated)}"}
    server.sql("DROP PRINCIPAL bob")
    assert server.token("bob", rotated) is None and server.ask("GET", "/v1/namespaces", headers=token)[0] == 401


def audited(server, admin):
    """Who was refused, who came, what was read and changed: all there, and whole."""
    auth = {"Authorization": f"Bearer {admin}", "X-Request-Id": "seen-again"}
    status, _, headers = server.ask("GET", path_of(T), headers=auth)
    assert status == 200 and headers["X-Request-Id"] == "seen-again"
    rows = server.sql("SELECT principal, action, object, outcome, source, request_id FROM system.audit_log")
    has = lambda **wanted: any(all(row[key] == it for key, it in wanted.items()) for row in rows)  # noqa: E731
    assert has(principal="root", action="load table", object="raw.t", source="127.0.0.1", request_id="seen-again")
    assert has(principal="ada", action="create table", object="raw.hers", outcome="done")
    assert has(principal="ada", action="commit", object="raw.hers")
    assert has(principal="ada", action="rename table", object="raw.hers")
    assert has(principal="ada", action="drop table", object="raw.renamed")
    assert has(principal="ada", action="authenticate", outcome="done")
    assert has(principal="anonymous", action="authenticate", object="ada", outcome="denied")
    assert any(it["principal"] == "ada" and it["outcome"] == "denied" and it["object"] == "cleaned.o" for it in rows)
    assert has(action="grant", object="raw", source="this machine") and has(action="revoke", object="raw.web.deep")
    secrets = {server.root, server.ada, admin}
    assert not any(secret in str(rows) for secret in secrets), "no secret is on the log"


def shapes(server, admin):
    """Bodies that a lenient reader could take for something else: arrays in place of objects, and names with dots."""
    secret = server.sql("CREATE PRINCIPAL mallory")[0]["client_secret"]
    auth = {"Authorization": "Bearer " + server.token("mallory", secret)}
    none = {"namespace": ["raw"], "name": "t"}
    update = {"action": "set-properties", "updates": {"a": "b"}}
    for path, body in (
        ("/v1/transactions/commit", [[[none, [], [update]]]]),
        ("/v1/transactions/commit", {"table-changes": [[none, [], [update]]]}),
        ("/v1/transactions/commit", {"table-changes": {"0": 1}}),
        (path_of(T), [None, [], [update]]),
        (path_of(T), {"requirements": [], "updates": [["set-properties", {"a": "b"}]]}),
        ("/v1/tables/rename", [["raw", "t"], ["raw", "u"]]),
    ):
        assert server.ask("POST", path, body, auth)[0] in (400, 403), (path, body)
    server.sql("GRANT writer ON NAMESPACE raw TO mallory")
    fields = {"type": "struct", "fields": [], "schema-id": 0}
    make = [{"action": "upgrade-format-version", "format-version": 2},
            {"action": "add-schema", "schema": fields, "last-column-id": 0},
            {"action": "set-location", "location": server.sql("SHOW CREATE TABLE raw.t")[0]["create_statement"]
             .split("LOCATION '")[1].split("'")[0] + "-beside"}]
    body = {"requirements": [{"type": "assert-create"}], "updates": make}
    assert server.ask("POST", "/v1/namespaces/raw/tables/web.deep", body, auth)[0] == 200
    owned = [it["name"] for it in server.sql("SHOW GRANTS TO mallory") if it["role"] == "owner"]
    assert owned == ["raw.web%2Edeep"], "and not raw.web.deep, which was there"
    snapshot = {"snapshot-id": 7, "sequence-number": 99, "timestamp-ms": 1, "summary": {"operation": "append"},
                "manifest-list": "file:///etc/passwd", "schema-id": 0}
    status, refused, _ = server.ask("POST", path_of(T), {"requirements": [], "updates": [
        {"action": "add-snapshot", "snapshot": snapshot}]}, auth)
    assert status == 400 and "does not lie in the table's folders" in refused["error"]["message"], refused


def guesses(server, admin):
    """Who guesses has to wait."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    guess = b"grant_type=client_credentials&client_id=root&client_secret=guess"
    for _ in range(40):
        status, body, headers = server.ask("POST", "/v1/oauth/tokens", guess, form)
        if status == 429:
            assert int(headers["Retry-After"]) > 0 and body["error"]["code"] == 429, body
            break
    else:
        raise AssertionError("never had to wait")
    auth = {"Authorization": f"Bearer {admin}"}
    assert server.ask("GET", "/v1/namespaces", headers=auth)[0] == 200, "who does not guess goes on"


def main():
    binary, *arguments = sys.argv[1:]
    before = ["CREATE PRINCIPAL root", "GRANT administrator ON CATALOG TO root", "CREATE PRINCIPAL ada",
              "CREATE NAMESPACE raw.web", "CREATE TABLE raw.t (id BIGINT)", "CREATE TABLE raw.web.deep (id BIGINT)",
              "CREATE TABLE cleaned.o (id BIGINT)"]
    with serving(binary, *arguments, before=before) as server:
        server.root, server.ada = server.said[0][0]["client_secret"], server.said[2][0]["client_secret"]
        admin = server.token("root", server.root)
        for part in (lists, pyiceberg, tokens, audited, shapes, matrix, guesses):
            began = time.time()
            part(server, admin)
            print(f"{part.__name__}: {time.time() - began:.1f} s")


main()
