"""JSON files taken apart: a list, JSON lines, or an object that holds lists of entries.

A pass over the file notes where each entry lies; parsing it is done when it is asked for, so a list of any length
costs sixteen bytes an entry.
"""

import contextlib
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipeline.sources.containers import Entries, SpanEntries, as_spans, not_utf8, opening, read_text
from data_pipeline.values import WrittenFloat, json_type
from vlm_jax import locations
from vlm_jax.errors import InputError
from vlm_jax.json_objects import object_of

LISTS = ("data", "questions")
"""Where a document that is an object may hold its entries: TextVQA and ST-VQA; VQAv2 and OK-VQA."""
_DECODER = json.JSONDecoder()
_BLANKS = re.compile(r"[ \t\n\r]*")
_SMALL = 10_000
"""Characters of a value beside the lists that are still kept: it is a description, not data."""


def open_lines(path: str) -> Entries:
    """JSON lines: one value a line. A broken line is an error of its entry."""
    with opening(path):
        with locations.open_binary(path) as file:
            start = file.read(4096)
    if start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        return open_document(path)  # a list under the other name
    spans, lines, errors = [], [], {}
    with opening(path), locations.open_binary(path) as file:
        offset = 0
        for number, line in enumerate(file, 1):
            mark = 3 if number == 1 and line.startswith(b"\xef\xbb\xbf") else 0
            begin, offset = offset + mark, offset + len(line)
            try:
                if not line[mark:].decode("utf-8").strip():
                    continue
            except UnicodeDecodeError as error:
                errors[len(spans)] = not_utf8(line, mark + error.start)
            spans.append((begin, offset))
            lines.append(number)
    if not spans:
        raise InputError(f"{path}: is empty{'' if offset else ' (0 bytes); copy it again'}")
    return SpanEntries(path, as_spans(spans), parse, lines=np.asarray(lines, np.int64), errors=errors)


def open_document(path: str, names: Sequence[str] = LISTS) -> Entries:
    """A JSON list, an object with a list of entries, or JSON lines under the name `.json`.

    Args:
      names: where in an object the entries may be.

    Raises:
      InputError: the file cannot be read, or is one broken document or one without a list of entries.
    """
    text, mark = read_text(path)
    start = _skip(text, 0)
    line = text.find("\n", start)
    if text[start] == "{" and line > 0 and _skip(text, line) < len(text) and _is_object(text[start:line]):
        del text
        return open_lines(path)
    try:
        found, header, end = _lists(text, start)
        complete = _skip(text, end) == len(text)
    except (ValueError, RecursionError, IndexError):
        complete = False
    if not complete:
        value = _parsed(path, text)  # in the usual case this raises, with the place of the mistake
        raise InputError(f"{path}: holds {json_type(value)} where a list of entries is expected")
    lists = {name: SpanEntries(path, as_spans(_in_bytes(text, mark, spans)), parse) for name, spans in found.items()}
    key = next((name for name in ("", *names) if name in lists and (name == "" or len(lists[name]))), None)
    if key is None:
        keys = f" with the keys {', '.join(map(repr, [*json.loads(text)][:8]))}"
        advice = "; it is the annotations of VQAv2's form: give the questions file" if found.get("annotations") else ""
        raise InputError(f"{path}: holds an object{keys} where a list of entries is expected{advice}")
    entries = lists.pop(key)
    if not len(entries):
        raise InputError(f"{path}: holds no entries")
    entries.key, entries.header, entries.lists = key, header, lists
    return entries


def parse(text: str) -> Any:
    """The value of a JSON text.

    Raises:
      InputError: broken JSON, with the place of the mistake.
    """
    try:
        return json.loads(text, parse_float=WrittenFloat, object_pairs_hook=object_of)
    except InputError:
        raise
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}" if "\n" in text.rstrip() else f"column {error.colno}"
        raise InputError(f"broken JSON at {at}: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets thousands deep
        raise InputError(f"broken JSON: {error}") from None


def from_cell(value: Any) -> Any:
    """What a cell that holds text only says in JSON, where it is a list or an object; else the value as it is."""
    if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
        with contextlib.suppress(InputError):  # a text that only begins like JSON
            return parse(value.strip())
    return value


def _parsed(path: str, text: str) -> Any:
    try:
        return parse(text)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _is_object(line: str) -> bool:
    try:
        return isinstance(parse(line), dict)
    except InputError:
        return False


def _lists(text: str, position: int) -> tuple[dict[str, list[tuple[int, int]]], dict[str, Any], int]:
    """Spans, in characters, of the elements of each list of a document; its other values; and where it ends.

    A document that is a list is found under the name "".

    Raises:
      ValueError, RecursionError, IndexError: not a list or an object, or broken.
    """
    if text[position] == "[":
        spans, end = _elements(text, position)
        return {"": spans}, {}, end
    if text[position] != "{":
        raise ValueError
    lists: dict[str, list[tuple[int, int]]] = {}
    header: dict[str, Any] = {}
    position = _skip(text, position + 1)
    while text[position] == '"':
        key, position = _DECODER.raw_decode(text, position)
        position = _skip(text, position)
        if text[position] != ":":
            raise ValueError
        start = _skip(text, position + 1)
        if text[start] == "[":
            lists[key], position = _elements(text, start)
        else:
            value, position = _DECODER.raw_decode(text, start)
            if position - start <= _SMALL:
                header[key] = value
        position = _skip(text, position)
        if text[position] == "}":
            return lists, header, position + 1
        position = _skip(text, position + (text[position] == ","))
        if text[position] != '"':
            raise ValueError
    if text[position] != "}" or header or lists:
        raise ValueError
    return lists, header, position + 1


def _elements(text: str, position: int) -> tuple[list[tuple[int, int]], int]:
    """Spans of the elements of the list that starts here, and where it ends."""
    spans: list[tuple[int, int]] = []
    position = _skip(text, position + 1)
    if text[position] == "]":
        return spans, position + 1
    while True:
        _, end = _DECODER.raw_decode(text, position)
        spans.append((position, end))
        position = _skip(text, end)
        if text[position] == "]":
            return spans, position + 1
        if text[position] != ",":
            raise ValueError
        position = _skip(text, position + 1)


def _skip(text: str, position: int) -> int:
    return _BLANKS.match(text, position).end()


def _in_bytes(text: str, mark: int, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans in bytes of UTF-8 from spans in characters, which are in order; `mark` bytes stand before the text."""
    if text.isascii():
        return [(start + mark, end + mark) for start, end in spans]
    converted, at, offset = [], 0, mark
    for start, end in spans:
        first = offset + len(text[at:start].encode("utf-8"))
        offset = first + len(text[start:end].encode("utf-8"))
        converted.append((first, offset))
        at = end
    return converted
