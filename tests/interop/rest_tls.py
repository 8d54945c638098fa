"""The server with TLS: `rest_tls.py ICEFIELD`."""
import http.client
import socket
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from rest_server import Server


def main():
    binary = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        key, certificate = folder / "key.pem", folder / "certificate.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
                       check=True, capture_output=True)
        secret = Server.run(binary, folder / "w", (), "CREATE PRINCIPAL root")[0]["client_secret"]
        Server.run(binary, folder / "w", (), "GRANT administrator ON CATALOG TO root")
        server = Server(binary, folder / "w", serve=["--tls-cert", certificate, "--tls-key", key, "--log", "json"])
        try:
            assert server.url.startswith("https://127.0.0.1:"), server.url
            trusting = ssl.create_default_context(cafile=certificate)
            # Who connects and says nothing keeps nobody else waiting.
            address = server.url.removeprefix("https://").split(":")
            silent = [socket.create_connection((address[0], int(address[1]))) for _ in range(20)]
            body = f"grant_type=client_credentials&client_id=root&client_secret={secret}".encode()
            with urllib.request.urlopen(server.url + "/v1/oauth/tokens", data=body, context=trusting) as answer:
                assert answer.status == 200
            try:
                urllib.request.urlopen(server.url + "/health")
                raise AssertionError("nobody trusts this certificate unless told to")
            except urllib.error.URLError as error:
                assert "CERTIFICATE_VERIFY_FAILED" in str(error), error
            plain = urllib.request.Request("http://" + server.url.removeprefix("https://") + "/health")
            try:
                urllib.request.urlopen(plain, timeout=10)
                raise AssertionError("plain HTTP is not answered")
            except (OSError, http.client.HTTPException):
                pass
            [it.close() for it in silent]
            server.stop()
        finally:
            server.process.kill()
        wrong = subprocess.run([binary, "serve", "--warehouse", folder / "w", "--tls-cert", key, "--tls-key", key],
                               capture_output=True, text=True)
        assert wrong.returncode == 1 and "there is no certificate in it" in wrong.stderr, wrong.stderr


main()
