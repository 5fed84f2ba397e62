"""Qwen2-VL's and Qwen2.5-VL's `config.json`, read and written.

What a folder's file holds beyond the shapes is carried along as it is by `vlm_jax.checkpoint`, so that a round trip
loses nothing.
"""

from collections.abc import Mapping
from typing import Any

from vlm_jax.errors import InputError
from vlm_jax.models.config import DecoderConfig, VisionConfig, VLMConfig, inconsistencies, not_counts

QWEN = {"qwen2_5_vl": "Qwen2.5-VL", "qwen2_vl": "Qwen2-VL"}
"""`model_type` of a `config.json`, and what people call it."""


def from_qwen(config: Mapping[str, Any], pixel_mean, pixel_std, where: str) -> VLMConfig:
    """As `hf_config.from_hf`, for a `model_type` of `QWEN`: the flat form of the hub's files, or transformers 5's."""
    family = config["model_type"]
    text = config.get("text_config") or config
    vision = config.get("vision_config") or {}
    odd = [name for name, part in (("text_config", text), ("vision_config", vision)) if not isinstance(part, Mapping)]
    if odd:
        raise InputError(f"{where}: {' and '.join(odd)} must be a JSON object")
    width = {"qwen2_5_vl": ("hidden_size", "intermediate_size"), "qwen2_vl": ("embed_dim", "hidden_size")}[family]
    missing = [f"vision_config.{key}" for key in ("depth", *width) if key not in vision]
    missing += [
        key
        for key in ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "vocab_size")
        if key not in text
    ]
    if missing:
        raise InputError(f"{where}: misses {', '.join(missing)}")

    usual = {"qwen2_5_vl": "silu", "qwen2_vl": "quick_gelu"}[family]
    if (activation := vision.get("hidden_act", usual)) != usual:
        raise InputError(f"{where}: vision_config.hidden_act is {activation!r}; {QWEN[family]} uses {usual!r}")
    decoder = read_decoder(text, where, tied=bool(config.get("tie_word_embeddings")))
    patch, merge = vision.get("patch_size", vision.get("spatial_patch_size", 14)), vision.get("spatial_merge_size", 2)
    if family == "qwen2_5_vl":
        shape = {
            "hidden": vision["hidden_size"],
            "mlp": vision["intermediate_size"],
            "out_hidden": vision.get("out_hidden_size", 3584),
            "window_size": vision.get("window_size", 112),
            "global_blocks": tuple(vision.get("fullatt_block_indexes", (7, 15, 23, 31))),
        }
    else:
        shape = {
            "hidden": vision["embed_dim"],
            "mlp": int(vision["embed_dim"] * vision.get("mlp_ratio", 4)),
            "out_hidden": vision["hidden_size"],
            # No windows: a block of the layout is one merged unit, so pictures keep their order and need no padding.
            "window_size": patch * merge,
            "global_blocks": tuple(range(vision["depth"])),
        }
    tower = VisionConfig(
        family=family,
        depth=vision["depth"],
        heads=vision.get("num_heads", 16),
        patch_size=patch,
        temporal_patch_size=vision.get("temporal_patch_size", 2),
        merge_size=merge,
        channels=vision.get("in_channels", vision.get("in_chans", 3)),
        rope_theta=(vision.get("rope_parameters") or {}).get("rope_theta", 10_000.0),
        pixel_mean=tuple(pixel_mean),
        pixel_std=tuple(pixel_std),
        **shape,
    )
    result = VLMConfig(
        vision=tower,
        decoder=decoder,
        image_token=config.get("image_token_id", 151655),
        video_token=config.get("video_token_id", 151656),
        vision_start_token=config.get("vision_start_token_id", 151652),
        vision_end_token=config.get("vision_end_token_id", 151653),
        init_std=text.get("initializer_range", 0.02),
    )
    faults = not_counts(result) or inconsistencies(result)
    if faults:
        raise InputError([f"{where}: {fault}" for fault in faults])
    return result


def to_qwen(config: VLMConfig, dtype: str = "float32") -> dict[str, Any]:
    """The `config.json` of a model made here, in the flat layout of the hub's files."""
    vision, decoder = config.vision, config.decoder
    tower = {
        "model_type": vision.family,
        "depth": vision.depth,
        "in_channels": vision.channels,
        "in_chans": vision.channels,
        "initializer_range": config.init_std,
        "num_heads": vision.heads,
        "patch_size": vision.patch_size,
        "spatial_merge_size": vision.merge_size,
        "spatial_patch_size": vision.patch_size,
        "temporal_patch_size": vision.temporal_patch_size,
    }
    if vision.family == "qwen2_5_vl":
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
    return {
        "architectures": [
            {"qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration", "qwen2_vl": "Qwen2VLForConditionalGeneration"}[
                vision.family
            ]
        ],
        "model_type": vision.family,
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
        "vision_config": tower,
    }


def read_decoder(text: Mapping[str, Any], where: str, *, tied: bool = False) -> DecoderConfig:
    """The language model that `text_config`, or the `config.json` of a text model, describes.

    Without `mrope_section` positions are plain RoPE's.

    Raises:
      InputError: another activation or kind of RoPE, or sliding windows.
    """
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type not in ("default", "mrope"):
        raise InputError(f"{where}: rope_type {rope_type!r} is not implemented; known: 'default', 'mrope'")
    if text.get("use_sliding_window"):
        raise InputError(f"{where}: use_sliding_window is true; sliding-window layers are not implemented")
    if (activation := text.get("hidden_act", "silu")) != "silu":
        raise InputError(f"{where}: hidden_act is {activation!r}; Qwen2's decoder uses 'silu'")
    heads = text["num_attention_heads"]
    plain = (text["hidden_size"] // heads // 2,) if text.get("model_type") == "qwen2" else (16, 24, 24)
    return DecoderConfig(
        layers=text["num_hidden_layers"],
        hidden=text["hidden_size"],
        heads=heads,
        kv_heads=text.get("num_key_value_heads") or heads,
        mlp=text["intermediate_size"],
        vocab=text["vocab_size"],
        # transformers' class default, which applies where a file leaves the key out
        norm_eps=text.get("rms_norm_eps", 1e-5),
        rope_theta=rope.get("rope_theta", text.get("rope_theta", 1_000_000.0)),
        mrope_sections=tuple(rope.get("mrope_section", plain)),
        tied=tied or bool(text.get("tie_word_embeddings", False)),
    )
