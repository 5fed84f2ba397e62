"""Columns beside a conversation that would be content to other trainers, and are not trained on here.

Any file may have columns of its own (a source, a licence, a score), so those that are not known are passed over: they
cannot change what is learned. These can: an entry that has one, and something in it, is refused by name. What is
read besides the conversation (`system`, `images`, `history`) is the forms' own.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipeline.marks import LEAVE_OUT
from data_pipeline.sources.json_files import from_cell
from data_pipeline.values import as_written, quoted
from vlm_jax.processing.messages import WEIGHT_KEYS, is_empty

_MEDIA = tuple(
    f"{medium}{end}"
    for medium in ("video", "audio")
    for end in ("", "s", "_path", "_paths", "_url", "_urls", "_file", "_files", "_list")
)
_TOOLS = ("tools", "functions", "tool_calls", "function_call")
_PAIRS = (
    "chosen", "rejected", "rejected_response", "rejected_messages", "rejected_images", "chosen_response",
    "preferred_output", "non_preferred_output",
)  # fmt: skip
_TOKENS = ("input_ids", "completion_mask", "assistant_masks")
_LIKED = (True, False, "true", "false", "0", "1")
_WEIGHTS = (
    *WEIGHT_KEYS, "weights", "_weight", "loss_weights", "loss_scale", "loss_scales", "loss_masks", "train_mask",
    "train_on_turn", "train_on_turns", "sample_weight", "sample_weights", "example_weight", "instance_weight",
    "importance_weight", "token_weights", "turn_weights",
)  # fmt: skip
_MASKS = ("mask", "masks")
"""Of turns where they are 0 and 1; elsewhere they are outlines of objects."""

_IMAGES = re.compile(
    r"(?:base64|encoded|raw|pil|input|left|right)?(?:image|img|picture|pic|photo)s?"
    r"(?:path|url|uri|link|file|filename|name|bytes|base64|b64|data|list|tensor)?s?(?P<number>\d*)|pixelvalues?"
)
"""Columns of images in other programs, without what is no letter or digit."""

_PERHAPS_IMAGES = re.compile(r"(?:media|frame|file|path|url|uri|attachment|figure)s?(?:name|path|url|uri|file)?s?")
_IMAGE_FILE = re.compile(
    r"data:image/.*|[^?#]*\.(?:jpe?g|png|webp|bmp|gif|tiff?|ppm|heic|avif)(?:[?#].*)?", re.IGNORECASE | re.DOTALL
)
_CHOICES = re.compile(r"(?:answer|multiple|mcq|candidate)?(?:choices?|options?)|candidates|candidateanswers")
_CHOICE = re.compile(r"(option|choice|candidate|opt|op|)([a-h]|\d)")
_TEMPLATE = ("chat_template", "chat_template_kwargs")


def unread(entry: Mapping[str, Any], conversational: bool, *, history: bool) -> list[str]:
    """An error, without a place, for each column of an entry that is content and cannot be read.

    Args:
      conversational: the form is one of conversations, in which trainers look for more than images and words.
      history: the form reads the earlier turns that `history` has.
    """
    cells = {str(key): value for key, value in entry.items() if not is_empty(value)}
    errors = [f"has {key!r}, and only text and images can be trained on: {LEAVE_OUT}" for key in _MEDIA if key in cells]
    errors += [
        f"has {key!r} {_cut(cells[key])} beside its words, but only a turn has a weight in the loss; give it to the "
        "turns of messages, or rename the column if it says something else"
        for key in (*_WEIGHTS, *_MASKS)
        if (_masks if key in _MASKS else _weighs)(cells.get(key))
    ]
    if not conversational:
        return errors
    errors += [f"has {key!r}, and tool calls are not supported: {LEAVE_OUT}" for key in _TOOLS if key in cells]
    if pairs := [key for key in _PAIRS if key in cells]:
        errors.append(
            f"has {' and '.join(map(repr, pairs))}, a pair of a better and a worse answer, and only single answers are "
            "trained on; keep the better one as the answer and remove the rest"
        )
    errors += [
        f"has {key!r} {cells[key]!r}, which marks a good or a bad answer, and every answer is trained on; remove the "
        "column, and the records of bad answers"
        for key in ("label", "kto_tag")
        if key in cells and (key == "kto_tag" or _likes(cells[key]))
    ]
    if _are_numbers(cells.get("labels")):
        errors.append(
            f"has 'labels' {_cut(cells['labels'])} beside its words, which say what is learned to other trainers; give "
            "the turns their weights, or rename the column if it says something else"
        )
    if "history" in cells and not history:
        errors.append("has 'history' beside its turns, which is not read there; put its turns before the others")
    if tokens := [key for key in _TOKENS if isinstance(cells.get(key), list)]:
        errors.append(f"is tokenised already ({', '.join(map(repr, tokens))}); give the conversation alone")
    if "objects" in cells:
        errors.append(
            "has 'objects', boxes that are not written into the text here; write them into it as the model reads them, "
            "and remove the column"
        )
    errors += [f"has {key!r}, and the template is the model's; remove the column" for key in _TEMPLATE if key in cells]
    return errors


def unread_images(entry: Mapping[str, Any], *, shown: bool) -> list[str]:
    """An error for each column that holds images under a name that is not read.

    Args:
      shown: an image of the entry is read: then what is no further one of a numbered series only says more about it.
    """
    errors = []
    for key, value in entry.items():
        if key in ("image", "images") or not isinstance(key, str) or is_empty(value):
            continue
        name = _letters(key)
        match = _IMAGES.fullmatch(name)
        if shown and match and match["number"]:
            errors.append(
                f"has {key!r} {_cut(value)} beside the images that are read; list all of them under 'images', in the "
                "order they are shown, or remove it"
            )
        elif not shown and (match or (_PERHAPS_IMAGES.fullmatch(name) and _names_image(value))):
            errors.append(
                f"has {key!r} {_cut(value)}, which is not read, and no other image: name it (config.data.columns.image="
                f"{key}), rename it to 'image' or 'images', or remove it"
            )
    return errors


def unread_choices(entry: Mapping[str, Any], asked_in: Sequence[str]) -> list[str]:
    """An error where a question has choices in columns beside it, and does not name each of them itself.

    Args:
      asked_in: the columns of the question.
    """
    cells = {str(key): from_cell(value) for key, value in entry.items() if not is_empty(value)}
    columns = [
        key for key in cells if _CHOICES.fullmatch(_letters(key)) and isinstance(cells[key], (str, list, Mapping))
    ]
    series: dict[str, list[str]] = {}
    for key in cells:
        if match := _CHOICE.fullmatch(_letters(key)):
            series.setdefault(match[1], []).append(key)
    for start, keys in series.items():
        lettered = {"a", "b"} <= {_letters(key)[-1] for key in keys}
        columns += keys if lettered or (start and len(keys) > 1) else []
    words = "\n".join(text for key in asked_in if isinstance(text := entry.get(key), str))
    choices = [choice for key in columns for choice in _texts(cells[key])]
    if not columns or all(re.search(rf"(?<!\w){re.escape(choice)}(?!\w)", words) for choice in choices):
        return []
    return [
        f"has {', '.join(map(repr, columns))}, choices that its question does not name; write them into the question "
        "and the right one as the answer, and remove the columns"
    ]


@functools.lru_cache(maxsize=4096)
def _letters(key: str) -> str:
    return re.sub(r"[\W_]", "", key.lower())


def _texts(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        return [text for one in value for text in _texts(one)]
    value = as_written(value)
    return [value.strip()] if isinstance(value, str) and value.strip() else []


def _names_image(value: Any) -> bool:
    if isinstance(value, Mapping):
        value = [value.get(key) for key in ("bytes", "path", "url")]
    if isinstance(value, list):
        return any(map(_names_image, value))
    return isinstance(value, bytes) or (isinstance(value, str) and bool(_IMAGE_FILE.fullmatch(value.strip())))


def _cut(value: Any) -> str:
    if isinstance(value, str):
        return quoted(value)
    return f"({len(value):,} bytes)" if isinstance(value, bytes) else quoted(repr(value))[1:-1]


def _weighs(value: Any) -> bool:
    """Whether a value says of how much an entry is learned that it is other than all of it; other texts do not."""
    value = from_cell(value)
    if isinstance(value, str):
        try:
            return value.strip().lower() in ("false", "no") or float(value) != 1
        except ValueError:
            return False
    if isinstance(value, list):
        return any(isinstance(one, Mapping) or _weighs(one) for one in value)
    return isinstance(value, (bool, int, float)) and value not in (True, 1)


def _masks(value: Any) -> bool:
    value = from_cell(value)
    return isinstance(value, list) and all(one in (0, 1) for one in value) and not all(value)


def _likes(value: Any) -> bool:
    return (value.strip().lower() if isinstance(value, str) else value) in _LIKED


def _are_numbers(value: Any) -> bool:
    value = from_cell(value)
    if isinstance(value, list):
        return bool(value) and all(isinstance(one, (int, float)) or _are_numbers(one) for one in value)
    return False
