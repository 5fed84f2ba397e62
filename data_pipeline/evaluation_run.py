"""A whole evaluation as one function: a model is asked every question of a benchmark, and its answers are scored.

`scripts/evaluate.py` calls it, and so may any program: nothing here reads flags. What is asked stands in
`evaluation_questions`, who answers in `answering_models`; metrics and pages are `vlm_jax.evaluation`'s.
"""

import contextlib
import dataclasses
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from data_pipeline import answering_models, benchmark_figures, judging
from data_pipeline.answering_models import AnsweringModel
from data_pipeline.evaluation_questions import Asked, read, read_baselines
from data_pipeline.evaluation_settings import SETTINGS, Evaluation, settings_in, settings_of_questions, with_defaults
from data_pipeline.teachers import settings as teachers
from data_pipeline.teachers.progress_lines import ProgressLines
from vlm_jax import output_folder, terminal
from vlm_jax.checkpoint.files import alone, read_json, write_bytes, write_json, write_text
from vlm_jax.errors import InputError
from vlm_jax.evaluation import controls, report, runner
from vlm_jax.evaluation.question_digest import QuestionDigests
from vlm_jax.evaluation.runner import Prediction
from vlm_jax.parallel import hosts

PREDICTIONS, SPEED = "predictions.jsonl", "speed.json"
_NOT_KNOWN_BEFORE = ("format", "columns", "question", "general")
"""What earlier versions did not write down at all."""


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
    evaluation = with_defaults(evaluation)
    asked = read(evaluation, say)
    baselines = read_baselines(evaluation, asked.questions)
    if evaluation.images != "given":
        digests = QuestionDigests()
        units = {question.id: digests(question.messages)[1] for question in asked.questions}
        shown = controls.CONTROLS[evaluation.images](asked.questions)
        asked = dataclasses.replace(asked, questions=shown, units=units)
    with answering_models.opened(evaluation) as model:
        return ask(evaluation, asked, model, baselines=baselines, say=say, progress=progress)


def evaluate_several(
    evaluation: Evaluation,
    models: Sequence[str],
    *,
    say: Callable[[str], None] = terminal.say,
    progress: Callable[[Iterable, int], Iterable] = lambda answers, total: answers,
) -> tuple[dict[str, Any], Path]:
    """`evaluate` of several models on the same questions, one after the other, each in a folder of its own within that
    of the evaluation and compared with those before it. Returns the last one's report, which has all side by side, and
    its folder."""
    folders: list[str] = []
    report_json: dict[str, Any] = {}
    for number, model in enumerate(models, start=1):
        name = re.sub(r"[^\w.-]+", "-", model if model.startswith(answering_models.TEACHER) else Path(model).name)
        folder = str(Path(evaluation.output) / f"{number}-{name[:60]}")
        before = ",".join([*([evaluation.baseline] if evaluation.baseline else []), *folders])
        one = dataclasses.replace(evaluation, model=model, output=folder, baseline=before)
        say(f"{number} of {len(models)}: {model}")
        report_json = evaluate(one, say=say, progress=progress)
        folders.append(folder)
    return report_json, Path(folders[-1])


def ask(
    evaluation: Evaluation,
    asked: Asked,
    model: AnsweringModel,
    *,
    baselines: report.Baselines | None = None,
    say: Callable[[str], None] = terminal.say,
    progress: Callable[[Iterable, int], Iterable] = lambda answers, total: answers,
) -> dict[str, Any]:
    """`evaluate` with whoever answers: asks what was read, scores and writes.

    Args:
      evaluation: with its defaults.
    """
    output = Path(evaluation.output)
    output_folder.check(output, f"--output={output}", owner="an evaluation's", marks=(SETTINGS,))
    output.mkdir(parents=True, exist_ok=True)
    settings = {**model.settings, **settings_of_questions(evaluation)}
    with alone(output, "evaluating") if hosts.is_first() else contextlib.nullcontext():
        if hosts.is_first():
            _begin(output, settings)
        hosts.wait_for_all("the evaluation's folder is there")
        predictions = _predictions(evaluation, asked, model, say, progress)
        summary = {
            "settings": settings,
            **report.summarise(predictions, baselines, general=asked.general, units=asked.units),
        }
        if not hosts.is_first():
            return summary
        own = [one for one in predictions if one.id not in asked.general]
        if evaluation.entry is not None:
            summary |= benchmark_figures.of(evaluation, evaluation.entry, asked, own, summary, say)
        if evaluation.judge and "unscored" in summary:
            say(f"--judge={evaluation.judge}: nothing is judged, as the questions have no answers to compare with")
        elif evaluation.judge:
            settings_of_judge = teachers.in_text(evaluation.judge, "--judge")
            summary["judge"] = judging.judged(own, settings_of_judge, output, progress=ProgressLines(say))
        _write_report(evaluation, asked, predictions, summary, baselines)
    return summary


def _predictions(
    evaluation: Evaluation,
    asked: Asked,
    model: AnsweringModel,
    say: Callable[[str], None],
    progress: Callable[[Iterable, int], Iterable],
) -> list[Prediction]:
    """All predictions, in the order of their questions; how long those took that were asked now goes into `SPEED`.

    Of several processes each asks its own share, and then has those of all.
    """
    questions, output = asked.questions, Path(evaluation.output)
    count, index = jax.process_count(), jax.process_index()
    mine = questions[len(questions) * index // count : len(questions) * (index + 1) // count]
    path = output / (PREDICTIONS if count == 1 else f"predictions.{index + 1}-of-{count}.jsonl")
    counted = Counted(model.answer)
    answers = runner.predict(mine, counted, path, metric=evaluation.scored_by, bem=evaluation.bem, note=say)
    try:
        found = runner.in_order(progress(answers, len(mine)), mine)
    except KeyboardInterrupt:
        kept = len(runner.read_predictions(path)) if path.is_file() else 0
        say(f"{kept:,} of {len(mine):,} answers are kept in {path}; the same command goes on with the others")
        raise
    if counted.questions and hosts.is_first():
        write_json(output / SPEED, {**counted.figures(), "device": model.device})
    if count > 1:
        parts = hosts.gathered(runner.written(found))
        found = [one for part in parts for one in runner.read_written(part, PREDICTIONS).values()]
        if hosts.is_first():
            write_bytes(output / PREDICTIONS, b"".join(parts))
    return found


class Counted:
    """Who answers, with a clock beside it."""

    def __init__(self, answer: runner.Answer):
        self._answer = answer
        self.questions = self.tokens = 0
        self.seconds = 0.0

    def __call__(self, conversations: list) -> Iterable[tuple[int, runner.Reply]]:
        begun = time.perf_counter()
        for number, reply in self._answer(conversations):
            self.questions += 1
            self.tokens += reply.tokens or 0
            yield number, reply
        self.seconds += time.perf_counter() - begun

    def figures(self) -> dict[str, Any]:
        return {"questions": self.questions, "tokens": self.tokens, "seconds": round(self.seconds, 3)}


def _write_report(
    evaluation: Evaluation,
    asked: Asked,
    predictions: Sequence[Prediction],
    summary: Mapping[str, Any],
    baselines: report.Baselines | None,
) -> None:
    """`report.json`, which says the same however often the evaluation was interrupted; `report.html` and its plots."""
    output = Path(evaluation.output)
    write_json(output / "report.json", summary)
    files = ", ".join(Path(name).name for name in evaluation.files)
    of = files if evaluation.entry is None else f"{evaluation.entry.title} ({files})"
    images = {question.id: controls.images_of(question) for question in asked.questions}
    pictures = report.plots_of(summary)
    for name, picture in pictures.items():
        write_bytes(output / f"{name}.png", picture)
    speed = read_json(output / SPEED) if (output / SPEED).is_file() else None
    page = report.page(
        predictions,
        {**summary, **({"speed": speed} if speed else {})},
        images.__getitem__,
        title=f"{evaluation.model} on {of}",
        baselines=baselines,
        pictures=pictures,
    )
    write_text(output / "report.html", page)


def _begin(output: Path, settings: Mapping[str, Any]) -> None:
    """Marks a folder as this evaluation's; one begun with other settings is not gone on with."""
    path = output / SETTINGS
    if path.is_file():
        earlier = settings_in(path)
        keys = list(dict.fromkeys([*settings, "token_reduction", "bem"]))  # the last two are not always there
        keys = [key for key in keys if key in earlier or key not in _NOT_KNOWN_BEFORE]
        differing = [key for key in keys if earlier.get(key) != settings.get(key)]
        # Answers are scored anew by another metric, without asking again; a model that was moved is the same one.
        same = ["metric", *(["model"] if _same_weights(earlier, settings) else [])]
        if differing := [key for key in differing if key not in same]:
            raise InputError(
                f"{output}: holds an evaluation with another {', '.join(differing)}; take another --output"
            )
    write_json(path, settings)


def _same_weights(earlier: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether two settings are of one model that is loaded here; what a teacher is called says who is asked."""
    asked = any(str(one.get("model")).startswith(answering_models.TEACHER) for one in (earlier, settings))
    return not asked and "weights" in settings and earlier.get("weights") == settings["weights"]
