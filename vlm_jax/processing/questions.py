"""Which tokens of a conversation ask about which image: for token reduction that follows the question.

The question about an image is the text of the turn that it stands in. Answers and later turns are no part of it: a
model in use has not read them when it looks at the image.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int

from vlm_jax.errors import InputError
from vlm_jax.processing import chat


def question_turns(
    messages: Sequence[chat.Message],
    render: Callable[[Sequence[chat.Message]], str],
    ids: Int[np.ndarray, " n"],
    starts: Int[np.ndarray, " n"],
    image_token: int,
    method: str,
) -> Int[np.ndarray, " n"]:
    """Of each token the turn, from 1, whose question it is a word of, or in which it is an image; 0 for all others.

    Args:
      render: makes the text of a conversation.
      ids, starts: the tokens of that text, and where in it each begins.
      method: that wants to know.

    Raises:
      InputError: a turn shows an image and asks nothing, or the template rewrites the question.
    """
    turns = np.zeros(len(ids), np.int32)
    images = iter(np.flatnonzero(ids == image_token))
    for number, (shown, spans) in enumerate(_questions(messages, render), start=1):
        if not shown:
            continue
        if not spans:
            raise InputError(
                f"turn {number}: shows an image and asks nothing, and {method} chooses tokens by the question; give it "
                "one, or take another method (model.token_reduction)"
            )
        for start, end in spans:
            first, last = np.searchsorted(starts, (start, end))
            if first == len(starts) or starts[first] > start:
                first -= 1  # a word that begins with the blank before it
            turns[first:last] = number
        for _ in range(shown):
            if (image := next(images, None)) is not None:
                turns[image] = number
    return turns


def _questions(
    messages: Sequence[chat.Message], render: Callable[[Sequence[chat.Message]], str]
) -> list[tuple[int, list[tuple[int, int]]]]:
    """Of each turn, how many images it shows, and from where to where in the rendered text its words are.

    A mark before the words tells where they come to stand: the same words may be in what a template says.
    """
    text = render(messages)
    mark = next(chr(code) for code in range(0xE000, 0xF8FF) if chr(code) not in text)
    marked = render([_marked(message, mark) for message in messages])
    if marked.replace(mark, "") != text:
        raise InputError("the chat template rewrites the text of turns, so questions about images cannot be found")
    places = [place - number for number, place in enumerate(at for at, letter in enumerate(marked) if letter == mark)]
    found, following = [], iter(places)
    for message in messages:
        shown = len(chat.image_parts([message]))
        words = _texts(message) if shown else []
        found.append((shown, [(start := next(following), start + len(one)) for one in words]))
    return found


def _texts(message: chat.Message) -> list[str]:
    """What a message with images says, without the blanks that a template may strip."""
    return [part["text"].strip() for part in message["content"] if _says(part)]


def _says(part) -> bool:
    return part["type"] == "text" and bool(part.get("text", "").strip())


def _marked(message: chat.Message, mark: str) -> chat.Message:
    if not chat.image_parts([message]):
        return message
    content = []
    for part in message["content"]:
        if _says(part):
            blanks = len(part["text"]) - len(part["text"].lstrip())
            part = {**part, "text": part["text"][:blanks] + mark + part["text"][blanks:]}
        content.append(part)
    return {**message, "content": content}
