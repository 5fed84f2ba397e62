r"""A large model trains a small one on images without labels: it writes questions, and keeps what the small one lacks.

    .venv/bin/python scripts/align_parity.py --config=configs/parity/images.py --workdir=runs/aligned \
        --config.images.path=photographs --config.training.model.path=Qwen/Qwen2.5-VL-3B-Instruct
    .venv/bin/python scripts/align_parity.py --config=configs/parity/textvqa.py --workdir=runs/text --dry_run

annotate (the teacher writes) → identify (both answer; kept where the student is wrong and the teacher right) → level
(the student is trained on it, and on controls of the same size) → evaluate (before and after). The same command again
finishes what was interrupted: no answer of a teacher is paid for twice. docs/parity.md tells what comes of it.
"""

import interrupts  # noqa: F401 - first of all

import os
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

import command_line

flags.DEFINE_string("workdir", None, "folder of the alignment", required=True)
flags.DEFINE_string("until", "", "the last stage: annotate | identify | level | evaluate; all where it is not given")
flags.DEFINE_bool("dry_run", False, "ask nothing; say how many calls there would be, with tokens and cost")
flags.DEFINE_float("max_cost", None, "stop before all calls together cost more dollars than this")


def main(config: ConfigDict) -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the loader's threads already keep the cores busy
    from vlm_jax import InputError, terminal

    if "parity" not in config:
        raise InputError("--config is that of a training, or of something else; wanted one such as in configs/parity/")
    from data_pipeline.parity import aligning
    from data_pipeline.parity.level import TrainingStopped
    from data_pipeline.teachers.sending import Stopped

    until, dry_run, max_cost = (flags.FLAGS[name].value for name in ("until", "dry_run", "max_cost"))
    options = aligning.Options(until, dry_run, max_cost)
    try:
        print(aligning.align(Path(flags.FLAGS.workdir), config, options))
    except TrainingStopped:
        raise command_line.Stopped from None
    except Stopped as stopped:
        terminal.say(str(stopped))
        raise command_line.Stopped from None


if __name__ == "__main__":
    command_line.run(main, config=True)
