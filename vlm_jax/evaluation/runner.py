"""Asking a model every question of a benchmark and scoring what it says.

Where questions come from and who answers is the caller's (`scripts/evaluate.py` connects records and a loaded model).
Every answer is written to `predictions.jsonl` as it comes, so an evaluation that was stopped goes on where it was.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vlm_jax.errors import InputError
from vlm_jax.evaluation.metrics import score


@dataclasses.dataclass(frozen=True)
class Question:
    """One thing to ask: the conversation up to the answer, and what counts as right."""

    id: str
    messages: list[dict[str, Any]]
    answers: list[str]
    groups: dict[str, str]
    """What the report breaks scores down by: split, task, fact."""

    @property
    def text(self) -> str:
        content = self.messages[-1]["content"]
        return content if isinstance(content, str) else " ".join(p["text"] for p in content if p["type"] == "text")


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What was said, a line of `predictions.jsonl`."""

    id: str
    question: str
    prediction: str
    answers: list[str]
    score: float
    metric: str
    groups: dict[str, str]
    fault: str | None = None
    """Why there is no answer (an unreadable picture, say); such questions count as wrong."""


Answer = Callable[[list[list[dict[str, Any]]]], list[str]]


def predict(
    questions: Sequence[Question], answer: Answer, path: Path, *, metric: str, batch: int = 16
) -> Iterator[Prediction]:
    """Yields a prediction for every question, in order; those that `path` already holds are not asked again.

    A question that cannot be asked is scored 0 and carries the reason; the others of its batch are asked without it.
    """
    held = read_predictions(path)
    asked = {question.id: question for question in questions}
    stale = [
        id for id, one in held.items() if id not in asked or one.question != asked[id].text or one.metric != metric
    ]
    if stale:
        raise InputError(f"{path}: holds answers to other questions ({stale[0]!r}, say); take another output folder")
    with path.open("a", encoding="utf-8") as file:
        for start in range(0, len(questions), batch):
            part = questions[start : start + batch]
            new = [question for question in part if question.id not in held]
            for question, (said, fault) in zip(new, _answers(new, answer), strict=True):
                value = 0.0 if fault else score(metric, said, question.answers)
                one = Prediction(
                    question.id, question.text, said, question.answers, value, metric, question.groups, fault
                )
                file.write(json.dumps(dataclasses.asdict(one), ensure_ascii=False) + "\n")
                held[question.id] = one
            file.flush()
            yield from (held[question.id] for question in part)


def read_predictions(path: Path) -> dict[str, Prediction]:
    """{id: prediction} of a file that may not exist; a last line that a kill cut off is taken out of it."""
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole, encoding="utf-8")
    held = {}
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            one = Prediction(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}, line {number}: no prediction ({error}); remove the file") from None
        held[one.id] = one
    return held


def _answers(questions: Sequence[Question], answer: Answer) -> list[tuple[str, str | None]]:
    if not questions:
        return []
    try:
        return [(said, None) for said in answer([question.messages for question in questions])]
    except InputError as error:
        if len(questions) == 1:
            return [("", error.faults[0])]
        return [pair for question in questions for pair in _answers([question], answer)]
