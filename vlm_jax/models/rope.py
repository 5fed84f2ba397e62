"""Rotary position embeddings: M-RoPE of the decoder and the axial RoPE of the vision tower.

Both rotate halves (`[x1, x2] -> [x1 cos - x2 sin, x2 cos + x1 sin]`) by angles computed in float32 from integer
positions that the host worked out (`vlm_jax.processing.positions`, `vlm_jax.processing.vision_layout`).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def mrope_angles(
    positions: Int[Array, "b 3 t"], head_dim: int, theta: float, sections: tuple[int, ...], interleaved: bool = False
) -> Float[Array, "b t half"]:
    """Angles of M-RoPE (Qwen2-VL, arXiv:2409.12191): consecutive chunks of frequencies follow t, h and w.

    Args:
      interleaved: as Qwen3-VL has it: frequency j follows h where j mod 3 = 1 and w where j mod 3 = 2, as many as
        `sections` gives them, and t everywhere else.
    """
    inverse = theta ** -(jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    if interleaved:
        number = np.arange(head_dim // 2)
        follows = np.zeros(head_dim // 2, np.int32)
        for axis in (1, 2):
            follows[(number % 3 == axis) & (number < 3 * sections[axis])] = axis
        where = positions.astype(jnp.float32)[:, follows]  # [b, half, t]
        return jnp.swapaxes(where, 1, 2) * inverse
    chunks, start = [], 0
    for axis, width in enumerate(sections):
        where = positions[:, axis % 3, :, None].astype(jnp.float32)
        chunks.append(where * inverse[start : start + width])
        start += width
    return jnp.concatenate(chunks, axis=-1)


def axial_angles(coords: Int[Array, "b p 2"], head_dim: int, theta: float) -> Float[Array, "b p half"]:
    """Angles of the vision tower: the first half of the frequencies follows the row, the second the column."""
    spatial = head_dim // 2
    inverse = theta ** -(jnp.arange(0, spatial, 2, dtype=jnp.float32) / spatial)
    angles = coords[..., None].astype(jnp.float32) * inverse
    return angles.reshape(*coords.shape[:2], spatial)


def turn(angles: Float[Array, "b t half"], *, at_once: bool = False) -> tuple[Array, Array]:
    """(cos, sin) of the angles.

    Args:
      at_once: both are computed here and held. XLA computes them anew in whatever uses them, on a CPU for every head of
        every layer that is not in a loop, and a barrier does not keep it from that; a loop of its own does.
    """
    if not at_once:
        return jnp.cos(angles), jnp.sin(angles)
    cos, sin = jax.lax.map(lambda which: jax.lax.cond(which == 0, jnp.cos, jnp.sin, angles), jnp.arange(2))
    return cos, sin


def rotate(
    x: Float[Array, "b t heads head_dim"], cos: Float[Array, "b t half"], sin: Float[Array, "b t half"]
) -> Float[Array, "b t heads head_dim"]:
    """Rotates the two halves of each head by the given angles, in the dtype of `cos`; returns x's dtype."""
    first, second = jnp.split(x.astype(cos.dtype), 2, axis=-1)
    cos, sin = cos[:, :, None], sin[:, :, None]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)
