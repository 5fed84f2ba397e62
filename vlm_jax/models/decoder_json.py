"""The language model of a `config.json`: of its `text_config`, or the file of a text model."""

from collections.abc import Mapping
from typing import Any

from vlm_jax.errors import InputError
from vlm_jax.models.config import DecoderConfig


def read_decoder(text: Mapping[str, Any], where: str, *, tied: bool = False) -> DecoderConfig:
    """The language model that `text_config`, or the `config.json` of a text model, describes.

    Without `mrope_section` positions are plain RoPE's.

    Raises:
      InputError: another activation or kind of RoPE, another head dim than the hidden size over the heads, or sliding
        windows: all of them listed.
    """
    # As transformers: the older key counts where a file has both.
    rope = text.get("rope_scaling") or text.get("rope_parameters") or {}
    if errors := _decoder_not_computed(text, rope):
        raise InputError([f"{where}: {error}" for error in errors])
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
        rope_theta=_theta(text, rope),
        mrope_sections=tuple(rope.get("mrope_section", plain)),
        tied=tied or bool(text.get("tie_word_embeddings", False)),
    )


_ROPE = ("rope_type", "type", "rope_theta", "mrope_section")
"""The keys of `rope_parameters` that are computed; others only at values that change nothing."""
_ROPE_WITHOUT_EFFECT = {"partial_rotary_factor": 1, "factor": 1, "mrope_interleaved": False}


def _theta(text: Mapping[str, Any], rope: Mapping[str, Any]) -> Any:
    return rope.get("rope_theta", text.get("rope_theta", 1_000_000.0))


def _decoder_not_computed(text: Mapping[str, Any], rope: Mapping[str, Any]) -> list[str]:
    """Settings of a language model that are not computed, in words."""
    errors = []
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type not in ("default", "mrope"):
        errors.append(f"rope_type {rope_type!r} is not implemented; known: 'default', 'mrope'")
    else:
        errors += [
            f"{key} of rope_parameters is {value!r}, which is not implemented; known are {', '.join(_ROPE)}"
            for key, value in rope.items()
            if key not in _ROPE and value is not None and _ROPE_WITHOUT_EFFECT.get(key, ...) != value
        ]
    # transformers has a sliding window from layer max_window_layers on, which published folders set to all layers.
    windows_from, layers = text.get("max_window_layers", 80), text["num_hidden_layers"]
    if text.get("use_sliding_window") and not (isinstance(windows_from, int) and windows_from >= layers):
        errors.append("use_sliding_window is true; sliding-window layers are not implemented")
    elif odd := sorted({str(kind) for kind in text.get("layer_types") or ()} - {"full_attention"}):
        errors.append(f"layer_types has {', '.join(odd)}; only full_attention is implemented")
    if (activation := text.get("hidden_act", "silu")) != "silu":
        errors.append(f"hidden_act is {activation!r}; Qwen2's decoder uses 'silu'")
    for key, value in (("rms_norm_eps", text.get("rms_norm_eps", 1e-6)), ("rope_theta", _theta(text, rope))):
        if type(value) not in (int, float) or not 0 < value < float("inf"):
            errors.append(f"{key} is {value!r}; wanted a number above 0")
    width = text["hidden_size"] // text["num_attention_heads"]
    if text.get("head_dim") not in (None, width):
        errors.append(f"head_dim is {text['head_dim']!r}; Qwen2's decoder uses hidden_size over the heads, {width}")
    return errors
