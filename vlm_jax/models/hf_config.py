"""From the `config.json` of any known architecture to shapes, and back."""

from collections.abc import Mapping
from typing import Any

from vlm_jax.errors import InputError
from vlm_jax.models import config_types
from vlm_jax.models.config import VisionConfig, VLMConfig
from vlm_jax.models.llava_config import LLAVA, from_llava, to_llava
from vlm_jax.models.qwen_config import QWEN, from_qwen, to_qwen

FAMILIES = {**QWEN, **LLAVA}
"""`model_type` of a `config.json`, and what people call it."""


def from_hf(
    config: Mapping[str, Any], pixel_mean=VisionConfig.pixel_mean, pixel_std=VisionConfig.pixel_std, where="config.json"
) -> VLMConfig:
    """Reads a parsed `config.json`.

    `pixel_mean` and `pixel_std` come from the folder's image processor, which is another file.

    Raises:
      InputError: another architecture, a missing key, or a setting this implementation does not compute; `where`
        names the file in the message.
    """
    family = config.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        known = ", ".join(f"{key!r} ({name})" for key, name in FAMILIES.items())
        raise InputError(f"{where}: model_type is {family!r}; this version reads {known}")
    if faults := config_types.faults(config):
        raise InputError([f"{where}: {fault}" for fault in faults])
    return (from_llava if family in LLAVA else from_qwen)(config, pixel_mean, pixel_std, where)


def to_hf(config: VLMConfig, dtype: str = "float32") -> dict[str, Any]:
    """The `config.json` of a model made here."""
    return to_llava(config, dtype) if config.assembled else to_qwen(config, dtype)
