"""InfoSeek (Chen et al. 2023): names and dates by exact match, numbers by range, as infoseek_eval.py has it.

A numerical question's answer is a range, `{"wikidata": 1.0, "range": [0.9, 1.1]}` in the published files; where
answers are texts, as in records, it is the JSON text of that.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vlm_jax.errors import InputError
from vlm_jax.evaluation.metrics import squad

_NUMBER = re.compile(r"[-+]?[.]?\d+(?:,\d\d\d)*[.]?\d*(?:[eE][-+]?\d+)?")
_HARDLY = 1e-12  # what the script adds to lengths and takes from the threshold


def infoseek(prediction: str, answers: Sequence[str | Mapping[str, Any]]) -> float:
    """1 where the prediction is one of the texts in SQuAD's normalised form, or a number in one of the ranges.

    Raises:
      InputError: a range that is not two numbers.
    """
    text = squad.normalise(prediction)
    return float(any(_matches(prediction, text, answer) for answer in answers))


def final_score(unseen_question: float, unseen_entity: float) -> float:
    """The harmonic mean of the two splits' accuracies, each in [0, 1], rounded as the script does: to 0.01 %."""
    percents = [round(100 * share, 2) or _HARDLY for share in (unseen_question, unseen_entity)]
    return round(2 / sum(1 / percent for percent in percents), 2) / 100


def range_of(answer: str | Mapping[str, Any]) -> tuple[float, float] | None:
    """The range that an answer is, None of a text.

    Raises:
      InputError: a range that is not two numbers.
    """
    if isinstance(answer, str):
        if not answer.lstrip().startswith("{"):
            return None
        try:
            parsed = json.loads(answer)
        except ValueError:
            return None
        if not isinstance(parsed, Mapping) or "range" not in parsed:
            return None
        answer = parsed
    bounds = answer.get("range")
    try:
        low, high = (float(bound) for bound in bounds)
    except (TypeError, ValueError):
        raise InputError(f"infoseek: the answer {dict(answer)!r} has no range of two numbers") from None
    return low, high


def _matches(prediction: str, text: str, answer: str | Mapping[str, Any]) -> bool:
    bounds = range_of(answer)
    return squad.normalise(str(answer)) == text if bounds is None else _in_range(_said(prediction), bounds)


def _said(prediction: str) -> tuple[float, float]:
    """The first two numbers where they ascend, else the first one twice; 0 where there is none, as in the script."""
    spaced = "".join(
        " - " if character == "-" and place and prediction[place - 1].isdigit() else character
        for place, character in enumerate(prediction)
    )
    numbers = [number for found in _NUMBER.findall(spaced) if (number := _read(found)) is not None]
    first, second = [*numbers[:2], *numbers[:1], 0.0, 0.0][:2]
    return (first, second) if first <= second else (first, first)


def _read(found: str) -> float | None:
    """Points around go, as in the script: ".5" is 5. What ends the script with an error, "-.5.6", is no number."""
    try:
        return float(found.replace(",", "").strip("."))
    except ValueError:
        return None


def _in_range(said: tuple[float, float], bounds: tuple[float, float]) -> bool:
    """Within, or overlapping by at least half of what both cover together."""
    if all(bounds[0] <= number <= bounds[1] for number in said):
        return True
    low, high = min(bounds), max(bounds)
    overlap = max(0.0, min(said[1], high) - max(said[0], low))
    covered = (said[1] - said[0] + _HARDLY) + (high - low + _HARDLY) - overlap
    return not math.isnan(covered) and overlap / covered >= 0.5 - _HARDLY
