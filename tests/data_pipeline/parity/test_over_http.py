"""The teacher is a tiny model behind HTTP, asked by the real OpenAI-compatible client, on a line that has faults."""

import collections
import http.client
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import vlm_jax
from data_pipeline.parity.aligning import Options, align
from data_pipeline.parity.pairs import read_compared, read_pairs
from data_pipeline.teachers import sending
from tests.consoles import Lines
from tests.data_pipeline.parity.conftest import NAMES
from tests.serving.served import NAME, served
from vlm_jax.errors import InputError


class Line:
    """Hands requests on to a server, or answers with a fault instead, in the order in which they come.

    Attributes:
      faults: taken from the left; None hands on, a (status, headers, body) is answered instead, a function changes what
        the server answered.
      bodies: of all requests.
    """

    def __init__(self, port):
        self.port, self.faults, self.bodies = port, collections.deque(), []
        own = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                own.bodies.append(json.loads(body))
                fault = own.faults.popleft() if own.faults else None
                status, headers, answer = fault if isinstance(fault, tuple) else own.handed_on(self.path, body)
                if callable(fault):
                    answer = json.dumps(fault(json.loads(answer))).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(answer))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def handed_on(self, path, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, {"Content-Type": "application/json"}, response.read()

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def teacher(world):
    with served(vlm_jax.load(world / "teacher")) as server:
        yield server


@pytest.fixture
def line(teacher, monkeypatch):
    monkeypatch.setattr(sending, "LONGEST_WAIT", 0.05)
    with Line(teacher.port) as line:
        yield line


def config_over(config_of_world, line):
    config = config_of_world(teachers={"text": {"kind": "openai_compatible", "model": NAME, "endpoint": line.url}})
    config.teachers.text.at_once = 1  # so that no request meets three faults
    return config


def aligned(folder, config, **options):
    lines = []
    return align(folder, config, Options(**options), say=lines.append, console=Lines()), lines


def cut(answer):
    """As a server ends an answer that reached its most tokens: in the middle of the question."""
    answer["choices"][0]["message"]["content"] = "Question: What is its na"
    answer["choices"][0]["finish_reason"] = "length"
    return answer


def nonsense(answer):
    answer["choices"][0]["message"]["content"] = "I would rather not."
    return answer


BUSY = (429, {"Retry-After": "0"}, b'{"error": {"message": "slow down"}}')
DOWN = (503, {}, b"<html>upstream</html>")


def test_faults_on_the_line_change_nothing(config_of_world, line, tmp_path):
    line.faults.extend([BUSY, None, DOWN, nonsense, None, cut, BUSY, None, nonsense])
    config = config_over(config_of_world, line)
    aligned(tmp_path / "http", config, until="identify")
    aligned(tmp_path / "here", config_of_world(), until="identify")
    found, expected = (read_pairs(tmp_path / name / "round-1" / "annotated.jsonl") for name in ("http", "here"))
    assert len(found) == len(NAMES) and [p.answer for p in found] == [p.answer for p in expected]
    told = [
        [one.teacher for one in read_compared(tmp_path / name / "round-1" / "compared.jsonl")]
        for name in ("http", "here")
    ]
    assert told[0] == told[1]
    first, last = line.bodies[0], line.bodies[-1]
    assert first["max_tokens"] == 24 and last["max_tokens"] == 8 and "max_output_tokens" not in first
    assert last["messages"][0]["content"][-1]["text"] == "What is its name?\nOne word."


def test_a_teacher_that_fails_midway_leaves_what_it_said_and_is_asked_the_rest(config_of_world, line, tmp_path):
    refused = (401, {}, b'{"error": {"message": "key expired"}}')
    config = config_over(config_of_world, line)
    line.faults.extend([None, None, None, refused])
    with pytest.raises(InputError, match="key expired"):
        aligned(tmp_path / "work", config, until="annotate")
    asked = len(line.bodies)
    aligned(tmp_path / "work", config, until="annotate")
    assert len(line.bodies) == asked + len(NAMES) - 3
    assert len(read_pairs(tmp_path / "work" / "round-1" / "annotated.jsonl")) == len(NAMES)


def test_what_stays_nonsense_is_left_out_told_and_not_paid_for_again(config_of_world, line, tmp_path):
    line.faults.extend([nonsense] * 3 * 3)
    config = config_over(config_of_world, line)
    config.images.most = 3
    for _ in range(2):
        with pytest.raises(InputError) as caught:
            aligned(tmp_path / "work", config, until="annotate")
        assert caught.value.lines[0].startswith("annotate: no pair is left; see ")
        assert "I would rather not." in caught.value.lines[1]
        assert len(line.bodies) == 9, "each is asked three times"
