"""What a message and its parts may hold: the keys that are read, in chat, training and every data format alike.

The keys are allow-lists. Programs write settings of a turn or of an image beside its words, and one that is passed
over in silence trains or answers something else than was meant: so a key that is not known is refused by name. A key
whose value is empty (None, "", [], [None]) is not there: Arrow gives every message the keys of all.

Reasons here name no place; the caller puts it before them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from vlm_jax.errors import InputError

ROLES = ("system", "user", "assistant")
TOOL_ROLES = ("tool", "function", "observation", "function_call", "tool_call", "tool_response", "ipython")
"""Who speaks where a model calls tools: OpenAI's, LLaMA-Factory's, ms-swift's and Llama's names."""

WEIGHT_KEYS = ("weight", "loss_weight", "loss", "train", "training", "trainable", "loss_mask")
"""How much of a turn is learned: `weight` is OpenAI's, `loss_weight` LLaMA-Factory's, `loss` ms-swift's, `train` and
`training` axolotl's; `loss_mask` is 1 where the loss counts, as in Megatron."""

WEIGHTS = (1e-3, 1e3)
"""The smallest and the largest weight of a turn besides 0."""

_NOTES = (
    "id", "message_id", "turn_id", "index", "name", "timestamp", "created_at", "date", "model", "language", "lang",
    "source", "metadata",
)  # fmt: skip
"""Keys of a message that say something about it, and nothing that a model is shown."""

_TOOL_KEYS = ("tool_calls", "tool_call_id", "function_call", "tool_call", "tools")
_PART_NOTES = ("id", "index", "cache_control")
_PART_KEYS = {
    "text": ("type", "text", *_PART_NOTES),
    "image": ("type", "image", "path", "url", "detail", *_PART_NOTES),
    "image_url": ("type", "image_url", "detail", *_PART_NOTES),
}
_ADDRESSES = ("image", "path", "url")
_SIZE_KEYS = (
    "min_pixels", "max_pixels", "resized_height", "resized_width", "total_pixels", "nframes", "fps", "min_frames",
    "max_frames", "video_start", "video_end",
)  # fmt: skip
"""Sizes that qwen-vl-utils reads from a part, each for one image alone."""

_SIZE_ADVICE = (
    "an image has no size of its own here: set the limits of all by config.model.min_visual_tokens and "
    "config.model.max_visual_tokens (visual_tokens= where a model is loaded) and remove it"
)


def is_empty(value: Any) -> bool:
    """Whether a value says that there is nothing: None, NaN (pandas' empty cell), a blank text, or only such things."""
    if isinstance(value, str):
        return value.strip() in ("", "[]", "{}")
    if not isinstance(value, (list, tuple, Mapping)):
        return value is None or (isinstance(value, float) and value != value)
    left = [_elements(value)]
    while left:  # no recursion: data can be nested as deeply as it likes
        for one in left[-1]:
            if isinstance(one, (list, tuple, Mapping)):
                left.append(_elements(one))
                break
            if not is_empty(one):
                return False
        else:
            left.pop()
    return True


def _elements(value: Any) -> Iterator[Any]:
    return iter(value.values() if isinstance(value, Mapping) else value)


def is_blank(value: Any) -> bool:
    """As `is_empty`, of a value that is words: "[]" and "{}" are words like others."""
    return not value.strip() if isinstance(value, str) else is_empty(value)


def tool_keys(message: Mapping[str, Any]) -> list[str]:
    """The keys by which a message calls a tool or answers such a call."""
    return [key for key in _TOOL_KEYS if not is_empty(message.get(key))]


def unread_keys(message: Mapping[str, Any]) -> list[str]:
    """Why keys of a message, its `tool_keys` aside, cannot be read; empty where all are known."""
    known = {"role", "content", *WEIGHT_KEYS, *_NOTES, *_TOOL_KEYS}
    keys = [str(key) for key, value in message.items() if key not in known and not is_empty(value)]
    read = ", ".join(("role", "content", *WEIGHT_KEYS))
    return [f"has the key {key!r}, which is not known; remove it (read are {read})" for key in keys]


def unread_part_keys(part: Mapping[str, Any]) -> list[str]:
    """Why keys of a part of type text, image or image_url cannot be read; empty where all are known."""
    kind = part["type"]
    keys = [str(key) for key, value in part.items() if key not in _PART_KEYS[kind] and not is_empty(value)]
    link = part.get("image_url")
    if kind == "image_url" and isinstance(link, Mapping):
        keys += [str(key) for key, value in link.items() if key not in ("url", "detail") and not is_empty(value)]
    details = [one.get("detail") for one in (part, link) if isinstance(one, Mapping)]
    reasons = [
        f"asks for the detail {detail!r}; {_SIZE_ADVICE} ('auto' may stay)"
        for detail in details
        if kind != "text" and not is_empty(detail) and detail != "auto"
    ]
    addresses = [key for key in _ADDRESSES if kind == "image" and not is_empty(part.get(key))]
    if len({part[key] if isinstance(part[key], str) else key for key in addresses}) > 1:
        reasons.append(f"names an image under {' and '.join(map(repr, addresses))}; keep one of them")
    sizes = [key for key in keys if key in _SIZE_KEYS]
    if sizes:
        reasons.append(f"sets {', '.join(map(repr, sizes))}; {_SIZE_ADVICE}")
    reasons += [
        f"has the key {key!r}, which a part of type {kind!r} does not have; remove it"
        for key in keys
        if key not in sizes
    ]
    return reasons


def address_of(part: Mapping[str, Any]) -> Any:
    """What a part of type image or image_url points at, whatever it is; None where it only says that one is here."""
    if part["type"] == "image_url":
        link = part.get("image_url")
        return link.get("url") if isinstance(link, Mapping) else link
    return next((part[key] for key in _ADDRESSES if not is_empty(part.get(key))), None)


def weights_in(message: Mapping[str, Any]) -> dict[str, Any]:
    """What a turn says of its weight by key, right or wrong; None and NaN, pandas' empty cell, say nothing."""
    weights = {key: message[key] for key in WEIGHT_KEYS if message.get(key) is not None}
    return {key: value for key, value in weights.items() if not (isinstance(value, float) and value != value)}


def turn_weight(message: Mapping[str, Any]) -> int | float:
    """How much each token of a turn weighs in the loss: 0 is not learned, 1 what is learned where nothing is said.

    Raises:
      InputError: it is no number, not 0 and beyond `WEIGHTS`, given twice with different values, or of a turn that is
        never learned.
    """
    weights = weights_in(message)
    for key, value in weights.items():
        if not _is_weight(value):
            raise InputError(
                f"has the {key} {value!r}; how much of a turn is learned is true, false, 0, or a number from "
                f"{WEIGHTS[0]:g} to {WEIGHTS[1]:g}"
            )
    if len({float(value) for value in weights.values()}) > 1:
        listed = " and ".join(f"the {key} {value!r}" for key, value in weights.items())
        raise InputError(f"has {listed}, which contradict each other; keep one")
    if not weights:
        return 1 if message.get("role") == "assistant" else 0
    key, value = next(iter(weights.items()))
    if value and message.get("role") != "assistant":
        raise InputError(
            f"has the {key} {value!r}, but only the assistant's words are learned, and it is the "
            f"{message.get('role')}'s; remove it"
        )
    return int(value) if value == int(value) else float(value)


def _is_weight(value: Any) -> bool:
    # NaN lies between no two numbers.
    return isinstance(value, (int, float)) and (value == 0 or WEIGHTS[0] <= value <= WEIGHTS[1])
