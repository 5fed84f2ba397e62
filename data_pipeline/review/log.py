"""The log of a review: `review.jsonl` in the corpus folder, one JSON line an action, only ever added to.

A line is on the disk before the reviewer is told that it was saved. A crash can leave the beginning of a line behind,
which nobody was told of: it is reported and left out. One process writes at a time. What actions come to is
`decisions`'.
"""

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.review.content import Texts
from data_pipeline.values import json_type, quoted
from vlm_jax.errors import InputError
from vlm_jax.json_objects import object_of
from vlm_jax.locations import check_ends

LOG = "review.jsonl"
ACTIONS = ("accept", "reject", "edit", "undo")
REASONS = {
    "wrong_answer": "The answer is wrong",
    "not_in_image": "The image does not show it",
    "bad_image": "The image is faulty",
    "unclear_question": "The question is unclear",
    "no_image_needed": "No image is needed to answer",
    "bad_reasoning": "The reasoning is wrong",
    "bad_language": "The language is faulty",
    "unsuitable": "It is unsuitable or offensive",
    "other": "Another reason",
}
"""Why a record is rejected; OTHER is explained by a note."""
OTHER = "other"


@dataclass(frozen=True)
class Entry:
    """One action.

    Attributes:
      content: `content_key` of the record as it was shown.
      edited_content: of an edit, the key of the record that it makes.
      reason: of a rejection, a key of `REASONS`; `note` is the reviewer's own words.
      token: made by the page for each action, so that one sent twice is written once.
    """

    time: str
    reviewer: str
    action: str
    id: str
    content: str
    token: str = ""
    reason: str = ""
    note: str = ""
    question: str = ""
    answer: str = ""
    reasoning: str | None = None
    edited_content: str = ""

    @property
    def texts(self) -> Texts:
        """Of an edit."""
        return Texts(self.question, self.answer, self.reasoning)


_FIELDS = {field.name: field.default for field in dataclasses.fields(Entry)}


def read_log(path: Path) -> tuple[list[Entry], str]:
    """(entries in order, the beginning of a line that a crash left at the end, or ''). No file is an empty log.

    Raises:
      InputError: a pipe or a device; or with every line that is no entry, other than a last one that was cut off.
    """
    try:
        check_ends(path)
        content = path.read_bytes()
    except FileNotFoundError:
        return [], ""
    return _parse(path, content)


def standing(entries: list[Entry]) -> list[Entry]:
    """The actions that were not undone, in order. An undo takes back its reviewer's last action on that record."""
    result: list[Entry] = []
    for entry in entries:
        if entry.action != "undo":
            result.append(entry)
            continue
        found = (i for i in reversed(range(len(result))) if _same_place(result[i], entry))
        if (index := next(found, None)) is not None:
            del result[index]
    return result


class ReviewLog:
    """The log, open for adding to. `opened` makes it."""

    def __init__(self, path: Path, file: int):
        self.path, self._file = path, file
        self._length = os.fstat(file).st_size
        entries, self.torn = _parse(path, _content(file))
        self.entries: list[Entry] = entries
        if self.torn:
            self._length -= len(self.torn.encode("utf-8", "surrogateescape"))
            os.ftruncate(file, self._length)
        elif entries and not _content(file).endswith(b"\n"):
            self._write(b"\n")

    def append(self, entry: Entry) -> None:
        """Adds an action; it is on the disk when this returns.

        Raises:
          OSError: it could not be written, or the log was removed, replaced or written by another meanwhile. Nothing
            was added.
        """
        written = {name: value for name, value in dataclasses.asdict(entry).items() if value != _FIELDS[name]}
        self._write(json.dumps(written, ensure_ascii=False).encode("utf-8") + b"\n")
        self.entries.append(entry)

    def _write(self, line: bytes) -> None:
        self._check_in_place()
        try:
            rest = line
            while rest:
                rest = rest[os.write(self._file, rest) :]
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, self._length)
            raise
        self._length += len(line)

    def _check_in_place(self) -> None:
        """Raises OSError where the name leads to another file by now: a line would be in none that is read again."""
        own = os.fstat(self._file)
        try:
            named = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            named = None
        if named is None or (named.st_dev, named.st_ino) != (own.st_dev, own.st_ino):
            done = "was removed" if named is None else "was replaced by another file"
        elif own.st_size != self._length:
            done = "was changed by another program"
        else:
            return
        reason = f"{self.path.name} {done} while the server runs; end the server, put the log back, and start it again"
        raise OSError(errno.ESTALE, reason)


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[ReviewLog]:
    """The log of a corpus, held by this process alone.

    Raises:
      InputError: another process holds it, it is no file, or a line is damaged.
    """
    path = folder / LOG
    if path.exists():
        check_ends(path)
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{folder}: is under review by another server; several reviewers share one server and its address"
            ) from None
        yield ReviewLog(path, file)
    finally:
        os.close(file)


def _content(file: int) -> bytes:
    return os.pread(file, os.fstat(file).st_size, 0)


def _parse(path: Path, content: bytes) -> tuple[list[Entry], str]:
    *lines, last = content.split(b"\n")
    entries, errors = [], []
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():  # an editor may leave an empty one
                entries.append(_entry(line))
        except InputError as error:
            reason = f"{path}, line {number}: {'; '.join(error.lines)}"
            errors.append(f"{reason}; mend the line, or remove it with what it says")
    if errors:
        raise InputError(errors)
    if not last.strip():
        return entries, ""
    try:
        return [*entries, _entry(last)], ""  # whole but for its line break
    except InputError:
        return entries, last.decode("utf-8", "surrogateescape")


def _entry(line: bytes) -> Entry:
    """Raises InputError with what is wrong."""
    try:
        value = json.loads(line.decode("utf-8"), object_pairs_hook=object_of)
    except InputError:
        raise
    except (ValueError, RecursionError):  # what Python says of it speaks of columns of another line
        raise InputError("is no JSON object") from None
    if not isinstance(value, Mapping):
        raise InputError(f"is {json_type(value)} where an object is expected")
    check_fields(value, _FIELDS, required=("time", "reviewer", "action", "id", "content"))
    if value["action"] not in ACTIONS:
        raise InputError(f"the action is {quoted(value['action'])}; known are {', '.join(ACTIONS)}")
    if value["action"] == "reject" and value.get("reason") not in REASONS:
        raise InputError(f"the reason is {quoted(value.get('reason', ''))}; known are {', '.join(REASONS)}")
    if value["action"] == "edit" and not (value.get("question") and value.get("answer")):
        raise InputError("an edit has a question and an answer")
    return Entry(**value)


def check_fields(value: Mapping[str, Any], known: Mapping[str, Any], required: tuple[str, ...]) -> None:
    """Raises InputError, with every error, where an object has other keys than these or values that are no texts.

    Args:
      known: keys to defaults; one whose default is None may be None.
    """
    errors = [f"unknown field {quoted(name)}" for name in value if name not in known]
    errors += [f"'{name}' is missing" for name in required if not value.get(name)]
    errors += [
        f"'{name}' must be a text, not {json_type(content)}"
        for name, content in value.items()
        if name in known and not isinstance(content, str) and not (content is None and known[name] is None)
    ]
    if errors:
        raise InputError(errors)


def _same_place(entry: Entry, undo: Entry) -> bool:
    return entry.reviewer == undo.reviewer and entry.id == undo.id
