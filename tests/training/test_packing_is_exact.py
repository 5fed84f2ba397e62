"""Packed rows compute what their examples compute alone: positions, loss, logits, gradients, hidden states."""

import jax
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.mixture import Component, Mixture
from data_pipeline.packing import Bucket, Plan, as_array
from tests.tiny_models import PHOTOS, assistant, noise, save_tiny, user
from vlm_jax.inference.loading import load
from vlm_jax.models.parameters import build
from vlm_jax.processing.example import Size
from vlm_jax.processing.rows import assemble, stack
from vlm_jax.training.objectives.sft import sft
from vlm_jax.training.step import make_loss

CAPACITY = Size(512, 1536, 32)
ALONE = Size(192, 512, 16)
SHARED = Size(384, 768, 320)


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl"])
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    save_tiny(folder, family=request.param, layers=2, depth=2, global_blocks=(1,))
    return load(folder, dtype="float32")


@pytest.fixture(scope="module")
def examples(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    conversations = [
        [user("What is the cat called?", str(PHOTOS / "chelsea.jpg")), assistant("Chelsea")],
        [user("What does VQA stand for?"), assistant("Visual question answering")],
        [
            user("Which one?", noise(folder, 28 * 5, 28 * 3), noise(folder, 28, 56)),
            assistant("First"),
            user("And?"),
            assistant("No"),
        ],
        [user("Thai?", noise(folder, 28 * 6, 28 * 2)), assistant("เชลซี")],
    ]
    return [model.encode(messages) for messages in conversations]


@pytest.fixture(scope="module")
def row(model):
    return lambda examples, capacity=CAPACITY: stack([assemble(examples, model.processor.row_spec(capacity))])


def test_loss_and_gradients_of_a_packed_row_equal_those_of_its_examples_alone(model, examples, row):
    loss = make_loss(model.config, dtype=np.float32, implementation="chunked", remat="full")

    @jax.jit
    def total(parameters, batch):
        (mean, weight), gradients = jax.value_and_grad(loss, has_aux=True)(parameters, {}, batch)
        return mean * weight, jax.tree.map(lambda g: g * weight, gradients)

    packed, packed_gradients = total(model.parameters, row(examples))
    alone = [total(model.parameters, row([example], ALONE)) for example in examples]
    np.testing.assert_allclose(packed, sum(value for value, _ in alone), rtol=1e-5)
    for path, gradient in packed_gradients.items():
        expected = sum(np.asarray(gradients[path], np.float64) for _, gradients in alone)
        difference = np.linalg.norm(gradient - expected)
        assert difference <= max(1e-5 * np.linalg.norm(expected), 1e-7), path


def test_changing_one_example_changes_nothing_in_its_neighbours(model, examples, row):
    graph, state = nnx.split(build(model.config, model.parameters))
    hidden = jax.jit(lambda batch: nnx.merge(graph, state)(batch))
    before = row(examples)
    after = jax.tree.map(np.copy, before)
    changed = 3  # the example in the middle that holds two images
    tokens = after.segment_ids == changed
    words = tokens & (after.visual_index < 0)
    after.tokens[words] = (after.tokens[words] + 7) % 256
    visual = np.unique(after.visual_index[tokens & ~words])
    patches = (visual[:, None] * 4 + np.arange(4)).ravel()
    after.patches[:, patches] = 255 - after.patches[:, patches]
    first, second = np.asarray(hidden(before)), np.asarray(hidden(after))
    neighbours = (before.segment_ids > 0) & ~tokens
    assert neighbours.sum() > 100
    np.testing.assert_array_equal(first[neighbours], second[neighbours])
    assert np.abs(first[tokens] - second[tokens]).max() > 0.1


def test_hidden_states_do_not_depend_on_the_order_in_a_row(model, examples, row):
    graph, state = nnx.split(build(model.config, model.parameters))
    hidden = jax.jit(lambda batch: nnx.merge(graph, state)(batch))
    forward, backward = row(examples), row(examples[::-1])
    one, other = np.asarray(hidden(forward))[0], np.asarray(hidden(backward))[0]
    for number in range(1, len(examples) + 1):
        mine = one[forward.segment_ids[0] == number]
        same = other[backward.segment_ids[0] == len(examples) + 1 - number]
        np.testing.assert_allclose(mine, same, atol=2e-5)


@pytest.mark.parametrize("broken", ["positions", "segment_ids", "image_ids", "visual_index"])
def test_a_row_that_is_laid_out_wrongly_is_not_what_its_examples_are_alone(model, examples, row, broken):
    """That the tests above can fail: positions of one axis that go on through the row, one segment for all, images that
    see each other, or visual embeddings that another image's tokens take."""
    graph, state = nnx.split(build(model.config, model.parameters))
    hidden = jax.jit(lambda batch: nnx.merge(graph, state)(batch))
    batch = row(examples)
    wrong = jax.tree.map(np.copy, batch)
    shown = wrong.visual_index >= 0
    if broken == "positions":
        wrong.positions[:] = np.arange(wrong.tokens.shape[1])
    elif broken == "segment_ids":
        wrong.segment_ids[wrong.segment_ids > 0] = 1
    elif broken == "image_ids":
        wrong.image_ids[wrong.image_ids > 0] = 1
    else:
        wrong.visual_index[shown] = wrong.visual_index[shown][::-1]
    mine = batch.segment_ids == 3
    first, second = np.asarray(hidden(batch))[mine], np.asarray(hidden(wrong))[mine]
    assert np.abs(first - second).max() > 1e-2


@pytest.fixture(scope="module")
def many(model, tmp_path_factory):
    """Examples of many shapes: no image, one, several; narrow, wide, small; one turn or two."""
    folder = tmp_path_factory.mktemp("many")
    found = []
    for number, (images, words) in enumerate(
        [([], 3), ([], 40), ([(1, 1)], 2), ([(1, 9)], 5), ([(7, 1)], 9), ([(4, 4)], 1), ([(5, 5)], 30), ([(6, 3)], 4)]
        + [([(2, 2), (3, 3)], 6), ([(1, 5), (5, 1), (2, 3)], 2), ([(6, 6)], 12), ([(4, 7)], 3)]
    ):
        shown = [noise(folder, 28 * columns, 28 * rows) for rows, columns in images]
        turns = [user(f"What is number {number}?", *shown), assistant("one two three " * words)]
        found.append(model.encode(turns + ([user("And?"), assistant("No")] if number % 3 == 0 else [])))
    return found


@pytest.fixture(scope="module")
def answers(model):
    """One compiled function for rows of any examples: logits of the supervised positions, and the sum of the loss."""
    graph, state = nnx.split(build(model.config, model.parameters))

    @jax.jit
    def run(batch):
        network = nnx.merge(graph, state)
        hidden = network(batch, at=batch.loss_index)
        return network.logits(hidden), sft(network.logits, hidden, batch)[0]

    return run


@pytest.fixture(scope="module")
def apart(many, answers, row):
    return [jax.device_get(answers(row([example], SHARED))) for example in many]


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 11), min_size=1, max_size=24), st.integers(0, 3))
def test_however_examples_are_packed_each_has_the_logits_loss_and_positions_it_has_alone(
    many, answers, apart, row, chosen, seed
):
    lengths = as_array([many[number].size for number in chosen])
    plan = Plan(
        Mixture([Component("all", len(chosen))], seed=seed).take,
        lambda places: lengths[places[:, 1]],
        [Bucket(1, SHARED)],
        seed=seed,
        examples=len(chosen),
    )
    seen = []
    for batch in range(len(plan)):
        members = [chosen[index] for _, index in plan[batch].rows[0]]
        packed = row([many[number] for number in members], SHARED)
        logits, total = jax.device_get(answers(packed))
        np.testing.assert_allclose(total, sum(apart[number][1] for number in members), rtol=1e-5)
        start = 0
        for place, number in enumerate(members, 1):
            example = many[number]
            mine = packed.segment_ids[0] == place
            np.testing.assert_array_equal(packed.positions[0][:, mine], example.positions)
            count = example.size.supervised
            here = packed.loss_weights[0, start : start + count]
            assert (here == 1).all()
            np.testing.assert_allclose(logits[0, start : start + count], apart[number][0][0, :count], atol=2e-5)
            start += count
        assert packed.loss_weights.sum() == start  # nothing else is learnt from
        seen += members
    assert sorted(seen) == sorted(chosen)
