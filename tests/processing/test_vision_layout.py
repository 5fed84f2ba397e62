"""The tower's windows and coordinates are transformers'; their layout in blocks loses nothing and wastes little."""

import functools
import random
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import torch
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from vlm_jax.processing.images import smart_resize
from vlm_jax.processing.vision_layout import vision_layout

PHOTOS = Path(__file__).parents[1] / "data" / "photos"
PATCH, MERGE, WINDOW = 14, 2, 112
WINDOW_UNITS = WINDOW // PATCH // MERGE


@functools.cache
def grids() -> list[tuple[int, int, int, int]]:
    """(rows, columns, window_side, merge_size), the published window most often."""
    chance = random.Random(0)
    edges = [(rows, columns, 4, 2) for rows in range(1, 10) for columns in range(1, 10)]
    drawn = [
        (
            chance.randint(1, 40),
            chance.randint(1, 40),
            chance.choice([4, 4, 4, 1, 2, 3, 8]),
            chance.choice([2, 2, 1, 3]),
        )
        for _ in range(1000)
    ]
    return [*edges, (1, 200, 4, 2), (200, 1, 4, 2), *drawn]


def grid_thw(rows: int, columns: int, merge: int) -> torch.Tensor:
    return torch.tensor([[1, rows * merge, columns * merge]])


def test_every_unit_has_exactly_one_slot():
    for rows, columns, window, merge in grids():
        layout = vision_layout(rows, columns, window, merge)
        filled = layout.token_of_slot >= 0
        assert sorted(layout.token_of_slot[filled]) == list(range(rows * columns))
        assert set(layout.token_of_slot[~filled]) <= {-1}
        assert np.array_equal(layout.token_of_slot[layout.slot_of_token], np.arange(rows * columns))


def test_units_share_a_window_exactly_as_in_transformers():
    for rows, columns, window, merge in grids():
        layout = vision_layout(rows, columns, window, merge)
        order, ends = get_vision_window_index(grid_thw(rows, columns, merge), merge, window * merge * PATCH, PATCH)
        ends = ends // merge**2
        expected = {frozenset(order[a:b].tolist()) for a, b in zip(ends[:-1], ends[1:], strict=True)}
        windows: dict[tuple[int, int], set[int]] = {}
        for slot, token in enumerate(layout.token_of_slot.tolist()):
            if token >= 0:
                windows.setdefault((slot // window**2, int(layout.window_ids[slot])), set()).add(token)
        assert {frozenset(members) for members in windows.values()} == expected, (rows, columns, window)
        assert len(windows) == len(expected)


def test_blocks_are_whole_and_padding_belongs_to_no_window():
    for rows, columns, window, merge in grids():
        layout = vision_layout(rows, columns, window, merge)
        assert len(layout.token_of_slot) % window**2 == 0
        assert np.array_equal(layout.window_ids == 0, layout.token_of_slot < 0)
        for ids in layout.window_ids.reshape(-1, window**2):
            assert ids.any(), "a block without a single token"
            present = sorted(set(ids.tolist()) - {0})
            assert present == list(range(1, len(present) + 1))
            # A window lies in one piece, so that an attention block is read from front to back.
            for number in present:
                places = np.flatnonzero(ids == number)
                assert places[-1] - places[0] + 1 == len(places)


def test_coordinates_equal_those_of_transformers():
    for rows, columns, window, merge in grids():
        layout = vision_layout(rows, columns, window, merge)
        expected = get_vision_position_ids(grid_thw(rows, columns, merge), merge).numpy()
        by_unit = layout.coords[layout.slot_of_token].reshape(-1, 2)
        assert np.array_equal(by_unit, expected), (rows, columns)
        assert not layout.coords[layout.token_of_slot < 0].any()


def test_photographs_waste_less_than_six_per_cent_of_the_slots():
    waste = {}
    for path in sorted(PHOTOS.iterdir()):
        if path.suffix in (".jpg", ".png"):
            width, height = PIL.ImageOps.exif_transpose(PIL.Image.open(path)).size
            factor = PATCH * MERGE
            tall, wide = smart_resize(height, width, factor, 4 * factor**2, 256 * factor**2)
            rows, columns = tall // factor, wide // factor
            waste[path.name, rows, columns] = (
                rows * columns,
                len(vision_layout(rows, columns, 4, MERGE).token_of_slot),
            )
    assert len(waste) == 11
    tokens, slots = np.sum(list(waste.values()), axis=0)
    each = {name: f"{1 - tokens / slots:.1%}" for name, (tokens, slots) in waste.items()}
    assert 1 - tokens / slots < 0.06, (
        f"{1 - tokens / slots:.1%} of the slots of the 11 photographs at 256 tokens: {each}"
    )


@pytest.mark.parametrize(("grid", "blocks"), [((4, 4), 1), ((1, 1), 1), ((5, 5), 2), ((4, 5), 2), ((8, 8), 4)])
def test_partial_windows_share_blocks(grid, blocks):
    # 5 × 5 is one full window and edges of 4, 4 and 1 tokens, which fit one block together.
    assert len(vision_layout(*grid, 4, 2).token_of_slot) == blocks * 16


def test_a_layout_depends_on_nothing_but_the_grid():
    for supplied in grids()[::50]:
        first = vision_layout(*supplied)
        vision_layout.cache_clear()
        again = vision_layout(*supplied)
        assert again is not first
        for name in ("token_of_slot", "window_ids", "slot_of_token", "coords"):
            assert np.array_equal(getattr(first, name), getattr(again, name))


def test_a_shared_layout_cannot_be_written_to():
    layout = vision_layout(5, 7, WINDOW_UNITS, MERGE)
    for array in (layout.token_of_slot, layout.window_ids, layout.slot_of_token, layout.coords):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
