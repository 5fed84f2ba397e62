"""Several sources as one."""

from collections.abc import Sequence

import numpy as np

from data_pipeline.records import Record
from data_pipeline.sources.source import Source


class Chain:
    """Several sources one after the other, as one."""

    def __init__(self, held: Sequence[Source]):
        self._held = list(held)
        self._ends = np.cumsum([len(source) for source in held])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Record:
        source, inside = self._inside(index)
        return source[inside]

    def identify(self, index: int) -> tuple[str | None, str]:
        source, inside = self._inside(index)
        return source.identify(inside)

    def images(self, index: int) -> list[str | bytes]:
        source, inside = self._inside(index)
        return source.images(inside)

    def file_of(self, index: int) -> int:
        """Which of the sources an entry is of: ids are unique within one."""
        return int(np.searchsorted(self._ends, index, side="right"))

    def _inside(self, index: int) -> tuple[Source, int]:
        number = self.file_of(index)
        return self._held[number], index - (int(self._ends[number - 1]) if number else 0)
