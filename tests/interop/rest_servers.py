"""Several servers of one catalog, killed while clients append, and their database restarted: `rest_servers.py ICEFIELD`.

What was acknowledged is there once; what was not is there at most once. Every append that a race would have refused is
settled by a server, so no client hears of a conflict. The audit log has a line for each, and is whole.
"""
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pyarrow as pa
from pyiceberg.catalog import load_catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.schema import Schema
from pyiceberg.types import LongType, NestedField

from rest_server import Server

SERVERS, WRITERS, KILLS = 3, 6, 8


@contextlib.contextmanager
def database():
    """A PostgreSQL server of its own, and how to restart it."""
    script = str(Path(__file__).parents[2] / "scripts" / "postgres")
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "ICEFIELD_POSTGRES": folder}
        def run(*arguments):
            done = subprocess.run(["bash", script, *arguments], env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            return done.stdout.strip()
        try:
            yield run("fresh"), lambda: (run("stop"), run())
        finally:
            run("stop")


def main():
    binary = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder, database() as (catalog, restart):
        start = lambda: Server(binary, Path(folder) / "warehouse", "--catalog", catalog)  # noqa: E731
        servers = [start() for _ in range(SERVERS)]
        first = load_catalog("first", type="rest", uri=servers[0].url)
        first.create_table("raw.t", Schema(NestedField(1, "id", LongType())))
        acknowledged, asked, conflicts, lost = set(), set(), [], []
        done = threading.Event()

        def write(number):
            for round in range(10**6):
                if done.is_set():
                    return
                id = number * 10**6 + round
                asked.add(id)
                try:
                    own = load_catalog("own", type="rest", uri=random.choice(servers).url)
                    own.load_table("raw.t").append(pa.table({"id": pa.array([id], pa.int64())}))
                    acknowledged.add(id)
                except CommitFailedException as error:
                    conflicts.append(error)
                except Exception as error:  # noqa: BLE001
                    # The server is gone, and with it the answer.
                    lost.append(error)
                    time.sleep(0.05)

        writers = [threading.Thread(target=write, args=(it,)) for it in range(WRITERS)]
        [it.start() for it in writers]
        for kill in range(KILLS):
            time.sleep(1)
            servers[kill % SERVERS].process.kill()
            servers[kill % SERVERS] = start()
            if kill == KILLS // 2:
                restart()
        time.sleep(1)
        done.set()
        [it.join() for it in writers]
        found = [it["id"] for it in servers[0].sql("SELECT id FROM raw.t")]
        verified = subprocess.run([binary, "audit", "verify", "--warehouse", str(Path(folder) / "warehouse"),
                                   "--catalog", catalog, "--format", "json"], capture_output=True, text=True)
        noted = servers[0].sql("SELECT snapshot_after FROM system.audit_log WHERE action = 'commit'")
        snapshots = {it["snapshot_id"] for it in servers[0].sql("SELECT snapshot_id FROM raw.t.snapshots")}
        [it.process.kill() for it in servers]
        print(f"{len(acknowledged)} acknowledged, {len(lost)} answers lost, {len(found)} rows")
        assert not conflicts, conflicts
        assert len(found) == len(set(found)), "nothing is there twice"
        assert acknowledged <= set(found) <= asked, (acknowledged - set(found), set(found) - asked)
        assert len(acknowledged) > 20 and lost, "there was something to lose"
        assert verified.returncode == 0 and json.loads(verified.stdout)["breaks"] == [], verified
        assert sorted(it["snapshot_after"] for it in noted) == sorted(snapshots), "a line for each commit"


if __name__ == "__main__":
    main()
