"""Files taken apart into entries: a JSON list, JSON lines, or the rows of a CSV file.

Knows where each entry stands, so that a fault can name its line, and reads on past a broken line. What the keys of an
entry mean is left to the formats.
"""

import csv
import difflib
import io
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.records import json_type
from vlm_jax.errors import InputError

CSV_SUFFIXES = (".csv",)
_LINE_SUFFIXES = (".jsonl", ".ndjson")
_SUFFIXES = (".json", *_LINE_SUFFIXES, *CSV_SUFFIXES)


@dataclass(frozen=True)
class Entry:
    """One entry of a file.

    Attributes:
      number: its place among the entries, from 1.
      place: the same for a person: `entry 3` of a JSON list, `line 3` elsewhere.
      value: what it holds; None where `fault` says why it could not be read.
    """

    number: int
    place: str
    value: Any = None
    fault: str | None = None


def read_entries(path: Path) -> list[Entry]:
    """All entries of a file, the unreadable ones included.

    Raises:
      InputError: the file is missing, empty, not UTF-8, of an unknown extension, or is one broken JSON document.
    """
    suffix = path.suffix.lower()
    if path.is_file() and suffix not in _SUFFIXES:
        raise InputError(f"{path}: unknown extension {suffix!r}; data sets are read from {', '.join(_SUFFIXES)}")
    text = _read_text(path)
    if suffix in CSV_SUFFIXES:
        entries = list(_rows(text))
    elif suffix in _LINE_SUFFIXES and not text.lstrip().startswith("["):
        entries = list(_lines(text))
    else:
        entries = _document(path, text)
    if not entries:
        raise InputError(f"{path}: holds no entries")
    return entries


def did_you_mean(path: Path) -> str:
    """The end of a fault line about a path that is not there: the nearest name beside it, or nothing."""
    if not path.parent.is_dir():
        return f"; there is no folder {path.parent}"
    try:
        # In a folder of many files the search would take seconds, and a near name would mean little.
        names = {name.name.lower(): name.name for name in itertools.islice(path.parent.iterdir(), 1000)}
    except OSError:
        return ""
    nearest = difflib.get_close_matches(path.name.lower(), names, n=1)
    return f"; did you mean {path.with_name(names[nearest[0]])}?" if nearest else ""


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file{did_you_mean(path)}") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; name the data file in it") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, byte = content.count(b"\n", 0, error.start) + 1, content[error.start]
        raise InputError(f"{path}: line {line} is not UTF-8 (byte 0x{byte:02x}); save the file as UTF-8") from None
    if not text.strip():
        raise InputError(f"{path}: is empty")
    return text


def _document(path: Path, text: str) -> list[Entry]:
    try:
        value = _parse(text)
    except InputError as error:
        # JSON lines are often named .json: then the first line is a whole object and more follow.
        if text.lstrip().startswith("{") and _is_object(text.lstrip().split("\n", 1)[0]):
            return list(_lines(text))
        raise InputError(f"{path}: {error}") from None
    if isinstance(value, list):
        return [Entry(number, f"entry {number}", item) for number, item in enumerate(value, 1)]
    keys = f" with the keys {', '.join(map(repr, list(value)[:8]))}" if isinstance(value, dict) else ""
    raise InputError(f"{path}: holds {json_type(value)}{keys} where a list of entries is expected")


def _is_object(line: str) -> bool:
    try:
        return isinstance(_parse(line), dict)
    except InputError:
        return False


def _lines(text: str) -> Iterator[Entry]:
    number = 0
    # Not splitlines(): JSON strings may hold U+2028 and its like unescaped.
    for line_number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        number += 1
        try:
            yield Entry(number, f"line {line_number}", _parse(line))
        except InputError as error:
            yield Entry(number, f"line {line_number}", fault=str(error))


def _rows(text: str) -> Iterator[Entry]:
    """Rows as dicts, their keys the header's names in lower case."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    number = 0
    while True:
        line = reader.line_num + 1  # where the row starts: a quoted cell can hold line breaks
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            number += 1
            reason = "a quoted cell is never closed" if "end of data" in str(error) else str(error)
            advice = "put cells with commas, quotes or line breaks in quotes, and double the quotes inside"
            yield Entry(number, f"line {line}", fault=f"broken CSV: {reason}; {advice}")
            if header is None:
                return
            continue
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = [cell.strip().lower() for cell in cells]
            continue
        number += 1
        if len(cells) != len(header):
            fault = f"has {len(cells)} cells where the header has {len(header)}; put cells with commas in quotes"
            yield Entry(number, f"line {line}", fault=fault)
        else:
            yield Entry(number, f"line {line}", dict(zip(header, cells, strict=True)))


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}" if "\n" in text else f"column {error.colno}"
        raise InputError(f"broken JSON at {at}: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets thousands deep
        raise InputError(f"broken JSON: {error}") from None
