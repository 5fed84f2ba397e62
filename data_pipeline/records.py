"""The one form that every data set is brought into: a conversation with its images, checked when it is made.

Turns raw messages (Hugging Face's and OpenAI's chat forms) into a `Record`, and writes records as JSON lines.
Reading files and their formats is `data_pipeline.sources`; whether an image exists and opens is
`data_pipeline.check`; rendering a conversation into tokens is `vlm_jax.processing`.
"""

import base64
import binascii
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from data_pipeline.marks import HALF_A_CHARACTER, LEAVE_OUT, errors_in, places_in
from data_pipeline.values import as_written, json_type, quoted
from vlm_jax import locations
from vlm_jax.errors import InputError
from vlm_jax.processing.messages import (
    ROLES,
    TOOL_ROLES,
    address_of,
    tool_keys,
    turn_weight,
    unread_keys,
    unread_part_keys,
)

_NOT_IN_PATHS = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")  # would also break up an error line
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_DATA_URI = re.compile(r"data:[^,]*;base64,", re.IGNORECASE)
TEXT_FIELDS = ("task", "fact_id", "split", "context", "reasoning")
_UNSUPPORTED_PARTS = ("video", "video_url", "audio", "audio_url", "input_audio")
_TOOL_PARTS = ("tool_call", "tool_calls", "tools", "tool_use", "tool_result", "function_call")
_LONGEST_PATH, _LONGEST_NAME = 4096, 255  # characters, as Linux has them
_ENCODED = re.compile(r"(?:iVBORw0KGgo|/9j/|R0lGOD|UklGR|Qk0|SUkq|TU0A)[A-Za-z0-9+/=\s]{60,}")  # beginnings of images


class Placed(dict[str, Any]):
    """A part or a message that is not in the file as such, so that error lines do not count it.

    A part of a text cut at its marks, an image from beside the messages, a system message from a column of its own.
    """


@dataclass(frozen=True)
class Record:
    """One conversation. `from_json` makes it; made by hand, it is taken as it is.

    Attributes:
      id: unique within its file.
      messages: `{"role", "content"}` each, where content is a string or a list of `{"type": "text", "text": str}` and
        `{"type": "image", "image": str | bytes}`; a string is an absolute path (or a `gs://`
        address, below an image root in a store), bytes are an encoded image file. An answer whose tokens weigh other
        than 1 in the loss has a `weight` too.
      answers: accepted answers, where a benchmark gives several or keeps them out of the conversation.
      where: file and entry the record came from, for error lines. Neither written to disk nor compared.
    """

    id: str
    messages: list[dict[str, Any]]
    answers: list[str] | None = None
    task: str | None = None
    fact_id: str | None = None
    split: str | None = None
    context: str | None = None
    reasoning: str | None = None
    provenance: dict[str, Any] | None = None
    where: str = field(default="", compare=False)


def images_of(record: Record) -> list[str | bytes]:
    """The images of a conversation in the order they are shown: absolute paths, or bytes of embedded files."""
    return [
        part["image"]
        for message in record.messages
        if not isinstance(message["content"], str)
        for part in message["content"]
        if part["type"] == "image"
    ]


def images_named(entry: Mapping[str, Any], image_root: str | Path) -> list[str | bytes]:
    """The images that an entry of any form names, whatever else is wrong with it; what is no image name is passed over.

    For the entries that `from_json` and the converters refuse: their images can still be checked in the same run.
    """
    value = entry.get("image")
    named = list(value) if isinstance(value, list) else [value]
    messages = entry.get("messages")
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, Mapping) else None
        named += [part for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []
    parser = _Parser("", locations.absolute(image_root))
    parts = [one if isinstance(one, Mapping) else {"type": "image", "image": one} for one in named]
    read = [parser.part(part, "") for part in parts if part.get("type") in ("image", "image_url")]
    return [part["image"] for part in read if part.get("image")]


def from_json(entry: Mapping[str, Any], *, where: str, image_root: str | Path, training: bool = True) -> Record:
    """The record in a parsed JSON object, checked and normalised.

    Args:
      entry: `id`, `messages` and the optional fields of `Record`; other keys are ignored.
      where: file and entry, the start of every error line.
      image_root: the folder that relative image paths start from; may be in a store (`gs://`).
      training: the last message must be an answer. An evaluation set may end with the question.

    Raises:
      InputError: with every error of this record: roles out of order, an empty answer, reserved tokens in a text,
        an image that is remote or not given, parts that are not supported, fields of the wrong type.
    """
    parser = _Parser(where, locations.absolute(image_root))
    messages = parser.messages(entry.get("messages"), training)
    answers = entry.get("answers")
    if isinstance(answers, list):
        answers = list(map(as_written, answers))
    if answers is not None and not (isinstance(answers, list) and all(isinstance(a, str) for a in answers)):
        parser.error("'answers' must be a list of strings")
    elif any(HALF_A_CHARACTER.search(answer) for answer in answers or ()):
        parser.error("'answers' contains half of a surrogate pair (a broken \\u escape); rewrite that character")
    for name in TEXT_FIELDS:
        value = entry.get(name)
        if value is not None:
            parser.text(value, f"'{name}'")
    provenance = entry.get("provenance")
    if provenance is not None and not isinstance(provenance, Mapping):
        parser.error("'provenance' must be an object")
    if not isinstance(entry.get("id"), str) or not entry["id"]:
        parser.error("'id' must be a string that is not empty")
    elif HALF_A_CHARACTER.search(entry["id"]):
        parser.error("'id' contains half of a surrogate pair (a broken \\u escape); rewrite that character")
    if parser.errors:
        raise InputError(parser.errors)
    texts = {name: entry.get(name) for name in TEXT_FIELDS}
    return Record(entry["id"], messages, answers=answers, provenance=provenance, where=where, **texts)


def to_json(record: Record, relative_to: str | Path) -> dict[str, Any]:
    """The record as a JSON object; `from_json` with `relative_to` as its image root gives an equal record.

    Images below the folder `relative_to` are named relative to it, so that the folder can be moved as a whole;
    others by absolute path, embedded ones as a data URI. Fields that are not set are left out.
    """
    folder = locations.absolute(relative_to)
    result: dict[str, Any] = {"id": record.id}
    result["messages"] = [
        {**message, "content": _content_to_json(message["content"], folder)} for message in record.messages
    ]
    for name in ("answers", *TEXT_FIELDS, "provenance"):
        if (value := getattr(record, name)) is not None:
            result[name] = value
    return result


def write_records(path: str | Path, records: Iterable[Record]) -> None:
    """Writes records as JSON lines. The file appears whole or not at all; an older one is replaced.

    Raises:
      OSError: the folder cannot be made or written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "w", encoding="utf-8", newline="\n") as file:
            for record in records:
                file.write(json.dumps(to_json(record, path.parent), ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _content_to_json(content: str | list[dict[str, Any]], folder: str) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    return [
        {"type": "image", "image": _image_to_json(part["image"], folder)} if part["type"] == "image" else part
        for part in content
    ]


def _image_to_json(image: str | bytes, folder: str) -> str:
    if isinstance(image, bytes):
        # The kind of image is read from the bytes themselves wherever it matters.
        return "data:application/octet-stream;base64," + base64.b64encode(image).decode("ascii")
    return locations.below(image, folder) or image


class _Parser:
    """Normalises one entry and collects its errors, so that all of them are reported together."""

    def __init__(self, where: str, image_root: str):
        self.where = where
        self.image_root = image_root
        self.errors: list[str] = []

    def error(self, reason: str) -> None:
        self.errors.append(f"{self.where}: {reason}")

    def text(self, value: Any, name: str) -> str:
        if not isinstance(value, str):
            self.error(f"{name} must be a text, not {json_type(value)}")
            return ""
        for reason in errors_in(value):
            self.error(f"{name} {reason}")
        return value

    def messages(self, raw: Any, training: bool) -> list[dict[str, Any]]:
        if not isinstance(raw, list) or not raw:
            self.error("'messages' must be a list of at least one message")
            return []
        start = 0 if isinstance(raw[0], Placed) else 1
        messages = [self.message(message, _place(number)) for number, message in enumerate(raw, start)]
        if any(map(_shows_image, messages)):
            for number, message in enumerate(messages, start):
                self.other_places(message, _place(number))
        # Order is only worth checking once every role is known.
        if all(message is not None for message in messages):
            self.order([message["role"] for message in messages], training, start)
            weights = [message.get("weight", 1) for message in messages if message["role"] == "assistant"]
            if training and weights and not any(weights):
                self.error("every answer has the weight 0, so there is nothing to learn; remove the record")
        return [message for message in messages if message is not None]

    def message(self, raw: Any, name: str) -> dict[str, Any] | None:
        if not isinstance(raw, Mapping):
            self.error(f"{name} must be an object with 'role' and 'content', not {json_type(raw)}")
            return None
        role = raw.get("role")
        if role in TOOL_ROLES:
            self.error(f"{name} is a tool's (role {role!r}), and tool calls are not supported: {LEAVE_OUT}")
            return None
        if role not in ROLES:
            self.error(f"{name} has the role {role!r}; the roles are system, user and assistant")
            return None
        if tools := tool_keys(raw):
            self.error(
                f"{name} calls a tool ({', '.join(map(repr, tools))}), and tool calls are not supported: {LEAVE_OUT}"
            )
            return None
        for reason in unread_keys(raw):
            self.error(f"{name} {reason}")
        weight: int | float = 1
        try:
            weight = turn_weight(raw)
        except InputError as error:
            self.error(f"{name} {error}")
        before = len(self.errors)
        content = self.content(as_written(raw.get("content")) if role == "assistant" else raw.get("content"), name)
        if len(self.errors) == before:  # what could not be read is not also called empty
            self.content_suits_role(content, role, name)
        weighted = {"weight": weight} if role == "assistant" and weight != 1 else {}
        return {"role": role, "content": content, **weighted}

    def content(self, raw: Any, name: str) -> str | list[dict[str, Any]]:
        if isinstance(raw, str):
            return self.text(raw, name)
        if not isinstance(raw, list):
            self.error(f"{name} must have a text or a list of parts as 'content', not {json_type(raw)}")
            return ""
        parts, number, beside = [], 0, 0
        for part in raw:
            if not isinstance(part, Placed):
                number += 1
                parts.append(self.part(part, f"{name}, part {number}"))
            elif part["type"] == "text":
                parts.append(self.part(part, name))
            else:
                beside += 1
                parts.append(self.part(part, f"{name}, image {beside}"))
        return parts

    def other_places(self, message: dict[str, Any] | None, name: str) -> None:
        """Errors of marks of other trainers in the words of a user; an answer may be HTML."""
        if message is not None and message["role"] == "user":
            parts = [{"text": message["content"]}] if isinstance(message["content"], str) else message["content"]
            for reason in places_in("\n".join(part.get("text", "") for part in parts)):
                self.error(f"{name} {reason}")

    def part(self, raw: Any, name: str) -> dict[str, Any]:
        kind = raw.get("type") if isinstance(raw, Mapping) else None
        if kind in ("text", "image", "image_url"):
            raw = plain_part(raw)
            for reason in unread_part_keys(raw):
                self.error(f"{name} {reason}")
            if kind == "text":
                return {"type": "text", "text": self.text(raw.get("text"), name)}
            return {"type": "image", "image": self.image(address_of(raw), name)}
        if kind in _UNSUPPORTED_PARTS:
            self.error(f"{name} is of type '{kind}', and only text and images can be trained on: {LEAVE_OUT}")
        elif kind in _TOOL_PARTS:
            self.error(f"{name} is of type '{kind}', and tool calls are not supported: {LEAVE_OUT}")
        else:
            found = f"of type {kind!r}" if isinstance(raw, Mapping) else json_type(raw)
            self.error(f"{name} is {found}; a part is an object of type 'text', 'image' or 'image_url'")
        return {"type": "text", "text": ""}

    def image(self, source: Any, name: str) -> str | bytes:
        if isinstance(source, bytes) and source:
            return source
        if not isinstance(source, str) or not source.strip():
            self.error(f"{name} names no image; give a path or a data URI")
            return ""
        if source[:5].lower() == "data:":
            return self.embedded(source, name)
        if source[:7].lower() == "file://":
            try:
                source = unquote(urlsplit(source).path)
            except ValueError as error:
                self.error(f"{name} is {quoted(source)}, which is no address ({error}); give the path")
                return ""
        elif _SCHEME.match(source):
            self.error(
                f"{name} is the remote image {quoted(source)}; addresses in data are not fetched: "
                "download it and give its path"
            )
            return ""
        if _ENCODED.match(source) or (_too_long(source) and not locations.is_remote(self.image_root)):
            self.error(
                f"{name} is {quoted(source)}, a text of {len(source):,} characters and no path; an image in base64 "
                "begins with data:image/png;base64, (or its own kind)"
            )
            return ""
        if _NOT_IN_PATHS.search(source):
            self.error(f"{name} names the image {quoted(source)}; a path has no line breaks or control characters")
            return ""
        return locations.join(self.image_root, source)

    def embedded(self, uri: str, name: str) -> bytes:
        header = _DATA_URI.match(uri)
        if header is None:
            self.error(f"{name} is the data URI {quoted(uri)}; only base64 is read (data:image/png;base64,…)")
            return b""
        try:
            image = base64.b64decode("".join(uri[header.end() :].split()), validate=True)
        except (binascii.Error, ValueError):  # ValueError: characters outside ASCII
            image = b""
        if not image:
            self.error(f"{name} is a data URI whose base64 is empty or broken; embed the image again or give its path")
        return image

    def content_suits_role(self, content: str | list[dict[str, Any]], role: str, name: str) -> None:
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        has_image = any(part["type"] == "image" for part in parts)
        has_text = any(part["type"] == "text" and part["text"].strip() for part in parts)
        if has_image and role != "user":
            self.error(f"{name} ({role}) contains an image; only the user's messages can show one")
        elif role == "assistant" and not has_text:
            self.error(f"{name} is an empty answer; write the answer or remove the record")
        elif not has_text and not has_image:
            self.error(f"{name} ({role}) is empty; write its text or remove it")

    def order(self, roles: list[str], training: bool, start: int) -> None:
        first = 1 if roles[0] == "system" else 0
        for index in range(first, len(roles)):
            expected = "assistant" if (index - first) % 2 else "user"
            if roles[index] != expected:
                self.error(
                    f"{_place(index + start)} is from the {roles[index]} where the {expected} should speak; a "
                    "system message may come first, then user and assistant take turns"
                )
                return
        if len(roles) == first:
            self.error("the conversation is a system message only; add a question and an answer")
        elif training and roles[-1] != "assistant":
            self.error("the last message is not an answer of the assistant, so there is nothing to learn; add it")


def _place(number: int) -> str:
    return f"message {number}" if number else "the system message"


def _shows_image(message: Mapping[str, Any] | None) -> bool:
    return isinstance(content := (message or {}).get("content"), list) and any(p["type"] == "image" for p in content)


def _too_long(path: str) -> bool:
    return len(path) > _LONGEST_PATH or any(len(name) > _LONGEST_NAME for name in path.split("/"))


def plain_part(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """A part with its content under the name of its type; LLaMA-Factory's stands under `value`."""
    kind = part["type"]
    if part.get("value") is None or part.get(kind) is not None:
        return part
    return {**{key: value for key, value in part.items() if key != "value"}, kind: part["value"]}
