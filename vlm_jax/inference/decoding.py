"""The compiled part of generation: prefill a batch of prompts, then decode many tokens in one loop on the device.

Prompts of unequal lengths lie at the start of their rows; each row writes its next key and value right behind its own
prompt, so there is no padding between prompt and answer, and results do not depend on the rest of the batch.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from vlm_jax.models.config import VLMConfig
from vlm_jax.models.parameters import Flat, abstract_model, replace
from vlm_jax.models.vlm import VLM, Batch
from vlm_jax.parallel.compiler import compiler_options


class Decoding(NamedTuple):
    """A batch of unfinished answers."""

    cache: tuple[Float[Array, "l b s kv_heads head_dim"], Float[Array, "l b s kv_heads head_dim"]]
    lengths: Int[Array, " b"]
    """Filled cache entries of each row."""
    position: Int[Array, " b"]
    """M-RoPE position of the next token: text counts on in all three axes."""
    last: Int[Array, " b"]
    """The newest token, not yet in the cache."""
    done: Bool[Array, " b"]
    answer: Int[Array, "b n"]
    """Tokens so far; what a row says after its stop token is filled with that stop token."""
    count: Int[Array, ""]
    """Tokens in `answer`."""


class Decoder:
    """Compiled prefill, decode and full logits of one model; parameters are arguments, so none is copied."""

    def __init__(self, config: VLMConfig, stop_tokens: tuple[int, ...], *, dtype, attach: Sequence[Callable] = ()):
        self.dtype = dtype
        self._graph, self._state = nnx.split(abstract_model(config, attach=attach))
        self._stop = jnp.array(stop_tokens, jnp.int32)
        jit = functools.partial(jax.jit, compiler_options=compiler_options())
        self.prefill = jit(self._prefill, static_argnames=("room",))
        self.decode = jit(self._decode, donate_argnums=(1,))
        self.logits = jit(self._logits)

    def _model(self, parameters: Flat) -> VLM:
        return nnx.merge(self._graph, replace(self._state, parameters))

    def _logits(self, parameters: Flat, batch: Batch) -> Float[Array, "b t v"]:
        model = self._model(parameters)
        return model.logits(model(batch, dtype=self.dtype))

    def _prefill(self, parameters: Flat, batch: Batch, temperature, keys, *, room: int) -> Decoding:
        """Reads the prompts and chooses the first token of each answer; `room` tokens fit behind every prompt."""
        model = self._model(parameters)
        x = model.embed(batch, dtype=self.dtype)
        hidden, cache = model.decoder(x, batch["positions"], batch["segment_ids"], keep_kv=True)
        lengths = jnp.sum(batch["segment_ids"] > 0, axis=1)
        last = jnp.take_along_axis(hidden, jnp.maximum(lengths - 1, 0)[:, None, None], axis=1)
        cache = tuple(jnp.pad(part, ((0, 0), (0, 0), (0, room), (0, 0), (0, 0))) for part in cache)
        first = _choose(model.logits(last[:, 0]), temperature, keys, 0)
        answer = jnp.zeros((first.shape[0], room), jnp.int32).at[:, 0].set(first)
        position = jnp.max(batch["positions"], axis=(1, 2)) + 1
        # Rows without a prompt only fill up the batch.
        done = jnp.isin(first, self._stop) | (lengths == 0)
        return Decoding(cache, lengths, position, first, done, answer, jnp.int32(1))

    def _decode(self, parameters: Flat, state: Decoding, until, temperature, keys) -> Decoding:
        """Goes on until `until` tokens or the end of every answer."""
        model = self._model(parameters)

        def more(state: Decoding):
            return (state.count < until) & ~jnp.all(state.done)

        def one(state: Decoding) -> Decoding:
            positions = jnp.broadcast_to(state.position[:, None, None], (state.position.shape[0], 3, 1))
            x = model.embed_tokens(state.last[:, None], self.dtype)
            hidden, cache = model.decoder.decode(x, positions, state.cache, state.lengths)
            token = _choose(model.logits(hidden[:, 0]), temperature, keys, state.count)
            token = jnp.where(state.done, state.last, token)
            # A finished row keeps rewriting one entry behind its answer, which nothing reads.
            on = (~state.done).astype(jnp.int32)
            return Decoding(
                cache,
                state.lengths + on,
                state.position + on,
                token,
                state.done | jnp.isin(token, self._stop),
                state.answer.at[:, state.count].set(token),
                state.count + 1,
            )

        return jax.lax.while_loop(more, one, state)


def _choose(logits: Float[Array, "b v"], temperature, keys, count) -> Int[Array, " b"]:
    """The likeliest token at temperature 0, else a draw; each row draws from its own stream of keys."""
    draw = jax.vmap(lambda key, row: jax.random.categorical(jax.random.fold_in(key, count), row))
    warm = draw(keys, logits / jnp.maximum(temperature, 1e-6))
    return jnp.where(temperature > 0, warm, jnp.argmax(logits, axis=-1)).astype(jnp.int32)


@functools.cache
def bucket(size: int, smallest: int = 64) -> int:
    """The next of smallest × 1, 2, 3, 4, 6, 8, 12, 16 …: few shapes to compile, at most half of one wasted."""
    step = smallest
    while True:
        for candidate in (step, step * 3 // 2) if step > smallest else (step,):
            if size <= candidate:
                return candidate
        step *= 2
