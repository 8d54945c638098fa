"""Traces of requests arrive at a collector: `rest_traces.py ICEFIELD`."""
import http.server
import os
import sys
import tempfile
import threading
from pathlib import Path

from rest_server import Server

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector(http.server.BaseHTTPRequestHandler):
    bodies = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.bodies.append((self.path, self.headers["Content-Type"], self.headers.get("X-Key"), body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


def main():
    binary = sys.argv[1]
    collector = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{collector.server_port}"
    os.environ["OTEL_EXPORTER_OTLP_HEADERS"] = "x-key=secret"
    with tempfile.TemporaryDirectory() as folder:
        server = Server(binary, Path(folder) / "warehouse")
        try:
            schema = {"type": "struct", "fields": [{"id": 1, "name": "id", "required": False, "type": "long"}]}
            headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-Id": "mine"}
            assert server.ask("POST", "/v1/namespaces/raw/tables", {"name": "t", "schema": schema}, headers)[0] == 200
            change = {"requirements": [], "updates": [{"action": "set-properties", "updates": {"a": "b"}}]}
            assert server.ask("POST", "/v1/lake/namespaces/raw/tables/t", change, headers)[0] == 200
            assert server.ask("GET", "/v1/namespaces/raw/tables/none")[0] == 404
            # What was not sent yet goes out at the end.
            server.stop()
        finally:
            server.process.kill()
    assert Collector.bodies, "nothing came"
    assert all(it[:3] == ("/v1/traces", "application/x-protobuf", "secret") for it in Collector.bodies), Collector.bodies
    sent = b"".join(it[3] for it in Collector.bodies)
    for name in ("POST /v1/namespaces/{namespace}/tables", "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}",
                 "GET /v1/namespaces/{namespace}/tables/{table}", "commit", "icefield", "icefield.request_id", "mine"):
        assert name.encode() in sent, f"{name} in {sent}"
    # Both requests of the client, and the commit, are in its trace; the first two are below its span.
    assert sent.count(bytes.fromhex(TRACE)) == 3, sent
    assert sent.count(bytes.fromhex(PARENT)) == 2, sent

    # A collector that is away changes nothing; one that is none is told at once.
    collector.shutdown()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(binary, Path(folder) / "warehouse")
        assert server.ask("GET", "/v1/namespaces")[0] == 200
        server.stop()
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = "no url"
        try:
            Server(binary, Path(folder) / "warehouse").process.kill()
        except AssertionError:
            return
        raise AssertionError("it served")


if __name__ == "__main__":
    main()
