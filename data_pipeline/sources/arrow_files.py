"""Data sets saved by Hugging Face's `Dataset.save_to_disk`: Arrow files, mapped into memory, read a row at a time.

A path is the folder, with the split after `#` where it was a `DatasetDict`, or one `.arrow` file. Images are
`{"bytes", "path"}` as in Parquet. Features that are classes are read as their names.
"""

import bisect
import itertools
import json
import os
import threading
from collections.abc import Mapping
from typing import Any

from data_pipeline.sources.arrow_rows import Reading, plain_row, readings
from data_pipeline.sources.containers import Entries, Entry, did_you_mean
from vlm_jax import json_objects, locations
from vlm_jax.errors import InputError

SUFFIXES = (".arrow",)
STATE, SPLITS, ABOUT = "state.json", "dataset_dict.json", "dataset_info.json"


def is_saved(folder: str) -> bool:
    """Whether a folder is one that `save_to_disk` made: TFDS's has a `dataset_info.json` as well, and no state."""
    return any(locations.is_file(locations.join(folder, name)) for name in (STATE, SPLITS))


class ArrowEntries(Entries):
    """The rows of one split, or of one file."""

    def __init__(self, path: str):
        """
        Raises:
          InputError: no such folder or split, a file that is missing or broken, rows by an index, or no rows.
        """
        self.path = path
        if locations.is_remote(path):
            raise InputError(f"{path}: Arrow files are read from a disk only; copy them, or mount the bucket")
        folder, _, split = path.partition("#") if "#" in path and not os.path.exists(path) else (path, "", "")
        if folder.lower().endswith(SUFFIXES) and os.path.isfile(folder):
            self._files, self._columns, self._features = [folder], None, _features(os.path.dirname(folder))
        else:
            self._files, self._columns, self._features = _described(_split_folder(folder, split))
        self.__setstate__({})
        errors, counts = [], []
        for file in self._files:
            try:
                counts.append(self._table(file).num_rows)
            except InputError as error:
                errors += error.lines
        if errors:
            raise InputError(errors)
        if not sum(counts):
            raise InputError(f"{path}: holds no entries")
        self._ends = list(itertools.accumulate(counts))

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("path", "_files", "_columns", "_features", "_ends")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open: dict[str, Any] = {}
        self._readings: dict[str, dict[str, Reading]] = {}
        self._lock = threading.Lock()

    @property
    def stem(self) -> str:
        return os.path.basename(os.path.abspath(self.path)).replace("#", "-")

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Entry:
        number, within = self._where(index)
        try:
            rows = self._table(self._files[number]).slice(within, 1)
            rows.validate(full=True)  # offsets of a broken file lead out of what is mapped
            (row,) = rows.to_pylist()
        except Exception as error:  # a broken column must not hide the errors of the others
            return Entry(index + 1, self.place(index), error=f"cannot be read ({' '.join(str(error).split())})")
        return Entry(index + 1, self.place(index), plain_row(row, self._readings[self._files[number]]))

    def place(self, index: int) -> str:
        number, within = self._where(index)
        return f"{os.path.basename(self._files[number])}, " * (len(self._files) > 1) + f"row {within + 1}"

    def _where(self, index: int) -> tuple[int, int]:
        number = bisect.bisect_right(self._ends, index)
        return number, index - (self._ends[number - 1] if number else 0)

    def _table(self, file: str) -> Any:
        import pyarrow

        with self._lock:
            if file not in self._open:
                if not os.path.isfile(file):
                    raise InputError(f"{file}: no such file{did_you_mean(file)}")
                if not os.path.getsize(file):
                    raise InputError(f"{file}: is empty (0 bytes); copy it again")
                try:
                    mapped = pyarrow.memory_map(file)
                    whole = mapped.read(6) == b"ARROW1"
                    mapped.seek(0)
                    table = (pyarrow.ipc.open_file if whole else pyarrow.ipc.open_stream)(mapped).read_all()
                    table.validate()
                except (pyarrow.ArrowException, OSError, ValueError) as error:
                    reason = " ".join(str(error).split())[:200]
                    raise InputError(f"{file}: is no Arrow file, or a part of one; copy it again ({reason})") from None
                self._readings[file] = readings(table.schema, self._features, file)
                self._open[file] = table if self._columns is None else table.select(self._columns)
            return self._open[file]


def _split_folder(folder: str, split: str) -> str:
    """The folder of the split that is meant."""
    if not locations.is_folder(folder):
        raise InputError(f"{folder}: no such folder{did_you_mean(folder)}")
    if not os.path.isfile(os.path.join(folder, SPLITS)):
        if split:
            raise InputError(f"{folder}: was saved without splits, so there is no {split!r}; leave out #{split}")
        if not os.path.isfile(os.path.join(folder, STATE)):
            raise InputError(f"{folder}: was not made by save_to_disk: it has neither {STATE} nor {SPLITS}")
        return folder
    splits = _json(os.path.join(folder, SPLITS)).get("splits") or []
    if not split and len(splits) != 1:
        first = splits[0] if splits else "train"
        raise InputError(f"{folder}: has the splits {', '.join(splits)}; name one: {folder}#{first}")
    if split and split not in splits:
        raise InputError(f"{folder}: has no split {split!r}; the splits are {', '.join(splits)}")
    return os.path.join(folder, split or splits[0])


def _described(folder: str) -> tuple[list[str], list[str] | None, Any]:
    """The files of a saved data set, the columns that its format keeps, and its features."""
    state = _json(os.path.join(folder, STATE))
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise InputError(
            f"{os.path.join(folder, STATE)}: its rows are chosen by an index (an old version of datasets); load it and "
            "save it again with a current one"
        )
    listed = state.get("_data_files")
    names = [one.get("filename") for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []
    if not names or not all(isinstance(name, str) and name and name == os.path.basename(name) for name in names):
        raise InputError(f"{os.path.join(folder, STATE)}: '_data_files' names no files of this folder; save it again")
    columns = None if state.get("_output_all_columns") else state.get("_format_columns")
    return [os.path.join(folder, name) for name in names], columns, _features(folder)


def _features(folder: str) -> Any:
    """What a folder says of the features of its columns; None where it says nothing, and the files themselves may."""
    path = os.path.join(folder, ABOUT)
    return (_json(path).get("features") or None) if os.path.isfile(path) else None


def _json(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file, object_pairs_hook=json_objects.object_of)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; copy the folder again") from None
    except (InputError, OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error}); copy the folder again") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: is no JSON object; copy the folder again")
    return value
