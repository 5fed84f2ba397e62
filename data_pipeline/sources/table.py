"""The simple table, what most people start from: columns image, question, answer.

Turns a row into one question and its answer. What a conversation may contain is checked afterwards, by
`data_pipeline.records`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.records import json_type
from vlm_jax.errors import InputError

COLUMNS = ("image", "question", "answer")


def check_columns(path: Path, rows: Sequence[Mapping[str, Any]], training: bool) -> None:
    """A column that no row has is one fault of the file, not one of each row.

    Raises:
      InputError: naming the columns that are missing and those that were found.
    """
    required = COLUMNS if training else COLUMNS[:2]
    found = list(dict.fromkeys(name for row in rows for name in row))
    missing = [name for name in required if name not in found]
    if rows and missing:
        columns = ", ".join(repr(name) for name in missing)
        raise InputError(
            f"{path}: no column {columns}; the columns found are {', '.join(repr(name) for name in found)}. "
            "A table has image (may be left empty), question and answer"
        )


def to_messages(row: Mapping[str, Any], training: bool) -> dict[str, Any]:
    """The row in the form that `data_pipeline.records.from_json` reads. Blanks around a cell are not part of it.

    Raises:
      InputError: a cell that is not text, or an empty question; an empty answer where answers are trained on.
    """
    faults = []
    cells = {}
    for name in COLUMNS:
        value = row.get(name)
        if value is not None and not isinstance(value, str):
            faults.append(f"the {name} is {json_type(value)}; it must be a text")
        cells[name] = value.strip() if isinstance(value, str) else ""
    if not faults and not cells["question"]:
        faults.append("the question is empty; write it or remove the row")
    if not faults and training and not cells["answer"]:
        faults.append("the answer is empty; write it or remove the row")
    if faults:
        raise InputError(faults)
    content: str | list[dict[str, str]] = cells["question"]
    if cells["image"]:
        content = [{"type": "image", "image": cells["image"]}, {"type": "text", "text": cells["question"]}]
    messages = [{"role": "user", "content": content}]
    if cells["answer"]:
        messages.append({"role": "assistant", "content": cells["answer"]})
    return {"messages": messages}
