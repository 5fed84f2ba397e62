"""Qwen3-VL's `config.json`, read and written.

What a folder's file holds beyond the shapes is carried along as it is by `vlm_jax.checkpoint`, so that a round trip
loses nothing.
"""

from collections.abc import Mapping
from typing import Any

from vlm_jax.errors import InputError
from vlm_jax.models import tower_json
from vlm_jax.models.config import VLMConfig, inconsistencies, not_counts
from vlm_jax.models.decoder_json import DecoderRules, read_decoder
from vlm_jax.models.qwen3_vl.shapes import VisionConfig

TITLES = {"qwen3_vl": "Qwen3-VL"}
"""`model_type` of a `config.json`, and what people call it."""

# transformers' class defaults: files leave out what does not differ from them (`to_diff_dict`).
_DECODER = DecoderRules(
    title="Qwen3",
    defaults={
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "head_dim": 128,
        "rms_norm_eps": 1e-6,
    },
    default_theta=500_000.0,
    mrope_sections=(24, 20, 20),
    mrope_interleaved=True,
    qkv_bias=False,
    qk_norm=True,
    any_head_dim=True,
)
_TOWER = {
    "depth": 27,
    "hidden_size": 1152,
    "hidden_act": "gelu_pytorch_tanh",
    "intermediate_size": 4304,
    "num_heads": 16,
    "in_channels": 3,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": 3584,
    "num_position_embeddings": 2304,
    "deepstack_visual_indexes": (8, 16, 24),
}
_OTHERS = ("fullatt_block_indexes", "window_size", "embed_dim", "mlp_ratio")
"""Keys of the towers of Qwen2.5-VL and Qwen2-VL."""


def from_qwen3(config: Mapping[str, Any], where: str) -> VLMConfig:
    """As `hf_config.from_hf`. What a file leaves out is the default of transformers' class."""
    text, vision = config.get("text_config") or {}, config.get("vision_config") or {}
    odd = [name for name, part in (("text_config", text), ("vision_config", vision)) if not isinstance(part, Mapping)]
    if odd:
        raise InputError(f"{where}: {' and '.join(odd)} must be a JSON object")
    if errors := _not_computed(config, text, vision):
        raise InputError([f"{where}: {error}" for error in errors])
    decoder = read_decoder(text, where, _DECODER, tied=bool(config.get("tie_word_embeddings")))
    result = VLMConfig(
        vision=_tower({**_TOWER, **vision}),
        decoder=decoder,
        image_token=config.get("image_token_id", 151655),
        video_token=config.get("video_token_id", 151656),
        vision_start_token=config.get("vision_start_token_id", 151652),
        vision_end_token=config.get("vision_end_token_id", 151653),
        init_std=text.get("initializer_range", 0.02),
    )
    if errors := not_counts(result) or inconsistencies(result) or _does_not_fit(result):
        raise InputError([f"{where}: {error}" for error in errors])
    return result


def _not_computed(config: Mapping[str, Any], text: Mapping[str, Any], vision: Mapping[str, Any]) -> list[str]:
    """Settings that contradict the architecture, in words."""
    errors = []
    if foreign := sorted(key for key in _OTHERS if key in vision):
        named = ", ".join(f"vision_config.{key}" for key in foreign)
        errors.append(
            f"{named} belongs to Qwen2.5-VL or Qwen2-VL, and model_type is 'qwen3_vl'; one is another model's"
        )
    if experts := sorted(key for key in text if "expert" in key or key == "decoder_sparse_step"):
        errors.append(
            f"text_config.{experts[0]} is there: mixtures of experts are not supported; take a dense Qwen3-VL (2B, 4B, "
            "8B, 32B)"
        )
    if (activation := vision.get("hidden_act", usual := _TOWER["hidden_act"])) != usual:
        errors.append(f"vision_config.hidden_act is {activation!r}; Qwen3-VL uses {usual!r}")
    if text.get("attention_bias"):
        errors.append("text_config.attention_bias is true; Qwen3-VL's decoder has no biases here")
    kinds = {"vision_config": (vision, ("qwen3_vl", "qwen3_vl_vision")), "text_config": (text, ("qwen3_vl_text",))}
    for name, (part, known) in kinds.items():
        if (kind := part.get("model_type", known[0])) not in known:
            errors.append(f"{name}.model_type is {kind!r}; wanted {known[-1]!r}")
    errors += tower_json.not_computed(vision, _TOWER)
    if "deepstack_visual_indexes" in vision and vision["deepstack_visual_indexes"] is None:
        errors.append("vision_config.deepstack_visual_indexes is null; wanted a list of blocks ([] for none)")
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "unknown")
        errors.append(
            f"quantization_config is there ({method}); quantised weights are not read: take the original model, and "
            "quantise it here (model.quantise, or quantise= of load)"
        )
    return errors


def _does_not_fit(config: VLMConfig) -> list[str]:
    """What in the decoder does not go with the tower and with positions of three axes, in words."""
    errors, decoder, count = [], config.decoder, len(config.vision.deepstack)
    if count > decoder.layers:
        errors.append(
            f"deepstack_visual_indexes has {count} blocks, and the decoder {decoder.layers} layers to add them behind"
        )
    if len(decoder.mrope_sections) < 3:
        errors.append(f"mrope_section is {list(decoder.mrope_sections)}; wanted one of time, of rows and of columns")
    return errors


def _tower(vision: Mapping[str, Any]) -> VisionConfig:
    """The tower of a `vision_config` that has every setting."""
    return VisionConfig(
        depth=vision["depth"],
        hidden=vision["hidden_size"],
        heads=vision["num_heads"],
        mlp=vision["intermediate_size"],
        out_hidden=vision["out_hidden_size"],
        deepstack=tuple(vision["deepstack_visual_indexes"]),
        position_rows=vision["num_position_embeddings"],
        patch_size=vision["patch_size"],
        temporal_patch_size=vision["temporal_patch_size"],
        merge_size=vision["spatial_merge_size"],
        channels=vision["in_channels"],
        rope_theta=tower_json.theta(vision),
    )


def to_qwen3(config: VLMConfig, dtype: str = "float32") -> dict[str, Any]:
    """The `config.json` of a model made here, in the layout of the hub's files."""
    vision, decoder = config.vision, config.decoder
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "dtype": dtype,
        "image_token_id": config.image_token,
        "video_token_id": config.video_token,
        "vision_start_token_id": config.vision_start_token,
        "vision_end_token_id": config.vision_end_token,
        "tie_word_embeddings": decoder.tied,
        "text_config": {
            "model_type": "qwen3_vl_text",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "dtype": dtype,
            "head_dim": decoder.head_dim,
            "hidden_act": "silu",
            "hidden_size": decoder.hidden,
            "initializer_range": config.init_std,
            "intermediate_size": decoder.mlp,
            "max_position_embeddings": 262144,
            "num_attention_heads": decoder.heads,
            "num_hidden_layers": decoder.layers,
            "num_key_value_heads": decoder.kv_heads,
            "rms_norm_eps": decoder.norm_eps,
            "rope_scaling": {
                "mrope_interleaved": True,
                "mrope_section": list(decoder.mrope_sections),
                "rope_type": "default",
            },
            "rope_theta": decoder.rope_theta,
            "use_cache": True,
            "vocab_size": decoder.vocab,
        },
        "vision_config": {
            "model_type": "qwen3_vl",
            "deepstack_visual_indexes": list(vision.deepstack),
            "depth": vision.depth,
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": vision.hidden,
            "in_channels": vision.channels,
            "initializer_range": config.init_std,
            "intermediate_size": vision.mlp,
            "num_heads": vision.heads,
            "num_position_embeddings": vision.position_rows,
            "out_hidden_size": vision.out_hidden,
            "patch_size": vision.patch_size,
            "spatial_merge_size": vision.merge_size,
            "temporal_patch_size": vision.temporal_patch_size,
        },
    }
