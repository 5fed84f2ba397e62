"""How much a chat template may do: work that is counted, and values that are weighed before they grow.

Jinja's sandbox keeps a template from the machine, but not from looping for hours or from filling the memory. What is
counted here is the same on every machine, unlike a limit of seconds. Where it is counted is `template`'s.
"""

import re
import threading
from collections.abc import Mapping, Sequence, Sized
from typing import Any

LETTERS = 1_000_000
"""That a template may have, and that a value may have beyond `GROWTH` times the conversation's."""
GROWTH = 16
WORK = 100_000_000
"""Letters and elements handled in a rendering, an iteration or a call counting `STEP`: some seconds."""
STEP, NODE, _ELEMENT = 400, 100, 12
_MESSAGE = 250_000  # work that each message adds: a long template looks at it once
BITS = 4096
_WIDEST = 1_000_000
_DEEPEST = 64  # indentation of JSON
DEEP = ("string", "tojson", "pprint", "join", "format", "format_map", "%", "xmlattr", "urlize", "e", "escape", "sort",
         "unique", "groupby", "min", "max", "dictsort", "sum")  # fmt: skip
"""What looks at all that a value holds, or writes it out; other functions handle references to it."""
_SIZED = ("center", "ljust", "rjust", "zfill", "expandtabs", "indent", "wordwrap", "truncate", "batch", "slice")


class TooMuch(Exception):
    """A template asks for more work or memory than a conversation takes."""


class Bounds(threading.local):
    """Of the rendering that a thread is in."""

    largest, left = LETTERS, 0

    def begin(self, letters: int, messages: int) -> None:
        self.largest = LETTERS + GROWTH * letters
        self.left = WORK + GROWTH * letters + _MESSAGE * messages

    def charge(self, work: int) -> None:
        self.left -= work
        if self.left < 0:
            raise TooMuch("it loops for longer than any conversation takes")

    def check_size(self, size: int) -> None:
        if size > self.largest:
            raise TooMuch(f"it makes a value of {size:,} letters of a conversation that may give {self.largest:,}")


bounds = Bounds()


def weight(value: Any) -> int:
    """Letters of a value as text, about: references that are held twice count twice."""
    waiting, total = [value], 0
    while waiting:
        one = waiting.pop()
        if isinstance(one, str | bytes | range):
            total += len(one)
        elif isinstance(one, Mapping):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple | set | frozenset):
            waiting += one
        elif isinstance(one, int):
            total += one.bit_length() // 3
        total += _ELEMENT
        if total > bounds.largest:
            break
    return total


def weigh(*values: Any) -> int:
    found = sum(map(weight, values))
    bounds.check_size(found)
    bounds.charge(found)
    return found


def length(value: Any) -> int:
    """Of a value's outermost layer, or of a result."""
    if isinstance(value, int) and value.bit_length() > BITS:
        raise TooMuch("it makes a number of thousands of digits")
    size = len(value) if isinstance(value, str | bytes | range | list | tuple | Mapping | set) else 1
    bounds.check_size(size)
    return size


def charge_made(value: Any) -> None:
    """Of what a function gave back: its letters, and those of texts in a list, as `split` makes them."""
    size = length(value)
    if isinstance(value, list | tuple):
        size += sum(len(one) for one in value if isinstance(one, str))
    bounds.charge(size)


def check_growth(name: str, values: Sequence[Any]) -> None:
    """Raises TooMuch where a function, given these, could make more than a value may have."""
    texts = [one for one in values if isinstance(one, str)]
    total = weigh(*values) if name in DEEP else sum(map(length, values))
    bounds.charge(total)
    numbers = [abs(one) for one in values if isinstance(one, int) and not isinstance(one, bool)]
    text = texts[0] if texts else ""
    if name in _SIZED:
        if max(numbers, default=0) > _WIDEST:
            raise TooMuch(f"it asks {name} for {max(numbers):,}")
        lines = text.count("\n") + text.count("\t") + 1
        total += lines * (sum(numbers) + sum(map(len, texts[1:])) + 8)
    elif name == "round" and max(numbers[-1:], default=0) > _DEEPEST and len(values) > 1:
        raise TooMuch(f"it rounds to {numbers[-1]:,} places")
    elif name == "sum":
        pieces = [
            len(one) for one in (values[0] if isinstance(values[0], list | tuple) else ()) if isinstance(one, Sized)
        ]
        bounds.charge(len(pieces) * sum(pieces))
    elif name == "tojson" and max(numbers[-1:], default=0) > _DEEPEST and len(values) > 1:
        raise TooMuch(f"it asks for JSON with {numbers[-1]:,} spaces before each line")
    elif name == "join":
        pieces = next((one for one in values if isinstance(one, Sized) and not isinstance(one, str)), text)
        total += len(pieces) * sum(len(one) for one in texts if one is not pieces)
    elif name == "replace" and len(texts) > 2:
        total += (text.count(texts[1]) if texts[1] else len(text) + 1) * len(texts[2])
    elif name in ("%", "format", "format_map"):
        wide = sum(int(run[:12]) for run in re.findall(r"[0-9]+", text)) + sum(numbers)
        total += (text.count("%") + text.count("{")) * (total + wide)
    bounds.check_size(total)
