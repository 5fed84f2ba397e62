"""LLaVA's form: `conversations` of `from` and `value`, and `<image>` where an image stands.

Turns an entry into messages with the images in place. What a conversation may contain is checked afterwards, by
`data_pipeline.records`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from data_pipeline.records import json_type
from vlm_jax.errors import InputError

MARK = "<image>"
_ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system"}


def to_messages(entry: Mapping[str, Any], training: bool) -> dict[str, Any]:
    """The entry in the form that `data_pipeline.records.from_json` reads.

    Raises:
      InputError: turns of another shape, or not as many `<image>` marks as images.
    """
    faults = []
    if "video" in entry:
        faults.append("has a video; only text and images can be trained on: remove the record")
    images = _images(entry.get("image"), faults)
    turns = _turns(entry.get("conversations"), faults)
    marks = sum(text.count(MARK) for _, text in turns)
    if not faults and marks != len(images):
        faults.append(
            f"{_count(marks, f'{MARK} mark')} in the text but {_count(len(images), 'image')} under 'image'; "
            "there must be one mark for each image"
        )
    if faults:
        # The record goes no further, so what would be found there is told here.
        silent = [number for number, (role, text) in enumerate(turns, 1) if role == "assistant" and not text.strip()]
        raise InputError(
            [*faults, *(f"turn {number}, the assistant's, is empty; give the answer" for number in silent)]
        )
    remaining = iter(images)
    return {"messages": [{"role": role, "content": _content(text, remaining)} for role, text in turns]}


def _images(given: Any, faults: list[str]) -> list[str]:
    images = given if isinstance(given, list) else [] if given in (None, "") else [given]
    if not all(isinstance(image, str) and image for image in images):
        faults.append("'image' must be a path or a list of paths")
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
        elif not isinstance(turn.get("from"), str) or turn["from"] not in _ROLES:
            faults.append(f"turn {number} is from {turn.get('from')!r}; turns are from 'human', 'gpt' or 'system'")
        elif not isinstance(turn.get("value"), str):
            faults.append(f"turn {number} has {json_type(turn.get('value'))} as its 'value'; it must be a text")
        else:
            turns.append((_ROLES[turn["from"]], turn["value"]))
    return turns


def _content(text: str, images: Iterator[str]) -> str | list[dict[str, str]]:
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
    parts: list[dict[str, str]] = []
    for index, piece in enumerate(pieces):
        if index:
            parts.append({"type": "image", "image": next(images)})
        if piece:
            parts.append({"type": "text", "text": piece})
    return parts


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
