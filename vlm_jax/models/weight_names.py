"""How parameters and the tensors of a Hugging Face folder correspond: one entry a parameter, read both ways.

Names are the hub's of Qwen-VL folders (`model.layers.*`, `visual.*`). What other layouts call the same tensors, and the
entries of a tower and its connector, are a family's (`families`); the decoder's and the tables' are here.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from vlm_jax.models.config import DecoderConfig


@dataclasses.dataclass(frozen=True)
class Transform:
    """How one Hugging Face tensor becomes (one layer of) one of our arrays, and back. Both only move bytes."""

    read: Callable[[np.ndarray], np.ndarray]
    write: Callable[[np.ndarray], np.ndarray]
    shape: Callable[[tuple[int, ...]], tuple[int, ...]]
    """The tensor's shape from our array's."""


def _same(x):
    return x


SAME = Transform(_same, _same, _same)
TRANSPOSED = Transform(np.transpose, np.transpose, lambda shape: shape[::-1])
"""torch's Linear [out, in] against our [in, out]."""


def conv3d(channels: int, patch: int) -> Transform:
    """Conv3d [d, C, T, ph, pw] against our [T, C · ph · pw, d]."""
    return Transform(
        lambda w: w.transpose(2, 1, 3, 4, 0).reshape(w.shape[2], -1, w.shape[0]),
        lambda w: w.reshape(w.shape[0], channels, patch, patch, w.shape[2]).transpose(4, 1, 0, 2, 3),
        lambda shape: (shape[2], channels, shape[0], patch, patch),
    )


def conv2d(channels: int, patch: int) -> Transform:
    """Conv2d [d, C, ph, pw] against our [C · ph · pw, d]."""
    return Transform(
        lambda w: w.reshape(w.shape[0], -1).T,
        lambda w: w.T.reshape(w.shape[1], channels, patch, patch),
        lambda shape: (shape[1], channels, patch, patch),
    )


def leading(count: int) -> Transform:
    """So many axes of length one before ours."""
    return Transform(
        lambda w: w.reshape(w.shape[count:]),
        lambda w: w.reshape((1,) * count + w.shape),
        lambda shape: (1,) * count + tuple(shape),
    )


@dataclasses.dataclass(frozen=True)
class WeightName:
    """One of our parameters and the tensor (or, with `{}` in `name`, the tensors, a layer each) it comes from."""

    path: str
    name: str
    transform: Transform
    layers: int | None = None
    first: int = 0
    """The number of the first layer."""

    def tensors(self) -> list[str]:
        if self.layers is None:
            return [self.name]
        return [self.name.format(index) for index in range(self.first, self.first + self.layers)]


def weight_names(pairs: Mapping[str, str], layers: int | None = None, first: int = 0) -> list[WeightName]:
    """Entries of {path: name}: kernels are transposed, everything else is the same."""
    return [
        WeightName(path, name, TRANSPOSED if path.endswith("/kernel") else SAME, layers, first)
        for path, name in pairs.items()
    ]


LINEAR = {"kernel": "weight", "bias": "bias"}
NORM = {"scale": "weight", "bias": "bias"}


def decoder_names(config: DecoderConfig) -> list[WeightName]:
    """The embedding, the decoder's layers and norm, and the head where it is not tied."""
    layer = {"input_norm/scale": "input_layernorm.weight", "mlp_norm/scale": "post_attention_layernorm.weight"}
    layer |= {f"attention/{p}_proj/kernel": f"self_attn.{p}_proj.weight" for p in "qkvo"}
    if config.qkv_bias:
        layer |= {f"attention/{p}_proj/bias": f"self_attn.{p}_proj.bias" for p in "qkv"}
    if config.qk_norm:
        layer |= {f"attention/{p}_norm/scale": f"self_attn.{p}_norm.weight" for p in "qk"}
    layer |= {f"mlp/{p}_proj/kernel": f"mlp.{p}_proj.weight" for p in ("gate", "up", "down")}
    stacked = {f"decoder/layers/layer/{ours}": f"model.layers.{{}}.{theirs}" for ours, theirs in layer.items()}
    tables = {"embedding": "model.embed_tokens.weight", "decoder/norm/scale": "model.norm.weight"}
    head = [] if config.tied else [WeightName("head", "lm_head.weight", TRANSPOSED)]
    return [*weight_names(tables), *weight_names(stacked, config.layers), *head]
