"""Which tokens of a conversation ask about which image: for token reduction that follows the question.

The question about an image is the text of the turn that it stands in. Answers and later turns are no part of it: a
model in use has not read them when it looks at the image.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from vlm_jax.errors import InputError
from vlm_jax.processing import chat


def question_turns(
    messages: Sequence[chat.Message],
    text: str,
    ids: Int[np.ndarray, " n"],
    starts: Int[np.ndarray, " n"],
    image_token: int,
) -> Int[np.ndarray, " n"]:
    """Of each token the turn, from 1, whose question it is a word of, or in which it is an image; 0 for all others.

    Args:
      text: the rendered conversation.
      ids, starts: its tokens, and where in it each begins.

    Raises:
      InputError: a turn shows an image and asks nothing, or the template rewrites the question.
    """
    turns = np.zeros(len(ids), np.int32)
    images = iter(np.flatnonzero(ids == image_token))
    place = 0
    for number, message in enumerate(messages, start=1):
        shown = len(chat.image_parts([message]))
        spans = []
        for words in _texts(message):
            at = text.find(words, place)
            if at < 0 and shown:
                raise InputError(f"turn {number}: the chat template rewrites its text, so its question cannot be found")
            if at >= 0:
                spans.append((at, at + len(words)))
                place = at + len(words)
        if not shown:
            continue
        if not spans:
            raise InputError(
                f"turn {number}: shows an image and asks nothing, and cdpruner chooses tokens by the question; give it "
                "one, or take another method (model.token_reduction)"
            )
        for start, end in spans:
            first, last = np.searchsorted(starts, (start, end))
            turns[first:last] = number
        for _ in range(shown):
            if (image := next(images, None)) is not None:
                turns[image] = number
    return turns


def _texts(message: chat.Message) -> list[str]:
    """What a message says, without the blanks that a template may strip."""
    content = message["content"]
    parts = [content] if isinstance(content, str) else [one.get("text") for one in content if one["type"] == "text"]
    return [part.strip() for part in parts if part and part.strip()]
