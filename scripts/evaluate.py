"""Asks a model every question of a data file and scores the answers.

    .venv/bin/python scripts/evaluate.py --model=runs/photos --benchmark=questions.csv --output=runs/photos/evaluation

Writes predictions.jsonl, report.json and report.html. An interrupted evaluation goes on with the same command; with
another --metric its answers are scored anew, and nothing is asked again. Where rows were added or exchanged meanwhile,
what is another question now (other words anywhere in the conversation, or images of other content) is asked again.
--baseline=DIR sets an earlier evaluation of the same questions beside it: what was learned, what was lost.
--images=swapped or blank shows other images: a model that keeps its score does not look.
"""

import interrupts  # noqa: F401 - first of all

import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from absl import flags

import command_line
import token_flags
from vlm_jax import terminal

flags.DEFINE_string("model", None, "Hugging Face folder, hub id, or run folder", required=True)
flags.DEFINE_string(
    "base", "", "where the model lies that --model is an adapter of, or a run with adapters, if it moved"
)
flags.DEFINE_string("benchmark", None, "records, tables, LLaVA JSON, as for training; commas between", required=True)
flags.DEFINE_string("output", None, "folder of the report", required=True)
flags.DEFINE_string("images", "given", "given, swapped (those of another subject) or blank")
flags.DEFINE_string("metric", "normalised", "exact, normalised or contains")
flags.DEFINE_string("baseline", "", "folder of an earlier evaluation to compare with")
flags.DEFINE_string("format", "auto", "of the benchmark: records, table, llava, vqav2, parquet, … (docs/data.md)")
flags.DEFINE_string("image_root", None, "what relative image paths start from")
flags.DEFINE_multi_string("column", [], "our name = the benchmark's, as --column=image=img_path; once for each name")
flags.DEFINE_string("question", "", "asked by rows that ask nothing themselves: captions, images in class folders")
flags.DEFINE_integer("max_new_tokens", 64, "tokens an answer may have", lower_bound=1)

SECONDS_A_LINE = 60
"""Between two lines of progress where there is no terminal."""


def main() -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from data_pipeline.evaluation_run import Evaluation, evaluate
    from vlm_jax.evaluation import report

    options = flags.FLAGS
    names = ("model", "benchmark", "output", "base", "images", "metric", "baseline", "format", "image_root", "question")
    settings = {name: options[name].value for name in (*names, "max_new_tokens")}
    settings |= {"columns": columns(options.column), **token_flags.options()}
    summary = evaluate(Evaluation(**settings), progress=progress)
    print(terminal.safe(report.table(summary)))
    print(f"report: {Path(options.output) / 'report.html'}")


def columns(pairs: list[str]) -> dict[str, str]:
    """The columns of a benchmark by our names; which names there are, and that each has one, is checked later."""
    from vlm_jax.errors import InputError

    named: dict[str, str] = {}
    for pair in pairs:
        ours, _, theirs = pair.partition("=")
        if ours in named:
            raise InputError(f"--column={pair}: {ours} is named already, as {named[ours]}; name it once")
        named[ours] = theirs
    return named


def progress(answers: Iterable, total: int) -> Iterator:
    """Passes answers on and shows how many there are and how long the rest takes: a bar on a terminal, else lines."""
    from tqdm import tqdm

    if sys.stderr.isatty():
        yield from tqdm(answers, total=total, unit="question")
        return
    begun = last = time.monotonic()
    for number, answer in enumerate(answers, start=1):
        now = time.monotonic()
        if now - last >= SECONDS_A_LINE:
            last = now
            left = tqdm.format_interval((now - begun) / number * (total - number))
            terminal.say(f"{number} of {total} questions, {left} left")
        yield answer


if __name__ == "__main__":
    command_line.run(main)
