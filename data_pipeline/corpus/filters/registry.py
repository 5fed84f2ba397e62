"""The filters by name: what each asks for, and the settings that it takes.

A filter is a pure function of a pair, of the evidence it needs for that pair, and of its options: "" keeps the pair, a
text is the reason why not, its kind before the first colon. To add one, write the function in a file of its own and
enter it here; the order is that in which they are applied, the cheap ones first, duplicates last, so that no pair gives
way to one that is dropped.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_pipeline.corpus.filters import near_images, near_text
from data_pipeline.corpus.filters.in_article import answer_in_article
from data_pipeline.corpus.filters.language import language
from data_pipeline.corpus.filters.mentions import image_mention
from data_pipeline.corpus.filters.pair import NAMES, Pair
from data_pipeline.corpus.filters.reasoning import chain_of_thought
from data_pipeline.corpus.filters.samples import answerable_from_article, answerable_without_image, consistent
from data_pipeline.corpus.filters.schema import schema
from data_pipeline.corpus.filters.similarity import near_fact
from data_pipeline.corpus.filters.verdicts import judged
from vlm_jax.errors import InputError, nearest
from vlm_jax.evaluation.metrics import METRICS

Evidence = Mapping[str, Mapping[str, Any]]
"""{what is known: {id of a pair, or name of an image: it}}."""


@dataclass(frozen=True)
class Found:
    """What a filter that looks at all pairs found.

    Attributes:
      evidence: {id: what its `check` is given}; pairs that are not in it get None.
      contradictions: ids of pairs that ask the same and say different things, for a person to look at.
    """

    evidence: Mapping[str, Any]
    contradictions: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Filter:
    """A filter.

    Attributes:
      check: (pair, evidence for it if `evidence` or `found_in` is set, **options) → the reason to drop it, or "".
      options: its options with their defaults, whose types are those that are taken.
      allowed: of some options, (least, most) of a number or the names of a text.
      evidence: what the caller must bring, by the pair's id: a key of `Evidence`. "" for nothing.
      applies: the pairs that evidence is wanted for; others pass.
      found_in: (all pairs that came so far, the caller's evidence, **options) → `Found`.
      brings: of such a filter, the evidence that `found_in` takes from the caller. "" for nothing.
      text: whether words are all it needs, so that it can be applied to a shard by itself.
    """

    check: Callable[..., str]
    options: Mapping[str, Any] = field(default_factory=dict)
    allowed: Mapping[str, tuple[float, float] | Collection[str]] = field(default_factory=dict)
    evidence: str = ""
    applies: Callable[[Pair], bool] = lambda pair: True
    found_in: Callable[..., Found] | None = None
    brings: str = ""
    text: bool = False


def _duplicate_texts(pairs: Sequence[Pair], evidence: Evidence, **options: Any) -> Found:
    found = near_text.duplicates(pairs, **options)
    return Found(found.given_way, found.contradictions)


def _duplicate_images(pairs: Sequence[Pair], evidence: Evidence, *, bits: int) -> Found:
    hashes = evidence["image_hashes"]
    missing = [image for image in near_images.shown(pairs) if image not in hashes]
    if missing:
        raise InputError(f"near_image: evidence 'image_hashes' lacks {len(missing):,} images, first {missing[0]}")
    given_way = near_images.near_images({image: hashes[image] for image in near_images.shown(pairs)}, bits)
    return Found({pair.id: given_way[pair.image] for pair in pairs if pair.image in given_way})


_SAMPLED = {"metric": "contains", "share": 0.5}
_SHARE = {"share": (0, 1), "metric": [name for name, metric in METRICS.items() if metric.of_texts]}

FILTERS: dict[str, Filter] = {
    "schema": Filter(
        schema,
        {"required": ("image", "language"), "longest_question": 500, "longest_answer": 200},
        {"required": frozenset(NAMES), "longest_question": (1, 1e6), "longest_answer": (1, 1e6)},
        text=True,
    ),
    "chain_of_thought": Filter(
        chain_of_thought, {"least": 10, "longest": 4000}, {"least": (1, 1e6), "longest": (1, 1e6)}, text=True
    ),
    "language": Filter(language, {"share": 0.5}, {"share": (0, 1)}, text=True),
    "image_mention": Filter(image_mention, {"words": {}}, text=True),
    "answer_in_article": Filter(answer_in_article, {"thai_words": True}, text=True),
    "answerable_without_image": Filter(answerable_without_image, _SAMPLED, _SHARE, evidence="without_image"),
    "answerable_from_article": Filter(
        answerable_from_article, _SAMPLED, _SHARE, evidence="from_article", applies=lambda pair: bool(pair.context)
    ),
    "consistent": Filter(consistent, _SAMPLED, _SHARE, evidence="samples"),
    "judged": Filter(judged, evidence="verdicts"),
    "near_fact": Filter(
        near_fact,
        {"threshold": 0.5},
        {"threshold": (-1, 1)},
        evidence="embeddings",
        applies=lambda pair: bool(pair.fact),
    ),
    "near_duplicate": Filter(
        near_text.near_duplicate,
        {"threshold": near_text.THRESHOLD, "window": near_text.minhash.WINDOW, "same_image": False},
        {"threshold": (0, 1), "window": (1, 1000)},
        found_in=_duplicate_texts,
        text=True,
    ),
    "near_image": Filter(
        near_images.near_image,
        {"bits": near_images.MOST_BITS},
        {"bits": (0, 64)},
        found_in=_duplicate_images,
        brings="image_hashes",
    ),
}


def default_settings() -> dict[str, dict[str, Any]]:
    """{name: {"on": whether it is applied, and its options}}. On is what needs words alone, without an article."""
    on = ("schema", "chain_of_thought", "language", "near_duplicate")
    return {name: {"on": name in on, **filter.options} for name, filter in FILTERS.items()}


def select(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """{name: its options} of the filters that are on, in the order in which they are applied.

    Args:
      settings: {name: True, False, or its options, of which "on" may be False}. What is not named is off.

    Raises:
      InputError: unknown names, with the nearest; options of a wrong type or size. All at once.
    """
    errors, chosen = [], {}
    for name, own in settings.items():
        if name not in FILTERS:
            errors.append(f"filters: no filter {name!r}; {nearest(name, FILTERS)}")
            continue
        if not isinstance(own, bool | Mapping) or not isinstance(
            own is True or own is False or own.get("on", True), bool
        ):
            errors.append(f"filters.{name} is {own!r}; wanted True, False or its options")
            continue
        options = {} if isinstance(own, bool) else {key: value for key, value in own.items() if key != "on"}
        errors += _errors(name, options)
        if own is True or (isinstance(own, Mapping) and own.get("on", True)):
            chosen[name] = {**FILTERS[name].options, **options}
    if errors:
        raise InputError(errors)
    return {name: chosen[name] for name in FILTERS if name in chosen}


def _errors(name: str, options: Mapping[str, Any]) -> list[str]:
    known, allowed = FILTERS[name].options, FILTERS[name].allowed
    errors = [
        f"filters.{name}: no option {key!r}; {nearest(key, ['on', *known])}" for key in options if key not in known
    ]
    for key, value in options.items():
        if key not in known:
            continue
        place, limits = f"filters.{name}.{key} is {value!r}", allowed.get(key)
        if not _of_type(value, known[key]):
            errors.append(f"{place}; wanted one like {known[key]!r}")
        elif isinstance(limits, tuple) and not limits[0] <= value <= limits[1]:
            errors.append(f"{place}; wanted {limits[0]:g} to {limits[1]:g}")
        elif limits is not None and not isinstance(limits, tuple):
            texts = [value] if isinstance(value, str) else value
            errors += [f"{place}; {nearest(text, limits)}" for text in texts if text not in limits]
    return errors


def _of_type(value: Any, like: Any) -> bool:
    if isinstance(like, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(like, bool)
    if isinstance(like, Mapping):
        return isinstance(value, Mapping) and all(_of_type(one, ()) for one in value.values())
    if isinstance(like, tuple):
        return not isinstance(value, str) and isinstance(value, Iterable) and all(isinstance(one, str) for one in value)
    return isinstance(value, int | float if isinstance(like, float) else type(like))
