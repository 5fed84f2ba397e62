"""Asking a model every question of a benchmark and scoring what it says.

Where questions come from and who answers is the caller's (`scripts/evaluate.py` connects records and a loaded model).
Every answer is written to `predictions.jsonl` as it comes, so an evaluation that was stopped goes on where it was.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    metric: str = ""
    """What its answers are scored by; "" for the evaluation's own."""

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
    probability: float | None = None
    """That the model gave the whole answer, to four decimals; None where it did not say."""
    tokens: int | None = None
    """Of the answer, without its stop token; None where they were not counted."""
    visual_tokens: int | None = None
    """That the model was shown; None where they were not counted."""


@dataclasses.dataclass(frozen=True)
class Reply:
    """What was answered to a question.

    Attributes:
      probability: of the whole answer, as the model gives it; None where it does not say.
      tokens: of the answer; None where they are not counted.
      visual_tokens: that the model was shown; None where they are not counted.
      error: why there is no answer, where whoever answers goes on with the others.
    """

    text: str
    probability: float | None = None
    tokens: int | None = None
    visual_tokens: int | None = None
    error: str | None = None


class NobodyAnswers(InputError):
    """Whoever answers cannot be asked at all: no question is to blame, and the evaluation stops."""


Answer = Callable[[list[list[dict[str, Any]]]], Iterable[tuple[int, Reply]]]
"""Who answers: of conversations, (number, reply) of each as it comes. Raises InputError where one cannot be asked,
`NobodyAnswers` where none can."""
CHUNK = 256
"""Conversations that are handed over at one time."""


def texts(answer: Callable[[list[list[dict[str, Any]]]], Sequence[str]]) -> Answer:
    """Who answers with texts alone, all at once and in order."""
    return lambda conversations: enumerate(map(Reply, answer(conversations)))


def predict(
    questions: Sequence[Question],
    answer: Answer,
    path: Path,
    *,
    metric: str,
    bem: str = "",
    chunk: int = CHUNK,
    note: Callable[[str], None] = lambda line: None,
) -> Iterator[Prediction]:
    """Yields a prediction for every question: those that `path` holds, which are not asked again, then each as it comes
    (`in_order` sorts them). Every one is in the file before the next is waited for.

    An answer that was given to other images or another conversation under the same id is asked for again, and `note`
    is called with one line on how many there are. Answers from before digests were written down are known by id and
    last turn alone.

    A question that cannot be asked is scored 0 and carries the reason; the others of its chunk are asked without it.
    It is asked again when the evaluation is gone on with, and held answers are scored anew where the accepted ones or
    the metric have changed.

    Args:
      bem: the folder of the model that the metric bem needs.

    Raises:
      InputError: the file holds answers to other questions, or lines that are none.
      NobodyAnswers: with what was answered in the file, from which the same call goes on.
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
    known = {id: one for id, one in answered.items() if answers_this(one, questions_by_id[id], digests)}
    if differing := len(answered) - len(known):
        were = "1 answer was" if differing == 1 else f"{differing:,} answers were"
        note(f"{path}: {were} given to other images or another conversation; asked again")
    with path.open("ab") as file:

        def write(one: Prediction) -> Prediction:
            if written.get(one.id) != one:
                file.write(_line(one))
                file.flush()
            return one

        for one in known.values():
            question = questions_by_id[one.id]
            yield write(rescored(one, question.metric or metric, question.answers, question.groups, bem=bem))
        new = [question for question in questions if question.id not in known]
        for start in range(0, len(new), chunk):
            for question, reply, error in _replies(new[start : start + chunk], answer):
                yield write(_prediction(question, reply, error, question.metric or metric, bem, digests))


def in_order(predictions: Iterable[Prediction], questions: Sequence[Question]) -> list[Prediction]:
    """Predictions in the order of their questions."""
    by_id = {one.id: one for one in predictions}
    return [by_id[question.id] for question in questions if question.id in by_id]


def answers_this(one: Prediction, question: Question, digests: QuestionDigests, *, words_alone: bool = False) -> bool:
    """Whether a stored answer was given to what this question shows, or to its words where those alone count.

    An answer without digests is known by the last turn's text.
    """
    if one.words is None:
        return one.question == question.text
    words, images = digests(question.messages)
    return one.words == words and (words_alone or one.images == images)


def _prediction(
    question: Question, reply: Reply, error: str | None, metric: str, bem: str, digests: QuestionDigests
) -> Prediction:
    words, images = digests(question.messages)
    return Prediction(
        question.id,
        question.text,
        reply.text,
        question.answers,
        _score(metric, reply.text, question.answers, question.text, error, bem),
        metric,
        question.groups,
        error,
        words,
        images,
        None if reply.probability is None else round(reply.probability, 4),
        reply.tokens,
        reply.visual_tokens,
    )


def _score(metric: str, text: str, answers: list[str], question: str, error: str | None, bem: str) -> float | None:
    if not answers:
        return None
    return 0.0 if error else score(metric, text, answers, question, bem=bem)


def rescored(one: Prediction, metric: str, answers: list[str], groups: dict[str, str], *, bem: str = "") -> Prediction:
    """What was said, scored by a metric against the answers that count by now; what could not be asked stays wrong.

    A metric scores anew what it scored before, perhaps in an earlier version; but for a BERT, which is slow.
    """
    if bem and (one.metric, one.answers) == (metric, answers):
        return dataclasses.replace(one, groups=groups)
    value = _score(metric, one.prediction, answers, one.question, one.error, bem)
    return dataclasses.replace(one, answers=answers, score=value, metric=metric, groups=groups)


def read_predictions(path: Path) -> dict[str, Prediction]:
    """{id: prediction} of a file that may not exist; a last line that a kill cut off is passed over.

    Raises:
      InputError: a whole line that is no prediction.
    """
    return read_written(path.read_bytes(), str(path)) if path.is_file() else {}


def read_written(content: bytes, name: str) -> dict[str, Prediction]:
    """`read_predictions` of a file's content; `name`: as messages call it."""
    predictions = {}
    # Split at line feeds alone, and as bytes: a cut may lie within a character, and a text may hold other line ends.
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            one = Prediction(**json.loads(line.decode("utf-8")))
            if not all(isinstance(text, str) for text in (one.id, one.question, one.prediction, *one.answers)):
                raise TypeError("its id, question, prediction and answers must be texts")
        except (ValueError, TypeError) as error:
            raise InputError(f"{name}, line {number}: no prediction ({error}); remove the file") from None
        predictions[one.id] = one
    return predictions


def written(predictions: Iterable[Prediction]) -> bytes:
    """The content of a file of predictions."""
    return b"".join(map(_line, predictions))


def _drop_cut_line(path: Path) -> None:
    if path.is_file():
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)


def _line(one: Prediction) -> bytes:
    fields = dataclasses.asdict(one)
    try:
        return json.dumps(fields, ensure_ascii=False).encode("utf-8") + b"\n"
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can write and UTF-8 cannot
        return json.dumps(fields).encode("ascii") + b"\n"


def _replies(questions: Sequence[Question], answer: Answer) -> Iterator[tuple[Question, Reply, str | None]]:
    """(question, reply, why there is none). Where some cannot be asked, the rest is asked in halves without them."""
    left = dict(enumerate(questions))
    try:
        for number, reply in answer([question.messages for question in questions]):
            yield left.pop(number), reply, reply.error
    except NobodyAnswers:
        raise
    except InputError as error:
        if len(questions) == 1:
            yield questions[0], Reply(""), error.lines[0]
            return
        rest = list(left.values())
        middle = (len(rest) + 1) // 2
        for part in (rest[:middle], rest[middle:]):
            if part:
                yield from _replies(part, answer)
