"""From the `config.json` of any known family to shapes, and back."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from vlm_jax.errors import InputError
from vlm_jax.models import config_types, families
from vlm_jax.models.config import VLMConfig

_RELATIVES = {
    "qwen3_vl_moe": ", a Qwen3-VL with a mixture of experts, of which the dense ones are supported (2B, 4B, 8B, 32B)",
    "qwen3_5": ", Qwen3.5",
    "qwen3_5_moe": ", Qwen3.5 with a mixture of experts",
    "qwen2_5_omni": ", Qwen2.5-Omni",
    "qwen3_omni_moe": ", Qwen3-Omni",
}
"""Models that may be taken for one that is read, and what they are."""


def from_hf(
    config: Mapping[str, Any],
    pixel_mean: Sequence[float] | None = None,
    pixel_std: Sequence[float] | None = None,
    where: str = "config.json",
) -> VLMConfig:
    """Reads a parsed `config.json`.

    `pixel_mean` and `pixel_std` come from the folder's image processor, which is another file;
    without them they are what the shapes of the family's tower have by default.

    Raises:
      InputError: another architecture, a missing key, or a setting this implementation does not compute; `where`
        names the file in the message.
    """
    kind, known = config.get("model_type"), families.by_model_type()
    if not isinstance(kind, str) or kind not in known:
        named = ", ".join(f"{key!r} ({name})" for key, name in families.titles().items())
        raise InputError(f"{where}: model_type is {kind!r}{_RELATIVES.get(str(kind), '')}; this version reads {named}")
    if errors := config_types.errors(config):
        raise InputError([f"{where}: {error}" for error in errors])
    shapes = known[kind].read_config(config, where)
    pixels = {"pixel_mean": pixel_mean, "pixel_std": pixel_std}
    changed = {name: tuple(values) for name, values in pixels.items() if values is not None}
    return dataclasses.replace(shapes, vision=dataclasses.replace(shapes.vision, **changed)) if changed else shapes


def to_hf(config: VLMConfig, dtype: str = "float32") -> dict[str, Any]:
    """The `config.json` of a model made here."""
    return families.of(config).write_config(config, dtype)
