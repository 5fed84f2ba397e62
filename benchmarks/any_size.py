"""Training on images of hundreds of different sizes: how often the step compiles, and how much of a batch is unused.

    .venv/bin/python benchmarks/any_size.py

Draws the images into a temporary folder, trains a small model on them for --batches batches in several shapes, and
counts compilations by JAX's own events. Prints a table; the exit status is 1 where a shape was compiled twice.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import PIL.Image

from data_pipeline.dataset import open_dataset
from vlm_jax.checkpoint import description, hf_folder
from vlm_jax.models.config import VLMConfig
from vlm_jax.models.parameters import multiplications
from vlm_jax.parallel import mesh as meshes
from vlm_jax.processing.example import Size
from vlm_jax.training.config import default_config
from vlm_jax.training.trainer import Trainer

KINDS = {"tokens": "token slots", "patches": "patch slots", "supervised": "supervised positions"}
BASE = Path(__file__).resolve().parents[1] / "vlm_jax" / "assets" / "tiny_base"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=500, help="batches to train on (default: %(default)s)")
    parser.add_argument("--images", type=int, default=500, help="images, each of another size")
    parser.add_argument("--tokens", type=int, default=1024, help="tokens a row (default: %(default)s)")
    parser.add_argument("--context", type=int, default=2048, help="tokens of the longest example")
    parser.add_argument("--buckets", type=int, default=3, help="shapes of batch at most (default: %(default)s)")
    parser.add_argument("--visual_tokens", type=int, default=1024, help="of an image at most (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="processes that decode")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = draw(Path(folder), options.images)
        measure(path, options)


def draw(folder: Path, count: int) -> Path:
    """A table of so many images, sides of 60 to 1,400 pixels, no two of one size, with questions of all lengths."""
    rng, chooser = np.random.default_rng(0), random.Random(0)
    sizes: set[tuple[int, int]] = set()
    while len(sizes) < count:
        area, ratio = np.exp(rng.uniform(np.log(80**2), np.log(1000**2))), np.exp(rng.normal(0, 0.4))
        sizes.add((max(60, int((area * ratio) ** 0.5)), max(60, int((area / ratio) ** 0.5))))
    lines = []
    for number, (width, height) in enumerate(sorted(sizes, key=lambda size: chooser.random())):
        coarse = rng.integers(0, 256, (6, 6, 3)).astype(np.uint8)
        image = PIL.Image.fromarray(coarse).resize((width, height), PIL.Image.Resampling.BICUBIC)
        image.save(folder / f"{number}.jpg", quality=80)
        words = " ".join(
            chooser.choices(("red", "blue", "green", "large", "small", "near", "far"), k=chooser.randint(1, 90))
        )
        lines.append(json.dumps({"image": f"{number}.jpg", "question": "What is it?", "answer": words}))
    (folder / "table.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder / "table.jsonl"


def measure(path: Path, options: argparse.Namespace) -> None:
    config = default_config()
    config.model.path, config.model.max_visual_tokens = str(BASE), options.visual_tokens
    config.data.path, config.data.workers, config.data.cache_mb = str(path), options.workers, 64
    config.batch.update(
        rows=2, sequence_length=options.tokens, max_sequence_length=options.context, buckets=options.buckets
    )
    config.train.steps, config.train.remat = options.batches, "none"
    model: VLMConfig = description.read_config(BASE)
    processor = description.read_processor(BASE, model, (4, config.model.max_visual_tokens))
    data = open_dataset(config.data.to_dict(), processor, seed=0)
    assert not data.errors, data.errors
    buckets = data.choose_buckets(config.batch.to_dict(), model, rows_multiple=1)
    plan = data.plan(steps=options.batches, epochs=0)
    batches = data.batches(plan, threads=2)
    trainer = Trainer(config, model, meshes.make_mesh(meshes.MeshShape(), jax.devices()[:1]), options.batches)
    place = trainer.place
    state = trainer.start(hf_folder.read_parameters(BASE, model, place=place))

    compiled: list[float] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: compiled.append(seconds) if event.endswith("backend_compile_duration") else None
    )
    steps = {}
    for bucket, shapes in zip(buckets, data.batch_shapes(), strict=True):
        steps[bucket.rows, bucket.size] = trainer.compile(shapes)
    at_first, seen, used = len(compiled), Counter(), Counter()
    trainable, optimizer_state, frozen = state
    begun = time.perf_counter()
    for number, host in enumerate(batches):
        key = key_of(host)
        seen[key] += 1
        used[key, "tokens"] += int((host.segment_ids > 0).sum())
        used[key, "patches"] += int((host.image_ids > 0).sum())
        used[key, "supervised"] += int((host.loss_weights > 0).sum())
        batch = meshes.to_devices(host, trainer.mesh)
        trainable, optimizer_state, metrics = steps[key](trainable, optimizer_state, frozen, batch, np.int32(number))
        if sys.stderr.isatty():
            print(f"\r{number + 1}/{options.batches}", end="", file=sys.stderr)
    loss = float(metrics["loss"])
    seconds = time.perf_counter() - begun
    after = len(compiled) - at_first

    weights = np.array(multiplications(model))
    lines = [f"{options.batches} batches of {options.images} sizes, {seconds:.0f} s, last loss {loss:.2f}"]
    lines.append(
        f"compiled {at_first} times for {len(buckets)} shapes, {after} times more in {options.batches} batches"
    )
    room, filled = np.zeros(3), np.zeros(3)
    for bucket in buckets:
        key, size = (bucket.rows, bucket.size), bucket.size.columns
        here = seen[key] * bucket.rows * np.array(size), np.array([used[key, name] for name in KINDS])
        room, filled = room + here[0], filled + here[1]
        lines.append(f"  {seen[key]:4} of {bucket.rows} × {size[0]} tokens, {size[1]} patch slots: {unused(*here)}")
    weighted = 1 - (filled @ weights) / (room @ weights)
    lines.append(f"all: {unused(room, filled)}; weighted by FLOPs {weighted:.1%} unused")
    print("\n".join(lines))
    if after or at_first != len(buckets):
        sys.exit("a shape was compiled more than once")


def key_of(batch: dict[str, np.ndarray]) -> tuple[int, Size]:
    rows, tokens = batch.tokens.shape
    return rows, Size(tokens, batch.patches.shape[1], batch.loss_index.shape[1])


def unused(room: np.ndarray, filled: np.ndarray) -> str:
    shares = 1 - filled / np.maximum(room, 1)
    return ", ".join(f"{share:.1%} of the {name}" for name, share in zip(KINDS.values(), shares, strict=True))


if __name__ == "__main__":
    main()
