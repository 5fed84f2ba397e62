"""A server on this machine that speaks Vertex AI's and OpenAI's protocols, for tests with the real clients.

It answers every request by a function of the prompt alone, so that what a disturbed run makes can be compared with what
an undisturbed one makes; faults are planned beforehand, in the order of the calls.
"""

import base64
import collections
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[str], str]


class TeacherServer:
    """A context in which the server runs.

    Attributes:
      calls: (what was asked, the body) of everything asked, in order; `prompts` counts the prompts among them.
      faults: taken from the left, one a call; None is a call that goes well. Each is (status, headers, body), or
        "drop", "half", "hang", or a function of the answer that returns what is sent instead of it.
    """

    def __init__(self, answer: Answer = lambda prompt: f"answer to {prompt}", *, delay: float = 0.0):
        self.answer, self.delay = answer, delay
        self.faults: collections.deque[Any] = collections.deque()
        self.calls: list[tuple[str, dict]] = []
        self.prompts: collections.Counter[str] = collections.Counter()
        self.running = self.most_running = 0
        self.lock = threading.Lock()
        self.let_go = threading.Event()
        self.jobs = BatchJobs(self)
        self._server = _Server(("127.0.0.1", 0), type("Bound", (_Handler,), {"server_state": self}))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "TeacherServer":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.let_go.set()
        self._server.shutdown()
        self._server.server_close()

    def vertex(self, **more: Any) -> dict[str, Any]:
        """Settings of a teacher that asks here."""
        return {"kind": "vertex", "model": "gemini-test", "endpoint": self.url, "project": "p", **more}

    def openai(self, **more: Any) -> dict[str, Any]:
        return {"kind": "openai_compatible", "model": "test", "endpoint": f"{self.url}/v1", **more}


class BatchJobs:
    """Batch jobs over a store in memory (`tests.gcs_server.Store`).

    Attributes:
      objects: the store's, {(bucket, name): bytes}.
      changes: of the lines of the next job's answers, in turn; None for the lines as they are, else a function of them.
      states: what the next jobs end as, in turn; JOB_STATE_SUCCEEDED where there is none.
      made: {name: the job as it is told}.
    """

    def __init__(self, server: TeacherServer):
        self.server = server
        self.objects: dict[tuple[str, str], bytes] = {}
        self.changes: collections.deque[Any] = collections.deque()
        self.states: collections.deque[str] = collections.deque()
        self.made: dict[str, dict[str, Any]] = {}
        self.looks: collections.Counter[str] = collections.Counter()

    def make(self, body: dict[str, Any]) -> dict[str, Any]:
        name = f"projects/p/locations/global/batchPredictionJobs/{len(self.made) + 1}"
        self.made[name] = {**body, "name": name, "end": self.states.popleft() if self.states else "JOB_STATE_SUCCEEDED"}
        return {**body, "name": name, "state": "JOB_STATE_PENDING"}

    def seen(self, path: str) -> dict[str, Any]:
        name = re.sub(r"locations/[^/]+", "locations/global", path[path.index("projects/") :])
        if name.endswith("/batchPredictionJobs"):
            return {"batchPredictionJobs": [{**job, "state": "JOB_STATE_RUNNING"} for job in self.made.values()]}
        job = self.made[name]
        self.looks[name] += 1
        if self.looks[name] == 1:
            return {**job, "state": "JOB_STATE_RUNNING"}
        if self.looks[name] == 2:
            self._answer(job)
        told = {**job, "state": job["end"], "outputInfo": {"gcsOutputDirectory": "elsewhere"}}
        return (
            told if job["end"].endswith("SUCCEEDED") else {**told, "error": {"code": 9, "message": "planned to fail"}}
        )

    def _answer(self, job: dict[str, Any]) -> None:
        (source,) = job["inputConfig"]["gcsSource"]["uris"]
        lines = []
        for text in self.objects[_place(source)].decode().splitlines():
            line = json.loads(text)
            prompt = _prompt(":generateContent", line["request"])
            self.server.prompts[prompt] += 1
            response = _answered(":generateContent", line["request"], prompt, self.server.answer)
            lines.append({"status": "", "processed_time": "2026-11-29T00:00:00Z", **line, "response": response})
        change = self.changes.popleft() if self.changes else None
        lines = change(lines) if change else lines
        bucket, folder = _place(job["outputConfig"]["gcsDestination"]["outputUriPrefix"])
        half = len(lines) // 2
        for number, part in enumerate((lines[:half], lines[half:])):
            name = f"{folder}/prediction-model-2026/predictions-{number}.jsonl"
            content = "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in part)
            self.objects[bucket, name] = content.encode()


def _place(address: str) -> tuple[str, str]:
    bucket, _, name = address.removeprefix("gs://").partition("/")
    return bucket, name


class _Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    server_state: TeacherServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._respond(None, self.server_state.jobs.seen(self.path.partition("?")[0]))

    def do_POST(self) -> None:
        state = self.server_state
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        what = self.path.partition("?")[0]
        if what.endswith("/batchPredictionJobs"):
            return self._respond(None, state.jobs.make(body))
        prompt = _prompt(what, body)
        with state.lock:
            state.calls.append((what, body))
            state.prompts[prompt] += 1
            state.running += 1
            state.most_running = max(state.most_running, state.running)
            fault = state.faults.popleft() if state.faults else None
        try:
            if state.delay:
                time.sleep(state.delay)
            self._respond(fault, _answered(what, body, prompt, state.answer))
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            with state.lock:
                state.running -= 1

    def _respond(self, fault: Any, answer: dict[str, Any]) -> None:
        if callable(fault):
            answer = fault(answer)
        if fault == "hang":
            self.server_state.let_go.wait(30)
            fault = "drop"
        if fault == "drop":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        status, headers, content = 200, {}, json.dumps(answer).encode()
        if isinstance(fault, tuple):
            status, headers, content = fault[0], fault[1], fault[2].encode()
        if fault == "half":
            content = content[: len(content) // 2]
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_) -> None:
        pass


def error(status: int, code: str = "", *, details: list | None = None, **headers: str) -> tuple[int, dict, str]:
    """A fault as Google's servers answer one."""
    content = {"error": {"code": status, "message": f"planned {status}", "status": code, "details": details or []}}
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, json.dumps(content)


def image_for(prompt: str) -> bytes:
    """A small PNG that follows from the prompt."""
    import io

    import numpy as np
    import PIL.Image

    seed = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4], "big")
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).resize((56, 56), PIL.Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def vector_for(prompt: str) -> list[float]:
    return [byte / 255 for byte in hashlib.sha256(prompt.encode()).digest()[:8]]


def _prompt(what: str, body: dict) -> str:
    if what.endswith(":predict"):
        return body["instances"][0].get("prompt") or body["instances"][0]["content"]
    if what.endswith("/embeddings"):
        return body["input"][0]
    if what.endswith("/chat/completions"):
        content = body["messages"][-1]["content"]
        return content if isinstance(content, str) else content[-1]["text"]
    contents = body.get("contents") or [body["content"]]
    contents = contents if isinstance(contents, list) else [contents]
    return "".join(part.get("text", "") for part in contents[-1]["parts"])


def _answered(what: str, body: dict, prompt: str, answer: Answer) -> dict[str, Any]:
    if what.endswith("/chat/completions"):
        message = {"role": "assistant", "content": answer(prompt)}
        usage = {"prompt_tokens": len(prompt), "completion_tokens": 7, "total_tokens": len(prompt) + 7}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        return {"id": "c-1", "model": "test-0001", "choices": choices, "usage": usage}
    if what.endswith("/embeddings"):
        return {"model": "test-0001", "data": [{"embedding": vector_for(prompt)}], "usage": {"prompt_tokens": 3}}
    if what.endswith(":embedContent"):
        return {"embedding": {"values": vector_for(prompt)}}
    if what.endswith(":predict") and "prompt" in body["instances"][0]:
        encoded = base64.b64encode(image_for(prompt)).decode()
        return {"predictions": [{"bytesBase64Encoded": encoded, "mimeType": "image/png"}]}
    if what.endswith(":predict"):
        statistics = {"token_count": 3, "truncated": False}
        return {"predictions": [{"embeddings": {"values": vector_for(prompt), "statistics": statistics}}]}
    settings = body.get("generationConfig") or {}
    if "IMAGE" in (settings.get("responseModalities") or settings.get("response_modalities") or []):
        data = base64.b64encode(image_for(prompt)).decode()
        return gemini([{"inlineData": {"mimeType": "image/png", "data": data}}], image_tokens=1120)
    return gemini([{"text": answer(prompt)}])


def gemini(parts: list | None, finish: str = "STOP", *, image_tokens: int = 0) -> dict[str, Any]:
    """A response of generateContent."""
    candidate: dict[str, Any] = {"finishReason": finish}
    if parts is not None:
        candidate["content"] = {"role": "model", "parts": parts}
    usage: dict[str, Any] = {"promptTokenCount": 11, "candidatesTokenCount": image_tokens or 7, "thoughtsTokenCount": 5}
    if image_tokens:
        usage["candidatesTokensDetails"] = [{"modality": "IMAGE", "tokenCount": image_tokens}]
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-test-001", "responseId": "r1"}
