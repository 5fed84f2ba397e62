"""Whether training waits for its data: the quickstart's steps with the live pipeline and on batches held in memory.

    make quickstart && .venv/bin/python benchmarks/live_pipeline.py

Trains the quickstart's model on the quickstart's corpus in turns: --steps steps whose images are read, decoded, laid
out and sent while training runs, none of them seen before, then as many on batches that were loaded before the clock
started. Prints steps a second of each turn, medians, and their ratio.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import jax
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from configs.quickstart import get_config  # noqa: E402
from data_pipeline.dataset import open_dataset  # noqa: E402
from vlm_jax.checkpoint import description, hf_folder  # noqa: E402
from vlm_jax.parallel import mesh as meshes  # noqa: E402
from vlm_jax.training.trainer import Trainer  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100, help="steps of a turn (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=5, help="turns of each (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="processes that decode (default: threads)")
    options = parser.parse_args()
    config = get_config()
    config.data.workers, config.data.cache_mb = options.workers, 0  # nothing is kept: every image is decoded anew
    base = Path(config.model.path)
    model = description.read_config(base)
    processor = description.read_processor(
        base, model, (config.model.min_visual_tokens, config.model.max_visual_tokens)
    )
    data = open_dataset(config.data.to_dict(), processor, seed=0)
    if data.errors:
        sys.exit("\n".join(data.errors))
    (bucket,) = data.choose_buckets(config.batch.to_dict(), model, rows_multiple=1)
    count = options.turns * options.steps
    plan = data.plan(steps=2 * count, epochs=0)
    live = data.batches(plan, threads=config.data.threads)
    trainer = Trainer(config, model, meshes.make_mesh(meshes.MeshShape(), jax.devices()[:1]), 2 * count)
    step = trainer.compile(data.batch_shapes()[0])
    state = trainer.start(hf_folder.read_parameters(base, model, place=trainer.place))

    def turn(batches, state):
        """Steps a second, and the state after them; as the training loop, one step is under way while one is read."""
        trainable, optimizer_state, frozen = state
        begun, pending = time.perf_counter(), None
        for host in batches:
            batch = meshes.to_devices(host, trainer.mesh)
            trainable, optimizer_state, metrics = step(trainable, optimizer_state, frozen, batch, np.int32(0))
            if pending is not None:
                float(pending["loss"])
            pending = metrics
        float(pending["loss"])
        return len(batches) / (time.perf_counter() - begun), (trainable, optimizer_state, frozen)

    class Taking:
        """The next batches of the live pipeline, one by one."""

        def __len__(self):
            return options.steps

        def __iter__(self):
            return (next(live) for _ in range(options.steps))

    rates: dict[str, list[float]] = {"live": [], "held": []}
    for number in range(options.turns):
        rate, state = turn(Taking(), state)
        rates["live"].append(rate)
        batches = list(Taking())
        time.sleep(3)  # the pipeline fills its buffer, and rests
        rate, state = turn(batches, state)
        rates["held"].append(rate)
        print(f"turn {number + 1}: live {rates['live'][-1]:.2f}, held {rate:.2f} steps/s", flush=True)
    data.images.close()
    live, memory = (statistics.median(rates[name]) for name in ("live", "held"))
    print(f"medians: live {live:.2f}, held in memory {memory:.2f} steps/s, ratio {live / memory:.3f}")


if __name__ == "__main__":
    main()
