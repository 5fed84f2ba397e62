"""What an evaluation comes to, as the object that `report.json` holds: every figure of the page and of the terminal.

Nothing is drawn here; a page may be made again from it and the predictions.
"""

import dataclasses
import re
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

from vlm_jax.evaluation.calibration import calibration
from vlm_jax.evaluation.differences import TEST, paired_difference
from vlm_jax.evaluation.metrics import registry
from vlm_jax.evaluation.question_digest import NO_IMAGES
from vlm_jax.evaluation.runner import Prediction
from vlm_jax.evaluation.statistics import RESAMPLES, interval, majority

KIND = ("task", "language")
"""Groups that a question's text alone gives away."""
UNSCORED = "no answers in this split, so nothing is scored"
SET = "set"
"""The group that says which general set a question is of."""

_VISUAL_TOKENS = (16, 64, 256, 1024, 4096)
"""Where numbers of visual tokens are told apart."""

Baselines = Mapping[str, Mapping[str, Prediction]]
"""{name: {id: prediction}} of other models, or of this one before."""


def summarise(
    predictions: Sequence[Prediction],
    baselines: Baselines | None = None,
    *,
    general: Collection[str] = (),
    units: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Means, sizes, intervals and differences, over all and by group.

    Args:
      baselines: answers to the same questions to compare with.
      general: ids of the questions of general sets: what may have been forgotten. They are told apart from the others,
        by the group `SET`, and count in none of their figures.
      units: {id: digest of the images that a question is about}, where others were shown: all blank ones are alike.
    """
    if units:
        predictions = [dataclasses.replace(one, images=units.get(one.id, one.images)) for one in predictions]
    baselines = baselines or {}
    general = set(general)
    asked = [one for one in predictions if one.id not in general]
    errors = [{"id": one.id, "error": one.error} for one in predictions if one.error]
    sets = _sets([one for one in predictions if one.id in general], baselines)
    if asked and all(one.score is None for one in asked):
        return {"metric": None, "n": len(asked), "unscored": UNSCORED, **sets, "errors": errors}
    metric = asked[0].metric if asked else ""
    summary: dict[str, Any] = {
        "metric": metric or None,
        "metric_version": registry.label(metric) if metric else None,
        "about_metric": registry.find(metric)[0].about if metric else "",
        **part(asked, baselines),
    }
    summary["interval"] = f"95 %, percentile bootstrap over images, {RESAMPLES} resamples"
    if baselines:
        summary["test"] = TEST
    for name in sorted({name for one in asked for name in groups_of(one)} - {SET}):
        summary.setdefault("by", {})[name] = _by(asked, name, baselines)
    summary |= sets
    sure = [one for one in asked if one.probability is not None and not one.error]
    found = calibration([one.probability for one in sure], [one.score for one in sure])
    if found is not None:
        summary["calibration"] = dataclasses.asdict(found)
    summary["errors"] = errors
    return summary


def _sets(predictions: Sequence[Prediction], baselines: Baselines) -> dict[str, Any]:
    """The figures of general sets, which have a metric of their own."""
    if not predictions:
        return {}
    label = registry.label(predictions[0].metric)
    return {"general": {name: {"metric": label, **found} for name, found in _by(predictions, SET, baselines).items()}}


def _by(predictions: Sequence[Prediction], name: str, baselines: Baselines) -> dict[str, Any]:
    values: dict[str, list[Prediction]] = {}
    for one in predictions:
        if (value := groups_of(one).get(name)) is not None:
            values.setdefault(value, []).append(one)
    return {value: part(values[value], baselines) for value in sorted(values, key=_natural)}


def groups_of(one: Prediction) -> dict[str, str]:
    """What a question is told apart by, how much of its images was seen among it."""
    if not one.visual_tokens:
        return one.groups
    bound = next((bound for bound in _VISUAL_TOKENS if one.visual_tokens <= bound), None)
    return {**one.groups, "visual tokens": f"over {_VISUAL_TOKENS[-1]:,}" if bound is None else f"up to {bound:,}"}


def _natural(value: str) -> tuple:
    """Numbers in texts by their size."""
    number = re.search(r"\d[\d,]*\.?\d*", value)
    over = value.startswith("over ")  # behind the last "up to"
    return over, float(number.group().replace(",", "")) if number else -1.0, value


def part(predictions: Sequence[Prediction], baselines: Baselines) -> dict[str, Any]:
    """The figures of some predictions: `n`, `images`, `mean` with `low` and `high`, `majority`, and by the name of each
    baseline `mean`, `low`, `high`, `learned` and `lost` of the questions that both answered, and the `difference`."""
    kinds = [" ".join(one.groups.get(name, "") for name in KIND) for one in predictions]
    figures: dict[str, Any] = {
        **_mean(predictions),
        "majority": majority([one.answers for one in predictions], kinds),
    }
    for name, others in baselines.items():
        both = [(one, others[one.id]) for one in predictions if one.id in others and others[one.id].score is not None]
        if not both:
            continue
        scores, earlier = ([pair[side].score for pair in both] for side in (0, 1))
        difference = paired_difference(scores, earlier, [cluster(one) for one, _ in both])
        figures.setdefault("baselines", {})[name] = {
            **_mean([before for _, before in both]),
            "learned": difference.better,
            "lost": difference.worse,
            "difference": dataclasses.asdict(difference),
        }
    return figures


def row_of_set(name: str, figures: Mapping[str, Any]) -> str:
    """What a general set is called where it stands beside what another metric has scored."""
    return f"general set {name} ({figures['metric']})"


def cluster(one: Prediction) -> Hashable:
    """What a question goes together with: the images that it shows. Those without any stand for themselves."""
    return one.images if one.images and one.images != NO_IMAGES else one.id


def _mean(predictions: Sequence[Prediction]) -> dict[str, Any]:
    scores = [one.score for one in predictions]
    clusters = [cluster(one) for one in predictions]
    low, high = interval(scores, clusters)
    mean = sum(scores) / len(scores) if scores else 0.0
    return {"n": len(scores), "images": len(set(clusters)), "mean": mean, "low": low, "high": high}
