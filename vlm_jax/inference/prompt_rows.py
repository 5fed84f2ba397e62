"""Prompts side by side in few rows, as training packs its examples: what is read at one time before answers begin."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from vlm_jax.inference.decoding import Places, bucket
from vlm_jax.processing.example import Example, Size
from vlm_jax.processing.processor import Processor
from vlm_jax.processing.rows import Batch, assemble, stack


def packed(
    examples: Sequence[Example], conversations: int, processor: Processor, block_slots: int, *, smallest: int = 64
) -> tuple[Batch, Places]:
    """A batch in the smallest bucket that holds the longest prompt; and where each lies.

    Args:
      processor: of the examples.
      block_slots: patch slots of one attention block of the tower.
      conversations: places that are returned, of which the first are the examples'.
      smallest: tokens of the shortest row there is.
    """
    sizes = [example.size for example in examples]
    tokens, rows = _rows(sizes, smallest)
    places = np.zeros((3, conversations), np.int32)
    for number, row in enumerate(rows):
        start = 0
        for index in row:
            places[:, index] = number, start, sizes[index].tokens
            start += sizes[index].tokens
    plain = list(map(_unweighed, examples))
    slots = _slots(sizes, rows)
    # Above a cut within the decoder rows are as long as the fullest is there; where all stay, nothing is cut.
    above = np.array([np.sum([sizes[index].above for index in row], axis=0) for row in rows if row]).max(axis=0)
    above = tuple(min(tokens, bucket(int(count), smallest, steps=4)) for count in above)
    if all(set(size.above) <= {size.tokens} for size in sizes):
        above = ()
    capacity = Size(tokens, _slot_bucket(slots, block_slots), 1, above)
    spec = processor.row_spec(capacity)
    batch = stack([assemble([plain[index] for index in row], spec) for row in rows])
    return batch if slots else batch.without_images(), Places(*places)


def apart(
    examples: Sequence[Example], conversations: int, processor: Processor, block_slots: int, *, smallest: int = 16
) -> Batch:
    """A row for each example, all filled up to one length; so many rows, of which the first are the examples'."""
    sizes = [example.size for example in examples]
    slots = max(size.patches for size in sizes)
    tokens = bucket(max(size.tokens for size in sizes), smallest, steps=4)
    spec = processor.row_spec(Size(tokens, _slot_bucket(slots, block_slots), 1))
    rows = [[_unweighed(example)] for example in examples] + [[]] * (conversations - len(examples))
    batch = stack([assemble(row, spec) for row in rows])
    return batch if slots else batch.without_images()


def _slot_bucket(slots: int, block_slots: int) -> int:
    # Whole windows, and no fewer than 64 slots: few shapes to compile.
    return bucket(slots, -(-64 // block_slots) * block_slots, steps=8)


def _unweighed(example: Example) -> Example:
    # Nothing is trained on here; a length that follows the answers would compile anew for each.
    return dataclasses.replace(example, weights=np.zeros_like(example.weights))


def patches_of(sizes: Sequence[Size]) -> int:
    """Patch slots that the tower is given for prompts of these sizes: in all rows as many as in the fullest."""
    rows = _rows(sizes, 64)[1]
    return len(rows) * _slots(sizes, rows)


def _rows(sizes: Sequence[Size], smallest: int) -> tuple[int, list[list[int]]]:
    """Tokens of a row, and which prompts share each."""
    tokens = bucket(max(size.tokens for size in sizes), smallest, steps=4)
    return tokens, _shelves(sizes, tokens)


def _slots(sizes: Sequence[Size], rows: Sequence[Sequence[int]]) -> int:
    """Of the row that has most."""
    return max(sum(sizes[index].patches for index in row) for row in rows)


def _shelves(sizes: Sequence[Size], tokens: int) -> list[list[int]]:
    """Which prompts share each row of so many tokens: as few rows as may be, patches even among them."""
    count = len(_first_fit(sizes, tokens))
    rows: list[list[int]] = [[] for _ in range(bucket(count, 1))]
    free, patches = [tokens] * len(rows), [0] * len(rows)
    mean = max(1, sum(size.patches for size in sizes) / len(rows))
    # What takes much of a row in either way first.
    for index in sorted(
        range(len(sizes)), key=lambda index: -max(sizes[index].tokens / tokens, sizes[index].patches / mean)
    ):
        room = [row for row in range(len(rows)) if free[row] >= sizes[index].tokens]
        if not room:  # evenly it does not fit
            return _first_fit(sizes, tokens) + [[] for _ in range(len(rows) - count)]
        row = min(room, key=patches.__getitem__)
        rows[row].append(index)
        free[row] -= sizes[index].tokens
        patches[row] += sizes[index].patches
    return rows


def _first_fit(sizes: Sequence[Size], tokens: int) -> list[list[int]]:
    rows: list[list[int]] = []
    free: list[int] = []
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index].tokens):
        row = next((row for row, room in enumerate(free) if room >= sizes[index].tokens), len(rows))
        if row == len(rows):
            rows.append([])
            free.append(tokens)
        rows[row].append(index)
        free[row] -= sizes[index].tokens
    return rows
