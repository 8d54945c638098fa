"""`icefield serve` for as long as a `with` lasts, and plain HTTP to it."""
import contextlib
import json
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path


class Server:
    def __init__(self, binary, warehouse, *arguments, serve=()):
        command = [binary, "serve", "--warehouse", str(warehouse), "--listen", "127.0.0.1:0", *arguments, *serve]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        assert " at http" in line, line
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
        return self.run(self.binary, self.warehouse, self.arguments, text)

    @staticmethod
    def run(binary, warehouse, arguments, text):
        command = [binary, "sql", "--warehouse", str(warehouse), *arguments, "--format", "json", "-c", text]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, f"{text}: {done.stderr}"
        return json.loads(done.stdout) if done.stdout.startswith("[") else []

    def token(self, client_id, secret):
        """A token for a principal; None if the secret is not its own."""
        form = urllib.parse.urlencode({"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret})
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        status, body, _ = self.ask("POST", "/v1/oauth/tokens", form.encode(), headers)
        return body["access_token"] if status == 200 else None

    def stop(self):
        self.process.terminate()
        assert self.process.wait(30) == 0, "the server ends well when it is told to"


@contextlib.contextmanager
def serving(binary, *arguments, before=()):
    """A server; `before` it starts, these statements are run."""
    with tempfile.TemporaryDirectory() as folder:
        warehouse = Path(folder) / "warehouse"
        said = [Server.run(binary, warehouse, arguments, it) for it in before]
        server = Server(binary, warehouse, *arguments)
        server.said = said
        try:
            yield server
            server.stop()
        finally:
            server.process.kill()
