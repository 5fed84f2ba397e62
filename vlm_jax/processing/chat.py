"""Conversations as token ids, and which of them the assistant said.

Text is rendered by the tokenizer's own chat template and tokenised as a whole, so that ids equal transformers'. What
the assistant said is found by rendering the conversation up to each of their turns; templates need no marks for it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from vlm_jax.errors import InputError

Message = dict[str, Any]


def image_parts(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The picture parts of a conversation, in order."""
    return [
        part
        for message in messages
        if not isinstance(message["content"], str)
        for part in message["content"]
        if part.get("type") in ("image", "image_url")
    ]


def image_source(part: dict[str, Any]):
    """What a picture part points at: a path, bytes, a PIL image or a data URI."""
    if part["type"] == "image_url":
        address = part.get("image_url")
        address = address.get("url") if isinstance(address, dict) else address
    else:
        address = next((part[key] for key in ("image", "path", "url") if part.get(key) is not None), None)
    if address is None:
        raise InputError(f"a picture part without a picture: {sorted(part)}; give {{'type': 'image', 'image': path}}")
    return address


def check_messages(messages: Sequence[Message]) -> None:
    """Raises InputError unless `messages` is a conversation in the form of the chat APIs."""
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise InputError("messages must be a non-empty list like [{'role': 'user', 'content': 'Hello'}]")
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict) or not {"role", "content"} <= set(message):
            raise InputError(f"message {number}: must be a dictionary with 'role' and 'content'")
        if message["role"] not in ("system", "user", "assistant"):
            raise InputError(f"message {number}: role {message['role']!r}; known: system, user, assistant")
        if isinstance(message["content"], str):
            continue
        if not isinstance(message["content"], Sequence):
            raise InputError(f"message {number}: content must be text or a list of parts")
        for part in message["content"]:
            kind = part.get("type") if isinstance(part, dict) else None
            if kind == "text" and not isinstance(part.get("text"), str):
                raise InputError(f"message {number}: a text part without 'text'")
            if kind not in ("text", "image", "image_url"):
                raise InputError(f"message {number}: part of type {kind!r}; known: text, image, image_url")


def render(tokenizer, template: str | None, messages: Sequence[Message], *, generation_prompt: bool = False) -> str:
    """The conversation as text; pictures are one placeholder each, as the template writes them."""
    try:
        return tokenizer.apply_chat_template(
            list(messages), chat_template=template, tokenize=False, add_generation_prompt=generation_prompt
        )
    except Exception as error:  # jinja's errors, and what a template raises itself
        raise InputError(f"the chat template cannot render this conversation: {error}") from error


def tokenize(
    tokenizer, template: str | None, messages: Sequence[Message], *, generation_prompt: bool = False
) -> tuple[Int[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Token ids with one placeholder a picture, and which tokens the assistant said (their end of turn included)."""
    text = render(tokenizer, template, messages, generation_prompt=generation_prompt)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = np.asarray(encoded["input_ids"], np.int32)
    starts = np.asarray([start for start, _ in encoded["offset_mapping"]], np.int64)
    said = np.zeros(len(ids), bool)
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = render(tokenizer, template, messages[:index], generation_prompt=True)
        through = render(tokenizer, template, messages[: index + 1])
        if not through.startswith(before) or not text.startswith(through):
            raise InputError(
                "the chat template rewrites earlier turns, so the assistant's words cannot be told from the prompt"
            )
        # The template's line break after the end of turn is not something the assistant says.
        first, last = np.searchsorted(starts, [len(before), len(through.rstrip())])
        said[first:last] = True
    return ids, said


def expand_pictures(
    ids: Int[np.ndarray, " n"], said: Bool[np.ndarray, " n"], counts: Sequence[int], image_token: int
) -> tuple[Int[np.ndarray, " m"], Bool[np.ndarray, " m"]]:
    """Repeats each picture's placeholder for each of its visual tokens.

    Raises:
      InputError: placeholders and pictures differ in number.
    """
    places = np.flatnonzero(ids == image_token)
    if len(places) != len(counts):
        raise InputError(f"{len(places)} picture placeholders in the text for {len(counts)} pictures")
    repeats = np.ones(len(ids), np.int64)
    repeats[places] = counts
    return np.repeat(ids, repeats), np.repeat(said, repeats)
