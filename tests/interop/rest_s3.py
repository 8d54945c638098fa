"""A warehouse on S3 whose clients have no keys of it: `rest_s3.py ICEFIELD`.

S3 and AWS's token service are moto, which checks signatures here as AWS does. It does not hold keys to the policy that they were
made with, so that policy is looked at.
"""
import http.server
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import boto3
import pyarrow as pa
from botocore import UNSIGNED
from botocore.client import Config
from botocore.exceptions import ClientError
from moto import settings
from moto.server import ThreadedMotoServer
from moto.sts.models import sts_backends
from pyiceberg.catalog import load_catalog
from pyiceberg.io.fsspec import S3V4RestSigner
from rest_server import Server

ALLOWED = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
TRUSTED = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "*"}}]}
TABLE = "/v1/namespaces/{}/tables/t"


def main():
    binary = sys.argv[1]
    for name in [it for it in os.environ if it.startswith("AWS_")]:
        del os.environ[name]
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    endpoint = "http://%s:%s" % moto.get_host_and_port()
    try:
        keys, role = prepared(endpoint)
        with tempfile.TemporaryDirectory() as folder:
            vending(binary, Path(folder), endpoint, keys, role)
        with tempfile.TemporaryDirectory() as folder:
            signing(binary, Path(folder), endpoint, keys)
    finally:
        moto.stop()


def prepared(endpoint):
    """A bucket, the server's own keys, and a role that they may take. From then on signatures are checked."""
    any_keys = {"endpoint_url": endpoint, "region_name": "us-east-1", "aws_access_key_id": "a", "aws_secret_access_key": "b"}
    s3, iam = boto3.client("s3", **any_keys), boto3.client("iam", **any_keys)
    s3.create_bucket(Bucket="lake")
    s3.put_object(Bucket="lake", Key="others", Body=b"not a table's")
    iam.create_user(UserName="server")
    iam.put_user_policy(UserName="server", PolicyName="all", PolicyDocument=json.dumps(ALLOWED))
    key = iam.create_access_key(UserName="server")["AccessKey"]
    role = iam.create_role(RoleName="lent", AssumeRolePolicyDocument=json.dumps(TRUSTED))["Role"]["Arn"]
    iam.put_role_policy(RoleName="lent", PolicyName="all", PolicyDocument=json.dumps(ALLOWED))
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
    return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}, role


class Lake:
    """A server of a warehouse on S3, with two principals."""

    def __init__(self, binary, folder, endpoint, keys, prefix, *serve):
        self.root, self.binary = f"s3://lake/{prefix}", binary
        self.environ = {"AWS_ENDPOINT_URL": endpoint, "AWS_REGION": "us-east-1", **keys}
        self.arguments = ("--catalog", f"sqlite:{folder}/catalog.db")
        os.environ.update(self.environ)
        self.secrets = {}
        for name, right in (("ada", "writer"), ("bob", "reader"), ("root", "administrator")):
            made = Server.run(binary, self.root, self.arguments, f"CREATE PRINCIPAL {name}")
            self.secrets[name] = made[0]["client_secret"]
            Server.run(binary, self.root, self.arguments, f"GRANT {right} ON CATALOG TO {name}")
        self.server = Server(binary, self.root, *self.arguments, serve=serve)
        for name in self.environ:
            del os.environ[name]

    def token(self, name):
        return self.server.token(name, self.secrets[name])

    def ask(self, name, method, path, body=None, **headers):
        headers = {it.replace("_", "-"): value for it, value in headers.items()}
        return self.server.ask(method, path, body, {"Authorization": f"Bearer {self.token(name)}", **headers})

    def catalog(self, name, **more):
        return load_catalog("lake", type="rest", uri=self.server.url, token=self.token(name), **more)

    def icefield(self, name, text, url=None):
        """The rows of a query by Icefield as a client, which has no keys either."""
        environ = {"HOME": os.environ["HOME"], "PATH": os.environ["PATH"], "ICEFIELD_CREDENTIAL": f"{name}:{self.secrets[name]}"}
        command = [self.binary, "sql", "--catalog", url or self.server.url, "--format", "json", "-c", text]
        done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=120)
        assert done.returncode == 0, f"{text}: {done.stderr}"
        return json.loads(done.stdout) if done.stdout.startswith("[") else []


def vending(binary, folder, endpoint, keys, role):
    lake = Lake(binary, folder, endpoint, keys, "vended", "--s3-role", role)
    try:
        # PyIceberg takes what it is given: it has no keys of its own.
        catalog = lake.catalog("ada")
        table = catalog.create_table("cleaned.t", schema=pa.schema([("id", pa.int64())]))
        table.append(pa.table({"id": [1, 2, 3]}))
        assert lake.catalog("bob").load_table("cleaned.t").scan().to_arrow().num_rows == 3
        table.delete("id = 2")
        # Icefield as a client too, also what it makes itself.
        lake.icefield("ada", "INSERT INTO cleaned.t VALUES (7), (8)")
        assert lake.icefield("bob", "SELECT sum(id) AS s FROM cleaned.t") == [{"s": 19}]
        lake.icefield("ada", "CREATE TABLE raw.t (id BIGINT)")
        lake.icefield("ada", "INSERT INTO raw.t VALUES (1)")
        assert lake.icefield("ada", "SELECT count(*) AS n FROM raw.t") == [{"n": 1}]

        for name, tier, access in (("ada", "cleaned", "delete"), ("ada", "raw", "write"), ("bob", "cleaned", "read"), ("bob", "raw", "read")):
            status, body, _ = lake.ask(name, "GET", TABLE.format(tier) + "/credentials")
            assert status == 200, body
            given = body["storage-credentials"]
            assert given and all(it["prefix"].startswith(f"s3://lake/vended/{tier}/t") for it in given), given
            config = given[0]["config"]
            assert config["s3.endpoint"].rstrip("/") == endpoint and config["client.region"] == "us-east-1", config
            policy = policy_of(config["s3.access-key-id"])
            reads, lists = policy["Statement"][0], [it for it in policy["Statement"] if it["Action"] == "s3:ListBucket"]
            denied = [it for it in policy["Statement"] if it["Effect"] == "Deny"]
            assert len(denied) == (access != "read") and all(it["Resource"][0].endswith("/*.metadata.json") for it in denied), policy
            assert len(given) == len(lists) == 1, given
            assert all(it.startswith(f"arn:aws:s3:::lake/vended/{tier}/t") and it.endswith("/*") for it in reads["Resource"]), policy
            assert all(it["Condition"]["StringLike"]["s3:prefix"][0].startswith(f"vended/{tier}/t") for it in lists), policy
            can = {"read": 1, "write": 3, "delete": 4}[access]
            assert len(reads["Action"]) == can and ("s3:DeleteObject" in reads["Action"]) == (access == "delete"), policy
            life = float(config["s3.session-token-expires-at-ms"]) / 1000 - time.time()
            assert 0 < life <= 15 * 60, life
        renewed(lake)
        # Without the header nobody is told anything; and those who may not read are not either.
        status, body, _ = lake.ask("ada", "GET", TABLE.format("cleaned"))
        assert status == 200 and body["config"] == {} and "storage-credentials" not in body, body.get("config")
        assert lake.ask("root", "GET", TABLE.format("nowhere") + "/credentials")[0] == 404
        told = Server.run(binary, folder / "w", lake.arguments, "SELECT principal FROM system.audit_log WHERE action = 'vend credentials'")
        assert {"ada", "bob"} <= {it["principal"] for it in told}, told
        lake.server.stop()
    finally:
        lake.server.process.kill()


class Forgetful(http.server.BaseHTTPRequestHandler):
    """A server in front of the server: of the keys in tables it says that they have run out, and spoils them."""

    lake, asked_again = None, 0

    def do_GET(self):
        headers = {name: it for name, it in self.headers.items() if name.lower() not in ("host", "accept-encoding")}
        status, body, _ = self.lake.server.ask("GET", self.path, None, headers)
        if self.path.endswith("/credentials"):
            type(self).asked_again += 1
        else:
            for it in body.get("storage-credentials", []):
                it["config"].update({"s3.session-token-expires-at-ms": "1", "s3.secret-access-key": "spoilt"})
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_POST(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        status, body, _ = self.lake.server.ask("POST", self.path, data, {"Content-Type": self.headers["Content-Type"]})
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


def renewed(lake):
    """Keys that run out are asked for again, and used (T-126)."""
    Forgetful.lake = lake
    front = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Forgetful)
    threading.Thread(target=front.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{front.server_port}"
    assert lake.icefield("bob", "SELECT sum(id) AS s FROM cleaned.t", url) == [{"s": 19}]
    assert Forgetful.asked_again >= 1
    front.shutdown()


def policy_of(key):
    """What AWS was told that these keys may do."""
    for account in sts_backends.values():
        for backend in account.values():
            for role in backend.assumed_roles:
                if role.access_key_id == key:
                    return json.loads(role.policy)
    raise AssertionError("the keys are not those of an assumed role")


def signing(binary, folder, endpoint, keys):
    lake = Lake(binary, folder, endpoint, keys, "signed")
    try:
        for tier in ("cleaned", "raw"):
            body = {"name": "t", "schema": {"type": "struct", "fields": [{"id": 1, "name": "id", "required": False, "type": "long"}]}}
            assert lake.ask("ada", "POST", f"/v1/namespaces/{tier}/tables", body)[0] == 200
        status, body, _ = lake.ask("ada", "GET", TABLE.format("cleaned"), X_Iceberg_Access_Delegation="vended-credentials,remote-signing")
        config = body["config"]
        assert config["s3.remote-signing-enabled"] == "true" and body["remote-signing-config"] == {}, config
        assert config["s3.signer.endpoint"] == TABLE.format("cleaned")[1:] + "/sign", config
        assert "s3.access-key-id" not in config, "there is no role, so no keys are vended"

        writer, reader = client(lake, "ada", "cleaned", config), client(lake, "bob", "cleaned", config)
        key = "signed/cleaned/t/data/ä b+c.parquet"
        writer.put_object(Bucket="lake", Key=key, Body=b"0123456789")
        assert reader.get_object(Bucket="lake", Key=key, Range="bytes=2-4")["Body"].read() == b"234"
        assert [it["Key"] for it in reader.list_objects_v2(Bucket="lake", Prefix="signed/cleaned/t/data/")["Contents"]] == [key]
        upload = writer.create_multipart_upload(Bucket="lake", Key="signed/cleaned/t/data/big")
        part = writer.upload_part(Bucket="lake", Key="signed/cleaned/t/data/big", UploadId=upload["UploadId"], PartNumber=1, Body=b"x")
        writer.complete_multipart_upload(Bucket="lake", Key="signed/cleaned/t/data/big", UploadId=upload["UploadId"],
                                         MultipartUpload={"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]})
        writer.delete_object(Bucket="lake", Key="signed/cleaned/t/data/big")

        # More than one may do, or elsewhere.
        refused(lambda: writer.put_object(Bucket="lake", Key="signed/cleaned/t/metadata/00001-x.metadata.json", Body=b"x"))
        refused(lambda: reader.put_object(Bucket="lake", Key=key, Body=b"x"))
        refused(lambda: reader.delete_object(Bucket="lake", Key=key))
        for other in ("others", "signed/raw/t/metadata/x", "signed/cleaned/t2/x", "signed/cleaned/t/../../raw/t/x"):
            refused(lambda it=other: writer.get_object(Bucket="lake", Key=it))
        refused(lambda: reader.list_objects_v2(Bucket="lake", Prefix="signed/cleaned/t"))
        refused(lambda: reader.list_objects_v2(Bucket="lake"))
        refused(lambda: writer.get_object_acl(Bucket="lake", Key=key))
        refused(lambda: writer.put_object(Bucket="lake", Key=key, Body=b"x", ACL="public-read"))
        refused(lambda: writer.copy_object(Bucket="lake", Key=key, CopySource={"Bucket": "lake", "Key": "others"}))
        # What raw has stays.
        raw = client(lake, "ada", "raw", {**config, "s3.signer.endpoint": TABLE.format("raw")[1:] + "/sign"})
        raw.put_object(Bucket="lake", Key="signed/raw/t/data/x", Body=b"1")
        refused(lambda: raw.put_object(Bucket="lake", Key="signed/raw/t/data/x", Body=b"2"))
        again(lake, endpoint)
        refused(lambda: raw.delete_object(Bucket="lake", Key="signed/raw/t/data/x"))
        assert raw.get_object(Bucket="lake", Key="signed/raw/t/data/x")["Body"].read() == b"1"

        signs(lake, endpoint, key)
        lake.server.stop()
    finally:
        lake.server.process.kill()


def client(lake, name, tier, config):
    """A client of S3 that has each request signed by PyIceberg's signer."""
    s3 = boto3.client("s3", endpoint_url=config["s3.endpoint"], region_name=config["client.region"],
                      config=Config(signature_version=UNSIGNED, s3={"addressing_style": "path"}, retries={"max_attempts": 1},
                                    request_checksum_calculation="when_required"))
    signer = S3V4RestSigner({"uri": lake.server.url, "token": lake.token(name), **config})
    s3.meta.events.register("before-sign.s3", signer)
    return s3


def again(lake, endpoint):
    """A signature for a new file of raw is good for one, whatever is sent."""
    uri = f"{endpoint}/lake/signed/raw/t/data/once"
    body = {"region": "us-east-1", "uri": uri, "method": "PUT", "headers": {}}
    status, answer, _ = lake.ask("ada", "POST", TABLE.format("raw") + "/sign", body)
    assert status == 200, answer
    send = {name: values[0] for name, values in answer["headers"].items()}
    assert send["if-none-match"] == "*" and "if-none-match" in send["authorization"], send
    for wanted, text in ((200, b"1"), (412, b"2")):
        try:
            found = urllib.request.urlopen(urllib.request.Request(uri, data=text, headers=send, method="PUT")).status
        except urllib.error.HTTPError as error:
            found = error.code
        assert found == wanted, (found, wanted)


def refused(work):
    try:
        work()
    except ClientError as error:
        raise AssertionError(f"it was signed, and S3 said {error}") from None
    except Exception as error:
        assert type(error).__name__ == "SignError", error
        return
    raise AssertionError("it was signed")


def signs(lake, endpoint, key):
    """The route itself: its answers, and what it says to requests that make no sense."""
    uri = f"{endpoint}/lake/{urllib.parse.quote(key)}"

    def sign(name="ada", **changed):
        body = {"region": "us-east-1", "uri": uri, "method": "GET", "headers": {}, **changed}
        return lake.ask(name, "POST", TABLE.format("cleaned") + "/sign", body)

    status, body, headers = sign()
    assert status == 200 and headers["Cache-Control"] == "private" and body["uri"] == uri, body
    send = {name: values[0] for name, values in body["headers"].items()}
    assert urllib.request.urlopen(urllib.request.Request(uri, headers=send)).read() == b"0123456789"
    spoilt = {**send, "Authorization": send["authorization"][:-1] + ("0" if send["authorization"][-1] != "0" else "1")}
    del spoilt["authorization"]
    try:
        urllib.request.urlopen(urllib.request.Request(uri, headers=spoilt))
        raise AssertionError("signatures are checked")
    except urllib.error.HTTPError as error:
        assert error.code == 403, error
    deletion = "<Delete><Object><Key>signed/cleaned/t/data/none</Key></Object></Delete>"
    for wanted, changed in (
        (200, {"method": "PUT"}),
        (200, {"method": "POST", "uri": f"{endpoint}/lake?delete", "body": deletion}),
        (403, {"method": "POST", "uri": f"{endpoint}/lake?delete", "body": deletion.replace("cleaned/t/", "raw/t/")}),
        (403, {"uri": f"{endpoint}/lake/others"}),
        (403, {"uri": f"{endpoint}/lake/signed%2Fcleaned%2Ft2%2Fx"}),
        (400, {"method": "POST", "uri": f"{endpoint}/lake?delete"}),
        (400, {"uri": "https://lake.s3.us-east-1.amazonaws.com/signed/cleaned/t/x"}),
        (400, {"uri": "http://169.254.169.254/latest/meta-data"}),
        (400, {"uri": "no url"}),
        (400, {"uri": f"{uri}?acl"}),
        (400, {"region": "us\n"}),
        (400, {"uri": f"{endpoint}/lake/signed/cleaned/t/a+b"}),
        (400, {"method": "BREW"}),
        (400, {"provider": "gcs"}),
        (400, {"headers": {"x-amz-date\n": ["1"]}}),
        (400, {"headers": {"x-amz-meta-a": ["1\r\nHost: x"]}}),
        (400, {"headers": {"x-amz-content-sha256": ["STREAMING-AWS4-HMAC-SHA256-PAYLOAD"]}}),
        (400, {"headers": 5}),
    ):
        status, body, _ = sign(**changed)
        assert status == wanted, (wanted, changed, status, body)
    assert sign("bob")[0] == 200 and sign("bob", method="PUT")[0] == 403


if __name__ == "__main__":
    main()
