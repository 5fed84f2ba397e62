"""ShareGPT's form and its relatives: LLaVA's with other names for roles and images.

`conversations` of `from` and `value`, or `messages` of `role` and `content`; pictures under `images`, in the order of
the `<image>` marks or, where content is a list, of its parts `{"type": "image"}`. LLaMA-Factory's `system` is read too.
Rows of Parquet files have this form.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from data_pipeline.records import Record, json_type
from data_pipeline.sources.containers import Entries
from data_pipeline.sources.forms import Form, Options, other_fields, require
from data_pipeline.sources.llava import MARK, ROLES, check_marks, content_of, images_under, value_of
from vlm_jax.errors import InputError

_ADDRESSES = ("image", "url", "path", "image_url")


class ShareGPT(Form):
    """Conversations under `conversations` or `messages`, pictures under `images`."""

    def __init__(self, entries: Entries, options: Options):
        super().__init__(entries, options)
        require(entries, ("conversations", "messages"), "sharegpt")

    def __call__(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        faults: list[str] = []
        faults += [
            f"has {key}; only text and images can be trained on: remove the record"
            for key in ("videos", "audios")
            if entry.get(key)
        ]
        key = "image" if "images" not in entry and "image" in entry else "images"
        images = images_under(entry, key, faults)
        turns = _turns(entry, faults)
        check_marks(sum(_places(content) for _, content in turns), images, key, faults)
        if faults:
            raise InputError(faults)
        remaining = iter(images)
        messages = [{"role": role, "content": _filled(content, remaining)} for role, content in turns]
        return {**other_fields(entry), "messages": messages}


def to_entry(record: Record) -> dict[str, Any]:
    """The record as an entry with `messages` and `images`, a mark where each image stands."""
    images: list[str | bytes] = []
    messages = [
        {"role": message["role"], "content": value_of(message["content"], images)} for message in record.messages
    ]
    return {"id": record.id, "messages": messages, "images": images}


def _turns(entry: Mapping[str, Any], faults: list[str]) -> list[tuple[str, str | list[Any]]]:
    key = "conversations" if "conversations" in entry else "messages"
    given = entry.get(key)
    if not isinstance(given, list) or not given:
        faults.append(f"'{key}' must be a list of at least one turn")
        return []
    turns: list[tuple[str, str | list[Any]]] = []
    system = entry.get("system")
    if isinstance(system, str) and system.strip():
        turns.append(("system", system))
    for number, turn in enumerate(given, 1):
        if not isinstance(turn, Mapping):
            faults.append(f"turn {number} is {json_type(turn)} where an object is expected")
            continue
        speaker, content = (turn.get(a, turn.get(b)) for a, b in (("from", "role"), ("value", "content")))
        if not isinstance(speaker, str) or speaker not in ROLES:
            faults.append(f"turn {number} is from {speaker!r}; turns are from {', '.join(map(repr, ROLES))}")
        elif not isinstance(content, (str, list)):
            faults.append(f"turn {number} has {json_type(content)} as its text; it must be a text or a list of parts")
        else:
            turns.append((ROLES[speaker], content))
    return turns


def _is_place(part: Any) -> bool:
    """Whether a part says that a picture stands here without saying which."""
    return isinstance(part, Mapping) and part.get("type") == "image" and not any(part.get(key) for key in _ADDRESSES)


def _places(content: str | list[Any]) -> int:
    return content.count(MARK) if isinstance(content, str) else sum(map(_is_place, content))


def _filled(content: str | list[Any], images: Iterator[str | bytes]) -> str | list[Any]:
    if isinstance(content, str):
        return content_of(content, images)
    if all(isinstance(part, Mapping) and part.get("type") == "text" for part in content):
        texts = [part.get("text") for part in content]
        if all(isinstance(text, str) for text in texts):
            return "".join(texts)
    return [{"type": "image", "image": next(images)} if _is_place(part) else part for part in content]
