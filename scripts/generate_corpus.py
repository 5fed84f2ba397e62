"""Makes a corpus: images and records that scripts/train.py trains on and scripts/evaluate.py asks.

    .venv/bin/python scripts/generate_corpus.py --config=configs/corpus/objects.py --output=runs/objects
    .venv/bin/python scripts/generate_corpus.py --config=configs/corpus/thai_culture.py --output=runs/thai --dry_run

Writes images/ and one records file a split. The same command again finishes what was interrupted, and does nothing
where all is done: no answer of a teacher is paid for twice.
"""

import interrupts  # noqa: F401 - first of all

import functools
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

import command_line

flags.DEFINE_string("output", None, "folder of the corpus", required=True)
flags.DEFINE_bool("dry_run", False, "ask nothing; say how many calls there would be, with tokens and cost")
flags.DEFINE_float("max_cost", None, "stop before all calls together cost more dollars than this")
flags.DEFINE_integer("preview", 0, "so many topics through all stages, into the folder preview, to be looked at first")
flags.DEFINE_string("until", "", "the last stage to run: topics | probes | known | facts | support | …")
flags.DEFINE_string("restart_from", "", "the stage from which on settings may differ from those of the folder")


flags.DEFINE_string("shard", "", "0/4: the first of four machines with one --output; then one run without it")
_STAGES = ("shard", "until", "restart_from", "preview", "dry_run", "max_cost")


def main(config: ConfigDict) -> None:
    from data_pipeline.corpus import generating
    from data_pipeline.corpus.drawn import offline
    from data_pipeline.corpus.settings import KIND
    from data_pipeline.teachers.sending import Stopped
    from vlm_jax import InputError, progress, terminal

    settings, output = config.to_dict(), Path(flags.FLAGS.output)
    options = {name: flags.FLAGS[name].value for name in _STAGES}
    if "corpus" not in config:
        raise InputError("--config is that of a training, or of something else; wanted one such as in configs/corpus/")
    if config.corpus == KIND:
        try:
            print(generating.generate(output, settings, generating.Options(**options)))
        except Stopped as stopped:
            terminal.say(str(stopped))
            raise command_line.Stopped from None
        return
    if wrong := [f"--{name}" for name in _STAGES if flags.FLAGS[name].present]:
        raise InputError(f"{', '.join(wrong)}: config.corpus={config.corpus} is drawn here, without stages or teachers")
    shown = functools.partial(progress.shown, unit="view")
    made = offline.make(output, settings.pop("corpus"), settings, progress=shown)
    print(offline.closing_line(output, *made))


if __name__ == "__main__":
    command_line.run(main, config=True)
