"""Columns beside a conversation that would be content to other trainers, and are not trained on here.

Any file may have columns of its own (a source, a licence, a score), so those that are not known are passed over: they
cannot change what is learned. These can: an entry that has one, and something in it, is refused by name. What is
read besides the conversation (`system`, `images`, `history`) is the forms' own.
"""

from collections.abc import Mapping
from typing import Any

from data_pipeline.records import LEAVE_OUT
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
_LIKED = ("label", "kto_tag")
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
        f"has {key!r} {cells[key]!r} beside its words, but only a turn has a weight in the loss; give it to the turns "
        "of messages, or rename the column if it says something else"
        for key in (*WEIGHT_KEYS, "weights")
        if _weighs(cells.get(key))
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
        for key in _LIKED
        if isinstance(cells.get(key), bool) or (key == "kto_tag" and key in cells)
    ]
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


def _weighs(value: Any) -> bool:
    """Whether a value says of how much an entry is learned that it is other than all of it; other texts do not."""
    if isinstance(value, str):
        try:
            return value.strip().lower() in ("false", "no") or float(value) != 1
        except ValueError:
            return False
    return isinstance(value, (bool, int, float, list)) and value not in (True, 1)
