r"""Trains and evaluates every cell of a grid, into one table and one plot.

    .venv/bin/python scripts/sweep.py --config=configs/ablations/scaling.py --output=runs/scaling \
        --config.set.data.path=mine.jsonl --config.benchmark=held_out.jsonl

A cell is a run of scripts/train_and_evaluate.py in a folder of its own, --output/cells/NAME, with its log. table.md,
table.csv, results.jsonl and plot.png are made anew whenever a cell is finished. Interrupted or killed, the same command
goes on: what is finished is not run again. A cell that fails is told with the end of its log, and the others go on.
Seeds and labels may be added later; cells that were made with other settings are refused.
"""

import interrupts  # noqa: F401 - first of all

import os
import shlex
import sys
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

import command_line
from vlm_jax.errors import InputError

flags.DEFINE_string("output", None, "folder of all that is made", required=True)
flags.DEFINE_boolean("dry_run", False, "print the cells and their commands, and run nothing")


def main(config: ConfigDict) -> None:
    from data_pipeline import sweep_cells, sweep_run

    output = Path(flags.FLAGS.output)
    script = Path(__file__).resolve().with_name("train_and_evaluate.py")
    cell = {"program": [sys.executable, os.path.relpath(script)], "load": command_line.load_config}
    if flags.FLAGS.dry_run:
        for folder in sweep_cells.folders_of(config, output, **cell):
            print(f"{folder.cell.title} ({folder.progress})\n  {shlex.join(folder.command)}")
        return
    result = sweep_run.run(config, output, **cell)
    if result.stopped:  # which it said, with how to go on
        raise command_line.Stopped
    print(result.table, end="")
    if failed := result.failed:
        count = f"{len(failed)} of {len(result.folders)} cells failed; the same command tries them again"
        raise InputError([count, *(f"{name}: {reason}" for name, reason in failed.items())])


if __name__ == "__main__":
    command_line.run(main, config=True)
