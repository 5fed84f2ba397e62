"""Asking a model every question of a benchmark and scoring what it says.

Where questions come from and who answers is the caller's (`scripts/evaluate.py` connects records and a loaded model).
Every answer is written to `predictions.jsonl` as it comes, so an evaluation that was stopped goes on where it was.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlm_jax.errors import InputError
from vlm_jax.evaluation.metrics import score
from vlm_jax.evaluation.question_digest import QuestionDigests


@dataclasses.dataclass(frozen=True)
class Question:
    """One thing to ask: the conversation up to the answer, and what counts as right."""

    id: str
    messages: list[dict[str, Any]]
    answers: list[str]
    """Empty where they are not published, as of a test split."""
    groups: dict[str, str]
    """What the report breaks scores down by: split, task, fact."""
    alone: str = ""
    """The question without the context, the template and the suffix that it is asked with; "" where that is all."""
    ids: Mapping[str, int | str] = dataclasses.field(default_factory=dict)
    """{field of an official file: what it knows the question by}."""

    @property
    def text(self) -> str:
        return self.alone or text_of(self.messages[-1])


def text_of(message: dict[str, Any]) -> str:
    """The words of a turn, whole or in parts."""
    content = message["content"]
    return content if isinstance(content, str) else " ".join(part["text"] for part in content if part["type"] == "text")


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What was said, a line of `predictions.jsonl`."""

    id: str
    question: str
    prediction: str
    answers: list[str]
    score: float | None
    """None where no answer is known."""
    metric: str
    groups: dict[str, str]
    error: str | None = None
    """Why there is no answer (an unreadable image, say); such questions count as wrong."""
    words: str | None = None
    """Digest of all turns that were shown (`QuestionDigests`); None of answers from before it was written down."""
    images: str | None = None
    """Digest of the images that were shown, in order."""


Answer = Callable[[list[list[dict[str, Any]]]], list[str]]


def predict(
    questions: Sequence[Question],
    answer: Answer,
    path: Path,
    *,
    metric: str,
    bem: str = "",
    batch: int = 16,
    note: Callable[[str], None] = lambda line: None,
) -> Iterator[Prediction]:
    """Yields a prediction for every question, in order; those that `path` already holds are not asked again.

    An answer that was given to other images or another conversation under the same id is asked for again, and `note`
    is called with one line on how many there are. Answers from before digests were written down are known by id and
    last turn alone.

    A question that cannot be asked is scored 0 and carries the reason; the others of its batch are asked without it.
    It is asked again when the evaluation is gone on with, and held answers are scored anew where the accepted ones or
    the metric have changed.

    Args:
      metric, bem: as `metrics.score` takes them.
    """
    _drop_cut_line(path)
    written = read_predictions(path)
    questions_by_id = {question.id: question for question in questions}
    stale = [
        id
        for id, one in written.items()
        if id not in questions_by_id or (one.words is None and one.question != questions_by_id[id].text)
    ]
    if stale:
        raise InputError(f"{path}: holds answers to other questions ({stale[0]!r}, say); take another output folder")
    digests = QuestionDigests()
    answered = {id: one for id, one in written.items() if not one.error}
    predictions = {id: one for id, one in answered.items() if answers_this(one, questions_by_id[id], digests)}
    if differing := len(answered) - len(predictions):
        were = "1 answer was" if differing == 1 else f"{differing:,} answers were"
        note(f"{path}: {were} given to other images or another conversation; asked again")
    with path.open("ab") as file:

        def write(one: Prediction) -> None:
            if written.get(one.id) != one:
                file.write(_line(one))
            predictions[one.id] = one

        for one in list(predictions.values()):
            write(rescored(one, metric, questions_by_id[one.id].answers, questions_by_id[one.id].groups, bem=bem))
        for start in range(0, len(questions), batch):
            part = questions[start : start + batch]
            new = [question for question in part if question.id not in predictions]
            for question, (text, error) in zip(new, _answers(new, answer), strict=True):
                write(_prediction(question, text, error, metric, bem, digests))
            file.flush()
            yield from (predictions[question.id] for question in part)


def answers_this(one: Prediction, question: Question, digests: QuestionDigests, *, words_alone: bool = False) -> bool:
    """Whether a stored answer was given to what this question shows, or to its words where those alone count.

    An answer without digests is known by the last turn's text.
    """
    if one.words is None:
        return one.question == question.text
    words, images = digests(question.messages)
    return one.words == words and (words_alone or one.images == images)


def _prediction(
    question: Question, text: str, error: str | None, metric: str, bem: str, digests: QuestionDigests
) -> Prediction:
    value = _score(metric, text, question.answers, question.text, error, bem)
    words, images = digests(question.messages)
    return Prediction(
        question.id, question.text, text, question.answers, value, metric, question.groups, error, words, images
    )


def _score(metric: str, text: str, answers: list[str], question: str, error: str | None, bem: str) -> float | None:
    if not answers:
        return None
    return 0.0 if error else score(metric, text, answers, question, bem=bem)


def rescored(one: Prediction, metric: str, answers: list[str], groups: dict[str, str], *, bem: str = "") -> Prediction:
    """What was said, scored by a metric against the answers that count by now; what could not be asked stays wrong."""
    if (one.metric, one.answers) == (metric, answers):
        return dataclasses.replace(one, groups=groups)
    value = _score(metric, one.prediction, answers, one.question, one.error, bem)
    return dataclasses.replace(one, answers=answers, score=value, metric=metric, groups=groups)


def read_predictions(path: Path) -> dict[str, Prediction]:
    """{id: prediction} of a file that may not exist; a last line that a kill cut off is passed over.

    Raises:
      InputError: a whole line that is no prediction.
    """
    if not path.is_file():
        return {}
    predictions = {}
    # Split at line feeds alone, and as bytes: a cut may lie within a character, and a text may hold other line ends.
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            one = Prediction(**json.loads(line.decode("utf-8")))
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}, line {number}: no prediction ({error}); remove the file") from None
        predictions[one.id] = one
    return predictions


def _drop_cut_line(path: Path) -> None:
    if path.is_file():
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)


def _line(one: Prediction) -> bytes:
    fields = dataclasses.asdict(one)
    try:
        return json.dumps(fields, ensure_ascii=False).encode("utf-8") + b"\n"
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can write and UTF-8 cannot
        return json.dumps(fields).encode("ascii") + b"\n"


def _answers(questions: Sequence[Question], answer: Answer) -> list[tuple[str, str | None]]:
    if not questions:
        return []
    try:
        return [(text, None) for text in answer([question.messages for question in questions])]
    except InputError as error:
        if len(questions) == 1:
            return [("", error.lines[0])]
        return [pair for question in questions for pair in _answers([question], answer)]
