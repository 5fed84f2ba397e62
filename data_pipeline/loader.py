"""From files to batches: read, check everything, plan the rows, then a Grain pipeline that loads them.

All faults of a data set are found before the first batch and raised together. What a batch holds is described in
`vlm_jax.processing.rows`.
"""

import dataclasses
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import grain
import numpy as np

from data_pipeline import sources
from data_pipeline.check import check_images
from data_pipeline.packing import RowPlan, as_array, choose_capacity, too_large
from data_pipeline.records import Record, images_of
from vlm_jax import locations
from vlm_jax.errors import InputError, gathered
from vlm_jax.processing.processor import Processor
from vlm_jax.processing.rows import Example, Size, assemble, stack


@dataclasses.dataclass
class Dataset:
    """Checked records and what each takes of a row."""

    records: list[Record]
    sizes: np.ndarray
    """[n, 3]: tokens, patch slots, supervised positions."""
    pictures: int
    """Distinct pictures."""


def read_dataset(
    path: str, processor: Processor, *, format: str = "auto", image_root: str | None = None, decode: bool = True
) -> tuple[Dataset, list[str]]:
    """Reads and checks a training set: the records that are in order, and every fault of the others.

    Args:
      path: a file, or several with commas between; all their records train together.
      decode: decode every picture now, which finds truncated files; otherwise only their headers are read.
    """
    records, refused, faults = [], [], []
    for name in [path] if Path(path).exists() else path.split(","):
        with gathered(faults):
            more, wrong = sources.read(
                os.path.expanduser(name.strip()),
                format=format,
                image_root=image_root,
                training=True,
                refused=refused,
            )
            records += more
            faults += wrong
    faults += sources.doubled_ids(records)
    picture_sizes, picture_faults = check_images([*records, *refused], decode=decode)
    faults = [*faults, *picture_faults]
    good, sizes = [], []
    for record in records:
        images = images_of(record)
        if all(image in picture_sizes for image in images):
            try:
                sizes.append(processor.size(record.messages, [picture_sizes[image] for image in images]))
                good.append(record)
            except InputError as error:
                faults += [f"{record.where}: {fault}" for fault in error.faults]
    if not records and not faults:
        faults.append(f"{path}: holds no records")
    pictures = {image for record in good for image in images_of(record)}
    return Dataset(good, as_array(sizes), len(pictures)), faults


def row_capacity(dataset: Dataset, tokens: int, patches: int, supervised: int, block_slots: int) -> Size:
    """The row size of a run; 0 patches or supervised positions means: in proportion to the data.

    Raises:
      InputError: examples that do not fit, each with its size, or patches that are no multiple of an attention block.
    """
    fitting = choose_capacity(dataset.sizes, tokens, block_slots)
    capacity = Size(tokens, patches or fitting.patches, supervised or fitting.supervised)
    if capacity.patches % block_slots:
        raise InputError(f"batch.patches {capacity.patches} is not a multiple of {block_slots}, one attention window")
    faults = []
    for index in too_large(dataset.sizes, capacity):
        size = Size(*map(int, dataset.sizes[index]))
        faults.append(
            f"{dataset.records[index].where}: takes {size.tokens} tokens, {size.patches} patch slots and "
            f"{size.supervised} supervised positions; a row holds {capacity.tokens}, {capacity.patches} and "
            f"{capacity.supervised}: raise batch.tokens (or batch.patches, batch.supervised) or lower "
            "model.max_visual_tokens"
        )
    if faults:
        raise InputError(faults)
    return capacity


def plan_rows(
    dataset: Dataset, capacity: Size, *, rows: int, steps: int, epochs: int, seed: int, shuffle: bool
) -> RowPlan:
    """The rows of a run of `steps` batches, or of so many epochs where steps is 0; always whole batches."""
    plan = RowPlan(dataset.sizes, capacity, seed=seed, shuffle=shuffle)
    return plan.extend(rows=steps * rows) if steps else plan.extend(epochs=epochs, multiple=rows)


def describe(dataset: Dataset, plan: RowPlan, capacity: Size, rows: int) -> str:
    """The data of a run in a line."""
    tokens, _, _ = dataset.sizes.sum(axis=0)
    padding, patch_padding = plan.padding()
    return (
        f"{len(dataset.records)} examples, {dataset.pictures} pictures, {tokens:,} tokens; {len(plan) // rows} steps "
        f"of {rows} × {capacity.tokens} tokens and {capacity.patches} patches "
        f"({padding:.0%} of the tokens and {patch_padding:.0%} of the patch blocks unused)"
    )


def fingerprint(dataset: Dataset) -> str:
    """Identifies the records of a data set and what they take of a row."""
    digest = hashlib.sha256(dataset.sizes.tobytes())
    for record in dataset.records:
        # Pictures by name and length: the set may move to another folder, and reading all their bytes takes minutes.
        pictures = [
            image if isinstance(image, bytes) else (Path(image).name, locations.size(image))
            for image in images_of(record)
        ]
        words = [
            (
                message["role"],
                message["content"]
                if isinstance(message["content"], str)
                else [part.get("text") for part in message["content"]],
            )
            for message in record.messages
        ]
        digest.update(repr((record.id, words, pictures)).encode())
    return digest.hexdigest()[:16]


class ExampleCache:
    """Processed examples, kept up to a number of bytes: small sets are decoded once, large ones stream through."""

    def __init__(self, load: Callable[[int], Example], limit: int):
        self._load, self._room, self._lock = load, limit, threading.Lock()
        self._held: dict[int, Example] = {}

    def __call__(self, index: int) -> Example:
        held = self._held.get(index)
        if held is not None:
            return held
        example = self._load(index)
        size = example.input_ids.nbytes * 8 + sum(picture.patches.nbytes for picture in example.pictures)
        with self._lock:
            if size <= self._room and index not in self._held:
                self._held[index] = example
                self._room -= size
        return example


@dataclasses.dataclass(frozen=True)
class Shard:
    """Which rows of each batch this process loads."""

    index: int = 0
    count: int = 1


def make_loader(
    dataset: Dataset,
    processor: Processor,
    plan: RowPlan,
    capacity: Size,
    *,
    rows: int,
    patch_values: int,
    threads: int = 4,
    cache_bytes: int = 512 * 2**20,
    shard: Shard = Shard(),
) -> grain.DatasetIterator:
    """An iterator over batches of `rows` rows; its state is a position in the plan and can be saved.

    Each process gets rows / shard.count rows of every batch, the same batches on every host.
    """
    merge_unit = processor.images.merge_size**2
    local = rows // shard.count

    def load_example(index: int) -> Example:
        record = dataset.records[index]
        try:
            return processor.encode(record.messages)
        except InputError as error:  # a file that changed since it was checked
            raise InputError([f"{record.where}: {fault}" for fault in error.faults]) from None

    example = ExampleCache(load_example, cache_bytes)

    def load_row(position: int) -> dict[str, np.ndarray]:
        batch, place = divmod(position, local)
        indices = plan[batch * rows + shard.index * local + place]
        return assemble(
            [example(index) for index in indices], capacity, patch_values=patch_values, merge_unit=merge_unit
        )

    return iter(
        grain.MapDataset.range(len(plan) // shard.count)
        .map(load_row)
        .batch(local, drop_remainder=True, batch_fn=stack)
        .to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))
    )
