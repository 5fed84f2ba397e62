"""Which settings of a run change what it computes: it goes on only with the same ones."""

from typing import Any

from ml_collections import ConfigDict


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
