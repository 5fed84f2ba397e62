"""A question that a teacher wrote about an image, with its answer; and files of them, a JSON object a line."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.marks import HALF_A_CHARACTER
from vlm_jax.checkpoint.files import write_text
from vlm_jax.errors import InputError


@dataclass(frozen=True)
class Pair:
    """Attributes:
    id: of the image and of the place among its pairs.
    image: the image's id; file: where it lies; digest: of its bytes.
    type: the kind of question that was asked for; "" for any.
    round: in which it was written, from 1.
    """

    id: str
    image: str
    file: str
    digest: str
    question: str
    answer: str
    type: str = ""
    round: int = 1


@dataclass(frozen=True)
class Compared:
    """A pair and what became of it.

    Attributes:
      student: what the student said.
      teacher: what the teacher said, once for each sample.
      student_right: whether that is the pair's answer; teacher_right: whether enough of the samples are.
    """

    pair: Pair
    student: str
    teacher: tuple[str, ...]
    student_right: bool
    teacher_right: bool

    @property
    def kept(self) -> bool:
        """Whether it is in the parity gap: the student is wrong and the teacher right."""
        return self.teacher_right and not self.student_right

    @property
    def outcome(self) -> str:
        """One of `OUTCOMES`."""
        return OUTCOMES[2 * (not self.teacher_right) + self.student_right]


OUTCOMES = ("kept", "both right", "both wrong", "student alone right")


def write_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    write_text(path, "".join(json.dumps(dataclasses.asdict(pair), ensure_ascii=False) + "\n" for pair in pairs))


def read_pairs(path: Path) -> list[Pair]:
    """Raises InputError where a line is no pair."""
    return [_pair(entry, where) for entry, where in _lines(path)]


def write_compared(path: Path, compared: Sequence[Compared]) -> None:
    lines = []
    for one in compared:
        judged = {"student_right": one.student_right, "teacher_right": one.teacher_right, "kept": one.kept}
        said = {"student": one.student, "teacher": list(one.teacher), **judged}
        lines.append(json.dumps({**dataclasses.asdict(one.pair), **said}, ensure_ascii=False) + "\n")
    write_text(path, "".join(lines))


def read_compared(path: Path) -> list[Compared]:
    """Raises InputError where a line is no pair with its answers."""
    found = []
    for entry, where in _lines(path):
        try:
            own = [entry.pop(name) for name in ("student", "teacher", "student_right", "teacher_right", "kept")][:4]
        except KeyError as error:
            raise InputError(f"{where}: has no {error.args[0]!r}; run the stage identify again") from None
        found.append(Compared(_pair(entry, where), own[0], tuple(own[1]), own[2], own[3]))
    return found


def _lines(path: Path) -> list[tuple[dict[str, Any], str]]:
    found = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # alone: JSON may hold other marks that end a line
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8; save it as such") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}, line {number}: no JSON ({error})") from None
        if not isinstance(value, dict):
            raise InputError(f"{path}, line {number}: is no pair; wanted an object, such as {{'id': …}}")
        found.append((value, f"{path}, line {number}"))
    return found


def _pair(entry: dict[str, Any], where: str) -> Pair:
    try:
        pair = Pair(**entry)
    except TypeError as error:
        raise InputError(f"{where}: is no pair ({str(error).partition(') ')[2] or error})") from None
    for name, value in vars(pair).items():
        wanted = int if name == "round" else str
        if type(value) is not wanted:
            raise InputError(f"{where}: {name} is {value!r}; wanted a {'number' if wanted is int else 'text'}")
    if broken := [name for name, value in vars(pair).items() if name != "round" and HALF_A_CHARACTER.search(value)]:
        raise InputError(f"{where}: {broken[0]} holds half of a character (a broken \\u escape); rewrite it")
    return pair
