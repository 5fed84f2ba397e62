"""The simple table, what most people start from: columns image, question, answer.

Turns a row into one question and its answer, and a record into a row. What a conversation may contain is checked
afterwards, by `data_pipeline.records`.
"""

import difflib
from collections.abc import Mapping
from typing import Any

from data_pipeline.records import Record
from data_pipeline.sources.containers import Entries
from data_pipeline.sources.forms import Form, Options, other_fields, pick_answer, question_and_answer
from data_pipeline.sources.turns import images_beside, with_system
from data_pipeline.values import as_written, json_type
from vlm_jax.errors import InputError

COLUMNS = ("image", "question", "answer")


class Table(Form):
    """Rows of image, question and answer; `answers`, a list, may stand for the answer."""

    id_keys = ("id", "question_id")
    asked_in = ("question",)

    def __init__(self, entries: Entries, options: Options):
        super().__init__(entries, options)
        absent = set(COLUMNS if options.training else COLUMNS[:2])
        found: dict[str, None] = {}
        for row in entries.objects():
            found.update(dict.fromkeys(row))
            absent -= {"answer", *row} if "answers" in row else set(row)
            absent -= {"image"} if "images" in row else set()
            if not absent:
                return
        if found:
            missing = [name for name in COLUMNS if name in absent]
            near = [match for name in missing for match in difflib.get_close_matches(name, map(str, found), n=1)]
            raise InputError(
                f"{entries.path}: no column {', '.join(map(repr, missing))}; the columns found are "
                f"{', '.join(map(repr, found))}. A table has image (may be left empty), question and answer"
                + (f"; is {' and '.join(map(repr, near))} meant?" if near else "")
            )

    def convert(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        """Blanks around a cell are not part of it."""
        errors: list[str] = []
        cells: dict[str, str] = {}
        for name in COLUMNS[1:]:
            value = as_written(entry.get(name)) if name == "answer" else entry.get(name)
            if value is not None and not isinstance(value, str):
                errors.append(f"the {name} is {json_type(value)}; it must be a text")
            cells[name] = value.strip() if isinstance(value, str) else ""
        _, images = images_beside(entry, ("image", "images"), errors)
        images = [image.strip() if isinstance(image, str) else image for image in images]
        fields = other_fields(entry, errors, compared=True)
        if not errors and not cells["question"]:
            errors.append("the question is empty; write it or remove the row")
        if not errors and not cells["answer"] and "answers" in fields and self.options.training:
            identifier = next((entry[key] for key in self.id_keys if entry.get(key) is not None), cells["question"])
            cells["answer"] = pick_answer(fields["answers"], self.options, str(identifier))
        if not errors and self.options.training and not cells["answer"]:
            errors.append("the answer is empty; write it or remove the row")
        if errors:
            raise InputError(errors)
        messages = with_system(entry, question_and_answer(cells["question"], images, cells["answer"] or None), errors)
        if errors:
            raise InputError(errors)
        return {**fields, "messages": messages}


def to_row(record: Record) -> dict[str, Any]:
    """The record as a row.

    Raises:
      InputError: it is more than one question about at most one image, shown before it, and one answer.
    """
    roles = [message["role"] for message in record.messages]
    if roles not in (["user", "assistant"], ["user"]):
        raise InputError(
            f"has the turns {', '.join(roles)}; a row holds one question and one answer: write it as 'records', "
            "'llava', 'sharegpt' or 'openai'"
        )
    if any("weight" in message for message in record.messages):
        raise InputError(
            "has an answer with a weight in the loss, which a row cannot hold; write it as 'records', 'llava', "
            "'sharegpt' or 'openai'"
        )
    parts, *rest = (_parts(message["content"]) for message in record.messages)
    kinds = [part["type"] for part in parts]
    if kinds.count("image") > 1 or "image" in kinds[1:]:
        raise InputError("has more than one image, or text before it; a row holds one image, then the question")
    question = "".join(part["text"] for part in parts if part["type"] == "text")
    if not question.strip():
        raise InputError("asks nothing in words; a row holds an image and a question")
    return {
        "id": record.id,
        "image": parts[0]["image"] if kinds[:1] == ["image"] else "",
        "question": question,
        "answer": "".join(part["text"] for answer in rest for part in answer),
    }


def _parts(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
