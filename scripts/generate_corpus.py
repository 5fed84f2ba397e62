"""Makes a corpus: images and records that scripts/train.py trains on and scripts/evaluate.py asks.

    .venv/bin/python scripts/generate_corpus.py --config=configs/corpus/objects.py --output=runs/objects

Writes images/ and one records file a split. The same command again finishes what was interrupted, and does nothing
where all is done.
"""

import interrupts  # noqa: F401 - first of all

import functools
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

import command_line

flags.DEFINE_string("output", None, "folder of the corpus", required=True)


def main(config: ConfigDict) -> None:
    from data_pipeline.corpus import offline
    from vlm_jax import progress

    settings, output = config.to_dict(), Path(flags.FLAGS.output)
    made = offline.make(
        output, settings.pop("corpus"), settings, progress=functools.partial(progress.shown, unit="view")
    )
    print(offline.closing_line(output, *made))


if __name__ == "__main__":
    command_line.run(main, config=True)
