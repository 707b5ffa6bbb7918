"""A server on this machine that answers W&B's client as far as a run needs, and keeps what it was sent."""

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
    """What was sent.

    Attributes:
        operations: of GraphQL, by name, with their variables.
        lines: by file, such as ``wandb-history.jsonl``, the lines that were streamed.
        uploads: by path the bytes of a file.
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
        """A client that hangs up is no news."""

    def answer(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        """Of an operation of GraphQL; an empty one for those that are asked for good measure."""
        me = {"id": "p", "name": "gt", "entity": {"id": "e", "name": "me"}}
        upload = {"uploadHeaders": [], "storagePath": "s", "artifact": {"id": "a"}}
        files = (asked.get("input") or {}).get("artifactFiles", [])
        place = f"{self.url}/put"
        answers: dict[str, dict[str, Any]] = {
            "Viewer": {"viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}},
            "RunResumeStatus": {"model": me | {"bucket": None}},
            "UpsertBucket": {
                "upsertBucket": {
                    "bucket": {"id": "b", "name": asked.get("name"), "displayName": "d", "config": "{}", "project": me},
                    "inserted": True,
                }
            },
            "CreateRunFiles": {
                "createRunFiles": {
                    "runID": "b",
                    "uploadHeaders": [],
                    "files": [{"name": name, "uploadUrl": f"{place}/{name}"} for name in asked.get("files", [])],
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
                        "file": {"id": "f", "name": "m", "uploadUrl": f"{place}/manifest", "uploadHeaders": []},
                    }
                }
            },
            "CreateArtifactFiles": {
                "createArtifactFiles": {
                    "files": {
                        "edges": [
                            {"node": upload | {"id": "f", "name": f["name"], "uploadUrl": f"{place}/{f['name']}"}}
                            for f in files
                        ]
                    }
                }
            },
            "CommitArtifact": {"commitArtifact": {"artifact": {"id": "a", "digest": "d"}}},
        }
        return answers.get(name, {})


class Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

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
            asked = json.loads(body)
            operation = OPERATION.search(asked["query"])
            name, variables = operation[1] if operation else "", asked.get("variables") or {}
            self.server.operations.append((name, variables))
            self._reply({"data": self.server.answer(name, variables)})
            return
        if self.path.endswith("file_stream"):
            for file, part in (json.loads(body).get("files") or {}).items():
                lines = self.server.lines.setdefault(file, [])
                lines += [json.loads(line) for line in part["content"] if line.startswith("{")]
        self._reply({})

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@contextmanager
def recorder() -> Iterator[Recorder]:
    """A server that listens to this machine while the block runs."""
    server = Recorder()
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
