"""ArrayRecord files: records with their images embedded, read at random by Grain's own format.

An entry is a MessagePack map in this project's form, images as the bytes of their encoded files; JSON is read too.
Files are one record a group, so that reading one does not decompress its neighbours.
"""

import bisect
import itertools
import os
import threading
from collections.abc import Sequence
from typing import Any

from data_pipeline.sources import json_files
from data_pipeline.sources.containers import Entries, Entry, did_you_mean
from vlm_jax import locations
from vlm_jax.errors import InputError

MARKS = (".array_record", ".arrayrecord")
"""In the name of a file or of one of its shards, `train.array_record-00000-of-00004`."""
_SETTINGS = "group_size:1"


class ArrayRecordEntries(Entries):
    """The entries of one file or of several shards in order."""

    def __init__(self, path: str, files: Sequence[str]):
        """
        Raises:
          InputError: a file is missing, empty, in a store, or no ArrayRecord file.
        """
        self.path, self._files = path, list(files)
        self._open: dict[str, Any] = {}
        self._lock = threading.Lock()
        errors, counts = [], []
        for file in self._files:
            try:
                counts.append(self._reader(file).num_records())
            except InputError as error:
                errors += error.lines
        if errors:
            raise InputError(errors)
        if not sum(counts):
            raise InputError(f"{path}: holds no entries")
        self._ends = list(itertools.accumulate(counts))

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_files": self._files, "_ends": self._ends}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _open={}, _lock=threading.Lock())

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Entry:
        shard, within = self._where(index)
        try:
            with self._lock:  # a reader keeps a position
                (content,) = self._reader(self._files[shard]).read([within])
            return Entry(index + 1, self.place(index), _parse(content))
        except InputError as error:
            return Entry(index + 1, self.place(index), error=str(error))
        except Exception as error:  # the reader's errors are of C++; a broken group must not hide the other errors
            return Entry(index + 1, self.place(index), error=f"cannot be read ({' '.join(str(error).split())})")

    def place(self, index: int) -> str:
        shard, within = self._where(index)
        return f"{os.path.basename(self._files[shard])}, " * (len(self._files) > 1) + f"entry {within + 1}"

    def _where(self, index: int) -> tuple[int, int]:
        shard = bisect.bisect_right(self._ends, index)
        return shard, index - (self._ends[shard - 1] if shard else 0)

    def _reader(self, file: str) -> Any:
        from array_record.python.array_record_module import ArrayRecordReader

        if file not in self._open:
            if locations.is_remote(file):
                raise InputError(f"{file}: ArrayRecord is read from a disk only; copy the file, or mount the bucket")
            if not os.path.isfile(file):
                raise InputError(f"{file}: no such file{did_you_mean(file)}")
            if not os.path.getsize(file):
                raise InputError(f"{file}: is empty (0 bytes); copy it again")
            reader = ArrayRecordReader(file)
            if not reader.ok():
                raise InputError(f"{file}: is no ArrayRecord file, or only a part of one; copy it again")
            self._open[file] = reader
        return self._open[file]


class ArrayRecordWriter:
    """Writes records into one file. Images are embedded as they are, never encoded anew."""

    def __init__(self, path: str):
        from array_record.python.array_record_module import ArrayRecordWriter

        self._writer = ArrayRecordWriter(path, _SETTINGS)

    def write(self, entry: dict[str, Any]) -> None:
        import msgpack

        self._writer.write(msgpack.packb(entry))

    def close(self) -> None:
        self._writer.close()


def _parse(content: bytes) -> Any:
    import msgpack

    try:
        if content[:1] == b"{":  # in MessagePack this would be a number, not a map
            return json_files.parse(content.decode("utf-8"))
        return msgpack.unpackb(content)
    except Exception as error:  # what bytes of another kind make the parsers raise is not a fixed list
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"holds neither a MessagePack nor a JSON object ({reason})") from None
