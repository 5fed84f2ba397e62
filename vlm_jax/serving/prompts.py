"""From a request to the prompts of its answers, within what the model reads and the server's memory holds."""

import contextlib
import dataclasses
import secrets

from vlm_jax.errors import InputError
from vlm_jax.inference.answering import Prompt, PromptTooLong
from vlm_jax.inference.decoding import bucket
from vlm_jax.inference.engine import LoadedModel
from vlm_jax.inference.prompt_rows import patches_of
from vlm_jax.processing import chat
from vlm_jax.processing.example import Example
from vlm_jax.processing.images import AT_ONCE, header
from vlm_jax.serving.chat_request import ChatRequest
from vlm_jax.serving.refusals import Refused

TOO_LONG = "context_length_exceeded"
TOO_MANY = "images_too_large"


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a request may take.

    Attributes:
      entries: tokens that the caches of all choices hold at most.
      patches: that go through the vision tower for all choices at most.
      default_tokens: that an answer may have where the request does not say, as far as there is room.
    """

    entries: int
    patches: int
    default_tokens: int


def prompts_of(model: LoadedModel, request: ChatRequest, limits: Limits) -> list[Prompt]:
    """The prompts of all choices, of which the i-th draws as the i-th of a list that `model.generate` is given.

    Raises:
      Refused: too long, or of images that are too many, too large, or cannot be read.
    """
    most = _largest_bucket(limits.entries >> (request.choices - 1).bit_length())
    _check_images(model, request, most, limits.patches)
    example = _example(model, request)
    _check_patches(patches_of([example.size] * request.choices), limits.patches, request.choices)
    limit = _limit(model, request, example, most, limits.default_tokens)
    chosen = {"temperature": 0.0, **request.sampling}
    temperature = chosen.pop("temperature")
    seed = request.seed
    if seed is None:  # as OpenAI's, an answer that is drawn is another each time
        seed = secrets.randbits(31) if temperature else 0
    try:
        sampling = model.sampling(temperature, seed, chosen)
    except InputError as error:
        raise Refused("; ".join(error.lines), code="invalid_value") from None
    return [Prompt(example, limit, sampling, number) for number in range(request.choices)]


def _example(model: LoadedModel, request: ChatRequest) -> Example:
    try:
        return model.prompt(request.messages, 1)
    except PromptTooLong as error:
        raise _too_long(
            f"the prompt takes {'' if error.counted else 'at least '}{error.prompt_tokens:,} tokens, and the model "
            f"reads {error.most:,} at most, with its answer: send less text, or fewer or smaller images"
        ) from None
    except InputError as error:
        reason = "; ".join(error.lines[:10])
        if request.messages[0]["role"] == "assistant" and "chat template" in reason:
            reason = "message 1 is the assistant's; a conversation of this model begins with the system or the user"
        raise Refused(reason, param="messages", code="invalid_value") from None


def _limit(model: LoadedModel, request: ChatRequest, example: Example, most: int, default_tokens: int) -> int:
    """Tokens that each answer may have."""
    prompt_tokens, wanted, name = len(example.input_ids), request.max_tokens, request.max_tokens_name
    each = "" if request.choices == 1 else f" for each of {request.choices} answers"
    if prompt_tokens + 1 > most:
        raise _too_long(
            f"the prompt takes {prompt_tokens:,} tokens, and this server holds {most:,}{each} at most, with the "
            "answer (--cache_tokens): send less text, or fewer or smaller images"
        )
    room = most - prompt_tokens
    holds = f"this server holds {most:,} tokens{each} (--cache_tokens)"
    of_model = model.room(example)
    if of_model is not None and of_model < room:
        room, holds = of_model, f"the model reads {of_model + prompt_tokens:,} tokens"
    if wanted is not None and wanted > room:
        raise _too_long(
            f"{name} is {wanted:,}, and behind the prompt's {prompt_tokens:,} tokens there is room for {room:,} more: "
            f"{holds}",
            name,
        )
    return wanted or min(default_tokens, room)


def _too_long(message: str, param: str = "messages") -> Refused:
    return Refused(message, param=param, code=TOO_LONG)


def _largest_bucket(entries: int) -> int:
    """The largest cache of at most so many entries; 0 where there is none."""
    size, most = bucket(1), 0
    while size <= entries:
        most, size = size, bucket(size + 1)
    return most


def _check_images(model: LoadedModel, request: ChatRequest, most: int, patches: int) -> None:
    """By their headers alone, before memory is taken for them; what is wrong with one is told when it is decoded."""
    pixels = tokens = slots = 0
    for part in chat.image_parts(request.messages):
        with contextlib.suppress(Exception):  # what a broken header makes Pillow raise is not a fixed list
            with header(chat.image_source(part)) as image:
                pixels += image.width * image.height
                grid = model.processor.grid(*image.size)
                tokens += model.processor.visual_tokens(grid)
                slots += model.processor.patch_slots(grid)
    if pixels > AT_ONCE:
        raise Refused(
            f"the images have {pixels / 1e6:,.0f} million pixels, and a request may have {AT_ONCE / 1e6:,.0f} million; "
            "scale them down",
            param="messages",
            code=TOO_MANY,
        )
    if tokens > most:
        raise _too_long(
            f"the images take {tokens:,} tokens, and this server holds {most:,} of an answer at most (--cache_tokens)"
        )
    _check_patches(slots * request.choices, patches, request.choices)


def _check_patches(slots: int, most: int, choices: int) -> None:
    if slots <= most:
        return
    each = "" if choices == 1 else f" of {choices} answers"
    raise Refused(
        f"the images{each} take {slots:,} patches, with the padding of windows, and this server sees {most:,} at one "
        "time (--patches): send fewer or smaller images",
        param="messages",
        code=TOO_MANY,
    )
