"""Batch jobs of Vertex AI with the real client, over a storage and a service on this machine that misbehave as seen."""

import asyncio
import json
import random

import pytest

from data_pipeline.teachers.asking import Asker
from data_pipeline.teachers.prices import Price
from data_pipeline.teachers.request import CallFailed, Failure, Request
from data_pipeline.teachers.settings import open_teacher
from data_pipeline.teachers.store import Store
from tests.data_pipeline.teachers.teacher_server import TeacherServer, image_for

pytest.importorskip("google.genai")
PRICE = {"gemini-test": Price(1.0, output=10.0, image=60.0, batch=0.5)}


@pytest.fixture
def server(store, monkeypatch):
    monkeypatch.setenv("TEST_TOKEN", "secret-token")
    store.buckets.add("batches")
    with TeacherServer() as server:
        server.jobs.objects = _Objects(store)
        yield server


class _Objects(dict):
    """The objects of the store, each write a new generation of its own."""

    def __init__(self, store):
        super().__init__()
        self.store = store

    def __getitem__(self, key):
        return self.store.objects[key]

    def __setitem__(self, key, content):
        self.store.put(key, content, {})


def asker(tmp_path, **more):
    return Asker(Store(tmp_path / "store"), PRICE, wait=lambda seconds: asyncio.sleep(0), **more)


def teacher(server, tmp_path, wanted="text", **more):
    settings = server.vertex(api_key_env="TEST_TOKEN", batch_folder=f"gs://batches/{tmp_path.name}", **more)
    return open_teacher(settings, "config.teachers.text", wanted=wanted)


def requests(count):
    return [Request("text", f"question {number}", stage="questions") for number in range(count)]


def texts(count):
    return [f"answer to question {number}" for number in range(count)]


def test_a_batch_answers_all_at_its_price_in_whatever_order(server, tmp_path):
    server.jobs.changes.append(lambda lines: random.Random(0).sample(lines, len(lines)))
    with asker(tmp_path) as one:
        replies = one.ask(teacher(server, tmp_path), requests(20))
        assert [reply.text for reply in replies] == texts(20)
        assert one.store.spent() == pytest.approx(20 * 0.5 * (11 * 1.0 + 12 * 10.0) / 1e6)
    assert not server.calls and len(server.jobs.made) == 1
    with asker(tmp_path) as one:
        one.ask(teacher(server, tmp_path), requests(20))
    assert len(server.jobs.made) == 1


def test_a_job_is_the_one_that_the_client_of_vertex_ai_sends_and_either_sees_the_others(server, tmp_path):
    aiplatform = pytest.importorskip("google.cloud.aiplatform")
    from google.auth.credentials import AnonymousCredentials

    with asker(tmp_path) as one:
        assert [reply.text for reply in one.ask(teacher(server, tmp_path), requests(4))] == texts(4)
    ((name, ours),) = server.jobs.made.items()
    aiplatform.init(
        project="p",
        location="us-central1",
        api_endpoint=server.url,
        api_transport="rest",
        credentials=AnonymousCredentials(),
    )
    theirs = aiplatform.BatchPredictionJob.submit(
        job_display_name=ours["displayName"],
        model_name=ours["model"],
        instances_format="jsonl",
        predictions_format="jsonl",
        gcs_source=ours["inputConfig"]["gcsSource"]["uris"],
        gcs_destination_prefix=ours["outputConfig"]["gcsDestination"]["outputUriPrefix"],
    )
    sent = server.jobs.made[theirs.resource_name]
    for key in ("displayName", "model", "inputConfig", "outputConfig"):
        assert sent[key] == ours[key], key
    assert set(sent) - set(ours) <= {"manualBatchTuningParameters", "labels", "instanceConfig"}
    seen = aiplatform.BatchPredictionJob(name.replace("locations/global", "locations/us-central1"))
    assert seen.state.name == "JOB_STATE_SUCCEEDED"


def test_objects_and_images_come_by_batch_as_well(server, tmp_path):
    schema = {"type": "object", "properties": {"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}}}
    with asker(tmp_path) as one:
        one.ask(teacher(server, tmp_path), [Request("text", "q", schema=schema)])
        image = Request("image", "a lamp")
        maker = teacher(server, tmp_path, "image")
        one.ask(maker, [image])
        assert one.image_of(maker, image).read() == image_for("a lamp")
    written = next(job for job in server.jobs.made.values())
    (source,) = written["inputConfig"]["gcsSource"]["uris"]
    line = json.loads(server.jobs.objects[("batches", source.removeprefix("gs://batches/"))])
    assert line["custom_id"].startswith("r-")
    text = json.dumps(line["request"])
    assert "$defs" not in text and "null" not in text.replace("nullable", "")
    assert line["request"]["generationConfig"]["responseSchema"]["properties"]["a"]["nullable"] is True


def test_lines_that_failed_or_are_missing_go_into_the_next_job(server, tmp_path):
    def spoil(lines):
        failed = {key: value for key, value in lines[3].items() if key != "response"}
        status = 'Too Many Requests: {"error": {"code": 429, "message": "planned"}}'
        return [*lines[:2], {**failed, "status": status}, "half a li", "\n", *lines[5:]]

    server.jobs.changes.append(spoil)
    with asker(tmp_path) as one:
        assert [reply.text for reply in one.ask(teacher(server, tmp_path), requests(10))] == texts(10)
        assert one.failures == {"rate limited": 1}
    assert [len(_lines(server, job)) for job in server.jobs.made.values()] == [10, 3]


def test_an_answer_belongs_to_the_request_that_it_repeats_not_to_its_id(server, tmp_path):
    def exchange(lines):
        ids = [line["custom_id"] for line in lines]
        return [{**line, "custom_id": other} for line, other in zip(lines, ids[1:] + ids[:1], strict=True)]

    def number(lines):
        return [{**line, "custom_id": 17, "request": {**line["request"], "labels": None}} for line in lines]

    def stranger(lines):
        other = {"contents": [{"role": "user", "parts": [{"text": "somebody else's"}]}]}
        return [{**lines[0], "request": other}, *lines[1:]]

    for place, change in enumerate((exchange, number, stranger)):
        server.jobs.changes.append(change)
        with asker(tmp_path / str(place)) as one:
            assert [reply.text for reply in one.ask(teacher(server, tmp_path), requests(6))] == texts(6)


def test_what_is_blocked_or_fails_its_check_in_a_batch_is_as_in_a_call(server, tmp_path):
    def block(lines):
        return [{**lines[0], "response": {"promptFeedback": {"blockReason": "SAFETY"}}}, *lines[1:]]

    def check(request, reply):
        if "question 1" in reply.text and len(server.jobs.made) == 1:
            raise CallFailed("not what was asked for", "no object")

    server.jobs.changes.append(block)
    with asker(tmp_path) as one:
        replies = one.ask(teacher(server, tmp_path), requests(3), check)
    assert replies[0] == Failure("blocked prompt", "SAFETY")
    assert [reply.text for reply in replies[1:]] == texts(3)[1:]
    assert [len(_lines(server, job)) for job in server.jobs.made.values()] == [3, 1]


@pytest.mark.parametrize("state", ["JOB_STATE_PARTIALLY_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_EXPIRED"])
def test_what_a_job_finished_is_kept_however_it_ended(server, tmp_path, state):
    server.jobs.states.append(state)
    server.jobs.changes.append(lambda lines: lines[:7])
    with asker(tmp_path) as one:
        if state == "JOB_STATE_PARTIALLY_SUCCEEDED":
            one.ask(teacher(server, tmp_path), requests(10))
        else:
            with pytest.raises(ValueError, match="batch job 1 is .* brought 7 of 10 answers .planned to fail"):
                one.ask(teacher(server, tmp_path), requests(10))
        assert [reply.text for reply in one.ask(teacher(server, tmp_path), requests(10))] == texts(10)
    assert [len(_lines(server, job)) for job in server.jobs.made.values()] == [10, 3]
    assert set(server.prompts.values()) == {1, 2}


def test_a_job_that_succeeded_with_no_answer_at_all_is_a_failure(server, tmp_path):
    def fail(lines):
        status = 'Bad Request: {"error": {"code": 400, "message": "no such field"}}'
        return [{"status": status, "custom_id": line["custom_id"], "request": line["request"]} for line in lines]

    server.jobs.changes.append(fail)
    with asker(tmp_path) as one, pytest.raises(ValueError, match="is succeeded and brought 0 of 4 .*no such field"):
        one.ask(teacher(server, tmp_path), requests(4))


@pytest.mark.parametrize("moment", ["before it is made", "after it is made", "while it runs"])
def test_a_run_that_was_killed_finds_its_job_again(server, tmp_path, moment, monkeypatch):
    from data_pipeline.teachers.vertex import Vertex

    class Killed(BaseException):
        pass

    create, state = Vertex.create_job, Vertex.job_state

    async def killed_in_create(self, *words):
        if moment == "after it is made":
            await create(self, *words)
        raise Killed

    async def killed_in_wait(self, name):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Vertex, "create_job", create if moment == "while it runs" else killed_in_create)
        patch.setattr(Vertex, "job_state", killed_in_wait if moment == "while it runs" else state)
        with pytest.raises(Killed), asker(tmp_path) as one:
            one.ask(teacher(server, tmp_path), requests(5))
    with asker(tmp_path) as one:
        assert [reply.text for reply in one.ask(teacher(server, tmp_path), requests(5))] == texts(5)
    assert len(server.jobs.made) == 1
    assert set(server.prompts.values()) == {1}


def test_a_batch_is_no_larger_than_may_be_paid_for(server, tmp_path):
    # A request may come to 100 tokens of output, half a tenth of a cent, and its few tokens of input.
    with asker(tmp_path, max_cost=0.002) as one:
        with pytest.raises(ValueError, match="--max_cost=0.002 is reached"):
            one.ask(teacher(server, tmp_path, max_output_tokens=100), requests(30))
        assert 0.001 < one.store.spent() < 0.002
    sizes = [len(_lines(server, job)) for job in server.jobs.made.values()]
    assert sizes[0] == 3 and sum(sizes) == sum(server.prompts.values()) < 30


def test_a_folder_that_is_no_storage_is_refused(server, tmp_path):
    with pytest.raises(ValueError, match="batch_folder is '/tmp'; wanted an address such as gs://bucket/folder"):
        open_teacher(server.vertex(batch_folder="/tmp"), "config.teachers.text", wanted="text")
    settings = server.vertex(api_key_env="TEST_TOKEN", batch_folder="gs://nowhere/x")
    with asker(tmp_path) as one, pytest.raises(ValueError, match="gs://nowhere/x"):
        one.ask(open_teacher(settings, "config.teachers.text", wanted="text"), requests(2))


def _lines(server, job):
    (source,) = job["inputConfig"]["gcsSource"]["uris"]
    bucket, _, name = source.removeprefix("gs://").partition("/")
    return server.jobs.objects[(bucket, name)].decode().splitlines()


def test_a_run_that_asks_less_leaves_the_rest_of_a_job_for_the_next_and_closes_its_client(server, tmp_path):
    class Killed(BaseException):
        pass

    async def killed(name):
        raise Killed

    first = teacher(server, tmp_path)
    first.job_state = killed
    with asker(tmp_path) as one, pytest.raises(Killed):
        one.ask(first, requests(20))
    assert first._client is None
    for count in (2, 20, 20):  # a preview, then the whole
        with asker(tmp_path) as one:
            assert [reply.text for reply in one.ask(teacher(server, tmp_path), requests(count))] == texts(count)
    assert len(server.jobs.made) == 1 and one.store.open_jobs("gemini-test") == []


def test_what_a_job_brought_that_could_not_be_used_is_paid_for_once(server, tmp_path):
    class Killed(BaseException):
        pass

    async def killed(name):
        raise Killed

    def check(one, reply):
        if one.prompt == "question 0":
            raise CallFailed("not what was asked for", "too short")

    first = teacher(server, tmp_path)
    first.job_state = killed
    with asker(tmp_path) as one, pytest.raises(Killed):
        one.ask(first, requests(20))
    with asker(tmp_path) as one, pytest.raises(ValueError, match="brought 0 of 1 answers"):
        one.ask(teacher(server, tmp_path), requests(2), check=check)
    with asker(tmp_path) as one:
        assert [reply.text for reply in one.ask(teacher(server, tmp_path), requests(20))] == texts(20)
        each = 0.5 * (11 * 1.0 + 12 * 10.0) / 1e6
        assert one.store.spent() == pytest.approx(sum(server.prompts.values()) * each)
