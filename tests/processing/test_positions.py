"""M-RoPE positions equal those that transformers gives the same conversation."""

import random
import types

import numpy as np
import pytest
import torch
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel

from vlm_jax.processing.positions import mrope_positions

START, END, IMAGE = 10, 11, 12
MERGE = 2


def reference(tokens: np.ndarray, grids: list[tuple[int, int]]) -> tuple[np.ndarray, int]:
    """transformers' positions [3, n], and the position of the token after the last one."""
    vision = types.SimpleNamespace(spatial_merge_size=MERGE, tokens_per_second=2)
    model = types.SimpleNamespace(config=types.SimpleNamespace(vision_config=vision))
    model.get_vision_position_ids = types.MethodType(Qwen2_5_VLModel.get_vision_position_ids, model)
    ids = torch.from_numpy(tokens.astype(np.int64))[None]
    positions, deltas = Qwen2_5_VLModel.get_rope_index(
        model,
        ids,
        mm_token_type_ids=(ids == IMAGE).int(),
        image_grid_thw=torch.tensor([[1, h * MERGE, w * MERGE] for h, w in grids]) if grids else None,
        attention_mask=torch.ones_like(ids),
    )
    return positions[:, 0].numpy(), int(deltas[0, 0]) + len(tokens)


def conversation(pieces: list[int | tuple[int, int]]) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Tokens of texts of so many tokens and images of such grids, images between their two marks."""
    tokens, grids = [], []
    for piece in pieces:
        if isinstance(piece, int):
            tokens += range(100, 100 + piece)
        else:
            tokens += [START, *[IMAGE] * (piece[0] * piece[1]), END]
            grids.append(piece)
    return np.asarray(tokens, np.int32), grids


def test_positions_equal_those_of_transformers_in_random_conversations():
    chance = random.Random(0)
    images = 0
    for _ in range(300):
        pieces: list[int | tuple[int, int]] = [chance.randint(0, 9)]  # no text: images first, last and side by side
        for _ in range(chance.randint(0, 4)):
            pieces += [(chance.randint(1, 12), chance.randint(1, 12)), chance.choice([0, 0, 1, chance.randint(2, 30)])]
        tokens, grids = conversation(pieces)
        if not len(tokens):
            continue
        images += len(grids)
        expected, following = reference(tokens, grids)
        positions = mrope_positions(tokens, grids, IMAGE)
        assert positions.dtype == np.int32
        assert np.array_equal(positions, expected), pieces
        # Decoding goes on where the largest position ends, not where the count of tokens does.
        assert positions.max() + 1 == following
    assert images > 400


def test_positions_of_a_thousand_random_grids_equal_those_of_transformers():
    chance = random.Random(1)
    for _ in range(1000):
        grid = (chance.randint(1, 60), chance.randint(1, 60))
        tokens, grids = conversation([chance.randint(1, 20), grid, chance.randint(1, 20)])
        expected, _ = reference(tokens, grids)
        assert np.array_equal(mrope_positions(tokens, grids, IMAGE), expected), grid


@pytest.mark.parametrize("grid", [(1, 1), (1, 40), (40, 1), (3, 5), (5, 3), (16, 16)])
def test_visual_tokens_at_the_very_start_or_end_need_no_marks_around_them(grid):
    image = [IMAGE] * (grid[0] * grid[1])
    for tokens in ([7, *image], [*image, 7], image, [7, *image, 7, 7]):
        tokens = np.asarray(tokens, np.int32)
        expected, following = reference(tokens, [grid])
        positions = mrope_positions(tokens, [grid], IMAGE)
        assert np.array_equal(positions, expected)
        assert positions.max() + 1 == following


def test_positions_by_hand():
    tokens, grids = conversation([1, (2, 3), (1, 1), 2])
    assert mrope_positions(tokens, grids, IMAGE).tolist() == [
        # text  <  an image of 2 × 3    >  <  one token >  text
        [0, 1, 2, 2, 2, 2, 2, 2, 5, 6, 7, 8, 9, 10],
        [0, 1, 2, 2, 2, 3, 3, 3, 5, 6, 7, 8, 9, 10],
        [0, 1, 2, 3, 4, 2, 3, 4, 5, 6, 7, 8, 9, 10],
    ]


def test_text_alone_counts_on():
    positions = mrope_positions(np.arange(50, dtype=np.int32) + 100, [], IMAGE)
    assert np.array_equal(positions, np.broadcast_to(np.arange(50), (3, 50)))


def test_two_images_of_different_shape_and_equal_size_differ():
    wide, _ = conversation([2, (2, 6), 3])
    assert not np.array_equal(mrope_positions(wide, [(2, 6)], IMAGE), mrope_positions(wide, [(3, 4)], IMAGE))
