"""Conversations in caches: how much of another one is known from them, and what is still to be read."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from vlm_jax.inference.decoding import Decoding
from vlm_jax.models.decoder import Cache
from vlm_jax.processing.example import Example
from vlm_jax.processing.token_budget import ALL_TOKENS, TokenBudget


@dataclasses.dataclass
class Prefix:
    """A conversation in a cache."""

    tokens: Int[np.ndarray, " n"]
    images: tuple[bytes, ...]
    queries: tuple[int, ...]
    """By which token each image's were weighed, where some are left out within the decoder (`example.TokensAbove`)."""
    state: Decoding

    @property
    def entries(self) -> int:
        """Of its cache."""
        return jax.tree.leaves(self.state.cache[0])[0].shape[-2]


def with_room(cache: Cache, capacity: tuple[int, ...], *, copy: bool) -> Cache:
    """A cache with room for so many entries, at least, in each range of layers.

    Args:
      copy: whether all of it is to be new memory: the old is still needed.
    """

    def one(part, entries: int):
        if (more := entries - part.shape[-2]) > 0:
            return jnp.pad(part, [(0, 0)] * (part.ndim - 2) + [(0, more), (0, 0)])
        return jnp.copy(part) if copy else part

    parts = zip(cache, capacity, strict=True)
    return tuple(jax.tree.map(functools.partial(one, entries=entries), part) for part, entries in parts)


def longest(known: Mapping[int, Prefix], example: Example, images: tuple[bytes, ...]) -> tuple[int, int | None]:
    """How many tokens of a conversation are in a cache, and in which; None where too few are.

    Args:
      images: its `image_digests`.
    """
    best, entry = 0, None
    spans = spans_of(example)
    for key, prefix in known.items():
        most = min(len(prefix.tokens), len(example.input_ids) - 1)
        differ = np.flatnonzero(prefix.tokens[:most] != example.input_ids[:most])
        shared = int(differ[0]) if len(differ) else most
        for number, (start, stop) in enumerate(spans):
            same = number < len(prefix.images) and prefix.images[number] == images[number]
            # An image is known whole or not at all.
            if start < shared and not (same and stop <= shared):
                shared = start
        shared = _before_questions(example, spans, shared)
        queries = queries_of(example)
        if any(stop > shared for _, stop in spans[: len(queries)]) or max(queries, default=-1) >= shared:
            shared = 0  # what stays above a cut is chosen while a row is read from its beginning
        if queries != prefix.queries[: len(queries)]:
            shared = 0  # a question that begins as a longer one did is another question
        if shared > best:
            best, entry = shared, key
    worth = best >= len(example.input_ids) // 2 or any(stop <= best for _, stop in spans)
    return (best, entry) if worth else (0, None)


def queries_of(example: Example) -> tuple[int, ...]:
    """`Prefix.queries` of a conversation."""
    return () if example.above is None else tuple(example.above.queries.tolist())


def lengths(example: Example, shared: int, ranges: int) -> Int[np.ndarray, "ranges 1"]:
    """How many of the first `shared` tokens of an example, all of its images among them, each range of layers sees."""
    left_out = [example.size.tokens - tokens for tokens in (example.size.above if ranges > 1 else ())]
    return np.array([[shared], *([shared - count] for count in left_out)], np.int32)


def image_digests(example: Example, budget: TokenBudget = ALL_TOKENS) -> tuple[bytes, ...]:
    """What the tokens of each image follow from: itself, how many of them stay and by which method, and the question
    where that decides which.

    Args:
      budget: with which the example was made; among examples that were made with one it tells nothing apart.
    """
    candidates, digests, done = example.candidates, [], 0
    settings = repr(budget if budget.chooses or budget.cuts else ALL_TOKENS)
    for image in example.images:
        hasher = hashlib.sha256(f"{settings} {image.grid!r}".encode() + image.patches.tobytes())
        if candidates is not None and candidates.questions is not None:
            words = example.input_ids[candidates.question_words == candidates.questions[done]]
            hasher.update(words.tobytes())
        done += len(image.layout.slot_of_token)
        digests.append(hasher.digest())
    return tuple(digests)


def _before_questions(example: Example, spans: Sequence[tuple[int, int]], shared: int) -> int:
    """So many of the `shared` tokens that no question is cut which decides what stays of an image that is still to be
    read: its words must be read with it."""
    candidates = example.candidates
    if candidates is None or candidates.questions is None or candidates.question_words is None:
        return shared
    firsts = np.cumsum([0, *(len(image.layout.slot_of_token) for image in example.images)])
    while True:
        # Those that are not known whole, and where the words begin that are asked about them.
        unread = [number for number, (_, stop) in enumerate(spans) if stop > shared]
        begins = [spans[number][0] for number in unread]
        for number in unread:
            words = np.flatnonzero(candidates.question_words == candidates.questions[firsts[number]])
            begins += words[:1].tolist()
        if min(begins, default=shared) >= shared:
            return shared
        shared = min(begins)


def spans_of(example: Example) -> list[tuple[int, int]]:
    """First token and end of each image."""
    places, spans, done = np.flatnonzero(example.input_ids == example.image_token), [], 0
    for image in example.images:
        spans.append((int(places[done]), int(places[done]) + image.tokens))
        done += image.tokens
    return spans
