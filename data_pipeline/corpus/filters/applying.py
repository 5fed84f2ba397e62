"""Applies filters to pairs, and counts what each kept and dropped."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_pipeline.corpus.filters.pair import Pair
from data_pipeline.corpus.filters.registry import FILTERS, Evidence, Found, select
from vlm_jax.errors import InputError

EXAMPLES = 5
"""Pairs of each filter that are shown on a page, kept and dropped."""


@dataclass(frozen=True)
class Dropped:
    """A pair that is set aside, by which filter, and why."""

    pair: Pair
    filter: str
    reason: str


@dataclass(frozen=True)
class Count:
    """What a filter did with the pairs that those before it had kept.

    Attributes:
      reasons: how many were dropped for each kind of reason.
      examples: a few that it dropped; `kept_examples` a few that it kept. Chosen by a hash, not by their places.
    """

    filter: str
    kept: int
    dropped: int
    reasons: Mapping[str, int] = field(default_factory=dict)
    examples: Sequence[Dropped] = ()
    kept_examples: Sequence[Pair] = ()


@dataclass(frozen=True)
class Outcome:
    """The pairs that every filter kept, in their order; the others with the first reason; a count a filter.

    And the ids of pairs that ask the same and contradict each other (`near_text`), whether kept or not.
    """

    kept: list[Pair]
    dropped: list[Dropped]
    counts: list[Count]
    contradictions: Sequence[tuple[str, str]] = ()


def apply(
    settings: Mapping[str, Any], pairs: Sequence[Pair], evidence: Evidence | None = None, *, examples: int = EXAMPLES
) -> Outcome:
    """Applies the filters that are on, one after another.

    Args:
      settings: as `registry.select` takes them.
      evidence: {what: {id: it}}: "without_image", "from_article" and "samples" hold lists of answers, "verdicts" a
        `verdicts.Verdict`, "embeddings" an array [2, d] of answer and fact; "image_hashes" is by image
        (`near_images.image_hashes`). Only what the filters that are on need.

    Raises:
      InputError: settings; ids that occur twice; evidence that is missing for a pair that comes as far as the filter.
    """
    chosen = select(settings)
    evidence = evidence or {}
    check_ids(pairs)
    needed = {name: FILTERS[name].evidence or FILTERS[name].brings for name in chosen}
    missing = [
        f"filters.{name} needs the evidence {need!r}" for name, need in needed.items() if need and need not in evidence
    ]
    if missing:
        raise InputError([f"{line}; bring it, or switch the filter off" for line in missing])
    left, dropped, counts, contradictions = list(pairs), [], [], []
    for name, options in chosen.items():
        found = found_in(name, options, left, evidence)
        contradictions += found.contradictions
        reasons = _checked(name, options, left, found)
        gone = [Dropped(pair, name, reasons[pair.id]) for pair in left if reasons[pair.id]]
        left = [pair for pair in left if not reasons[pair.id]]
        dropped += gone
        counts.append(counted(name, left, gone, examples))
    return Outcome(left, dropped, counts, contradictions)


def found_in(name: str, options: Mapping[str, Any], pairs: Sequence[Pair], evidence: Evidence) -> Found:
    """What a filter works out from all pairs, or the caller's evidence for those that it applies to.

    Raises:
      InputError: evidence that is missing.
    """
    own = FILTERS[name]
    if own.found_in is not None:
        return own.found_in(pairs, evidence, **options)
    if not own.evidence:
        return Found({})
    known = evidence[own.evidence]
    asked = [pair.id for pair in pairs if own.applies(pair)]
    missing = [id for id in sorted(asked) if id not in known or (isinstance(known[id], list) and not known[id])]
    if missing:
        raise InputError(
            f"filters.{name}: the evidence {own.evidence!r} lacks {len(missing):,} of {len(asked):,} pairs, "
            f"first {missing[0]!r}"
        )
    return Found(known)


def reasons_of(name: str, options: Mapping[str, Any], pairs: Sequence[Pair], evidence: Evidence) -> dict[str, str]:
    """{id: the reason of one filter, or ""}, with evidence as `apply` takes it."""
    return _checked(name, options, pairs, found_in(name, options, pairs, evidence))


def _checked(name: str, options: Mapping[str, Any], pairs: Sequence[Pair], found: Found) -> dict[str, str]:
    own = FILTERS[name]
    if own.found_in is not None:
        return {pair.id: own.check(pair, found.evidence.get(pair.id)) for pair in pairs}
    if not own.evidence:
        return {pair.id: own.check(pair, **options) for pair in pairs}
    known = found.evidence
    return {pair.id: own.check(pair, known[pair.id], **options) if own.applies(pair) else "" for pair in pairs}


def counted(name: str, kept: Sequence[Pair], dropped: Sequence[Dropped], examples: int = EXAMPLES) -> Count:
    """What one filter did, with examples of every kind of reason before a second one of any."""
    kinds: Counter[str] = Counter()
    ordered = sorted(dropped, key=lambda one: one.pair.rank)
    turns = []
    for one in ordered:
        turns.append(kinds[kind_of(one.reason)])
        kinds[kind_of(one.reason)] += 1
    shown = [
        ordered[place] for place in sorted(range(len(ordered)), key=lambda place: (turns[place], place))[:examples]
    ]
    kept_shown = sorted(kept, key=lambda pair: pair.rank)[:examples]
    return Count(name, len(kept), len(dropped), dict(sorted(kinds.items())), shown, kept_shown)


def kind_of(reason: str) -> str:
    """The kind of a reason, which reasons are counted by."""
    return reason.partition(":")[0]


def check_ids(pairs: Sequence[Pair]) -> None:
    """Raises InputError where an id occurs twice."""
    twice = [id for id, count in Counter(pair.id for pair in pairs).items() if count > 1]
    if twice:
        raise InputError(f"{len(twice):,} ids occur more than once, first {twice[0]!r}; an id is a pair's own")
