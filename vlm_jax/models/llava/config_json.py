"""`config.json` of assembled models: LLaVA's and LLaVA-NeXT's, and the encoders' own.

An assembled model whose connector LLaVA cannot describe (one linear layer) has the same file under a `model_type` of
its own, which nothing else reads.
"""

from collections.abc import Mapping
from typing import Any

from vlm_jax.errors import InputError
from vlm_jax.models import config_types
from vlm_jax.models.config import DecoderConfig, VLMConfig, inconsistencies, not_counts
from vlm_jax.models.decoder_json import DecoderRules, read_decoder
from vlm_jax.models.llava.shapes import EncoderConfig, assembled

OWN = "vlm_jax_assembled"
TITLES = {
    "llava": "LLaVA with a Qwen2 or Qwen3 decoder",
    "llava_next": "LLaVA-NeXT with a Qwen2 or Qwen3 decoder",
    OWN: "assembled here",
}
"""`model_type` of a `config.json`, and what people call it."""

_ENCODER_TYPES = {
    "clip_vision_model": "clip",
    "clip": "clip",
    "siglip_vision_model": "siglip",
    "siglip": "siglip",
    "vit": "vit",
}
_USUAL = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
# transformers' class defaults: files of the hub name only what differs from them.
DEFAULTS: dict[str, dict[str, Any]] = {
    "clip": {**_USUAL, "image_size": 224, "patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
    "siglip": {
        **_USUAL,
        "image_size": 224,
        "patch_size": 16,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
        "vision_use_head": True,
    },
    "vit": {
        **_USUAL,
        "image_size": 224,
        "patch_size": 16,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "qkv_bias": True,
    },
}
_USUAL_TEXT = {
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 151936,
    "rms_norm_eps": 1e-6,
    "max_window_layers": 28,
}
_TEXT_MODELS = {
    # model_type -> what is its own
    "qwen2": DecoderRules(title="Qwen2", defaults=_USUAL_TEXT, default_theta=10_000.0),
    "qwen3": DecoderRules(
        title="Qwen3",
        defaults={**_USUAL_TEXT, "head_dim": 128},
        default_theta=10_000.0,
        qkv_bias=False,
        qk_norm=True,
        any_head_dim=True,
    ),
}
ACTIVATIONS = ("gelu", "quick_gelu", "gelu_pytorch_tanh")
CONNECTORS = ("mlp", "linear")


def read_encoder(
    vision: Mapping[str, Any],
    where: str,
    *,
    out_hidden: int,
    feature_layer: int = -1,
    final_norm: bool = False,
    keep_class: bool = False,
    pooling_head: bool = True,
) -> EncoderConfig:
    """The encoder that `vision_config`, or an encoder's own `config.json`, describes.

    Args:
      feature_layer: as transformers counts hidden states: 0 is the embeddings, -1 the last layer's.
      pooling_head: whether SigLIP's attention pooling is carried along where it has one.

    Raises:
      InputError: another architecture, or a setting this implementation does not compute.
    """
    if errors := config_types.errors(vision):
        raise InputError([f"{where}: {error}" for error in errors])
    kind = str(vision.get("model_type"))
    variant = _ENCODER_TYPES.get(kind)
    if variant is None:
        raise InputError(f"{where}: the encoder's model_type is {kind!r}; known are {', '.join(_ENCODER_TYPES)}")
    if isinstance(vision.get("vision_config"), Mapping):  # CLIP and SigLIP beside their text models
        vision = vision["vision_config"]
    settings = {**DEFAULTS[variant], **{key: value for key, value in vision.items() if value is not None}}
    if settings["hidden_act"] not in ACTIVATIONS:
        raise InputError(f"{where}: hidden_act is {settings['hidden_act']!r}; known are {', '.join(ACTIVATIONS)}")
    if variant == "vit" and not settings["qkv_bias"]:
        raise InputError(f"{where}: qkv_bias is false; encoders without biases are not implemented")
    layers = settings["num_hidden_layers"]
    whole = isinstance(feature_layer, int)
    depth = feature_layer + layers + 1 if whole and feature_layer < 0 else feature_layer
    if not whole or not 1 <= depth <= layers:  # the embeddings as features would leave no layer to run
        raise InputError(
            f"{where}: vision_feature_layer is {feature_layer!r}; wanted one of -{layers} to -1 or 1 to {layers}"
        )
    return EncoderConfig(
        variant=variant,
        depth=depth,
        unused_layers=layers - depth,
        hidden=settings["hidden_size"],
        heads=settings["num_attention_heads"],
        mlp=settings["intermediate_size"],
        out_hidden=out_hidden,
        image_size=settings["image_size"],
        patch_size=settings["patch_size"],
        channels=settings.get("num_channels", 3),
        final_norm=final_norm,
        keep_class=keep_class and variant != "siglip",
        # transformers makes a pooler for every ViT
        pooler=variant == "vit" or (variant == "siglip" and pooling_head and bool(settings["vision_use_head"])),
        activation=settings["hidden_act"],
        norm_eps=settings["layer_norm_eps"],
    )


def read_text_model(config: Mapping[str, Any], where: str, *, tied: bool = False) -> DecoderConfig:
    """The decoder that a text model's `config.json`, or `text_config`, describes.

    Raises:
      InputError: no dense text model of Qwen2, Qwen2.5 or Qwen3, or a setting that is not computed.
    """
    rules = _TEXT_MODELS.get(str(config.get("model_type")))
    if rules is None:
        raise InputError(
            f"{where}: model_type is {config.get('model_type')!r}; decoders of assembled models are 'qwen2' (Qwen2 and "
            "Qwen2.5 text models) or 'qwen3' (dense Qwen3 text models)"
        )
    if rules.qk_norm and config.get("attention_bias"):
        raise InputError(f"{where}: attention_bias is true; Qwen3's decoder has no biases here")
    return read_decoder(config, where, rules, tied=tied)


def from_llava(config: Mapping[str, Any], where: str) -> VLMConfig:
    """As `hf_config.from_hf`, for a `model_type` of `TITLES`."""
    text, vision = config.get("text_config"), config.get("vision_config")
    odd = [name for name, part in (("text_config", text), ("vision_config", vision)) if not isinstance(part, Mapping)]
    if odd:
        raise InputError(f"{where}: {' and '.join(odd)} must be a JSON object")
    tied = bool(config.get("tie_word_embeddings"))  # or the text's: either, as in transformers
    decoder = read_text_model(text, f"{where}, text_config", tied=tied)
    model_type, errors = config["model_type"], []
    connector = config.get("connector", "mlp")
    strategy = config.get("vision_feature_select_strategy", "default")
    for key, value, known in (
        ("vision_feature_select_strategy", strategy, ("default", "full")),
        ("connector", connector, CONNECTORS if model_type == OWN else ("mlp",)),
        ("projector_hidden_act", config.get("projector_hidden_act", "gelu"), ("gelu",)),
        ("multimodal_projector_bias", config.get("multimodal_projector_bias", True), (True,)),
    ):
        if value not in known:
            errors.append(f"{where}: {key} is {value!r}; known are {', '.join(map(repr, known))}")
    image_token = config.get("image_token_id", config.get("image_token_index"))
    if not isinstance(image_token, int):
        errors.append(f"{where}: image_token_index is {image_token!r}; wanted the id of the image's placeholder")
    if errors:
        raise InputError(errors)
    encoder = read_encoder(
        vision,
        where,
        out_hidden=decoder.hidden,
        feature_layer=config.get("vision_feature_layer", -2),
        final_norm=bool(vision.get("tie_last_hidden_states")),
        keep_class=strategy == "full",
    )
    if strategy == "default" and not encoder.class_slots:
        # transformers drops the first patch then, whatever it is.
        raise InputError(
            f"{where}: vision_feature_select_strategy 'default' drops a class token, and a SigLIP encoder has none; "
            "wanted 'full'"
        )
    if encoder.final_norm and encoder.unused_layers:
        raise InputError(f"{where}: tie_last_hidden_states belongs to vision_feature_layer -1")
    newline = model_type == "llava_next" or (model_type == OWN and bool(config.get("image_newline")))
    if newline and encoder.keep_class and encoder.class_slots:
        raise InputError(
            f"{where}: tiles leave no place for class tokens; vision_feature_select_strategy must be 'default'"
        )
    result = assembled(
        encoder,
        decoder,
        image_token=image_token,
        init_std=text.get("initializer_range", 0.02),
        connector=connector,
        newline=newline,
    )
    if errors := not_counts(result) or inconsistencies(result):
        raise InputError([f"{where}: {error}" for error in errors])
    return result


def to_llava(config: VLMConfig, dtype: str = "float32") -> dict[str, Any]:
    """The `config.json` of an assembled model; LLaVA-NeXT's wants `image_grid_pinpoints` besides."""
    vision, decoder = config.vision, config.decoder
    tower: dict[str, Any] = {
        "model_type": {"clip": "clip_vision_model", "siglip": "siglip_vision_model", "vit": "vit"}[vision.variant],
        "hidden_size": vision.hidden,
        "intermediate_size": vision.mlp,
        "num_hidden_layers": vision.depth + vision.unused_layers,
        "num_attention_heads": vision.heads,
        "num_channels": vision.channels,
        "image_size": vision.image_size,
        "patch_size": vision.patch_size,
        "hidden_act": vision.activation,
        "layer_norm_eps": vision.norm_eps,
    }
    tower |= {"vision_use_head": vision.pooler} if vision.variant == "siglip" else {}
    tower |= {"tie_last_hidden_states": True} if vision.final_norm else {}
    linear = config.connector != "mlp"
    model_type = OWN if linear else "llava_next" if config.newline else "llava"
    settings = {
        "architectures": ["LlavaNextForConditionalGeneration" if config.newline else "LlavaForConditionalGeneration"],
        "model_type": model_type,
        "torch_dtype": dtype,
        "image_token_index": config.image_token,
        "image_seq_length": vision.view_tokens,
        "projector_hidden_act": "gelu",
        "multimodal_projector_bias": True,
        "tie_word_embeddings": decoder.tied,
        "vision_feature_layer": -1 - vision.unused_layers,
        "vision_feature_select_strategy": _strategy(config),
        "text_config": _text_config(config),
        "vision_config": tower,
    }
    if linear:
        settings |= {"architectures": [OWN], "connector": config.connector, "image_newline": config.newline}
    return settings


def _text_config(config: VLMConfig) -> dict[str, Any]:
    decoder = config.decoder
    own = {"model_type": "qwen3", "attention_bias": False, "head_dim": decoder.head_dim}
    return {
        **(own if decoder.qk_norm else {"model_type": "qwen2"}),
        "hidden_act": "silu",
        "hidden_size": decoder.hidden,
        "initializer_range": config.init_std,
        "intermediate_size": decoder.mlp,
        "max_position_embeddings": 32768,
        "num_attention_heads": decoder.heads,
        "num_hidden_layers": decoder.layers,
        "num_key_value_heads": decoder.kv_heads,
        "rms_norm_eps": decoder.norm_eps,
        "rope_theta": decoder.rope_theta,
        "tie_word_embeddings": decoder.tied,
        "use_sliding_window": False,
        "vocab_size": decoder.vocab,
    }


def processor_json(config: VLMConfig, image_token: str) -> dict[str, Any]:
    """What transformers' LLaVA processor expects in `processor_config.json`."""
    return {
        "processor_class": "LlavaNextProcessor" if config.newline else "LlavaProcessor",
        "patch_size": config.vision.patch_size,
        "vision_feature_select_strategy": _strategy(config),
        "image_token": image_token,
        "num_additional_image_tokens": config.vision.class_slots,
    }


def _strategy(config: VLMConfig) -> str:
    """`vision_feature_select_strategy`: "default" drops a class token."""
    return "default" if config.vision.class_slots and not config.vision.keep_class else "full"
