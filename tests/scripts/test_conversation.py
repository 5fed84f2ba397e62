"""Conversations in the terminal: what commands do, how they end, and what is kept of what was said."""

import sys
from pathlib import Path

import pytest

from tests.tiny_models import PHOTOS
from vlm_jax.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


class Terminal:
    """Lines that are typed, a model that counts what it is shown, and what is printed."""

    def __init__(self, monkeypatch):
        monkeypatch.syspath_prepend(str(ROOT / "scripts"))
        import conversation

        self.module = conversation
        self.written, self.told, self.asked = [], [], []

    def answer(self, messages):
        self.asked.append(messages)
        images = [part for one in messages if isinstance(one["content"], list) for part in one["content"]]
        yield f"{len(messages)} messages, "
        yield f"{sum(part['type'] == 'image' for part in images)} images"

    def type(self, *lines, interactive=True, answer=None):
        talk = self.module.Conversation(answer or self.answer)
        self.module.talk(talk, lines, write=self.written.append, say=self.told.append, interactive=interactive)
        return "".join(self.written).splitlines()


@pytest.fixture
def terminal(monkeypatch):
    before = set(sys.modules)
    yield Terminal(monkeypatch)
    for name in set(sys.modules) - before:
        if name == "conversation":
            del sys.modules[name]


def test_a_conversation_goes_on_and_says_at_its_start_how_it_ends(terminal):
    assert terminal.type("Hi", "And?") == ["1 messages, 0 images", "3 messages, 0 images"]
    assert "/exit" in terminal.told[0] and "Ctrl-D" in terminal.told[0] and "/help" in terminal.told[0]


def test_an_image_goes_with_the_next_question_and_clear_forgets_it(terminal):
    image = f"/image {PHOTOS / 'coffee.jpg'}"
    output = terminal.type(image, "What?", "And?", "/clear", "What?", image, "/clear", "What?")
    assert output == [
        "1 messages, 1 images",
        "3 messages, 1 images",
        "1 messages, 0 images",
        "1 messages, 0 images",
    ]


@pytest.mark.parametrize("end", ["/exit", "", "  "])
def test_it_ends_where_it_is_told_to(terminal, end):
    assert terminal.type("Hi", end, "And?") == ["1 messages, 0 images"]


def test_help_names_every_command(terminal):
    terminal.type("/help")
    assert all(command in terminal.told[-1] for command in terminal.module.COMMANDS)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("/imge cat.jpg", "did you mean /image?"),
        ("/quit", "/quit: no such command"),
        ("/clear all", "/clear takes nothing behind it"),
        ("/image", "name the image"),
        ("/image nowhere.jpg", "nowhere.jpg: no such image"),
    ],
)
def test_a_wrong_command_is_told_and_the_conversation_goes_on_but_a_pipe_ends(terminal, line, reason):
    assert terminal.type("Hi", line, "And?") == ["1 messages, 0 images", "3 messages, 0 images"]
    assert reason in terminal.told[-1]
    with pytest.raises(InputError, match=reason.replace("?", r"\?")):
        terminal.type(line, interactive=False)


def test_a_question_may_begin_with_a_path(terminal):
    assert len(terminal.type("/etc/hosts is what?")) == 1 and terminal.asked


def test_an_answer_that_is_interrupted_is_kept_as_far_as_it_came(terminal):
    def interrupted(messages):
        terminal.asked.append(messages)
        if len(terminal.asked) == 1:
            yield "It is"
            raise KeyboardInterrupt
        yield messages[1]["content"]

    assert terminal.type("What?", "And?", answer=interrupted) == ["It is", "It is"]
    with pytest.raises(KeyboardInterrupt):
        terminal.asked.clear()
        terminal.type("What?", answer=interrupted, interactive=False)


def test_a_question_that_is_refused_counts_as_never_asked(terminal):
    def refused(messages):
        terminal.asked.append(messages)
        if len(terminal.asked) == 1:
            raise InputError("too long")
        yield str(len(messages))

    assert terminal.type("What?", "And?", answer=refused) == ["1"]
    assert terminal.told[-1] == "error: too long"
