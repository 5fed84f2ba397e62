"""A Hugging Face hub on this machine: the endpoints of its REST interface that a download of a data set uses."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

REFUSED = {"farm/fenced": ("GatedRepo", 403), "farm/broken": ("", 500)}


class Hub:
    """Serves while the context lasts.

    Attributes:
      asked: (method and path) of every request, in order.
    """

    def __init__(self):
        self.commits: dict[str, dict[str, bytes]] = {}
        self.revisions: dict[tuple[str, str], str] = {}
        self.asked: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def commit(self, repo: str, files: dict[str, bytes | str], revision: str = "main") -> str:
        stored = {name: content.encode() if isinstance(content, str) else content for name, content in files.items()}
        commit = hashlib.sha1(repr((repo, sorted(stored.items()))).encode()).hexdigest()
        self.commits[commit] = stored
        self.revisions[repo, revision] = self.revisions[repo, commit] = commit
        return commit

    def __enter__(self) -> "Hub":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self):
        url = urlsplit(self.path)
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        self.hub.asked.append(f"{self.command} {unquote(self.path)}")
        parts = parts[1:] if parts[0] == "api" else parts  # datasets/ORG/NAME/…
        repo, rest = "/".join(parts[1:3]), parts[3:]
        if repo in REFUSED:
            return self.refuse(*REFUSED[repo])
        if parts[0] != "datasets" or not any(known == repo for known, _ in self.hub.revisions):
            return self.refuse("RepoNotFound", 401)
        commit = self.hub.revisions.get((repo, rest[1])) if len(rest) > 1 else None
        if commit is None:
            return self.refuse("RevisionNotFound", 404)
        files = self.hub.commits[commit]
        match rest:
            case ["revision", _]:
                listed = [{"rfilename": name} for name in files]
                return self.send(json.dumps({"id": repo, "sha": commit, "siblings": listed}).encode())
            case ["tree", _] if parse_qs(url.query).get("recursive"):
                entries = [
                    {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for name, content in files.items()
                ]
                return self.send(json.dumps(entries).encode())
            case ["resolve", _, *name] if "/".join(name) in files:
                content = files["/".join(name)]
                etag = hashlib.sha1(content).hexdigest()
                return self.send(content, {"X-Repo-Commit": commit, "ETag": f'"{etag}"'})
        self.refuse("EntryNotFound", 404)

    do_HEAD = do_GET

    def send(self, content: bytes, headers: dict[str, str] | None = None, status: int = 200):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def refuse(self, code: str, status: int):
        self.send(b"", {"X-Error-Code": code} if code else None, status)

    def log_message(self, *_):
        pass
