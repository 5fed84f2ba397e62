"""Responses of no known form end in a reason or in another try, never in an exception of Python's own."""

import json

import pytest

from data_pipeline.teachers.asking import Asker
from data_pipeline.teachers.request import Request
from data_pipeline.teachers.settings import checked, open_teacher
from data_pipeline.teachers.store import Store
from tests.data_pipeline.teachers.teacher_server import TeacherServer

pytest.importorskip("google.genai")


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("TEST_TOKEN", "secret-token")
    with TeacherServer() as server:
        yield server


async def at_once(seconds):
    pass


def asked(tmp_path, settings):
    with Asker(Store(tmp_path / "store"), wait=at_once) as asker:
        return asker.ask(open_teacher(settings, "config.teachers.text", wanted="text"), [Request("text", "a question")])


def changed(**changes):
    def change(answer):
        (choice,) = answer["choices"]
        own = {name: changes[name] for name in ("usage", "model") if name in changes}
        other = {name: changes[name] for name in ("message", "finish_reason") if name in changes}
        return {**answer, **own, "choices": [{**choice, **other}]}

    return change


@pytest.mark.parametrize(
    "fault",
    [
        changed(usage=[1]),
        changed(usage={"prompt_tokens": "12", "completion_tokens_details": 3}),
        changed(message="text"),
        (200, {}, "[" * 100_000),
    ],
)
def test_an_openai_server_that_answers_in_no_known_form_is_asked_again_or_read_as_far_as_it_goes(
    tmp_path, server, fault
):
    server.faults.append(fault)
    assert asked(tmp_path, server.openai())[0].text == "answer to a question"


def test_a_finish_reason_that_is_no_text_is_an_unknown_one(tmp_path, server):
    server.faults.append(changed(finish_reason=["stop"]))
    assert asked(tmp_path, server.openai())[0].reason == "stopped for an unknown reason"


@pytest.mark.parametrize(
    "fault",
    [
        lambda answer: {"candidates": "x"},
        lambda answer: {**answer, "usageMetadata": {"promptTokenCount": "many"}},
        (200, {}, "[" * 100_000),
        (500, {}, '{"error": "boom"}'),
        (429, {}, json.dumps({"error": {"code": 429, "message": "x", "details": 7}})),
    ],
)
def test_vertex_that_answers_in_no_known_form_is_asked_again(tmp_path, server, fault):
    server.faults.append(fault)
    assert asked(tmp_path, server.vertex(api_key_env="TEST_TOKEN"))[0].text == "answer to a question"


def test_half_a_surrogate_pair_is_kept_as_a_question_mark(tmp_path, server):
    server.answer = lambda prompt: "an \ud800 answer"
    server.faults.append(changed(model="\udfff"))
    assert [asked(tmp_path, server.openai())[0].text for _ in range(2)] == ["an ? answer"] * 2
    assert len(server.calls) == 1


@pytest.mark.parametrize("key", ["sk-sec\nret", "sk-secrét", "sk sec ret"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(tmp_path, server, monkeypatch, key):
    monkeypatch.setenv("ODD_KEY", key)
    for settings in (server.openai(api_key_env="ODD_KEY"), server.vertex(api_key_env="ODD_KEY")):
        with pytest.raises(ValueError, match="the environment variable ODD_KEY holds no key") as caught:
            asked(tmp_path, settings)
        assert "sec" not in str(caught.value)
    assert not server.calls


def test_numbers_that_would_ask_nothing_or_wait_for_ever_are_refused(server):
    wrong = server.openai(at_once=0, requests_per_minute=-1, timeout_s=float("nan"), max_output_tokens=0)
    with pytest.raises(ValueError) as caught:
        checked(wrong, "config.teachers.text")
    for line in ("at_once is 0", "requests_per_minute is -1", "timeout_s is nan", "max_output_tokens is 0"):
        assert f"config.teachers.text.{line}; wanted" in str(caught.value)


def test_what_a_client_holds_is_given_back(tmp_path, server):
    teacher = open_teacher(server.vertex(api_key_env="TEST_TOKEN"), "config.teachers.text", wanted="text")
    with Asker(Store(tmp_path / "store")) as asker:
        asker.ask(teacher, [Request("text", "a question")])
        connection = teacher._http
    assert connection.is_closed
