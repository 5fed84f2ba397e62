"""Looks at the data of a run before it costs anything: sizes, shapes of batches, what does not fit, how many steps.

    .venv/bin/python scripts/inspect_data.py --config=configs/photos.py

Takes the settings of scripts/train.py and prints what training would see; nothing is trained and nothing written.
"""

import interrupts  # noqa: F401 - first of all

import sys
import tempfile
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict
from tqdm import tqdm

import command_line
from vlm_jax import terminal

flags.DEFINE_integer("sample", 0, "look at so many examples only, drawn as training would; 0: at all of them")


def main(config: ConfigDict) -> None:
    from data_pipeline import inspection, loader
    from data_pipeline.ledger import Ledger
    from vlm_jax.checkpoint import assembly, description, run_folder
    from vlm_jax.checkpoint.source import resolve
    from vlm_jax.errors import InputError, gathered
    from vlm_jax.training.config import check_config

    check_config(config)
    sample = flags.FLAGS.sample
    if sample < 0:
        raise InputError(f"--sample={sample}: wanted 0 or more")
    budget = (config.model.min_visual_tokens, config.model.max_visual_tokens)
    with tempfile.TemporaryDirectory() as folder:
        if config.assemble.encoder:
            source = Path(folder) / "model"
            assembly.write(source, assembly.Assembly(**config.assemble))
        else:
            source = resolve(config.model.path)
        if run_folder.is_run_folder(source):
            source = run_folder.assets_of(source)
        model = description.read_config(source)
        processor = description.read_processor(source, model, budget)

    def progress(chunks, total):
        return tqdm(chunks, total=total, desc="measuring", unit="k", leave=False, disable=not sys.stderr.isatty())

    # Faults are counted and shown here, whatever training would do about them.
    data = {**config.data.to_dict(), "on_error": "drop", "workers": 0}
    if data["too_large"] == "error":
        data["too_large"] = "drop"
    dataset, faults = loader.open_dataset(
        data,
        processor,
        ledger=Ledger(),
        complete=not sample,
        seed=config.train.seed,
        sample=sample,
        progress=progress,
    )
    with gathered(faults):
        buckets = loader.row_buckets(dataset, config.batch.to_dict(), model, rows_multiple=1)
        print(terminal.safe(inspection.report(dataset, buckets, config)))
    if faults:
        raise InputError(faults)


if __name__ == "__main__":
    command_line.run(main, config=True)
