"""What `vision_config` of all Qwen-VL families has in common: other names of its settings, and its axial RoPE."""

from collections.abc import Mapping
from typing import Any

_SAME = {"num_attention_heads": "num_heads", "num_hidden_layers": "depth"}
"""Other names that transformers takes for settings of the tower; which counts follows from the order in the file."""


def theta(vision: Mapping[str, Any]) -> Any:
    """Of the tower's RoPE."""
    return _rope(vision).get("rope_theta", vision.get("rope_theta", 10_000.0))


def not_computed(vision: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """Settings that are not computed, or say two things, in words.

    Args:
      defaults: of what is left out.
    """
    errors = [
        f"vision_config.{key} is {vision[key]!r}; wanted it by the name {own}, which is {vision.get(own, 'not there')}"
        for key, own in _SAME.items()
        if key in vision and vision[key] != vision.get(own, defaults[own])
    ]
    rope = _rope(vision)
    if (kind := rope.get("rope_type", rope.get("type", "axial"))) != "axial":
        errors.append(f"vision_config.rope_parameters.rope_type is {kind!r}; wanted 'axial'")
    if theta(vision) is None:
        errors.append("vision_config.rope_parameters.rope_theta is null; wanted a number above 0")
    return errors


def _rope(vision: Mapping[str, Any]) -> Mapping[str, Any]:
    """As transformers: the older key counts where a file has both."""
    return vision.get("rope_scaling") or vision.get("rope_parameters") or {}
