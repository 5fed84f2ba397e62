"""Asks a model every question of a data file and scores the answers.

    .venv/bin/python scripts/evaluate.py --model=runs/photos --benchmark=questions.csv --output=runs/photos/evaluation

--benchmark=NAME --data=FILES asks a public benchmark from its official files, and writes what its server is handed
(docs/benchmarks.md).

Writes predictions.jsonl, report.json and report.html. An interrupted evaluation goes on with the same command; with
another --metric its answers are scored anew, and nothing is asked again. Where rows were added or exchanged meanwhile,
what is another question now (other words anywhere in the conversation, or images of other content) is asked again.
--baseline=DIR sets earlier evaluations of the same questions beside it: what was learned and lost, and whether that
may be chance. --model several times asks several models. --general=FILES asks what may have been forgotten.
--images=swapped or blank shows other images: a model that keeps its score does not look.
"""

import interrupts  # noqa: F401 - first of all

import functools
import os

from absl import flags

import command_line
import evaluation_flags


def main() -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from vlm_jax.parallel import hosts

    hosts.start()  # before anything asks for devices
    from data_pipeline.evaluation_run import evaluate, evaluate_several
    from data_pipeline.evaluation_settings import Evaluation
    from vlm_jax import progress
    from vlm_jax.evaluation import report

    evaluation = Evaluation(**evaluation_flags.settings())
    shown = functools.partial(progress.shown, unit="question")
    models = flags.FLAGS.model
    if len(models) > 1:
        summary, folder = evaluate_several(evaluation, models, progress=shown)
    else:
        summary, folder = evaluate(evaluation, progress=shown), evaluation.output
    if hosts.is_first():
        print(report.closing_lines(summary, str(folder)))


if __name__ == "__main__":
    command_line.run(main)
