"""A server on this machine that takes CustomJobs as Vertex AI does, for tests with Google's own client."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class VertexServer:
    """A context in which the server runs.

    Attributes:
      calls: (path with its query, headers, body) of everything that was sent.
      refusals: (status, Google's word for it, message), taken from the left, one a call.
    """

    def __init__(self):
        self.calls: list[tuple[str, dict, dict]] = []
        self.refusals: list[tuple[int, str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"state": self}))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "VertexServer":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    state: VertexServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.state.calls.append((self.path, dict(self.headers), body))
        status, answer = 200, {**body, "state": "JOB_STATE_PENDING"}
        answer["name"] = self.path.partition("/v1/")[2].partition("?")[0] + f"/{len(self.state.calls)}"
        if self.state.refusals:
            status, word, message = self.state.refusals.pop(0)
            answer = {"error": {"code": status, "status": word, "message": message}}
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_) -> None:
        pass
