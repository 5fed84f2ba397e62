"""Qwen3-VL as a family: its tower, files, weight names and special tokens."""

from collections.abc import Mapping
from typing import Any

from vlm_jax.models.config import VLMConfig
from vlm_jax.models.decoder_json import QWEN2_TOKENIZER
from vlm_jax.models.family import Family
from vlm_jax.models.qwen3_vl.config_json import TITLES, from_qwen3, to_qwen3
from vlm_jax.models.qwen3_vl.tower import Merger, VisionTower
from vlm_jax.models.weight_names import LINEAR, NORM, WeightName, conv3d, weight_names
from vlm_jax.processing.image_processors.dynamic_resolution import DynamicResolution

_PREFIXES = (("model.language_model.", "model."), ("model.visual.", "visual."))
"""What the hub's files and transformers have, and the table's."""
_MERGER = {
    f"{part}/{ours}": f"{theirs}.{name}"
    for part, theirs, kinds in (("norm", "norm", NORM), ("fc1", "linear_fc1", LINEAR), ("fc2", "linear_fc2", LINEAR))
    for ours, name in kinds.items()
}


def _names(config: VLMConfig) -> list[WeightName]:
    """Of the tower and the mergers."""
    vision = config.vision
    block = {f"norm{number}/{kind}": f"norm{number}.{name}" for number in (1, 2) for kind, name in NORM.items()}
    block |= {
        f"{place}/{kind}": f"{theirs}.{name}"
        for place, theirs in (
            ("qkv", "attn.qkv"),
            ("proj", "attn.proj"),
            ("mlp/fc1", "mlp.linear_fc1"),
            ("mlp/fc2", "mlp.linear_fc2"),
        )
        for kind, name in LINEAR.items()
    }
    first = {
        "vision/patch_embed/bias": "visual.patch_embed.proj.bias",
        "vision/positions/table": "visual.pos_embed.weight",
    }
    stacked = {f"vision/blocks/layer/{ours}": f"visual.blocks.{{}}.{theirs}" for ours, theirs in block.items()}
    merger = {f"connector/{ours}": f"visual.merger.{theirs}" for ours, theirs in _MERGER.items()}
    deep = {
        f"connector/deep/layer/{ours}": f"visual.deepstack_merger_list.{{}}.{theirs}"
        for ours, theirs in _MERGER.items()
    }
    patches = conv3d(vision.channels, vision.patch_size)
    return [
        WeightName("vision/patch_embed/kernel", "visual.patch_embed.proj.weight", patches),
        *weight_names(first),
        *weight_names(stacked, vision.depth),
        *weight_names(merger),
        *(weight_names(deep, len(vision.deepstack)) if vision.deepstack else ()),
    ]


def _in_table(name: str) -> str:
    for theirs, ours in _PREFIXES:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def _in_memory(name: str) -> str:
    """As transformers has it, and as the hub's files do: nothing is renamed when a model is saved."""
    for theirs, ours in reversed(_PREFIXES):
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def _connector_modules(config: VLMConfig) -> tuple[str, ...]:
    """One by one: peft takes no list of modules."""
    return (
        "visual.merger",
        *(f"visual.deepstack_merger_list.{number}" for number in range(len(config.vision.deepstack))),
    )


def _not_this_template(template: str) -> str:
    """Thinking checkpoints have the same shapes; their template begins every answer with what is thought first."""
    if "<think>" not in template:
        return ""
    return (
        "its chat template writes <think>: Thinking checkpoints of Qwen3-VL are not supported; take the Instruct one "
        "of the same size"
    )


def _special_tokens(config: VLMConfig) -> dict[str, int]:
    return {
        "<|image_pad|>": config.image_token,
        "<|vision_start|>": config.vision_start_token,
        "<|vision_end|>": config.vision_end_token,
    }


def _image_processor(settings: Mapping[str, Any], config: VLMConfig) -> DynamicResolution:
    return DynamicResolution.from_json(settings)


def _new_image_processor() -> DynamicResolution:
    """As published."""
    half = (0.5, 0.5, 0.5)
    return DynamicResolution(min_pixels=65536, max_pixels=16777216, patch_size=16, mean=half, std=half)


QWEN3_VL = Family(
    model_types=TITLES,
    tower=VisionTower,
    connectors={"merger": Merger},
    read_config=from_qwen3,
    write_config=to_qwen3,
    weight_names=_names,
    read_image_processor=_image_processor,
    modules=("visual",),
    processor_class="Qwen3VLProcessor",
    new_image_processor=_new_image_processor,
    tokenizers={"qwen3_vl": QWEN2_TOKENIZER},
    special_tokens=_special_tokens,
    name_in_table=_in_table,
    name_in_memory=lambda name: _in_memory(name) if name.startswith("visual.") else name,
    name_in_file=lambda name, config: _in_memory(name),
    connector_modules=_connector_modules,
    not_this_template=_not_this_template,
)
