"""The audit log proves that nobody touched it: `audit.py ICEFIELD`."""
import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

from rest_server import Server

TAMPERED = [
    ("DELETE FROM icefield_audit WHERE chain = 'raw.t' AND seq = 2", "line 2 of chain `raw.t` is missing"),
    ("DELETE FROM icefield_audit WHERE chain = 'raw.t' AND seq = 4", "line 4 of chain `raw.t` is missing"),
    ("DELETE FROM icefield_audit WHERE chain = 'raw.t'", "line 1 of chain `raw.t` is missing, with all that came after"),
    ("UPDATE icefield_audit SET principal = 'eve' WHERE chain = 'raw.t' AND seq = 3", "line 3 of chain `raw.t` was altered"),
    ("UPDATE icefield_audit SET at_ms = at_ms + 1 WHERE chain = '/' AND seq = 1", "line 1 of chain `/` was altered"),
    ("UPDATE icefield_audit SET detail = '{}' WHERE chain = 'raw.t' AND seq = 2", "line 2 of chain `raw.t` was altered"),
    ("UPDATE icefield_audit SET seq = 9 WHERE chain = 'raw.t' AND seq = 4", "line 4 of chain `raw.t` is missing"),
    ("UPDATE icefield_audit SET seq = CASE seq WHEN 2 THEN -3 ELSE -2 END WHERE chain = 'raw.t' AND seq IN (2, 3);"
     "UPDATE icefield_audit SET seq = -seq WHERE seq < 0", "line 2 of chain `raw.t` was altered"),
    ("DELETE FROM icefield_audit_heads WHERE chain = 'raw.t'", "line 4 of chain `raw.t` ends a chain without a head"),
    ("UPDATE icefield_audit_heads SET seq = 3 WHERE chain = 'raw.t'", "line 4 of chain `raw.t` is not the one that ended it"),
]


def main():
    binary = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        whole = folder / "whole"
        for text in ("CREATE PRINCIPAL ada", "GRANT reader ON CATALOG TO ada", "CREATE TABLE raw.t (id BIGINT)",
                     "INSERT INTO raw.t VALUES (1)", "ALTER TABLE raw.t ADD COLUMN b BIGINT", "INSERT INTO raw.t VALUES (2, 3)"):
            Server.run(binary, whole, (), text)

        def verify(warehouse):
            done = subprocess.run([binary, "audit", "verify", "--warehouse", str(warehouse)], capture_output=True, text=True)
            return done.returncode, done.stdout, done.stderr

        code, out, _ = verify(whole)
        assert code == 0 and "the audit log is whole: 6 lines" in out, out
        rows = Server.run(binary, whole, (), "SELECT action, object, snapshot_before, snapshot_after, detail "
                          "FROM system.audit_log WHERE chain = 'raw.t' ORDER BY sequence")
        assert [it["action"] for it in rows] == ["create table", "commit", "commit", "commit"], rows
        assert rows[1]["snapshot_before"] is None and rows[1]["snapshot_after"] == rows[2]["snapshot_before"]
        assert json.loads(rows[1]["detail"])["snapshots"][0]["statement"] == "INSERT INTO raw.t VALUES (1)", rows[1]
        for number, (statements, wanted) in enumerate(TAMPERED):
            copy = folder / f"copy{number}"
            shutil.copytree(whole, copy)
            with sqlite3.connect(copy / "catalog.db") as database:
                database.executescript(statements)
            code, out, error = verify(copy)
            assert code == 1 and out.strip() == wanted, (statements, code, out)
            assert f"the audit log does not hold: {wanted}" in error, error


main()
