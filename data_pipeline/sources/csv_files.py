"""CSV files taken apart into rows: where each begins and ends is noted, its cells are read when it is asked for."""

import contextlib
import csv
import functools
import io
import itertools
import re
from collections.abc import Iterator

import numpy as np

from data_pipeline.sources.containers import Entries, SpanEntries, as_spans, not_utf8, read_whole
from vlm_jax.errors import InputError

SUFFIXES = (".csv", ".tsv")
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_HEADER = 2**20  # characters that hold the header
_ROWS_LOOKED_AT = 100
_NAMED = re.compile(r'"?sep=([^\w\s"\r\n]|\t)"?(?:\r\n|\r|\n)', re.IGNORECASE | re.ASCII)
"""Excel's line on what separates the cells, for where the language of the computer would have something else."""
_NAMED_OTHERWISE = re.compile(r'"?sep=[^,;\t\r\n]{0,20}(?=[\r\n])', re.IGNORECASE)
_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # what decoding leaves of such bytes
_LARGEST_CELL = 2**31 - 1
"""Characters: the whole file is in memory already, and 131,072, as Python has it, is less than an embedded image."""

_ADVICE = "put cells with {}, quotes or line breaks in quotes, and double the quotes inside"


def open_rows(path: str) -> Entries:
    """Rows as objects, their keys the header's names in lower case. A broken row is an error of its entry.

    Cells are separated by what separates the names of the header: commas, semicolons or tabs; or by what a first line
    `sep=;` names, as Excel reads it.

    Raises:
      InputError: the file cannot be read, its header is broken or names a column twice, or no row follows it.
    """
    text, consumed = _text(path)
    delimiter, before = _separator(path, text)
    between = _name(delimiter)
    text, consumed = text[len(before) :], consumed + len(before)
    header: tuple[str, ...] | None = None
    spans, lines, errors = [], [], {}

    def counted() -> Iterator[str]:
        nonlocal consumed
        for line in io.StringIO(text, newline=""):
            consumed += len(line.encode("utf-8", "surrogateescape"))
            yield line

    csv.field_size_limit(_LARGEST_CELL)
    reader = csv.reader(counted(), delimiter=delimiter, strict=True)
    while True:
        # Where the row starts: a quoted cell can hold line breaks.
        start, line = consumed, bool(before) + reader.line_num + 1
        message = None
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            reason = "a quoted cell is never closed" if "end of data" in str(error) else str(error)
            message = f"broken CSV: {reason}; {_ADVICE.format(between)}"
            if header is None:
                raise InputError(f"{path}, line {line}: {message}") from None
        else:
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = _header(path, cells)
                continue
            message = _wrong_with(cells, header, between)
        if message is not None:
            errors[len(spans)] = message
        spans.append((start, consumed))
        lines.append(line)
    if not spans:
        raise InputError(f"{path}: holds no entries")
    if len(errors) == len(spans) and (other := _delimiter_of_rows(text, delimiter, header)):
        raise InputError(
            f"{path}: its header has {between} between the names and its rows have {_name(other)} between the cells; "
            "write the header as the rows"
        )
    parse = functools.partial(_parse_row, header, delimiter)
    return SpanEntries(path, as_spans(spans), parse, lines=np.asarray(lines, np.int64), errors=errors)


def _text(path: str) -> tuple[str, int]:
    """As `read_text`, but bytes that are not UTF-8 below the header are left for the rows that hold them."""
    content = read_whole(path)
    mark = 3 * content.startswith(b"\xef\xbb\xbf")
    try:
        content[: content.find(b"\n") + 1].decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: line 1 {not_utf8(content, error.start)}") from None
    return content[mark:].decode("utf-8", "surrogateescape"), mark


def _header(path: str, cells: list[str]) -> tuple[str, ...]:
    names = tuple(cell.strip().lower() for cell in cells)
    doubled = [name for name in dict.fromkeys(names) if name and names.count(name) > 1]
    if doubled:
        raise InputError(f"{path}: the header names {', '.join(map(repr, doubled))} twice; rename one of the columns")
    return names


def _separator(path: str, text: str) -> tuple[str, str]:
    """What separates the cells, and the line before the header that names it, as Excel reads it; "" for none.

    Raises:
      InputError: the line names none, or the header leaves it open.
    """
    if named := _NAMED.match(text):
        return named[1], named[0]
    if line := _NAMED_OTHERWISE.match(text):
        raise InputError(f"{path}: its first line {line[0]!r} names no sign between cells; write sep=; or leave it out")
    return _delimiter(path, text), ""


def _delimiter(path: str, text: str) -> str:
    """What separates the names in the header: whatever gives the most of them.

    Raises:
      InputError: several do alike.
    """
    counts = {}
    for delimiter in _DELIMITERS:
        rows = csv.reader(io.StringIO(text[:_HEADER], newline=""), delimiter=delimiter, strict=True)
        with contextlib.suppress(csv.Error):  # a broken header is reported when it is read
            counts[delimiter] = len(next((cells for cells in rows if any(cell.strip() for cell in cells)), ()))
    most = max(counts.values(), default=0)
    found = [delimiter for delimiter, count in counts.items() if count == most]
    if most > 1 and len(found) > 1:
        either = " or ".join(_DELIMITERS[one] for one in found)
        raise InputError(
            f"{path}: cannot tell what separates its cells, {either}: put names of the header that hold such a "
            "character in quotes"
        )
    if most > 1:
        return found[0]
    return "\t" if path.lower().endswith(".tsv") else ","


def _wrong_with(cells: list[str], header: tuple[str, ...], between: str) -> str | None:
    if any(map(_NOT_UTF8.search, cells)):
        return "holds bytes that are not UTF-8; save the file as UTF-8"
    if len(cells) != len(header):
        return f"has {len(cells)} cells where the header has {len(header)}; put cells with {between} in quotes"
    return None


def _name(delimiter: str) -> str:
    return _DELIMITERS.get(delimiter, repr(delimiter))


def _delimiter_of_rows(text: str, delimiter: str, header: tuple[str, ...]) -> str:
    """What separates the cells of the rows, where it is not what separates the names of the header; else ""."""
    for other in _DELIMITERS:
        if other == delimiter:
            continue
        rows = csv.reader(io.StringIO(text[:_HEADER], newline=""), delimiter=other, strict=True)
        counts = []
        with contextlib.suppress(csv.Error):
            for cells in itertools.islice(rows, _ROWS_LOOKED_AT):
                counts += [len(cells)] if any(cell.strip() for cell in cells) else []
        if len(header) > 1 and counts[1:] and all(count == len(header) for count in counts[1:]):
            return other
    return ""


def _parse_row(header: tuple[str, ...], delimiter: str, text: str) -> dict[str, str]:
    csv.field_size_limit(_LARGEST_CELL)  # of the process, which may be a worker
    (cells,) = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    return dict(zip(header, cells, strict=True))
