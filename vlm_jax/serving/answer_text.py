"""The text of an answer as its tokens come: whole characters only, and nothing of a text that it is to stop before."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int

from vlm_jax.inference.answering import whole


class AnswerText:
    """Pieces that together are the answer, however many tokens come at a time."""

    def __init__(self, decode: Callable[[np.ndarray], str], stop: Sequence[str] = ()):
        self._decode, self._stop = decode, stop
        self._sent = self._looked_at = 0
        self.stop_found = False
        self.tokens = 0
        """That the text is made of; where a stop was found, those up to its last."""

    def piece(self, tokens: Int[np.ndarray, " n"], finished: bool) -> str:
        """What is new and will not change.

        Args:
          tokens: all of the answer so far.
          finished: whether no more come.
        """
        text = whole(self._decode(tokens), finished)
        self.tokens = len(tokens)
        found = first_stop(text, self._stop)
        if found is not None:
            self.stop_found = True
            self.tokens = next(
                (
                    count
                    for count in range(self._looked_at + 1, len(tokens))
                    if first_stop(self._decode(tokens[:count]), self._stop) is not None
                ),
                len(tokens),
            )
            text = text[: found[0]]
        elif not finished:
            text = text[: len(text) - _begun(text, self._stop)]
        self._looked_at = len(tokens)
        piece, self._sent = text[self._sent :], max(self._sent, len(text))
        return piece


def first_stop(text: str, stop: Sequence[str]) -> tuple[int, int] | None:
    """Begin and end of the stop that is complete first; of those that end together, of the longest."""
    places = [(at, at + len(one)) for one in stop if (at := text.find(one)) >= 0]
    return min(places, key=lambda place: (place[1], place[0]), default=None)


def _begun(text: str, stop: Sequence[str]) -> int:
    """Letters at the end of a text with which a stop may begin."""
    longest = max(map(len, stop), default=1) - 1
    for letters in range(min(longest, len(text)), 0, -1):
        end = text[-letters:]
        if any(one.startswith(end) and len(one) > letters for one in stop):
            return letters
    return 0
