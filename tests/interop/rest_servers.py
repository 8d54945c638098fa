"""Several servers of one catalog, killed while clients append: `rest_servers.py ICEFIELD CATALOG_URL`.

What was acknowledged is there once; what was not is there at most once. Every append that a race would have refused is
settled by a server, so no client hears of a conflict.
"""
import random
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


def main():
    binary, catalog = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
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
        time.sleep(1)
        done.set()
        [it.join() for it in writers]
        found = [it["id"] for it in servers[0].sql("SELECT id FROM raw.t")]
        [it.process.kill() for it in servers]
        print(f"{len(acknowledged)} acknowledged, {len(lost)} answers lost, {len(found)} rows")
        assert not conflicts, conflicts
        assert len(found) == len(set(found)), "nothing is there twice"
        assert acknowledged <= set(found) <= asked, (acknowledged - set(found), set(found) - asked)
        assert len(acknowledged) > 20 and lost, "there was something to lose"


if __name__ == "__main__":
    main()
