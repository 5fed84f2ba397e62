"""A whole evaluation as one function: a model is asked every question of a benchmark, and its answers are scored.

`scripts/evaluate.py` calls it, and so may any program: nothing here reads flags. What answers are scored by, and the
pages, are `vlm_jax.evaluation`'s.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipeline import sources
from data_pipeline.questions import questions_of
from data_pipeline.sources.columns import errors_of as columns_errors
from vlm_jax import locations, output_folder, terminal
from vlm_jax.checkpoint.files import alone, read_json, write_json, write_text
from vlm_jax.errors import InputError, gathered
from vlm_jax.evaluation import controls, metrics, report, runner
from vlm_jax.evaluation.metrics import bem
from vlm_jax.evaluation.question_digest import QuestionDigests
from vlm_jax.evaluation.runner import Prediction, Question

SETTINGS = "settings.json"


SEEN = ("visual_tokens", "token_reduction", "token_reduction_layer")
"""Fields of an evaluation that `vlm_jax.load` takes too."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What is asked of which model.

    Attributes:
      model: Hugging Face folder, hub id, or run folder; base: of one with adapters, where its base moved.
      benchmark: records, tables or any other data that training reads; commas between several.
      output: the folder of the report.
      images: a key of `controls.CONTROLS`: given, swapped or blank.
      metric: as `metrics.score` takes it; bem: the folder of the model that the metric bem needs.
      baseline: the folder of an earlier evaluation to compare with; empty for none.
      format, image_root, columns, question: of the benchmark, as `sources.open_source` takes them.
      max_new_tokens: tokens an answer may have.
      visual_tokens, token_reduction, token_reduction_layer: how much of an image the model sees, as `vlm_jax.load`
        takes them.
    """

    model: str
    benchmark: str
    output: str
    base: str = ""
    images: str = "given"
    metric: str = "normalised"
    bem: str = ""
    baseline: str = ""
    format: str = "auto"
    image_root: str | None = None
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    question: str = ""
    max_new_tokens: int = 64
    visual_tokens: float | int | None = None
    token_reduction: str | None = None
    token_reduction_layer: int | None = None


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

    questions = read_questions(evaluation, say=say)
    baseline = read_baseline(evaluation, questions) if evaluation.baseline else None
    questions = controls.CONTROLS[evaluation.images](questions)
    adapter = evaluation.model if evaluation.base else None
    seen = {name: getattr(evaluation, name) for name in SEEN}
    model = vlm_jax.load(evaluation.base or evaluation.model, adapter=adapter, **seen)
    budget = model.processor.budget
    settings = {
        "model": evaluation.model,
        "weights": model.fingerprint(),
        "benchmark": evaluation.benchmark,
        "images": evaluation.images,
        "metric": evaluation.metric,
        "max_new_tokens": evaluation.max_new_tokens,
        "visual_tokens": list(model.processor.images.token_range),
        "decoding": _decoding(model.repetition_penalty),
    }
    if evaluation.bem:
        settings["bem"] = evaluation.bem
    if not budget.takes_all:
        layer = [budget.layer] if budget.layer else []
        settings["token_reduction"] = [budget.visual_tokens, budget.method, budget.seed, *layer]
    output = Path(evaluation.output)
    output_folder.check(output, f"--output={output}", owner="an evaluation's", marks=(SETTINGS,))
    output.mkdir(parents=True, exist_ok=True)
    with alone(output, "evaluating"):
        _begin(output, settings)
        answers = runner.predict(
            questions,
            lambda conversations: model.generate(conversations, max_new_tokens=evaluation.max_new_tokens),
            output / "predictions.jsonl",
            metric=evaluation.metric,
            bem=evaluation.bem,
            note=say,
        )
        predictions = list(progress(answers, len(questions)))
        summary = {"settings": settings, **report.summarise(predictions, baseline)}
        write_json(output / "report.json", summary)
        shown = {question.id: controls.images_of(question) for question in questions}
        files = ", ".join(Path(name).name for name in locations.named_in(evaluation.benchmark))
        title = f"{evaluation.model} on {files}"
        page = report.page(predictions, summary, shown.__getitem__, title=title, baseline=baseline)
        write_text(output / "report.html", page)
    return summary


def read_questions(evaluation: Evaluation, *, say: Callable[[str], None] = terminal.say) -> list[Question]:
    """The questions of all files of the benchmark.

    Raises:
      InputError: every error of the files and of the settings about them.
    """
    errors: list[str] = []
    if wrong_metric := metrics.error_in(evaluation.metric, bem=evaluation.bem, ask=None):
        errors.append(f"--metric={evaluation.metric}: {wrong_metric}")
    if evaluation.images not in controls.CONTROLS:
        errors.append(f"--images={evaluation.images}: known are {', '.join(controls.CONTROLS)}")
    names = locations.named_in(evaluation.benchmark)
    times = Counter(map(locations.absolute, names))
    errors += [
        f"{name}: is named {count} times in --benchmark; name it once" for name, count in times.items() if count > 1
    ]
    wrong = columns_errors(evaluation.columns, "--column")
    errors += wrong
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
    questions = [question for record in records for question in questions_of(record, errors)]
    if not wrong_metric:
        errors += _answer_errors(questions, evaluation)
    doubled = [id for id, count in Counter(question.id for question in questions).items() if count > 1]
    if doubled and not errors:
        errors.append(f"{evaluation.benchmark}: two questions would be called {doubled[0]!r}; rename a record")
    if not questions and not errors:
        errors.append(f"{evaluation.benchmark}: holds no questions")
    if errors:
        raise InputError(errors)
    for note in notes:
        say(terminal.line(note))
    return questions


def _answer_errors(questions: Sequence[Question], evaluation: Evaluation) -> list[str]:
    """Accepted answers that the metric cannot compare with, found by scoring nothing said; a folder that is no BERT."""
    errors: list[str] = []
    if evaluation.bem:
        with gathered(errors):
            bem.check(evaluation.bem)
    if not metrics.find(evaluation.metric)[0].needs:
        for question in questions:
            try:
                metrics.score(evaluation.metric, "", question.answers, question.text)
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
        keys = dict.fromkeys([*settings, "token_reduction", "bem"])  # the last two are not always there
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
    return settings


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
        id: runner.rescored(one, evaluation.metric, one.answers, one.groups, bem=evaluation.bem)
        for id, one in baseline.items()
    }
