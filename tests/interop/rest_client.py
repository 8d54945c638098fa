"""Icefield as a client of the REST protocol: `rest_client.py ICEFIELD`.

The shell, ingest and upkeep do behind a server what they do on the catalog's database, for a principal who may, and not for
one who may not. The database has the truth.
"""
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rest_server import serving


def main():
    binary = sys.argv[1]
    before = ["CREATE PRINCIPAL job", "GRANT owner ON CATALOG TO job", "CREATE PRINCIPAL guest", "GRANT reader ON CATALOG TO guest", "CREATE PRINCIPAL loader"]
    with serving(binary, before=before) as server, tempfile.TemporaryDirectory() as folder:
        def run(*arguments, who=("job", server.said[0]), code=0):
            credential = f"{who[0]}:{who[1][0]['client_secret']}"
            done = subprocess.run([binary, *arguments, "--catalog", server.url], cwd=folder, capture_output=True, text=True,
                                  env={**os.environ, "ICEFIELD_CREDENTIAL": credential})
            assert done.returncode == code, (arguments, done.stdout, done.stderr)
            assert who[1][0]["client_secret"] not in done.stdout + done.stderr
            return done.stdout if code == 0 else done.stderr
        guest = {"who": ("guest", server.said[2])}
        sql = lambda text, **more: run("sql", "-c", text, **more)  # noqa: E731
        rows = lambda text, **more: json.loads(run("sql", "--format", "json", "-c", text, **more))  # noqa: E731
        sql("CREATE TABLE cleaned.o (id BIGINT, v TEXT) PARTITIONED BY (bucket(4, id))")
        sql("INSERT INTO cleaned.o SELECT v, 'x' FROM range(0, 1000) t(v)")
        sql("CREATE TABLE cleaned.p TBLPROPERTIES ('format-version' = '3') AS SELECT * FROM cleaned.o WHERE id < 10")
        sql("UPDATE cleaned.o SET v = 'u' WHERE id % 10 = 0; DELETE FROM cleaned.o WHERE id >= 500")
        sql("MERGE INTO cleaned.p t USING cleaned.o s ON t.id = s.id WHEN MATCHED THEN UPDATE SET v = 'm' WHEN NOT MATCHED THEN INSERT *")
        sql("BEGIN; INSERT INTO cleaned.o VALUES (5000, 'a'); DELETE FROM cleaned.p WHERE id = 1; COMMIT")
        sql("ALTER TABLE cleaned.p ADD COLUMN c INT; CREATE TABLE cleaned.q (id INT); ALTER TABLE cleaned.q RENAME TO cleaned.r; DROP TABLE cleaned.r")
        (Path(folder) / "f.csv").write_text("id,v\n1,a\n2,b\n")
        assert "2 rows" in run("ingest", "f.csv", "--into", "raw.f")
        assert "loaded before" in run("ingest", "f.csv", "--into", "raw.f"), "exactly once"
        loader = {"who": ("loader", server.said[4])}
        server.sql("GRANT writer ON raw.f TO loader")
        (Path(folder) / "g.csv").write_text("id,v\n3,c\n")
        assert "1 row" in run("ingest", "g.csv", "--into", "raw.f", **loader), "who writes rows can load files"
        server.sql("GRANT owner ON cleaned.o TO loader")
        expire = "CALL lake.system.expire_snapshots(table => 'cleaned.o', older_than => now(), retain_last => 1)"
        assert "only by who sees all tables" in sql(expire, code=1, **loader)
        run("compact", "cleaned.o", "-o", "rewrite-all=true")
        sql("CALL lake.system.expire_snapshots(table => 'cleaned.o', older_than => now(), retain_last => 1)")
        run("maintain")
        run("health")
        counts = "SELECT (SELECT count(*) FROM cleaned.o) AS o, (SELECT count(*) FROM cleaned.p) AS p, (SELECT count(*) FROM raw.f) AS f"
        assert rows(counts) == server.sql(counts) == [{"o": 501, "p": 499, "f": 3}], rows(counts)
        assert rows(counts, **guest) == rows(counts)
        assert [it["table"] for it in rows("SHOW TABLES")] == ["o", "p", "f"]
        for text in ("INSERT INTO raw.f VALUES (3, 'c')", "DROP TABLE raw.f", "CREATE TABLE raw.g (id INT)", "CREATE NAMESPACE x",
                     "DELETE FROM cleaned.p", "ALTER TABLE raw.f SET TBLPROPERTIES ('a' = 'b')"):
            error = sql(text, code=1, **guest)
            assert "would have to be" in error, (text, error)
        assert rows(counts) == [{"o": 501, "p": 499, "f": 3}], "nothing was done"
        wrong = ("job", [{"client_secret": "guess"}])
        assert "gives no token" in sql("SELECT 1 FROM raw.f", who=wrong, code=1)
        assert "keeps no principals" in sql("CREATE PRINCIPAL eve", code=1)
        said = server.sql("SELECT DISTINCT principal FROM system.audit_log WHERE action = 'commit'")
        assert sorted(it["principal"] for it in said) == ["job", "loader"], said
        # Types of version 3 by way of the protocol, which has them as the specification writes them.
        sql("CREATE TABLE cleaned.v3 (id BIGINT, v VARIANT, g GEOMETRY('srid:3857'), u UNKNOWN) TBLPROPERTIES ('format-version' = '3')")
        sql("INSERT INTO cleaned.v3 (id, v, g) SELECT 1, parse_json('{\"a\": [1]}'), st_point(1, 2)")
        sql("ALTER TABLE cleaned.v3 ADD COLUMN more VARIANT; ALTER TABLE cleaned.v3 ALTER COLUMN u TYPE DATE")
        sql("UPDATE cleaned.v3 SET more = parse_json('2') WHERE id = 1")
        read = "SELECT id, to_json(v) AS v, st_astext(g) AS g, u, to_json(more) AS more FROM cleaned.v3"
        assert rows(read) == server.sql(read) == [{"id": 1, "v": '{"a":[1]}', "g": "POINT(1 2)", "u": None, "more": "2"}], rows(read)
        for columns in ("v VARIANT", "g GEOMETRY"):
            assert "needs a table of format v3" in sql(f"CREATE TABLE cleaned.bad ({columns})", code=1)
        url, server.url = server.url, "http://127.0.0.1:9"
        assert "does not answer" in sql("SELECT 1 FROM raw.f", code=3)
        server.url = "http://ada:secret@127.0.0.1:9"
        error = sql("SELECT 1 FROM raw.f", code=1)
        assert "holds a credential" in error and "secret@" not in error, error
        server.url = url


main()
