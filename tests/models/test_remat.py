"""What is kept and what is computed again: the same gradients, and fewer products the more is kept."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny_models import PHOTOS, assistant, save_tiny, user
from vlm_jax.inference.loading import load
from vlm_jax.models.fused_attention import fused
from vlm_jax.models.remat import BY_RECOMPUTATION, POLICIES
from vlm_jax.parallel.program_cost import flops
from vlm_jax.processing.example import Size
from vlm_jax.processing.rows import RowSpec, assemble, stack
from vlm_jax.training.step import make_loss

COMPILED = ("none", "products", "attention", "full")


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """{policy: a traced step's gradients, to be compiled}, and what they are given."""
    folder = tmp_path_factory.mktemp("model")
    save_tiny(folder, family="qwen3_vl", layers=2, depth=2, global_blocks=(1,), max_visual_tokens=16)
    model = load(folder, dtype="float32")
    messages = [user("What is the cat called?", str(PHOTOS / "chelsea.jpg")), assistant("Chelsea")]
    batch = stack([assemble([model.encode(messages)], RowSpec(Size(96, 64, 16), model.config.vision.patch_dim, 4))])
    found = {}
    for remat in POLICIES:
        if remat == "offload":  # wants a host memory beside the device's
            continue
        loss = make_loss(model.config, dtype=jnp.float32, implementation="reference", remat=remat)
        found[remat] = jax.jit(jax.grad(lambda *args, loss=loss: loss(*args)[0])).trace(model.parameters, {}, batch)
    return found, (model.parameters, {}, batch)


def test_every_policy_gives_the_same_gradients(traced):
    steps, given = traced
    gradients = {remat: steps[remat].lower().compile()(*given) for remat in COMPILED}
    expected = gradients["none"]
    for remat, found in gradients.items():
        for path, array in found.items():
            difference = np.abs(np.asarray(array) - np.asarray(expected[path])).max()
            assert difference <= 2e-5 * max(np.abs(np.asarray(expected[path])).max(), 1e-3), (remat, path)


def test_the_more_is_kept_the_less_is_computed_again(traced):
    counts = [flops(traced[0][remat].jaxpr) for remat in BY_RECOMPUTATION]
    # Without a kernel what attention gave is computed again for its gradient, kept or not.
    assert counts == sorted(counts) and len(set(counts)) == len(counts) - 1, counts
    assert counts[0] < flops(traced[0]["dots"].jaxpr) < counts[-1]


@pytest.mark.parametrize("remat", ["attention", "projections", "products"])
@pytest.mark.parametrize("kind", ["splash", "blockwise"])
def test_an_attention_kernel_whose_outputs_are_kept_runs_once(kind, remat):
    x, ids = jnp.ones((1, 128, 2, 16)), jnp.ones((1, 128), jnp.int32)
    attend = functools.partial(fused, kind, causal=True, interpret=True)

    def counted(policy):
        def loss(x):
            return jnp.sum(jax.checkpoint(lambda x: jnp.sin(attend(x, x, x, ids)), policy=POLICIES[policy])(x))

        return flops(jax.make_jaxpr(jax.grad(loss))(x).jaxpr)

    once = flops(jax.make_jaxpr(lambda x: attend(x, x, x, ids))(x).jaxpr)
    assert once > 0 and counted("full") - counted(remat) == once
