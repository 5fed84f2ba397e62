"""Data sets prepared by TensorFlow Datasets as ArrayRecord, read without TensorFlow through `as_data_source`.

A path is the folder of a version, with the split after `#` where it has several: `vqa/1.0.0#train[:90%]`. Images
stay encoded; features that are texts are decoded.
"""

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from data_pipeline.sources import tfds_features
from data_pipeline.sources.containers import Entries, Entry, did_you_mean
from data_pipeline.values import UnnamedClass
from vlm_jax import locations
from vlm_jax.errors import InputError

MARK = "dataset_info.json"


class TfdsEntries(Entries):
    """The examples of one split."""

    def __init__(self, path: str):
        """
        Raises:
          InputError: no prepared data set is there, it is not in ArrayRecord, or the split is not known.
        """
        self.path = path
        self._folder, _, split = path.partition("#")
        if locations.is_remote(path):
            raise InputError(f"{path}: TFDS is read from a disk only; copy the folder, or mount the bucket")
        if not locations.is_folder(self._folder):
            raise InputError(f"{self._folder}: no such folder{did_you_mean(self._folder)}")
        if not locations.is_file(locations.join(self._folder, MARK)):
            below = [n for n in locations.names_in(self._folder) if locations.is_file(f"{self._folder}/{n}/{MARK}")]
            raise InputError(
                f"{self._folder}: is no prepared TFDS data set (it has no {MARK})"
                + (f"; name one of its versions: {', '.join(below)}" if below else "; name the folder of its version")
            )
        tfds_features.check_features(self._folder)
        self._split = ""
        with self._described():
            self._open_split(split)

    @contextlib.contextmanager
    def _described(self) -> Iterator[None]:
        """Raises InputError for what TFDS raises of what the folder says of itself."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(f"{self._folder}: cannot be opened as a TFDS data set ({reason})") from None

    def _open_split(self, split: str) -> None:
        path, info = self.path, self._builder().info
        splits = [name for name in info.splits if info.splits[name].num_examples]
        if not splits:
            raise InputError(f"{path}: holds no entries")
        named = split.partition("[")[0]
        if not split and len(splits) > 1:
            raise InputError(f"{path}: has the splits {', '.join(splits)}; name one: {self._folder}#{splits[0]}")
        if split and any(part.strip().partition("[")[0] not in splits for part in split.split("+")):
            raise InputError(f"{path}: has no split {named!r}; the splits are {', '.join(splits)}")
        self._split = split or splits[0]
        if info.file_format is not None and info.file_format.value == "array_record":
            for name in splits:
                if not named or name in split:
                    tfds_features.check_counts(self._folder, info.splits[name], name)
        self.__setstate__({})
        self._count = len(self._opened())
        if not self._count:
            raise InputError(f"{path}: holds no entries")

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("path", "_folder", "_split", "_count")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._source: Any = None
        self._lock = threading.Lock()

    @property
    def stem(self) -> str:
        return f"{os.path.basename(os.path.dirname(os.path.abspath(self._folder)))}-{self._split}"

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Entry:
        try:
            source = self._opened()
            with self._lock:
                value = source[index]
            return Entry(index + 1, self.place(index), _plain(value, source.dataset_info.features))
        except Exception as error:  # a broken shard or a feature without TensorFlow: reported with the other errors
            return Entry(index + 1, self.place(index), error=f"cannot be read ({' '.join(str(error).split())})")

    def _builder(self) -> Any:
        import tensorflow_datasets

        with self._described():
            return tensorflow_datasets.builder_from_directory(self._folder)

    def _opened(self) -> Any:
        import tensorflow_datasets as tfds

        with self._lock:
            if self._source is None:
                builder = self._builder()
                images = {
                    name: tfds.decode.SkipDecoding()
                    for name, feature in builder.info.features.items()
                    if isinstance(feature, tfds.features.Image)
                }
                try:
                    self._source = builder.as_data_source(self._split, decoders=images or None)
                except Exception as error:
                    reason = " ".join(str(error).split())[:300]
                    raise InputError(
                        f"{self.path}: cannot be read without TensorFlow ({reason}); prepare it with "
                        'file_format="array_record"'
                    ) from None
            return self._source


def _plain(value: Any, feature: Any) -> Any:
    """An example as JSON has it: texts decoded, numbers and lists of Python; images stay bytes."""
    import numpy as np
    import tensorflow_datasets as tfds

    if isinstance(value, Mapping):
        inner = getattr(feature, "feature", feature)  # of a sequence of dictionaries
        return {name: _plain(one, inner[name]) for name, one in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(one, getattr(feature, "feature", feature)) for one in value]
    if isinstance(value, bytes) and isinstance(feature, tfds.features.Text):
        return value.decode("utf-8")
    if isinstance(feature, tfds.features.ClassLabel) and isinstance(value, (int, np.integer)):
        number, count = int(value), feature.num_classes or 0
        return feature.int2str(number) if 0 <= number < count else UnnamedClass(number, count)
    if isinstance(value, np.floating) and value.itemsize < 8:
        return float(str(value))  # the shortest text of its own precision
    return value.item() if isinstance(value, np.generic) else value
