"""Parquet files with images in them, as Hugging Face publishes data sets: read a row group at a time.

An image is `{"bytes", "path"}`: its bytes, or the path where there are none. Reading one row reads its whole group,
so a few groups are kept; a set that is read in random order for many epochs is better written as ArrayRecord once.
"""

import bisect
import itertools
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from data_pipeline.records import TEXT_FIELDS, Record, images_of
from data_pipeline.sources.arrow_rows import Reading, plain_row, readings
from data_pipeline.sources.containers import Entries, Entry, did_you_mean, opening
from vlm_jax import locations
from vlm_jax.errors import InputError

SUFFIXES = (".parquet",)
_MAGIC = b"PAR1"
_GROUPS_KEPT = 2
_ROWS_A_GROUP = 100
_ROWS_A_BYTE, _ROWS_ANYWAY = 16, 10_000
_ROWS_AT_ONCE = 32  # that are decoded before it is looked at what they take
_ALLOWED = 1 << 30  # bytes in memory of a group however small it is in the file
_SWELL = 32  # times its size in the file, beyond that: equal images in many rows are held once there


class ParquetEntries(Entries):
    """The rows of one file or of several in order."""

    def __init__(self, path: str, files: Sequence[str]):
        """
        Raises:
          InputError: a file is missing, empty or no Parquet file, or there are no rows.
        """
        self.path, self._files = path, list(files)
        self.__setstate__({})
        rows, errors = [], []
        self._groups: list[tuple[int, int]] = []
        for number in range(len(self._files)):
            try:
                about = self._file(number).metadata
            except InputError as error:
                errors += error.lines
                continue
            size = sum(about.row_group(group).total_byte_size for group in range(about.num_row_groups))
            if about.num_rows > _ROWS_A_BYTE * size + _ROWS_ANYWAY:
                errors.append(
                    f"{self._files[number]}: {about.num_rows:,} rows of {size:,} bytes: equal rows over and over are "
                    "no data set; write it again with each once"
                )
                continue
            for group in range(about.num_row_groups):
                self._groups.append((number, group))
                rows.append(about.row_group(group).num_rows)
        if errors:
            raise InputError(errors)
        if not sum(rows):
            raise InputError(f"{path}: holds no entries")
        self._ends = list(itertools.accumulate(rows))

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("path", "_files", "_groups", "_ends")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open: dict[int, Any] = {}
        self._readings: dict[int, dict[str, Reading]] = {}
        self._lengths: dict[int, int] = {}  # bytes of the files that are open
        self._tables: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Entry:
        group = bisect.bisect_right(self._ends, index)
        within = index - (self._ends[group - 1] if group else 0)
        try:
            table = self._table(group)
            if isinstance(table, Exception):
                raise table
            (row,) = table.slice(within, 1).to_pylist()
        except Exception as error:  # pages are checked only now, and a broken one must not hide the other errors
            return Entry(index + 1, self.place(index), error=f"cannot be read ({' '.join(str(error).split())})")
        return Entry(index + 1, self.place(index), plain_row(row, self._readings[self._groups[group][0]]))

    def place(self, index: int) -> str:
        if len(self._files) == 1:
            return f"row {index + 1}"
        number, _ = self._groups[bisect.bisect_right(self._ends, index)]
        before = [end for (file, _), end in zip(self._groups, self._ends, strict=True) if file < number]
        return f"{os.path.basename(self._files[number])}, row {index + 1 - max(before, default=0)}"

    def _table(self, group: int) -> Any:
        """A group, or why it cannot be had: each of its rows asks, and none should decode it in vain again."""
        with self._lock:
            if group not in self._tables:
                number, within = self._groups[group]
                try:
                    self._tables[group] = self._decoded(self._file(number), within, self._lengths[number])
                except InputError:
                    raise
                except Exception as error:
                    self._tables[group] = error.with_traceback(None)
                if len(self._tables) > _GROUPS_KEPT:
                    self._tables.popitem(last=False)
            self._tables.move_to_end(group)
            return self._tables[group]

    def _decoded(self, file: Any, group: int, length: int) -> Any:
        """A row group as a table, decoded some rows at a time: a thousand bytes can say a thousand million.

        Raises:
          ValueError: it takes out of proportion more in memory than in the file.
        """
        import pyarrow

        about = file.metadata.row_group(group)
        packed = min(about.total_byte_size, length)  # of what a broken file says of its columns, Arrow ends the program
        largest, decoded_bytes, batches = max(_ALLOWED, _SWELL * packed), 0, []
        largest_value = max(1, about.total_byte_size)
        at_once = min(_ROWS_AT_ONCE, max(1, _ALLOWED // 4 // largest_value))
        for batch in file.iter_batches(at_once, row_groups=[group]):
            decoded_bytes += sum(_bytes(column, decoded_bytes == 0) for column in batch.columns)
            if decoded_bytes > largest:
                raise ValueError(
                    f"its group of {about.num_rows:,} rows has {packed:,} bytes in the file and more than "
                    f"{largest >> 20:,} MB in memory; if that is meant, write the file again with fewer rows in a group"
                )
            batches.append(batch)
        table = pyarrow.Table.from_batches(batches, schema=file.schema_arrow)
        for place, field in enumerate(table.schema):
            if pyarrow.types.is_timestamp(field.type) and field.type.unit == "ns":  # which Python has no type for
                table = table.set_column(place, field.name, table.column(place).cast(pyarrow.string()))
        return table

    def _file(self, number: int) -> Any:
        import pyarrow
        import pyarrow.parquet

        if number not in self._open:
            path = self._files[number]
            with opening(path):
                if not locations.is_remote(path) and not os.path.isfile(path):
                    raise InputError(f"{path}: no such file{did_you_mean(path)}")
                file = locations.open_binary(path)
                magic, self._lengths[number] = file.read(4), file.seek(0, 2)
                if magic != _MAGIC:
                    file.close()
                    raise InputError(
                        f"{path}: is empty (0 bytes); copy it again"
                        if not self._lengths[number]
                        else f"{path}: is no Parquet file (it does not begin with PAR1); correct its extension"
                    )
                try:
                    opened = pyarrow.parquet.ParquetFile(file)
                except (pyarrow.ArrowException, ValueError):
                    file.close()
                    raise InputError(f"{path}: is a part of a Parquet file only; copy it again") from None
                self._readings[number] = readings(opened.schema_arrow, None, path)
                self._open[number] = opened
        return self._open[number]


def _bytes(column: Any, first: bool) -> int:
    """In memory; a dictionary that columns of categories share counts with the first rows alone."""
    import pyarrow

    kind = column.type
    if pyarrow.types.is_dictionary(kind):
        return column.indices.nbytes + (column.dictionary.nbytes if first else 0)
    if pyarrow.types.is_struct(kind):
        return sum(_bytes(inner, first) for inner in column.flatten())
    if pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind):
        return 8 * len(column) + _bytes(column.flatten(), first)
    return column.nbytes


class ParquetWriter:
    """Writes records as rows of `id`, `messages` (a part of type image where one stands), `images` and the fields."""

    def __init__(self, path: str):
        import pyarrow
        import pyarrow.parquet

        text = pyarrow.string()
        part = pyarrow.struct([("type", text), ("text", text)])
        message = pyarrow.struct([("role", text), ("content", pyarrow.list_(part)), ("weight", pyarrow.float64())])
        image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", text)])
        self._schema = pyarrow.schema(
            [
                ("id", text),
                ("images", pyarrow.list_(image)),
                ("messages", pyarrow.list_(message)),
                ("answers", pyarrow.list_(text)),
                *((name, text) for name in TEXT_FIELDS),
                ("provenance", text),
            ]
        )
        self._writer = pyarrow.parquet.ParquetWriter(path, self._schema)
        self._rows: list[dict[str, Any]] = []

    def write(self, entry: dict[str, Any]) -> None:
        provenance = entry.get("provenance")
        text = None if provenance is None else json.dumps(provenance, ensure_ascii=False)
        self._rows.append({**entry, "provenance": text})
        if len(self._rows) == _ROWS_A_GROUP:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow

        if self._rows:
            self._writer.write_table(pyarrow.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []


def to_row(record: Record) -> dict[str, Any]:
    """The record as a row, its embedded images taken out of the messages."""
    messages = []
    for message in record.messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        messages.append(
            {
                "role": message["role"],
                "content": [{"type": part["type"], "text": part.get("text")} for part in parts],
                "weight": message.get("weight"),
            }
        )
    return {
        "id": record.id,
        "images": [{"bytes": image, "path": None} for image in images_of(record)],
        "messages": messages,
    }
