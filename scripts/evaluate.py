"""Asks a model every question of a data file and scores the answers.

    .venv/bin/python scripts/evaluate.py --model=runs/photos --benchmark=questions.csv --output=runs/photos/evaluation

Writes predictions.jsonl, report.json and report.html. An interrupted evaluation goes on with the same command; with
another --metric its answers are scored anew, and nothing is asked again. Where rows were added or exchanged meanwhile,
what is another question now (other words anywhere in the conversation, or pictures of other content) is asked again.
--baseline=DIR sets an earlier evaluation of the same questions beside it: what was learned, what was lost.
--pictures=swapped or blank shows other pictures: a model that keeps its score does not look.
"""

import interrupts  # noqa: F401 - first of all

import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from absl import flags

import command_line
from vlm_jax import terminal

flags.DEFINE_string("model", None, "Hugging Face folder, hub id, or run folder", required=True)
flags.DEFINE_string(
    "base", None, "where the model lies that --model is an adapter of, or a run with adapters, if it moved"
)
flags.DEFINE_string("benchmark", None, "records, tables, LLaVA JSON, as for training; commas between", required=True)
flags.DEFINE_string("output", None, "folder of the report", required=True)
flags.DEFINE_string("pictures", "given", "given, swapped (those of another subject) or blank")
flags.DEFINE_string("metric", "normalised", "exact, normalised or contains")
flags.DEFINE_string("baseline", None, "folder of an earlier evaluation to compare with")
flags.DEFINE_string("format", "auto", "of the benchmark: records, table, llava, vqav2, parquet, … (docs/data.md)")
flags.DEFINE_string("image_root", None, "what relative picture paths start from")
flags.DEFINE_multi_string("column", [], "our name = the benchmark's, as --column=image=img_path; once for each name")
flags.DEFINE_string("question", "", "asked by rows that ask nothing themselves: captions, pictures in class folders")
flags.DEFINE_integer("max_new_tokens", 64, "tokens an answer may have", lower_bound=1)

SECONDS_A_LINE = 60
"""Between two lines of progress where there is no terminal."""


def main() -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import vlm_jax
    from vlm_jax.checkpoint.files import alone, write_json, write_text
    from vlm_jax.evaluation import controls, report, runner

    given = flags.FLAGS
    # A file's own name may hold commas.
    files = [given.benchmark] if Path(given.benchmark).exists() else given.benchmark.split(",")
    questions = read_questions(files)
    baseline = None if given.baseline is None else read_baseline(given.baseline, questions)
    questions = controls.CONTROLS[given.pictures](questions)
    model = vlm_jax.load(given.base or given.model, adapter=given.model if given.base else None)
    settings = {
        "model": given.model,
        "weights": model.fingerprint(),
        "benchmark": given.benchmark,
        "pictures": given.pictures,
        "metric": given.metric,
        "max_new_tokens": given.max_new_tokens,
        "visual_tokens": list(model.processor.images.budget),
        "decoding": "greedy",
    }
    output = Path(given.output)
    output.mkdir(parents=True, exist_ok=True)
    with alone(output, "evaluating"):
        begin(output, settings)
        answers = runner.predict(
            questions,
            lambda conversations: model.generate(conversations, max_new_tokens=given.max_new_tokens),
            output / "predictions.jsonl",
            metric=given.metric,
            note=lambda line: print(terminal.line(line), file=sys.stderr),
        )
        predictions = list(progress(answers, len(questions)))
        summary = report.summarise(predictions, baseline)
        write_json(output / "report.json", {"settings": settings, **summary})
        pictures = {question.id: controls.images_of(question) for question in questions}
        title = f"{given.model} on {', '.join(Path(name).name for name in files)}"
        page = report.page(predictions, summary, pictures.__getitem__, title=title, baseline=baseline)
        write_text(output / "report.html", page)
    print(terminal.safe(report.table(summary)))
    print(f"report: {output / 'report.html'}")


def progress(answers: Iterable, total: int) -> Iterator:
    """Passes answers on and shows how many there are and how long the rest takes: a bar on a terminal, else lines."""
    from tqdm import tqdm

    if sys.stderr.isatty():
        yield from tqdm(answers, total=total, unit="question")
        return
    begun = told = time.monotonic()
    for number, answer in enumerate(answers, start=1):
        now = time.monotonic()
        if now - told >= SECONDS_A_LINE:
            told = now
            left = tqdm.format_interval((now - begun) / number * (total - number))
            print(f"{number} of {total} questions, {left} left", file=sys.stderr, flush=True)
        yield answer


def columns(written: list[str], faults: list[str]) -> dict[str, str]:
    """The columns of a benchmark by our names, as `sources.open_source` takes them."""
    from data_pipeline.sources.columns import faults_of

    named: dict[str, str] = {}
    for pair in written:
        ours, _, theirs = pair.partition("=")
        if ours in named:
            faults.append(f"--column={pair}: {ours} is named already, as {named[ours]}; name it once")
        named[ours] = theirs
    wrong = faults_of(named, "--column")
    faults += wrong
    return {} if wrong else named


def read_questions(files: list[str]) -> list:
    """The questions of all files, or every fault of the files and of the flags about them."""
    from data_pipeline import sources
    from data_pipeline.questions import questions_of
    from vlm_jax.errors import InputError
    from vlm_jax.evaluation.controls import CONTROLS
    from vlm_jax.evaluation.metrics import METRICS
    from vlm_jax.locations import absolute

    given = flags.FLAGS
    faults = []
    if given.metric not in METRICS:
        faults.append(f"--metric={given.metric}: known are {', '.join(METRICS)}")
    if given.pictures not in CONTROLS:
        faults.append(f"--pictures={given.pictures}: known are {', '.join(CONTROLS)}")
    names = [name.strip() for name in files]
    times = Counter(map(absolute, names))
    faults += [
        f"{name}: is named {count} times in --benchmark; name it once" for name, count in times.items() if count > 1
    ]
    notes: list[str] = []
    records, wrong = sources.read_several(
        dict(zip(map(absolute, names), names, strict=True)).values(),
        notes,
        format=given.format,
        image_root=given.image_root,
        training=False,
        columns=columns(given.column, faults),
        question=given.question,
    )
    faults += wrong
    questions = [question for record in records for question in questions_of(record, faults)]
    doubled = [id for id, count in Counter(question.id for question in questions).items() if count > 1]
    if doubled and not faults:
        faults.append(f"{given.benchmark}: two questions would be called {doubled[0]!r}; rename a record")
    if not questions and not faults:
        faults.append(f"{given.benchmark}: holds no questions")
    if faults:
        raise InputError(faults)
    for note in notes:
        print(terminal.line(note), file=sys.stderr)
    return questions


def begin(output: Path, settings: dict) -> None:
    """Marks a folder as this evaluation's; one begun with other settings is not gone on with."""
    from vlm_jax.checkpoint.files import read_json, write_json
    from vlm_jax.errors import InputError

    path = output / "settings.json"
    if path.is_file():
        held = read_json(path)
        differing = [key for key in settings if held.get(key) != settings[key]]
        # Answers are scored anew by another metric, without asking again.
        if differing := [key for key in differing if key != "metric"]:
            raise InputError(
                f"{output}: holds an evaluation with another {', '.join(differing)}; take another --output"
            )
    elif any(not entry.name.startswith(".") for entry in output.iterdir()):
        raise InputError(f"{output}: holds files that are not an evaluation's; take another --output")
    write_json(path, settings)


def read_baseline(folder: str, questions: list) -> dict:
    """The predictions of an earlier evaluation, which must have been asked these questions, scored by this metric.

    Args:
      questions: with the pictures that the benchmark gives them.
    """
    from vlm_jax.checkpoint.files import read_json
    from vlm_jax.errors import InputError
    from vlm_jax.evaluation.question_digest import QuestionDigests
    from vlm_jax.evaluation.runner import answers_this, read_predictions, rescored

    baseline = read_predictions(Path(folder) / "predictions.jsonl")
    if not baseline:
        raise InputError(f"{folder}: holds no predictions.jsonl of an earlier evaluation")
    asked = {question.id: question for question in questions}
    both = [one for id, one in baseline.items() if id in asked]
    if not both:
        raise InputError(f"--baseline={folder}: answered none of these questions")
    settings = Path(folder) / "settings.json"
    # Swapped and blank pictures differ from the benchmark's on purpose.
    changed = settings.is_file() and read_json(settings).get("pictures", "given") != "given"
    digests = QuestionDigests()
    for one in both:
        if not answers_this(one, asked[one.id], digests, words_alone=True):
            raise InputError(f"--baseline={folder}: was asked something else at {one.id!r}")
        # What could not be asked was given no picture that could be another.
        if not (changed or one.fault or answers_this(one, asked[one.id], digests)):
            raise InputError(
                f"--baseline={folder}: was asked something else at {one.id!r}: its pictures are others, or cannot be "
                "read here"
            )
    return {id: rescored(one, flags.FLAGS.metric, one.answers, one.groups) for id, one in baseline.items()}


if __name__ == "__main__":
    command_line.run(main)
