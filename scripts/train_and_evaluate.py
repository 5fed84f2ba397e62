r"""Trains a model and asks it a benchmark, in one process: a cell of scripts/sweep.py.

    .venv/bin/python scripts/train_and_evaluate.py --config=configs/photos.py --workdir=runs/photos \
        --model=runs/photos --benchmark=questions.csv --output=runs/photos/evaluation

The same as scripts/train.py and then scripts/evaluate.py, whose flags it takes; libraries are loaded once, and a TPU is
taken once. Interrupted, the same command goes on, in the training or in the evaluation.
"""

import interrupts  # noqa: F401 - first of all

import functools
import gc
import os

from absl import flags
from ml_collections import ConfigDict

import command_line
import evaluation_flags
import training_flags


def main(config: ConfigDict) -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the loader's threads already keep the cores busy
    from vlm_jax.training.config import check_config

    check_config(config)  # loaded late, and before all else: a mistyped setting should not wait for JAX
    from data_pipeline.evaluation_run import evaluate
    from data_pipeline.evaluation_settings import Evaluation
    from data_pipeline.training_run import run
    from vlm_jax import progress
    from vlm_jax.errors import InputError
    from vlm_jax.evaluation import report

    evaluation = Evaluation(**evaluation_flags.settings())
    if len(flags.FLAGS.model) > 1:
        raise InputError(f"--model is given {len(flags.FLAGS.model)} times; the run that is trained is the one to ask")
    # A finished run is left as it is, and one with other settings is refused.
    if run(config, training_flags.workdir(), may_change=()).stopped:  # which it said, with how to go on
        raise command_line.Stopped
    gc.collect()  # the memory of the training is for the model that is asked
    summary = evaluate(evaluation, progress=functools.partial(progress.shown, unit="question"))
    print(report.closing_lines(summary, evaluation.output))


if __name__ == "__main__":
    command_line.run(main, config=True)
