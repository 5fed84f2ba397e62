"""Attention as `attend` computes it against softmax-then-product, forward and backward.

    .venv/bin/python benchmarks/attention.py

Prints the median time of each on this machine, both compiled in one process and measured in turns.
"""

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from vlm_jax.models.attention import MASKED, attend
from vlm_jax.parallel.compiler import compiler_options

ROWS, TOKENS, HEADS, KV_HEADS, WIDTH = 8, 256, 6, 2, 32
REPEATS = 30


def softmax_first(q, k, v, visible):
    grouped = q.reshape(*q.shape[:2], KV_HEADS, HEADS // KV_HEADS, WIDTH)
    scores = jnp.einsum("btkgd,bskd->bkgts", grouped, k) * WIDTH**-0.5
    weights = jax.nn.softmax(jnp.where(visible[:, None, None], scores, MASKED), axis=-1)
    return jnp.einsum("bkgts,bskd->btkgd", weights, v).reshape(q.shape)


def main() -> None:
    rng = np.random.default_rng(0)
    q, k, v = (
        jnp.asarray(rng.normal(size=(ROWS, TOKENS, heads, WIDTH)), jnp.float32) for heads in (HEADS, KV_HEADS, KV_HEADS)
    )
    segments = jnp.repeat(jnp.arange(4), TOKENS // 4)
    visible = (segments[:, None] == segments) & (jnp.arange(TOKENS)[:, None] >= jnp.arange(TOKENS))
    visible = jnp.broadcast_to(visible, (ROWS, TOKENS, TOKENS))
    programs = {}
    for name, function in (("softmax first", softmax_first), ("attend", attend)):

        def loss(q, k, v, function=function):
            return jnp.sum(jnp.square(function(q, k, v, visible)))

        for kind, program in (("forward", loss), ("gradient", jax.grad(loss, argnums=(0, 1, 2)))):
            programs[name, kind] = jax.jit(program, compiler_options=compiler_options()).lower(q, k, v).compile()
    times = {key: [] for key in programs}
    for _ in range(REPEATS):
        for key, program in programs.items():
            begun = time.perf_counter()
            jax.block_until_ready(program(q, k, v))
            times[key].append(1e3 * (time.perf_counter() - begun))
    print(
        f"{jax.devices()[0].device_kind}, float32, {ROWS} rows × {TOKENS} tokens, {HEADS}/{KV_HEADS} heads of {WIDTH}"
    )
    for kind in ("forward", "gradient"):
        first, ours = (statistics.median(times[name, kind]) for name in ("softmax first", "attend"))
        print(f"{kind:9} softmax first {first:6.1f} ms   attend {ours:6.1f} ms   ratio {first / ours:.2f}")


if __name__ == "__main__":
    main()
