"""The weight names of assembled models: the encoder's, the projector's, and what other layouts call them."""

import re

from vlm_jax.models.config import VLMConfig
from vlm_jax.models.llava.shapes import EncoderConfig
from vlm_jax.models.llava.tower import unused_shapes
from vlm_jax.models.weight_names import LINEAR, NORM, WeightName, conv2d, leading, weight_names

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
CLIP_LAYER = {
    **{f"norm{n}/{kind}": f"layer_norm{n}.{name}" for n in (1, 2) for kind, name in NORM.items()},
    **{
        f"attention/{part}/{kind}": f"self_attn.{part}.{name}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj")
        for kind, name in LINEAR.items()
    },
    **{f"mlp/{part}/{kind}": f"mlp.{part}.{name}" for part in ("fc1", "fc2") for kind, name in LINEAR.items()},
}
_VIT_LAYER = {
    f"{ours}/{kind}": f"{theirs}.{name}"
    for ours, theirs, kinds in (
        ("norm1", "layernorm_before", NORM),
        ("norm2", "layernorm_after", NORM),
        ("attention/q_proj", "attention.attention.query", LINEAR),
        ("attention/k_proj", "attention.attention.key", LINEAR),
        ("attention/v_proj", "attention.attention.value", LINEAR),
        ("attention/out_proj", "attention.output.dense", LINEAR),
        ("mlp/fc1", "intermediate.dense", LINEAR),
        ("mlp/fc2", "output.dense", LINEAR),
    )
    for kind, name in kinds.items()
}
_ENCODER_LAYER = {"clip": CLIP_LAYER, "siglip": CLIP_LAYER, "vit": _VIT_LAYER}
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
        for kind, name in LINEAR.items()
    },
    "linear": {f"connector/proj/{kind}": f"multi_modal_projector.linear.{name}" for kind, name in LINEAR.items()},
}


def names(config: VLMConfig) -> list[WeightName]:
    """Of the encoder, what of it is unused, the projector and a row separator."""
    pairs = {**_PROJECTOR[config.connector], **({"newline": "image_newline"} if config.newline else {})}
    return [*tower_names(config.vision), *weight_names(pairs)]


def tower_names(vision: EncoderConfig) -> list[WeightName]:
    """Of the encoder, and what of it is unused."""
    names, layer = _ENCODER[vision.variant], _ENCODER_LAYER[vision.variant]
    embeddings = {"vision/patch_embed/kernel": conv2d(vision.channels, vision.patch_size)}
    table = [WeightName(path, name, embeddings.get(path, leading(lead))) for path, (name, lead) in names.items()]
    parts = [("vision/blocks", vision.depth, 0)]
    parts += [("vision/unused/blocks", vision.unused_layers, vision.depth)] if vision.unused_layers else []
    for place, layers, first in parts:
        stacked = {f"{place}/layer/{ours}": _ENCODER_PLACE[vision.variant] + theirs for ours, theirs in layer.items()}
        table += weight_names(stacked, layers, first)
    last = "layernorm" if vision.variant == "vit" else "post_layernorm"
    norm = ("vision/norm/scale", "vision/norm/bias")
    norm = norm if vision.final_norm else ("vision/unused/norm_scale", "vision/unused/norm_bias")
    pairs = dict(zip(norm, (f"vision_tower.{last}.weight", f"vision_tower.{last}.bias"), strict=True))
    unused = unused_shapes(vision)
    pairs |= {
        f"vision/unused/{name}": f"vision_tower.{theirs}"
        for name, theirs in _POOLER.get(vision.variant, {}).items()
        if name in unused
    }
    return table + weight_names(pairs)


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
    ("model.vision_tower.", "vision_tower."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.image_newline", "image_newline"),
)


def in_table(name: str) -> str:
    """The table's name of a tensor, from a file of the hub or from transformers' memory."""
    for other, ours in _PREFIXES:
        if name.startswith(other):
            name = ours + name.removeprefix(other)
            break
    name = name.replace("vision_tower.vision_model.", "vision_tower.")
    if match := re.match(r"vision_tower\.layers\.(\d+)\.", name):  # a ViT's
        name = f"vision_tower.encoder.layer.{match[1]}.{_renamed(name[match.end() :], _VIT_MEMORY)}"
    return name


def in_memory(name: str) -> str:
    """The name that transformers gives a tensor of the table in memory: the inverse of `in_table`."""
    if match := re.match(r"vision_tower\.encoder\.layer\.(\d+)\.", name):
        back = tuple((hub, memory) for memory, hub in _VIT_MEMORY)
        name = f"vision_tower.layers.{match[1]}.{_renamed(name[match.end() :], back)}"
    return f"model.{name}" if name.startswith(("vision_tower.", "multi_modal_projector.", "image_newline")) else name


def in_file(name: str, config: VLMConfig) -> str:
    """What files of the hub call a tensor of the table; older versions of transformers read no other names."""
    if name.startswith(("model.", "lm_head.")):
        return f"language_model.{name}"
    if config.vision.variant != "vit" and name.startswith("vision_tower."):
        return "vision_tower.vision_model." + name.removeprefix("vision_tower.")
    return name


# Of an encoder's own checkpoint: the text model beside it, heads for other tasks, and what is worked out anew.
_NOT_THE_TOWER = re.compile(
    r"(text_model|logit_scale|logit_bias|visual_projection|text_projection|classifier|decoder|head)\b"
    r"|embeddings\.mask_token|.*position_ids$"
)


def in_encoder(name: str) -> str | None:
    """The table's name of a tensor of an encoder's own checkpoint; None for what is no part of the tower."""
    name = name.removeprefix("vit.").removeprefix("vision_model.")
    return None if _NOT_THE_TOWER.match(name) else in_table(f"vision_tower.{name}")


PART_PREFIXES = {
    "vision_tower.": "encoder",
    "multi_modal_projector.": "connector",
    "model.": "decoder",
    "lm_head.": "decoder",
}
"""How the table's names of a part's tensors begin."""


def in_connector(name: str) -> str | None:
    """A tensor's name in the projector by itself, which is PyTorch's Sequential there, or one linear layer.

    `model.mm_projector.0.weight`, as LLaVA's own code calls it, and the table's `multi_modal_projector.linear_1.weight`
    are both `0.weight`. None where the tensor is no part of the projector.
    """
    if match := re.fullmatch(r"multi_modal_projector\.(linear_1|linear_2|linear)\.(weight|bias)", name):
        return {"linear_1": "0.", "linear_2": "2.", "linear": ""}[match[1]] + match[2]
    if match := re.fullmatch(r"(?:.*\bmm_projector\.(.*)|(?:.*\.)?(image_newline))", name):
        return match[1] or match[2]
    return None


def _renamed(rest: str, names: tuple[tuple[str, str], ...]) -> str:
    """The end of a layer's name, with its first part as the other side calls it."""
    for one, other in names:
        if rest.startswith(one):
            return other + rest.removeprefix(one)
    return rest
