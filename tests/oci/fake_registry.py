"""A registry in memory, in a thread, that can misbehave on demand. For faults that a real registry will not produce."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]


@dataclass
class FakeRegistry:
    """`before` runs for each request and may answer it itself (return True). `seen` is every request, in order."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    before: Callable[[Any], bool] | None = None
    relative_location: bool = True
    stopping: threading.Event = field(default_factory=threading.Event)

    def start(self, tls: Any = None) -> FakeRegistry:
        registry = self

        class Handler(_Handler):
            owner = registry

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if tls is not None:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        return self

    def stop(self) -> None:
        self.stopping.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.server_address[1]}"

    def put(self, name: str, tag: str, manifest: bytes, media_type: str, *blobs: bytes) -> str:
        digest = digest_of(manifest)
        for key in (tag, digest):
            self.manifests[name, key] = media_type, manifest
        for blob in blobs:
            self.blobs[digest_of(blob)] = blob
        return digest

    def count(self, method: str, part: str) -> int:
        return sum(1 for item in self.seen if item.method == method and part in item.path)


class _Handler(BaseHTTPRequestHandler):
    owner: FakeRegistry
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.handle_any()

    do_HEAD = do_PUT = do_POST = do_PATCH = do_GET

    def handle_any(self) -> None:
        owner = self.owner
        owner.seen.append(Seen(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        self.payload = self.read_payload()
        try:
            if owner.before is not None and owner.before(self):
                return
            self.route()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def read_payload(self) -> bytes:
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def route(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        if match := re.fullmatch(r"/v2/(.+)/manifests/(.+)", url.path):
            return self.manifest(match[1], match[2])
        if match := re.fullmatch(r"/v2/(.+)/blobs/uploads/(.*)", url.path):
            return self.upload(match[1], match[2], query)
        if match := re.fullmatch(r"/v2/(.+)/blobs/(.+)", url.path):
            return self.blob(match[2])
        return self.error(404, "UNSUPPORTED", "no such endpoint")

    def manifest(self, name: str, target: str) -> None:
        if self.command == "PUT":
            kind = self.headers["content-type"]
            digest = self.owner.put(name, target, self.payload, kind)
            return self.answer(201, b"", {"Docker-Content-Digest": digest, "Location": self.path})
        found = self.owner.manifests.get((name, target))
        if not found:
            return self.error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        return self.answer(
            200, found[1], {"Content-Type": found[0], "Docker-Content-Digest": digest_of(found[1])}
        )

    def upload(self, name: str, session: str, query: dict[str, str]) -> None:
        owner = self.owner
        base = "" if owner.relative_location else f"http://{owner.host}"
        if self.command == "POST":
            session = str(len(owner.seen))
            owner.uploads[session] = bytearray()
            return self.answer(
                202, b"", {"Location": f"{base}/v2/{name}/blobs/uploads/{session}?_state=a%2Fb%3D"}
            )
        if query.get("_state") != "a/b=":
            return self.error(400, "BLOB_UPLOAD_INVALID", "state lost")
        owner.uploads[session] += self.payload
        if self.command == "PATCH":
            return self.answer(
                202, b"", {"Location": f"{base}/v2/{name}/blobs/uploads/{session}?_state=a%2Fb%3D"}
            )
        data = bytes(owner.uploads.pop(session))
        if digest_of(data) != query["digest"]:
            return self.error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        owner.blobs[query["digest"]] = data
        return self.answer(201, b"", {"Location": f"/v2/{name}/blobs/{query['digest']}"})

    def blob(self, digest: str) -> None:
        data = self.owner.blobs.get(digest)
        if data is None:
            return self.error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        return self.answer(
            200, data, {"Content-Type": "application/octet-stream", "Docker-Content-Digest": digest}
        )

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def error(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        body = json.dumps({"errors": [{"code": code, "message": message, "detail": {"x": 1}}]}).encode()
        self.answer(status, body, {"Content-Type": "application/json", **(headers or {})})

    def hang(self, limit_s: float = 60) -> bool:
        self.owner.stopping.wait(limit_s)
        self.close_connection = True
        return True

    def drop(self) -> bool:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)
        return True


@dataclass
class TokenService:
    """Protects a `FakeRegistry` with bearer tokens; `shape` makes the answer's body from a token."""

    registry: FakeRegistry
    user: str = "ada"
    password: str = "s3cret-pass"
    anonymous: bool = False
    shape: Callable[[str], dict[str, Any]] = lambda token: {"token": token}
    asked: list[tuple[str, dict[str, list[str]], str]] = field(default_factory=list)
    lifetime_s: float = 300
    issued: dict[str, tuple[float, list[str]]] = field(default_factory=dict)
    always_refuse: bool = False

    def __call__(self, handler: Any) -> bool:
        url = urllib.parse.urlsplit(handler.path)
        if url.path == "/service/token":
            return self.serve(handler, url)
        header = handler.headers.get("authorization", "")
        granted = self.issued.get(header.removeprefix("Bearer "))
        action = "push" if handler.command in ("PUT", "POST", "PATCH") else "pull"
        good = granted and granted[0] > time.monotonic() and any(action in item for item in granted[1])
        if good and not self.always_refuse:
            return False
        name = handler.path.split("/v2/")[1].split("/manifests")[0].split("/blobs")[0]
        handler.error(
            401,
            "UNAUTHORIZED",
            "authentication required",
            {
                "WWW-Authenticate": f'Bearer realm="http://{self.registry.host}/service/token",'
                f'service="harbor-registry",scope="repository:{name}:{action}"'
            },
        )
        return True

    def serve(self, handler: Any, url: Any) -> bool:
        query = urllib.parse.parse_qs(url.query)
        if handler.command == "POST":
            query = urllib.parse.parse_qs(handler.payload.decode())
        header = handler.headers.get("authorization", "")
        self.asked.append((handler.command, query, header))
        right = "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        known = header == right or query.get("refresh_token") == [self.password]
        if not known and not (self.anonymous and not header):
            handler.error(401, "UNAUTHORIZED", "wrong password")
            return True
        token = f"tok{len(self.issued)}"
        scopes = [part for item in query.get("scope", []) for part in item.split()]
        self.issued[token] = (time.monotonic() + self.lifetime_s, scopes)
        handler.answer(200, json.dumps(self.shape(token)).encode(), {"Content-Type": "application/json"})
        return True
