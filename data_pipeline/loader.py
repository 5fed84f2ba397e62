"""From planned rows to batches: a Grain pipeline that reads, decodes and assembles, on any number of threads and hosts.

What a batch holds is described in `vlm_jax.processing.rows`. A run's position in its data is one number and a small
plan, so that any number of threads, workers and hosts sees the same batches in the same order.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import grain

from data_pipeline.image_loader import ImageLoader
from data_pipeline.ledger import Ledger
from data_pipeline.measure import Examples
from data_pipeline.packing import WINDOW, Place, Plan, Planned
from data_pipeline.records import images_of
from vlm_jax.errors import InputError
from vlm_jax.processing.example import NOTHING, Example
from vlm_jax.processing.rows import Batch, assemble, stack

_NAMED = 4  # batches that can still be named once they were given out
_LOST = 20  # batches in a row of which nothing can be read, before a run that leaves out errors stops


@dataclasses.dataclass(frozen=True)
class Shard:
    """Which rows of each batch this process loads."""

    index: int = 0
    count: int = 1


WHOLE = Shard()


class Batches(grain.DatasetIterator):
    """Batches in order; its state is a number and from where the plan can be made again."""

    def __init__(
        self,
        loaded: grain.DatasetIterator,
        plan: Plan,
        count: int,
        name: Callable[[Place], str],
        examples: int,
    ):
        """`examples`: of an epoch."""
        super().__init__()
        self._loaded, self._plan, self._count, self._name = loaded, plan, count, name
        self._next = self._seen = 0
        self._examples = examples

    def __len__(self) -> int:
        return self._count

    def __next__(self) -> Batch:
        if self._next >= self._count:
            raise StopIteration
        batch = next(self._loaded)
        self._seen += sum(map(len, self._plan[self._next].rows))
        self._next += 1
        self._plan.let_go(self._next - _NAMED)
        return batch

    @property
    def epochs(self) -> float:
        """How often the data was seen by now."""
        return self._seen / self._examples

    def records(self, number: int) -> list[str]:
        """The records of one of the last few batches, as error lines name them."""
        return [self._name(place) for row in self._plan[number].rows for place in row]

    def get_state(self) -> dict[str, Any]:
        plan = self._plan.state(self._next)
        return {"loaded": self._loaded.get_state(), "next": self._next, "seen": self._seen, "plan": plan}

    def set_state(self, state: dict[str, Any]) -> None:
        self._plan.restore(state["plan"])
        self._loaded.set_state(state["loaded"])
        self._next = state["next"]
        self._seen = state.get("seen", state["plan"]["window"] * WINDOW)  # earlier versions counted windows alone


class PlannedRows:
    """The batches of a plan as Grain reads them: by number, on any thread."""

    def __init__(
        self, examples: Examples, images: ImageLoader, ledger: Ledger, plan: Plan, count: int, shard: Shard = WHOLE
    ):
        self._examples, self._images, self._ledger = examples, images, ledger
        self._plan, self._count, self._shard = plan, count, shard
        self._lost = 0  # batches in a row of which nothing could be read

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Batch:
        planned = self._plan[number]
        capacity = self._plan.buckets[planned.bucket].size
        rows = self._rows_of_shard(planned)
        loaded = load_examples(self._examples, self._images, [place for row in rows for place in row])
        self._note_lost(loaded)
        following = iter(loaded)
        filled = [[example for example in (next(following) for _ in row) if example is not None] for row in rows]
        for row, examples in zip(rows, filled, strict=True):
            if not sum((example.size for example in examples), NOTHING).fits(capacity):
                places = ", ".join(self._examples.where(*place) for place in row)
                raise InputError(
                    f"{places}: no longer fit the row they were planned into: the data is not what it was when the run "
                    "began; put it back, or begin a new run"
                )
        spec = self._examples.row_spec(capacity)
        return stack([assemble(examples, spec) for examples in filled])

    def _rows_of_shard(self, planned: Planned) -> list[list[Place]]:
        local = len(planned.rows) // self._shard.count
        return planned.rows[self._shard.index * local : (self._shard.index + 1) * local]

    def _note_lost(self, loaded: Sequence[Example | None]) -> None:
        if loaded:
            self._lost = self._lost + 1 if all(example is None for example in loaded) else 0
        if self._lost >= min(_LOST, self._count):
            raise InputError(
                [
                    f"nothing of {self._lost} batches in a row can be read; is the disk still there?",
                    *self._ledger.reasons(),
                ]
            )


def make_loader(rows: PlannedRows, plan: Plan, name: Callable[[Place], str], *, epoch: int, threads: int) -> Batches:
    """An iterator over the batches of a plan. Each process gets its share of the rows of every batch.

    Args:
      epoch: how many examples the data has.
      threads: batches put together at the same time.
    """
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    loading = iter(grain.MapDataset.source(rows).to_iter_dataset(options))
    return Batches(loading, plan, len(rows), name, epoch)


def load_examples(examples: Examples, images: ImageLoader, places: Sequence[Place]) -> list[Example | None]:
    """Measured examples as arrays; None for one that has become unreadable since, where that stops nothing.

    Raises:
      InputError: that, where it stops the run; or a worker process died.
    """
    all_keys, found_records = [], []
    for part, index in places:
        try:
            record, text, grids = examples.read(part, index)
        except InputError as error:
            examples.refuse(examples.where(part, index), "unreadable", error.lines)
            found_records.append(None)
            continue
        keys = list(zip(images_of(record), grids, strict=True))
        found_records.append((part, index, record, text, keys))
        all_keys += keys
    results: list[Example | None] = []
    found = iter(images.patches(all_keys))
    for read in found_records:
        if read is None:
            results.append(None)
            continue
        part, index, record, text, keys = read
        patches = [next(found) for _ in keys]
        errors = [line for one in patches if isinstance(one, InputError) for line in one.lines]
        if errors:
            examples.refuse(record.where, "unreadable", [f"{record.where}: {error}" for error in errors])
            results.append(None)
            continue
        processor = examples.processor(part)
        prepared = [processor.prepared_image(one, grid) for one, (_, grid) in zip(patches, keys, strict=True)]
        results.append(processor.lay_out(text, prepared, longest=examples.longest(part, index)))
    return results
