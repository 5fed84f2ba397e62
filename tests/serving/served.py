"""A server in this process, for tests, and raw requests to it."""

import contextlib
import dataclasses
import http.client
import json
import threading
import time
from collections.abc import Iterator

import openai

from vlm_jax.serving.app import Application
from vlm_jax.serving.server import Server, listening

NAME = "tiny_base"
HELLO = [{"role": "user", "content": "Hello"}]
SETTINGS = {
    "host": "127.0.0.1",
    "token": None,
    "batch": 8,
    "queue": 56,
    "cache_tokens": 4096,
    "patches": 65536,
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

    @property
    def model(self):
        """The model, once the server's thread has let go of it."""
        assert eventually(lambda: self.application.worker.idle, 120)
        return self.application.worker.model

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


def client_of(server, **options):
    address = f"http://127.0.0.1:{server.port}/v1"
    return openai.OpenAI(base_url=address, **{"api_key": "none", "max_retries": 0, "timeout": 120, **options})


def ask(client, messages, *, stream=False, **options):
    """The answers to a request as (text, finish reason), and its usage."""
    options = {"model": NAME, "messages": messages, "max_tokens": 12, **options}
    own = {key: options.pop(key) for key in ("top_k", "repetition_penalty") if key in options}
    if not stream:
        found = client.chat.completions.create(**options, extra_body=own)
        assert [choice.index for choice in found.choices] == list(range(len(found.choices)))
        return [(choice.message.content, choice.finish_reason) for choice in found.choices], found.usage
    texts, reasons, usage, ids = {}, {}, None, set()
    chunks = client.chat.completions.create(
        **options, stream=True, stream_options={"include_usage": True}, extra_body=own
    )
    for chunk in chunks:
        assert chunk.object == "chat.completion.chunk" and usage is None
        ids.add(chunk.id)
        usage = chunk.usage
        for choice in chunk.choices:
            assert choice.index not in reasons
            assert (choice.delta.role == "assistant") == (choice.index not in texts)
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
            if choice.finish_reason is not None:
                reasons[choice.index] = choice.finish_reason
    assert len(ids) == 1
    return [(texts[index], reasons[index]) for index in sorted(texts)], usage


def eventually(condition, seconds=60.0) -> bool:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()
