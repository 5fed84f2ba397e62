"""Which examples share a row: joint packing of tokens, patch slots and supervised positions, in a few fixed sizes.

Rows are planned from lengths alone, window after window, before anything is decoded. So the plan is the same for every
number of workers and hosts, and every host takes a batch of the same shape at the same step. In which order examples
come is `mixture`'s; how long they are, `measure`'s.
"""

import dataclasses
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vlm_jax.errors import InputError
from vlm_jax.processing.example import Size

OPEN_ROWS = 64
"""Rows of a size that may still be filled at one time: enough for a good fit, few enough to keep the shuffled order."""
WINDOW = 1024
"""Examples that are measured and packed together."""
_SNAPSHOTS = 16  # windows that a saved position may lie behind what is planned already


@dataclasses.dataclass(frozen=True)
class Bucket:
    """One shape of batch: so many rows, over all hosts, of one size."""

    rows: int
    size: Size


Place = tuple[int, int]
"""An example: its part of the mixture, and which one it is there."""


@dataclasses.dataclass(frozen=True)
class Planned:
    """A batch before it is loaded: its bucket, and the examples that share each of its rows."""

    bucket: int
    rows: list[list[Place]]


def as_array(sizes: Sequence[Size]) -> Int[np.ndarray, "n columns"]:
    """Their `Size.columns`, which are equally many."""
    return np.array([size.columns for size in sizes], np.int64).reshape(-1, len(sizes[0].columns) if sizes else 3)


class Packer:
    """Best fit: each example goes to the open row that is left fullest by it; the fullest row closes to make room.

    A row that would have much room left of tokens and little of patch slots, or the other way round, counts as less
    full: such room stays unused. An example larger than a bucket's row goes to the next bucket; smaller ones fill what
    it leaves free.
    """

    def __init__(self, buckets: Sequence[Bucket]):
        self._limits = as_array([bucket.size for bucket in buckets])
        # Supervised positions are plenty (`buckets`): what is left of them does not make a row less full.
        columns = self._limits.shape[1]
        self._weights = np.array([1, 1, 0, *[1] * (columns - 3)]) / np.maximum(self._limits, 1)
        self._rows: list[list[list[Place]]] = [[] for _ in buckets]
        self._free = np.zeros((len(buckets), OPEN_ROWS, columns), np.int64)

    def add(self, item: Place, size: Int[np.ndarray, " columns"]) -> tuple[int, list[Place]] | None:
        """Packs an example; the row (bucket, items) that had to be closed for it, if any.

        Raises:
          ValueError: it fits no row (`bucket_of` tells before).
        """
        best, place, least = -1, -1, np.inf
        for bucket, rows in enumerate(self._rows):
            if rows and (size <= self._limits[bucket]).all():
                left = self._free[bucket, : len(rows)] - size
                shares = left * self._weights[bucket]
                slack = shares.sum(axis=1) + np.abs(shares[:, 0] - shares[:, 1])
                slack = np.where((left >= 0).all(axis=1), slack, np.inf)
                row = int(np.argmin(slack))
                if slack[row] < least:
                    best, place, least = bucket, row, slack[row]
        if best >= 0:
            self._rows[best][place].append(item)
            self._free[best, place] -= size
            return None
        bucket = int(bucket_of(size[None], self._limits)[0])
        if bucket < 0:
            raise ValueError(f"example {item} of {size.tolist()} fits no row of {self._limits.tolist()}")
        rows, free, closed = self._rows[bucket], self._free[bucket], None
        if len(rows) == OPEN_ROWS:
            fullest = int(np.argmin(free @ self._weights[bucket]))
            closed = (bucket, rows.pop(fullest))
            free[fullest:-1] = free[fullest + 1 :]
        free[len(rows)] = self._limits[bucket] - size
        rows.append([item])
        return closed

    def free(self, bucket: int) -> Int[np.ndarray, "rows columns"]:
        """What the open rows of a bucket have left."""
        return self._free[bucket, : len(self._rows[bucket])]

    def flush(self) -> list[tuple[int, list[Place]]]:
        """Closes every open row."""
        closed = [(bucket, row) for bucket, rows in enumerate(self._rows) for row in rows]
        self._rows = [[] for _ in self._rows]
        return closed

    def state(self) -> dict[str, Any]:
        """What `restore` takes, as JSON can hold it."""
        free = [self._free[bucket, : len(rows)].tolist() for bucket, rows in enumerate(self._rows)]
        return {"rows": [[list(row) for row in rows] for rows in self._rows], "free": free}

    def restore(self, state: dict[str, Any]) -> None:
        self._rows = _places(state["rows"])
        for bucket, free in enumerate(state["free"]):
            self._free[bucket, : len(free)] = np.array(free, np.int64).reshape(-1, self._free.shape[2])


def _places(rows: list[list[list[Sequence[int]]]]) -> list[list[list[Place]]]:
    """Rows as JSON gave them back: with pairs that are lists."""
    return [[[(part, index) for part, index in row] for row in bucket] for bucket in rows]


def bucket_of(sizes: Int[np.ndarray, "n columns"], limits: Int[np.ndarray, "buckets columns"]) -> Int[np.ndarray, " n"]:
    """The first bucket that an example fits, -1 for none."""
    fits = (sizes[:, None] <= limits[None]).all(axis=2)
    return np.where(fits.any(axis=1), fits.argmax(axis=1), -1)


def unused_shares(
    buckets: Sequence[Bucket], planned: Sequence[Planned], size: Callable[[Place], np.ndarray]
) -> tuple[Int[np.ndarray, " buckets"], Float[np.ndarray, "buckets columns"]]:
    """Of each bucket: how many batches are planned, and what share of their rows' lengths stays unused."""
    limits, counts = as_array([bucket.size for bucket in buckets]), np.zeros(len(buckets), np.int64)
    used = np.zeros(limits.shape)
    for batch in planned:
        counts[batch.bucket] += 1
        used[batch.bucket] += sum((size(place) for row in batch.rows for place in row), np.zeros(limits.shape[1]))
    slots = counts[:, None] * np.array([[bucket.rows] for bucket in buckets]) * limits
    return counts, 1 - used / np.maximum(slots, 1)


Measure = Callable[[np.ndarray], np.ndarray]
"""Positions' (part, index) [n, 2] to their sizes [n, columns]; negative sizes for examples that are left out."""


@dataclasses.dataclass(frozen=True)
class Course:
    """How far a plan goes.

    Attributes:
      examples: so many are shown and then all rows close; None: endlessly many.
      steps: the number of batches; None where `examples` decides it.
      ends: after how many examples rows close besides: where a run ended that was lengthened then.
      turns: likewise, where the next budget of a `TokenSchedule` begins.
    """

    examples: int | None = None
    steps: int | None = None
    ends: tuple[int, ...] = ()
    turns: tuple[int, ...] = ()

    def next_end(self, start: int) -> int | None:
        """After how many examples rows close next, for one who has seen `start`."""
        ends = [*self.ends, *self.turns, *([] if self.examples is None else [self.examples])]
        return min((end for end in ends if end > start), default=self.examples)


class Plan:
    """The batches of a run, planned a window at a time when they are asked for; any thread may ask."""

    def __init__(
        self,
        take: Callable[[int, int], np.ndarray],
        measure: Measure,
        buckets: Sequence[Bucket],
        *,
        seed: int,
        shuffle: bool = True,
        examples: int | None = None,
        steps: int | None = None,
        ends: Sequence[int] = (),
        turns: Sequence[int] = (),
        epoch: int | None = None,
        window: int = WINDOW,
    ):
        """
        Args:
          take: `Mixture.take`.
          examples, steps, ends, turns: its `Course`.
          epoch: how many examples there are: where as many in a row are all left out, the plan gives up.
          window: examples measured at a time; another window is another plan.
        """
        self.buckets = tuple(buckets)
        self._limits = as_array([bucket.size for bucket in buckets])
        self._take, self._measure = take, measure
        self._seed, self._shuffle = seed, shuffle
        self.course, self._window = Course(examples, steps, tuple(ends), tuple(turns)), window
        self._lock = threading.Lock()
        self._packer = Packer(self.buckets)
        self._waiting: list[list[list[Place]]] = [[] for _ in buckets]  # closed rows, fewer than a batch
        self._batches: deque[Planned] = deque()
        self._first = 0  # number of the oldest batch that is held
        self._windows = self._start = 0  # how many are planned, and of how many examples
        self._reached: list[tuple[int, int]] = []  # after each window: batches planned, and of how many examples
        self._origin: dict[str, Any] = {"window": 0, "batches": 0, "start": 0}  # where this plan began or was restored
        self._epoch, self._barren = epoch, 0
        self._ended = False
        self._snapshots: deque[dict[str, Any]] = deque(maxlen=_SNAPSHOTS)

    def finish(self) -> int:
        """Plans all there is; how many batches."""
        with self._lock:
            while not self._ended:
                self._plan_window()
            return self._first + len(self._batches)

    def __len__(self) -> int:
        return self.course.steps if self.course.steps is not None else self.finish()

    def __getitem__(self, number: int) -> Planned:
        with self._lock:
            if number < self._first:
                raise IndexError(f"batch {number} was let go; the oldest that is held is {self._first}")
            while number >= self._first + len(self._batches):
                if self._ended:
                    raise IndexError(number)
                self._plan_window()
            return self._batches[number - self._first]

    def let_go(self, before: int) -> None:
        """Forgets the batches before this number, which nobody will ask for again."""
        with self._lock:
            while self._first < before and self._batches:
                self._batches.popleft()
                self._first += 1

    def state(self, number: int) -> dict[str, Any]:
        """From where batch `number` can be planned again without what came before it."""
        with self._lock:
            usable = [snapshot for snapshot in self._snapshots if snapshot["batches"] <= number]
            course = dataclasses.asdict(self.course)
            return {"buckets": self._shapes(), "course": course, **(usable[-1] if usable else self._origin)}

    def reach(self, number: int) -> int:
        """Of how many examples the batches before this number were planned."""
        if number <= self._origin["batches"]:  # it begins here, and holds none of them
            return self._origin["start"]
        self[number - 1]
        with self._lock:
            return next((start for batches, start in self._reached if batches >= number), self._start)

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a `state` in this plan's own course; batches before it are gone.

        Raises:
          InputError: it was planned for batches of other shapes.
        """
        if state["buckets"] != self._shapes():
            raise InputError(
                f"the checkpoint's batches have (rows, tokens, patches, supervised, …) {state['buckets']}, this run's "
                f"{self._shapes()}: shapes follow the data, the batch settings and the number of devices; go on with "
                "what the run began with, or begin a new one from this folder (model.path)"
            )
        with self._lock:
            self._packer = Packer(self.buckets)
            self._waiting = [[] for _ in self.buckets]
            if state["window"]:
                self._packer.restore(state["packer"])
                self._waiting = _places(state["waiting"])
            self._windows, self._first = state["window"], state["batches"]
            self._start = state.get("start", self._windows * self._window)  # earlier versions had no other ends
            self._origin = {key: state[key] for key in state if key not in ("buckets", "course")} | {
                "start": self._start
            }
            self._reached.clear()
            self._batches.clear()
            self._snapshots.clear()
            self._ended = False

    def ahead(self) -> list[Planned]:
        """The batches that are planned and not let go; those of the first window at least."""
        with self._lock:
            while not self._batches and not self._ended:
                self._plan_window()
            return list(self._batches)

    def _shapes(self) -> list[list[int]]:
        return [[bucket.rows, *map(int, limit)] for bucket, limit in zip(self.buckets, self._limits, strict=True)]

    def _plan_window(self) -> None:
        self._snapshots.append(
            {
                "window": self._windows,
                "batches": self._first + len(self._batches),
                "start": self._start,
                "packer": self._packer.state(),
                "waiting": [list(rows) for rows in self._waiting],
            }
        )
        start, end = self._start, self.course.next_end(self._start)
        count = self._window if end is None else min(self._window, end - start)
        closed: list[tuple[int, list[Place]]] = []
        if count > 0:
            places = self._take(start, count)
            sizes = self._measure(places)
            usable = np.flatnonzero((sizes >= 0).all(axis=1))
            self._barren = 0 if len(usable) else self._barren + count
            if self._epoch is not None and self._barren >= max(2 * self._epoch, self._window):
                raise InputError(f"none of {self._barren:,} examples in a row can be used; ledger.jsonl says why")
            for index in usable.tolist():
                row = self._packer.add(tuple(places[index].tolist()), sizes[index])
                if row is not None:
                    closed.append(row)
        self._windows += 1
        self._start += max(count, 0)
        all_close = end is not None and self._start >= end
        if all_close:
            closed += self._packer.flush()
            self._ended = self.course.examples is not None and self._start >= self.course.examples
        if self._shuffle:
            # Rows close in an order that follows their fill; batches should not.
            order = np.random.default_rng((self._seed, self._windows)).permutation(len(closed))
            closed = [closed[index] for index in order]
        for bucket, row in closed:
            self._waiting[bucket].append(row)
            if len(self._waiting[bucket]) == self.buckets[bucket].rows:
                self._emit(bucket)
        if all_close:
            for bucket, rows in enumerate(self._waiting):
                if rows:  # an epoch is never cut short: its last batches are filled with empty rows
                    rows += [[] for _ in range(self.buckets[bucket].rows - len(rows))]
                    self._emit(bucket)
        self._reached.append((self._first + len(self._batches), self._start))

    def _emit(self, bucket: int) -> None:
        self._batches.append(Planned(bucket, self._waiting[bucket]))
        self._waiting[bucket] = []
