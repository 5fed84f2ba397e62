"""What every kind of file is taken apart into: entries that are read one at a time, by number.

Only where an entry lies is held in memory, so a source of any size is opened once, sent to other processes as a few
numbers, and read there. The kinds of file are in their own modules (`json_files`, `csv_files`, `arrayrecord`,
`parquet`, `imagefolder`, `tfds`); what the keys of an entry mean is left to the formats.
"""

import difflib
import itertools
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from vlm_jax import locations
from vlm_jax.errors import InputError


@dataclass(frozen=True)
class Entry:
    """One entry of a file.

    Attributes:
      number: its place among the entries, from 1.
      place: the same for a person: `entry 3` of a JSON list, `line 3` elsewhere.
      value: what it holds; None where `error` says why it could not be read.
    """

    number: int
    place: str
    value: Any = None
    error: str | None = None


class Entries:
    """A file as a sequence of entries, the unreadable ones included. Reading is safe from several threads.

    Attributes:
      path: the file or folder, as error lines name it.
      key: what the list of entries is called in its document, if that is an object.
      header: what stands beside the list of entries in the same document, small values only.
      lists: further lists of the same document, such as the annotations beside the questions.
      folder: where the images that it names lie, if not where `path` does.
      content: a digest of all that the files hold, where it is known without reading them: on the hub.
    """

    path: str = ""
    key: str = ""
    header: Mapping[str, Any] = {}
    lists: Mapping[str, "Entries"] = {}
    folder: str = ""
    content: str = ""

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Entry:
        raise NotImplementedError

    def place(self, index: int) -> str:
        """`Entry.place` without reading the entry."""
        return f"entry {index + 1}"

    @property
    def stem(self) -> str:
        """What entries without an id are called by, with their number."""
        return os.path.splitext(os.path.basename(self.path.rstrip("/")))[0] or "record"

    def objects(self) -> Iterator[Mapping[str, Any]]:
        """The values that are objects, read one after the other: what a format is recognised by."""
        for index in range(len(self)):
            if isinstance(value := self[index].value, Mapping):
                yield value


class SpanEntries(Entries):
    """Entries that are stretches of one text file, parsed when they are asked for."""

    def __init__(
        self,
        path: str,
        spans: Int[np.ndarray, "n 2"],
        parse: Callable[[str], Any],
        *,
        lines: Int[np.ndarray, " n"] | None = None,
        errors: Mapping[int, str] | None = None,
    ):
        """
        Args:
          spans: first byte and the byte after the last of each entry.
          parse: gives an entry's value from its text, or raises InputError. Must pickle.
          lines: the line each entry starts on, where lines are what a person counts by.
          errors: entries found unreadable when the file was opened.
        """
        self.path = path
        self._bytes, self._spans, self._parse, self._lines = ByteRanges(path), spans, parse, lines
        self._errors = dict(errors or {})

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, index: int) -> Entry:
        number, place = index + 1, self.place(index)
        if index in self._errors:
            return Entry(number, place, error=self._errors[index])
        try:
            text = self._bytes.read(int(self._spans[index, 0]), int(self._spans[index, 1])).decode("utf-8")
            return Entry(number, place, self._parse(text))
        except InputError as error:
            return Entry(number, place, error=str(error))
        except UnicodeDecodeError:  # indexed as UTF-8, so the file is another one now
            return Entry(number, place, error="is not what it was when the file was opened; start again")

    def place(self, index: int) -> str:
        return f"entry {index + 1}" if self._lines is None else f"line {self._lines[index]}"


class ByteRanges:
    """Stretches of one file, read without a position that threads would share; opened when first read in a process."""

    def __init__(self, path: str):
        self._path = path
        self._file: int | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> str:
        return self._path

    def __setstate__(self, path: str) -> None:
        self.__init__(path)

    def read(self, start: int, end: int) -> bytes:
        """The bytes [start, end).

        Raises:
          InputError: the file is gone or shorter than it was.
        """
        try:
            if locations.is_remote(self._path):
                content = locations.read_range(self._path, start, end)
            else:
                content = self._read_local(start, end)
        except Exception as error:  # a store's client raises what it likes
            if not isinstance(error, OSError) and not locations.is_remote(self._path):
                raise
            raise InputError(f"cannot be read any more ({_reason(error)})") from None
        if len(content) != end - start:
            raise InputError("is not what it was when the file was opened; start again")
        return content

    def _read_local(self, start: int, end: int) -> bytes:
        with self._lock:
            if self._file is None:
                self._file = os.open(self._path, os.O_RDONLY)
                weakref.finalize(self, os.close, self._file)
        pieces = []
        while start < end and (piece := os.pread(self._file, end - start, start)):
            pieces.append(piece)
            start += len(piece)
        return b"".join(pieces)


def as_spans(spans: Sequence[tuple[int, int]]) -> Int[np.ndarray, "n 2"]:
    return np.asarray(spans, np.int64).reshape(-1, 2)


def read_text(path: str) -> tuple[str, int]:
    """A whole file in UTF-8, and the length of the byte order mark that was taken off.

    Raises:
      InputError: the file is missing, a folder, unreadable, empty or not UTF-8.
    """
    content = read_whole(path)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}: line {line} {not_utf8(content, error.start)}") from None
    mark = text.startswith("\ufeff")
    return text[mark:], 3 * mark


def read_whole(path: str) -> bytes:
    """All bytes of a data file.

    Raises:
      InputError: the file is missing, a folder, unreadable or empty.
    """
    with opening(path):
        content = locations.read_bytes(path)
    if not content.removeprefix(b"\xef\xbb\xbf").strip():
        raise InputError(f"{path}: is empty{'' if content else ' (0 bytes); copy it again'}")
    return content


def not_utf8(content: bytes, at: int) -> str:
    """The end of an error line about a byte that is not UTF-8."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "is UTF-16; save the file as UTF-8"
    return f"is not UTF-8 (byte 0x{content[at]:02x}); save the file as UTF-8"


class opening:
    """Around the opening of a data file: what goes wrong there becomes one clear line."""

    def __init__(self, path: str):
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, FileNotFoundError):
            raise InputError(f"{self.path}: no such file{did_you_mean(self.path)}") from None
        if isinstance(error, IsADirectoryError):
            raise InputError(f"{self.path}: is a folder; name the data file in it") from None
        if isinstance(error, OSError):
            raise InputError(f"{self.path}: cannot be read: {_reason(error)}") from None
        # A store's client raises what it likes when it is refused or not signed in.
        if isinstance(error, Exception) and not isinstance(error, InputError) and locations.is_remote(self.path):
            raise InputError(f"{self.path}: cannot be read: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__


def did_you_mean(path: str | Path) -> str:
    """The end of an error line about a path that is not there: the nearest name beside it, or nothing."""
    if locations.is_remote(path):
        return ""
    path = Path(path)
    if not path.parent.is_dir():
        return f"; there is no folder {path.parent}"
    try:
        # In a folder of many files the search would take seconds, and a near name would mean little.
        names = {name.name.lower(): name.name for name in itertools.islice(path.parent.iterdir(), 1000)}
    except OSError:
        return ""
    nearest = difflib.get_close_matches(path.name.lower(), names, n=1)
    return f"; did you mean {path.with_name(names[nearest[0]])}?" if nearest else ""
