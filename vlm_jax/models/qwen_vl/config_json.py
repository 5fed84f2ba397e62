"""Qwen2-VL's and Qwen2.5-VL's `config.json`, read and written.

What a folder's file holds beyond the shapes is carried along as it is by `vlm_jax.checkpoint`, so that a round trip
loses nothing.
"""

from collections.abc import Mapping
from typing import Any

from vlm_jax.errors import InputError
from vlm_jax.models import tower_json
from vlm_jax.models.config import VLMConfig, inconsistencies, not_counts
from vlm_jax.models.decoder_json import DecoderRules, read_decoder
from vlm_jax.models.qwen_vl.shapes import VisionConfig

TITLES = {"qwen2_5_vl": "Qwen2.5-VL", "qwen2_vl": "Qwen2-VL"}
"""`model_type` of a `config.json`, and what people call it."""


# transformers' class defaults: files leave out what does not differ from them (`to_diff_dict`).
_DECODER = DecoderRules(
    title="Qwen2",
    defaults={
        "vocab_size": 152064,
        "hidden_size": 8192,
        "intermediate_size": 29568,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
    },
    mrope_sections=(16, 24, 24),
)
_TOWER_DEFAULTS = {
    "depth": 32,
    "num_heads": 16,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "in_channels": 3,
}
_VISION_DEFAULTS: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {
        **_TOWER_DEFAULTS,
        "hidden_size": 3584,
        "hidden_act": "silu",
        "intermediate_size": 3420,
        "window_size": 112,
        "out_hidden_size": 3584,
        "fullatt_block_indexes": (7, 15, 23, 31),
    },
    "qwen2_vl": {
        **_TOWER_DEFAULTS,
        "embed_dim": 1280,
        "hidden_size": 3584,
        "hidden_act": "quick_gelu",
        "mlp_ratio": 4,
    },
}
# Older names of a setting, which transformers carries along without reading them.
_OLD_NAMES = {"in_chans": "in_channels", "spatial_patch_size": "patch_size"}
_OWN_KEYS = {
    # the width of the tower goes by a key of its own in each family
    "qwen2_5_vl": frozenset({"fullatt_block_indexes", "intermediate_size", "out_hidden_size", "window_size"}),
    "qwen2_vl": frozenset({"embed_dim", "mlp_ratio"}),
}


def from_qwen(config: Mapping[str, Any], where: str) -> VLMConfig:
    """As `hf_config.from_hf`, for a `model_type` of `TITLES`: the flat form of the hub's files, or transformers 5's.

    What a file leaves out is the default of transformers' class.
    """
    family = config["model_type"]
    text = config.get("text_config") or config
    vision = config.get("vision_config") or {}
    odd = [name for name, part in (("text_config", text), ("vision_config", vision)) if not isinstance(part, Mapping)]
    if odd:
        raise InputError(f"{where}: {' and '.join(odd)} must be a JSON object")
    if errors := _not_computed(config, vision, family):
        raise InputError([f"{where}: {error}" for error in errors])
    # Null heads of keys and values mean as many as heads of queries; other nulls are no defaults.
    decoder = read_decoder(text, where, _DECODER, tied=bool(config.get("tie_word_embeddings")))
    result = VLMConfig(
        vision=_tower({**_VISION_DEFAULTS[family], **vision}, family),
        decoder=decoder,
        image_token=config.get("image_token_id", 151655),
        video_token=config.get("video_token_id", 151656),
        vision_start_token=config.get("vision_start_token_id", 151652),
        vision_end_token=config.get("vision_end_token_id", 151653),
        init_std=text.get("initializer_range", 0.02),
    )
    errors = not_counts(result) or inconsistencies(result)
    if errors:
        raise InputError([f"{where}: {error}" for error in errors])
    return result


def _not_computed(config: Mapping[str, Any], vision: Mapping[str, Any], family: str) -> list[str]:
    """Settings that contradict the architecture, in words."""
    other = next(name for name in TITLES if name != family)
    if foreign := sorted(_OWN_KEYS[other] & vision.keys()):
        named = ", ".join(f"vision_config.{key}" for key in foreign)
        return [f"{named} belongs to {TITLES[other]}, and model_type is {family!r}; one of them is another model's"]
    errors = []
    if (activation := vision.get("hidden_act", usual := _VISION_DEFAULTS[family]["hidden_act"])) != usual:
        errors.append(f"vision_config.hidden_act is {activation!r}; {TITLES[family]} uses {usual!r}")
    errors += tower_json.not_computed(vision, _TOWER_DEFAULTS)
    for old, key in _OLD_NAMES.items():
        value = vision.get(key, _TOWER_DEFAULTS[key])
        if vision.get(old, value) != value:
            errors.append(f"vision_config.{old} is {vision[old]!r} and {key} {value!r}; set both to the same")
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "unknown")
        errors.append(
            f"quantization_config is there ({method}); quantised weights are not read: take the original model, and "
            "quantise it here (model.quantise, or quantise= of load)"
        )
    return errors


def _tower(vision: Mapping[str, Any], family: str) -> VisionConfig:
    """The tower of a `vision_config` that has every setting."""
    patch, merge = vision["patch_size"], vision["spatial_merge_size"]
    if family == "qwen2_5_vl":
        shape = {
            "hidden": vision["hidden_size"],
            "mlp": vision["intermediate_size"],
            "out_hidden": vision["out_hidden_size"],
            "window_size": vision["window_size"],
            "global_blocks": tuple(vision["fullatt_block_indexes"]),
        }
    else:
        shape = {
            "hidden": vision["embed_dim"],
            "mlp": int(vision["embed_dim"] * vision["mlp_ratio"]),
            "out_hidden": vision["hidden_size"],
            # No windows: a block of the layout is one visual token, so images keep their order and need no padding.
            "window_size": patch * merge,
            "global_blocks": tuple(range(vision["depth"])),
        }
    return VisionConfig(
        variant=family,
        depth=vision["depth"],
        heads=vision["num_heads"],
        patch_size=patch,
        temporal_patch_size=vision["temporal_patch_size"],
        merge_size=merge,
        channels=vision["in_channels"],
        rope_theta=tower_json.theta(vision),
        **shape,
    )


def to_qwen(config: VLMConfig, dtype: str = "float32") -> dict[str, Any]:
    """The `config.json` of a model made here, in the flat layout of the hub's files."""
    vision, decoder = config.vision, config.decoder
    names = {"qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration", "qwen2_vl": "Qwen2VLForConditionalGeneration"}
    return {
        "architectures": [names[vision.variant]],
        "model_type": vision.variant,
        "torch_dtype": dtype,
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "hidden_size": decoder.hidden,
        "initializer_range": config.init_std,
        "intermediate_size": decoder.mlp,
        "max_position_embeddings": 128000,
        "max_window_layers": decoder.layers,
        "num_attention_heads": decoder.heads,
        "num_hidden_layers": decoder.layers,
        "num_key_value_heads": decoder.kv_heads,
        "rms_norm_eps": decoder.norm_eps,
        "rope_scaling": {"type": "mrope", "mrope_section": list(decoder.mrope_sections)},
        "rope_theta": decoder.rope_theta,
        "sliding_window": 32768,
        "tie_word_embeddings": decoder.tied,
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": decoder.vocab,
        "image_token_id": config.image_token,
        "video_token_id": config.video_token,
        "vision_start_token_id": config.vision_start_token,
        "vision_end_token_id": config.vision_end_token,
        "vision_config": _tower_json(vision, config.init_std),
    }


def _tower_json(vision: VisionConfig, init_std: float) -> dict[str, Any]:
    tower = {
        "model_type": vision.variant,
        "depth": vision.depth,
        "in_channels": vision.channels,
        "in_chans": vision.channels,
        "initializer_range": init_std,
        "num_heads": vision.heads,
        "patch_size": vision.patch_size,
        "spatial_merge_size": vision.merge_size,
        "spatial_patch_size": vision.patch_size,
        "temporal_patch_size": vision.temporal_patch_size,
    }
    if vision.variant == "qwen2_5_vl":
        tower |= {
            "fullatt_block_indexes": list(vision.global_blocks),
            "hidden_act": "silu",
            "hidden_size": vision.hidden,
            "intermediate_size": vision.mlp,
            "out_hidden_size": vision.out_hidden,
            "tokens_per_second": 2,
            "window_size": vision.window_size,
        }
    else:
        tower |= {
            "embed_dim": vision.hidden,
            "hidden_act": "quick_gelu",
            "hidden_size": vision.out_hidden,
            "mlp_ratio": vision.mlp // vision.hidden,
        }
    return tower
