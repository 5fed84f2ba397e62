"""Which examples share a row: joint packing of tokens, patch slots and supervised positions.

Rows are planned from lengths alone, before anything is decoded. So the plan is the same for every number of workers
and hosts, the number of rows is known before the first step, and a position in the data is one integer.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int

from vlm_jax.errors import InputError
from vlm_jax.processing.rows import Size

OPEN_ROWS = 64
"""Rows that may still be filled at one time: enough for a good fit, few enough to keep the order of the shuffle."""


def as_array(sizes: Sequence[Size]) -> Int[np.ndarray, "n 3"]:
    return np.array([(size.tokens, size.patches, size.supervised) for size in sizes], np.int64).reshape(-1, 3)


def pack(sizes: Int[np.ndarray, "n 3"], order: Int[np.ndarray, " n"], capacity: Size) -> list[list[int]]:
    """Best fit: each example goes to the open row that is left fullest by it; the fullest row closes to make room.

    Raises:
      ValueError: an example larger than a row (`too_large` finds those first).
    """
    limits = np.array([capacity.tokens, capacity.patches, capacity.supervised], np.int64)
    closed: list[list[int]] = []
    rows: list[list[int]] = []
    free = np.zeros((OPEN_ROWS, 3), np.int64)
    weight = 1 / np.maximum(limits, 1)
    for example in order.tolist():
        size = sizes[example]
        if (size > limits).any():
            raise ValueError(f"example {example} of {size.tolist()} does not fit a row of {limits.tolist()}")
        left = free[: len(rows)] - size
        fits = (left >= 0).all(axis=1)
        if fits.any():
            slack = np.where(fits, left @ weight, np.inf)
            chosen = int(np.argmin(slack))
            rows[chosen].append(example)
            free[chosen] -= size
            continue
        if len(rows) == OPEN_ROWS:
            fullest = int(np.argmin(free @ weight))
            closed.append(rows.pop(fullest))
            free[fullest:-1] = free[fullest + 1 :]
        free[len(rows)] = limits - size
        rows.append([example])
    return closed + rows


def too_large(sizes: Int[np.ndarray, "n 3"], capacity: Size) -> list[int]:
    """Examples that no row of this capacity can hold."""
    limits = np.array([capacity.tokens, capacity.patches, capacity.supervised])
    return np.flatnonzero((sizes > limits).any(axis=1)).tolist()


def choose_capacity(sizes: Int[np.ndarray, "n 3"], tokens: int, block_slots: int) -> Size:
    """The row that suits the data: `tokens` long, with patches and supervised positions in the data's proportion.

    Raises:
      InputError: no data.
    """
    if not len(sizes):
        raise InputError("no examples to choose a row size from")
    mean, largest = sizes.mean(axis=0), sizes.max(axis=0)

    def proportional(axis: int, multiple: int) -> int:
        # 10 % above proportion, so that tokens fill up first on most rows.
        wanted = max(largest[axis], 1.1 * tokens * mean[axis] / mean[0], multiple)
        return int(-(-wanted // multiple) * multiple)

    return Size(tokens, proportional(1, block_slots), proportional(2, 32))


class RowPlan(Sequence):
    """All rows of a run, as lists of example indices, epoch after epoch."""

    def __init__(self, sizes: Int[np.ndarray, "n 3"], capacity: Size, *, seed: int, shuffle: bool = True):
        self._sizes, self._capacity, self._seed, self._shuffle = sizes, capacity, seed, shuffle
        self.rows: list[list[int]] = []
        self.epoch_ends: list[int] = []
        """How many rows the run has after each planned epoch."""

    def extend(self, *, epochs: int | None = None, rows: int | None = None, multiple: int = 1) -> "RowPlan":
        """Plans so many epochs, or as many as give at least so many rows; then pads to a multiple with empty rows.

        An epoch is never cut short to fill a batch: the last batch is padded instead.
        """
        plan = self._epochs()
        while (epochs is not None and len(self.epoch_ends) < epochs) or (rows is not None and len(self.rows) < rows):
            self.rows += next(plan)
            self.epoch_ends.append(len(self.rows))
        if rows is not None:
            del self.rows[rows:]
        self.rows += [[] for _ in range(-len(self.rows) % multiple)]
        return self

    def _epochs(self) -> Iterator[list[list[int]]]:
        while True:
            epoch = len(self.epoch_ends)
            order = np.arange(len(self._sizes))
            if self._shuffle:
                np.random.default_rng((self._seed, epoch)).shuffle(order)
            packed = pack(self._sizes, order, self._capacity)
            if self._shuffle:
                # Rows close in an order that follows their fill; batches should not.
                np.random.default_rng((self._seed, epoch, 1)).shuffle(packed)
            yield packed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]

    def padding(self) -> tuple[float, float]:
        """Shares of unused token slots and unused patch slots over the whole plan."""
        used = np.zeros(3)
        for row in self.rows:
            used += self._sizes[row].sum(axis=0) if row else 0
        slots = max(len(self.rows), 1) * np.array([self._capacity.tokens, self._capacity.patches])
        return tuple(1 - used[:2] / slots)
