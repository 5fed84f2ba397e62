"""FLOPs of a step: the formula against the products that the compiler is handed, and the lengths against a loop."""

import dataclasses
import time

import jax
import numpy as np
import pytest
from flax import nnx

from vlm_jax.adapters.lora import Lora, is_adapter
from vlm_jax.models.parameters import abstract_model, abstract_parameters, replace
from vlm_jax.models.presets import PRESETS
from vlm_jax.processing.example import Example, PatchedImage, Size, TokensAbove
from vlm_jax.processing.positions import mrope_positions
from vlm_jax.processing.rows import RowSpec, assemble, stack
from vlm_jax.processing.vision_layout import vision_layout
from vlm_jax.training.flops import Work, step_flops, work_of

IMAGE = 7
TIED = dataclasses.replace(PRESETS["tiny"], image_token=IMAGE)
UNTIED = dataclasses.replace(TIED, decoder=dataclasses.replace(TIED.decoder, tied=False))
ADAPTERS = (Lora(4, 8.0).attach,)
CHOICES = {
    "full, tied": (TIED, (), lambda path: True),
    "full, untied": (UNTIED, (), lambda path: True),
    "frozen tower": (TIED, (), lambda path: not path.startswith("vision")),
    "connector alone": (TIED, (), lambda path: path.startswith("connector")),
    "adapters": (UNTIED, ADAPTERS, is_adapter),
    "the head alone": (UNTIED, (), lambda path: path == "head"),
}


def example(words: int, grids, supervised: int) -> Example:
    """So many words around images of so many visual tokens."""
    ids = np.full(words + sum(rows * columns for rows, columns in grids), 1, np.int32)
    ids[1 : 1 + len(ids) - words] = IMAGE
    images = tuple(
        PatchedImage(np.zeros((rows * columns, 4, 588), np.uint8), (rows, columns), vision_layout(rows, columns, 4, 2))
        for rows, columns in grids
    )
    output = (np.arange(len(ids)) >= len(ids) - supervised).astype(np.float32)
    return Example(ids, mrope_positions(ids, list(grids), IMAGE), output, images, IMAGE)


def products(jaxpr, times: int = 1) -> float:
    """FLOPs of every dot_general of a program."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2.0 * equation.outvars[0].aval.size * np.prod([shape[axis] for axis in contracted]) * times
        inside = times * (equation.params["length"] if equation.primitive.name == "scan" else 1)
        for value in jax.tree.leaves(equation.params, is_leaf=lambda leaf: hasattr(leaf, "jaxpr")):
            if hasattr(value, "jaxpr") or hasattr(value, "eqns"):
                total += products(getattr(value, "jaxpr", value), inside)
    return total


@pytest.mark.parametrize("name", CHOICES)
def test_the_formula_counts_the_products_of_forward_and_backward(name):
    config, attach, trains = CHOICES[name]
    one = example(43, [(8, 4)], 12)  # whole windows, so that no slot is empty
    batch = stack([assemble([one], RowSpec(one.size, 588, 4))])
    stored = abstract_parameters(config, attach=attach)
    trainable = {path: leaf for path, leaf in stored.items() if trains(path)}
    graph, state = nnx.split(abstract_model(config, attach=attach))

    def loss(trainable, frozen, batch):
        model = nnx.merge(graph, replace(state, {**trainable, **frozen}))
        logits = model.logits(model(batch, implementation="reference", at=batch.loss_index))
        return jax.nn.logsumexp(logits, axis=-1).sum()

    frozen = {path: leaf for path, leaf in stored.items() if path not in trainable}
    program = jax.make_jaxpr(jax.grad(loss))(trainable, frozen, batch)
    flops = step_flops(config, set(trainable), attach)
    parts = flops.parts(work_of(batch, flops.block_slots))
    expected = sum(parts.values()) + parts["decoder attention"]  # the program computes the causal half that is hidden
    assert products(program.jaxpr) == pytest.approx(expected, rel=1e-9)


def test_lengths_of_a_packed_batch_are_those_of_its_examples():
    rows = [[example(9, [(5, 3)], 4), example(20, [(1, 2), (6, 6)], 7)], [example(30, [], 3)], []]
    capacity = Size(160, 512, 32)
    batch = stack([assemble(row, RowSpec(capacity, 588, 4)) for row in rows])
    work = work_of(batch, 64)
    assert sorted(work.tokens) == sorted([9 + 15, 20 + 2 + 36, 30])
    assert sorted(work.images) == sorted([60, 8, 144])
    # windows of 4 × 4 units: 5 × 3 gives 4 × 3 and 1 × 3; 6 × 6 gives 4 × 4, 4 × 2 twice and 2 × 2
    assert sorted(work.windows) == sorted([48, 12, 8, 64, 32, 32, 16])
    assert work.supervised == 14
    flops = step_flops(TIED, set(abstract_parameters(TIED)))
    alone = [work_of(stack([assemble([one], RowSpec(capacity, 588, 4))]), 64) for one in sum(rows, [])]
    assert flops.of_batch(batch) == pytest.approx(sum(map(flops.of, alone)))


def test_what_is_left_out_within_the_decoder_counts_in_the_layers_that_see_it():
    def cut(one, *keep):
        keep = np.array(keep, np.int64).reshape(-1, 1)
        return dataclasses.replace(one, above=TokensAbove(keep, np.zeros(len(keep), np.int64)))

    rows = [[cut(example(9, [(5, 3)], 4), 4), cut(example(20, [(1, 2), (6, 6)], 7), 2, 9)], [cut(example(30, [], 3))]]
    spec = RowSpec(Size(160, 512, 32, (64,)), 588, 4, "fastv", layer=1)
    batch = stack([assemble(row, spec) for row in rows])
    flops = step_flops(TIED, set(abstract_parameters(TIED)))
    work = work_of(batch, 64, flops.layers)
    assert work.shares == pytest.approx((1 / flops.layers, 1 - 1 / flops.layers))
    assert sorted(work.above[0]) == sorted([9 + 4, 20 + 2 + 9, 30])
    mean = sum(share * tokens.sum() for share, tokens in zip(work.shares, (work.tokens, *work.above), strict=True))
    assert flops.parts(work)["decoder"] == pytest.approx(flops.token * mean)


def test_six_a_token_where_it_trains_and_four_under_adapters():
    model = PRESETS["3b"]
    stored = abstract_parameters(model)
    decoder = sum(leaf.size for path, leaf in stored.items() if path.startswith("decoder") and path.endswith("kernel"))
    vision = sum(
        leaf.size for path, leaf in stored.items() if path.startswith("vision/blocks") and path.endswith("kernel")
    )
    assert step_flops(model, set(stored)).token == 6 * decoder
    lora = (Lora(16, 32.0).attach,)
    paths = abstract_parameters(model, attach=lora)
    adapters = {path: leaf.size for path, leaf in paths.items() if is_adapter(path)}
    under = step_flops(model, set(adapters), lora)
    assert under.token == 4 * decoder + 6 * sum(adapters.values())
    assert 2 * vision < under.patch < 2.2 * vision  # with the connector, forwards alone
    none = Work(np.zeros(0, int), np.zeros(0, int), np.zeros(0, int), 5)
    assert under.of(none) == 5 * 4 * model.decoder.hidden * model.decoder.vocab


def test_counting_a_row_is_cheap():
    rows = [[example(230, [(9, 15)], 60) for _ in range(5)]]
    batch = stack([assemble(row, RowSpec(Size(2048, 5120, 512), 588, 4)) for row in rows])
    flops = step_flops(TIED, set(abstract_parameters(TIED)))
    flops.of_batch(batch)
    taken = []
    for _ in range(20):
        begun = time.perf_counter()
        flops.of_batch(batch)
        taken.append(time.perf_counter() - begun)
    assert min(taken) < 1e-3
