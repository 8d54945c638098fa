"""How much a server takes on: `rest_limits.py ICEFIELD`."""
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

from rest_server import Server


def limited(binary, folder, *serve):
    return Server(binary, folder / "warehouse", serve=serve)


def main():
    binary = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        secrets = {}
        for name in ("ada", "bob"):
            secrets[name] = Server.run(binary, folder / "warehouse", (), f"CREATE PRINCIPAL {name}")[0]["client_secret"]
            Server.run(binary, folder / "warehouse", (), f"GRANT reader ON CATALOG TO {name}")
        often(limited(binary, folder, "--requests-per-second", "5"), secrets)
        at_once(limited(binary, folder, "--max-requests", "1"), secrets)
        slow(limited(binary, folder, "--request-timeout", "1"), secrets)


def often(server, secrets):
    """Who asks too often waits; others do not."""
    try:
        headers = {name: {"Authorization": f"Bearer {server.token(name, secret)}"} for name, secret in secrets.items()}
        answers = [server.ask("GET", "/v1/namespaces", None, headers["ada"]) for _ in range(30)]
        codes = [it[0] for it in answers]
        assert codes[:10] == [200] * 10 and codes.count(429) >= 10, codes
        status, body, found = next(it for it in answers if it[0] == 429)
        assert body["error"]["type"] == "TooManyRequestsException" and body["error"]["code"] == 429, body
        assert "`ada` asks more than 5 times a second" in body["error"]["message"], body
        assert server.ask("GET", "/v1/namespaces", None, headers["bob"])[0] == 200
        assert server.ask("GET", "/health")[0] == 200
        time.sleep(int(found["Retry-After"]))
        assert server.ask("GET", "/v1/namespaces", None, headers["ada"])[0] == 200
        server.stop()
    finally:
        server.process.kill()


def held(server, headers):
    """A request whose body does not come: its place is taken until the connection ends."""
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    token = headers["Authorization"]
    connection.sendall(f"POST /v1/namespaces HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: {token}\r\n"
                       "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{".encode())
    return connection


def at_once(server, secrets):
    """When every place is taken, others are asked to come again."""
    try:
        headers = {"Authorization": f"Bearer {server.token('ada', secrets['ada'])}"}
        connection = held(server, headers)
        for turn in range(1, 101):
            status, body, found = server.ask("GET", "/v1/namespaces", None, headers)
            if status == 429:
                break
            # It came while the request before it had the place, and was refused itself.
            if turn % 20 == 0:
                connection.close()
                connection = held(server, headers)
            time.sleep(0.02)
        assert status == 429 and found["Retry-After"] == "1" and "being answered" in body["error"]["message"], (status, body)
        assert server.ask("GET", "/ready")[0] == 200, "probes are always answered"
        connection.close()
        for _ in range(100):
            if server.ask("GET", "/v1/namespaces", None, headers)[0] == 200:
                break
            time.sleep(0.02)
        else:
            raise AssertionError("the place is not given back")
        server.stop()
    finally:
        server.process.kill()


def slow(server, secrets):
    """What takes too long ends, and nobody says that it did not happen."""
    try:
        headers = {"Authorization": f"Bearer {server.token('ada', secrets['ada'])}"}
        connection = held(server, headers)
        answer = []
        reader = threading.Thread(target=lambda: answer.append(connection.recv(4096).decode()))
        reader.start()
        reader.join(30)
        assert answer and answer[0].startswith("HTTP/1.1 504"), answer
        connection.close()
        server.stop()
    finally:
        server.process.kill()


main()
