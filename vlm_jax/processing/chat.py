"""Conversations as token ids, and what each weighs in the loss: which of them the assistant said.

Text is rendered by the tokenizer's own chat template and tokenised as a whole, so that ids equal transformers' (one
exception: an answer whose first line break would melt into the prompt's last, see `_ids_and_starts`). What the
assistant said is found by rendering the conversation up to each of their turns; templates need no marks for it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Int

from vlm_jax.errors import InputError
from vlm_jax.processing import template as chat_template
from vlm_jax.processing.messages import (
    ROLES,
    address_of,
    tool_keys,
    turn_weight,
    unread_keys,
    unread_part_keys,
)

Message = dict[str, Any]
_WITH_PLACES: dict[str, Any] = {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
"""What a tokenizer is asked: without its warning of long texts, since what a model reads is checked elsewhere."""
_LETTERS_A_TOKEN = 16  # that no language has on the average: most texts are tokenised once


def image_parts(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The image parts of a conversation, in order."""
    return [
        part
        for message in messages
        if not isinstance(message["content"], str)
        for part in message["content"]
        if part.get("type") in ("image", "image_url")
    ]


def image_source(part: dict[str, Any]):
    """What an image part points at: a path, bytes, a PIL image or a data URI."""
    address = address_of(part)
    if address is None:
        raise InputError(f"an image part without an image: {sorted(part)}; give {{'type': 'image', 'image': path}}")
    return address


def check_messages(messages: Sequence[Message]) -> None:
    """Raises InputError, with all errors, unless `messages` is a conversation in the form of the chat APIs."""
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise InputError("messages must be a non-empty list like [{'role': 'user', 'content': 'Hello'}]")
    errors = [
        f"message {number}{error}" for number, message in enumerate(messages, start=1) for error in _errors(message)
    ]
    if errors:
        raise InputError(errors)


def _errors(message: Any) -> Iterator[str]:
    """What is wrong with a message, each to be read after its number."""
    if not isinstance(message, dict) or not {"role", "content"} <= set(message):
        yield ": must be a dictionary with 'role' and 'content'"
        return
    if message["role"] not in ROLES:
        yield f": role {message['role']!r}; known: {', '.join(ROLES)}"
        return
    if tools := tool_keys(message):
        yield f" calls a tool ({', '.join(map(repr, tools))}), and tool calls are not supported"
    yield from (f" {reason}" for reason in unread_keys(message))
    try:
        turn_weight(message)
    except InputError as error:
        yield f" {error}"
    if isinstance(message["content"], str):
        return
    if not isinstance(message["content"], Sequence):
        yield ": content must be text or a list of parts"
        return
    for place, part in enumerate(message["content"], start=1):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("video", "video_url"):
            yield ": videos are not read; give single frames as images"
        elif kind not in ("text", "image", "image_url"):
            yield f": part of type {kind!r}; known: text, image, image_url"
        else:
            if kind == "text" and not isinstance(part.get("text"), str):
                yield ": a text part without 'text'"
            yield from (f", part {place} {reason}" for reason in unread_part_keys(part))


def render(tokenizer, template: str | None, messages: Sequence[Message], *, generation_prompt: bool = False) -> str:
    """The conversation as text; images are one placeholder each, as the template writes them."""

    template_text = template or tokenizer.get_chat_template()

    def rendered(conversation: Sequence[Message]) -> str:
        try:
            more = tokenizer.special_tokens_map
            return chat_template.render(template_text, conversation, generation_prompt=generation_prompt, **more)
        except Exception as error:  # jinja's errors, and what a template raises itself
            reason = " ".join(str(error).split())
            raise InputError(f"the chat template cannot render this conversation: {reason}") from error

    text = rendered(messages)
    # Templates of some processors (LLaVA's) look at parts alone, and leave out what stands as plain text.
    left_out = [number for number in _not_verbatim(messages, text) if _is_ignored(rendered, messages, number, text)]
    if not left_out:
        return text
    in_parts = list(messages)
    for number in left_out:
        in_parts[number] = {**messages[number], "content": [{"type": "text", "text": messages[number]["content"]}]}
    return rendered(in_parts)


def _not_verbatim(messages: Sequence[Message], text: str) -> list[int]:
    """Which messages of plain text do not stand in a rendered text as they are."""
    return [number for number, one in enumerate(messages) if _is_text(one) and one["content"].strip() not in text]


def _is_ignored(
    rendered: Callable[[Sequence[Message]], str], messages: Sequence[Message], number: int, text: str
) -> bool:
    """Whether a template takes no notice of what a message says. One that changes it (leaves out an earlier turn's
    thinking, say) makes something else of other words."""
    other = "1" if messages[number]["content"].strip() == "0" else "0"
    try:
        return rendered([*messages[:number], {**messages[number], "content": other}, *messages[number + 1 :]]) == text
    except InputError:
        return False


def _is_text(message: Message) -> bool:
    return isinstance(message["content"], str)


def tokenize(
    tokenizer,
    template: str | None,
    messages: Sequence[Message],
    *,
    generation_prompt: bool = False,
    most: int | None = None,
    image_token: int | None = None,
) -> tuple[Int[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
    """Token ids with one placeholder an image, and what each weighs in the loss.

    A token that the assistant said (their end of turn included) weighs what its turn does, 1 where nothing is said of
    it (`messages.turn_weight`); all others weigh 0.

    Args:
      most: tokens that are of use to anybody. Of a text that has more than twice as many (a tokenizer takes hundreds of
        bytes a letter) only the beginning is tokenised, some more than `most`, and the placeholders behind it.
      image_token: the placeholder.
    """
    return tokenize_rendered(
        tokenizer,
        template,
        messages,
        render(tokenizer, template, messages, generation_prompt=generation_prompt),
        learned=not generation_prompt,
        most=most,
        image_token=image_token,
    )[:2]


def tokenize_rendered(
    tokenizer,
    template: str | None,
    messages: Sequence[Message],
    text: str,
    *,
    learned: bool = True,
    most: int | None = None,
    image_token: int | None = None,
) -> tuple[Int[np.ndarray, " n"], Float32[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """As `tokenize`, of a conversation that is rendered; and where in the text each token begins.

    Args:
      learned: whether anybody asks for the weights. To be answered, a conversation may be rendered by a template that
        makes something else of earlier turns (leaves their thinking out); such turns weigh 0 then.
    """
    spans = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = render(tokenizer, template, messages[:index], generation_prompt=True)
        through = render(tokenizer, template, messages[: index + 1])
        if not through.startswith(before) or not text.startswith(through):
            if not learned:
                continue
            raise InputError(
                "the chat template rewrites earlier turns, so the assistant's words cannot be told from the prompt; "
                "give each answer a conversation of its own, or take a template that leaves earlier turns as they are"
            )
        # The template's line break after the end of turn is not something the assistant says.
        spans.append((len(before), len(through.rstrip()), turn_weight(message)))
    cuts = [start for start, _, _ in spans]
    end = None if most is None else _long_enough(tokenizer, text, most)
    if end is None:
        ids, starts = _ids_and_starts(tokenizer, text, cuts)
    else:
        placeholder = tokenizer.convert_ids_to_tokens(image_token)
        through = text.find(placeholder, max(0, end - len(placeholder) + 1), end + len(placeholder) - 1)
        end = end if through < 0 else through
        ids, starts = _ids_and_starts(tokenizer, text[:end], [cut for cut in cuts if cut < end])
        behind = text[end:].count(placeholder)
        ids = np.append(ids, np.full(behind, image_token, ids.dtype))
        starts = np.append(starts, np.full(behind, len(text), starts.dtype))
    weights = np.zeros(len(ids), np.float32)
    for start, end, weight in spans:
        first, last = np.searchsorted(starts, (start, end))
        weights[first:last] = weight
    return ids, weights, starts


def _long_enough(tokenizer, text: str, most: int) -> int | None:
    """Where a text may end that has more than twice `most` tokens; None where it has not."""
    end = _LETTERS_A_TOKEN * most
    if end >= len(text):
        return None
    longest = max(map(len, tokenizer.get_vocab()))
    end += longest
    while end < len(text):
        encoded = tokenizer(text[:end], **_WITH_PLACES)
        # What the cut went through may be one token.
        if sum(stop <= end - longest for _, stop in encoded["offset_mapping"]) > 2 * most:
            return end - longest
        end *= 4
    return None


def _ids_and_starts(tokenizer, text: str, cuts: Sequence[int]) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Token ids of the text and where in it each begins; no token reaches across a cut.

    The text is tokenised as a whole, as transformers does. Only where that would melt the line breaks an answer begins
    with into the one the prompt ends with is it split there: the prompt must be the same tokens with and without its
    answer.
    """

    def encode(piece: str, at: int):
        encoded = tokenizer(piece, **_WITH_PLACES)
        spans = np.asarray(encoded["offset_mapping"], np.int64).reshape(-1, 2) + at
        return np.asarray(encoded["input_ids"], np.int32), spans[:, 0], spans[:, 1]

    ids, starts, ends = encode(text, 0)
    crossed = [cut for cut in cuts if np.any((starts < cut) & (ends > cut))]
    if crossed:
        bounds = [0, *crossed, len(text)]
        pieces = [encode(text[a:b], a) for a, b in zip(bounds, bounds[1:], strict=False)]
        ids, starts, _ = (np.concatenate(arrays) for arrays in zip(*pieces, strict=True))
    return ids, starts


def expand_images(
    ids: Int[np.ndarray, " n"], weights: Float32[np.ndarray, " n"], counts: Sequence[int], image_token: int
) -> tuple[Int[np.ndarray, " m"], Float32[np.ndarray, " m"]]:
    """Repeats each image's placeholder for each of its visual tokens.

    Raises:
      InputError: placeholders and images differ in number.
    """
    places = np.flatnonzero(ids == image_token)
    if len(places) != len(counts):
        raise InputError(f"{len(places)} image placeholders in the text for {len(counts)} images")
    repeats = np.ones(len(ids), np.int64)
    repeats[places] = counts
    return np.repeat(ids, repeats), np.repeat(weights, repeats)
