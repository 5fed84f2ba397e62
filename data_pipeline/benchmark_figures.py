"""What a report holds of a benchmark of the table besides: its published figure, other metrics, the submission."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.evaluation_questions import Asked
from data_pipeline.evaluation_settings import Evaluation
from vlm_jax.evaluation import metrics, submissions
from vlm_jax.evaluation.benchmark import Benchmark, headline_of
from vlm_jax.evaluation.metrics import vizwiz
from vlm_jax.evaluation.runner import Prediction


def of(
    evaluation: Evaluation,
    entry: Benchmark,
    asked: Asked,
    predictions: Sequence[Prediction],
    summary: Mapping[str, Any],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """What a report holds of a benchmark of the table beside its score, and writes what its server is handed."""
    found: dict[str, Any] = {"published": asked.published} if asked.published else {}
    if "unscored" not in summary:
        headline = headline_of(entry, summary.get("by", {}))
        found |= {} if headline is None else {"headline": headline}
        scored = {
            name: [
                0.0 if one.error else metrics.score(name, one.prediction, one.answers, one.question)
                for one in predictions
            ]
            for name in entry.also
            if name != evaluation.metric
        }
        found |= {"also": {name: sum(scores) / len(scores) for name, scores in scored.items()}} if scored else {}
        if entry.answerability:
            found["answerability"] = dataclasses.asdict(_answerability(predictions))
    if entry.submission is None or not evaluation.official:
        return found
    if evaluation.images != "given":
        say(f"no submission is written: --images={evaluation.images} are not the benchmark's")
        return found
    if unasked := sum(one.error is not None for one in predictions):
        say(f"{entry.submission.file}: {unasked} of {len(predictions)} answers are empty, of what could not be asked")
    ids = {question.id: question.ids for question in asked.questions}
    entries = submissions.entries_of(entry.submission, ids, predictions)
    path = submissions.write(entry.submission, entries, Path(evaluation.output))
    return {**found, "submission": path.name}


def _answerability(predictions: Sequence[Prediction]) -> vizwiz.Answerability:
    """By the annotation's field where a question has it, else by what people answered. What could not be asked is told
    wrong."""
    labels = [
        one.groups["answerable"] == "no" if one.groups.get("answerable") else vizwiz.is_unanswerable(one.answers)
        for one in predictions
    ]
    replies = [
        one.prediction if not one.error else "" if label else vizwiz.UNANSWERABLE
        for one, label in zip(predictions, labels, strict=True)
    ]
    return vizwiz.answerability(replies, labels)
