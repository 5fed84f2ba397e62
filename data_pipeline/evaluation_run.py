"""A whole evaluation as one function: a model is asked every question of a benchmark, and its answers are scored.

`scripts/evaluate.py` calls it, and so may any program: nothing here reads flags. What answers are scored by, and the
pages, are `vlm_jax.evaluation`'s.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipeline import benchmark_files, prompting, sources
from data_pipeline.evaluation_settings import Evaluation, errors_of, settings_of_questions, with_defaults
from data_pipeline.prompting import PLAIN
from data_pipeline.questions import questions_of
from data_pipeline.sources.columns import errors_of as columns_errors
from vlm_jax import locations, output_folder, terminal
from vlm_jax.checkpoint.files import alone, read_json, write_json, write_text
from vlm_jax.errors import InputError, gathered
from vlm_jax.evaluation import controls, metrics, report, runner, submissions
from vlm_jax.evaluation.benchmark import Benchmark, headline_of
from vlm_jax.evaluation.metrics import bem
from vlm_jax.evaluation.question_digest import QuestionDigests
from vlm_jax.evaluation.runner import Prediction, Question

SETTINGS = "settings.json"


SEEN = ("visual_tokens", "token_reduction", "token_reduction_layer")
"""Fields of an evaluation that `vlm_jax.load` takes too."""
_BEFORE = {"data": "", "template": "", "suffix": ""}
"""What evaluations did of which earlier versions wrote nothing down."""
_NOT_KNOWN_BEFORE = ("format", "columns", "question")
"""What earlier versions did not write down at all."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is asked.

    Attributes:
      published: of a benchmark of the table, `benchmark_files.part_of`.
    """

    questions: list[Question]
    published: dict[str, Any] = dataclasses.field(default_factory=dict)


def evaluate(
    evaluation: Evaluation,
    *,
    say: Callable[[str], None] = terminal.say,
    progress: Callable[[Iterable, int], Iterable] = lambda answers, total: answers,
) -> dict[str, Any]:
    """Asks, scores and writes `predictions.jsonl`, `report.json` and `report.html`. Returns what report.json holds.

    An evaluation that was interrupted goes on; with another metric, answers are scored anew and nothing is asked again.

    Args:
      say: called with what was noticed on the way, a line each.
      progress: passes answers on, of which there are so many, and shows how far they are.

    Raises:
      InputError: a benchmark, a model or a folder that cannot be used: all errors together as far as they can be known.
    """
    import vlm_jax

    evaluation = with_defaults(evaluation)
    asked = read(evaluation, say)
    baseline = read_baseline(evaluation, asked.questions) if evaluation.baseline else None
    asked = dataclasses.replace(asked, questions=controls.CONTROLS[evaluation.images](asked.questions))
    adapter = evaluation.model if evaluation.base else None
    seen = {name: getattr(evaluation, name) for name in SEEN}
    model = vlm_jax.load(evaluation.base or evaluation.model, adapter=adapter, **seen)
    budget = model.processor.budget
    settings = {
        "model": evaluation.model,
        "weights": model.fingerprint(),
        **settings_of_questions(evaluation),
        "visual_tokens": list(model.processor.images.token_range),
        "decoding": _decoding(model.repetition_penalty),
    }
    if not budget.takes_all:
        layer = [budget.layer] if budget.layer else []
        settings["token_reduction"] = [budget.visual_tokens, budget.method, budget.seed, *layer]

    def answer(conversations: list[list[dict[str, Any]]]) -> list[str]:
        return model.generate(conversations, max_new_tokens=evaluation.max_new_tokens)

    return ask(evaluation, asked, answer, settings, baseline=baseline, say=say, progress=progress)


def ask(
    evaluation: Evaluation,
    asked: Asked,
    answer: runner.Answer,
    settings: Mapping[str, Any],
    *,
    baseline: Mapping[str, Prediction] | None = None,
    say: Callable[[str], None] = terminal.say,
    progress: Callable[[Iterable, int], Iterable] = lambda answers, total: answers,
) -> dict[str, Any]:
    """`evaluate` with whoever answers: asks what was read, scores and writes.

    Args:
      evaluation: with its defaults.
      settings: what moves a score, as settings.json and report.json hold it.
    """
    questions, output = asked.questions, Path(evaluation.output)
    output_folder.check(output, f"--output={output}", owner="an evaluation's", marks=(SETTINGS,))
    output.mkdir(parents=True, exist_ok=True)
    with alone(output, "evaluating"):
        _begin(output, settings)
        path = output / "predictions.jsonl"
        answers = runner.predict(questions, answer, path, metric=evaluation.scored_by, bem=evaluation.bem, note=say)
        predictions = list(progress(answers, len(questions)))
        summary = {"settings": settings, **report.summarise(predictions, baseline)}
        if evaluation.entry is not None:
            summary |= _of_benchmark(evaluation, evaluation.entry, asked, predictions, summary, say)
        write_json(output / "report.json", summary)
        shown = {question.id: controls.images_of(question) for question in questions}
        files = ", ".join(Path(name).name for name in evaluation.files)
        of = files if evaluation.entry is None else f"{evaluation.entry.title} ({files})"
        title = f"{evaluation.model} on {of}"
        page = report.page(predictions, summary, shown.__getitem__, title=title, baseline=baseline)
        write_text(output / "report.html", page)
    return summary


def _of_benchmark(
    evaluation: Evaluation,
    entry: Benchmark,
    asked: Asked,
    predictions: Sequence[Prediction],
    summary: Mapping[str, Any],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """What a report holds of a benchmark of the table besides: its published figure, other metrics, the submission."""
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
    names = evaluation.files
    wrong = columns_errors(evaluation.columns, "--column")
    prompt = PLAIN if prompting.errors_of({"template": evaluation.template or ""}, "") else evaluation.prompt
    notes: list[str] = []
    records, unread = sources.read_several(
        dict(zip(map(locations.absolute, names), names, strict=True)).values(),
        notes,
        format=evaluation.format,
        image_root=evaluation.image_root,
        training=False,
        columns={} if wrong else dict(evaluation.columns),
        question=evaluation.question,
    )
    errors += unread
    answered, published = True, {}
    if evaluation.entry is not None and records:
        published = benchmark_files.part_of(evaluation.entry, records)
    if evaluation.entry is not None and evaluation.official and records:
        answered = benchmark_files.check(evaluation.entry, records, errors)
    questions = [
        question for record in records for question in questions_of(record, errors, prompt=prompt, answered=answered)
    ]
    if metrics.error_in(evaluation.scored_by, bem=evaluation.bem, ask=None) == "":
        errors += _answer_errors(questions, evaluation)
    doubled = [id for id, count in Counter(question.id for question in questions).items() if count > 1]
    if doubled and not errors:
        errors.append(f"{', '.join(names)}: two questions would be called {doubled[0]!r}; rename a record")
    if not questions and not errors:
        errors.append(f"{', '.join(names)}: holds no questions")
    if errors:
        raise InputError(errors)
    for note in notes:
        say(terminal.line(note))
    return Asked(questions, published)


def _answer_errors(questions: Sequence[Question], evaluation: Evaluation) -> list[str]:
    """Accepted answers that the metric cannot compare with, found by scoring nothing said; a folder that is no BERT."""
    errors: list[str] = []
    if evaluation.bem:
        with gathered(errors):
            bem.check(evaluation.bem)
    if not metrics.find(evaluation.scored_by)[0].needs:
        for question in questions:
            if not question.answers:
                continue
            try:
                metrics.score(evaluation.scored_by, "", question.answers, question.text)
            except InputError as error:
                errors += [f"question {question.id!r}: {line}" for line in error.lines]
    return errors


def _decoding(penalty: float) -> str:
    return "greedy" if penalty == 1 else f"greedy, repetition penalty {penalty:g}"


def _begin(output: Path, settings: Mapping[str, Any]) -> None:
    """Marks a folder as this evaluation's; one begun with other settings is not gone on with."""
    path = output / SETTINGS
    if path.is_file():
        earlier = _settings_of(path)
        keys = list(dict.fromkeys([*settings, "token_reduction", "bem"]))  # the last two are not always there
        keys = [key for key in keys if key in earlier or key not in _NOT_KNOWN_BEFORE]
        differing = [key for key in keys if earlier.get(key) != settings.get(key)]
        # Answers are scored anew by another metric, without asking again.
        if differing := [key for key in differing if key != "metric"]:
            raise InputError(
                f"{output}: holds an evaluation with another {', '.join(differing)}; take another --output"
            )
    write_json(path, settings)


def _settings_of(path: Path) -> dict[str, Any]:
    settings = read_json(path)
    if "pictures" in settings:  # as earlier versions called it
        settings["images"] = settings.pop("pictures")
    return {**_BEFORE, **settings}


def read_baseline(evaluation: Evaluation, questions: Sequence[Question]) -> dict[str, Prediction]:
    """The predictions of an earlier evaluation, which must have been asked these questions, scored by this metric.

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
    changed = settings.is_file() and _settings_of(settings).get("images", "given") != "given"
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
        id: runner.rescored(one, evaluation.scored_by, one.answers, one.groups, bem=evaluation.bem)
        for id, one in baseline.items()
    }
