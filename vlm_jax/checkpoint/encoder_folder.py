"""A CLIP or SigLIP folder in Hugging Face's layout, with both halves: shapes, tokenizer, image processor, weights."""

import dataclasses
import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vlm_jax.checkpoint import description, weight_digests, weight_files, weight_table
from vlm_jax.checkpoint.files import read_json
from vlm_jax.errors import InputError, gathered
from vlm_jax.models.contrastive.config_json import image_processor, is_contrastive, read_contrastive
from vlm_jax.models.contrastive.encoder import ContrastiveEncoder
from vlm_jax.models.contrastive.names import in_table, names
from vlm_jax.models.contrastive.shapes import ContrastiveConfig
from vlm_jax.models.parameters import Flat
from vlm_jax.processing.image_processors.fixed_views import FixedViews

SENTENCEPIECE = "spiece.model"
_PROBES = ("a photo of 2 cats.", "Wat Arun — วัดอรุณ, Bangkok's temple", "数字 Ñandú")
"""Texts whose tokens tell tokenizers apart."""


@dataclasses.dataclass(frozen=True)
class EncoderFolder:
    """What is read of a folder before its weights. `tokenizer` is transformers'."""

    folder: Path
    config: ContrastiveConfig
    images: FixedViews
    tokenizer: Any

    def digest(self) -> str:
        """Tells encoders apart, without reading all weights: by spots of every tensor, what images are turned into, and
        the tokens of a few texts. What the folder is called, and the dtype that it is loaded in, are no part of it."""
        hasher = hashlib.sha256(f"{self.config} {self.images.identity}".encode())
        for name, size, spots in weight_digests.spots_of(self.folder):
            hasher.update(f"{name} {size}".encode() + b"".join(spots))
        hasher.update(str([list(self.tokenizer(probe)["input_ids"]) for probe in _PROBES]).encode())
        return hasher.hexdigest()[:16]

    def read(self, dtype) -> Flat:
        """The parameters on the device.

        Raises:
          InputError: missing or truncated files, missing, surplus or misshapen tensors, all of them listed.
        """
        paths, errors = weight_files.located(self.folder)
        places, stored = {}, {}
        for path, tensors in weight_files.described(paths, errors).items():
            for key, known in tensors.items():
                if (name := in_table(key)) is not None:
                    places[name], stored[name] = (path, key), known
        table, shapes = names(self.config), abstract_parameters(self.config)
        if errors := weight_table.mismatches(str(self.folder), table, shapes, stored):
            raise InputError(errors)
        views = {path: weight_files.mapped(path) for path in paths}
        tensors = {name: views[path].get(key) for name, (path, key) in places.items()}
        parameters = weight_table.joined(table, shapes, tensors)
        return {path: jax.device_put(array.astype(dtype)[...]) for path, array in parameters.items()}


def abstract_model(config: ContrastiveConfig) -> ContrastiveEncoder:
    """The encoder with shapes in place of arrays."""
    return nnx.eval_shape(lambda: ContrastiveEncoder(config, dtype=jnp.float32, rngs=nnx.Rngs(0)))


def abstract_parameters(config: ContrastiveConfig) -> dict[str, Any]:
    """{path: shape and dtype}."""
    state = nnx.split(abstract_model(config))[1]
    return {"/".join(map(str, path)): variable.get_value() for path, variable in nnx.to_flat_state(state)}


def is_encoder_folder(folder: Path) -> bool:
    """Whether a folder says that it is a CLIP or SigLIP, of one half or both."""
    path = folder / "config.json"
    return path.is_file() and is_contrastive(read_json(path))


def open_folder(folder: Path) -> EncoderFolder:
    """Raises InputError for what is missing, of another kind, or not computed: all errors that can be found."""
    path, errors = folder / "config.json", []
    with description.settings_of(path):
        config = read_contrastive(read_json(path), str(path))
    images = tokenizer = None
    with gathered(errors):
        images = description.image_processor_by(folder, lambda settings: image_processor(settings, config))
    with gathered(errors):
        tokenizer = _tokenizer(folder, config)
    if errors:
        raise InputError(errors)
    assert images is not None
    vision = dataclasses.replace(config.vision, pixel_mean=images.mean, pixel_std=images.std)
    return EncoderFolder(folder, dataclasses.replace(config, vision=vision), images, tokenizer)


def _tokenizer(folder: Path, config: ContrastiveConfig) -> Any:
    alone = (folder / SENTENCEPIECE).is_file() and not (folder / "tokenizer.json").is_file()
    if alone and importlib.util.find_spec("sentencepiece") is None:
        raise InputError(
            f"{folder}: its tokenizer is {SENTENCEPIECE}, which the package sentencepiece reads; install it: "
            "pip install 'vlm-jax[retrieval]'"
        )
    tokenizer = description.read_tokenizer(folder)
    if len(tokenizer) > config.text.vocab:
        raise InputError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, the text half only {config.text.vocab}; one of them "
            "is of another model: copy both from one"
        )
    end = config.text.end_token
    if end is not None and end not in tokenizer(_PROBES[0])["input_ids"]:
        raise InputError(
            f"{folder}: config.json says that texts end with the token {end} (eos_token_id), and the tokenizer ends "
            "none with it; one of them is of another model: copy both from one"
        )
    return tokenizer
