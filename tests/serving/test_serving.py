"""OpenAI's own client gets what `vlm_jax` says, however many ask at once."""

import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import openai
import pytest

from tests.serving.served import HELLO, NAME, ask, client_of, eventually, served
from tests.serving.speaker import load_speaker
from tests.tiny_models import PHOTOS
from vlm_jax.inference.answering import Answering, Prompt
from vlm_jax.serving.worker import Job, ModelWorker

IMAGE = PHOTOS / "chelsea.jpg"
URI = f"data:image/jpeg;base64,{base64.b64encode(IMAGE.read_bytes()).decode()}"
THAI = [{"role": "system", "content": "สั้น"}, {"role": "user", "content": "ดอกไม้สีอะไร"}]
TURNS = [
    {"role": "user", "content": [{"type": "text", "text": "What is it?"}]},
    {"role": "assistant", "content": "a cat"},
    {"role": "user", "content": "What colour?"},
]
SAID = "ฬ🌺 flower!"
DRAWN = {"temperature": 1.3, "seed": 2}


def about_image(question="What is it?"):
    return [
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": URI}}, {"type": "text", "text": question}],
        }
    ]


@pytest.fixture(scope="module")
def speaker(tmp_path_factory):
    """The server of a model that says `SAID` again and again."""
    model = load_speaker(tmp_path_factory.mktemp("speaker") / "model", SAID, endless=True)
    with served(model) as server, client_of(server) as client:
        yield SimpleNamespace(server=server, client=client)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("messages", "sampling"),
    [
        (about_image(), {}),
        (about_image(), DRAWN),
        (THAI, {}),
        (THAI, {**DRAWN, "top_p": 0.9, "top_k": 40, "repetition_penalty": 1.2}),
        (TURNS, {}),
    ],
    ids=["image", "image drawn", "Thai", "Thai drawn", "turns"],
)
def test_the_client_gets_what_the_model_says(server, client, messages, sampling, stream):
    (answer,), usage = ask(client, messages, stream=stream, **sampling)
    (tokens,) = server.model.generate_tokens([messages], max_new_tokens=12, **sampling)
    assert answer[0] == server.model.generate(messages, max_new_tokens=12, **sampling) != ""
    assert answer[1] == ("length" if len(tokens) == 12 else "stop")
    # Counted are the marks of an answer's beginning, and its stop token.
    assert usage.prompt_tokens == len(server.model.processor.encode(messages, generation_prompt=True).input_ids)
    assert usage.completion_tokens == len(tokens) + (answer[1] == "stop")
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_a_character_of_several_tokens_comes_as_a_whole(speaker):
    tokens = speaker.server.model.generate_tokens([HELLO], max_new_tokens=20)[0]
    cut = [count for count in range(1, 20) if "\ufffd" in speaker.server.model.processor.decode(tokens[:count])]
    assert len(cut) >= 4
    chunks = speaker.client.chat.completions.create(model=NAME, messages=HELLO, max_tokens=20, stream=True)
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(pieces) == speaker.server.model.generate(HELLO, max_new_tokens=20)
    assert "".join(pieces).startswith(SAID) and not any("\ufffd" in piece for piece in pieces)
    # Of an answer that is cut off within one, what the model says.
    (answer,), _ = ask(speaker.client, HELLO, max_tokens=cut[0], stream=True)
    assert answer == (speaker.server.model.generate(HELLO, max_new_tokens=cut[0]), "length") and "\ufffd" in answer[0]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_several_choices_are_those_of_a_list(server, client, stream):
    answers, usage = ask(client, THAI, n=3, stream=stream, **DRAWN)
    tokens = server.model.generate_tokens([THAI] * 3, max_new_tokens=12, **DRAWN)
    assert [text for text, _ in answers] == [server.model.processor.decode(one) for one in tokens]
    assert len({text for text, _ in answers}) > 1
    assert usage.completion_tokens == sum(len(one) + (len(one) < 12) for one in tokens)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_an_answer_ends_before_a_stop(server, client, stream):
    text = server.model.generate(about_image(), max_new_tokens=12)
    middle = text[len(text) // 2 : len(text) // 2 + 2]
    (answer,), usage = ask(client, about_image(), stop=["not there", middle], stream=stream)
    assert answer == (text[: text.index(middle)], "stop")
    tokens = server.model.generate_tokens([about_image()], max_new_tokens=12)[0]
    fewest = next(count for count in range(13) if middle in server.model.processor.decode(tokens[:count]))
    assert usage.completion_tokens == fewest


def test_an_answer_is_as_long_as_asked_and_else_as_the_server_says(speaker):
    for options, length in (({"max_tokens": None}, 16), ({"max_tokens": None, "max_completion_tokens": 3}, 3)):
        (answer,), usage = ask(speaker.client, HELLO, **options)
        assert answer == (speaker.server.model.generate(HELLO, max_new_tokens=length), "length")
        assert usage.completion_tokens == length


def test_without_a_seed_drawn_answers_differ(client):
    assert len({ask(client, HELLO, temperature=2.0)[0][0][0] for _ in range(5)}) > 1


def test_the_list_of_models_names_the_one(client, server):
    assert [one.id for one in client.models.list()] == [NAME]
    assert client.models.retrieve(NAME).object == "model"
    with pytest.raises(openai.NotFoundError, match="is not served here"):
        client.models.retrieve("another/model")
    assert server.request("GET", "/health") == (
        200,
        pytest.approx(server.request("GET", "/health")[1]),
        {"status": "ok"},
    )


def test_fifty_requests_at_once_are_all_answered_each_as_alone(server, client, monkeypatch):
    asked = [
        (messages, {"max_tokens": limit, **sampling})
        for limit in (3, 12)
        for messages in (about_image(), about_image("What colour?"), THAI, HELLO, TURNS)
        for sampling in ({}, {"temperature": 1.0, "seed": 1}, DRAWN, {"temperature": 0.9, "top_p": 0.7, "seed": 3}, {})
    ]
    assert len(asked) == 50
    expected = {}
    for messages, options in asked:
        settings = {key: value for key, value in options.items() if key != "max_tokens"}
        key = json.dumps([messages, options])
        if key not in expected:
            expected[key] = server.model.generate(messages, max_new_tokens=options["max_tokens"], **settings)
    batches, begin = [], server.model.begin
    monkeypatch.setattr(server.model, "begin", lambda prompts: batches.append(len(prompts)) or begin(prompts))
    with ThreadPoolExecutor(50) as pool:
        found = list(pool.map(lambda one: ask(client, one[0], stream=len(one[1]) % 2 == 0, **one[1])[0], asked))
    assert [answers[0][0] for answers in found] == [expected[json.dumps(list(one))] for one in asked]
    assert sum(batches) == 50 and max(batches) == 8 and len(batches) < 25
    # An answer is whole a moment before its place is free.
    assert eventually(lambda: server.places.requests == server.places.bytes == 0)


class Gate:
    """Holds the model before each batch, until it is opened."""

    def __init__(self, model, monkeypatch):
        self.entered, self.opened, self.batches = threading.Event(), threading.Event(), []
        begin = model.begin

        def held(prompts):
            self.batches.append(len(prompts))
            self.entered.set()
            assert self.opened.wait(60)
            return begin(prompts)

        monkeypatch.setattr(model, "begin", held)


def test_when_the_queue_is_full_a_request_is_told_when_to_come_again(server, monkeypatch):
    gate = Gate(server.model, monkeypatch)
    with served(server.model, batch=1, queue=1) as small, client_of(small) as client, ThreadPoolExecutor(3) as pool:
        taken = [pool.submit(ask, client, HELLO) for _ in range(2)]
        assert eventually(lambda: small.places.requests == 2) and gate.entered.wait(60)
        with pytest.raises(openai.RateLimitError, match="2 requests wait already; try again in") as error:
            ask(client, about_image())
        assert 1 <= int(error.value.response.headers["retry-after"]) <= 60
        gate.opened.set()
        assert taken[0].result() == taken[1].result()
        assert ask(client, HELLO) == taken[0].result()


def test_a_batch_takes_no_more_images_than_are_seen_at_one_time(model):
    about = Prompt(model.prompt(about_image(), 4), 4, model.sampling(0.0, 0, {}))
    patches = about.example.size.patches
    worker = ModelWorker(model, rows=8, entries=65536, patches=2 * patches, report=print)
    for _ in range(3):
        worker.submit(Job([about], (), False, print))
    assert [len(worker._next_batch()) for _ in range(2)] == [2, 1]


def test_a_client_that_goes_away_while_it_waits_is_never_answered(server, client, monkeypatch):
    gate = Gate(server.model, monkeypatch)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, client, HELLO)
        assert gate.entered.wait(60)
        with pytest.raises(openai.APITimeoutError):
            ask(client.with_options(timeout=0.5), THAI)
        assert eventually(lambda: server.places.requests == 1)
        gate.opened.set()
        first.result()
    assert ask(client, HELLO) == first.result()
    assert gate.batches == [1, 1]


def test_a_stream_that_is_closed_ends_its_answer_and_frees_its_place(speaker, monkeypatch):
    places, opened, finished, advance = speaker.server.places, threading.Event(), [], Answering.advance

    def held(self, tokens):
        assert self._count == 1 or opened.wait(60)
        advance(self, tokens)

    finish = Answering.finish
    monkeypatch.setattr(Answering, "advance", held)
    monkeypatch.setattr(Answering, "finish", lambda self, row: finished.append(self._count) or finish(self, row))
    stream = speaker.client.chat.completions.create(model=NAME, messages=HELLO, stream=True, max_tokens=2000)
    next(iter(stream))
    assert places.requests == 1
    stream.close()
    assert eventually(lambda: places.requests == 0)
    opened.set()
    assert ask(speaker.client, HELLO, max_tokens=3)[0][0][0] == speaker.server.model.generate(HELLO, max_new_tokens=3)
    assert finished[0] <= 9 and finished[1:] == [3, 3]


def test_a_model_that_fails_is_told_and_the_next_request_is_answered(server, monkeypatch):
    with served(server.model) as other, client_of(other) as client:
        with monkeypatch.context() as patched:
            patched.setattr(
                server.model, "begin", lambda prompts: (_ for _ in ()).throw(RuntimeError("of /secret/file"))
            )
            for stream in (False, True):
                with pytest.raises(openai.InternalServerError, match="the model failed") as error:
                    ask(client, HELLO, stream=stream)
                assert "secret" not in str(error.value)
        assert other.reports == ["error: a batch of 1 requests failed: RuntimeError: of /secret/file"] * 2
        assert ask(client, HELLO)[0][0][0] == other.model.generate(HELLO, max_new_tokens=12)


def test_those_that_wait_are_told_when_the_server_stops(server, monkeypatch):
    gate = Gate(server.model, monkeypatch)
    with ThreadPoolExecutor(2) as pool:
        with served(server.model, batch=1) as other:
            client = client_of(other)
            waiting = [pool.submit(ask, client, HELLO, stream=stream) for stream in (False, True)]
            assert gate.entered.wait(60) and eventually(lambda: other.places.requests == 2)
            threading.Timer(1.0, gate.opened.set).start()
        for one in waiting:
            with pytest.raises(openai.InternalServerError, match="is being stopped"):
                one.result()
