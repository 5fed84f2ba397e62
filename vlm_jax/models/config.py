"""Shapes of a Qwen2.5-VL model, read from and written to the `config.json` of a Hugging Face folder.

Only what changes the computation is kept. What a folder's `config.json` holds beyond that is carried along as it is
by `vlm_jax.checkpoint`, so that a round trip loses nothing.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vlm_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """The vision tower. Lengths named `patch_size` and `window_size` are pixels."""

    depth: int
    hidden: int
    heads: int
    mlp: int
    out_hidden: int
    patch_size: int = 14
    temporal_patch_size: int = 2
    merge_size: int = 2
    window_size: int = 112
    channels: int = 3
    global_blocks: tuple[int, ...] = (7, 15, 23, 31)
    norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    pixel_mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    pixel_std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    """Normalisation of pixels in [0, 1]; CLIP's values unless the folder's image processor says otherwise."""

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def merge_unit(self) -> int:
        """Patches that become one visual token."""
        return self.merge_size**2

    @property
    def window_units(self) -> int:
        """Side of an attention window, in merged units."""
        return self.window_size // self.patch_size // self.merge_size

    @property
    def block_slots(self) -> int:
        """Patch slots of one attention block (one full window)."""
        return self.window_units**2 * self.merge_unit

    @property
    def patch_values(self) -> int:
        """Pixel values of one patch of a still image, one temporal slice: C · ph · pw."""
        return self.channels * self.patch_size**2


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """The Qwen2.5 language model with M-RoPE."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    mlp: int
    vocab: int
    norm_eps: float = 1e-6
    rope_theta: float = 1_000_000.0
    mrope_sections: tuple[int, ...] = (16, 24, 24)
    tied: bool = False

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


@dataclasses.dataclass(frozen=True)
class VLMConfig:
    """A whole model: tower, decoder, and the ids that tie text to pictures."""

    vision: VisionConfig
    decoder: DecoderConfig
    image_token: int = 151655
    video_token: int = 151656
    vision_start_token: int = 151652
    vision_end_token: int = 151653
    init_std: float = 0.02


def from_hf(
    config: Mapping[str, Any], pixel_mean=VisionConfig.pixel_mean, pixel_std=VisionConfig.pixel_std, where="config.json"
) -> VLMConfig:
    """Reads a parsed `config.json`, in the flat form of the hub's files or the nested one of transformers 5.

    `pixel_mean` and `pixel_std` come from the folder's image processor, which is another file.

    Raises:
      InputError: another architecture, a missing key, or a setting this implementation does not compute; `where`
        names the file in the message.
    """
    model_type = config.get("model_type")
    if model_type != "qwen2_5_vl":
        raise InputError(
            f"{where}: model_type is {model_type!r}; this version reads 'qwen2_5_vl' (Qwen2.5-VL of any size)"
        )
    text = config.get("text_config") or config
    vision = config.get("vision_config") or {}
    odd = [name for name, part in (("text_config", text), ("vision_config", vision)) if not isinstance(part, Mapping)]
    if odd:
        raise InputError(f"{where}: {' and '.join(odd)} must be a JSON object")
    missing = [f"vision_config.{key}" for key in ("depth", "hidden_size", "intermediate_size") if key not in vision]
    missing += [
        key
        for key in ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "vocab_size")
        if key not in text
    ]
    if missing:
        raise InputError(f"{where}: misses {', '.join(missing)}")

    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type not in ("default", "mrope"):
        raise InputError(f"{where}: rope_type {rope_type!r} is not implemented; known: 'default', 'mrope'")
    if text.get("use_sliding_window"):
        raise InputError(f"{where}: use_sliding_window is true; sliding-window layers are not implemented")
    for name, holder in (("hidden_act", text), ("vision_config.hidden_act", vision)):
        activation = holder.get("hidden_act", "silu")
        if activation != "silu":
            raise InputError(f"{where}: {name} is {activation!r}; Qwen2.5-VL uses 'silu'")

    decoder = DecoderConfig(
        layers=text["num_hidden_layers"],
        hidden=text["hidden_size"],
        heads=text["num_attention_heads"],
        kv_heads=text.get("num_key_value_heads") or text["num_attention_heads"],
        mlp=text["intermediate_size"],
        vocab=text["vocab_size"],
        # transformers' class default, which applies where a file leaves the key out
        norm_eps=text.get("rms_norm_eps", 1e-5),
        rope_theta=rope.get("rope_theta", text.get("rope_theta", 1_000_000.0)),
        mrope_sections=tuple(rope.get("mrope_section", (16, 24, 24))),
        tied=bool(config.get("tie_word_embeddings") or text.get("tie_word_embeddings", False)),
    )
    tower = VisionConfig(
        depth=vision["depth"],
        hidden=vision["hidden_size"],
        heads=vision.get("num_heads", 16),
        mlp=vision["intermediate_size"],
        out_hidden=vision.get("out_hidden_size", 3584),
        patch_size=vision.get("patch_size", vision.get("spatial_patch_size", 14)),
        temporal_patch_size=vision.get("temporal_patch_size", 2),
        merge_size=vision.get("spatial_merge_size", 2),
        window_size=vision.get("window_size", 112),
        channels=vision.get("in_channels", vision.get("in_chans", 3)),
        global_blocks=tuple(vision.get("fullatt_block_indexes", (7, 15, 23, 31))),
        rope_theta=(vision.get("rope_parameters") or {}).get("rope_theta", 10_000.0),
        pixel_mean=tuple(pixel_mean),
        pixel_std=tuple(pixel_std),
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
    faults = _not_counts(result) or _inconsistencies(result)
    if faults:
        raise InputError([f"{where}: {fault}" for fault in faults])
    return result


def to_hf(config: VLMConfig, dtype: str = "float32") -> dict[str, Any]:
    """The `config.json` of a model made here, in the flat layout of the hub's files."""
    vision, decoder = config.vision, config.decoder
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
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
        "vision_config": {
            "model_type": "qwen2_5_vl",
            "depth": vision.depth,
            "fullatt_block_indexes": list(vision.global_blocks),
            "hidden_act": "silu",
            "hidden_size": vision.hidden,
            "in_channels": vision.channels,
            "in_chans": vision.channels,
            "initializer_range": config.init_std,
            "intermediate_size": vision.mlp,
            "num_heads": vision.heads,
            "out_hidden_size": vision.out_hidden,
            "patch_size": vision.patch_size,
            "spatial_merge_size": vision.merge_size,
            "spatial_patch_size": vision.patch_size,
            "temporal_patch_size": vision.temporal_patch_size,
            "tokens_per_second": 2,
            "window_size": vision.window_size,
        },
    }


def _not_counts(config: VLMConfig) -> list[str]:
    return [
        f"{part} {field.name} is {value!r}; wanted a whole number above 0"
        for part, shapes in (("vision", config.vision), ("decoder", config.decoder))
        for field in dataclasses.fields(shapes)
        if field.type is int and (type(value := getattr(shapes, field.name)) is not int or value < 1)
    ]


def _inconsistencies(config: VLMConfig) -> list[str]:
    vision, decoder = config.vision, config.decoder
    faults = []
    if vision.out_hidden != decoder.hidden:
        faults.append(
            f"vision out_hidden_size {vision.out_hidden} differs from the decoder's hidden_size {decoder.hidden}"
        )
    if decoder.hidden % decoder.heads or decoder.heads % decoder.kv_heads:
        faults.append(
            f"hidden_size {decoder.hidden}, {decoder.heads} heads and {decoder.kv_heads} key-value heads do not divide"
        )
    elif sum(decoder.mrope_sections) * 2 != decoder.head_dim:
        faults.append(f"mrope_section {list(decoder.mrope_sections)} must sum to half the head dim {decoder.head_dim}")
    if vision.hidden % vision.heads or vision.head_dim % 4:
        faults.append(
            f"vision hidden_size {vision.hidden} over {vision.heads} heads must give a head dim divisible by 4"
        )
    if vision.window_size % (vision.patch_size * vision.merge_size):
        faults.append(f"window_size {vision.window_size} is not a multiple of patch × merge")
    return faults
