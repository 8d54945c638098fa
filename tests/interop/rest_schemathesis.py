"""Schemathesis asks the server all that the OpenAPI file allows, and more: `rest_schemathesis.py ICEFIELD OPENAPI_FILE`.

Nothing may make the server fail, and no answer may have a status or a shape that the file does not have. Operations
that the server does not offer are left out; that it says so is tested elsewhere.
"""
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from rest_server import serving

LEFT_OUT = "/plan|/tasks|/sign|oauth"
CHECKS = "not_a_server_error,status_code_conformance,response_schema_conformance,content_type_conformance"
SCHEMA = {"type": "struct", "fields": [{"id": 1, "name": "id", "required": False, "type": "long"}]}


def furnish(server, stop):
    """Keeps there what the file's examples name, which its operations take away."""
    while not stop.wait(0.3):
        for levels in (["accounting"], ["accounting", "tax"]):
            server.ask("POST", "/v1/namespaces", {"namespace": levels})
            path = "%1F".join(levels)
            server.ask("POST", f"/v1/namespaces/{path}/tables", {"name": "sales", "schema": SCHEMA})
            server.ask("POST", f"/v1/namespaces/{path}/views", {
                "name": "sales_view", "schema": SCHEMA, "properties": {}, "view-version": {
                    "version-id": 1, "timestamp-ms": 1, "schema-id": 0, "summary": {}, "default-namespace": levels,
                    "representations": [{"type": "sql", "sql": "SELECT 1 AS id", "dialect": "spark"}]}})


def main():
    text = Path(sys.argv[2]).read_text()
    with serving(sys.argv[1]) as server, tempfile.TemporaryDirectory() as folder:
        stop = threading.Event()
        thread = threading.Thread(target=furnish, args=(server, stop))
        thread.start()
        api = Path(folder) / "api.yaml"
        # The prefix is optional, and any is taken.
        text = text.replace("/v1/{prefix}/", "/v1/lake/").replace("      - $ref: '#/components/parameters/prefix'\n", "")
        api.write_text(re.sub(r"\n    parameters:\n(?=\n|    [a-z])", "\n", text))
        run = subprocess.run(
            [Path(sys.executable).parent / "schemathesis", "run", api, "--url", server.url, "--max-examples", "25",
             "--phases", "examples,coverage,fuzzing", "--exclude-path-regex", LEFT_OUT, "--checks", CHECKS,
             "--generation-deterministic", "--no-color"], cwd=folder, capture_output=True, text=True)
        stop.set()
        thread.join()
        if run.returncode != 0:
            sys.exit(run.stdout[-20000:] + run.stderr)


if __name__ == "__main__":
    main()
