"""The one table between our parameters and the tensors of a Hugging Face folder, used for reading and writing alike.

Names are the hub's of Qwen-VL folders (`model.layers.*`, `visual.*`), with `vision_tower.*` and
`multi_modal_projector.*` for assembled models. `hub_name` maps other layouts of the same tensors onto them: what
transformers holds in memory, and what LLaVA's files say; `memory_name` and `file_name` are its inverses.
"""

import dataclasses
import re
from collections.abc import Callable

import numpy as np

from vlm_jax.models.config import VLMConfig
from vlm_jax.models.encoder import unused_shapes


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


def _conv2d(channels: int, patch: int) -> Transform:
    """Conv2d [d, C, ph, pw] against our [C · ph · pw, d]."""
    return Transform(
        lambda w: w.reshape(w.shape[0], -1).T,
        lambda w: w.T.reshape(w.shape[1], channels, patch, patch),
        lambda shape: (shape[1], channels, patch, patch),
    )


_LEADING = {
    # axes of length one before ours
    count: Transform(
        lambda w, count=count: w.reshape(w.shape[count:]),
        lambda w, count=count: w.reshape((1,) * count + w.shape),
        lambda shape, count=count: (1,) * count + tuple(shape),
    )
    for count in (0, 1, 2)
}


@dataclasses.dataclass(frozen=True)
class Entry:
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
_MERGER = {
    "connector/norm/scale": "visual.merger.ln_q.weight",
    "connector/fc1/kernel": "visual.merger.mlp.0.weight",
    "connector/fc1/bias": "visual.merger.mlp.0.bias",
    "connector/fc2/kernel": "visual.merger.mlp.2.weight",
    "connector/fc2/bias": "visual.merger.mlp.2.bias",
}
_TOP = {
    "embedding": "model.embed_tokens.weight",
    "decoder/norm/scale": "model.norm.weight",
}


_ENCODER = {
    # path -> (tensor, leading axes of length one)
    "clip": {
        "vision/patch_embed/kernel": ("vision_tower.embeddings.patch_embedding.weight", 0),
        "vision/class_token": ("vision_tower.embeddings.class_embedding", 0),
        "vision/positions": ("vision_tower.embeddings.position_embedding.weight", 0),
        "vision/pre_norm/scale": ("vision_tower.pre_layrnorm.weight", 0),
        "vision/pre_norm/bias": ("vision_tower.pre_layrnorm.bias", 0),
    },
    "siglip": {
        "vision/patch_embed/kernel": ("vision_tower.embeddings.patch_embedding.weight", 0),
        "vision/patch_embed/bias": ("vision_tower.embeddings.patch_embedding.bias", 0),
        "vision/positions": ("vision_tower.embeddings.position_embedding.weight", 0),
    },
    "vit": {
        "vision/patch_embed/kernel": ("vision_tower.embeddings.patch_embeddings.projection.weight", 0),
        "vision/patch_embed/bias": ("vision_tower.embeddings.patch_embeddings.projection.bias", 0),
        "vision/class_token": ("vision_tower.embeddings.cls_token", 2),
        "vision/positions": ("vision_tower.embeddings.position_embeddings", 1),
    },
}
_ENCODER_PLACE = {
    "clip": "vision_tower.encoder.layers.{}.",
    "siglip": "vision_tower.encoder.layers.{}.",
    "vit": "vision_tower.encoder.layer.{}.",
}
_NORM_KINDS = {"scale": "weight", "bias": "bias"}
_CLIP_LAYER = {
    **{f"norm{n}/{kind}": f"layer_norm{n}.{name}" for n in (1, 2) for kind, name in _NORM_KINDS.items()},
    **{
        f"attention/{part}/{kind}": f"self_attn.{part}.{name}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj")
        for kind, name in _KINDS.items()
    },
    **{f"mlp/{part}/{kind}": f"mlp.{part}.{name}" for part in ("fc1", "fc2") for kind, name in _KINDS.items()},
}
_VIT_LAYER = {
    f"{ours}/{kind}": f"{theirs}.{name}"
    for ours, theirs, kinds in (
        ("norm1", "layernorm_before", _NORM_KINDS),
        ("norm2", "layernorm_after", _NORM_KINDS),
        ("attention/q_proj", "attention.attention.query", _KINDS),
        ("attention/k_proj", "attention.attention.key", _KINDS),
        ("attention/v_proj", "attention.attention.value", _KINDS),
        ("attention/out_proj", "attention.output.dense", _KINDS),
        ("mlp/fc1", "intermediate.dense", _KINDS),
        ("mlp/fc2", "output.dense", _KINDS),
    )
    for kind, name in kinds.items()
}
_ENCODER_LAYER = {"clip": _CLIP_LAYER, "siglip": _CLIP_LAYER, "vit": _VIT_LAYER}
_POOLER = {
    "vit": {"pooler_weight": "pooler.dense.weight", "pooler_bias": "pooler.dense.bias"},
    "siglip": {
        "probe": "head.probe",
        "in_weight": "head.attention.in_proj_weight",
        "in_bias": "head.attention.in_proj_bias",
        "out_weight": "head.attention.out_proj.weight",
        "out_bias": "head.attention.out_proj.bias",
        **{
            f"{part}_{kind}": f"head.{place}.{kind}"
            for part, place in (("layernorm", "layernorm"), ("fc1", "mlp.fc1"), ("fc2", "mlp.fc2"))
            for kind in ("weight", "bias")
        },
    },
}
_PROJECTOR = {
    "mlp": {
        f"connector/{ours}/{kind}": f"multi_modal_projector.{theirs}.{name}"
        for ours, theirs in (("fc1", "linear_1"), ("fc2", "linear_2"))
        for kind, name in _KINDS.items()
    },
    "linear": {f"connector/proj/{kind}": f"multi_modal_projector.linear.{name}" for kind, name in _KINDS.items()},
}


def _linear_or_same(path: str) -> Transform:
    return TRANSPOSED if path.endswith("/kernel") else SAME


def name_table(config: VLMConfig) -> list[Entry]:
    """An entry for every parameter of a model, in the order of the forward pass."""
    table = _assembled(config) if config.assembled else _qwen_tower(config)
    table += [Entry(path, name, SAME) for path, name in _TOP.items()]
    for ours, theirs in _DECODER_LAYER.items():
        path, name = f"decoder/layers/layer/{ours}", "model.layers.{}." + theirs
        table.append(Entry(path, name, _linear_or_same(path), config.decoder.layers))
    if not config.decoder.tied:
        table.append(Entry("head", "lm_head.weight", TRANSPOSED))
    return table


def _qwen_tower(config: VLMConfig) -> list[Entry]:
    table = [
        Entry(
            "vision/patch_embed/kernel",
            "visual.patch_embed.proj.weight",
            _conv(config.vision.channels, config.vision.patch_size),
        )
    ]
    for ours, theirs in _VISION_BLOCK[config.vision.family].items():
        path, name = f"vision/blocks/layer/{ours}", "visual.blocks.{}." + theirs
        table.append(Entry(path, name, _linear_or_same(path), config.vision.depth))
    if config.vision.family == "qwen2_vl":
        table.append(Entry("connector/norm/bias", "visual.merger.ln_q.bias", SAME))
    return table + [Entry(path, name, _linear_or_same(path)) for path, name in _MERGER.items()]


def _assembled(config: VLMConfig) -> list[Entry]:
    vision = config.vision
    names, layer = _ENCODER[vision.family], _ENCODER_LAYER[vision.family]
    embeddings = {"vision/patch_embed/kernel": _conv2d(vision.channels, vision.patch_size)}
    table = [Entry(path, name, embeddings.get(path, _LEADING[lead])) for path, (name, lead) in names.items()]
    parts = [("vision/blocks", vision.depth, 0)]
    parts += [("vision/unused/blocks", vision.unused_layers, vision.depth)] if vision.unused_layers else []
    for place, layers, first in parts:
        for ours, theirs in layer.items():
            path = f"{place}/layer/{ours}"
            table.append(Entry(path, _ENCODER_PLACE[vision.family] + theirs, _linear_or_same(path), layers, first))
    last = "layernorm" if vision.family == "vit" else "post_layernorm"
    norm = ("vision/norm/scale", "vision/norm/bias")
    norm = norm if vision.final_norm else ("vision/unused/norm_scale", "vision/unused/norm_bias")
    pairs = dict(zip(norm, (f"vision_tower.{last}.weight", f"vision_tower.{last}.bias"), strict=True))
    held = unused_shapes(vision)
    pairs |= {
        f"vision/unused/{name}": f"vision_tower.{theirs}"
        for name, theirs in _POOLER.get(vision.family, {}).items()
        if name in held
    }
    pairs |= _PROJECTOR[config.connector]
    if config.newline:
        pairs["newline"] = "image_newline"
    return table + [Entry(path, name, _linear_or_same(path)) for path, name in pairs.items()]


# What transformers 5 calls a ViT's layers in memory, and what its files call them.
_VIT_MEMORY = (
    ("attention.q_proj", "attention.attention.query"),
    ("attention.k_proj", "attention.attention.key"),
    ("attention.v_proj", "attention.attention.value"),
    ("attention.o_proj", "attention.output.dense"),
    ("mlp.fc1", "intermediate.dense"),
    ("mlp.fc2", "output.dense"),
)
_PREFIXES = (
    ("model.language_model.", "model."),
    ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."),
    ("model.visual.", "visual."),
    ("model.vision_tower.", "vision_tower."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.image_newline", "image_newline"),
)


def hub_name(name: str) -> str:
    """The table's name of a tensor (or of a module), whichever layout it was stored in."""
    for other, hub in _PREFIXES:
        if name.startswith(other):
            name = hub + name.removeprefix(other)
            break
    name = name.replace("vision_tower.vision_model.", "vision_tower.")
    if match := re.match(r"vision_tower\.layers\.(\d+)\.", name):  # a ViT's
        rest = name[match.end() :]
        for memory, hub in _VIT_MEMORY:
            if rest.startswith(memory):
                rest = hub + rest.removeprefix(memory)
                break
        name = f"vision_tower.encoder.layer.{match[1]}.{rest}"
    return name


def memory_name(name: str) -> str:
    """The name that transformers gives a tensor of the table in memory: the inverse of `hub_name`."""
    if match := re.match(r"vision_tower\.encoder\.layer\.(\d+)\.", name):
        rest = name[match.end() :]
        for memory, hub in _VIT_MEMORY:
            if rest.startswith(hub):
                rest = memory + rest.removeprefix(hub)
                break
        name = f"vision_tower.layers.{match[1]}.{rest}"
    if name.startswith(("visual.", "vision_tower.", "multi_modal_projector.", "image_newline")):
        return "model." + name
    return "model.language_model." + name.removeprefix("model.") if name.startswith("model.") else name


def file_name(name: str, config: VLMConfig) -> str:
    """What files of the hub call a tensor of the table; older versions of transformers read no other names."""
    if not config.assembled:
        return name
    if name.startswith(("model.", "lm_head.")):
        return "language_model." + name
    if config.vision.family != "vit" and name.startswith("vision_tower."):
        return "vision_tower.vision_model." + name.removeprefix("vision_tower.")
    return name
