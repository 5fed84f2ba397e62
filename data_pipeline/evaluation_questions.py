"""What an evaluation asks, and earlier answers to it: questions from files of any form, and baselines.

Who answers is `answering_models`', what is done with answers `evaluation_run`'s.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipeline import benchmark_files, prompting, sources
from data_pipeline.evaluation_settings import SETTINGS, Evaluation, errors_of, settings_in, with_defaults
from data_pipeline.prompting import PLAIN
from data_pipeline.questions import answer_errors, questions_of
from data_pipeline.records import Record
from data_pipeline.sources.columns import errors_of as columns_errors
from vlm_jax import locations, terminal
from vlm_jax.errors import InputError, gathered
from vlm_jax.evaluation import controls, metrics, runner
from vlm_jax.evaluation.metrics import bem
from vlm_jax.evaluation.question_digest import QuestionDigests
from vlm_jax.evaluation.report.summary import SET
from vlm_jax.evaluation.runner import Prediction, Question
from vlm_jax.processing.images import header

GENERAL_METRIC = "normalised"
"""Of general sets, whatever the benchmark is scored by."""
PEOPLE = 10
"""Whose answers VQA accuracy is of."""
_MEGAPIXELS = (0.1, 0.3, 1.0, 3.0)
"""Where sizes of images are told apart in a report."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is asked.

    Attributes:
      published: of a benchmark of the table, `benchmark_files.part_of`.
      general: ids of the questions of general sets.
      units: as `report.summarise` takes them, where other images are shown than a question is about.
    """

    questions: list[Question]
    published: dict[str, Any] = dataclasses.field(default_factory=dict)
    general: frozenset[str] = frozenset()
    units: Mapping[str, str] = dataclasses.field(default_factory=dict)


def read_questions(evaluation: Evaluation, *, say: Callable[[str], None] = terminal.say) -> list[Question]:
    """The questions of `read`, which says what it raises."""
    return read(with_defaults(evaluation), say).questions


def read(evaluation: Evaluation, say: Callable[[str], None]) -> Asked:
    """The questions of all files of an evaluation with its defaults, and what is known of them.

    Raises:
      InputError: every error of the files and of the settings about them.
    """
    errors = errors_of(evaluation)
    if (evaluation.entry is None) == bool(evaluation.data):  # then it is not known which files are meant
        raise InputError(errors)
    notes: list[str] = []
    records = _records(evaluation, evaluation.files, errors, notes)
    answered, published = True, {}
    if evaluation.entry is not None and records:
        published = benchmark_files.part_of(evaluation.entry, records)
    if evaluation.entry is not None and evaluation.official and records:
        answered = benchmark_files.check(evaluation.entry, records, errors)
    prompt = PLAIN if prompting.errors_of({"template": evaluation.template or ""}, "") else evaluation.prompt
    questions = [
        question for record in records for question in questions_of(record, errors, prompt=prompt, answered=answered)
    ]
    if metrics.error_in(evaluation.scored_by, bem=evaluation.bem, ask=None) == "":
        if evaluation.bem:
            with gathered(errors):
                bem.check(evaluation.bem)
        errors += answer_errors(questions, evaluation.scored_by)
    if not questions and not errors:
        errors.append(f"{', '.join(evaluation.files)}: holds no questions")
    general = _general(evaluation, errors, notes)
    doubled = [id for id, n in Counter(question.id for question in [*questions, *general]).items() if n > 1]
    if doubled and not errors:
        errors.append(f"{', '.join(evaluation.files)}: two questions would be called {doubled[0]!r}; rename a record")
    if errors:
        raise InputError(errors)
    for note in [*notes, *_notes_on_answers(questions, evaluation.scored_by)]:
        say(terminal.line(note))
    every = [_with_image_size(question) for question in (*questions, *general)]
    return Asked(every, published, frozenset(question.id for question in general))


def _records(evaluation: Evaluation, names: Sequence[str], errors: list[str], notes: list[str]) -> list[Record]:
    columns = {} if columns_errors(evaluation.columns, "--column") else dict(evaluation.columns)
    records, unread = sources.read_several(
        dict(zip(map(locations.absolute, names), names, strict=True)).values(),
        notes,
        format=evaluation.format,
        image_root=evaluation.image_root,
        training=False,
        columns=columns,
        question=evaluation.question,
    )
    errors += unread
    return records


def _general(evaluation: Evaluation, errors: list[str], notes: list[str]) -> list[Question]:
    """The questions of general sets, each file a set of its own, asked as they are."""
    found = []
    plain = dataclasses.replace(evaluation, format="auto", columns={}, question="", image_root=None)
    for name in evaluation.general_files:
        for record in _records(plain, [name], errors, notes):
            found += [
                dataclasses.replace(
                    question,
                    id=f"{name}: {question.id}",
                    groups={**question.groups, SET: name},
                    metric=GENERAL_METRIC,
                )
                for question in questions_of(record, errors)
            ]
    return found


def _with_image_size(question: Question) -> Question:
    """With the group of its image's size, where it shows one image that opens."""
    images = controls.images_of(question)
    if len(images) != 1 or not isinstance(images[0], str | bytes | Path):
        return question
    try:
        with header(images[0]) as opened:
            megapixels = opened.width * opened.height / 1e6
    except Exception:  # whatever is wrong with the file is told when it is asked
        return question
    above = [bound for bound in _MEGAPIXELS if megapixels > bound]
    size = f"over {above[-1]:g}" if len(above) == len(_MEGAPIXELS) else f"up to {_MEGAPIXELS[len(above)]:g}"
    return dataclasses.replace(question, groups={**question.groups, "image megapixels": size})


def _notes_on_answers(questions: Sequence[Question], metric: str) -> list[str]:
    """What is odd about accepted answers, but is scored."""
    empty = [one.id for one in questions if one.answers and not any(answer.strip() for answer in one.answers)]
    notes = []
    if empty:
        notes.append(
            f"{_counted(empty, 'has', 'have')} no accepted answer but an empty one; only saying nothing can be right"
        )
    if metrics.find(metric)[0].people > 1:
        few = [one.id for one in questions if one.answers and len(one.answers) != PEOPLE]
        if few:
            notes.append(
                f"{_counted(few, 'has', 'have')} other than {PEOPLE} accepted answers, of which {metric} is meant; "
                "with three or fewer it is never 1"
            )
    return notes


def _counted(ids: Sequence[str], one: str, several: str) -> str:
    return f"question {ids[0]!r} {one}" if len(ids) == 1 else f"{len(ids):,} questions ({ids[0]!r}, say) {several}"


def read_baselines(evaluation: Evaluation, questions: Sequence[Question]) -> dict[str, dict[str, Prediction]]:
    """{name: {id: prediction}} of the earlier evaluations that are to be compared with, by the folders' names where
    these tell them apart."""
    folders = locations.named_in(evaluation.baseline) if evaluation.baseline else []
    names = [Path(folder).name for folder in folders]
    named = names if len(set(names)) == len(names) else folders
    return {
        name: read_baseline(dataclasses.replace(evaluation, baseline=folder), questions)
        for name, folder in zip(named, folders, strict=True)
    }


def read_baseline(evaluation: Evaluation, questions: Sequence[Question]) -> dict[str, Prediction]:
    """The predictions of an earlier evaluation, which must have been asked these questions, scored by this metric and
    against the answers that count by now.

    Args:
      questions: with the images that the benchmark gives them.

    Raises:
      InputError: it has none, or was asked something else.
    """
    folder = evaluation.baseline
    baseline = runner.read_predictions(Path(folder) / "predictions.jsonl")
    if not baseline:
        raise InputError(f"{folder}: holds no predictions.jsonl of an earlier evaluation")
    questions_by_id = {question.id: question for question in questions}
    both = [one for id, one in baseline.items() if id in questions_by_id]
    if not both:
        raise InputError(f"--baseline={folder}: answered none of these questions")
    settings = Path(folder) / SETTINGS
    # Swapped and blank images differ from the benchmark's on purpose.
    changed = settings.is_file() and settings_in(settings).get("images", "given") != "given"
    digests = QuestionDigests()
    for one in both:
        if not runner.answers_this(one, questions_by_id[one.id], digests, words_alone=True):
            raise InputError(f"--baseline={folder}: was asked something else at {one.id!r}")
        # What could not be asked was given no image that could be another.
        if not (changed or one.error or runner.answers_this(one, questions_by_id[one.id], digests)):
            raise InputError(
                f"--baseline={folder}: was asked something else at {one.id!r}: its images are others, or cannot be "
                "read here"
            )
    return {
        id: runner.rescored(
            one,
            GENERAL_METRIC if SET in one.groups else evaluation.scored_by,
            questions_by_id[id].answers if id in questions_by_id else one.answers,
            one.groups,
            bem=evaluation.bem,
        )
        for id, one in baseline.items()
    }
