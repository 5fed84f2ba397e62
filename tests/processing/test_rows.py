"""Rows hold exactly what their examples hold: every array against a plain, slow account of it."""

import random

import numpy as np
import pytest

from vlm_jax.processing.example import Example, PatchedImage, Size
from vlm_jax.processing.positions import mrope_positions
from vlm_jax.processing.rows import RowSpec, assemble, stack
from vlm_jax.processing.vision_layout import vision_layout

ROW_ARRAYS = (
    "tokens",
    "segment_ids",
    "positions",
    "visual_index",
    "loss_index",
    "loss_targets",
    "loss_weights",
    "patches",
    "patch_coords",
    "image_ids",
    "window_ids",
)

IMAGE, VALUES = 9, 6


def image(chance: random.Random, rows: int, columns: int, merge: int) -> PatchedImage:
    patches = np.random.default_rng(chance.randrange(10**6)).integers(
        0, 256, (rows * columns, merge**2, VALUES), np.uint8
    )
    return PatchedImage(patches, (rows, columns), vision_layout(rows, columns, 4, merge))


def example(chance: random.Random, grids: list[tuple[int, int]], merge: int = 2) -> Example:
    ids: list[int] = []
    for rows, columns in grids:
        ids += [chance.randint(10, 99) for _ in range(chance.randint(0, 4))]
        ids += [IMAGE] * (rows * columns)
    ids += [chance.randint(10, 99) for _ in range(chance.randint(1, 12))]
    tokens = np.asarray(ids, np.int32)
    weights = np.asarray([token != IMAGE and chance.choice([0, 0, 0.25, 1, 1, 3]) for token in ids], np.float32)
    images = tuple(image(chance, *grid, merge) for grid in grids)
    return Example(tokens, mrope_positions(tokens, grids, IMAGE), weights, images, IMAGE)


def account(examples: list[Example], capacity: Size, merge: int) -> dict[str, list]:
    """The row, one number at a time."""
    T, P, S = capacity.tokens, capacity.patches, capacity.supervised
    row = {
        "tokens": [0] * T,
        "segment_ids": [0] * T,
        "positions": [[0] * T for _ in range(3)],
        "visual_index": [-1] * T,
        "loss_index": [0] * S,
        "loss_targets": [0] * S,
        "loss_weights": [0.0] * S,
        "patches": [[0] * VALUES for _ in range(P)],
        "patch_coords": [[0, 0] for _ in range(P)],
        "image_ids": [0] * P,
        "window_ids": [0] * P,
    }
    at, targets, slot, image = 0, 0, 0, 0
    for segment, each in enumerate(examples, start=1):
        visual_slots = []  # of each visual token of this example, in order
        for shown in each.images:
            image += 1
            slots = {}
            for token, window in zip(
                shown.layout.token_of_slot.tolist(), shown.layout.window_ids.tolist(), strict=True
            ):
                if token >= 0:
                    slots[token] = slot
                    for inner in range(merge**2):
                        place = slot * merge**2 + inner
                        row["patches"][place] = shown.patches[token, inner].tolist()
                        row["patch_coords"][place] = [
                            token // shown.grid[1] * merge + inner // merge,
                            token % shown.grid[1] * merge + inner % merge,
                        ]
                        row["image_ids"][place] = image
                        row["window_ids"][place] = window
                slot += 1
            visual_slots += [slots[token] for token in range(shown.grid[0] * shown.grid[1])]
        for index, token in enumerate(each.input_ids.tolist()):
            row["tokens"][at + index] = token
            row["segment_ids"][at + index] = segment
            for axis in range(3):
                row["positions"][axis][at + index] = int(each.positions[axis, index])
            if token == IMAGE:
                row["visual_index"][at + index] = visual_slots.pop(0)
            if index and each.supervised[index]:
                row["loss_index"][targets] = at + index - 1
                row["loss_targets"][targets] = token
                row["loss_weights"][targets] = float(each.weights[index])
                targets += 1
        assert not visual_slots
        at += len(each.input_ids)
    return row


def total(examples: list[Example]) -> Size:
    return sum((each.size for each in examples), Size(0, 0, 0))


def check(examples: list[Example], capacity: Size, merge: int = 2) -> None:
    row = assemble(examples, RowSpec(capacity, VALUES, merge**2))
    expected = account(examples, capacity, merge)
    assert tuple(name for name, _ in row.items()) == ROW_ARRAYS
    for name, values in expected.items():
        values = np.asarray(values)
        if name in ("patches", "patch_coords"):  # of no patches at all, a list does not say how long each would be
            values = values.reshape(capacity.patches, VALUES if name == "patches" else 2)
        assert getattr(row, name).shape == values.shape, name
        assert np.array_equal(getattr(row, name), values), name
    for name, array in row.items():
        expected_dtype = {"patches": np.uint8, "loss_weights": np.float32}.get(name, np.int32)
        assert array.dtype == expected_dtype, name


@pytest.mark.parametrize("merge", [1, 2, 3])
def test_random_rows_hold_what_their_examples_hold(merge):
    chance = random.Random(merge)
    for _ in range(40):
        examples = [
            example(
                chance,
                [(chance.randint(1, 7), chance.randint(1, 7)) for _ in range(chance.choice([0, 1, 1, 2, 3]))],
                merge,
            )
            for _ in range(chance.randint(0, 5))
        ]
        spare = Size(chance.choice([0, 7]), chance.choice([0, 16]) * merge**2, chance.choice([0, 5]))
        check(examples, total(examples) + spare, merge)


def test_a_row_of_text_alone_has_only_padding_for_images():
    chance = random.Random(0)
    row = assemble([example(chance, [])], RowSpec(Size(32, 64, 16), VALUES, 4))
    assert not row.image_ids.any() and not row.window_ids.any() and not row.patches.any()
    assert (row.visual_index == -1).all()


def test_an_empty_row_is_all_padding():
    row = assemble([], RowSpec(Size(4, 64, 3), VALUES, 4))
    for name, array in row.items():
        assert (array == (-1 if name == "visual_index" else 0)).all(), name


def test_the_first_token_of_an_example_is_never_predicted_from_its_neighbour():
    tokens = np.asarray([11, 12], np.int32)
    every = Example(tokens, mrope_positions(tokens, [], IMAGE), np.ones(2, np.float32), (), IMAGE)
    row = assemble([every, every], RowSpec(Size(6, 0, 5), VALUES, 4))
    assert row.loss_index.tolist() == [0, 2, 0, 0, 0]
    assert row.loss_targets.tolist() == [12, 12, 0, 0, 0]
    assert row.loss_weights.tolist() == [1, 1, 0, 0, 0]


def test_the_size_of_an_example_counts_padding_of_windows():
    shown = example(random.Random(0), [(5, 5)])
    assert shown.size == Size(len(shown.input_ids), 2 * 16 * 4, int(shown.supervised.sum()))
    assert total([shown, shown]) == Size(
        *(2 * n for n in (shown.size.tokens, shown.size.patches, shown.size.supervised))
    )


@pytest.mark.parametrize("short", [Size(1, 0, 0), Size(0, 64, 0), Size(0, 0, 1)])
def test_examples_that_do_not_fit_are_refused_with_both_sizes(short):
    chance = random.Random(3)
    examples = [example(chance, [(3, 4)]), example(chance, [(2, 2)]), example(chance, [])]
    size = total(examples)
    assert size.supervised
    capacity = Size(size.tokens - short.tokens, size.patches - short.patches, size.supervised - short.supervised)
    assert size.fits(size) and not size.fits(capacity)
    check(examples, size)
    with pytest.raises(ValueError) as caught:
        assemble(examples, RowSpec(capacity, VALUES, 4))
    assert str(caught.value) == f"examples of {size} do not fit a row of {capacity}"


def test_rows_of_one_shape_become_a_batch():
    chance = random.Random(0)
    rows = [
        assemble([example(chance, grids)], RowSpec(Size(64, 128, 32), VALUES, 4)) for grids in ([(2, 3)], [], [(5, 5)])
    ]
    batch = stack(rows)
    assert tuple(name for name, _ in batch.items()) == ROW_ARRAYS
    for name, array in batch.items():
        assert array.shape == (3, *getattr(rows[0], name).shape)
        assert all(np.array_equal(array[index], getattr(row, name)) for index, row in enumerate(rows))
