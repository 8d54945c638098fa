"""`icefield serve` for as long as a `with` lasts, and plain HTTP to it."""
import contextlib
import json
import subprocess
import tempfile
import urllib.error
import urllib.request
from pathlib import Path


class Server:
    def __init__(self, binary, warehouse, *arguments):
        command = [binary, "serve", "--warehouse", str(warehouse), "--listen", "127.0.0.1:0", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        assert " at http://" in line, line
        self.url = line.split()[-1]
        self.binary, self.warehouse, self.arguments = binary, warehouse, arguments

    def ask(self, method, path, body=None, headers=None):
        """Status, body and headers of an answer. The body is JSON, or what was sent."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text, status, found = answer.read(), answer.status, answer.headers
        except urllib.error.HTTPError as error:
            text, status, found = error.read(), error.code, error.headers
        with contextlib.suppress(ValueError):
            return status, json.loads(text), found
        return status, text.decode(), found

    def sql(self, text):
        """The rows of a query by Icefield itself, beside the server."""
        command = [self.binary, "sql", "--warehouse", str(self.warehouse), *self.arguments, "--format", "json", "-c", text]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, f"{text}: {done.stderr}"
        return json.loads(done.stdout)

    def stop(self):
        self.process.terminate()
        assert self.process.wait(30) == 0, "the server ends well when it is told to"


@contextlib.contextmanager
def serving(binary, *arguments):
    with tempfile.TemporaryDirectory() as folder:
        server = Server(binary, Path(folder) / "warehouse", *arguments)
        try:
            yield server
            server.stop()
        finally:
            server.process.kill()
