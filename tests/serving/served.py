"""A server in this process, for tests, and raw requests to it."""

import contextlib
import dataclasses
import http.client
import json
import threading
import time
from collections.abc import Iterator

from vlm_jax.serving.app import Application
from vlm_jax.serving.server import Server, listening

NAME = "tiny_base"
SETTINGS = {
    "host": "127.0.0.1",
    "token": None,
    "batch": 8,
    "queue": 56,
    "cache_tokens": 4096,
    "default_tokens": 16,
}


@dataclasses.dataclass
class Served:
    application: Application
    port: int
    reports: list[str]

    @property
    def places(self):
        return self.application.chat.places

    def request(self, method="POST", path="/v1/chat/completions", body=None, headers=None):
        """Status, headers, and the body as JSON; with headers of None left out."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        sent = {"Host": f"127.0.0.1:{self.port}", "Content-Type": "application/json", **(headers or {})}
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        try:
            connection.putrequest(method, path, skip_host=True)
            for name, value in {"Content-Length": str(len(data or b"")), **sent}.items():
                if value is not None:
                    connection.putheader(name, value)
            connection.endheaders(data)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), json.loads(response.read())
        finally:
            connection.close()


@contextlib.contextmanager
def served(model, **settings) -> Iterator[Served]:
    reports: list[str] = []
    application = Application(model, NAME, report=reports.append, **{**SETTINGS, **settings})
    listener = listening("127.0.0.1", 0)
    server = Server(application)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield Served(application, listener.getsockname()[1], reports)
    finally:
        server.should_exit = True
        thread.join(30)
        application.close(30)
        assert not thread.is_alive()


def eventually(condition, seconds=20.0) -> bool:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()
