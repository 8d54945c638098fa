"""DuckDB on the REST catalog: `rest_duckdb.py ICEFIELD`."""
import sys

from read_duckdb import connect
from rest_server import serving


def main():
    works(None)
    works(["CREATE PRINCIPAL duck", "GRANT owner ON CATALOG TO duck"])


def works(principal):
    """All of it, as nobody in particular or, with OAuth2, as a principal."""
    with serving(sys.argv[1], before=principal or []) as server:
        db = connect("httpfs")
        if principal:
            secret = server.said[0][0]["client_secret"]
            db.execute(f"CREATE SECRET duck (TYPE iceberg, CLIENT_ID 'duck', CLIENT_SECRET '{secret}', OAUTH2_SCOPE 'catalog', "
                       f"OAUTH2_SERVER_URI '{server.url}/v1/oauth/tokens')")
            db.execute(f"ATTACH 'lake' AS lake (TYPE iceberg, ENDPOINT '{server.url}', SECRET duck)")
        else:
            db.execute(f"ATTACH 'lake' AS lake (TYPE iceberg, ENDPOINT '{server.url}', AUTHORIZATION_TYPE 'none')")
        db.execute("CREATE SCHEMA lake.duck")
        db.execute("CREATE TABLE lake.duck.t (id BIGINT, name VARCHAR, moment TIMESTAMP, price DECIMAL(10, 2))")
        db.execute("INSERT INTO lake.duck.t VALUES (1, 'a', TIMESTAMP '2026-01-01 00:00:00', 1.25), (2, 'b', NULL, NULL)")
        db.execute("INSERT INTO lake.duck.t SELECT i, 'n' || i, NULL, i FROM range(10, 20) r(i)")
        assert db.execute("SELECT count(*), sum(id) FROM lake.duck.t").fetchone() == (12, 148)
        assert server.sql("SELECT count(*) AS n, sum(id) AS s FROM duck.t") == [{"n": 12, "s": 148}]
        db.execute("DELETE FROM lake.duck.t WHERE id >= 15")
        db.execute("UPDATE lake.duck.t SET name = 'changed' WHERE id = 2")
        assert server.sql("SELECT name FROM duck.t WHERE id = 2") == [{"name": "changed"}]
        assert server.sql("SELECT count(*) AS n FROM duck.t") == [{"n": 7}]
        db.execute("BEGIN")
        db.execute("INSERT INTO lake.duck.t VALUES (100, 'in', NULL, NULL)")
        db.execute("DELETE FROM lake.duck.t WHERE id = 1")
        assert server.sql("SELECT count(*) AS n FROM duck.t") == [{"n": 7}]
        db.execute("COMMIT")
        assert server.sql("SELECT sum(id) AS s FROM duck.t") == [{"s": 162}]
        db.execute("BEGIN")
        db.execute("INSERT INTO lake.duck.t VALUES (1000, 'out', NULL, NULL)")
        db.execute("ROLLBACK")
        assert server.sql("SELECT sum(id) AS s FROM duck.t") == [{"s": 162}]
        server.sql("INSERT INTO duck.t VALUES (7, 'ours', NULL, 7.5)")
        server.sql("DELETE FROM duck.t WHERE id = 100")
        assert db.execute("SELECT sum(id) FROM lake.duck.t").fetchone() == (69,)
        db.execute("CREATE TABLE lake.duck.made AS SELECT i AS id, 'x' AS v FROM range(5) r(i)")
        assert server.sql("SELECT count(*) AS n FROM duck.made") == [{"n": 5}]
        db.execute("DROP TABLE lake.duck.made")
        assert ("made",) not in db.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'duck'").fetchall()


if __name__ == "__main__":
    main()
