"""Texts and images as vectors of unit length: by CLIP or SigLIP, or by the decoder of any model.

    encoder = vlm_jax.load_encoder("clip-vit-base-patch32")
    encoder.encode_texts(["a temple at dusk"]) @ encoder.encode_images(["temple.jpg"]).T

Which pairs are near is `search`'s, what is kept of many is `index`'s.
"""

import abc
import functools
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float32, UInt8

from vlm_jax.checkpoint import encoder_folder
from vlm_jax.checkpoint.encoder_folder import EncoderFolder
from vlm_jax.checkpoint.source import resolve
from vlm_jax.errors import InputError
from vlm_jax.inference.decoding import bucket
from vlm_jax.inference.embedding import NOTHING
from vlm_jax.inference.engine import LoadedModel
from vlm_jax.models.parameters import Flat, replace
from vlm_jax.parallel.starting import keep_compiled_programs, leave_absent_tpu_alone
from vlm_jax.processing.images import Source, with_image

ROWS = 32
"""Texts or images that go through an encoder at one time at most."""
DTYPES = ("auto", "float32", "bfloat16")


class Encoder(abc.ABC):
    """What makes vectors of texts and images in one space.

    Attributes:
      name: of its folder.
      dimension: values of a vector.
      longest: tokens of a text that are read at most; None: all.
    """

    name: str
    dimension: int
    longest: int | None = None

    @abc.abstractmethod
    def fingerprint(self) -> str:
        """Tells encoders apart whose vectors must not be compared."""

    @abc.abstractmethod
    def encode_texts(self, texts: Sequence[str]) -> Float32[np.ndarray, "n d"]:
        """Vectors of unit length. Of a text that is longer than `longest`, its beginning is read."""

    @abc.abstractmethod
    def encode_images(self, images: Sequence[Source]) -> Float32[np.ndarray, "n d"]:
        """Vectors of unit length.

        Raises:
          InputError: an unreadable image.
        """

    @abc.abstractmethod
    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, whether they are read or not."""

    @abc.abstractmethod
    def embed(self, text: str | None = None, image: Source | None = None) -> Float32[np.ndarray, " d"]:
        """The vector of a text, of an image, or of both together.

        Raises:
          InputError: neither, or an unreadable image.
        """


class ContrastiveFolder(Encoder):
    """A CLIP or SigLIP on the device, with compiled functions for a few shapes: rows in powers of two, and texts of a
    CLIP in steps of 16 tokens (what comes behind its end changes nothing; a SigLIP reads its padding).

    Attributes:
      logit_scale, logit_bias: a pair's logit is its cosine · logit_scale + logit_bias; a CLIP has no bias: 0.
    """

    def __init__(self, source: EncoderFolder, *, dtype: str = "float32"):
        self.name, self.config, self._source = source.folder.resolve().name, source.config, source
        self.dimension, self.longest = source.config.dimension, source.config.text.length
        kind = jnp.dtype(dtype)
        self.parameters = source.read(kind)
        graph, state = nnx.split(encoder_folder.abstract_model(source.config))

        def unit(vectors: jax.Array) -> jax.Array:
            vectors = vectors.astype(jnp.float32)
            return vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)

        # By itself an accelerator multiplies float32 in fewer bits: vectors would differ from device to device.
        precision = "highest" if kind == jnp.float32 else None

        def compiled(method: str):
            def vectors(parameters: Flat, *inputs) -> jax.Array:
                with jax.default_matmul_precision(precision):
                    model = nnx.merge(graph, replace(state, parameters))
                    return unit(getattr(model, method)(*inputs, dtype=kind))

            return jax.jit(vectors)

        self._texts, self._images = compiled("texts"), compiled("images")
        self.logit_scale = math.exp(float(np.asarray(self.parameters["logit_scale"]).reshape(-1)[0]))
        bias = self.parameters.get("logit_bias")
        self.logit_bias = 0.0 if bias is None else float(np.asarray(bias)[0])

    def fingerprint(self) -> str:
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        return self._source.digest()

    def encode_texts(self, texts: Sequence[str]) -> Float32[np.ndarray, "n d"]:
        found = [np.zeros((0, self.dimension), np.float32)]
        for start in range(0, len(texts), ROWS):
            part = _checked(texts[start : start + ROWS])
            tokens, seen = self._tokens(part)
            found.append(np.asarray(self._texts(self.parameters, tokens, seen))[: len(part)])
        return np.concatenate(found)

    def _tokens(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and which of them are seen, [rows, tokens] each; rows behind the texts are the first again."""
        options: dict[str, Any] = {"truncation": True, "max_length": self.longest}
        if self.config.text.filled_up:
            options["padding"] = "max_length"
        encoded = self._source.tokenizer(texts, **options)
        ids, seen = encoded["input_ids"], encoded.get("attention_mask")
        # Of a CLIP nothing sees what comes behind a text's end, and 0 is no higher than any id.
        length = min(self.longest or 0, bucket(max(map(len, ids)), 16))
        tokens = np.zeros((_rows(len(texts)), length), np.int32)
        mask = np.ones(tokens.shape, bool)
        for row, number in enumerate([*range(len(texts)), *[0] * (len(tokens) - len(texts))]):
            tokens[row, : len(ids[number])] = ids[number]
            if seen is not None and self.config.text.filled_up:
                mask[row] = np.asarray(seen[number], bool)
        return tokens, mask

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in self._source.tokenizer(_checked(texts))["input_ids"]] if len(texts) else []

    def encode_images(self, images: Sequence[Source]) -> Float32[np.ndarray, "n d"]:
        found = [np.zeros((0, self.dimension), np.float32)]
        for start in range(0, len(images), ROWS):
            part = images[start : start + ROWS]
            views = [self._patches(image) for image in part]
            views += [views[0]] * (_rows(len(part)) - len(part))
            found.append(np.asarray(self._images(self.parameters, np.stack(views)))[: len(part)])
        return np.concatenate(found)

    def _patches(self, image: Source) -> UInt8[np.ndarray, "p v"]:
        processor = self._source.images
        patches = with_image(image, lambda upright: processor.cut(upright, processor.grid(*upright.size)))[:, 0]
        return np.pad(patches, ((self.config.vision.class_slots, 0), (0, 0)))

    def embed(self, text: str | None = None, image: Source | None = None) -> Float32[np.ndarray, " d"]:
        """Of both: their sum at unit length, as UniIR fuses a CLIP's (Wei et al. 2023, "score fusion"): the similarity
        of two such vectors weighs those of their texts, their images, and of each with the other alike."""
        if text is None and image is None:
            raise InputError(NOTHING)
        vectors = [] if text is None else [self.encode_texts([text])[0]]
        vectors += [] if image is None else [self.encode_images([image])[0]]
        total = np.sum(vectors, axis=0)
        return total / np.linalg.norm(total)


class ModelEncoder(Encoder):
    """A model that answers, as an encoder: `LoadedModel.embed`."""

    def __init__(self, model: LoadedModel, name: str):
        self.model, self.name, self.dimension = model, name, model.config.decoder.hidden

    def fingerprint(self) -> str:
        processor = self.model.processor
        known = f"{self.model.fingerprint()} {processor.images.identity} {processor.budget} {processor.template}"
        return hashlib.sha256(known.encode()).hexdigest()[:16]

    def encode_texts(self, texts: Sequence[str]) -> Float32[np.ndarray, "n d"]:
        return self.model.embeddings([(text, None) for text in _checked(texts)])

    def encode_images(self, images: Sequence[Source]) -> Float32[np.ndarray, "n d"]:
        return self.model.embeddings([(None, image) for image in images])

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        return [len(self.model.processor.tokenizer(text)["input_ids"]) for text in _checked(texts)]

    def embed(self, text: str | None = None, image: Source | None = None) -> Float32[np.ndarray, " d"]:
        return self.model.embed(text, image)


def load_encoder(path: str | Path, dtype: str = "auto") -> Encoder:
    """The encoder of a folder, or hub id: a CLIP or SigLIP with both halves, else a model that `vlm_jax.load` opens.

    Args:
      dtype: float32 or bfloat16, of what is computed; vectors are float32. auto is float32 of a CLIP or SigLIP, and of
        a model what `vlm_jax.load` takes.

    Raises:
      InputError: neither, or one that is incomplete or has settings that are not computed; every error is listed.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r}: known are {', '.join(DTYPES)}")
    leave_absent_tpu_alone()
    keep_compiled_programs()
    folder = resolve(str(path))
    if isinstance(folder, Path) and encoder_folder.is_encoder_folder(folder):
        return ContrastiveFolder(encoder_folder.open_folder(folder), dtype="float32" if dtype == "auto" else dtype)
    from vlm_jax.inference.loading import load

    return ModelEncoder(load(path, dtype), Path(path).name)


def _checked(texts: Sequence[str]) -> list[str]:
    odd = [text for text in texts if not isinstance(text, str)]
    if isinstance(texts, str) or odd:
        raise InputError(f"texts to embed are a list of str, not {type(texts if isinstance(texts, str) else odd[0])}")
    return list(texts)


def _rows(count: int) -> int:
    return 1 << (count - 1).bit_length()
