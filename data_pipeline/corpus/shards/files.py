"""Files of shards: written whole or not at all, so that a stage that is run again finds nothing half."""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vlm_jax.errors import InputError


@contextlib.contextmanager
def write_whole(path: Path) -> Iterator[BinaryIO]:
    """A file that gets its name at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            yield file
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_lines(path: Path, entries: Iterable[Any]) -> None:
    """Entries as JSON lines."""
    with write_whole(path) as file:
        file.writelines(line_of(entry) for entry in entries)


def line_of(entry: Any) -> bytes:
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def read_lines(path: Path) -> Iterator[Any]:
    with open(path, "rb") as file:
        for line in file:
            yield json.loads(line)


def write_array(path: Path, array: np.ndarray) -> None:
    with write_whole(path) as file:
        np.save(file, array, allow_pickle=False)


def read_array(path: Path) -> np.ndarray:
    """An array of a file, read from it where it is looked at."""
    return np.load(path, mmap_mode="r", allow_pickle=False)


def read_bytes(path: Path) -> np.ndarray:
    """A file as an array of its bytes, likewise."""
    return np.memmap(path, np.uint8, mode="r") if path.stat().st_size else np.zeros(0, np.uint8)


def lines_from(paths: list[str], sizes: list[int], shard: int, of: int) -> Iterator[tuple[str, int, bytes]]:
    """(file, byte, line) of a shard's share of the lines of several files: those that begin in its range of bytes.

    Raises:
      InputError: a file that is not as long as it was.
    """
    total, begin = sum(sizes), 0
    first, last = total * shard // of, total * (shard + 1) // of
    for path, size in zip(paths, sizes, strict=True):
        if os.path.getsize(path) != size:
            raise InputError(f"{path}: has changed since the shards were planned; plan them in another folder")
        low, high = max(first - begin, 0), min(last - begin, size)
        begin += size
        if low >= high:
            continue
        with open(path, "rb") as file:
            if low:
                file.seek(low - 1)
                file.readline()  # a line that begins before the range is another shard's
            while (at := file.tell()) < high:
                if (line := file.readline()).strip():
                    yield path, at, line
