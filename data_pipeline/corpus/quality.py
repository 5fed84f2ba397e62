"""Which questions stay: the filters that the settings switch on, one after another, what people said, and the splits.

A filter is asked about the pairs that those before it kept, and only for these evidence is gathered: what is cheap to
find spares what is dear to ask.
"""

import dataclasses
import itertools
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_pipeline.corpus import evidence, leakage
from data_pipeline.corpus.filters import applying, canonical, near_images, retention, similarity
from data_pipeline.corpus.filters.applying import Count, Dropped
from data_pipeline.corpus.filters.negatives import negatives
from data_pipeline.corpus.filters.pair import Pair, base_of
from data_pipeline.corpus.filters.registry import FILTERS, select
from data_pipeline.corpus.shards import filtering
from data_pipeline.corpus.stages.stage import Item, Settings
from vlm_jax.checkpoint.files import write_text

HELD_OUT = "worded as a held-out question"
"""Name of the filter that keeps wordings of a fact apart, which the settings do not switch."""


SHOWN = "held-out question about a training image"
"""Name of the filter that leaves out held-out questions about an image that is trained on: models repeat themselves."""


LIMITED, SURPLUS = ("synthetic", "photo"), "held-out question more than wanted"
"""Splits whose questions may be limited, and the name of what limits them."""
THRESHOLDS = tuple(round(0.1 * tenths, 1) for tenths in range(1, 10))
"""Of the cosine of answer and fact, that are reported beside the one that is set."""


@dataclass
class Checked:
    """What quality came to.

    Attributes:
      items: those that stay, and made-up ones whose right answer is that the image does not show it.
      counts: of each filter, in the order in which they were applied.
      dropped: the others, with the reason.
      leaks: {kind: (things exactly in two splits, things nearly)}.
      similarity: (threshold of the cosine of answer and fact, kept, dropped): what others than the set one would do.
      retention: the table that shares of articles are printed as, "" without articles.
    """

    items: list[Item]
    counts: list[Count] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    leaks: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    retention: str = ""
    similarity: Sequence[tuple[float, int, int]] = ()
    swapped: int = 0


def checked(items: Sequence[Item], settings: Settings, ask: evidence.Ask, folder: Path) -> Checked:
    """The questions that stay.

    Args:
      folder: of the corpus; what was left out is written into its stages.

    Raises:
      InputError: splits have in common what `config.splits.apart` keeps apart.
    """
    by_id = {item["id"]: item for item in items}
    left = [pair_of(item, folder) for item in items]
    outcome = Checked([], retention=_retention(left, settings))
    flags: dict[str, list[str]] = defaultdict(list)
    for chosen in _together(select(settings["filters"])):
        if settings["runner"] != "here" and all(FILTERS[name].text for name in chosen):
            applied = filtering.filtered(chosen, left, settings["runner"], settings["shards"], folder)
        else:
            found = _evidence(chosen, left, settings, ask)
            outcome.similarity = outcome.similarity or _similarity(found)
            applied = applying.apply(chosen, left, found)
        left = applied.kept
        outcome.counts += applied.counts
        outcome.dropped += applied.dropped
        for one, other in sorted(applied.contradictions):
            flags[one].append(f"says otherwise than {other}")
            flags[other].append(f"says otherwise than {one}")
    left = _without(left, HELD_OUT, _reworded(left), outcome)
    left = _without(left, SHOWN, _shown(left), outcome)
    if any(settings["held_out"][split] for split in LIMITED):
        left = _without(left, SURPLUS, _surplus(left, settings["held_out"]), outcome)
    hashes = near_images.image_hashes(near_images.shown(left)) if settings["splits"]["near_images"] else None
    leaks = leakage.leakage(left, hashes=hashes)
    outcome.leaks = {kind: leaks.count(kind) for kind in leakage.KINDS}
    leakage.check(leaks, settings["splits"]["apart"])
    for leak in leaks.near:
        for one, other in (leak.ids, leak.ids[::-1]):
            flags[one].append(f"nearly the same {leak.kind} as {other}, of another split")
    kept = [{**by_id[pair.id], **({"flags": flags[pair.id]} if flags.get(pair.id) else {})} for pair in left]
    outcome.items = kept + _negatives(left, by_id, settings, outcome)
    _write(folder / "stages" / "10-quality.left_out.jsonl", outcome.dropped)
    return outcome


def _together(chosen: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Filters that are applied at once: those of words that follow each other; others one by one, since evidence is
    gathered for what comes as far as each."""
    found = []
    for text, names in itertools.groupby(chosen, lambda name: FILTERS[name].text):
        own = {name: chosen[name] for name in names}
        found += [own] if text else [{name: options} for name, options in own.items()]
    return found


def _evidence(
    chosen: Mapping[str, Any], pairs: Sequence[Pair], settings: Settings, ask: evidence.Ask
) -> dict[str, dict[str, Any]]:
    """What a filter needs to know of these pairs; those of words need nothing."""
    own = FILTERS[next(iter(chosen))]
    if needed := own.evidence or own.brings:
        asked = [pair for pair in pairs if own.applies(pair)] if own.evidence else pairs
        return {needed: evidence.gathered(needed, asked, settings, ask)}
    return {}


def _similarity(found: Mapping[str, Mapping[str, Any]]) -> list[tuple[float, int, int]]:
    cosines = [similarity.cosine(vectors) for vectors in found.get("embeddings", {}).values() if len(vectors)]
    return similarity.sweep(cosines, THRESHOLDS) if cosines else []


def _retention(pairs: Sequence[Pair], settings: Settings) -> str:
    """The table of articles in languages whose words for images are known, "" without any."""
    words = settings["filters"]["image_mention"]["words"]
    known = {"en", "th", *words}
    articles = [pair for pair in pairs if pair.context and pair.base_language in known]
    return retention.table(retention.retention(articles, words=words)) if articles else ""


def pair_of(item: Item, folder: Path) -> Pair:
    """An item as the filters see it; images by their path."""
    names = [field.name for field in dataclasses.fields(Pair)]
    values = {name: item[name] for name in names if item.get(name)}
    return Pair(**{**values, "image": str(folder / "images" / item["image"])})


def _without(pairs: list[Pair], name: str, reasons: Mapping[str, str], outcome: Checked) -> list[Pair]:
    gone = [Dropped(pair, name, reasons[pair.id]) for pair in pairs if reasons.get(pair.id)]
    left = [pair for pair in pairs if not reasons.get(pair.id)]
    outcome.counts.append(applying.counted(name, left, gone))
    outcome.dropped += gone
    return left


def _reworded(pairs: Sequence[Pair]) -> dict[str, str]:
    """Questions to train on that ask for a fact in the very words of a held-out one."""

    def asked(pair: Pair) -> tuple[str, str]:
        return pair.fact_id or pair.image, canonical.canonical(pair.question)

    held_out = {asked(pair) for pair in pairs if pair.split != "train"}
    return {
        pair.id: f"{HELD_OUT}: {pair.question}" for pair in pairs if pair.split == "train" and asked(pair) in held_out
    }


def _shown(pairs: Sequence[Pair]) -> dict[str, str]:
    trained = {pair.image for pair in pairs if pair.split == "train"}
    return {pair.id: SHOWN for pair in pairs if pair.split != "train" and pair.image in trained}


def _surplus(pairs: Sequence[Pair], most: Mapping[str, Any]) -> dict[str, str]:
    """Held-out questions beyond those that are wanted: topics in turn have one more, in an order by hash."""
    found = {}
    for split in LIMITED:
        turns: dict[str, int] = defaultdict(int)
        ordered = []
        for pair in sorted((pair for pair in pairs if pair.split == split), key=lambda pair: pair.rank):
            ordered.append((turns[pair.topic], pair.rank))
            turns[pair.topic] += 1
        surplus = sorted(ordered)[most[split] :] if most[split] else []
        found |= {id: f"{SURPLUS}: {most[split]:,} of {split} were" for _, (_, id) in surplus}
    return found


def _negatives(pairs: Sequence[Pair], by_id: Mapping[str, Item], settings: Settings, outcome: Checked) -> list[Item]:
    """As items, the pairs that are asked again of an image that does not show what they ask about."""
    share = settings["negatives"]
    if not share:
        return []
    languages = [base_of(code) for code in settings["languages"]]
    names = {
        item["topic"]: {
            language: item["name"] if language == "en" else item["local_name"] or item["name"] for language in languages
        }
        for item in by_id.values()
        if item.get("name")
    }
    training = [pair for pair in pairs if pair.split == "train" and not pair.context and not pair.reasoning]
    if len({pair.topic for pair in training}) < 2:
        return []  # as in a preview of one topic: there is no image that does not show it
    made = negatives(training, share, settings["seed"], names=names)
    outcome.swapped = len(made.swapped)
    found = []
    for pair in (*made.swapped, *made.named):
        source = by_id[pair.id.rsplit("-", 1)[0]]
        changes = {"id": pair.id, "question": pair.question, "answer": pair.answer, "image": Path(pair.image).name}
        swapped = {"task": "not shown", "fact": ""} if pair in made.swapped else {}
        found.append({**source, **changes, **swapped})
    return found


def _write(path: Path, dropped: Sequence[Dropped]) -> None:
    lines: list[dict[str, Any]] = [
        {"id": one.pair.id, "filter": one.filter, "reason": one.reason, "question": one.pair.question}
        for one in dropped
    ]
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
