"""Qwen2.5-VL and Qwen2-VL as families: their towers, files, weight names and special tokens."""

from collections.abc import Mapping
from typing import Any

from vlm_jax.models.config import VLMConfig
from vlm_jax.models.decoder_json import QWEN2_TOKENIZER
from vlm_jax.models.family import Family
from vlm_jax.models.qwen_vl.config_json import TITLES, from_qwen, to_qwen
from vlm_jax.models.qwen_vl.tower import Merger, VisionTower
from vlm_jax.models.weight_names import LINEAR, NORM, WeightName, conv3d, weight_names
from vlm_jax.processing.image_processors.dynamic_resolution import DynamicResolution

_PREFIXES = (("model.language_model.", "model."), ("model.visual.", "visual."))
"""What transformers 5 writes, and the table's."""
_MERGER = {
    "connector/fc1/kernel": "visual.merger.mlp.0.weight",
    "connector/fc1/bias": "visual.merger.mlp.0.bias",
    "connector/fc2/kernel": "visual.merger.mlp.2.weight",
    "connector/fc2/bias": "visual.merger.mlp.2.bias",
}


def _names(config: VLMConfig, norms: Mapping[str, str], mlp: tuple[str, ...]) -> list[WeightName]:
    """Of the tower and the merger.

    Args:
      norms: {ours: theirs} of a norm's parameters.
      mlp: the linear layers of a block's MLP.
    """
    vision = config.vision
    block = {f"norm{number}/{kind}": f"norm{number}.{name}" for number in (1, 2) for kind, name in norms.items()}
    block |= {
        f"{place}/{kind}": f"{theirs}.{name}"
        for place, theirs in [
            *((part, f"attn.{part}") for part in ("qkv", "proj")),
            *((f"mlp/{part}", f"mlp.{part}") for part in mlp),
        ]
        for kind, name in LINEAR.items()
    }
    stacked = {f"vision/blocks/layer/{ours}": f"visual.blocks.{{}}.{theirs}" for ours, theirs in block.items()}
    merger = {f"connector/norm/{kind}": f"visual.merger.ln_q.{name}" for kind, name in norms.items()} | _MERGER
    patches = conv3d(vision.channels, vision.patch_size)
    return [
        WeightName("vision/patch_embed/kernel", "visual.patch_embed.proj.weight", patches),
        *weight_names(stacked, vision.depth),
        *weight_names(merger),
    ]


def _in_table(name: str) -> str:
    for other, ours in _PREFIXES:
        if name.startswith(other):
            return ours + name.removeprefix(other)
    return name


def _in_memory(name: str) -> str:
    return f"model.{name}" if name.startswith("visual.") else name


def _special_tokens(config: VLMConfig) -> dict[str, int]:
    return {
        "<|image_pad|>": config.image_token,
        "<|vision_start|>": config.vision_start_token,
        "<|vision_end|>": config.vision_end_token,
    }


def _image_processor(settings: Mapping[str, Any], config: VLMConfig) -> DynamicResolution:
    return DynamicResolution.from_json(settings)


def _family(name: str, processor_class: str, norms: Mapping[str, str], mlp: tuple[str, ...]) -> Family:
    return Family(
        model_types={name: TITLES[name]},
        tower=VisionTower,
        connectors={"merger": Merger},
        read_config=from_qwen,
        write_config=to_qwen,
        weight_names=lambda config: _names(config, norms, mlp),
        read_image_processor=_image_processor,
        modules=("visual",),
        processor_class=processor_class,
        new_image_processor=DynamicResolution,
        tokenizers={name: QWEN2_TOKENIZER},
        special_tokens=_special_tokens,
        name_in_table=_in_table,
        name_in_memory=_in_memory,
        connector_modules=lambda config: ("visual.merger",),
    )


QWEN2_5_VL = _family("qwen2_5_vl", "Qwen2_5_VLProcessor", {"scale": "weight"}, ("gate_proj", "up_proj", "down_proj"))
QWEN2_VL = _family("qwen2_vl", "Qwen2VLProcessor", NORM, ("fc1", "fc2"))
