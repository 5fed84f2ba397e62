"""A Google Cloud Storage in memory, for tests: as much of its JSON API as gcsfs, TensorStore and Google's client ask.

Tests are given one by the fixture `store`, which lasts for the session: TensorStore asks once where its server is.

What is here answers as the real one does: whole objects appear at once, each write has a new generation, preconditions
are kept, lists come in pages. Composing, versions and permissions by object are not here.
"""

import itertools
import json
import os
import sys
import threading
import time
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

PAGE = 50
"""The most names in an answer: few, so that whoever lists must go on to the next page."""


class Store:
    """Buckets that this process, and those it starts, find while the context lasts.

    Attributes:
      objects: {(bucket, name): bytes}, as they are now.
      forbidden: "read" and "write" that are refused with 403.
      requests: (method, path) of everything asked, in order.
      stall: an object whose name ends so is never written: who tries waits for an answer, and `stalled` is set.
    """

    def __init__(self, *buckets: str):
        self.buckets = set(buckets)
        self.objects: dict[tuple[str, str], bytes] = {}
        self.generations: dict[tuple[str, str], int] = {}
        self.uploads: dict[str, tuple[tuple[str, str], dict[str, str], bytearray]] = {}  # resumable ones under way
        self.forbidden: set[str] = set()
        self.requests: list[tuple[str, str]] = []
        self.stall: str | None = None
        self.stalled = threading.Event()
        self.count = itertools.count(1)
        self.lock = threading.RLock()
        self._server = _Server(("127.0.0.1", 0), type("Bound", (_Handler,), {"store": self}))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """Points gcsfs, Google's client (both the first) and TensorStore here, without credentials."""
        return {
            "STORAGE_EMULATOR_HOST": self.url,
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # asks by gRPC what kind of bucket it is
        }

    def __enter__(self) -> "Store":
        os.environ.update(self.environment)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        for name in self.environment:
            del os.environ[name]
        self._server.shutdown()
        self._server.server_close()

    def text(self, address: str) -> str:
        """The text of an object, by its gs:// address; empty where there is none."""
        bucket, _, name = address.removeprefix("gs://").partition("/")
        return self.objects.get((bucket, name), b"").decode()

    def names(self, address: str) -> list[str]:
        """The names of the objects below an address, relative to it."""
        bucket, _, folder = address.removeprefix("gs://").partition("/")
        with self.lock:
            stored = [name for where, name in self.objects if where == bucket and name.startswith(f"{folder}/")]
        return sorted(name.removeprefix(f"{folder}/") for name in stored)

    def put(self, key: tuple[str, str], content: bytes, query: dict[str, str]) -> tuple[int, Any]:
        if self.stall is not None and key[1].endswith(self.stall):
            self.stalled.set()
            while self.stall is not None:
                time.sleep(0.05)
            return 503, "who asked is killed by now"
        with self.lock:
            wanted = query.get("ifGenerationMatch")
            if wanted is not None and int(wanted) != self.generations.get(key, 0):
                return 412, "conditionNotMet"
            self.objects[key], self.generations[key] = content, next(self.count)
            return 200, self.resource(key)

    def resource(self, key: tuple[str, str]) -> dict[str, Any]:
        generation = str(self.generations[key])
        return {
            "kind": "storage#object",
            "bucket": key[0],
            "name": key[1],
            "size": str(len(self.objects[key])),
            "generation": generation,
            "metageneration": "1",
            "timeCreated": "2026-01-01T00:00:00.000Z",
            "updated": "2026-01-01T00:00:00.000Z",
        }

    def listed(self, bucket: str, query: dict[str, str]) -> dict[str, Any]:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        found: dict[str, bool] = {}  # a name, or a prefix with the delimiter at its end
        with self.lock:
            for name in sorted(name for where, name in self.objects if where == bucket and name.startswith(prefix)):
                if not query.get("startOffset", "") <= name or (query.get("endOffset") or "\U0010ffff") <= name:
                    continue
                head, cut, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
                found[prefix + head + cut if cut else name] = bool(cut)
            left = [name for name in found if name > query.get("pageToken", "")]
            page = left[: min(PAGE, int(query.get("maxResults", PAGE)))]
            answer: dict[str, Any] = {
                "kind": "storage#objects",
                "items": [self.resource((bucket, name)) for name in page if not found[name]],
                "prefixes": [name for name in page if found[name]],
            }
        if len(page) < len(left):
            answer["nextPageToken"] = page[-1]
        return answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, address) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # who asked was killed, or has what it wanted
            super().handle_error(request, address)


class _Handler(BaseHTTPRequestHandler):
    store: Store
    protocol_version = "HTTP/1.1"  # connections stay open
    disable_nagle_algorithm, wbufsize = True, -1  # an answer goes out at once and whole

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_GET

    def log_message(self, *_) -> None:
        pass

    def _answer(self) -> None:
        content = self._content()
        split = urlsplit(self.path)
        self.store.requests.append((self.command, self.path))
        parts = [unquote(part) for part in split.path.strip("/").split("/")]
        kind = parts[0] if parts[0] in ("upload", "download") else ""
        parts = parts[1:] if kind else parts  # both begin /storage/v1/b/BUCKET[/o[/NAME…]]
        bucket, rest = parts[3] if len(parts) > 3 else "", parts[5:]
        reading = "read" if self.command in ("GET", "HEAD") else "write"
        if parts[:3] != ["storage", "v1", "b"] or self.command == "PATCH":
            return self._send(501, f"not in this store: {self.command} {self.path}")
        if bucket not in self.store.buckets:
            return self._send(404, "The specified bucket does not exist.")
        if reading in self.store.forbidden:
            return self._send(403, f"test@project does not have storage.objects.{reading} access to {bucket}.")
        query = dict(parse_qsl(split.query, keep_blank_values=True))
        if kind == "upload":
            return self._upload(bucket, query, content)
        if len(parts) == 4:
            return self._send(200, {"kind": "storage#bucket", "name": bucket, "id": bucket})
        if not rest:
            return self._send(200, self.store.listed(bucket, query))
        return self._object((bucket, "/".join(rest)), query, media=kind == "download" or query.get("alt") == "media")

    def _object(self, key: tuple[str, str], query: dict[str, str], media: bool) -> None:
        store = self.store
        if self.command == "POST":  # …/rewriteTo/b/BUCKET/o/NAME
            source, _, target = key[1].partition("/rewriteTo/b/")
            into, _, name = target.partition("/o/")
            stored = store.objects.get((key[0], source))
            if stored is None or not name:
                return self._send(404 if name else 501, f"No such object: {source}")
            _, resource = store.put((into, name), stored, {})
            return self._send(200, {"kind": "storage#rewriteResponse", "done": True, "resource": resource})
        with store.lock:
            stored, generation = store.objects.get(key), store.generations.get(key, 0)
            if stored is None:
                return self._send(404, f"No such object: {'/'.join(key)}")
            if int(query.get("generation", generation)) != generation:
                return self._send(404, f"No such object: {'/'.join(key)}#{query['generation']}")
            if int(query.get("ifGenerationMatch", generation)) != generation:
                return self._send(412, "conditionNotMet")
            if int(query.get("ifGenerationNotMatch", -1)) == generation:
                return self._send(304, b"")
            if self.command == "DELETE":
                del store.objects[key], store.generations[key]
                return self._send(204, b"")
            if not media:
                return self._send(200, store.resource(key))
        headers = {"X-Goog-Generation": str(generation), "X-Goog-Stored-Content-Length": str(len(stored))}
        first, last = 0, len(stored) - 1
        if asked := self.headers.get("Range"):
            start, _, end = asked.removeprefix("bytes=").partition("-")
            first = int(start) if start else max(0, len(stored) - int(end))
            last = min(last, int(end)) if start and end else last
            if first > last:
                return self._send(416, b"", {"Content-Range": f"bytes */{len(stored)}"})
            headers["Content-Range"] = f"bytes {first}-{last}/{len(stored)}"
        self._send(206 if asked else 200, stored[first : last + 1], headers)

    def _upload(self, bucket: str, query: dict[str, str], content: bytes) -> None:
        store = self.store
        if number := query.get("upload_id"):
            key, conditions, parts = store.uploads[number]
            parts += content
            if self.headers["Content-Range"].endswith("/*"):
                return self._send(308, b"", {"Range": f"bytes=0-{len(parts) - 1}"})
            if len(parts) < int(self.headers["Content-Range"].rpartition("/")[2]):
                return self._send(308, b"", {"Range": f"bytes=0-{len(parts) - 1}"})
            return self._send(*store.put(key, bytes(parts), conditions))
        how = query["uploadType"]
        if how == "media":
            return self._send(*store.put((bucket, query["name"]), content, query))
        if how == "multipart":
            name, content = _multipart(self.headers["Content-Type"], content)
            return self._send(*store.put((bucket, name), content, query))
        number = str(next(store.count))
        name = json.loads(content or b"{}").get("name") or query["name"]
        store.uploads[number] = ((bucket, name), query, bytearray())
        location = f"{store.url}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={number}"
        return self._send(200, b"", {"Location": location})

    def _content(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        if status >= 400 and isinstance(content, str):
            content = {"error": {"code": status, "message": content, "errors": [{"message": content}]}}
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _multipart(kind: str, content: bytes) -> tuple[str, bytes]:
    """The name and the bytes of a multipart upload: JSON, then the object."""
    boundary = b"--" + BytesParser(policy=HTTP).parsebytes(f"Content-Type: {kind}\n\n".encode()).get_boundary().encode()
    _, described, stored, _ = content.split(boundary, 2)[0:2] + content.split(boundary, 2)[2].rsplit(boundary, 1)
    line = b"\r\n" if b"\r\n\r\n" in stored[:200] else b"\n"
    return json.loads(described.partition(line * 2)[2])["name"], stored.partition(line * 2)[2].removesuffix(line)
