"""The compiled part of generation: read prompts into a cache, then decode many tokens in one loop on the device.

Prompts are packed into rows, and each is read once. Then every conversation has its own cache: the next key and value
go right behind its prompt, so there is no padding between prompt and answer, and answers do not depend on the rest of
the batch. A conversation that goes on is read from where its cache ends.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from vlm_jax.inference.sampling import NO_TOKEN, Mode, choose, log_probability
from vlm_jax.models import attention
from vlm_jax.models.config import VLMConfig
from vlm_jax.models.decoder import Cache
from vlm_jax.models.parameters import Flat, map_by_path, replace, split_model, stacks
from vlm_jax.models.token_reduction.in_decoder import through_decoder
from vlm_jax.models.vlm import VLM, Batch
from vlm_jax.parallel.compiler import compiler_options

Layers = dict[str, tuple[Flat, ...]]
"""The layers of each stack of the model, one by one: {path of the stack: {path within a layer: array}}."""


class Places(NamedTuple):
    """Where each conversation lies in packed rows."""

    row: Int[np.ndarray | Array, " b"]
    start: Int[np.ndarray | Array, " b"]
    lengths: Int[np.ndarray | Array, " b"]
    """0 for what only fills up the batch."""


class Decoding(NamedTuple):
    """A batch of unfinished answers."""

    cache: Cache
    lengths: Int[Array, "ranges b"]
    """Filled cache entries of each row, by range of layers: where tokens are left out between them, fewer above."""
    position: Int[Array, " b"]
    """M-RoPE position of the next token: text counts on in all three axes."""
    last: Int[Array, " b"]
    """The newest token, not yet in the cache."""
    done: Bool[Array | np.ndarray, " b"]
    answer: Int[Array, "b n"]
    """Tokens so far; what a row says after its stop token is filled with that stop token."""
    filled: Int[Array, ""]
    """Columns of `answer` that hold tokens."""
    log_probability: Float[Array, " b"]
    """Of the answers so far under the model, stop token and all: natural logarithm, whatever the sampling."""
    seen: Bool[Array, "b v"] | None
    """Tokens of each conversation, where repetition is penalised."""


class DecodeLoop:
    """Compiled programs of one model; parameters are arguments, so none is copied."""

    def __init__(
        self,
        config: VLMConfig,
        stop_tokens: tuple[int, ...],
        *,
        dtype,
        attach: Sequence[Callable] = (),
        mesh: Mesh | None = None,
    ):
        """
        Args:
          mesh: that parameters are divided over; None: they lie on one device.
        """
        self.config, self.dtype = config, dtype
        self.attention = attention.choose("auto", jax.default_backend())
        self.one_by_one = jax.default_backend() == "cpu" and mesh is None
        self._graph, self._state = split_model(config, attach=attach)
        self._depths = {path: stack.depth for path, stack in stacks(nnx.merge(self._graph, self._state)).items()}
        self._stop = np.array(stop_tokens, np.int32)

        def jit(function: Callable, **options) -> Callable:
            program = jax.jit(function, compiler_options=compiler_options(), **options)
            return program if mesh is None else _on(mesh, program)

        self.prefill = jit(self._prefill, static_argnames=("capacity", "room", "mode"))
        self.read = jit(self._read, static_argnames=("capacity",))
        self.branch = jit(self._branch, static_argnames=("capacity", "room", "mode"))
        self.extend = jit(self._extend, static_argnames=("room", "mode"), donate_argnames=("cache",))
        self.decode = jit(self._decode, static_argnames=("mode",), donate_argnames=("state",))
        self.logits = jit(self._logits)
        self.last_hidden = jit(self._last_hidden)
        self.visual_index = jit(self._visual_index)

    def layers_of(self, parameters: Flat) -> Layers | None:
        """All layers one by one, as every program here takes them; None where they are scanned in their stacks.

        They are views of a stack's memory where JAX takes them as they are (on one device, aligned), else copies.
        """
        if not self.one_by_one:
            return None
        return {stack: _apart(parameters, f"{stack}/layer/", depth) for stack, depth in self._depths.items()}

    def _model(self, parameters: Flat, layers: Layers | None) -> VLM:
        model = nnx.merge(self._graph, replace(self._state, parameters))
        for path, stack in stacks(model).items() if layers is not None else ():
            graph, state = nnx.split(stack.layer)
            stack.apart = nnx.data(
                [
                    nnx.merge(graph, map_by_path(lambda within, _, layer=layer: layer[within], state))
                    for layer in layers[path]
                ]
            )
        return model

    def _options(self, layers: Layers | None) -> dict[str, Any]:
        """Of tower and decoder: layers that are apart are unrolled."""
        return {"implementation": self.attention, "unroll": layers is not None}

    def _logits(self, parameters: Flat, layers: Layers | None, batch: Batch) -> tuple[Array, Array]:
        """Of the tokens that are left at the end of each row, and where they stood in it."""
        model, options = self._model(parameters, layers), self._options(layers)
        embedded = model.embed(batch, dtype=self.dtype, **options)
        through = through_decoder(model.decoder, embedded, batch, **options)
        return model.logits(through.hidden), through.places[-1]

    def _last_hidden(
        self, parameters: Flat, layers: Layers | None, batch: Batch, places: Places
    ) -> Float[Array, "b d"]:
        """Hidden states, after the last norm, of the last token of each conversation, float32."""
        model, options = self._model(parameters, layers), self._options(layers)
        embedded = model.embed(batch, dtype=self.dtype, **options)
        through = through_decoder(model.decoder, embedded, batch, at=_ends(batch, places), **options)
        return _of_each(through.hidden, places).astype(jnp.float32)

    def _visual_index(self, parameters: Flat, layers: Layers | None, batch: Batch) -> Array:
        """`visual_index` once tokens are chosen: of those that are left at the end of each row."""
        model, options = self._model(parameters, layers), self._options(layers)
        if not batch.above:
            words = model.embed_tokens(batch.tokens, self.dtype)
            return model.visual(batch, words, dtype=self.dtype, **options).index
        embedded = model.embed(batch, dtype=self.dtype, **options)
        places = through_decoder(model.decoder, embedded, batch, **options).places[-1]
        return jnp.take_along_axis(batch.visual_index, places, axis=1, mode="fill", fill_value=-1)

    def _prefill(
        self,
        parameters: Flat,
        layers: Layers | None,
        batch: Batch,
        places: Places,
        numbers,
        keys,
        *,
        capacity: tuple[int, ...],
        room: int,
        mode: Mode,
    ) -> Decoding:
        """Reads packed prompts and chooses the first token of each answer.

        Args:
          capacity: entries of each conversation's cache, by range of layers.
          room: tokens an answer may have.
        """
        model = self._model(parameters, layers)
        through, positions, cache, counts = self._through(model, layers, batch, places, capacity)
        row, start, lengths = places
        longest = batch.tokens.shape[1]
        offset = jnp.arange(longest)
        at = jnp.minimum(start[:, None] + offset, longest - 1)  # [b, t] of packed rows
        inside = offset < lengths[:, None]
        positions = jnp.moveaxis(positions, 1, 2)[row[:, None], at]  # [b, t, 3]
        position = jnp.max(jnp.where(inside[..., None], positions, -1), axis=(1, 2)) + 1
        last = _of_each(through.hidden, places)
        seen = None
        if mode.penalised:
            tokens = batch.tokens[row[:, None], at]
            seen = self._seen(jnp.where(inside, tokens, self.config.decoder.vocab))
        return self._begun(model, cache, jnp.stack(counts), position, last, seen, numbers, keys, room, mode)

    def _read(
        self,
        parameters: Flat,
        layers: Layers | None,
        batch: Batch,
        places: Places,
        *,
        capacity: tuple[int, ...],
    ) -> Cache:
        """As `_prefill`, for what several prompts begin with: no answer follows."""
        return self._through(self._model(parameters, layers), layers, batch, places, capacity)[2]

    def _through(self, model: VLM, layers: Layers | None, batch: Batch, places: Places, capacity: tuple[int, ...]):
        """Packed prompts through the decoder: what comes of their ends (`_ends`), M-RoPE positions, a cache for each
        conversation, and by range of layers how many tokens it has there."""
        options = self._options(layers)
        embedded = model.embed(batch, dtype=self.dtype, **options)
        through = through_decoder(
            model.decoder,
            embedded,
            batch,
            at=_ends(batch, places),
            observe=lambda q, k, v: (k, v),
            **options,
        )
        firsts, counts = _in_ranges(through.places, places)
        cache = tuple(map(functools.partial(_by_conversation, places.row), through.observed, firsts, capacity))
        if self.one_by_one:
            cache = tuple(tuple(zip(keys_of, values, strict=True)) for keys_of, values in cache)
        return through, embedded.positions, cache, counts

    def _branch(
        self,
        parameters: Flat,
        layers: Layers | None,
        batch: Batch,
        tokens: Int[Array, "b n"],
        counts: Int[Array, " b"],
        cache: Cache,
        owner: Int[Array, " b"],
        lengths: Int[Array, "ranges b"],
        numbers,
        keys,
        *,
        capacity: int,
        room: int,
        mode: Mode,
    ) -> Decoding:
        """As `_extend`, for conversations of which several have one beginning.

        Args:
          cache: of the beginnings; only one range of layers.
          owner: which of them each conversation goes on from.
          capacity: entries of each conversation's cache.
        """

        def one(part):
            part = jnp.take(part, owner, axis=part.ndim - 4)  # [layers,] b, kv, entries, d
            more = max(0, capacity - part.shape[-2])
            return jnp.pad(part, [(0, 0)] * (part.ndim - 2) + [(0, more), (0, 0)])[..., :capacity, :]

        cache = jax.tree.map(one, cache)
        return self._extend(
            parameters, layers, batch, tokens, counts, cache, lengths, numbers, keys, room=room, mode=mode
        )

    def _extend(
        self,
        parameters: Flat,
        layers: Layers | None,
        batch: Batch,
        tokens: Int[Array, "b n"],
        counts: Int[Array, " b"],
        cache: Cache,
        lengths: Int[Array, "ranges b"],
        numbers,
        keys,
        *,
        room: int,
        mode: Mode,
    ) -> Decoding:
        """As `_prefill`, for conversations whose beginnings are in a cache: a row of `batch` holds the other `counts`
        tokens of each.

        Args:
          tokens: of the whole conversations, filled up with numbers outside the vocabulary.
        """
        model = self._model(parameters, layers)
        x, positions, deep = model.embed(batch, dtype=self.dtype, **self._options(layers))
        ends = jnp.maximum(counts - 1, 0)[:, None]
        hidden, cache = model.decoder.extend(x, positions, cache, lengths, ends, deep)
        inside = jnp.arange(x.shape[1]) < counts[:, None]
        position = jnp.max(jnp.where(inside[:, None], positions, -1), axis=(1, 2)) + 1
        seen = self._seen(tokens) if mode.penalised else None
        return self._begun(model, cache, lengths + counts, position, hidden[:, 0], seen, numbers, keys, room, mode)

    def _seen(self, tokens: Int[Array, "b n"]) -> Bool[Array, "b v"]:
        rows = jnp.arange(tokens.shape[0])[:, None]
        return jnp.zeros((tokens.shape[0], self.config.decoder.vocab), bool).at[rows, tokens].set(True, mode="drop")

    def _begun(self, model, cache, lengths, position, last, seen, numbers, keys, room, mode) -> Decoding:
        logits = model.logits(last)
        first = choose(logits, numbers, keys, 0, seen, mode)
        answer = jnp.zeros((first.shape[0], room), jnp.int32).at[:, 0].set(first)
        done = jnp.isin(first, self._stop) | (first == NO_TOKEN) | (lengths[0] == 0)
        return Decoding(
            cache, lengths, position, first, done, answer, jnp.int32(1), log_probability(logits, first), seen
        )

    def _decode(
        self, parameters: Flat, layers: Layers | None, state: Decoding, until, numbers, keys, *, mode: Mode
    ) -> Decoding:
        """Goes on until `until` tokens or the end of every answer."""
        model = self._model(parameters, layers)
        rows = jnp.arange(state.last.shape[0])

        def more(state: Decoding):
            return (state.filled < until) & ~jnp.all(state.done)

        def one(state: Decoding) -> Decoding:
            positions = jnp.broadcast_to(state.position[:, None, None], (len(rows), 3, 1))
            x = model.embed_tokens(state.last[:, None], self.dtype)
            hidden, cache = model.decoder.extend(x, positions, state.cache, state.lengths)
            seen = state.seen
            if mode.penalised:
                seen = seen.at[rows, state.last].set(True)
            logits = model.logits(hidden[:, 0])
            token = choose(logits, numbers, keys, state.filled, seen, mode)
            of_token = jnp.where(state.done, 0, log_probability(logits, token))
            token = jnp.where(state.done, state.last, token)
            # A finished row keeps rewriting one entry behind its answer, which nothing reads.
            on = (~state.done).astype(jnp.int32)
            return Decoding(
                cache,
                state.lengths + on,
                state.position + on,
                token,
                state.done | jnp.isin(token, self._stop) | (token == NO_TOKEN),
                state.answer.at[:, state.filled].set(token),
                state.filled + 1,
                state.log_probability + of_token,
                seen,
            )

        return jax.lax.while_loop(more, one, state)


def _on(mesh: Mesh, program: Callable) -> Callable:
    """Attention's kernels are divided over the mesh by hand, and ask which it is."""

    def run(*arguments, **options):
        with jax.set_mesh(mesh):
            return program(*arguments, **options)

    return run


def _apart(parameters: Flat, stack: str, depth: int) -> tuple[Flat, ...]:
    """The layers of one stack, whose parameters begin with its path."""
    hosts = {
        path.removeprefix(stack): np.asarray(array) for path, array in parameters.items() if path.startswith(stack)
    }
    return tuple(
        {path: jax.device_put(host[number], may_alias=True) for path, host in hosts.items()} for number in range(depth)
    )


def _ends(batch: Batch, places: Places) -> Int[Array, "rows b"]:
    """The last place of each conversation in the row that it is in; 0 in the others."""
    rows = jnp.arange(batch.tokens.shape[0])[:, None]
    return jnp.where(rows == places.row, jnp.maximum(places.start + places.lengths - 1, 0), 0)


def _of_each(hidden: Float[Array, "rows b d"], places: Places) -> Float[Array, "b d"]:
    """Of hidden states at `_ends`, each conversation's own."""
    return hidden[places.row, jnp.arange(len(places.row))]


def _in_ranges(kept: Sequence[Int[Array, "rows _"]], places: Places) -> tuple[list[Array], list[Array]]:
    """Where each conversation begins in the rows of each range of layers, and how many tokens it has there.

    Args:
      kept: `in_decoder.Through.places`.
    """
    row, start, lengths = places
    firsts, counts = [start], [lengths]
    for those in kept[1:]:
        mine = those[row]
        firsts.append(jnp.sum(mine < start[:, None], axis=1, dtype=jnp.int32))
        counts.append(jnp.sum(mine < (start + lengths)[:, None], axis=1, dtype=jnp.int32) - firsts[-1])
    return firsts, counts


def _by_conversation(row, pair, first, capacity: int):
    """Keys and values, [layers, rows, t, kv, d] as [layers, b, kv, capacity, d]; what lies behind a prompt is never
    seen."""
    longest = pair[0].shape[2]
    at = jnp.minimum(first[:, None] + jnp.arange(longest), longest - 1)

    def one(part):
        prompt = jnp.swapaxes(part[:, row[:, None], at], 2, 3)
        return jnp.pad(prompt, ((0, 0), (0, 0), (0, 0), (0, max(0, capacity - longest)), (0, 0)))[..., :capacity, :]

    return tuple(map(one, pair))


@functools.cache
def bucket(size: int, smallest: int = 64, steps: int = 2) -> int:
    """A size at least as large, of few: each is a shape to compile.

    smallest × 1, 2, 3, 4, 6, 8, 12, 16 …, at most half of one wasted; with more `steps` from one power of two to the
    next, less is.
    """
    power = smallest
    while True:
        # Below `steps` × smallest every multiple is one.
        for part in range(min(steps, power // smallest)):
            candidate = power + part * max(smallest, power // steps // smallest * smallest)
            if size <= candidate < 2 * power:
                return candidate
        power *= 2
