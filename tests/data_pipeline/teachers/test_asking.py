"""Never paid twice, never more than allowed, and no faster than the server wants: asking over a real connection."""

import asyncio
import json
import os
import signal
import threading

import pytest

from data_pipeline.teachers import sending
from data_pipeline.teachers.asking import Asker
from data_pipeline.teachers.limits import Limits
from data_pipeline.teachers.prices import Price, prices_of
from data_pipeline.teachers.request import CallFailed, Failure, Reply, Request
from data_pipeline.teachers.settings import as_text, checked, in_text, open_teacher
from data_pipeline.teachers.store import Store
from tests.data_pipeline.teachers.teacher_server import TeacherServer, error, vector_for


@pytest.fixture
def server():
    with TeacherServer() as server:
        yield server


def asker(tmp_path, **more):
    async def wait(seconds):
        await asyncio.sleep(0)

    return Asker(Store(tmp_path / "store"), wait=wait, **more)


def teacher(server, wanted="text", **more):
    return open_teacher(server.openai(**more), "config.teachers.text", wanted=wanted)


def requests(count, **more):
    return [Request("text", f"question {number}", stage="questions", **more) for number in range(count)]


def test_text_objects_and_embeddings_are_asked_as_openai_has_them(server, tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_KEY", "secret")
    with asker(tmp_path) as one:
        schema = {"type": "object", "properties": {"a": {"type": "string"}}}
        (reply,) = one.ask(
            teacher(server, api_key_env="TEST_KEY", extra={"top_k": 3}), [Request("text", "q", schema=schema)]
        )
        assert (reply.text, reply.model) == ("answer to q", "test-0001")
        body = server.calls[0][1]
        assert body["response_format"]["json_schema"]["schema"] == schema
        assert (body["top_k"], body["max_tokens"]) == (3, 4096)
        (vector,) = one.ask(teacher(server, "embedding"), [Request("embedding", "q")])
        assert vector.vector == pytest.approx(vector_for("q"))
    assert b"secret" not in (tmp_path / "store" / "replies.sqlite").read_bytes()


def test_asking_works_within_an_event_loop_as_in_a_notebook_which_then_goes_on(server, tmp_path):
    async def cell():
        with asker(tmp_path) as one:
            (reply,) = one.ask(teacher(server), requests(1))
        await asyncio.sleep(0)
        return reply.text, asyncio.get_running_loop().is_running()

    assert asyncio.run(cell()) == ("answer to question 0", True)


def test_answers_outlive_the_process_and_equal_requests_are_one(server, tmp_path):
    wanted = [f"answer to question {number}" for number in range(20)]
    with asker(tmp_path) as first:
        assert [reply.text for reply in first.ask(teacher(server), requests(20) + requests(5))] == wanted + wanted[:5]
    with asker(tmp_path) as second:
        assert [reply.text for reply in second.ask(teacher(server), requests(20))] == wanted
    assert len(server.calls) == 20


def test_of_two_that_asked_the_same_the_first_answer_stays(tmp_path):
    one, other = Store(tmp_path), Store(tmp_path)
    own = Request("text", "q", stage="s")
    one.keep("key", own, "m", Reply(text="first"), cost=0.0)
    other.keep("key", own, "m", Reply(text="second"), cost=0.0)
    assert one.outcomes(["key"])["key"].text == "first" and other.spent() == 0 and len(other.sums()) == 1
    one.close(), other.close()


def test_a_teacher_whose_answers_were_all_known_rests_too(server, tmp_path, monkeypatch):
    with asker(tmp_path) as first:
        first.ask(teacher(server), requests(2))
    closed, own = [], teacher(server)

    async def close():
        closed.append(True)

    monkeypatch.setattr(own, "close", close)
    with asker(tmp_path) as second:
        second.ask(own, requests(2))
        second.rest()
        assert closed, "its name is that of its weights, which were loaded for it"


def test_what_decides_the_answer_is_in_the_key_and_nothing_else(server, tmp_path):
    with asker(tmp_path) as one:
        plain = teacher(server)
        one.ask(plain, [Request("text", "q", stage="a", subject={"topic": "x"})])
        one.ask(plain, [Request("text", "q", stage="b")])
        assert len(server.calls) == 1
        for other in (
            Request("text", "q", sample=1),
            Request("text", "q", schema={"type": "object"}),
            Request("text", "q", parameters={"temperature": 0.5}),
        ):
            one.ask(plain, [other])
        one.ask(teacher(server, temperature=0.2), [Request("text", "q")])
        one.ask(teacher(server, model="other"), [Request("text", "q")])
        assert len(server.calls) == 6


def test_faults_on_the_way_lose_nothing_and_repeat_nothing(server, tmp_path, monkeypatch):
    monkeypatch.setattr(sending, "ATTEMPTS", 100)  # they come without a wait, and one request may meet many
    faults = [error(429, Retry_After="0"), None, "drop", "half", error(500), None, error(503), (200, {}, "[]")]
    server.faults.extend(faults * 6)
    with asker(tmp_path) as one:
        replies = one.ask(teacher(server), requests(40))
        assert [reply.text for reply in replies] == [f"answer to question {number}" for number in range(40)]
        assert one.failures.total() == 36
    assert len(server.calls) == 40 + 36


def test_a_run_never_costs_more_than_it_may(server, tmp_path):
    price = {"test": Price(input=0.0, output=100.0)}
    # An answer may take 100 tokens, a cent, and takes seven.
    settings = {"max_output_tokens": 100, "at_once": 4}
    with asker(tmp_path, prices=price, max_cost=0.03) as one:
        with pytest.raises(ValueError, match=r"--max_cost=0.03 is reached"):
            one.ask(teacher(server, **settings), requests(60))
        spent, asked = one.store.spent(), len(server.calls)
        assert 0.02 < spent <= 0.03
        assert spent == pytest.approx(asked * 7 * 100 / 1e6)
    with asker(tmp_path, prices=price, max_cost=0.10) as one:
        one.ask(teacher(server, **settings), requests(60))
    assert len(server.calls) == 60


def test_an_answer_that_fails_its_check_is_asked_again_and_given_up_after_three(server, tmp_path):
    def check(request, reply):
        if "3" in reply.text or server.prompts[request.prompt] == 1:
            raise CallFailed("not what was asked for", "no object")

    with asker(tmp_path, prices={"test": Price(output=1.0)}) as one:
        replies = one.ask(teacher(server), requests(5), check)
        assert [type(reply).__name__ for reply in replies] == ["Reply"] * 3 + ["Failure", "Reply"]
        assert replies[3] == Failure("not what was asked for", "no object")
        assert server.prompts == {f"question {number}": 3 if number == 3 else 2 for number in range(5)}
        assert one.store.spent() == pytest.approx(11 * 7 / 1e6)
        one.ask(teacher(server), requests(5), check)
    assert len(server.calls) == 11


def test_a_server_that_is_down_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(sending, "IN_A_ROW", 2)
    server.faults.extend([error(500)] * 1000)
    with asker(tmp_path) as one, pytest.raises(ValueError, match="does not answer .server error: 500 planned 500"):
        one.ask(teacher(server, at_once=4), requests(50))
    assert len(server.calls) < 30


def test_no_more_calls_are_on_their_way_than_allowed(server, tmp_path):
    server.delay = 0.01
    with asker(tmp_path) as one:
        one.ask(teacher(server, at_once=3), requests(30))
    assert 2 <= server.most_running <= 3


def test_refusals_for_load_halve_the_number_at_once_and_answers_raise_it_again():
    now = [0.0]
    limits = Limits(at_once=16, clock=lambda: now[0])
    for _ in range(200):
        limits.went_well()
    assert limits.allowed == 16
    for _ in range(5):
        limits.too_much(None)  # one crowd
    assert limits.allowed == 8
    now[0] = 10.0
    limits.too_much(7.0)
    assert limits.allowed == 4 and limits._wait(1) == 7.0
    now[0] = 17.0
    assert limits._wait(1) == 0.0


def test_limits_a_minute_hold_over_any_sixty_seconds():
    now = [0.0]
    limits = Limits(at_once=100, requests=3, tokens=100, clock=lambda: now[0])

    async def send(tokens):
        async with limits.place(tokens):
            pass

    asyncio.run(send(10))
    now[0] = 30.0
    asyncio.run(send(10))
    asyncio.run(send(10))
    assert limits._wait(10) == 30.0  # until the first is a minute old
    now[0] = 60.0
    assert limits._wait(10) == 0.0 and limits._wait(90) == 30.0


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"kind": "gemini"}, "kind is 'gemini'; known are vertex, openai_compatible, local, drawn"),
        (
            {"kind": "vertex", "model": "m", "tempreature": 1.0},
            "no setting 'tempreature' of kind vertex; did you mean",
        ),
        ({"kind": "vertex"}, "model is not set"),
        ({"kind": "openai_compatible", "model": "m"}, "endpoint is not set"),
        ({"kind": "vertex", "model": "m", "at_once": "9"}, "at_once is '9'; wanted as 32"),
        ({"kind": "local", "model": "m", "rows": True}, "rows is True; wanted as 8"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(settings, line):
    with pytest.raises(ValueError, match=line):
        checked(settings, "config.teachers.text")


@pytest.mark.parametrize(
    "own", [{"model": "a,b=c"}, {"model": "123"}, {"api_key_env": "true"}, {"extra": {"stop": ["a", "b"]}}, {}]
)
def test_settings_as_text_are_read_back_whatever_is_in_them(own):
    settings = {"kind": "openai_compatible", "endpoint": "http://h/v1?a=1,b=2", **own}
    assert in_text(as_text(settings), "--model") == settings


def test_a_kind_that_cannot_give_what_is_wanted_is_refused(server):
    with pytest.raises(ValueError, match="config.teachers.text: a teacher of kind openai_compatible has no image"):
        teacher(server, "image")
    with pytest.raises(ValueError, match="variable NO_SUCH_KEY is not set"):
        teacher(server, api_key_env="NO_SUCH_KEY").ready()
    with pytest.raises(ValueError, match="structured is 'xml'"):
        teacher(server, structured="xml")


def test_a_server_that_is_not_there_is_given_up_at_once_and_named(tmp_path):
    there = TeacherServer()
    there._server.server_close()  # its port is free again
    with asker(tmp_path) as one, pytest.raises(ValueError, match="test: nothing answers at http://127.0.0.1:.*running"):
        one.ask(open_teacher(there.openai(), "config.teachers.text", wanted="text"), requests(1))
    assert one.failures == {"no connection": 3}


def test_a_server_that_takes_no_schema_is_said_with_what_to_set(server, tmp_path):
    server.faults.append(error(400))
    server.faults[0] = (400, {}, json.dumps({"error": {"message": "response_format is not supported"}}))
    with asker(tmp_path) as one, pytest.raises(ValueError, match='"structured" of this teacher to another of'):
        one.ask(teacher(server), [Request("text", "q", schema={"type": "object"})])


def test_prices_are_checked_and_dated():
    assert prices_of({"date": "2026-10-07", "m": {"input": 1, "output": 2.5}}) == {"m": Price(1, output=2.5)}
    with pytest.raises(ValueError, match="(?s)date is not set.*no price 'ouput'.*input is -1"):
        prices_of({"m": {"ouput": 2}, "n": {"input": -1}})


def test_a_damaged_store_is_told_and_left_as_it_is(tmp_path):
    (tmp_path / "replies.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(ValueError, match="replies.sqlite: cannot be read"):
        Store(tmp_path)
    assert (tmp_path / "replies.sqlite").read_bytes().startswith(b"not a database")


def test_a_full_disk_is_told_and_what_was_kept_stays(server, tmp_path):
    with asker(tmp_path) as one:
        one.ask(teacher(server), requests(3))
        one.store._database.execute("PRAGMA max_page_count=1")  # as SQLite meets a disk that is full
        with pytest.raises(ValueError, match="an answer cannot be kept .database or disk is full.; free some room"):
            one.ask(teacher(server), [Request("text", "long " * 4000)])
    with asker(tmp_path) as one:
        one.ask(teacher(server), requests(3))
    assert server.prompts["question 0"] == 1


def test_what_servers_say_of_themselves_is_kept_raw(server, tmp_path):
    import zlib

    with asker(tmp_path) as one:
        one.ask(teacher(server), requests(1))
        (raw,) = one.store._database.execute("SELECT raw FROM calls").fetchone()
        assert json.loads(zlib.decompress(raw))["id"] == "c-1"
        assert one.store.versions() == {"test": ["test-0001"]}


def test_ctrl_c_waits_for_what_is_on_its_way_and_keeps_it(server, tmp_path, capsys):
    server.delay = 0.3
    with asker(tmp_path) as one:
        timer = threading.Timer(0.45, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(sending.Stopped, match="interrupted; what was answered is kept"):
            one.ask(teacher(server, at_once=4), requests(50))
        asked = len(server.calls)
        assert 4 <= asked < 50
        assert len(one.store.known(one.keys(teacher(server), requests(50)))) == asked
    assert "waiting for 4 answers on their way; Ctrl-C again drops them" in capsys.readouterr().err
