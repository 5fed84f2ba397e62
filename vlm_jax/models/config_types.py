"""The types of what a `config.json` says, checked before anything is computed of it.

The file may be anybody's. A size that is a text would surface somewhere as Python's complaint, and one of a thousand
million layers would take all memory: so sizes are whole numbers within what a model can be, and told by their keys.
"""

import math
from collections.abc import Mapping
from typing import Any

_LAYERS, _WIDTH, _TOKENS, _PIXELS = 4096, 1 << 20, 1 << 24, 1 << 16
COUNTS = {
    "num_hidden_layers": _LAYERS,
    "depth": _LAYERS,
    "hidden_size": _WIDTH,
    "intermediate_size": 1 << 22,
    "out_hidden_size": _WIDTH,
    "embed_dim": _WIDTH,
    "num_attention_heads": _LAYERS,
    "num_key_value_heads": _LAYERS,
    "num_heads": _LAYERS,
    "head_dim": _WIDTH,
    "vocab_size": _TOKENS,
    "patch_size": _PIXELS,
    "image_size": _PIXELS,
    "window_size": _PIXELS,
    "spatial_merge_size": 64,
    "temporal_patch_size": 64,
    "in_channels": 64,
    "num_channels": 64,
    "num_position_embeddings": _TOKENS,
    "projection_dim": _WIDTH,
    "projection_size": _WIDTH,
}
"""Keys of sizes, and the largest that is taken for one."""
TOKENS = (
    "image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id", "image_token_index",
)  # fmt: skip
NUMBERS = ("initializer_range", "rms_norm_eps", "layer_norm_eps", "rope_theta", "mlp_ratio")
LISTS = ("fullatt_block_indexes", "mrope_section", "deepstack_visual_indexes")
OBJECTS = ("text_config", "vision_config", "rope_scaling", "rope_parameters", "quantization_config")
_DEEPEST = 3


def errors(config: Mapping[str, Any], inside: str = "", depth: int = 0) -> list[str]:
    """Settings of another type or of an absurd size, in words; null is nowhere one.

    Args:
      inside: the keys of the objects that these settings are in, with a dot behind each.
    """
    found = []
    for key, value in config.items():
        if value is None:
            continue
        if key in COUNTS and not _is_whole(value, 1, COUNTS[key]):
            found.append(f"{inside}{key} is {_short(value)}; wanted a whole number from 1 to {COUNTS[key]:,}")
        elif key in TOKENS and not _is_whole(value, 0, _TOKENS):
            found.append(f"{inside}{key} is {_short(value)}; wanted the id of a token")
        elif key in NUMBERS and not (_is_number(value) and value > 0):
            found.append(f"{inside}{key} is {_short(value)}; wanted a number above 0")
        elif key in LISTS and not (isinstance(value, list) and all(_is_whole(one, 0, _PIXELS) for one in value)):
            found.append(f"{inside}{key} is {_short(value)}; wanted a list of whole numbers")
        elif key in OBJECTS and not isinstance(value, Mapping):
            found.append(f"{inside}{key} is {_short(value)}; wanted a JSON object")
        elif key in OBJECTS and depth < _DEEPEST:
            found += errors(value, f"{inside}{key}.", depth + 1)
    return found


def _is_whole(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
