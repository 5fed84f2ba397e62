"""A conversation with its pictures, as the page keeps it: turns that are asked again, edited, taken back and exported.

Each turn has one answer of each model that was asked, so that two can be seen side by side; each model is told its own
earlier answers. Who answers is `loaded_models`', what is seen of it `page`'s.
"""

import dataclasses
import io
import json
import secrets
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from vlm_jax.errors import InputError
from vlm_jax.processing.images import NamedBytes, header, open_image

MOST_PICTURES, MOST_TURNS = 8, 100
"""Of a question; of a conversation."""
MOST_BYTES, MOST_PIXELS = 20 << 20, 40_000_000
"""Of a picture."""
PREVIEW = 1024
"""Pixels of the longer side of what the browser is shown."""
_SUFFIXES = {"JPEG": "jpg", "JPEG2000": "jp2", "TIFF": "tif", "MPO": "jpg"}


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """An image that was seen to be one.

    Attributes:
      data: its file, as it came.
      preview: a JPEG of at most `PREVIEW` pixels a side, made anew here.
      size: width and height in pixels, upright.
      suffix: of its file, by what is in it.
    """

    name: str
    data: NamedBytes
    preview: bytes
    size: tuple[int, int]
    suffix: str


def picture(name: str, data: bytes) -> Picture:
    """Decodes a file.

    Raises:
      InputError: too large, or not an image of a format that is read.
    """
    named = NamedBytes.called(name, data)
    if len(data) > MOST_BYTES:
        raise InputError(f"{name}: more than {MOST_BYTES >> 20} MB; scale it down first")
    try:
        head = header(named)
    except Exception:  # puts what is wrong with it into words
        open_image(named)
        raise
    width, height = head.size
    if width * height > MOST_PIXELS:
        raise InputError(f"{name}: more than {MOST_PIXELS // 10**6} million pixels; scale it down first")
    image = open_image(named)
    small = image.copy()
    small.thumbnail((PREVIEW, PREVIEW))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=88)
    kind = head.format or "PNG"
    return Picture(name, named, buffer.getvalue(), image.size, _SUFFIXES.get(kind, kind.lower()))


@dataclasses.dataclass
class Reply:
    """What a model said to a turn.

    Attributes:
      error: why it said nothing.
      finished: whether it came to its end.
      settings: sampling and visual tokens it was asked with.
    """

    text: str = ""
    error: str = ""
    finished: bool = False
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Turn:
    """A question, what goes with it, and the answers by name of the model.

    Attributes:
      attempt: how often it was asked before: another seed for another try.
      drawings: its pictures with the tokens that stay, and a title, by (model, budget, number of the picture).
    """

    question: str
    pictures: tuple[Picture, ...] = ()
    replies: dict[str, Reply] = dataclasses.field(default_factory=dict)
    attempt: int = 0
    drawings: dict[Any, Any] = dataclasses.field(default_factory=dict)

    def said(self, model: str) -> str:
        """What a model is told it answered: its own words, else another's that was asked instead."""
        reply = self.replies.get(model) or next((one for one in self.replies.values() if one.text), Reply())
        return reply.text


class Dialogue:
    """The turns so far, and the pictures that go with the next question."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.pictures: list[Picture] = []
        self.answering = threading.Lock()
        """Held while a model answers: of two windows with one conversation, one may ask."""

    def add(self, pictures: list[Picture]) -> None:
        """Pictures for the next question. Raises InputError where they are too many."""
        if len(self.pictures) + len(pictures) > MOST_PICTURES:
            raise InputError(f"more than {MOST_PICTURES} pictures for one question; ask about some of them first")
        self.pictures += pictures

    def check_free(self) -> None:
        """Raises InputError while a model answers: what it answers must not change under it."""
        if self.answering.locked():
            raise InputError(
                "a question of this conversation is still being answered; stop it where it was asked, or wait"
            )

    def ask(self, question: str) -> Turn:
        """A new turn. Raises InputError where the conversation is too long or being answered, or nothing is asked."""
        self.check_free()
        if not question.strip():
            raise InputError("ask something about the picture: a question goes with it")
        if len(self.turns) >= MOST_TURNS:
            raise InputError(f"the conversation has {MOST_TURNS} turns; clear it to begin anew")
        turn = Turn(question.strip(), tuple(self.pictures))
        self.turns.append(turn)
        self.pictures = []
        return turn

    def again(self, number: int, question: str | None = None) -> None:
        """Takes back the answers from a turn on, and all turns behind it; asks it again, in other words where given.

        Raises:
          InputError: the other words are none, or the conversation is being answered.
        """
        self.check_free()
        if question is not None and not question.strip():
            raise InputError("ask something: the question is empty")
        turn = self.turns[number]
        same = question is None or question.strip() == turn.question
        attempt = turn.attempt + 1 if same else 0
        self.turns[number:] = [Turn(question.strip() if question else turn.question, turn.pictures, attempt=attempt)]

    def clear(self) -> None:
        """Raises InputError while it is being answered."""
        self.check_free()
        self.turns, self.pictures = [], []

    def messages(self, model: str, number: int) -> list[dict[str, Any]]:
        """What a model is given to answer a turn. Turns to which nothing was said are left out."""
        found: list[dict[str, Any]] = []
        for turn in self.turns[:number]:
            if answer := turn.said(model):
                found += [_question(turn, [one.data for one in turn.pictures]), _answer(answer)]
        turn = self.turns[number]
        return [*found, _question(turn, [one.data for one in turn.pictures])]

    @property
    def nbytes(self) -> int:
        """Of the files of its pictures."""
        turns = [one for turn in self.turns for one in turn.pictures]
        return sum(len(one.data) + len(one.preview) for one in [*turns, *self.pictures])

    def exported(self, identifier: str, models: Sequence[str]) -> bytes:
        """A zip archive: `conversation.jsonl`, a record for each model, and `images/`. Training reads it unpacked.

        The provenance of a record says of each answer what it was asked with, and whether it came to its end.
        """
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            named: dict[int, str] = {}
            for turn in self.turns:
                for one in turn.pictures:
                    if id(one) not in named:
                        named[id(one)] = f"images/{len(named) + 1}.{one.suffix}"
                        archive.writestr(named[id(one)], one.data)
            lines = []
            for count, model in enumerate(models, start=1):
                messages: list[dict[str, Any]] = []
                answers: list[dict[str, Any]] = []
                for turn in self.turns:
                    reply = turn.replies.get(model)
                    if reply is not None and reply.text.strip():
                        images = [named[id(one)] for one in turn.pictures]
                        messages += [_question(turn, images), _answer(reply.text)]
                        answers.append({"finished": reply.finished, **reply.settings})
                if messages:
                    provenance = {"made_by": "chat", "model": model, "answers": answers}
                    record = {"id": f"{identifier}-{count}", "messages": messages, "provenance": provenance}
                    lines.append(json.dumps(record, ensure_ascii=False) + "\n")
            archive.writestr("conversation.jsonl", "".join(lines))
        return buffer.getvalue()


def _question(turn: Turn, images: list[Any]) -> dict[str, Any]:
    parts = [{"type": "image", "image": image} for image in images]
    return {"role": "user", "content": [*parts, {"type": "text", "text": turn.question}]}


def _answer(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


class Dialogues:
    """Conversations by key, which a page finds again when it is loaded anew.

    Of too many, those without a turn are let go of first: whoever opens the page often takes nobody's. Then the oldest.
    """

    def __init__(self, *, most: int = 200, most_bytes: int = 1 << 30):
        self._most, self._most_bytes = most, most_bytes
        self._kept: OrderedDict[str, Dialogue] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, key: str | None) -> tuple[str, Dialogue]:
        """The conversation of a key; a new one under a new key where there is none."""
        with self._lock:
            if key not in self._kept:
                key = secrets.token_urlsafe(16)
                self._kept[key] = Dialogue()
            self._kept.move_to_end(key)
            while len(self._kept) > 1 and (
                len(self._kept) > self._most or sum(one.nbytes for one in self._kept.values()) > self._most_bytes
            ):
                others = list(self._kept)[:-1]
                del self._kept[next((one for one in others if not self._kept[one].turns), others[0])]
            return key, self._kept[key]
