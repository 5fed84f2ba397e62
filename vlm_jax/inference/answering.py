"""Conversations being answered side by side: each with its own limit and sampling, each ended when it likes.

How prompts are read and caches kept is `engine`'s, the compiled loop is in `decoding`.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int

from vlm_jax.errors import InputError
from vlm_jax.inference.decoding import Decoding
from vlm_jax.inference.sampling import NO_TOKEN, Sampling
from vlm_jax.processing.example import Example

NOT_WHOLE = "\ufffd"
"""What a tokenizer makes of bytes that are no character; at the end of a text, of those that the next token goes on."""


class PromptTooLong(InputError):
    """A conversation and its answer are more than the model reads.

    Attributes:
      prompt_tokens: of the conversation alone.
      counted: whether these are all; of a long text more are not counted.
      most: tokens that the model reads.
    """

    def __init__(self, prompt_tokens: int, counted: bool, max_new_tokens: int, most: int):
        self.prompt_tokens, self.counted, self.most = prompt_tokens, counted, most
        super().__init__(
            f"the prompt takes {'' if counted else 'at least '}{prompt_tokens:,} tokens and the answer up to "
            f"{max_new_tokens:,}; the model reads {most:,} at most (max_position_embeddings of config.json): give "
            "fewer or smaller images (visual_tokens), less text, or lower max_new_tokens"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Prompt:
    """A conversation that is to be answered.

    Attributes:
      example: with a generation prompt.
      max_new_tokens: that the answer may have.
      number: which stream of draws under its seed it takes: its place in a list that is given to `generate`.
    """

    example: Example
    max_new_tokens: int
    sampling: Sampling
    number: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
    """What a model says to a conversation.

    Attributes:
      tokens: without the stop token.
      log_probability: of them under the model, with the stop token where it has one: natural logarithm, whatever the
        sampling.
      stopped: whether the model ended it with a stop token.
    """

    text: str
    tokens: Int[np.ndarray, " n"]
    log_probability: float
    stopped: bool

    @property
    def probability(self) -> float:
        """That the model gives the whole answer, 0 to 1: how sure it is of it."""
        return math.exp(min(0.0, self.log_probability))


class Answering:
    """A batch of answers. Leaving it as a context manager ends it, and with it what is unfinished."""

    def __init__(
        self,
        limits: Sequence[int],
        state: Decoding,
        decode: Callable[[Decoding, int], Decoding],
        stop_tokens: Sequence[int],
        *,
        no_numbers: Callable[[], str],
        at_end: Callable[[Decoding], None] = lambda state: None,
    ):
        """
        Args:
          limits: tokens that each answer may have; rows of `state` behind them only fill up the batch.
          decode: goes on until so many tokens; takes the state's memory.
          no_numbers: why the model computes NaN.
          at_end: called with the last state.
        """
        self._limits, self._stop_tokens = list(limits), np.asarray(stop_tokens)
        self._decode, self._no_numbers, self._at_end = decode, no_numbers, at_end
        self._lengths: list[int | None] = [None] * len(self._limits)
        """Tokens of the answers that ended without a stop token."""
        self._read(state)

    def __enter__(self) -> "Answering":
        return self

    def __exit__(self, *error) -> None:
        self._at_end(self._state)

    def _read(self, state: Decoding) -> None:
        self._state = state
        self._count = int(state.filled)
        self._done = np.array(state.done)
        self._answers = np.asarray(state.answer)[:, : self._count]
        self._log_probability = np.asarray(state.log_probability)
        for row, limit in enumerate(self._limits):
            if not self._done[row] and self._count >= limit:
                self.finish(row)

    @property
    def unfinished(self) -> list[int]:
        """Rows of answers that go on."""
        return [row for row in range(len(self._limits)) if not self._done[row]]

    def advance(self, tokens: int) -> None:
        """Decodes at most so many more tokens of each unfinished answer; none where all are finished."""
        limits = [self._limits[row] for row in self.unfinished]
        if limits:
            until = min(self._count + tokens, *limits)
            self._read(self._decode(self._state._replace(done=self._done), until))

    def finish(self, row: int) -> None:
        """Ends an answer where it is."""
        if not self._done[row]:
            self._done[row] = True
            self._lengths[row] = self._count

    def tokens(self, row: int) -> Int[np.ndarray, " n"]:
        """The answer so far, without its stop token.

        Raises:
          InputError: the model computes NaN.
        """
        found = self._answers[row][: self._lengths[row]]
        if (found == NO_TOKEN).any():
            raise InputError(self._no_numbers())
        stops = np.flatnonzero(np.isin(found, self._stop_tokens))
        return found[: stops[0]] if len(stops) else found

    def log_probability(self, row: int) -> float:
        """Of the tokens of an answer under the model, with its stop token where it has one: natural logarithm."""
        return float(self._log_probability[row])

    def answer(self, row: int, decode: Callable[[Int[np.ndarray, " n"]], str]) -> Answer:
        """What there is of an answer.

        Args:
          decode: text of token ids.

        Raises:
          InputError: the model computes NaN.
        """
        tokens = self.tokens(row)
        return Answer(decode(tokens), tokens, self.log_probability(row), self.stopped(row))

    def stopped(self, row: int) -> bool:
        """Whether the model ended the answer with a stop token."""
        return bool(np.isin(self._answers[row][: self._lengths[row]], self._stop_tokens).any())


def whole(text: str, finished: bool) -> str:
    """An unfinished text up to the last character that is whole: one may be cut between two tokens."""
    return text if finished else text.rstrip(NOT_WHOLE)
