"""LLaVA's form: `conversations` of `from` and `value`, and `<image>` where an image stands.

Turns an entry into messages with the images in place, and a record into an entry. What a conversation may contain is
checked afterwards, by `data_pipeline.records`; ShareGPT's variants are `sharegpt`'s, and reading turns is `turns`'.
"""

from collections.abc import Mapping
from typing import Any

from data_pipeline.records import Record
from data_pipeline.sources.containers import Entries
from data_pipeline.sources.forms import Form, Options, other_fields, require
from data_pipeline.sources.turns import MARK, fill, images_beside, places_first, read_turns, with_system
from vlm_jax.errors import InputError
from vlm_jax.processing.messages import is_empty


class Conversations(Form):
    """Turns in a list, the images in a list beside it."""

    conversational = True
    name = "llava"
    keys: tuple[str, ...] = ("conversations",)
    """Where the turns may stand."""

    image_keys: tuple[str, ...] = ("image", "images")
    images_first: tuple[str, ...] = ()
    """Under which keys images without any place come before the first question."""

    def __init__(self, entries: Entries, options: Options):
        super().__init__(entries, options)
        require(entries, self.keys, self.name)

    def convert(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        errors: list[str] = []
        filled = [key for key in self.keys if not is_empty(entry.get(key))]
        if len(filled) > 1:
            errors.append(f"has turns under {' and '.join(map(repr, filled))}; keep one of them")
        key = next(iter(filled), next((key for key in self.keys if key in entry), self.keys[0]))
        where, images = images_beside(entry, self.image_keys, errors)
        turns = read_turns(entry.get(key), key, errors)
        if key in self.images_first:
            turns = places_first(turns, len(images))
        fields = other_fields(entry, errors, compared=not self.options.training)
        messages = fill(with_system(entry, turns, errors), images, where, errors)
        if errors:
            # The record goes no further, so what would be found there is reported here.
            silent = [number for number, message in enumerate(turns, 1) if _is_silent(message)]
            raise InputError(
                [*errors, *(f"turn {number}, the assistant's, is empty; give the answer" for number in silent)]
            )
        return {**fields, "messages": messages}


class Llava(Conversations):
    """`{"id", "image": path or list of paths, "conversations"}`; entries without an image are text only."""


def to_entry(record: Record) -> dict[str, Any]:
    """The record as an entry; several images become a list. Its images stay as they are."""
    speakers = {"user": "human", "assistant": "gpt", "system": "system"}
    images: list[str | bytes] = []
    turns = [
        {"from": speakers[message["role"]], "value": value_of(message["content"], images), **weight_of(message)}
        for message in record.messages
    ]
    shown = {"image": images[0] if len(images) == 1 else images} if images else {}
    return {"id": record.id, **shown, "conversations": turns}


def _is_silent(message: Mapping[str, Any]) -> bool:
    content = message["content"]
    return message["role"] == "assistant" and isinstance(content, str) and not content.strip()


def weight_of(message: Mapping[str, Any]) -> dict[str, Any]:
    """What a message weighs in the loss as keys of a turn: none where it weighs 1."""
    return {key: message[key] for key in ("weight",) if key in message}


def value_of(content: str | list[dict[str, Any]], images: list[str | bytes]) -> str:
    """A message's content as one text with marks, set off as `turns.content_of` expects; its images go to the list."""
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
