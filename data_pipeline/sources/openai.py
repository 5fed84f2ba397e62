"""OpenAI's chat form, as its fine-tuning files have it: `messages`, images as `image_url` with a path or a data URI.

The parts themselves are read by `data_pipeline.records`, which knows both OpenAI's and Hugging Face's; this project's
own records are read here as well, being the same with more fields.
"""

import base64
from collections.abc import Mapping
from typing import Any

import PIL.Image

from data_pipeline.records import Record
from data_pipeline.sources.containers import Entries
from data_pipeline.sources.forms import Form, Options, other_fields, require
from data_pipeline.sources.sharegpt import ShareGPT
from data_pipeline.sources.turns import ROLES, images_beside, with_system
from vlm_jax.errors import InputError, gathered
from vlm_jax.processing.images import header


class Records(Form):
    """This project's own form; and entries of a file whose first one could be ours, with images beside `messages`.

    Which entry comes first in a mixed file changes nothing: those that ShareGPT's form alone can read are read by it.
    """

    conversational = True

    def __init__(self, entries: Entries, options: Options):
        super().__init__(entries, options)
        require(entries, ("messages",), "records")
        self._sharegpt = ShareGPT(entries, options)

    def convert(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        errors: list[str] = []
        _, images = images_beside(entry, ("images", "image"), errors)
        if errors:
            raise InputError(errors)
        if images or _speaks_otherwise(entry.get("messages")):
            return {**entry, **self._sharegpt.convert(entry)}
        return {**entry, "messages": _messages(entry)}


class OpenAI(Form):
    """`{"messages": […]}`, one conversation an entry."""

    conversational = True

    def __init__(self, entries: Entries, options: Options):
        super().__init__(entries, options)
        require(entries, ("messages",), "openai")

    def convert(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        errors: list[str] = []
        fields = other_fields(entry, errors, compared=not self.options.training)
        with gathered(errors):
            fields["messages"] = _messages(entry)
        if errors:
            raise InputError(errors)
        return fields


def _messages(entry: Mapping[str, Any]) -> Any:
    """The messages after the system message that a column of its own gives.

    Raises:
      InputError: images stand beside them.
    """
    errors: list[str] = []
    key, images = images_beside(entry, ("images", "image"), errors)
    if images:
        errors.append(
            f"has images under {key!r} beside its messages, which is the format 'sharegpt'; name it "
            "(config.data.format), or remove the column"
        )
    messages = entry.get("messages")
    messages = with_system(entry, messages, errors) if _are_objects(messages) else messages
    if errors:
        raise InputError(errors)
    return messages


def _speaks_otherwise(messages: Any) -> bool:
    """Whether turns are from `human` and `gpt`, or are called `from` and `value`."""
    return _are_objects(messages) and any(
        "from" in message or (isinstance(role := message.get("role"), str) and ROLES.get(role, role) != role)
        for message in messages
    )


def _are_objects(messages: Any) -> bool:
    return isinstance(messages, list) and all(isinstance(message, Mapping) for message in messages)


def to_entry(record: Record) -> dict[str, Any]:
    """The record as an entry; embedded images become data URIs, others stay as they are."""
    messages = []
    for message in record.messages:
        content = message["content"]
        if not isinstance(content, str):
            content = [
                {"type": "image_url", "image_url": {"url": _url(part["image"])}} if part["type"] == "image" else part
                for part in content
            ]
        messages.append({**message, "content": content})
    return {"id": record.id, "messages": messages}


def _url(image: str | bytes) -> str:
    return data_uri(image) if isinstance(image, bytes) else image


def data_uri(image: bytes) -> str:
    """An encoded image file as a data URI, its media type told by its first bytes."""
    kind = image_format(image)
    media_type = PIL.Image.MIME.get(kind, "application/octet-stream")
    return f"data:{media_type};base64,{base64.b64encode(image).decode('ascii')}"


def image_format(image: bytes) -> str:
    """Pillow's name for the format of an encoded image file, or "" for bytes it does not know."""
    try:
        with header(image) as opened:
            return opened.format or ""
    except Exception:  # a broken image is reported by the image check, not here
        return ""
