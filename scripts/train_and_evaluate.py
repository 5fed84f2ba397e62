"""Trains a model and asks it a benchmark, in one process: a cell of scripts/sweep.py.

    .venv/bin/python scripts/train_and_evaluate.py --config=configs/photos.py --workdir=runs/photos \
        --model=runs/photos --benchmark=questions.csv --output=runs/photos/evaluation

The same as scripts/train.py and then scripts/evaluate.py, whose flags it takes; libraries are loaded once, and a TPU is
taken once. Interrupted, the same command goes on, in the training or in the evaluation.
"""

import interrupts  # noqa: F401 - first of all

import gc

from ml_collections import ConfigDict

import command_line
import evaluate
import train


def main(config: ConfigDict) -> None:
    train.main(config, may_change=())  # leaves a finished run as it is, and refuses one with other settings
    gc.collect()  # the memory of the training is for the model that is asked
    evaluate.main()


if __name__ == "__main__":
    command_line.run(main, config=True)
