"""A loaded model that answers: `generate`, `stream`, `logits`, `encode` on conversations; `embed` on texts and images.

    model = vlm_jax.load("runs/photos")
    model.generate([{"role": "user", "content": [{"type": "image", "image": "cat.jpg"},
                                                 {"type": "text", "text": "What is it called?"}]}])

How prompts are read is in `reading`, what is compiled in `decoding`, `load` in `loading`; how a conversation becomes
arrays, in `vlm_jax.processing`.
"""

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Int

from vlm_jax.errors import InputError
from vlm_jax.inference import batches, embedding
from vlm_jax.inference.answering import Answer, Answering, Prompt, PromptTooLong, whole
from vlm_jax.inference.decoding import DecodeLoop
from vlm_jax.inference.placement import Placement, placed
from vlm_jax.inference.reading import PromptReader
from vlm_jax.inference.sampling import Sampling
from vlm_jax.models.config import VLMConfig
from vlm_jax.models.parameters import Flat
from vlm_jax.processing.chat import Message
from vlm_jax.processing.example import Example
from vlm_jax.processing.images import Source
from vlm_jax.processing.processor import Processor

STREAM_TOKENS = 4
"""Tokens decoded between two pieces of a stream."""


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
        placement: Placement | None = None,
    ):
        """
        Args:
          placement: where `parameters` lie; None: on the first device.
          context_length: tokens that the model was made to read at most, prompt and answer together; None: not known.
          repetition_penalty: of answers for which no other is given.
          attach: what gives the model the layers that `parameters` has beside the base's (`vlm_jax.adapters`).
        """
        self.config, self.stop_tokens = config, stop_tokens
        self.repetition_penalty = repetition_penalty
        self._made_of = {"dtype": dtype, "context_length": context_length, "attach": attach}
        self.placement = placement or placed(1)
        self._decoder = DecodeLoop(config, stop_tokens, dtype=dtype, attach=attach, mesh=self.placement.mesh)
        self._reader = PromptReader(self._decoder, parameters, copy.copy(processor), stop_tokens)
        self.context_length = self.processor.most_tokens = context_length

    @property
    def processor(self) -> Processor:
        """What makes arrays of conversations; another may be set in its place, as for other visual tokens."""
        return self._reader.processor

    @processor.setter
    def processor(self, processor: Processor) -> None:
        self._reader.processor = processor

    @property
    def parameters(self) -> Flat:
        """{path: array}; others may be set in their place, as training does."""
        return self._reader.parameters

    @parameters.setter
    def parameters(self, parameters: Flat) -> None:
        self._reader.parameters = parameters

    @property
    def images_encoded(self) -> int:
        """Images that went through the vision tower so far."""
        return self._reader.images_encoded

    def forget(self, keep: int = 0) -> None:
        """Lets go of the conversations that are kept, and of their memory: of the oldest first, as long as they take
        more than `keep` entries of a cache in all."""
        self._reader.forget(keep)

    def on(self, placement: Placement) -> "LoadedModel":
        """The same model with a copy of its weights elsewhere, to be called within `placement()`."""
        parameters = {path: placement.put(path, array) for path, array in self.parameters.items()}
        made_of = {**self._made_of, "repetition_penalty": self.repetition_penalty, "placement": placement}
        with placement():
            return LoadedModel(self.config, parameters, self.processor, self.stop_tokens, **made_of)

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
        batch, _ = self._reader.packed([example], 1)
        logits, places = map(np.asarray, self._decoder.logits(self.parameters, self._reader.layers, batch))
        if not batch.above:
            return logits[0, : len(example.input_ids)]
        left = np.flatnonzero(places[0] < len(example.input_ids))
        found = np.full((len(example.input_ids), logits.shape[-1]), np.nan, np.float32)
        found[places[0][left]] = logits[0, left]
        return found

    def embed(self, text: str | None = None, image: Source | None = None) -> Float32[np.ndarray, " d"]:
        """A text, an image, or both together as a vector of unit length, d the decoder's width.

        It is read off where the model would begin to sum them up in one word (`inference.embedding`): without training
        for it, weak beside CLIP or SigLIP (`vlm_jax.load_encoder`).

        Raises:
          InputError: neither is given, or an unreadable image.
        """
        return self.embeddings([(text, image)])[0]

    def embeddings(self, items: Sequence[tuple[str | None, Source | None]]) -> Float32[np.ndarray, "n d"]:
        """As `embed`, of many (text, image)."""
        examples = [self.prompt(embedding.conversation(text, image), 1) for text, image in items]
        vectors = np.zeros((len(items), self.config.decoder.hidden), np.float32)
        for members in self._in_batches(examples, [1] * len(examples), None) if examples else ():
            vectors[members] = self._reader.last_hidden([examples[index] for index in members])
        return embedding.unit(vectors)

    def kept_tokens(self, messages: Sequence[Message]) -> list[Int[np.ndarray, " kept"]]:
        """Of each image of a conversation, which of its visual tokens the decoder sees, in reading order; where some
        are left out within it, up to its last layer."""
        example = self.encode(messages)
        if not example.images:
            return []
        batch, _ = self._reader.packed([example], 1)
        index = batch.visual_index
        if batch.method:
            index = np.asarray(self._decoder.visual_index(self.parameters, self._reader.layers, batch))
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
        answers = self.answers(conversations, max_new_tokens, temperature, seed, **sampling)
        return answers[0].text if single else [answer.text for answer in answers]

    def generate_tokens(
        self,
        conversations: Sequence[Sequence[Message]],
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        seed: int = 0,
        **sampling,
    ) -> list[Int[np.ndarray, " n"]]:
        """As `generate`, but the token ids of each answer, without its stop token."""
        return [answer.tokens for answer in self.answers(conversations, max_new_tokens, temperature, seed, **sampling)]

    def answers(
        self,
        conversations: Sequence[Sequence[Message]],
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        seed: int = 0,
        *,
        at_once: int | None = None,
        **sampling,
    ) -> list[Answer]:
        """As `generate` of a list, with what is known of each answer.

        Conversations that begin with the same images and words are read from there on: an image is looked at once.

        Args:
          at_once: conversations answered side by side at most; None: as many as memory holds.
        """
        options = self.sampling(temperature, seed, sampling)
        prompts = [
            Prompt(self.prompt(messages, max_new_tokens), max_new_tokens, options, number)
            for number, messages in enumerate(conversations)
        ]
        found = dict(self.answer_each(prompts, at_once=at_once))
        return [found[number] for number in range(len(prompts))]

    def answer_each(self, prompts: Sequence[Prompt], *, at_once: int | None = None) -> Iterator[tuple[int, Answer]]:
        """(number of the prompt, its answer) as batches end: alike lengths and questions about one image together."""
        limits = [prompt.max_new_tokens for prompt in prompts]

        def answered(members: list[int]) -> list[tuple[int, Answer]]:
            with self.placement(), self.begin([prompts[number] for number in members]) as answering:
                while answering.unfinished:
                    answering.advance(max(limits[number] for number in members))
            return [(number, answering.answer(row, self.processor.decode)) for row, number in enumerate(members)]

        found = self._in_batches([prompt.example for prompt in prompts], limits, at_once)
        # One after the other where a conversation may go on from the one before, or devices compute a layer together:
        # two programs that wait for each other in another order on each of them would wait for ever.
        alone = at_once == 1 or self.placement.mesh is not None
        for batch in batches.side_by_side(answered, found, 1 if alone else batches.IN_FLIGHT):
            yield from batch

    def _in_batches(self, examples: Sequence[Example], limits: Sequence[int], at_once: int | None) -> list[list[int]]:
        if len(examples) == 1:
            return [[0]]
        most, fits = at_once, None
        if most is None:
            most = batches.MOST_ON_CPU if jax.default_backend() == "cpu" else batches.MOST
            if (free := batches.free_memory()) is not None:
                itemsize = jnp.dtype(self._decoder.dtype).itemsize
                fits = batches.Fits(self.config, itemsize, int(batches.SHARE * free))
        return batches.in_batches(examples, limits, most=most, fits=fits)

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

        Only one that is alone goes on from where an earlier one ended, and is kept itself. Of several, what some begin
        with is read once, images and all.

        Args:
          prompts: at least one, at most as many as the memory holds.
        """
        return self._reader.begin(prompts)

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
