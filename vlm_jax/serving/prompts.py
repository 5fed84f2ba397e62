"""From a request to the prompts of its answers, within what the model reads and the server's memory holds."""

import contextlib
import secrets

from vlm_jax.errors import InputError
from vlm_jax.inference.answering import Prompt, PromptTooLong
from vlm_jax.inference.decoding import bucket
from vlm_jax.inference.engine import LoadedModel
from vlm_jax.processing import chat
from vlm_jax.processing.images import AT_ONCE, header
from vlm_jax.serving.chat_request import ChatRequest
from vlm_jax.serving.refusals import Refused


def prompts_of(model: LoadedModel, request: ChatRequest, *, entries: int, default_tokens: int) -> list[Prompt]:
    """The prompts of all choices, of which the i-th draws as the i-th of a list that `model.generate` is given.

    Args:
      entries: tokens that the caches of all choices hold at most.
      default_tokens: that an answer may have where the request does not say, as far as there is room.

    Raises:
      Refused: too long, or of images that cannot be read.
    """
    most = _largest_bucket(entries >> (request.choices - 1).bit_length())
    _check_images(model, request.messages, most)
    try:
        example = model.prompt(request.messages, request.max_tokens or 1)
    except PromptTooLong as error:
        raise _too_long(str(error)) from None
    except InputError as error:
        raise Refused("; ".join(error.lines[:10]), param="messages", code="invalid_value") from None
    prompt_tokens = len(example.input_ids)
    if prompt_tokens + (request.max_tokens or 1) > most:
        raise _too_long(
            f"the prompt takes {prompt_tokens:,} tokens and the answer up to {request.max_tokens or 1:,}; this server "
            f"holds {most:,} of each of {request.choices} answers at most (--cache_tokens)"
        )
    room = model.room(example)
    limit = request.max_tokens or min(default_tokens, most - prompt_tokens, default_tokens if room is None else room)
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


def _too_long(message: str) -> Refused:
    return Refused(message, param="messages", code="context_length_exceeded")


def _largest_bucket(entries: int) -> int:
    """The largest cache of at most so many entries; 0 where there is none."""
    size, most = bucket(1), 0
    while size <= entries:
        most, size = size, bucket(size + 1)
    return most


def _check_images(model: LoadedModel, messages: list[chat.Message], most: int) -> None:
    """By their headers alone, before memory is taken for them; what is wrong with one is told when it is decoded."""
    pixels = tokens = 0
    for part in chat.image_parts(messages):
        with contextlib.suppress(Exception):  # what a broken header makes Pillow raise is not a fixed list
            with header(chat.image_source(part)) as image:
                pixels += image.width * image.height
                tokens += model.processor.visual_tokens(model.processor.grid(*image.size))
    if pixels > AT_ONCE:
        raise Refused(
            f"the images have {pixels / 1e6:,.0f} million pixels, and a request may have {AT_ONCE / 1e6:,.0f} million; "
            "scale them down",
            param="messages",
            code="images_too_large",
        )
    if tokens > most:
        raise _too_long(
            f"the images take {tokens:,} tokens, and this server holds {most:,} of an answer at most (--cache_tokens)"
        )
