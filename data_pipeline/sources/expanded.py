"""Entries that hold several questions: a row with several images, an article with several questions about it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from data_pipeline.sources.containers import Entries, Entry

Parts = Callable[[Mapping[str, Any]], Sequence[Mapping[str, Any]]]


class ExpandedEntries(Entries):
    """Each entry as the entries it stands for, one after the other."""

    def __init__(self, entries: Entries, parts: Parts):
        """
        Args:
          parts: of an entry's value, at least one. It must pickle, and is called again for each part that is read.
        """
        self.path, self.key, self.header, self.lists = entries.path, entries.key, entries.header, entries.lists
        self.folder, self.content = entries.folder, entries.content
        self._entries, self._parts = entries, parts
        values = (entries[index].value for index in range(len(entries)))
        self._ends = np.cumsum([len(parts(value)) if isinstance(value, Mapping) else 1 for value in values])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> Entry:
        number, inside, count = self._inside(index)
        entry = self._entries[number]
        if not isinstance(entry.value, Mapping):
            return entry
        part = dict(self._parts(entry.value)[inside])
        if count > 1 and not part.get("id"):
            part["id"] = f"{self.stem}-{entry.number}/{inside + 1}"
        return Entry(entry.number, self.place(index), part, entry.error)

    def place(self, index: int) -> str:
        number, inside, count = self._inside(index)
        place = self._entries.place(number)
        return f"{place}, question {inside + 1}" if count > 1 else place

    @property
    def stem(self) -> str:
        return self._entries.stem

    def objects(self) -> Iterator[Mapping[str, Any]]:
        for value in self._entries.objects():
            yield from self._parts(value)

    def _inside(self, index: int) -> tuple[int, int, int]:
        """(number of the entry, number of its part, how many it has)."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        start = int(self._ends[number - 1]) if number else 0
        return number, index - start, int(self._ends[number]) - start
