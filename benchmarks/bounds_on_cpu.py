"""Whether the bound that products set to a step's time holds where it can be measured: on this CPU, the 107 M step.

    .venv/bin/python benchmarks/bounds_on_cpu.py [--steps=3]

No maker's figure bounds the CPU of a virtual machine, so its peak is measured: the best of several products of large
float32 matrices. Prints the bound (all products of the traced step over that peak), the fastest step, and their ratio.
On a GPU or TPU the maker's figure is taken instead. Exit status 1 where a step is faster than its bound.
"""

import argparse
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from train_step_data import Settings
from train_step_ours import Side
from vlm_jax.parallel import chips, program_cost
from vlm_jax.parallel import mesh as meshes

SIDE = 4096


def peak() -> tuple[float, str]:
    """FLOP/s of the machine's products, and where that is known from."""
    device = jax.devices()[0]
    if chip := chips.of_kind(device.device_kind):
        return chip.flops, f"{device.device_kind}, by its maker"
    x = jnp.ones((SIDE, SIDE), jnp.float32)
    multiply = jax.jit(jnp.matmul)
    jax.block_until_ready(multiply(x, x))
    return 2 * SIDE**3 / min(
        _seconds(lambda: multiply(x, x)) for _ in range(8)
    ), f"best of 8 products of {SIDE}² float32"


def _seconds(run) -> float:
    begun = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3, help="steps that are timed, behind one that is not")
    options = parser.parse_args()
    device = jax.default_backend()
    settings = Settings("100m", "", "equal", "full", 8, 1, 64, False, device, 0, ("padded",))
    side = Side(settings)
    batch = side.batches[0]
    flops = program_cost.flops(side.trainer.trace(batch).jaxpr)
    per_second, known_from = peak()
    placed = meshes.to_devices(batch, side.trainer.mesh)
    state, seconds = side.state, []
    for number in range(options.steps + 1):
        begun = time.perf_counter()
        *moved, metrics = side.step(*state, placed, np.int32(number))
        jax.block_until_ready((moved, metrics))
        seconds.append(time.perf_counter() - begun)
        state = (*moved, state[2])
    fastest, bound = min(seconds[1:]), flops / per_second
    rows, size = batch.shape
    print(f"{rows} rows of {size.tokens} tokens, {size.patches} patch slots, {flops / 1e12:.3f} TFLOP a step")
    print(f"peak {per_second / 1e9:,.0f} GFLOP/s ({known_from}); bound {bound:.2f} s, fastest step {fastest:.2f} s")
    print(f"the bound is {bound / fastest:.2f} of the fastest step")
    sys.exit(bound > fastest)


if __name__ == "__main__":
    main()
