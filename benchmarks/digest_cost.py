"""What the digests of a checkpoint cost a save and a load, at the shapes of a published size.

    .venv/bin/python benchmarks/digest_cost.py --preset=3b --folder=/disk

Random bfloat16 weights (3B: 7.5 GB in memory, and twice that on the disk of --folder) are saved and loaded as a run
saves and loads them, with digests and without in turns, --rounds times each. A load reads every parameter and lets go
of it; files are in the page cache where there is room for them, which is the hard case: from a disk a load takes longer
and the digests do not. Prints the medians and what the digests add; exit status 1 where that is more than 10 %.
"""

import argparse
import contextlib
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np

from vlm_jax.checkpoint import digests, run_folder
from vlm_jax.models.parameters import abstract_parameters
from vlm_jax.models.presets import PRESETS
from vlm_jax.processing.image_processors.dynamic_resolution import DynamicResolution

LIMIT = 0.10


def weights(preset: str) -> dict[str, jax.Array]:
    """Random bits with the exponents of small numbers: as good as incompressible, as trained weights are."""
    rng, weights = np.random.default_rng(0), {}
    for path, leaf in abstract_parameters(PRESETS[preset]).items():
        bits = np.frombuffer(rng.bytes(2 * leaf.size), np.uint16)
        weights[path] = jax.device_put(((bits & 0x81FF) | 0x3C00).view(jax.numpy.bfloat16).reshape(leaf.shape))
    return weights


@contextlib.contextmanager
def without():
    with mock.patch.object(digests, "write", lambda folder: None):
        yield


def save(folder: Path, weights: dict[str, jax.Array]) -> float:
    shutil.rmtree(folder, ignore_errors=True)
    os.sync()
    begun = time.perf_counter()
    checkpoints = run_folder.Checkpoints(folder)
    checkpoints.save(0, weights, run_folder.settings_json(DynamicResolution()))
    checkpoints.wait()
    seconds = time.perf_counter() - begun
    checkpoints.close()
    return seconds


def load(folder: Path) -> float:
    digests._digest.cache_clear()  # a file is read for its digest once a process
    begun = time.perf_counter()
    checkpoints = run_folder.Checkpoints(folder, read_only=True)
    for _path, array in checkpoints.each_parameter(0, None):
        array.block_until_ready()
    seconds = time.perf_counter() - begun
    checkpoints.close()
    return seconds


def one_round(preset: str, parent: Path | None) -> dict[str, float]:
    """Seconds of each; in a process of its own, which gives all its memory back."""
    arrays = weights(preset)
    with tempfile.TemporaryDirectory(dir=parent, prefix="vlm-jax-digests-") as folder:
        run, seconds = Path(folder) / "run", {}
        with without():
            seconds["save"] = save(run, arrays)
            seconds["load"] = load(run)
        seconds["save with"] = save(run, arrays)
        seconds["load with"] = load(run)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="3b", choices=sorted(PRESETS), help="(default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=None, help="of the disk to write to (default: the system's own)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    options = parser.parse_args()
    size = 2 * sum(leaf.size for leaf in abstract_parameters(PRESETS[options.preset]).values())
    print(f"{options.preset}: {size / 1e9:.2f} GB, {os.cpu_count()} cores", flush=True)
    rounds = []
    for _ in range(options.rounds):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rounds.append(pool.apply(one_round, (options.preset, options.folder)))
        print("  ".join(f"{name} {seconds:.1f} s" for name, seconds in rounds[-1].items()), flush=True)
    medians = {name: statistics.median(seconds[name] for seconds in rounds) for name in rounds[0]}
    added = {what: medians[f"{what} with"] / medians[what] - 1 for what in ("save", "load")}
    for what, share in added.items():
        print(f"{what}: {medians[what]:.1f} s without, {medians[what + ' with']:.1f} s with digests: {share:+.1%}")
    sys.exit(int(max(added.values()) > LIMIT))


if __name__ == "__main__":
    main()
