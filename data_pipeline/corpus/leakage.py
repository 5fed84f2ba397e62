"""What two splits have in common: a topic, a fact, an image, the wording of a question.

What is exactly the same in two splits is an error where it should be held out; what is nearly the same is counted and
listed, for a person to look at.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt64

from data_pipeline.corpus.filters import minhash
from data_pipeline.corpus.filters.canonical import canonical
from data_pipeline.corpus.filters.near_images import MOST_BITS, near_pairs
from data_pipeline.corpus.filters.near_text import THRESHOLD, TextsInMemory
from data_pipeline.corpus.filters.pair import Pair
from data_pipeline.corpus.filters.registry import nearest
from vlm_jax.errors import InputError

KINDS = ("topic", "fact", "image", "question")
_SHOWN = 5


@dataclass(frozen=True)
class Leak:
    """One thing that is in two splits.

    Attributes:
      kind: of KINDS.
      splits: two of them, or more of what is exactly the same.
      values: what they have in common: one value, or two that are nearly the same.
      ids: of a pair in each split.
    """

    kind: str
    splits: tuple[str, ...]
    values: tuple[str, ...]
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Leakage:
    """What splits have in common, exactly and nearly."""

    exact: list[Leak]
    near: list[Leak]

    def count(self, kind: str) -> tuple[int, int]:
        """How many of a kind are exactly, and nearly, in two splits."""
        return tuple(sum(leak.kind == kind for leak in leaks) for leaks in (self.exact, self.near))


def image_digests(images: Iterable[str]) -> dict[str, str]:
    """{image: digest of its file}.

    Raises:
      InputError: with all images that cannot be read.
    """
    found, errors = {}, []
    for image in dict.fromkeys(images):
        try:
            found[image] = hashlib.blake2b(Path(image).read_bytes(), digest_size=16).hexdigest()
        except OSError as error:
            errors.append(f"{image}: cannot be read ({error.strerror}); give it back, or remove its pairs")
    if errors:
        raise InputError(errors)
    return found


def leakage(
    pairs: Sequence[Pair],
    *,
    digests: Mapping[str, str] | None = None,
    hashes: Mapping[str, UInt64[np.ndarray, " 4"]] | None = None,
    threshold: float = THRESHOLD,
    window: int = minhash.WINDOW,
    bits: int = MOST_BITS,
) -> Leakage:
    """What the splits have in common.

    Args:
      digests: {image: digest of its bytes} (`image_digests`); without, images are the same whose names are.
      hashes: {image: its perceptual hashes} (`near_images.image_hashes`); without, images are not compared.
      threshold, window: of near questions, as for `near_text.duplicates`.
      bits: in which near images may differ.
    """
    digests = digests or {}
    forms = {question: canonical(question) for question in {pair.question for pair in pairs}}
    readers: dict[str, Callable[[Pair], str]] = {
        "topic": lambda pair: pair.topic,
        "fact": lambda pair: pair.fact_id,
        "image": lambda pair: digests.get(pair.image, pair.image),
        "question": lambda pair: forms[pair.question],
    }
    exact = [leak for kind, read in readers.items() for leak in _exact(kind, pairs, read)]
    near = _near_questions(pairs, forms, threshold, window)
    if hashes:
        near += _near_images(pairs, readers["image"], hashes, bits)
    return Leakage(exact, near)


def check(found: Leakage, held_out: Sequence[str] = KINDS) -> None:
    """Raises InputError, with what is exactly the same in two splits, of the kinds that are to be held out.

    A corpus that tests the facts it teaches, on other images and in other words, holds out image and question only.
    """
    if unknown := [kind for kind in held_out if kind not in KINDS]:
        raise InputError([f"leakage: no kind {kind!r}; {nearest(kind, KINDS)}" for kind in unknown])
    errors = []
    for kind in held_out:
        leaks = [leak for leak in found.exact if leak.kind == kind]
        errors += [
            f"leakage: the {kind} {leak.values[0]!r} is in {' and '.join(leak.splits)} ({', '.join(leak.ids)})"
            for leak in leaks[:_SHOWN]
        ]
        if len(leaks) > _SHOWN:
            errors.append(f"leakage: and {len(leaks) - _SHOWN:,} more of {kind}")
    if errors:
        raise InputError([*errors, "hold them out as a whole (splits.held_out), or take what leaks out of one split"])


def _exact(kind: str, pairs: Sequence[Pair], read: Callable[[Pair], str]) -> list[Leak]:
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for pair in pairs:
        if value := read(pair):
            first = found[value].setdefault(pair.split, pair.id)
            found[value][pair.split] = min(first, pair.id)
    return [
        Leak(kind, tuple(sorted(splits)), (value,), tuple(splits[split] for split in sorted(splits)))
        for value, splits in sorted(found.items())
        if len(splits) > 1
    ]


def _near_questions(pairs: Sequence[Pair], forms: Mapping[str, str], threshold: float, window: int) -> list[Leak]:
    where: dict[str, dict[str, str]] = defaultdict(dict)
    for pair in pairs:
        first = where[forms[pair.question]].setdefault(pair.split, pair.id)
        where[forms[pair.question]][pair.split] = min(first, pair.id)
    texts = TextsInMemory(where)
    alike = texts.alike(window, threshold)
    found = zip(texts.texts(alike[:, 0]), texts.texts(alike[:, 1]), strict=True)
    return _across("question", found, where)


def _near_images(
    pairs: Sequence[Pair], read: Callable[[Pair], str], hashes: Mapping[str, np.ndarray], bits: int
) -> list[Leak]:
    where: dict[str, dict[str, str]] = defaultdict(dict)
    shown: dict[str, str] = {}
    for pair in pairs:
        if pair.image in hashes:
            first = where[read(pair)].setdefault(pair.split, pair.id)
            where[read(pair)][pair.split] = min(first, pair.id)
            shown[read(pair)] = min(shown.get(read(pair), pair.image), pair.image)
    images = sorted(shown)
    if not images:
        return []
    near = near_pairs(np.stack([hashes[shown[image]] for image in images]), bits=bits)
    return _across("image", [(images[a], images[b]) for a, b, _ in near], where)


def _across(kind: str, alike: Iterable[tuple[str, str]], where: Mapping[str, Mapping[str, str]]) -> list[Leak]:
    """Of values that are alike, those that stand in two splits, between each two of these."""
    return [
        Leak(kind, (a, b), (one, other), (where[one][a], where[other][b]))
        for one, other in sorted(tuple(sorted(both)) for both in alike)
        for a in sorted(where[one])
        for b in sorted(where[other])
        if a != b
    ]
