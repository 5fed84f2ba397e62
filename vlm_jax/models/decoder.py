"""The decoder of Qwen models: grouped-query attention with M-RoPE, biases and norms as configured; pre-norm; SwiGLU.

It takes embeddings and returns hidden states. Token embedding, images and the output head belong to `vlm`; where
keys and values come from (the row itself, or a cache) is decided by the caller through `attend`.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from vlm_jax.models.attention import attend_cached, attention
from vlm_jax.models.config import DecoderConfig
from vlm_jax.models.layers import GatedMLP, Linear, RMSNorm, constrain_rows, picked
from vlm_jax.models.remat import PROJECTION, kept
from vlm_jax.models.rope import mrope_angles, rotate, turn
from vlm_jax.models.stack import Stack

Cache = tuple
"""Keys (rotated) and values of what was read, for each range of layers between two cuts (one, where nothing is left
out): (k, v), each [layers, b, kv_heads, s, head_dim], or such a pair a layer, each [b, kv_heads, s, head_dim]."""


class SelfAttention(nnx.Module):
    def __init__(self, config: DecoderConfig, *, std: float, dtype, rngs: nnx.Rngs):
        self.head_dim = config.head_dim
        queries, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim

        def make(i, o, bias):
            return Linear(i, o, bias=bias, std=std, dtype=dtype, rngs=rngs)

        self.q_proj = make(config.hidden, queries, config.qkv_bias)
        self.k_proj = make(config.hidden, kv, config.qkv_bias)
        self.v_proj = make(config.hidden, kv, config.qkv_bias)
        self.o_proj = make(queries, config.hidden, False)

        def norm():
            return RMSNorm(config.head_dim, eps=config.norm_eps, dtype=dtype) if config.qk_norm else None

        self.q_norm, self.k_norm = norm(), norm()

    def __call__(self, x: Float[Array, "b t d"], cos, sin, attend: Callable):
        """`attend(q, k, v) -> (mixed, y)` sees rotated heads; y is handed through (new cache entries, say)."""

        def heads(y):
            return y.reshape(*y.shape[:2], -1, self.head_dim)

        q, k, v = (heads(kept(linear(x), PROJECTION)) for linear in (self.q_proj, self.k_proj, self.v_proj))
        if self.q_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        mixed, y = attend(rotate(q, cos, sin), rotate(k, cos, sin), v)
        return kept(self.o_proj(mixed.reshape(*x.shape[:2], -1)), PROJECTION), y


class DecoderLayer(nnx.Module):
    def __init__(self, config: DecoderConfig, *, std: float, dtype, rngs: nnx.Rngs):
        self.input_norm = RMSNorm(config.hidden, eps=config.norm_eps, dtype=dtype)
        self.attention = SelfAttention(config, std=std, dtype=dtype, rngs=rngs)
        self.mlp_norm = RMSNorm(config.hidden, eps=config.norm_eps, dtype=dtype)
        self.mlp = GatedMLP(config.hidden, config.mlp, bias=False, std=std, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b t d"], cos, sin, attend: Callable, at: Int[Array, "b n"] | None = None):
        """With `at`, what comes behind the attention is computed at these places of each row alone: [b, n, d]."""
        mixed, y = self.attention(self.input_norm(x), cos, sin, attend)
        x = constrain_rows(x + mixed)
        if at is not None:
            x = constrain_rows(picked(x, at))
        return constrain_rows(x + self.mlp(self.mlp_norm(x))), y


class Decoder(nnx.Module):
    """Embeddings in, normalised hidden states out."""

    def __init__(self, config: DecoderConfig, *, std: float, dtype, rngs: nnx.Rngs):
        self.config = config

        def make(rngs):
            return DecoderLayer(config, std=std, dtype=dtype, rngs=rngs)

        self.layers = Stack(make, config.layers, rngs)
        self.norm = RMSNorm(config.hidden, eps=config.norm_eps, dtype=dtype)

    def __call__(
        self,
        x: Float[Array, "b t d"],
        positions: Int[Array, "b 3 t"],
        segment_ids: Int[Array, "b t"],
        *,
        implementation: str = "chunked",
        remat: str = "none",
        unroll: bool = False,
        at: Int[Array, "b n"] | None = None,
        observe: Callable | None = None,
        start: int = 0,
        stop: int | None = None,
        deep: Float[Array, "k b t d"] | None = None,
    ):
        """Whole rows, causal within each segment.

        Args:
          at: places of each row whose hidden states are wanted, for all of them; layers that are unrolled
            (`unroll`) spare the others the last MLP, which in a stack of few is much of the work.
          observe: called with each layer's rotated queries and keys, and its values, each [b, t, heads, head_dim].
          start, stop: the layers that run; all unless said otherwise. Between two ranges tokens may be left out: x,
            positions and segments then have fewer.
          deep: what is added behind each of the decoder's first k layers (DeepStack), of the same tokens as x.

        Returns:
          hidden [b, t, d], or [b, n, d], normalised where the last layer has run; with `observe` also what that
          returned, stacked over the layers that ran.
        """
        cos, sin = self._angles(positions, at_once=unroll)

        def attend_row(q, k, v):
            mixed = attention(q, k, v, segment_ids, segment_ids, causal=True, implementation=implementation)
            return mixed, None if observe is None else observe(q, k, v)

        def one(layer, x, number, _, at=None):
            x, y = layer(x, cos, sin, attend_row, at)
            return _with_deep(x, deep, number, at), y

        x, observed = self.layers(
            x,
            one,
            xs=jnp.arange(self.config.layers),
            remat=remat,
            unroll=unroll,
            last=functools.partial(one, at=at),
            start=start,
            stop=stop,
        )
        if stop is None or stop == self.config.layers:
            x = self.norm(picked(x, at) if at is not None and not unroll else x)
        return x if observe is None else (x, observed)

    def extend(
        self,
        x: Float[Array, "b t d"],
        positions: Int[Array, "b 3 t"],
        cache: Cache,
        lengths: Int[Array, "ranges b"],
        at: Int[Array, "b n"] | None = None,
        deep: Float[Array, "k b t d"] | None = None,
    ) -> tuple[Float[Array, "b _ d"], Cache]:
        """More tokens of each row behind the `lengths[range, b]` that are in its cache; their keys and values join it.

        The cache is a loop's carry, not its scanned input, so that each step writes its entries in place. It has a pair
        for each layer where the stack's are apart.

        Args:
          at, deep: as of a call.

        Returns:
          hidden [b, t, d], or [b, n, d], and the cache.
        """
        cos, sin = self._angles(positions)
        rows, new, start = jnp.arange(x.shape[0])[:, None], [], 0
        for number, part in enumerate(cache):
            ends = lengths[number][:, None] + jnp.arange(x.shape[1])
            places = (rows, ends)
            if self.layers.apart is not None:
                stop = start + len(part)
                x, part = self._extend_one_by_one(x, cos, sin, part, places, range(start, stop), at, deep)
                start = stop
            else:
                stop = start + len(part[0])
                x, part = self._extend_stack(x, cos, sin, part, places, range(start, stop), deep)
                start = stop
            new.append(part)
        if at is not None and self.layers.apart is None:
            x = picked(x, at)
        return self.norm(x), tuple(new)

    def _extend_one_by_one(self, x, cos, sin, cache, places, numbers: range, at, deep):
        """`extend` through some layers, with a pair of keys and values for each; behind the last of all `at` these
        places."""
        (rows, ends), new = places, []
        for number, layer_cache in zip(numbers, cache, strict=True):
            layer, last = self.layers.apart[number], at if number == self.config.layers - 1 else None

            def attend_one(q, k, v, layer_cache=layer_cache):
                parts = zip(layer_cache, (k, v), strict=True)
                layer_cache = tuple(old.at[rows, :, ends].set(part.astype(old.dtype)) for old, part in parts)
                return attend_cached(q, *layer_cache, ends), layer_cache

            x, layer_cache = layer(x, cos, sin, attend_one, last)
            x = _with_deep(x, deep, number, last)
            new.append(layer_cache)
        return x, tuple(new)

    def _extend_stack(self, x, cos, sin, cache, places, numbers: range, deep):
        """`extend` through some layers, whose keys and values are stacked."""
        rows, ends = places

        def layer_step(layer, carry, number, place):
            (x, cache), index = carry, number - numbers.start

            def attend_layer(q, k, v):
                parts = zip(cache, (k, v), strict=True)
                new = tuple(whole.at[index, rows, :, ends].set(part.astype(whole.dtype)) for whole, part in parts)
                layer_cache = (jax.lax.dynamic_index_in_dim(whole, index, keepdims=False) for whole in new)
                return attend_cached(q, *layer_cache, ends), new

            x, cache = layer(x, cos, sin, attend_layer)
            return (_with_deep(x, deep, number, None), cache), None

        every = jnp.arange(self.config.layers)
        (x, cache), _ = self.layers((x, cache), layer_step, xs=every, start=numbers.start, stop=numbers.stop)
        return x, cache

    def _angles(self, positions, at_once: bool = False):
        config = self.config
        angles = mrope_angles(
            positions, config.head_dim, config.rope_theta, config.mrope_sections, config.mrope_interleaved
        )
        return turn(angles, at_once=at_once)


def _with_deep(
    x: Float[Array, "b _ d"],
    deep: Float[Array, "k b t d"] | None,
    number: int | Int[Array, ""],
    at: Int[Array, "b n"] | None,
) -> Float[Array, "b _ d"]:
    """What a layer has made of its tokens, and behind the first layers what is added there.

    Args:
      number: of the layer.
      at: places that the layer was left with.
    """
    if deep is None:
        return x
    if isinstance(number, int):
        return (
            x if number >= len(deep) else constrain_rows(x + (deep[number] if at is None else picked(deep[number], at)))
        )
    mine = jax.lax.dynamic_index_in_dim(deep, jnp.minimum(number, len(deep) - 1), keepdims=False)
    mine = mine if at is None else picked(mine, at)
    return constrain_rows(x + jnp.where(number < len(deep), mine, jnp.zeros((), x.dtype)))
