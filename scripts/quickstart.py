"""A model learns what it did not know: corpus, the base's answers, training, answers again, export, a table.

    make quickstart

Every stage is what one of the other scripts does, whose command is printed; it is left out once it is done: the same
command goes on after an interruption, and done twice it changes nothing. --output is the folder of it all.
"""

import interrupts  # noqa: F401 - first of all

import os
from pathlib import Path

from absl import flags

import command_line
from vlm_jax import terminal

flags.DEFINE_string("output", "runs/quickstart", "folder of all that is made")
flags.DEFINE_multi_string("objects", [], "a setting of the corpus, as --objects=factor=5")
flags.DEFINE_multi_string("scenes", [], "a setting of the plain scenes, as --scenes=drill=800")
flags.DEFINE_multi_string("train", [], "a setting of the training, as --train=train.seed=1")


def main() -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the loader's threads already keep the cores busy
    from data_pipeline import quickstart_report, quickstart_run

    output = Path(flags.FLAGS.output)
    changed = {name: overrides(flags.FLAGS[name].value) for name in ("objects", "scenes", "train")}
    quickstart = quickstart_run.Quickstart(output, **changed)
    result = quickstart_run.run(quickstart, load=command_line.load_config)
    if result.stopped:  # which it said, with how to go on
        raise command_line.Stopped
    print(quickstart_report.table(output))
    memory = f"; at most {result.peak / 2**30:.1f} GB of memory" if result.done else ""
    seconds = sum(result.seconds.values())
    terminal.say(f"\nall stages took {seconds:.0f} s on {os.cpu_count()} cores{memory}\n")
    print(quickstart_report.next_steps(output))


def overrides(settings: list[str]) -> list[tuple[str, str | None]]:
    """Settings as `--config.KEY=VALUE` has them behind the first dot."""
    pairs = (setting.partition("=") for setting in settings)
    return [(key, text if sign else None) for key, sign, text in pairs]


if __name__ == "__main__":
    command_line.run(main)
