"""A loaded model that answers: `generate`, `stream`, `logits`, `encode` on conversations.

    model = vlm_jax.load("runs/photos")
    model.generate([{"role": "user", "content": [{"type": "image", "image": "cat.jpg"},
                                                 {"type": "text", "text": "What is it called?"}]}])

What is compiled lies in `decoding`; how a conversation becomes arrays, in `vlm_jax.processing`.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from vlm_jax.checkpoint import files, hf_folder
from vlm_jax.checkpoint.model_source import open_model
from vlm_jax.errors import InputError
from vlm_jax.inference.decoding import Decoder, Decoding, bucket
from vlm_jax.models.config import VLMConfig
from vlm_jax.models.parameters import Flat
from vlm_jax.processing.chat import Message
from vlm_jax.processing.processor import Processor
from vlm_jax.processing.rows import Example, Size, assemble, stack

MAX_BATCH = 16
"""Conversations answered at one time."""
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
        attach: Sequence[Callable] = (),
    ):
        """
        Args:
          attach: what gives the model the layers that `parameters` has beside the base's (`vlm_jax.adapters`).
        """
        self.config, self.parameters, self.processor = config, parameters, processor
        self.stop_tokens = stop_tokens
        self._decoder = Decoder(config, stop_tokens, dtype=dtype, attach=attach)

    def fingerprint(self) -> str:
        """Tells weights apart: a digest of some values of every parameter."""
        digest = hashlib.sha256()
        for path in sorted(self.parameters):
            leaf = self.parameters[path]
            row = leaf[(0,) * (leaf.ndim - 1)][:64]
            digest.update(f"{path} {leaf.shape} {leaf.dtype}".encode() + np.asarray(row, np.float32).tobytes())
        return digest.hexdigest()[:16]

    def encode(self, messages: Sequence[Message]) -> Example:
        """The processed conversation: `.input_ids`, positions, pictures. No generation prompt is added."""
        return self.processor.encode(messages)

    def logits(self, messages: Sequence[Message]) -> Float[np.ndarray, "tokens vocab"]:
        """float32 logits at every token of `encode(messages)`."""
        example = self.encode(messages)
        logits = self._decoder.logits(self.parameters, self._batch([example], rows=1))
        return np.asarray(logits[0, : len(example.input_ids)])

    def generate(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> str | list[str]:
        """The answer to a conversation, or the answers to a list of them; greedy at temperature 0.

        Raises:
          InputError: no conversation, an unreadable picture, or max_new_tokens below 1.
        """
        single = bool(messages) and isinstance(messages[0], dict)
        tokens = self.generate_tokens([messages] if single else messages, max_new_tokens, temperature, seed)
        answers = [self.processor.decode(answer) for answer in tokens]
        return answers[0] if single else answers

    def generate_tokens(
        self,
        conversations: Sequence[Sequence[Message]],
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Int[np.ndarray, " n"]]:
        """As `generate`, but the token ids of each answer, without its stop token."""
        examples = [self._prompt(messages, max_new_tokens) for messages in conversations]
        # Alike lengths share a batch, so that short prompts do not wait for long ones.
        order = sorted(range(len(examples)), key=lambda index: examples[index].size)
        answers = {}
        for start in range(0, len(order), MAX_BATCH):
            members = order[start : start + MAX_BATCH]
            rows = 1 << (len(members) - 1).bit_length()
            keys = self._keys(seed, members + [0] * (rows - len(members)))
            batch = [examples[index] for index in members]
            *_, state = self._decode(batch, rows, max_new_tokens, temperature, keys, max_new_tokens)
            tokens = np.asarray(state.answer)[:, : int(state.count)]
            answers |= {index: self._before_stop(row) for index, row in zip(members, tokens, strict=False)}
        return [answers[index] for index in range(len(examples))]

    def stream(
        self, messages: Sequence[Message], max_new_tokens: int = 64, temperature: float = 0.0, seed: int = 0
    ) -> Iterator[str]:
        """The answer to one conversation in pieces, as they are decoded; together they are what `generate` returns."""
        example = self._prompt(messages, max_new_tokens)
        told = ""
        for state in self._decode([example], 1, max_new_tokens, temperature, self._keys(seed, [0]), STREAM_TOKENS):
            finished = bool(state.done[0]) or int(state.count) >= max_new_tokens
            text = self.processor.decode(self._before_stop(np.asarray(state.answer[0, : int(state.count)])))
            # A character may be cut between two tokens; it is held back until it is whole.
            if len(text) > len(told) and (finished or not text.endswith("\ufffd")):
                yield text[len(told) :]
                told = text

    def _decode(
        self, examples: Sequence[Example], rows: int, limit: int, temperature: float, keys, tokens_a_call: int
    ) -> Iterator[Decoding]:
        warmth = jnp.float32(temperature)
        batch = self._batch(examples, rows)
        state = self._decoder.prefill(self.parameters, batch, warmth, keys, room=bucket(limit))
        count = 1
        if tokens_a_call < limit or limit == 1:
            yield state
        while count < limit and not bool(jnp.all(state.done)):
            count = min(count + tokens_a_call, limit)
            state = self._decoder.decode(self.parameters, state, jnp.int32(count), warmth, keys)
            yield state
        yield state

    def _prompt(self, messages: Sequence[Message], max_new_tokens: int) -> Example:
        if max_new_tokens < 1:
            raise InputError(f"max_new_tokens is {max_new_tokens}; wanted at least 1")
        return self.processor.encode(messages, generation_prompt=True)

    def _batch(self, examples: Sequence[Example], rows: int) -> dict[str, np.ndarray]:
        """One example a row, in the smallest bucket that holds the longest."""
        vision = self.config.vision
        capacity = Size(
            bucket(max(example.size.tokens for example in examples)),
            bucket(max(example.size.patches for example in examples), vision.block_slots),
            1,
        )
        # Nothing is trained on here; a length that follows the answers would compile anew for each.
        plain = [dataclasses.replace(one, supervised=np.zeros_like(one.supervised)) for one in examples]
        alone = [[example] for example in plain] + [[] for _ in range(rows - len(examples))]
        return stack(
            [assemble(one, capacity, patch_values=vision.patch_values, merge_unit=vision.merge_unit) for one in alone]
        )

    @staticmethod
    def _keys(seed: int, rows: Sequence[int]):
        """A key for each conversation, whatever batch it lands in."""
        return jax.vmap(lambda row: jax.random.fold_in(jax.random.key(seed), row))(jnp.array(rows))

    def _before_stop(self, tokens: np.ndarray) -> np.ndarray:
        stops = np.flatnonzero(np.isin(tokens, self.stop_tokens))
        return tokens[: stops[0]] if len(stops) else tokens


def load(
    path: str | Path,
    dtype: str = "auto",
    *,
    adapter: str | Path | None = None,
    visual_tokens: int | tuple[int, int] | None = None,
) -> LoadedModel:
    """Loads a Hugging Face folder, a hub id (`org/name@revision`), a PEFT folder, or a run folder (its newest
    checkpoint). Adapters are added into the kernels.

    Args:
      dtype: float32 or bfloat16; auto is float32 on a CPU, bfloat16 on an accelerator.
      adapter: a PEFT folder or a run folder with adapters alone, whose base `path` is.
      visual_tokens: the most (or (least, most)) visual tokens a picture takes; None keeps what the model was trained
        with, or what the folder's image processor says.

    Raises:
      InputError: not a model of a known architecture, or an incomplete one; every fault is listed.
    """
    if dtype not in ("auto", "float32", "bfloat16"):
        raise InputError(f"dtype {dtype!r}: known are auto, float32, bfloat16")
    kind = jnp.dtype(("float32" if jax.default_backend() == "cpu" else "bfloat16") if dtype == "auto" else dtype)
    source = open_model(str(path)) if adapter is None else open_model(str(adapter), base=str(path))
    if adapter is not None and source.base is None:
        raise InputError(f"{adapter}: is a whole model, no adapter; load it by itself")
    processor = hf_folder.read_processor(source.assets, source.config, visual_tokens if source.images is None else None)
    if source.images is not None:
        processor.images = source.images.with_budget(visual_tokens)
    parameters = source.read_merged(dtype=kind)
    return LoadedModel(source.config, parameters, processor, stop_tokens(source.assets, processor), dtype=kind)


def stop_tokens(assets: Path, processor: Processor) -> tuple[int, ...]:
    """`eos_token_id` of generation_config.json, else of config.json, else the tokenizer's."""
    for name in ("generation_config.json", "config.json"):
        path = assets / name
        held = files.read_json(path).get("eos_token_id") if path.is_file() else None
        if held is not None:
            tokens = tuple(held) if isinstance(held, list) else (held,)
            if not all(isinstance(token, int) for token in tokens):
                raise InputError(f"{path}: eos_token_id must be a token id or a list of them, got {held!r}")
            return tokens
    return (processor.tokenizer.eos_token_id,)
