"""Pooling against plain NumPy: blocks of the grid, their means, and where these stand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vlm_jax
from tests.tiny_models import assistant, noise, save_tiny, user
from vlm_jax.errors import InputError
from vlm_jax.models.parameters import build
from vlm_jax.models.token_reduction.candidates import Candidates
from vlm_jax.models.token_reduction.learned import Shuffle, initial
from vlm_jax.models.token_reduction.methods import METHODS
from vlm_jax.processing.example import Size
from vlm_jax.processing.pooling import blocks, pooled_grid
from vlm_jax.processing.rows import assemble, stack
from vlm_jax.processing.token_budget import TokenBudget
from vlm_jax.processing.vision_layout import vision_layout

GRIDS = [(1, 1), (1, 7), (5, 3), (6, 4), (9, 8), (8, 8)]


@pytest.mark.parametrize("grid", GRIDS)
def test_blocks_are_rectangles_of_about_equal_size_that_cover_the_grid(grid):
    rows, columns = grid
    for keep in range(1, rows * columns + 1):
        down, across = pooled_grid(rows, columns, keep)
        assert down <= rows and across <= columns and keep / 2 < down * across <= keep
        found = blocks(vision_layout(rows, columns, 4, 2), keep)
        block, centre, quadrant = found.number, found.centre, found.quadrant.reshape(grid)
        assert sorted(np.unique(block)) == list(range(1, down * across + 1))
        assert centre.sum() == down * across
        block, centre = block.reshape(grid), centre.reshape(grid)
        for number in range(1, down * across + 1):
            row, column = np.nonzero(block == number)
            sides = np.ptp(row) + 1, np.ptp(column) + 1
            assert sides[0] * sides[1] == len(row)
            assert sides[0] in (rows // down, -(-rows // down)) and sides[1] in (
                columns // across,
                -(-columns // across),
            )
            ((top, left),) = np.argwhere(centre & (block == number))
            assert (top, left) == ((row.min() + row.max()) // 2, (column.min() + column.max()) // 2)
            lower, right = row > (row.min() + row.max()) // 2, column > (column.min() + column.max()) // 2
            np.testing.assert_array_equal(quadrant[row, column], 2 * lower + right)
    assert (block.ravel() == np.arange(1, rows * columns + 1)).all(), "all of all are blocks of their own"


def test_a_quarter_of_an_even_grid_are_blocks_of_two_by_two():
    found = blocks(vision_layout(6, 8, 4, 2), 12)
    block, centre = found.number, found.centre
    np.testing.assert_array_equal(found.quadrant.reshape(6, 8)[2:4, 4:6], [[0, 1], [2, 3]])
    expected = 1 + np.arange(6)[:, None] // 2 * 4 + np.arange(8)[None] // 2
    np.testing.assert_array_equal(block.reshape(6, 8), expected)
    assert np.argwhere(centre.reshape(6, 8)).tolist() == [[row, column] for row in (0, 2, 4) for column in (0, 2, 4, 6)]


def with_kernel(kernel):
    shuffle = Shuffle(kernel.shape[-1], jnp.float32)
    shuffle.kernel[...] = kernel
    return shuffle


def test_a_block_becomes_its_mean_or_its_projection_and_nothing_else_enters():
    random = np.random.default_rng(0)
    visual = random.normal(size=(40, 8)).astype(np.float32)
    found = blocks(vision_layout(5, 7, 4, 2), 9)
    block, centre = found.number, found.centre
    image = np.pad(block, (0, 5))  # padding behind
    keep = np.pad(centre.astype(np.int32), (0, 5))
    candidates = Candidates(jnp.asarray(image), jnp.asarray(keep), jnp.int32(1))
    merged = np.asarray(jax.jit(METHODS["pool"].merge)(candidates, jnp.asarray(visual)))
    stay = np.asarray(METHODS["pool"].choose(candidates))
    np.testing.assert_array_equal(stay, np.pad(centre, (0, 5)))
    shuffle = jax.jit(lambda kernel, candidates, visual: with_kernel(kernel)(candidates, visual, 16))
    quadrant = jnp.asarray(np.pad(found.quadrant, (0, 5)))
    candidates = dataclasses.replace(candidates, quadrant=quadrant)
    begun = np.asarray(shuffle(initial("reducer/kernel", (4, 8, 8)), candidates, jnp.asarray(visual)))
    kernel = random.normal(size=(4, 8, 8)).astype(np.float32)
    projected = np.asarray(shuffle(jnp.asarray(kernel), candidates, jnp.asarray(visual)))
    for number in np.unique(block):
        quarters = []
        for quarter in range(4):
            mine = visual[(image == number) & (np.asarray(quadrant) == quarter)].astype(np.float64)
            quarters.append(mine.mean(axis=0) if len(mine) else visual[image == number].mean(axis=0))
        expected = sum(quarter @ matrix for quarter, matrix in zip(quarters, kernel, strict=True))
        if (image == number).sum() > 1:
            np.testing.assert_allclose(projected[image == number][0], expected, atol=1e-4)
            np.testing.assert_allclose(begun[image == number][0], np.mean(quarters, axis=0), atol=1e-5)
        else:
            np.testing.assert_array_equal(projected[image == number], visual[image == number])
        expected = visual[image == number].astype(np.float64).mean(axis=0)
        np.testing.assert_allclose(merged[image == number], np.tile(expected, ((image == number).sum(), 1)), rtol=1e-5)
        if (image == number).sum() == 1:
            np.testing.assert_array_equal(merged[image == number], visual[image == number])


@pytest.mark.parametrize(("family", "side"), [("qwen2_5_vl", 28), ("qwen3_vl", 32)])
def test_in_a_model_the_decoder_is_given_the_means_at_the_places_of_the_centres(tmp_path, family, side):
    save_tiny(tmp_path / "model", family=family, layers=1, depth=2, global_blocks=(1,), max_visual_tokens=48)
    model = vlm_jax.load(tmp_path / "model", dtype="float32")
    conversation = [user("Which?", noise(tmp_path, side * 6, side * 4)), assistant("This")]
    full, own = model.processor, model.processor.with_reduction(TokenBudget(0.25, "pool"))
    net, capacity = build(model.config, model.parameters), Size(96, 384, 8)

    def embedded(processor):
        example = processor.encode(conversation)
        batch = stack([assemble([example], processor.row_spec(capacity))])
        x, positions, deep = jax.jit(lambda batch: net.embed(batch))(batch)
        visual = example.input_ids == example.image_token
        count = len(example.input_ids)
        # Features that go behind the first layers are made one as those in front of them are.
        found = [x] if deep is None else [x, *deep]
        found = [np.asarray(one)[0, :count][visual] for one in found]
        return np.stack(found, axis=1), np.asarray(positions)[0, :, :count][:, visual]

    (whole, positions), (pooled, kept) = embedded(full), embedded(own)
    assert whole.shape[0] == 24 and pooled.shape[0] == 6 and whole.shape[1] == (2 if family == "qwen3_vl" else 1)
    expected = whole.reshape(2, 2, 3, 2, *whole.shape[1:]).mean(axis=(1, 3)).reshape(pooled.shape)
    np.testing.assert_allclose(pooled, expected, atol=1e-5)
    np.testing.assert_array_equal(kept, positions.reshape(3, 4, 6)[:, ::2, ::2].reshape(3, 6))


def test_as_a_plain_function_it_says_that_it_chooses_nothing():
    with pytest.raises(InputError, match="pool makes blocks of neighbouring tokens one each, and chooses none"):
        vlm_jax.keep_tokens("pool", np.zeros((4, 2), np.float32), 1)
