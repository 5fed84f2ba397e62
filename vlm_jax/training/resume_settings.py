"""Which settings of a run change what it computes: it goes on only with the same ones, and so does a cell of a sweep.

Apart from `resume`, which loads JAX: for that a sweep, which only starts other programs, should not wait.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from vlm_jax.training.config import renamed

WHOLE = ("data.columns",)
"""Mappings whose keys are a person's: one value, not a group of settings."""
_BEFORE = {
    "model.visual_tokens": 1.0,
    "model.token_reduction": "resize",
    "model.token_reduction_layer": 0,
    "model.token_schedule": "",
    "model.token_schedule_order": "in_turn",
    "data.template": "",
    "data.suffix": "",
}
"""What runs did of which earlier versions wrote nothing down."""


def resume_settings(config: ConfigDict) -> dict[str, Any]:
    """{key: value} of the settings that change what is computed: a run goes on only with the same ones."""
    keys = [
        f"{section}.{key}" for section in ("batch", "train", "optimizer", "lora", "assemble") for key in config[section]
    ]
    keys = [key for key in keys if key not in ("train.remat", "train.max_skipped_steps")]
    keys += [
        "model.path",
        "model.dtype",
        "model.attention",
        "model.quantise",
        "model.min_visual_tokens",
        "model.max_visual_tokens",
        "model.visual_tokens",
        "model.token_reduction",
        "model.token_reduction_layer",
        "model.token_schedule",
        "model.token_schedule_order",
        "data.share",
        "data.shuffle",
        "data.answer",
        "data.columns",
        "data.question",
        "data.template",
        "data.suffix",
        "data.on_error",
        "data.too_large",
    ]
    values = {}
    for key in keys:
        section, name = key.split(".")
        value = config[section][name]
        values[key] = value.to_dict() if isinstance(value, ConfigDict) else value
    if config.data.on_error == "drop":
        values["data.decode_check_up_to"] = config.data.decode_check_up_to  # it decides what is left out
    return values


def earlier_settings(written: Mapping[str, Any]) -> dict[str, Any]:
    """Flat settings of `resume_settings` as this or an earlier version wrote them, by their names now."""
    return {**_BEFORE, **{renamed(key) or key: value for key, value in flat(written).items()}}


def differing_keys(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Which of the settings that are known of both have another value; both flat."""
    differing = [key for key in now if key in earlier and earlier[key] != now[key]]
    # data.decode_check was a switch once, and is a number of examples now.
    return [key for key in differing if earlier[key] is not bool(now[key])]


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their whole names: `optimizer.lr_multipliers.vision` for a value in a group of groups."""
    whole: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and key not in WHOLE:
            whole |= {f"{key}.{name}": one for name, one in flat(value).items()}
        else:
            whole[key] = value
    return whole
