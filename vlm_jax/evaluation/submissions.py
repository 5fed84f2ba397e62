"""What an evaluation server is handed: answers under the ids of the official file, of their own type."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlm_jax.checkpoint.files import write_text
from vlm_jax.errors import InputError
from vlm_jax.evaluation.benchmark import Submission
from vlm_jax.evaluation.runner import Prediction


def entries_of(
    submission: Submission, ids: Mapping[str, Mapping[str, int | str]], predictions: Sequence[Prediction]
) -> list[dict[str, Any]]:
    """One object for each prediction, in their order.

    Args:
      ids: of each question by its own id, {field of the official file: id}.

    Raises:
      InputError: questions that the official file knows by nothing.
    """
    unknown = [one.id for one in predictions if submission.id_field not in ids.get(one.id, {})]
    if unknown:
        field = submission.id_field
        raise InputError([f"question {id!r} has no {field!r} to hand its answer in under" for id in unknown])
    return [
        {submission.id_field: ids[one.id][submission.id_field], submission.answer_field: one.prediction}
        for one in predictions
    ]


def write(submission: Submission, entries: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Writes the file of a submission, whole or not at all. Returns where it is."""
    path = folder / submission.file
    if submission.lines:
        write_text(path, "".join(json.dumps(entry) + "\n" for entry in entries))
    else:
        write_text(path, json.dumps(list(entries)) + "\n")
    return path
