"""What a parsed value is: in the words of an error line, and as the text that it was written as."""

import math
from dataclasses import dataclass
from typing import Any


def as_written(value: Any) -> Any:
    """A number as the text it was written as, for answers; anything else as it is."""
    if isinstance(value, float):
        written = value.text if isinstance(value, WrittenFloat) else str(value)
        return written if math.isfinite(value) else value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class WrittenFloat(float):
    """A number of a text file that remembers how it was written: 3.10 is not 3.1 where it is an answer."""

    def __new__(cls, text: str | float):
        number = super().__new__(cls, text)
        number.text = str(text)
        return number


@dataclass(frozen=True)
class UnnamedClass:
    """The number of a class that has no name, such as -1 where `datasets` has none: it stands for no answer."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"the class {self.number}, where the {self.count} classes that have names begin with 0"


def json_type(value: Any) -> str:
    """What a parsed JSON value is, in the words of an error line."""
    names = {type(None): "nothing", bool: "true or false", str: "a text", list: "a list", dict: "an object"}
    if isinstance(value, float) and value != value:
        return "NaN (a missing value)"
    if isinstance(value, UnnamedClass):
        return str(value)
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else type(value).__name__)


def quoted(text: str, length: int = 60) -> str:
    """A text in quotes, cut to what an error line has room for."""
    return repr(text if len(text) <= length else text[: length - 1] + "…")
