"""The pairs of one partition on disk: in the order of their questions, and looked up by them.

A partition holds all pairs whose canonical question has a hash, its name, of a certain remainder.
"""

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import UInt32, UInt64

from data_pipeline.corpus.filters import minhash
from data_pipeline.corpus.filters.canonical import canonical
from data_pipeline.corpus.filters.pair import Pair, to_json
from data_pipeline.corpus.shards import files


def write(folder: Path, named: Iterable[tuple[int, Pair]]) -> tuple[np.ndarray, np.ndarray]:
    """Writes pairs with the names of their questions; returns the names, ascending, and their signatures."""
    names, starts, counts, texts = [], [], [], []
    at = 0
    with files.write_whole(folder / "pairs.jsonl") as file:
        for name, pair in sorted(named, key=lambda one: (one[0], one[1].id)):
            if not names or names[-1] != name:
                names.append(name)
                starts.append(at)
                counts.append(0)
                texts.append(canonical(pair.question))
            counts[-1] += 1
            at += file.write(files.line_of(to_json(pair)))
    found = np.array(names, np.uint64)
    signed = minhash.signatures(texts)
    encoded = [text.encode() for text in texts]
    with files.write_whole(folder / "texts") as file:
        file.writelines(encoded)
    files.write_array(folder / "text_ends.npy", np.cumsum([0, *map(len, encoded)]))
    files.write_array(folder / "starts.npy", np.array([*starts, at], np.int64))
    files.write_array(folder / "counts.npy", np.array(counts, np.int64))
    files.write_array(folder / "signatures.npy", signed)
    files.write_array(folder / "names.npy", found)
    return found, signed


class Partition:
    """One that is written, read from its files where it is looked at."""

    def __init__(self, folder: Path):
        self.lines = files.read_bytes(folder / "pairs.jsonl")
        self.written = files.read_bytes(folder / "texts")
        self.text_ends = files.read_array(folder / "text_ends.npy")
        self.names = files.read_array(folder / "names.npy")
        self.starts = files.read_array(folder / "starts.npy")
        self.counts = files.read_array(folder / "counts.npy")
        self.signed = files.read_array(folder / "signatures.npy")

    def pairs(self, name: int) -> list[Pair]:
        """All that ask a question."""
        place = int(np.searchsorted(self.names, np.uint64(name)))
        whole = bytes(self.lines[self.starts[place] : self.starts[place + 1]])
        return [Pair(**json.loads(line)) for line in whole.split(b"\n") if line]

    def text(self, name: int) -> str:
        """A question in its canonical form."""
        place = int(np.searchsorted(self.names, np.uint64(name)))
        return bytes(self.written[self.text_ends[place] : self.text_ends[place + 1]]).decode()

    def several(self) -> list[int]:
        """The questions that more than one pair asks."""
        return self.names[self.counts > 1].tolist()


class Partitions:
    """All of them, as `near_text.verified` looks texts up."""

    def __init__(self, folders: Sequence[Path]):
        self.each = [Partition(folder) for folder in folders]
        self._text = lru_cache(maxsize=200_000)(lambda name: self.of(name).text(name))

    def of(self, name: int) -> Partition:
        return self.each[name % len(self.each)]

    def signatures(self, names: UInt64[np.ndarray, " n"]) -> UInt32[np.ndarray, "n 128"]:
        found = np.empty((len(names), minhash.HASHES), np.uint32)
        remainders = names % np.uint64(len(self.each))
        for number, partition in enumerate(self.each):
            mine = np.flatnonzero(remainders == number)
            if len(mine):
                found[mine] = partition.signed[np.searchsorted(partition.names, names[mine])]
        return found

    def texts(self, names: UInt64[np.ndarray, " n"]) -> list[str]:
        return [self._text(int(name)) for name in names]
