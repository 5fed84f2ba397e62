"""Trains a vision-language model on pictures and questions, and saves checkpoints that go on, convert and answer.

    scripts/train.py --config=configs/photos.py --workdir=runs/photos

The work folder is made when it is not there. The same command on the same folder goes on from its last checkpoint,
after Ctrl-C, a kill, or a power cut. Any setting is overridden as --config.section.name=value:

    scripts/train.py --config=configs/photos.py --workdir=runs/mine \
        --config.model.path=Qwen/Qwen2.5-VL-3B-Instruct --config.data.path=mine.csv
"""

import hashlib
import json
import os
import sys
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

import command_line

flags.DEFINE_string("workdir", None, "folder of the run: checkpoints, metrics, settings", required=True)


def main(config: ConfigDict) -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the loader's threads already keep the cores busy
    from vlm_jax.training.config import check_config

    check_config(config)
    workdir = Path(flags.FLAGS.workdir)

    import jax

    from vlm_jax.parallel import mesh as meshes

    enable_compilation_cache(jax)
    say(f"running on {meshes.describe_devices()}")
    if warning := meshes.idle_accelerator():
        say(f"WARNING: JAX runs on the CPU although {warning}")

    from data_pipeline import loader
    from data_pipeline.packing import RowPlan
    from vlm_jax.checkpoint import hf_folder, run_folder
    from vlm_jax.checkpoint.source import resolve
    from vlm_jax.training.loop import Trainer, check_resumable

    # A run that goes on needs nothing but its own folder.
    done = run_folder.latest_step(workdir)
    source = resolve(config.model.path) if done is None else workdir / "assets"
    if run_folder.is_run_folder(source):
        held, start, model, _ = run_folder.open_run(source)

        def read(place):
            return {path: place(path, array) for path, array in held.restore_parameters(start, model).items()}

        source = source / "assets"
    else:
        model = hf_folder.read_config(source)

        def read(place):
            return hf_folder.read_parameters(source, model, place=place)

    budget = (config.model.min_visual_tokens, config.model.max_visual_tokens)
    processor = hf_folder.read_processor(source, model, budget)

    dataset = loader.read_dataset(
        config.data.path,
        processor,
        format=config.data.format,
        image_root=config.data.image_root or None,
        decode=config.data.decode_check,
    )
    batch = config.batch
    capacity = loader.row_capacity(dataset, batch.tokens, batch.patches, batch.supervised, model.vision.block_slots)
    plan = RowPlan(dataset.sizes, capacity, seed=config.train.seed, shuffle=config.data.shuffle)
    if config.train.steps:
        plan.extend(rows=config.train.steps * batch.rows)
    else:
        plan.extend(epochs=config.train.epochs, multiple=batch.rows)
    steps = len(plan) // batch.rows
    tokens, _, _ = dataset.sizes.sum(axis=0)
    padding, patch_padding = plan.padding()
    say(
        f"{len(dataset.records)} examples, {dataset.pictures} pictures, {tokens:,} tokens; {steps} steps of "
        f"{batch.rows} × {capacity.tokens} tokens and {capacity.patches} patches "
        f"({padding:.0%} and {patch_padding:.0%} padding)"
    )

    mesh = meshes.make_mesh(meshes.MeshShape(**config.mesh))
    meshes.check_rows(mesh, batch.rows)
    if jax.process_count() > 1 and batch.rows % jax.process_count():
        command_line.fail(f"batch.rows {batch.rows} does not divide over {jax.process_count()} processes")
    trainer = Trainer(config, model, mesh, steps)
    trained = sum(trainer.abstract[path].size for path in trainer.trainable)
    total = sum(leaf.size for leaf in trainer.abstract.values())
    say(f"training {trained:,} of {total:,} parameters, computing in {trainer.dtype}")

    batches = loader.make_loader(
        dataset,
        processor,
        plan,
        capacity,
        rows=batch.rows,
        patch_values=model.vision.patch_values,
        threads=config.data.threads,
        cache_bytes=config.data.cache_mb * 2**20,
        shard=loader.Shard(jax.process_index(), jax.process_count()),
    )
    settings = run_folder.settings_json(
        processor.images,
        resume={
            **{
                f"{section}.{key}": value
                for section in ("batch", "train", "optimizer")
                for key, value in json.loads(config[section].to_json()).items()
            },
            **dict(json.loads(json.dumps(model_settings(config))).items()),
            "data (its records and pictures)": fingerprint(dataset),
        },
    )
    checkpoints = run_folder.Checkpoints(workdir, keep=config.checkpoint.keep)
    if done is None:
        parameters = read(trainer.place)
        run_folder.write_assets(workdir, source)
        run_folder.write_json(workdir / "config.json", json.loads(config.to_json()))
        state = trainer.start(parameters)
    else:
        check_resumable(checkpoints.settings(done)["resume"], settings["resume"], workdir)
        state = trainer.restore(checkpoints, done, batches)
        say(f"going on from step {done}")
    reached = trainer.run(workdir, batches, state, checkpoints=checkpoints, settings=settings, done=done or 0)
    checkpoints.close()
    if reached == steps:
        say(f"done: ask it with  scripts/chat.py --model={workdir} --image=PICTURE --question=QUESTION")
    else:
        raise KeyboardInterrupt


def model_settings(config: ConfigDict) -> dict:
    """Settings of the model and the data that change what is computed."""
    keys = ("model.dtype", "model.min_visual_tokens", "model.max_visual_tokens", "model.attention", "data.shuffle")
    return {key: config[key.split(".")[0]][key.split(".")[1]] for key in keys}


def fingerprint(dataset) -> str:
    """What identifies the data a run was started with."""
    digest = hashlib.sha256(dataset.sizes.tobytes())
    for record in dataset.records:
        digest.update(repr((record.id, record.messages)).encode())
    return digest.hexdigest()[:16]


def enable_compilation_cache(jax) -> None:
    """Keeps compiled programs between runs, where the environment does not say otherwise."""
    if jax.config.jax_compilation_cache_dir is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vlm_jax" / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(cache))


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    command_line.run(main, config=True)
