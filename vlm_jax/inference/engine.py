"""A loaded model that answers: `generate`, `stream`, `logits`, `encode` on conversations.

    model = vlm_jax.load("runs/photos")
    model.generate([{"role": "user", "content": [{"type": "image", "image": "cat.jpg"},
                                                 {"type": "text", "text": "What is it called?"}]}])

What is compiled lies in `decoding`, how prompts share rows in `prompt_rows`, `load` in `loading`; how a conversation
becomes arrays, in `vlm_jax.processing`.
"""

import copy
import functools
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from vlm_jax.errors import InputError
from vlm_jax.inference import prefixes
from vlm_jax.inference.answering import Answering, Prompt, PromptTooLong, whole
from vlm_jax.inference.decoding import DecodeLoop, Decoding, Places, bucket
from vlm_jax.inference.prompt_rows import packed
from vlm_jax.inference.sampling import Sampling, in_rows
from vlm_jax.models.config import VLMConfig
from vlm_jax.models.parameters import Flat
from vlm_jax.processing.chat import Message
from vlm_jax.processing.example import Example, Size
from vlm_jax.processing.processor import Processor
from vlm_jax.processing.rows import Batch

MAX_BATCH = 16
"""Conversations answered at one time."""
STREAM_TOKENS = 4
"""Tokens decoded between two pieces of a stream."""
KEPT = 4
"""Conversations whose caches are kept, so that their next turn is read from where they ended."""


class LoadedModel:
    """Weights on a device, a processor, and compiled functions that fill up as shapes are met."""

    def __init__(
        self,
        config: VLMConfig,
        parameters: Flat,
        processor: Processor,
        stop_tokens: tuple[int, ...],
        *,
        dtype,
        context_length: int | None = None,
        repetition_penalty: float = 1.0,
        attach: Sequence[Callable] = (),
    ):
        """
        Args:
          context_length: tokens that the model was made to read at most, prompt and answer together; None: not known.
          repetition_penalty: of answers for which no other is given.
          attach: what gives the model the layers that `parameters` has beside the base's (`vlm_jax.adapters`).
        """
        self.config, self.processor, self.stop_tokens = config, copy.copy(processor), stop_tokens
        self.context_length = self.processor.most_tokens = context_length
        self.repetition_penalty = repetition_penalty
        self.images_encoded = 0
        """Images that went through the vision tower so far."""
        self._decoder = DecodeLoop(config, stop_tokens, dtype=dtype, attach=attach)
        self._prefixes: OrderedDict[int, prefixes.Prefix] = OrderedDict()
        self.parameters = parameters

    @property
    def parameters(self) -> Flat:
        """{path: array}; others may be set in their place, as training does."""
        return self._parameters

    @parameters.setter
    def parameters(self, parameters: Flat) -> None:
        self._parameters = parameters
        self.forget()  # what was read with other weights
        self.__dict__.pop("_layers", None)

    @functools.cached_property
    def _layers(self) -> tuple[Flat, ...] | None:
        return self._decoder.layers_of(self.parameters)

    def forget(self, keep: int = 0) -> None:
        """Lets go of the conversations that are kept, and of their memory: of the oldest first, as long as they take
        more than `keep` entries of a cache in all."""
        while sum(prefix.entries for prefix in self._prefixes.values()) > keep:
            self._prefixes.popitem(last=False)

    def fingerprint(self) -> str:
        """Tells weights apart: a digest of some values of every parameter."""
        digest = hashlib.sha256()
        for path in sorted(self.parameters):
            leaf = self.parameters[path]
            row = leaf[(0,) * (leaf.ndim - 1)][:64]
            digest.update(f"{path} {leaf.shape} {leaf.dtype}".encode() + np.asarray(row, np.float32).tobytes())
        return digest.hexdigest()[:16]

    def encode(self, messages: Sequence[Message]) -> Example:
        """The processed conversation: `.input_ids`, positions, images. No generation prompt is added."""
        return self.processor.encode(messages)

    def logits(self, messages: Sequence[Message]) -> Float[np.ndarray, "tokens vocab"]:
        """float32 logits at every token of `encode(messages)`; NaN at those that are left out within the decoder."""
        example = self.encode(messages)
        batch, _ = self._packed([example], 1)
        logits, places = map(np.asarray, self._decoder.logits(self.parameters, batch))
        if not batch.above:
            return logits[0, : len(example.input_ids)]
        left = np.flatnonzero(places[0] < len(example.input_ids))
        found = np.full((len(example.input_ids), logits.shape[-1]), np.nan, np.float32)
        found[places[0][left]] = logits[0, left]
        return found

    def kept_tokens(self, messages: Sequence[Message]) -> list[Int[np.ndarray, " kept"]]:
        """Of each image of a conversation, which of its visual tokens the decoder sees, in reading order; where some
        are left out within it, up to its last layer."""
        example = self.encode(messages)
        if not example.images:
            return []
        batch, _ = self._packed([example], 1)
        index = batch.visual_index
        if batch.method:
            index = np.asarray(self._decoder.visual_index(self.parameters, batch))
        visual, kept, first = index[0][index[0] != -1], [], 0
        for number, image in enumerate(example.images):
            slots, count = image.layout.slot_of_token, image.tokens
            if example.above is not None:
                count += int(example.above.keep[number, -1] - image.layout.optional.sum())
            mine, visual = np.split(visual, [count])
            # Ends of rows, which are all alike, all stay.
            kept.append(np.flatnonzero((slots < 0) | np.isin(slots + first, mine)))
            first += len(image.layout.token_of_slot)
        return kept

    def generate(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        seed: int = 0,
        **sampling,
    ) -> str | list[str]:
        """The answer to a conversation, or the answers to a list of them; greedy at temperature 0.

        A conversation that goes on where an earlier one ended is read from there: its images are not looked at again.

        Args:
          sampling: top_k, top_p, repetition_penalty, as in `vlm_jax.inference.sampling.Sampling`; without the last, the
            penalty of the model's generation_config.json.

        Raises:
          InputError: no conversation, an unreadable image, or a setting that cannot be.
        """
        single = bool(messages) and isinstance(messages[0], dict)
        conversations = cast(Sequence[Sequence[Message]], [messages] if single else messages)
        tokens = self.generate_tokens(conversations, max_new_tokens, temperature, seed, **sampling)
        answers = [self.processor.decode(answer) for answer in tokens]
        return answers[0] if single else answers

    def generate_tokens(
        self,
        conversations: Sequence[Sequence[Message]],
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        seed: int = 0,
        **sampling,
    ) -> list[Int[np.ndarray, " n"]]:
        """As `generate`, but the token ids of each answer, without its stop token."""
        options = self.sampling(temperature, seed, sampling)
        prompts = [
            Prompt(self.prompt(messages, max_new_tokens), max_new_tokens, options, number)
            for number, messages in enumerate(conversations)
        ]
        # Alike lengths share a batch, so that short prompts do not wait for long ones.
        order = sorted(range(len(prompts)), key=lambda index: prompts[index].example.size)
        answers: dict[int, Any] = {}
        for start in range(0, len(order), MAX_BATCH):
            members = order[start : start + MAX_BATCH]
            with self.begin([prompts[index] for index in members]) as answering:
                answering.advance(max_new_tokens)
            answers |= {index: answering.tokens(row) for row, index in enumerate(members)}
        return [answers[index] for index in range(len(prompts))]

    def stream(
        self,
        messages: Sequence[Message],
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        seed: int = 0,
        **sampling,
    ) -> Iterator[str]:
        """The answer to one conversation in pieces, as they are decoded; together they are what `generate` returns."""
        prompt = Prompt(
            self.prompt(messages, max_new_tokens), max_new_tokens, self.sampling(temperature, seed, sampling)
        )
        sent = 0
        with self.begin([prompt]) as answering:
            while True:
                finished = not answering.unfinished
                text = whole(self.processor.decode(answering.tokens(0)), finished)
                if len(text) > sent:
                    yield text[sent:]
                    sent = len(text)
                if finished:
                    return
                answering.advance(STREAM_TOKENS)

    def sampling(self, temperature: float, seed: int, more: Mapping[str, Any]) -> Sampling:
        """As `generate` takes them: what is None, or not there, is this model's own.

        Raises:
          InputError: a setting that cannot be.
        """
        chosen = {name: value for name, value in more.items() if value is not None}
        return Sampling(temperature=temperature, seed=seed, **{"repetition_penalty": self.repetition_penalty, **chosen})

    def begin(self, prompts: Sequence[Prompt]) -> Answering:
        """Reads prompts that are answered side by side, and chooses the first token of each answer.

        Only one that is alone goes on from where an earlier one ended, and is kept itself.

        Args:
          prompts: at least one, at most as many as the memory holds: `entries` of each.
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
        images = prefixes.image_digests(examples[0]) if len(prompts) == 1 else ()
        shared, entry = self._longest_kept(examples[0], images) if len(prompts) == 1 else (0, None)
        room = bucket(max(limits))
        if entry is None:
            batch, places = self._packed(examples, rows)
            capacity = _capacity([example.size for example in examples], batch, max(limits))
            state = self._decoder.prefill(self.parameters, batch, places, capacity=capacity, room=room, **chosen)
        else:
            state = self._go_on(examples[0], shared, entry, limits[0], room=room, **chosen)

        def decode(state: Decoding, until: int) -> Decoding:
            return self._decoder.decode(self.parameters, self._layers, state, np.int32(until), **chosen)

        keep = functools.partial(self._keep, examples[0], images) if len(prompts) == 1 else lambda state: None
        return Answering(limits, state, decode, self.stop_tokens, no_numbers=self._no_numbers, at_end=keep)

    def _go_on(self, example: Example, shared: int, entry: int, limit: int, **chosen) -> Decoding:
        """Reads what is behind the first `shared` tokens of a conversation, which are in a cache."""
        ids, prefix = example.input_ids, self._prefixes[entry]
        goes_on = shared >= len(prefix.tokens) - 1
        if goes_on:
            del self._prefixes[entry]  # in the same memory; else it is another conversation that begins alike
        columns = (example.size.tokens, *example.size.above)
        capacity = tuple(bucket(tokens + limit) for tokens in columns[: len(prefix.state.cache)])
        cache = prefixes.with_room(prefix.state.cache, capacity, copy=not goes_on)
        batch, _ = self._packed([example.behind(shared)], 1, smallest=16)
        tokens = np.full((1, bucket(len(ids))), self.config.decoder.vocab, np.int32)
        tokens[0, : len(ids)] = ids
        return self._decoder.extend(
            self.parameters,
            self._layers,
            batch,
            tokens,
            np.int32(len(ids) - shared),
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
            self._prefixes[id(state)] = prefixes.Prefix(tokens, images, prefixes.queries_of(example), state)
        while len(self._prefixes) > KEPT:
            self._prefixes.popitem(last=False)

    def _longest_kept(self, example: Example, images: tuple[bytes, ...]) -> tuple[int, int | None]:
        """How many tokens of a conversation are in a cache, and in which; None where too few are."""
        return prefixes.longest(self._prefixes, example, images)

    def prompt(self, messages: Sequence[Message], max_new_tokens: int) -> Example:
        """A conversation as a `Prompt` takes it.

        Raises:
          InputError: not a conversation, or an unreadable image.
          PromptTooLong: no room for so long an answer.
        """
        if max_new_tokens < 1:
            raise InputError(f"max_new_tokens is {max_new_tokens}; wanted at least 1")
        example = self.processor.encode(messages, generation_prompt=True)
        room = self.room(example)
        if room is not None and max_new_tokens > room:
            assert self.context_length is not None
            counted = len(example.input_ids) <= 2 * self.context_length
            raise PromptTooLong(self.context_length - room, counted, max_new_tokens, self.context_length)
        return example

    def room(self, example: Example) -> int | None:
        """Tokens that the answer to a prompt may have, below 0 where it is too long itself; None: not known."""
        if self.context_length is None:
            return None
        # Where tokens of an image are left out, its positions are still those of all.
        return self.context_length - max(len(example.input_ids), int(example.positions.max(initial=0)) + 1)

    def _packed(self, examples: Sequence[Example], conversations: int, *, smallest: int = 64) -> tuple[Batch, Places]:
        self.images_encoded += sum(len(example.images) for example in examples)
        return packed(examples, conversations, self.processor, self.config.vision.block_slots, smallest=smallest)

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
