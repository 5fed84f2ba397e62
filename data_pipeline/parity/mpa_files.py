"""MPA's own files, read and written so that its published outputs can be continued from, and ours by its code.

A PA file holds the questions and answers that a teacher writes, a PI file what one model answers to them, and a
training file the pairs that are kept, in LLaVA's form. A file that MPA wrote, read and written again, is the same to
the byte. What is read is strict: a key that is not MPA's is refused by name. Reading the same files into records to
train or evaluate on is `data_pipeline.sources.mpa`'s; which pairs are kept is decided elsewhere.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.parity.mpa_reading import PA, PI, TRAINING, Kind, WrittenNumber, read_entries, text_in
from data_pipeline.values import quoted
from vlm_jax.checkpoint.files import write_text
from vlm_jax.errors import InputError, gathered

_MARK = "<image>\n"


@dataclass(frozen=True)
class Annotated:
    """An entry of a PA file: a question and its answer that a teacher wrote for an image.

    Attributes:
      question_id: a whole number or a text, as in the file.
      image_path: as in the file; where an image root was given, the path of the image below it.
      predicted_answer, ground_truth_answer: a number of the file is a `WrittenNumber`.
      ground_truth_question, ground_truth_answer: a person's; None, and not written, for images that have none.
    """

    question_id: int | str
    image_path: str
    predicted_question: str
    predicted_answer: str
    ground_truth_question: str | None = None
    ground_truth_answer: str | None = None


@dataclass(frozen=True)
class Answered:
    """An entry of a PI file: a question and answer of the teacher's, and what one model says.

    Attributes:
      question_id, image_path: as in `Annotated`.
      PA_answer, predictions: a number of the file is a `WrittenNumber`. A prediction may be empty.
    """

    question_id: int | str
    image_path: str
    PA_question: str
    PA_answer: str
    predictions: str


@dataclass(frozen=True)
class TrainingEntry:
    """An entry of a training file: one question about an image, and its answer.

    Attributes:
      id, image: the `question_id` and `image_path` of the pair.
      question: without the `<image>` mark and the line break that stand before it in the file.
    """

    id: int | str
    image: str
    question: str
    answer: str

    @classmethod
    def of(cls, kept: Answered) -> "TrainingEntry":
        return cls(kept.question_id, kept.image_path, kept.PA_question, kept.PA_answer)


def read_annotated(path: str | Path, image_root: str | Path = "") -> list[Annotated]:
    """The entries of a PA file.

    Args:
      image_root: the folder in which the images are found again, by the longest end of their paths that exists there;
        "" leaves the paths as they are. An image that is not found gets its last name in that folder.

    Raises:
      InputError: the file is not there, no JSON list, empty or of another kind; the image root is no folder; or, all
        together, with a line for each error of an entry: a key that is missing or unknown, a value of another type
        (null included), an id that an earlier entry has, one ground truth without the other.
    """
    return read_entries(path, PA, lambda entry, errors: Annotated(**entry), image_root)


def read_answers(path: str | Path, image_root: str | Path = "") -> list[Answered]:
    """The entries of a PI file. Args and errors are those of `read_annotated`."""
    return read_entries(path, PI, lambda entry, errors: Answered(**entry), image_root)


def read_training(path: str | Path) -> list[TrainingEntry]:
    """The entries of a training file. Errors are those of `read_annotated`, and turns other than one and its answer."""
    return read_entries(path, TRAINING, _training_entry, "")


def write_annotated(path: str | Path, entries: Iterable[Annotated]) -> None:
    """Writes a PA file, whole or not at all, byte for byte as MPA's code does; an older one is replaced.

    Raises:
      InputError: an id is there twice, a text is None (but both ground truths may be), or holds half of a character.
      OSError: the folder cannot be made or written.
    """
    _write(path, [_flat(entry, PA) for entry in _writable(path, entries, PA)])


def write_answers(path: str | Path, entries: Iterable[Answered]) -> None:
    """As `write_annotated`, a PI file."""
    _write(path, [_flat(entry, PI) for entry in _writable(path, entries, PI)])


def write_training(path: str | Path, entries: Iterable[TrainingEntry]) -> None:
    """As `write_annotated`, a training file. A number is written as a text there: it is the words of a turn."""
    values = []
    for entry in _writable(path, entries, TRAINING):
        turns = [("human", f"{_MARK}{entry.question}"), ("gpt", entry.answer)]
        spoken = [{"from": speaker, "value": text} for speaker, text in turns]
        value = {"id": entry.id, "image": entry.image, "conversations": spoken}
        values.append("\n".join(f"  {line}" for line in json.dumps(value, indent=2).split("\n")))
    _write(path, values)


def paired(
    student: Sequence[Answered],
    teacher: Sequence[Answered],
    *,
    names: tuple[str, str] = ("the student's answers", "the teacher's answers"),
) -> list[tuple[Answered, Answered]]:
    """(student's, teacher's) for each question, joined by its id, in the order of the student's.

    Args:
      names: what error lines call the two, such as the paths of their files.

    Raises:
      InputError: with a line for each id that only one of them has or one has twice, and for each question of which
        the words, the answer or the name of the image differ.
    """
    errors: list[str] = []
    by_id = []
    for entries, name in zip((student, teacher), names, strict=True):
        errors += [f"{name}: {line}" for line in _twice(entry.question_id for entry in entries)]
        by_id.append({str(entry.question_id): entry for entry in entries})
    for here, there in ((0, 1), (1, 0)):
        errors += [
            f"{names[there]}: no answer to the question {entry.question_id!r}, which {names[here]} has; let both "
            "models answer the same PA file"
            for id, entry in by_id[here].items()
            if id not in by_id[there]
        ]
    pairs = [(entry, by_id[1][id]) for id, entry in by_id[0].items() if id in by_id[1]]
    for one, other in pairs:
        for what, value in (("question", _question), ("answer", _answer), ("image", _image_name)):
            if value(one) != value(other):
                errors.append(
                    f"{names[1]}: the {what} of {one.question_id!r} is {quoted(value(other))}, and in {names[0]} "
                    f"{quoted(value(one))}; let both models answer the same PA file"
                )
    if errors:
        raise InputError(errors)
    return pairs


def _question(entry: Answered) -> str:
    return entry.PA_question


def _answer(entry: Answered) -> str:
    return entry.PA_answer


def _image_name(entry: Answered) -> str:
    """Without its folders, which may be those of another machine."""
    return entry.image_path.replace("\\", "/").rpartition("/")[2]


def _training_entry(entry: dict[str, Any], errors: list[str]) -> TrainingEntry | None:
    turns = entry["conversations"]
    spoken = [turn if isinstance(turn, Mapping) else {} for turn in turns] if isinstance(turns, list) else []
    texts = [text for turn in spoken if turn.keys() == {"from", "value"} and type(text := turn["value"]) is str]
    if len(texts) != 2 or [turn["from"] for turn in spoken] != ["human", "gpt"] or not texts[0].startswith(_MARK):
        errors.append(
            "'conversations' must be a turn of 'human' that begins with '<image>' on a line of its own, and one of "
            "'gpt'; read other conversations as a data set in the format 'llava'"
        )
        return None
    with gathered(errors):
        question, answer = (text_in("conversations", text) for text in texts)
        return TrainingEntry(entry["id"], entry["image"], question.removeprefix(_MARK), answer)
    return None


def _writable(path: str | Path, entries: Iterable[Any], kind: Kind) -> list[Any]:
    """The entries, which can be read again once they are written.

    Raises:
      InputError: as the functions that write say.
    """
    entries, errors = list(entries), []
    id_key = kind.keys[0]
    for entry in entries:
        texts = {key: text for key, text in vars(entry).items() if key != id_key}
        absent = [key for key, text in texts.items() if text is None]
        if absent and set(absent) != set(kind.optional):
            errors.append(f"the entry {getattr(entry, id_key)!r} has no {' and no '.join(absent)}")
        with gathered(errors):
            for key, text in texts.items():
                text_in(f"{key} of the entry {getattr(entry, id_key)}", text or "")
    errors += _twice(getattr(entry, id_key) for entry in entries)
    if errors:
        raise InputError([f"{path}: {line}" for line in errors])
    return entries


def _twice(ids: Iterable[int | str]) -> list[str]:
    """A line without a place for each id that is there several times, a number and its text being one."""
    return [
        f"the id {id!r} is that of {times} entries; give each entry its own, or keep one of them"
        for id, times in Counter(map(str, ids)).items()
        if times > 1
    ]


def _flat(entry: Annotated | Answered, kind: Kind) -> str:
    values = vars(entry)
    lines = [f"        {json.dumps(key)}: {_json(values[key])}" for key in kind.keys if values[key] is not None]
    return "    {\n" + ",\n".join(lines) + "\n    }"


def _json(value: Any) -> str:
    return str(value) if isinstance(value, WrittenNumber) else json.dumps(value)


def _write(path: str | Path, entries: Sequence[str]) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # As json.dump with an indentation has it: ASCII, no line break at the end.
    write_text(path, "[\n" + ",\n".join(entries) + "\n]" if entries else "[]")
