r"""Trains a vision-language model on images and questions, and saves checkpoints that go on, convert and answer.

    .venv/bin/python scripts/train.py --config=configs/photos.py --workdir=runs/photos

The run folder, here or at a gs:// address, is made when it is not there. The same command on the same folder goes on
from its last checkpoint, after Ctrl-C, a kill, or a power cut. On several hosts, start it on each (docs/training.md).
Any setting is overridden as --config.section.name=value:

    .venv/bin/python scripts/train.py --config=configs/photos.py --workdir=runs/mine \
        --config.model.path=Qwen/Qwen2.5-VL-3B-Instruct --config.data.path=mine.csv
"""

import interrupts  # noqa: F401 - first of all

import os

from ml_collections import ConfigDict

import command_line
import training_flags


def main(config: ConfigDict) -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the loader's threads already keep the cores busy
    from vlm_jax.training.config import check_config

    check_config(config)  # loaded late, and before all else: a mistyped setting should not wait for JAX
    from data_pipeline.training_run import run
    from vlm_jax import terminal
    from vlm_jax.parallel import hosts

    result = run(config, training_flags.workdir())
    if result.stopped:  # which it said, with how to go on
        raise command_line.Stopped
    if hosts.is_first():
        ask = f"{command_line.program('chat')} --model={result.workdir} --image=IMAGE --question=QUESTION"
        terminal.say(f"{'done: ' if result.trained else ''}ask it with  {ask}")


if __name__ == "__main__":
    command_line.run(main, config=True)
