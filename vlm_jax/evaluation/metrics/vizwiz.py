"""VizWiz: VQA accuracy by its own script, and whether a model knows that a question cannot be answered.

The script (vizwiz.org, tasks-and-datasets/vqa) normalises the prediction and leaves the answers as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from vlm_jax.errors import InputError
from vlm_jax.evaluation.metrics import vqa
from vlm_jax.evaluation.metrics.contractions import VIZWIZ_CONTRACTIONS

UNANSWERABLE = "unanswerable"
_NO_ANSWER = (UNANSWERABLE, "unsuitable", "unsuitable image")
"""What people wrote who could not answer: the question, or a photograph that shows too little."""


def normalise(text: str) -> str:
    """The official VQA rule with the script's own contractions, most of which have typographic apostrophes."""
    return vqa.words(vqa.without_marks(vqa.trimmed(text), vqa.PERIOD), VIZWIZ_CONTRACTIONS)


def vizwiz(prediction: str, answers: Sequence[str]) -> float:
    return vqa.leave_one_out(normalise(prediction), answers)


def says_unanswerable(prediction: str) -> bool:
    """Whether a prediction is "unanswerable" in the form of `normalise`."""
    return normalise(prediction) == UNANSWERABLE


def is_unanswerable(answers: Sequence[str]) -> bool:
    """Whether at least half of the people could not answer; the annotation's own field `answerable` goes before."""
    return 2 * sum(answer.strip().lower() in _NO_ANSWER for answer in answers) >= len(answers)


@dataclass(frozen=True)
class Answerability:
    """How well unanswerable questions are told; unanswerable is the positive class, as in the script.

    Attributes:
      n: questions, of which `unanswerable` are so.
      accuracy: share of the questions that are told right.
      precision, recall, f1: of "unanswerable"; 0 where undefined.
      average_precision: the mean of the precisions at every confidence, weighted by the recall that it adds; equal
        confidences count together. None where no question is unanswerable.
    """

    n: int
    unanswerable: int
    accuracy: float
    precision: float
    recall: float
    f1: float
    average_precision: float | None


def answerability(
    predictions: Sequence[str], unanswerable: Sequence[bool], confidences: Sequence[float] | None = None
) -> Answerability:
    """The script's figures, from what was said.

    Args:
      unanswerable: of each question, by the annotation's `answerable` or by `is_unanswerable`.
      confidences: that a question is unanswerable, in [0, 1], where a model gives them; above one half it says so.
        Without them, 1 where the prediction is "unanswerable" and 0 elsewhere, so the average precision has two steps.

    Raises:
      InputError: lengths that differ.
    """
    if confidences is None:
        confidences = [float(says_unanswerable(prediction)) for prediction in predictions]
    if not len(predictions) == len(unanswerable) == len(confidences):
        raise InputError(
            f"answerability: {len(predictions)} predictions, {len(unanswerable)} labels and {len(confidences)} "
            "confidences; wanted one of each for every question"
        )
    said = [confidence > 0.5 for confidence in confidences]
    right = sum(bool(one) and bool(label) for one, label in zip(said, unanswerable, strict=True))
    positive, labelled, n = sum(said), sum(map(bool, unanswerable)), len(said)
    return Answerability(
        n=n,
        unanswerable=labelled,
        accuracy=sum(one == bool(label) for one, label in zip(said, unanswerable, strict=True)) / n if n else 0.0,
        precision=right / positive if positive else 0.0,
        recall=right / labelled if labelled else 0.0,
        f1=2 * right / (positive + labelled) if positive + labelled else 0.0,
        average_precision=_average_precision(confidences, unanswerable) if labelled else None,
    )


def _average_precision(confidences: Sequence[float], positive: Sequence[bool]) -> float:
    ranked = sorted(zip(confidences, positive, strict=True), key=lambda pair: -pair[0])
    total = sum(map(bool, positive))
    found, area, recall = 0, 0.0, 0.0
    for number, (confidence, label) in enumerate(ranked, start=1):
        found += bool(label)
        if number == len(ranked) or ranked[number][0] != confidence:
            area += (found / total - recall) * found / number
            recall = found / total
    return area
