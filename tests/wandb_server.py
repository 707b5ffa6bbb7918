"""A local server that answers W&B's client as far as a run needs, and records what it receives."""

import gzip
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

OPERATION = re.compile(r"(?:query|mutation)\s+(\w+)")


class Recorder(ThreadingHTTPServer):
    """Records what a client sends.

    Attributes:
        operations: names of GraphQL operations with their variables, in order.
        lines: the streamed lines of each file, such as ``wandb-history.jsonl``.
        uploads: the bytes of each uploaded file, by path.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.operations: list[tuple[str, dict[str, Any]]] = []
        self.lines: dict[str, list[dict[str, Any]]] = {}
        self.uploads: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that hang up."""

    def answer(self, name: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The answer to a GraphQL operation; empty for those that a run can do without."""
        me = {"id": "p", "name": "gt", "entity": {"id": "e", "name": "me"}}
        upload = {"uploadHeaders": [], "storagePath": "s", "artifact": {"id": "a"}}
        files = (variables.get("input") or {}).get("artifactFiles", [])
        url = f"{self.url}/put"
        answers: dict[str, dict[str, Any]] = {
            "Viewer": {"viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}},
            "RunResumeStatus": {"model": me | {"bucket": None}},
            "UpsertBucket": {
                "upsertBucket": {
                    "bucket": {
                        "id": "b",
                        "name": variables.get("name"),
                        "displayName": "d",
                        "config": "{}",
                        "project": me,
                    },
                    "inserted": True,
                }
            },
            "CreateRunFiles": {
                "createRunFiles": {
                    "runID": "b",
                    "uploadHeaders": [],
                    "files": [{"name": name, "uploadUrl": f"{url}/{name}"} for name in variables.get("files", [])],
                }
            },
            "ArtifactType": {"project": {"artifact": None}},
            "CreateArtifact": {
                "createArtifact": {
                    "artifact": {"id": "a", "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
                }
            },
            "CreateArtifactManifest": {
                "createArtifactManifest": {
                    "artifactManifest": {
                        "id": "m",
                        "file": {"id": "f", "name": "m", "uploadUrl": f"{url}/manifest", "uploadHeaders": []},
                    }
                }
            },
            "CreateArtifactFiles": {
                "createArtifactFiles": {
                    "files": {
                        "edges": [
                            {"node": upload | {"id": "f", "name": f["name"], "uploadUrl": f"{url}/{f['name']}"}}
                            for f in files
                        ]
                    }
                }
            },
            "CommitArtifact": {"commitArtifact": {"artifact": {"id": "a", "digest": "d"}}},
        }
        return answers.get(name, {})


class Handler(BaseHTTPRequestHandler):
    """Handles one connection of a client."""

    protocol_version = "HTTP/1.1"
    server: Recorder

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _reply(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._reply({})

    def do_PUT(self) -> None:
        self.server.uploads[self.path.removeprefix("/put/")] = self._body()
        self._reply({})

    def do_POST(self) -> None:
        body = self._body()
        if self.path.startswith("/graphql"):
            request = json.loads(body)
            operation = OPERATION.search(request["query"])
            name, variables = operation[1] if operation else "", request.get("variables") or {}
            self.server.operations.append((name, variables))
            self._reply({"data": self.server.answer(name, variables)})
            return
        if self.path.endswith("file_stream"):
            for file, part in (json.loads(body).get("files") or {}).items():
                lines = self.server.lines.setdefault(file, [])
                lines += [json.loads(line) for line in part["content"] if line.startswith("{")]
        self._reply({})

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@contextmanager
def recorder() -> Iterator[Recorder]:
    """A server on the loopback interface that runs during the ``with`` block."""
    server = Recorder()
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
