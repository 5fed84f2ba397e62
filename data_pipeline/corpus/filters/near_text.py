"""Pairs whose question is asked already: the same words, or nearly, with the same answer or for the same fact.

Exact duplicates first, then near ones (`minhash` finds candidates, the exact similarity and `guards` decide). Of
duplicates the one of the smallest rank stays, which a hash of its id decides, not its place: a pair gives way only to
one that stays itself, so that nothing is joined by way of a third. Pairs with questions alike that say different
things are listed as contradictions.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt32, UInt64

from data_pipeline.corpus.filters import minhash
from data_pipeline.corpus.filters.canonical import canonical
from data_pipeline.corpus.filters.guards import answer_form, contradict, one_edit, same_thing
from data_pipeline.corpus.filters.pair import Pair, text_hash

THRESHOLD = 0.7
"""Jaccard similarity of 5-character shingles from which two questions are alike."""
_PIECE = 50_000  # candidates at a time: bounds the memory for their signatures
_LISTED = 3  # contradictions of one pair that are listed
_COMPARED = 50  # pairs of one question that another one of it is compared with, for contradictions


@dataclass(frozen=True)
class Duplicate:
    """Which pair one gives way to, and whether their canonical questions are equal."""

    survivor: str
    exact: bool


@dataclass(frozen=True)
class Duplicates:
    """What was found among pairs: {id of a pair that gives way: to which}, and [ids] that contradict each other."""

    given_way: Mapping[str, Duplicate]
    contradictions: Sequence[tuple[str, str]]


def near_duplicate(pair: Pair, duplicate: Duplicate | None) -> str:
    """Why a pair is one too many."""
    if duplicate is None:
        return ""
    return f"{'exact' if duplicate.exact else 'near'} duplicate: of {duplicate.survivor}"


@runtime_checkable
class Texts(Protocol):
    """Canonical questions with their signatures, looked up by the names that the candidates have."""

    def signatures(self, names: UInt64[np.ndarray, " n"]) -> UInt32[np.ndarray, "n 128"]: ...

    def texts(self, names: UInt64[np.ndarray, " n"]) -> Sequence[str]: ...


class TextsInMemory:
    """Those of one process."""

    def __init__(self, texts: Iterable[str]):
        by_name = {text_hash(text): text for text in texts}
        self.names = np.sort(np.fromiter(by_name, np.uint64, len(by_name)))
        self.ordered = [by_name[int(name)] for name in self.names]
        self.signed = minhash.signatures(self.ordered)

    def signatures(self, names: UInt64[np.ndarray, " n"]) -> UInt32[np.ndarray, "n 128"]:
        return self.signed[np.searchsorted(self.names, names)]

    def texts(self, names: UInt64[np.ndarray, " n"]) -> list[str]:
        return [self.ordered[place] for place in np.searchsorted(self.names, names)]

    def alike(self, window: int, threshold: float) -> UInt64[np.ndarray, "m 2"]:
        """The texts that are near-duplicates of each other."""
        entries = minhash.bucket_entries(self.names, self.signed)
        return verified(minhash.windowed(entries, window), self, threshold)


def duplicates(
    pairs: Sequence[Pair],
    *,
    threshold: float = THRESHOLD,
    window: int = minhash.WINDOW,
    same_image: bool = False,
) -> Duplicates:
    """The pairs that give way to others.

    Args:
      threshold: Jaccard similarity of questions.
      window: `minhash.WINDOW`; more where a corpus is larger than 100,000.
      same_image: pairs that show different images are never duplicates. For corpora that ask the same few questions of
        many images on purpose.
    """
    forms = {question: canonical(question) for question in {pair.question for pair in pairs}}
    alike = TextsInMemory(forms.values()).alike(window, threshold)
    return chosen(pairs, {pair.id: text_hash(forms[pair.question]) for pair in pairs}, alike, same_image)


def verified(candidates: UInt64[np.ndarray, "n 2"], texts: Texts, threshold: float) -> UInt64[np.ndarray, "m 2"]:
    """The candidates whose texts are alike: the estimate, the shape of the edit, and the exact similarity."""
    found = [np.zeros((0, 2), np.uint64)]
    for start in range(0, len(candidates), _PIECE):
        piece = candidates[start : start + _PIECE]
        piece = piece[minhash.alike(texts.signatures(piece[:, 0]), texts.signatures(piece[:, 1]))]
        both = list(zip(texts.texts(piece[:, 0]), texts.texts(piece[:, 1]), strict=True))
        shaped = np.fromiter((one_edit(one, other) for one, other in both), bool, len(both))
        exact = minhash.jaccard([both[place] for place in np.flatnonzero(shaped)])
        found.append(piece[shaped][exact >= threshold])
    return np.concatenate(found)


def chosen(
    pairs: Iterable[Pair], named: Mapping[str, int], alike: UInt64[np.ndarray, "m 2"], same_image: bool
) -> Duplicates:
    """Which of the pairs stay.

    Args:
      named: {id of a pair: its text}; of texts that are alike, all pairs must be here.
      alike: texts that are near-duplicates of each other.
    """
    near: dict[int, list[int]] = defaultdict(list)
    for one, other in alike.tolist():
        near[one].append(other)
        near[other].append(one)
    given_way: dict[str, Duplicate] = {}
    contradictions: list[tuple[str, str]] = []
    staying: dict[tuple, list[Pair]] = defaultdict(list)  # by what makes them the same thing
    facing: dict[tuple, list[Pair]] = defaultdict(list)  # by what they say something of
    for pair in sorted(pairs, key=lambda pair: pair.rank):
        name = named[pair.id]
        survivor = None
        for text in (name, *sorted(near.get(name, ()))):
            # Each list is in the order of ranks, so that the first in it will do.
            lists = [staying.get(key, ()) for key in _same(pair, text, same_image, search=True)]
            first = [next((one for one in each if same_thing(pair, one, same_image)), None) for each in lists]
            if survivor is None and (found := [one for one in first if one is not None]):
                survivor = Duplicate(min(found, key=lambda one: one.rank).id, exact=text == name)
            facing_pairs = {one.id: one for key in _subjects(pair, text) for one in facing.get(key, ())}
            contradictions += [(one.id, pair.id) for one in facing_pairs.values() if contradict(pair, one)][:_LISTED]
        if survivor is not None:
            given_way[pair.id] = survivor
            continue
        for key in _same(pair, name, same_image, search=False):
            staying[key].append(pair)
        for key in _subjects(pair, name):
            if len(facing[key]) < _COMPARED:
                facing[key].append(pair)
    return Duplicates(given_way, sorted(set(contradictions)))


def _same(pair: Pair, text: int, same_image: bool, *, search: bool) -> list[tuple]:
    """What pairs that may be the same thing are stored, or looked for, under. One without a topic may be of any."""
    image = pair.image if same_image else ""
    whose = [("answer", answer_form(pair.answer))] + ([("fact", pair.fact_id)] if pair.fact_id else [])
    topics = [pair.topic, None] if not search else [pair.topic, ""] if pair.topic else [None]
    return [(text, image, topic, *one) for topic in topics for one in whose]


def _subjects(pair: Pair, text: int) -> list[tuple]:
    """What pairs that may contradict each other have in common."""
    named = [("fact", pair.fact_id), ("image", pair.image), ("topic", pair.topic)]
    return [(text, *one) for one in named if one[1]] or [(text, "", "")]
