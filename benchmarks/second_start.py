"""What a second start on the same images saves: seconds before compiling, and how many images are opened.

    .venv/bin/python benchmarks/second_start.py --images=20000

Draws so many JPEGs and a table of questions about them, and opens the data of a run in a process of its own, as
scripts/train.py does before it compiles: for the first time, again, and again after one image was replaced. The cache
is in the folder of the benchmark, and the files are in the page cache for all three.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import PIL.Image

ROOT = Path(__file__).resolve().parents[1]
BASE = ROOT / "vlm_jax" / "assets" / "tiny_base"
SIZE = (640, 480)


def draw(job: tuple[Path, int]) -> None:
    path, seed = job
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
    PIL.Image.fromarray(coarse).resize(SIZE, PIL.Image.Resampling.BICUBIC).save(path, quality=85)


def make(folder: Path, count: int) -> Path:
    (folder / "images").mkdir()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(draw, [(folder / "images" / f"{n}.jpg", n) for n in range(count)], chunksize=256))
    with (folder / "table.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("image", "question", "answer"))
        table.writerows((f"images/{n}.jpg", f"What is it, {n % 50}?", "A thing.") for n in range(count))
    return folder / "table.csv"


def start(table: Path) -> None:
    """The data of a run, as far as it is opened before the step is compiled."""
    import vlm_jax.processing.images as images
    from data_pipeline import check
    from data_pipeline.dataset import open_dataset
    from data_pipeline.measured import MeasuredSets
    from vlm_jax.checkpoint import description
    from vlm_jax.processing.image_cache import ImageCache
    from vlm_jax.training.config import default_config

    opened, real, real_header = [0], images.with_image, images.header

    def counted(source, *more):
        opened[0] += 1
        return real(source, *more)

    def counted_header(source):
        opened[0] += 1
        return real_header(source)

    check.with_image, check.header = counted, counted_header
    caches = {"cache": ImageCache.of_user(say=print), "sets": MeasuredSets.of_user()}
    begun = time.perf_counter()
    config = default_config()
    model = description.read_config(BASE)
    processor = description.read_processor(BASE, model, (4, 64))
    processor.most_tokens = config.batch.sequence_length
    settings = {**config.data.to_dict(), "path": str(table), "decode_check_up_to": 10**9}
    dataset = open_dataset(settings, processor, seed=0, **caches)
    assert not dataset.errors, dataset.errors[:3]
    dataset.choose_buckets(config.batch.to_dict(), model, rows_multiple=1)
    fingerprint = dataset.fingerprint()
    dataset.records()
    plan = dataset.plan(steps=0, epochs=1)
    steps = len(plan)
    print(json.dumps({"seconds": time.perf_counter() - begun, "opened": opened[0], "steps": steps, "id": fingerprint}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000, help="how many (default: %(default)s)")
    parser.add_argument("--start", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.start:
        start(options.start)
        return
    with tempfile.TemporaryDirectory() as folder:
        table = make(Path(folder), options.images)
        time.sleep(2.5)  # a file that was written a moment ago is not kept
        environment = {**os.environ, "XDG_CACHE_HOME": folder, "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, __file__, f"--start={table}"]

        def once(name: str) -> dict:
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, cwd=ROOT)
            found = json.loads(done.stdout.splitlines()[-1])
            print(f"{name:32} {found['seconds']:7.1f} s before compiling, {found['opened']:6,} images opened")
            return found

        print(f"{options.images:,} JPEGs of {SIZE[0]} × {SIZE[1]}, {os.cpu_count()} cores")
        first, second = once("first start"), once("second start")
        draw((Path(folder) / "images" / "7.jpg", 10**6))
        third = once("after one image was replaced")
        assert first["steps"] == second["steps"] and first["id"] == second["id"] and third["opened"] == 1
        print(f"the second start takes {second['seconds'] / first['seconds']:.0%} of the first")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
