"""Makes a corpus: images and records that scripts/train.py trains on and scripts/evaluate.py asks.

    .venv/bin/python scripts/generate_corpus.py --config=configs/corpus/objects.py --output=runs/objects

Writes images/ and one records file a split. The same command again finishes what was interrupted, and does nothing
where all is done.
"""

import interrupts  # noqa: F401 - first of all

import sys
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

import command_line

flags.DEFINE_string("output", None, "folder of the corpus", required=True)


def main(config: ConfigDict) -> None:
    from tqdm import tqdm

    from data_pipeline.corpus import offline
    from vlm_jax.errors import InputError

    settings = config.to_dict()
    kind = settings.pop("corpus")
    errors = []
    if kind not in offline.MAKERS:
        errors.append(f"config.corpus is {kind!r}; known are {', '.join(offline.MAKERS)}")
    least = {"factor": 1, "held_out": 0, "seed": 0, "train": 0, "drill": 0, "things": 0, "finding": 0}
    least["side"] = 28
    errors += [
        f"config.{key} is {settings[key]}; wanted at least {low}"
        for key, low in least.items()
        if key in settings and settings[key] < low
    ]
    if errors:
        raise InputError(errors)

    def progress(images, total):
        return tqdm(images, total=total, unit="view", disable=not sys.stderr.isatty())

    output = Path(flags.FLAGS.output)
    records, drawn = offline.make(output, kind, settings, progress=progress)
    counts = ", ".join(f"{count:,} in {split}.jsonl" for split, count in records.items())
    print(f"{output}: {counts}" + ("" if drawn else " (made before)"))


if __name__ == "__main__":
    command_line.run(main, config=True)
