"""The one table between our parameters and the tensors of a Hugging Face folder, used for reading and writing alike.

Names are the hub's layout (`model.layers.*`, `visual.*`); `hub_name` maps what transformers holds in memory onto it.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from vlm_jax.models.config import VLMConfig


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


def _conv(channels: int, patch: int) -> Transform:
    """Conv3d [d, C, T, ph, pw] against our [T, C · ph · pw, d]."""
    return Transform(
        lambda w: w.transpose(2, 1, 3, 4, 0).reshape(w.shape[2], -1, w.shape[0]),
        lambda w: w.reshape(w.shape[0], channels, patch, patch, w.shape[2]).transpose(4, 1, 0, 2, 3),
        lambda shape: (shape[2], channels, shape[0], patch, patch),
    )


@dataclasses.dataclass(frozen=True)
class Entry:
    """One of our parameters and the tensor (or, with `{}` in `name`, the tensors, a layer each) it comes from."""

    path: str
    name: str
    transform: Transform
    layers: int | None = None

    def tensors(self) -> list[str]:
        return [self.name] if self.layers is None else [self.name.format(index) for index in range(self.layers)]


_KINDS = {"kernel": "weight", "bias": "bias"}
_DECODER_LAYER = {
    "input_norm/scale": "input_layernorm.weight",
    "mlp_norm/scale": "post_attention_layernorm.weight",
    **{f"attention/{p}_proj/kernel": f"self_attn.{p}_proj.weight" for p in "qkvo"},
    **{f"attention/{p}_proj/bias": f"self_attn.{p}_proj.bias" for p in "qkv"},
    **{f"mlp/{p}_proj/kernel": f"mlp.{p}_proj.weight" for p in ("gate", "up", "down")},
}
_VISION_BLOCK = {
    family: {
        "norm1/scale": "norm1.weight",
        "norm2/scale": "norm2.weight",
        **{f"{part}/{kind}": f"attn.{part}.{name}" for part in ("qkv", "proj") for kind, name in _KINDS.items()},
        **{f"mlp/{part}/{kind}": f"mlp.{part}.{name}" for part in mlp for kind, name in _KINDS.items()},
    }
    for family, mlp in (("qwen2_5_vl", ("gate_proj", "up_proj", "down_proj")), ("qwen2_vl", ("fc1", "fc2")))
}
_VISION_BLOCK["qwen2_vl"] |= {"norm1/bias": "norm1.bias", "norm2/bias": "norm2.bias"}
_TOP = {
    "connector/norm/scale": "visual.merger.ln_q.weight",
    "connector/fc1/kernel": "visual.merger.mlp.0.weight",
    "connector/fc1/bias": "visual.merger.mlp.0.bias",
    "connector/fc2/kernel": "visual.merger.mlp.2.weight",
    "connector/fc2/bias": "visual.merger.mlp.2.bias",
    "embedding": "model.embed_tokens.weight",
    "decoder/norm/scale": "model.norm.weight",
}


def name_table(config: VLMConfig) -> list[Entry]:
    """An entry for every parameter of a model, in the order of the forward pass."""

    def linear_or_same(path: str) -> Transform:
        return TRANSPOSED if path.endswith("/kernel") else SAME

    table = [
        Entry(
            "vision/patch_embed/kernel",
            "visual.patch_embed.proj.weight",
            _conv(config.vision.channels, config.vision.patch_size),
        )
    ]
    for ours, theirs in _VISION_BLOCK[config.vision.family].items():
        path, name = f"vision/blocks/layer/{ours}", "visual.blocks.{}." + theirs
        table.append(Entry(path, name, linear_or_same(path), config.vision.depth))
    if config.vision.family == "qwen2_vl":
        table.append(Entry("connector/norm/bias", "visual.merger.ln_q.bias", SAME))
    table += [Entry(path, name, linear_or_same(path)) for path, name in _TOP.items()]
    for ours, theirs in _DECODER_LAYER.items():
        path, name = f"decoder/layers/layer/{ours}", "model.layers.{}." + theirs
        table.append(Entry(path, name, linear_or_same(path), config.decoder.layers))
    if not config.decoder.tied:
        table.append(Entry("head", "lm_head.weight", TRANSPOSED))
    return table


def hub_name(name: str) -> str:
    """The hub's name of a tensor, whichever of the two layouts it was stored in."""
    for memory, hub in (("model.language_model.", "model."), ("model.visual.", "visual.")):
        if name.startswith(memory):
            return hub + name.removeprefix(memory)
    return name


def memory_name(name: str) -> str:
    """The name that transformers gives a tensor of the hub's layout in memory: the inverse of `hub_name`."""
    if name.startswith("visual."):
        return "model." + name
    return "model.language_model." + name.removeprefix("model.") if name.startswith("model.") else name
