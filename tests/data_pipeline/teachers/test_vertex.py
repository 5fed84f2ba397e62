"""The real google-genai client against a server on this machine: what it answers, and everything that goes wrong."""

import asyncio
import functools
import json
import sys

import pytest

from data_pipeline.teachers.asking import Asker
from data_pipeline.teachers.prices import Price
from data_pipeline.teachers.request import CallFailed, Failure, Request
from data_pipeline.teachers.settings import open_teacher
from data_pipeline.teachers.store import Store
from tests.data_pipeline.teachers.teacher_server import TeacherServer, error, gemini, image_for, vector_for

pytest.importorskip("google.genai")
RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1s"}
EMPTY = [{"candidates": []}, gemini([{"text": " "}]), gemini([{"text": "hm", "thought": True}])]
TEXT = Request("text", "say it", stage="facts")


@pytest.fixture(autouse=True)
def _token(monkeypatch):
    monkeypatch.setenv("TEST_TOKEN", "secret-token")


@pytest.fixture(scope="module", params=["with aiohttp", "without aiohttp"])
def _server(request):
    """Where aiohttp is installed, the client would use it by itself."""
    with pytest.MonkeyPatch.context() as patch, TeacherServer() as server:
        if request.param == "without aiohttp":
            patch.setitem(sys.modules, "aiohttp", None)
            patch.setattr("google.genai._api_client.has_aiohttp", False)
        yield server


@pytest.fixture(scope="module")
def _asker(_server, tmp_path_factory):
    """One for all tests, since making Google's client takes half a second."""
    waits = []

    async def wait(seconds):
        waits.append(seconds)
        await asyncio.sleep(0)

    prices = {"gemini-test": Price(1.0, output=10.0, image=60.0)}
    with Asker(Store(tmp_path_factory.mktemp("store")), prices, wait=wait) as asker:
        asker.waits = waits
        yield asker


@pytest.fixture
def server(_server):
    for kept in (_server.faults, _server.calls, _server.prompts):
        kept.clear()
    return _server


@pytest.fixture
def asker(_asker, tmp_path):
    _asker.store = Store(tmp_path / "store")
    _asker.waits.clear()
    _asker.failures.clear()
    return _asker


def teacher(server, wanted="text", **more):
    settings = server.vertex(api_key_env="TEST_TOKEN", at_once=4, **more)
    return _opened(json.dumps(settings), wanted)


@functools.cache
def _opened(settings, wanted):
    return open_teacher(json.loads(settings), "config.teachers.text", wanted=wanted)


def test_a_text_is_answered_with_its_version_usage_and_cost(server, asker):
    (reply,) = asker.ask(teacher(server), [TEXT])
    assert (reply.text, reply.model) == ("answer to say it", "gemini-test-001")
    (sums,) = asker.store.sums()
    assert sums["usage"] == {"input": 11, "cached": 0, "output": 7, "thoughts": 5, "image": 0}
    assert sums["cost"] == pytest.approx((11 * 1.0 + 12 * 10.0) / 1e6)
    path, body = server.calls[0]
    assert path == "/v1beta1/projects/p/locations/global/publishers/google/models/gemini-test:generateContent"
    assert body["generationConfig"]["maxOutputTokens"] == 4096


def test_an_answer_is_paid_for_once(server, asker):
    one = teacher(server)
    assert asker.ask(one, [TEXT, TEXT]) == asker.ask(one, [TEXT]) * 2
    assert len(server.calls) == 1
    asker.ask(teacher(server), [Request("text", "say it", sample=1)])
    seeds = [call[1]["generationConfig"]["seed"] for call in server.calls]
    assert len(set(seeds)) == 2 and all(0 <= seed < 2**31 for seed in seeds)


def test_an_image_and_an_embedding_are_answered(server, asker):
    image = Request("image", "a lamp", stage="images")
    one = teacher(server, "image")
    asker.ask(one, [image])
    assert asker.image_of(one, image).read() == image_for("a lamp")
    assert asker.store.sums()[0]["usage"]["image"] == 1120
    imagen = teacher(server, "image", model="imagen-4.0-generate-001")
    asker.ask(imagen, [image])
    assert asker.image_of(imagen, image).read() == image_for("a lamp")
    for model in ("gemini-embedding-2", "text-embedding-005"):
        (reply,) = asker.ask(teacher(server, "embedding", model=model), [Request("embedding", "a lamp")])
        assert reply.vector == pytest.approx(vector_for("a lamp"))


@pytest.mark.parametrize(
    ("fault", "least_wait"),
    [
        (error(429, "RESOURCE_EXHAUSTED", Retry_After="1"), 1.0),
        (
            error(
                429,
                "RESOURCE_EXHAUSTED",
                details=[{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1s"}],
            ),
            1.0,
        ),
        (error(429, "RESOURCE_EXHAUSTED"), 0.5),
        (error(500, "INTERNAL"), 0.5),
        (error(503, "UNAVAILABLE", Retry_After="1"), 1.0),
        ((502, {"Content-Type": "text/html"}, "<html>bad gateway</html>"), 0.5),
        ("drop", 0.5),
        ("half", 0.5),
    ],
    ids=["429 header", "429 details", "429", "500", "503", "502 html", "dropped", "half a body"],
)
def test_what_passes_is_sent_again_once_after_a_wait(server, asker, fault, least_wait):
    server.faults.append(fault)
    (reply,) = asker.ask(teacher(server), [TEXT])
    assert reply.text == "answer to say it"
    assert len(server.calls) == 2
    assert len(asker.waits) == 1 and asker.waits[0] >= least_wait


def test_a_call_that_hangs_times_out_and_is_sent_again(server, asker):
    server.faults.append("hang")
    (reply,) = asker.ask(teacher(server, timeout_s=2.0), [TEXT])
    assert reply.text == "answer to say it"
    # A machine that is busy may be late once more; nothing else may go wrong, and nothing is sent twice at once.
    assert set(asker.failures) == {"timed out"}
    assert len(server.calls) == asker.failures["timed out"] + 1


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        ({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 4}}, "blocked prompt"),
        (gemini(None, "SAFETY"), "blocked answer"),
        (gemini(None, "IMAGE_SAFETY"), "blocked answer"),
        (gemini(None, "RECITATION"), "blocked answer"),
        (gemini([{"text": '{"half": '}], "MAX_TOKENS"), "cut off"),
        (gemini(None, "NO_IMAGE"), "no image"),
        (gemini([{"text": "x"}], "SOMETHING_NEW"), "stopped for an unknown reason"),
    ],
    ids=["prompt", "safety", "image safety", "recitation", "max tokens", "no image", "unknown"],
)
def test_what_asking_again_would_not_change_is_kept_as_a_failure_and_paid_once(server, asker, answer, failure):
    server.faults.append(lambda _: answer)
    one = teacher(server)
    for _ in range(2):
        (outcome,) = asker.ask(one, [TEXT])
        assert isinstance(outcome, Failure) and outcome.reason == failure
    assert len(server.calls) == 1
    assert asker.store.spent() > 0


@pytest.mark.parametrize("kind", ["vertex", "openai"])
def test_an_answer_that_is_cut_off_is_taken_as_it_is_where_that_is_asked_for(server, asker, kind):
    def cut(answer):
        if kind == "vertex":
            return gemini([{"text": "so"}, {"text": "far"}], "MAX_TOKENS")
        choice = {"message": {"role": "assistant", "content": "sofar"}, "finish_reason": "length", "index": 0}
        return {"id": "c-1", "model": "test-0001", "choices": [choice], "usage": {}}

    server.faults.extend([cut, cut])
    one = teacher(server) if kind == "vertex" else open_teacher(server.openai(), "config.teachers.text", wanted="text")
    kept, refused = (asker.ask(one, [Request("text", "say it", partial=partial)])[0] for partial in (True, False))
    assert kept.text == "sofar" and refused.reason == "cut off"


@pytest.mark.parametrize(
    "answer", [{"candidates": []}, gemini([{"text": " "}]), gemini([{"text": "hm", "thought": True}])]
)
def test_an_empty_answer_is_asked_again_and_given_up_after_three(server, asker, answer):
    server.faults.append(lambda _: answer)
    assert asker.ask(teacher(server), [TEXT])[0].text == "answer to say it"
    server.faults.extend([lambda _: answer] * 3)
    (outcome,) = asker.ask(teacher(server), [Request("text", "another")])
    assert outcome.reason == "empty"
    assert server.prompts["another"] == 3


def test_an_image_model_that_answers_in_words_has_no_image(server, asker):
    server.faults.append(lambda _: gemini([{"text": "I would rather not"}]))
    (outcome,) = asker.ask(teacher(server, "image"), [Request("image", "a lamp")])
    assert outcome.reason == "no image"


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (error(401, "UNAUTHENTICATED"), "no credentials"),
        (error(403, "PERMISSION_DENIED"), "no permission"),
        (error(404, "NOT_FOUND"), "no such model"),
        (error(400, "INVALID_ARGUMENT"), "bad request"),
        (error(429, "RESOURCE_EXHAUSTED", Retry_After="86400"), "quota is used up"),
    ],
    ids=["401", "403", "404", "400", "quota"],
)
def test_what_would_stop_every_call_ends_the_run_in_a_line(server, asker, fault, line):
    server.faults.append(fault)
    with pytest.raises(ValueError, match=f"gemini-test: .*{line}") as caught:
        asker.ask(teacher(server), [TEXT])
    assert "secret-token" not in str(caught.value)
    assert asker.ask(teacher(server), [TEXT])[0].text == "answer to say it"


def test_missing_credentials_are_told(server, asker, monkeypatch):
    monkeypatch.delenv("TEST_TOKEN")
    with pytest.raises(ValueError, match="no credentials: the environment variable TEST_TOKEN is not set"):
        asker.ask(teacher(server, location="europe-west4"), [TEXT])
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere.json")
    with pytest.raises(ValueError, match="no credentials: `gcloud auth application-default login`"):
        asker.ask(open_teacher(server.vertex(), "config.teachers.text", wanted="text"), [TEXT])


def test_an_exception_that_is_nobodys_is_not_taken_for_a_failure(server, asker, monkeypatch):
    from data_pipeline.teachers import vertex_forms

    monkeypatch.setattr(vertex_forms, "contents_of", lambda request: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        asker.ask(teacher(server), [TEXT])


def test_no_answer_at_all_is_told_by_reason_and_the_rest_is_kept(server, asker):
    server.faults.extend([error(500, "INTERNAL")] * 8)
    one = teacher(server)
    with pytest.raises(ValueError, match="1 of 1 requests got no answer from gemini-test .1 × server error."):
        asker.ask(one, [TEXT])
    assert asker.ask(one, [TEXT])[0].text == "answer to say it"


def test_call_failures_name_no_credentials():
    assert "token" not in str(CallFailed("no credentials", "x"))
