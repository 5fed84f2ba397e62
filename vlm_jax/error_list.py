"""Thousands of errors as a page that can be read: the first ten of each kind, how many more there are, where all are.

Two lines are of one kind where they differ in names, quoted values and numbers only. Who prints them decides when.
"""

import os
import re
import tempfile
from collections import Counter
from collections.abc import Sequence

SHOWN = 10
"""Lines of one kind that are shown."""
_SUGGESTION = re.compile(r"; (?:did you mean \S+\?|there is no folder .*?)(?= \(used by|$)")
_USERS = re.compile(r" \(used by .*\)$", re.DOTALL)
_QUOTED = re.compile(r"(?<!\w)(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")")  # as Python writes values
_PLACE = re.compile(r"^.*?, (?:line|entry|row|sample) \S+(?: \(id …\))?: ")
_FILE = re.compile(r"^(?:[a-z]+://)?[^:]*/[^:]*(?=: )")
_NAME_OR_NUMBER = re.compile(r"\S*/\S*|\d[\d,.]*")


def kind_of(error: str) -> str:
    """The error without what differs between two of a kind: its place, names, quoted values and numbers."""
    text = _QUOTED.sub("…", _SUGGESTION.sub("", _USERS.sub("", error)))
    return _NAME_OR_NUMBER.sub("…", _FILE.sub("…", _PLACE.sub("", text)))


def shortened(errors: Sequence[str], *, shown: int = SHOWN) -> list[str]:
    """The first lines of each kind in their order, then a line for each kind of which there are more.

    Equal lines are listed once. Where no kind has more than `shown`, they are all there is.
    """
    distinct = list(dict.fromkeys(errors))
    counts: Counter[str] = Counter()
    lines, last = [], {}
    for error in distinct:
        kind = kind_of(error)
        counts[kind] += 1
        last[kind] = error
        if counts[kind] <= shown:
            lines.append(error)
    more = [(count - shown, last[kind]) for kind, count in counts.items() if count > shown]
    return lines + [f"and {rest:,} more like the last of these: {error}" for rest, error in more]


def printable(errors: Sequence[str]) -> list[str]:
    """The lines of `shortened`; what they leave out is written to a file, which the last line names."""
    lines = shortened(errors)
    if lines == (distinct := list(dict.fromkeys(errors))):
        return distinct
    try:
        number, path = tempfile.mkstemp(prefix="vlm-jax-errors-", suffix=".txt")
        with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(" ".join(error.split()) + "\n" for error in distinct)
    except OSError as error:  # with nowhere to put them, all are listed here
        return [*distinct, f"the list of errors could not be written to a file ({error.strerror or error})"]
    return [*lines, f"{len(distinct):,} errors in all; every line is in {path}"]
