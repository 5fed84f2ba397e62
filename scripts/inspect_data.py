"""Looks at the data of a run before it costs anything: sizes, shapes of batches, what does not fit, how many steps.

    .venv/bin/python scripts/inspect_data.py --config=configs/photos.py

Takes the settings of scripts/train.py and prints what training would see; nothing is trained and nothing written.
"""

import interrupts  # noqa: F401 - first of all

import functools

from absl import flags
from ml_collections import ConfigDict

import command_line
from vlm_jax import terminal

flags.DEFINE_integer("sample", 0, "look at so many examples only, drawn as training would; 0: at all of them")


def main(config: ConfigDict) -> None:
    from vlm_jax.errors import InputError, gathered
    from vlm_jax.training.config import check_config

    check_config(config)
    sample = flags.FLAGS.sample
    if sample < 0:
        raise InputError(f"--sample={sample}: wanted 0 or more")
    from data_pipeline import inspection
    from data_pipeline.dataset import open_dataset
    from vlm_jax.checkpoint import starting_model
    from vlm_jax.processing import visual_tokens
    from vlm_jax.processing.image_cache import ImageCache
    from vlm_jax.training.log import Console

    console = Console()
    tokens = visual_tokens.of_settings(config.model, config.train.seed)
    described = starting_model.described(config.model.path, config.assemble.to_dict(), tokens.limits, tokens.budget)
    with described as (model, processor):
        # Errors are counted and shown here, whatever training would do about them.
        data = {**config.data.to_dict(), "on_error": "drop", "workers": 0}
        if data["too_large"] == "error":
            data["too_large"] = "drop"
        dataset = open_dataset(
            data,
            processor,
            seed=config.train.seed,
            complete=not sample,
            sample=sample,
            cache=ImageCache.of_user(say=console.say),
            progress=functools.partial(console.progress, "measuring"),
            schedule=tokens.schedule,
            say=console.say,
        )
        errors = list(dataset.errors)
        with gathered(errors):
            dataset.choose_buckets(config.batch.to_dict(), model, rows_multiple=1)
            print(terminal.safe(inspection.report(dataset, config)))
        if errors:
            raise InputError(errors)


if __name__ == "__main__":
    command_line.run(main, config=True)
