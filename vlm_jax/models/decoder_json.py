"""The language model of a `config.json`: of its `text_config`, or the file of a text model."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vlm_jax.errors import InputError
from vlm_jax.models.config import DecoderConfig


@dataclasses.dataclass(frozen=True)
class DecoderRules:
    """What is a family's own in the language models that its files describe.

    Attributes:
      title: what people call it.
      defaults: transformers' class defaults, for what a file leaves out; null counts as a value.
      mrope_sections: where a file names none; () is plain RoPE.
      mrope_interleaved, qkv_bias, qk_norm: as in `DecoderConfig`.
      default_theta: of RoPE, where a file names none.
      any_head_dim: whether `head_dim` may differ from the hidden size over the heads.
    """

    title: str
    defaults: Mapping[str, Any]
    mrope_sections: tuple[int, ...] = ()
    qkv_bias: bool = True
    qk_norm: bool = False
    any_head_dim: bool = False
    mrope_interleaved: bool = False
    default_theta: float = 1_000_000.0


def read_decoder(text: Mapping[str, Any], where: str, rules: DecoderRules, *, tied: bool = False) -> DecoderConfig:
    """The language model that `text_config`, or the `config.json` of a text model, describes.

    Raises:
      InputError: another activation or kind of RoPE, a head dim that the family does not have, or sliding windows: all
        of them listed.
    """
    text = {**rules.defaults, **text}
    # As transformers: the older key counts where a file has both.
    rope = text.get("rope_scaling") or text.get("rope_parameters") or {}
    if errors := _decoder_not_computed(text, rope, rules):
        raise InputError([f"{where}: {error}" for error in errors])
    heads = text["num_attention_heads"]
    width = text["hidden_size"] // heads
    own = text.get("head_dim") or width
    return DecoderConfig(
        layers=text["num_hidden_layers"],
        hidden=text["hidden_size"],
        heads=heads,
        kv_heads=text.get("num_key_value_heads") or heads,
        mlp=text["intermediate_size"],
        vocab=text["vocab_size"],
        # transformers' class default, which applies where a file leaves the key out
        norm_eps=text.get("rms_norm_eps", 1e-5),
        rope_theta=_theta(text, rope, rules),
        mrope_sections=tuple(rope.get("mrope_section", rules.mrope_sections or (own // 2,))),
        tied=tied or bool(text.get("tie_word_embeddings", False)),
        own_head_dim=0 if own == width else own,
        qkv_bias=rules.qkv_bias,
        qk_norm=rules.qk_norm,
        mrope_interleaved=rules.mrope_interleaved,
    )


QWEN2_TOKENIZER = "transformers.models.qwen2.tokenization_qwen2.Qwen2Tokenizer"
"""The class of the tokenizers that Qwen2's and Qwen2.5's folders have."""

_ROPE = ("rope_type", "type", "rope_theta", "mrope_section")
"""The keys of `rope_parameters` that are computed; others only at values that change nothing."""
_ROPE_WITHOUT_EFFECT = {"partial_rotary_factor": 1, "factor": 1}


def _theta(text: Mapping[str, Any], rope: Mapping[str, Any], rules: DecoderRules) -> Any:
    return rope.get("rope_theta", text.get("rope_theta", rules.default_theta))


def _decoder_not_computed(text: Mapping[str, Any], rope: Mapping[str, Any], rules: DecoderRules) -> list[str]:
    """Settings of a language model that are not computed, in words."""
    errors = []
    without_effect = {**_ROPE_WITHOUT_EFFECT, "mrope_interleaved": rules.mrope_interleaved}
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type not in ("default", "mrope"):
        errors.append(f"rope_type {rope_type!r} is not implemented; known: 'default', 'mrope'")
    else:
        errors += [
            f"{key} of rope_parameters is {value!r}, which is not implemented; known are {', '.join(_ROPE)}"
            for key, value in rope.items()
            if key not in _ROPE and value is not None and without_effect.get(key, ...) != value
        ]
    # transformers has a sliding window from layer max_window_layers on, which published folders set to all layers.
    windows_from, layers = text.get("max_window_layers", 80), text["num_hidden_layers"]
    if text.get("use_sliding_window") and not (isinstance(windows_from, int) and windows_from >= layers):
        errors.append("use_sliding_window is true; sliding-window layers are not implemented")
    elif odd := sorted({str(kind) for kind in text.get("layer_types") or ()} - {"full_attention"}):
        errors.append(f"layer_types has {', '.join(odd)}; only full_attention is implemented")
    if text.get("is_causal") is False:
        errors.append("is_causal is false; attention in both directions is not implemented")
    if (activation := text.get("hidden_act", "silu")) != "silu":
        errors.append(f"hidden_act is {activation!r}; {rules.title}'s decoder uses 'silu'")
    for key, value in (("rms_norm_eps", text.get("rms_norm_eps", 1e-6)), ("rope_theta", _theta(text, rope, rules))):
        if type(value) not in (int, float) or not 0 < value < float("inf"):
            errors.append(f"{key} is {value!r}; wanted a number above 0")
    width = text["hidden_size"] // text["num_attention_heads"]
    if text.get("head_dim") not in (None, width) and not rules.any_head_dim:
        errors.append(
            f"head_dim is {text['head_dim']!r}; {rules.title}'s decoder uses hidden_size over the heads, {width}"
        )
    return errors
