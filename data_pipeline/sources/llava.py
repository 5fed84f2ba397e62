"""LLaVA's form: `conversations` of `from` and `value`, and `<image>` where an image stands.

Turns an entry into messages with the images in place, and a record into an entry. What a conversation may contain is
checked afterwards, by `data_pipeline.records`; ShareGPT's variants are `sharegpt`'s.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from data_pipeline.records import Record, json_type
from data_pipeline.sources.containers import Entries
from data_pipeline.sources.forms import Form, Options, other_fields, require
from vlm_jax.errors import InputError

MARK = "<image>"
ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system"}


class Llava(Form):
    """`{"id", "image": path or list of paths, "conversations"}`; entries without an image are text only."""

    def __init__(self, entries: Entries, options: Options):
        super().__init__(entries, options)
        require(entries, ("conversations",), "llava")

    def __call__(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        faults = []
        if "video" in entry:
            faults.append("has a video; only text and images can be trained on: remove the record")
        images = images_under(entry, "image", faults)
        turns = _turns(entry.get("conversations"), faults)
        check_marks(sum(text.count(MARK) for _, text in turns), images, "image", faults)
        if faults:
            # The record goes no further, so what would be found there is told here.
            silent = [n for n, (role, text) in enumerate(turns, 1) if role == "assistant" and not text.strip()]
            raise InputError(
                [*faults, *(f"turn {number}, the assistant's, is empty; give the answer" for number in silent)]
            )
        remaining = iter(images)
        messages = [{"role": role, "content": content_of(text, remaining)} for role, text in turns]
        return {**other_fields(entry), "messages": messages}


def to_entry(record: Record) -> dict[str, Any]:
    """The record as an entry; several images become a list. Its images stay as they are."""
    speakers = {"user": "human", "assistant": "gpt", "system": "system"}
    images: list[str | bytes] = []
    turns = [
        {"from": speakers[message["role"]], "value": value_of(message["content"], images)}
        for message in record.messages
    ]
    shown = {"image": images[0] if len(images) == 1 else images} if images else {}
    return {"id": record.id, **shown, "conversations": turns}


def value_of(content: str | list[dict[str, Any]], images: list[str | bytes]) -> str:
    """A message's content as one text with marks, set off as `content_of` expects; its images go to the list."""
    if isinstance(content, str):
        return content
    kinds = [part["type"] for part in content]
    images += [part["image"] for part in content if part["type"] == "image"]
    texts = [index for index, kind in enumerate(kinds) if kind == "text"]
    if not texts:
        return "\n".join(MARK for _ in kinds)
    pieces = []
    for index, part in enumerate(content):
        if part["type"] == "text":
            pieces.append(part["text"])
        else:
            pieces.append(f"{MARK}\n" if index < texts[0] else f"\n{MARK}" if index > texts[-1] else MARK)
    return "".join(pieces)


def check_marks(marks: int, images: list[Any], key: str, faults: list[str]) -> None:
    """Adds the fault of marks without images or images without marks, unless there are faults already."""
    if not faults and marks != len(images):
        faults.append(
            f"{_count(marks, f'{MARK} mark')} in the text but {_count(len(images), 'image')} under '{key}'; "
            "there must be one mark for each image"
        )


def images_under(entry: Mapping[str, Any], key: str, faults: list[str]) -> list[str | bytes]:
    given = entry.get(key)
    images = given if isinstance(given, list) else [] if given in (None, "") else [given]
    if not all(isinstance(image, (str, bytes)) and image for image in images):
        faults.append(f"'{key}' must be a path or a list of paths")
        return []
    return images


def _turns(given: Any, faults: list[str]) -> list[tuple[str, str]]:
    """(role, text) of each turn."""
    if not isinstance(given, list) or not given:
        faults.append("'conversations' must be a list of at least one turn")
        return []
    turns = []
    for number, turn in enumerate(given, 1):
        if not isinstance(turn, Mapping):
            faults.append(f"turn {number} is {json_type(turn)} where an object with 'from' and 'value' is expected")
        elif not isinstance(turn.get("from"), str) or turn["from"] not in ROLES:
            faults.append(f"turn {number} is from {turn.get('from')!r}; turns are from 'human', 'gpt' or 'system'")
        elif not isinstance(turn.get("value"), str):
            faults.append(f"turn {number} has {json_type(turn.get('value'))} as its 'value'; it must be a text")
        else:
            turns.append((ROLES[turn["from"]], turn["value"]))
    return turns


def content_of(text: str, images: Iterator[str | bytes]) -> str | list[dict[str, Any]]:
    """A turn's text cut at its marks, each replaced by the next image.

    The line break that sets a mark off at the start or the end of a turn belongs to the mark: it is how LLaVA writes
    the image before or after the text. Between texts it is text, and stays.
    """
    if MARK not in text:
        return text
    pieces = text.replace("\r\n", "\n").split(MARK)
    if not pieces[0].strip():
        pieces[0] = ""
        for index in range(1, len(pieces)):  # several marks at the start are set off one by one
            pieces[index] = pieces[index].removeprefix("\n")
            if pieces[index]:
                break
    if not pieces[-1].strip():
        pieces[-1] = ""
        for index in reversed(range(len(pieces) - 1)):
            pieces[index] = pieces[index].removesuffix("\n")
            if pieces[index]:
                break
    parts: list[dict[str, Any]] = []
    for index, piece in enumerate(pieces):
        if index:
            parts.append({"type": "image", "image": next(images)})
        if piece:
            parts.append({"type": "text", "text": piece})
    return parts


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
