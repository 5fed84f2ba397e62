"""Several sources as one, whole or a share of them."""

import hashlib
from collections.abc import Sequence

import numpy as np

from data_pipeline.prompting import PLAIN, Prompt, prompted
from data_pipeline.records import Record
from data_pipeline.sources.source import Source


class Chain:
    """Several sources one after the other, as one.

    Of a `share` below 1 it has so many of their records, in the order of the files. Which ones follows from their ids
    and `seed` alone, and a smaller share of a seed is part of every larger one. Records are as `prompt` asks them.
    """

    def __init__(self, sources: Sequence[Source], *, share: float = 1.0, seed: int = 0, prompt: Prompt = PLAIN):
        self._sources, self._prompt = list(sources), prompt
        self._ends = np.cumsum([len(source) for source in sources])
        self._subset = None if share == 1 else self._chosen(share, seed)

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._subset is None else len(self._subset)

    def __getitem__(self, index: int) -> Record:
        source, inside = self._record(index)
        return prompted(source[inside], self._prompt)

    @property
    def sources(self) -> list[Source]:
        """In the order of the files."""
        return list(self._sources)

    @property
    def contents(self) -> list[str]:
        """`Entries.content` of those sources that have one."""
        return [source.content for source in self._sources if source.content]

    def identify(self, index: int) -> tuple[str | None, str]:
        source, inside = self._record(index)
        return source.identify(inside)

    def images(self, index: int) -> list[str | bytes]:
        source, inside = self._record(index)
        return source.images(inside)

    def file_of(self, index: int) -> int:
        """Which of the sources an entry is of: ids are unique within one."""
        return self._inside(index)[0]

    def source_of(self, index: int) -> Source:
        """The source that an entry is of."""
        return self._record(index)[0]

    def _record(self, index: int) -> tuple[Source, int]:
        number, inside = self._inside(index)
        return self._sources[number], inside

    def _inside(self, index: int) -> tuple[int, int]:
        """The number of the source, and the entry's in it."""
        place = index if self._subset is None else int(self._subset[index])
        number = int(np.searchsorted(self._ends, place, side="right"))
        return number, place - (int(self._ends[number - 1]) if number else 0)

    def _chosen(self, share: float, seed: int) -> np.ndarray:
        """The places of the records whose digests come first; ranked, so that their number is exact."""
        digests = []
        for number, source in enumerate(self._sources):
            for index in range(len(source)):
                # An entry without a readable id has its place; that it is bad is reported when it is read.
                identifier = source.identify(index)[0] or f"{number}/{index}"
                digests.append(hashlib.blake2b(f"{seed}/{identifier}".encode(), digest_size=8).digest())
        order = sorted(range(len(digests)), key=digests.__getitem__)
        return np.sort(np.array(order[: max(1, round(share * len(order)))], np.int64))
