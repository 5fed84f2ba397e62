"""Quantised kernels equal a NumPy reference, and products with them the products with what they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlm_jax.adapters import quantised
from vlm_jax.adapters.quantised import BLOCK, NF4


def reference(kernel: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes, scales and the kernel they stand for, value by value as the paper has it."""
    features_in, features_out = kernel.shape
    if kind == "int8":
        scales = np.abs(kernel).max(axis=0, keepdims=True) / np.float32(127)
        codes = np.round(kernel / scales)
        return codes.astype(np.int8), scales, codes.astype(np.float32) * scales
    blocks = -(-features_in // BLOCK)
    codes, scales = np.empty(kernel.shape, np.int8), np.empty((blocks, features_out), np.float32)
    for block in range(blocks):
        part = kernel[block * BLOCK : (block + 1) * BLOCK]
        scales[block] = np.abs(part).max(axis=0)
        distance = np.abs((part / scales[block])[..., None] - NF4)
        codes[block * BLOCK : (block + 1) * BLOCK] = distance.argmin(axis=-1)
    return codes, scales, NF4[codes] * np.repeat(scales, BLOCK, axis=0)[:features_in]


def unpacked(codes, kind: str, features_in: int) -> np.ndarray:
    """One code a value."""
    codes = np.asarray(codes)
    if kind == "int8":
        return codes
    return np.concatenate([codes & 15, codes >> 4], axis=-2).reshape(-1, codes.shape[-1])[:features_in]


@pytest.mark.parametrize("kind", quantised.KINDS)
@pytest.mark.parametrize("shape", [(128, 48), (64, 7), (100, 33), (3, 5)])
def test_codes_scales_and_values_equal_the_reference(kind, shape):
    kernel = np.random.default_rng(0).normal(0, 0.02, shape).astype(np.float32)
    codes, scales = jax.jit(quantised.quantise, static_argnums=1)(kernel, kind)
    expected = reference(kernel, kind)
    np.testing.assert_array_equal(unpacked(codes, kind, shape[0]), expected[0])
    if kind == "nf4":
        np.testing.assert_array_equal(scales, expected[1])
        np.testing.assert_array_equal(quantised.dequantise(codes, scales, kind, shape[0]), expected[2])
    else:  # XLA divides by 127 as a product, the last bit of which may differ
        np.testing.assert_allclose(scales, expected[1], rtol=2e-7)
        np.testing.assert_allclose(quantised.dequantise(codes, scales, kind, shape[0]), expected[2], rtol=2e-7)
    assert codes.dtype == (jnp.uint8 if kind == "nf4" else jnp.int8)
    assert (codes.shape, scales.shape) == quantised.quantised_shapes(shape, kind)


@pytest.mark.parametrize("kind", quantised.KINDS)
def test_a_column_of_zeros_stays_zero(kind):
    codes, scales = quantised.quantise(jnp.zeros((64, 2)), kind)
    assert not quantised.dequantise(codes, scales, kind, 64).any()


@pytest.mark.parametrize("kind", quantised.KINDS)
def test_products_and_gradients_are_those_of_the_dequantised_kernel(kind):
    rng = np.random.default_rng(1)
    kernel, x = rng.normal(0, 0.02, (96, 40)).astype(np.float32), rng.normal(0, 1, (3, 5, 96)).astype(np.float32)
    codes, scales = quantised.quantise(jnp.asarray(kernel), kind)
    plain = quantised.dequantise(codes, scales, kind, 96)

    def loss(x, product):
        return (jnp.sin(product(x))).sum()

    ours = jax.value_and_grad(loss)(x, lambda x: quantised._product(kind, x, codes, scales))
    expected = jax.value_and_grad(loss)(x, lambda x: x @ plain)
    np.testing.assert_allclose(ours[0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(ours[1], expected[1], rtol=1e-5, atol=1e-6)


def test_nothing_dequantised_is_kept_for_the_backward_pass():
    codes, scales = quantised.quantise(jnp.ones((128, 64)), "nf4")
    kept = jax.eval_shape(
        lambda x: jax.vjp(lambda x: quantised._product("nf4", x, codes, scales), x)[1], jnp.ones((2, 128))
    )
    shapes = [leaf.shape for leaf in jax.tree.leaves(kept) if leaf.dtype == jnp.float32]
    assert (128, 64) not in shapes
