"""Reading prompts: packed side by side, behind what is in a cache, or what several begin with once.

What a person calls is `engine`'s; what is compiled lies in `decoding`, how prompts share rows in `prompt_rows`.
"""

import functools
import threading
from collections import OrderedDict
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from vlm_jax.inference import prefixes
from vlm_jax.inference.answering import Answering, Prompt
from vlm_jax.inference.decoding import DecodeLoop, Decoding, Layers, Places, bucket
from vlm_jax.inference.prompt_rows import apart, packed
from vlm_jax.inference.sampling import in_rows
from vlm_jax.inference.shared_prefixes import SharedPrefixes, shared_prefixes
from vlm_jax.models.parameters import Flat
from vlm_jax.processing.example import Example, Size
from vlm_jax.processing.processor import Processor
from vlm_jax.processing.rows import Batch

KEPT = 4
"""Conversations whose caches are kept, so that their next turn is read from where they ended."""


class PromptReader:
    """Weights on a device, and the caches of the conversations that were read last."""

    def __init__(self, decoder: DecodeLoop, parameters: Flat, processor: Processor, stop_tokens: tuple[int, ...]):
        self.decoder, self.processor, self.stop_tokens = decoder, processor, stop_tokens
        self.images_encoded = 0
        """Images that went through the vision tower so far."""
        self._counting = threading.Lock()
        self.kept: OrderedDict[int, prefixes.Prefix] = OrderedDict()
        self.parameters = parameters

    @property
    def parameters(self) -> Flat:
        """{path: array}; others may be set in their place, as training does."""
        return self._parameters

    @parameters.setter
    def parameters(self, parameters: Flat) -> None:
        self._parameters = parameters
        self.forget()  # what was read with other weights
        self.__dict__.pop("layers", None)

    @functools.cached_property
    def layers(self) -> Layers | None:
        return self.decoder.layers_of(self.parameters)

    def forget(self, keep: int = 0) -> None:
        """Lets go of the conversations that are kept, and of their memory: of the oldest first, as long as they take
        more than `keep` entries of a cache in all."""
        while sum(prefix.entries for prefix in self.kept.values()) > keep:
            self.kept.popitem(last=False)

    def begin(self, prompts: Sequence[Prompt]) -> Answering:
        """Reads prompts that are answered side by side, and chooses the first token of each answer.

        Only one that is alone goes on from where an earlier one ended, and is kept itself. Of several, what some begin
        with is read once, images and all.

        Args:
          prompts: at least one, at most as many as the memory holds.
        """
        rows = 1 << (len(prompts) - 1).bit_length()
        filled = [*prompts, *[prompts[0]] * (rows - len(prompts))]
        keys = _row_keys(
            # As `jax.random.key` takes a number of Python without 64-bit arithmetic: its lower half.
            np.array([prompt.sampling.seed for prompt in filled], np.int64).astype(np.int32),
            np.array([prompt.number for prompt in filled], np.int32),
        )
        numbers, mode = in_rows([prompt.sampling for prompt in filled])
        chosen = {"numbers": numbers, "keys": keys, "mode": mode}
        limits = [prompt.max_new_tokens for prompt in prompts]
        examples = [prompt.example for prompt in prompts]
        images = prefixes.image_digests(examples[0], self.processor.budget) if len(prompts) == 1 else ()
        state = self._state(examples, images, rows, max(limits), room=bucket(max(limits)), **chosen)

        def decode(state: Decoding, until: int) -> Decoding:
            return self.decoder.decode(self.parameters, self.layers, state, np.int32(until), **chosen)

        keep = functools.partial(self._keep, examples[0], images) if len(prompts) == 1 else lambda state: None
        return Answering(limits, state, decode, self.stop_tokens, no_numbers=self._no_numbers, at_end=keep)

    def _state(
        self, examples: Sequence[Example], images: tuple[bytes, ...], rows: int, limit: int, **chosen
    ) -> Decoding:
        """Reads prompts in the way that leaves least to read."""
        if len(examples) == 1:
            shared, entry = prefixes.longest(self.kept, examples[0], images)
            if entry is not None:
                return self._go_on(examples[0], shared, entry, limit, **chosen)
        elif (beginnings := shared_prefixes(examples)) is not None:
            return self._branch(examples, beginnings, rows, limit, **chosen)
        batch, places = self.packed(examples, rows)
        capacity = _capacity([example.size for example in examples], batch, limit)
        return self.decoder.prefill(self.parameters, self.layers, batch, places, capacity=capacity, **chosen)

    def _branch(
        self, examples: Sequence[Example], beginnings: SharedPrefixes, rows: int, limit: int, **chosen
    ) -> Decoding:
        """Reads what prompts begin with once, and behind it what each goes on with."""
        first = beginnings.prefixes
        batch, places = self.packed(first, 1 << (len(first) - 1).bit_length())
        capacity = _capacity([example.size for example in first], batch, 0)
        cache = self.decoder.read(self.parameters, self.layers, batch, places, capacity=capacity)
        whole = max(len(example.input_ids) for example in examples)
        tokens = np.full((rows, bucket(whole)), self.decoder.config.decoder.vocab, np.int32)
        counts, owner, lengths = (np.zeros(rows, np.int32) for _ in range(3))
        for row, (example, suffix) in enumerate(zip(examples, beginnings.suffixes, strict=True)):
            tokens[row, : len(example.input_ids)] = example.input_ids
            counts[row], owner[row] = len(suffix.input_ids), beginnings.owner[row]
            lengths[row] = len(example.input_ids) - counts[row]
        return self.decoder.branch(
            self.parameters,
            self.layers,
            self._apart(beginnings.suffixes, rows),
            tokens,
            counts,
            cache,
            owner,
            lengths[None],
            capacity=bucket(whole + limit),
            **chosen,
        )

    def _go_on(self, example: Example, shared: int, entry: int, limit: int, **chosen) -> Decoding:
        """Reads what is behind the first `shared` tokens of a conversation, which are in a cache."""
        ids, prefix = example.input_ids, self.kept[entry]
        goes_on = shared >= len(prefix.tokens) - 1
        if goes_on:
            del self.kept[entry]  # in the same memory; else it is another conversation that begins alike
        columns = (example.size.tokens, *example.size.above)
        capacity = tuple(bucket(tokens + limit) for tokens in columns[: len(prefix.state.cache)])
        cache = prefixes.with_room(prefix.state.cache, capacity, copy=not goes_on)
        batch, _ = self.packed([example.behind(shared)], 1, smallest=16)
        tokens = np.full((1, bucket(len(ids))), self.decoder.config.decoder.vocab, np.int32)
        tokens[0, : len(ids)] = ids
        return self.decoder.extend(
            self.parameters,
            self.layers,
            batch,
            tokens,
            np.array([len(ids) - shared], np.int32),
            cache,
            prefixes.lengths(example, shared, len(cache)),
            **chosen,
        )

    def _keep(self, example: Example, images: tuple[bytes, ...], state: Decoding) -> None:
        """Keeps the cache of a conversation for its next turn."""
        # A call that is interrupted has taken the state it was given: there is nothing to keep.
        if not any(leaf.is_deleted() for leaf in jax.tree.leaves(state)):
            answer = np.asarray(state.answer)[0]
            tokens = np.concatenate([example.input_ids, answer])[: int(np.asarray(state.lengths)[0, 0])]
            self.kept[id(state)] = prefixes.Prefix(tokens, images, prefixes.queries_of(example), state)
        while len(self.kept) > KEPT:
            self.kept.popitem(last=False)

    def _count(self, examples: Sequence[Example]) -> None:
        with self._counting:  # batches are read by several threads
            self.images_encoded += sum(len(example.images) for example in examples)

    def _apart(self, examples: Sequence[Example], rows: int) -> Batch:
        self._count(examples)
        return apart(examples, rows, self.processor, self.decoder.config.vision.block_slots)

    def packed(self, examples: Sequence[Example], conversations: int, *, smallest: int = 64) -> tuple[Batch, Places]:
        self._count(examples)
        return packed(
            examples, conversations, self.processor, self.decoder.config.vision.block_slots, smallest=smallest
        )

    def last_hidden(self, examples: Sequence[Example]) -> Float32[np.ndarray, "n d"]:
        """Hidden states, after the last norm, of the last token of each conversation; nothing is kept of them."""
        batch, places = self.packed(examples, 1 << (len(examples) - 1).bit_length())
        return np.asarray(self.decoder.last_hidden(self.parameters, self.layers, batch, places))[: len(examples)]

    def _no_numbers(self) -> str:
        """Why a model computes NaN, as far as its weights tell."""
        floating = {path: leaf for path, leaf in self.parameters.items() if jnp.issubdtype(leaf.dtype, jnp.floating)}
        odd = [path for path, leaf in floating.items() if not bool(jnp.isfinite(leaf).all())]
        if not odd:
            return "the model computes NaN, of weights that are all numbers; load it in float32 (dtype='float32')"
        more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
        return f"the model computes NaN: {', '.join(odd[:3])}{more} hold NaN or infinity; copy or train it again"


@jax.jit
def _row_keys(seeds, numbers):
    """A key for each conversation, whatever batch it lands in."""
    # One program: by itself each of these operations is one that a start compiles.
    return jax.vmap(lambda seed, number: jax.random.fold_in(jax.random.key(seed), number))(seeds, numbers)


def _capacity(sizes: Sequence[Size], batch: Batch, more: int) -> tuple[int, ...]:
    """Entries of a cache that holds each of these and so many tokens behind it, by range of layers."""
    columns = np.array([(size.tokens, *size.above) for size in sizes]).max(axis=0)
    return tuple(bucket(int(tokens) + more) for tokens in columns[: 1 + len(batch.above)])
