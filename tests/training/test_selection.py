"""Adapters, quantised bases and accumulation in the step: what moves, what does not, and equal gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vlm_jax.training.trainer
from tests.training.tiny_run import CAPACITY, PROPORTIONAL, ROWS, compiled, make_trainer, run, same_moves
from vlm_jax.adapters import quantised
from vlm_jax.checkpoint.model_source import open_model
from vlm_jax.models.parameters import nest
from vlm_jax.parallel import mesh as meshes
from vlm_jax.processing.example import Size
from vlm_jax.processing.rows import RowSpec

FAMILY = "qwen3_vl"
ADAPTERS = {"lora__rank": 4, "model__quantise": "nf4", "lora__targets": "attention+mlp+connector", **PROPORTIONAL}
"""Of most tests here: a step is compiled once for all of them."""


def test_adapters_learn_while_the_base_stays_bit_for_bit(base, batch):
    _, told, trainable, optimizer_state, (before, after), _ = run(
        base, batch, 6, lora__rank=4, lora__targets="attention+mlp+vision+connector", model__quantise="nf4"
    )
    assert told[-1] < 0.5 * told[0]
    assert all(path.endswith(("/adapter/a", "/adapter/b")) for path in trainable)
    stored = {
        path
        for leaf, _ in jax.tree_util.tree_leaves_with_path(optimizer_state)
        for path in [key.key for key in leaf if hasattr(key, "key")]
    }
    assert stored <= set(trainable) and any(path.endswith("/adapter/a") for path in stored)
    assert before.keys() == after.keys()
    for path in before:
        np.testing.assert_array_equal(before[path], after[path], err_msg=path)
    packed = {path for path in before if path.endswith("/nibbles")}
    assert packed and all(before[path].dtype == "uint8" for path in packed)
    assert nest(before)  # paths of a packed kernel and of others do not collide


def test_accumulating_equals_one_large_batch(base, batch):
    _, whole, *_, one = run(base, batch, 3, **PROPORTIONAL)
    _, parts, *_, four = run(base, batch, 3, batch__gradient_accumulation=4, **PROPORTIONAL)
    np.testing.assert_allclose(parts, whole, rtol=1e-5)
    same_moves(four, one)


def test_the_loss_is_the_weighted_mean_over_the_whole_batch_however_small_the_weights(base, batch):
    """In plain NumPy from what each row loses alone; in one go, and in four parts."""
    rows = np.arange(ROWS)[:, None]
    supervised = batch.loss_weights

    def told(weights, **more):
        weighted = dataclasses.replace(batch, loss_weights=weights.astype(np.float32))
        _, (loss,), *_, moved = run(base, weighted, 1, **PROPORTIONAL, **more)
        return loss, moved

    given = np.array([1, 0, 0.25, 0, 0, 0, 0, 3])
    alone = {row: told(np.where(rows == row, supervised, 0))[0] for row in np.flatnonzero(given)}
    weights = given * supervised.sum(axis=1)
    expected = sum(weights[row] * alone[row] for row in alone) / weights.sum()
    assert abs(expected - np.mean(list(alone.values()))) > 1e-3
    each = given[:, None] * supervised
    loss, moved = told(each)
    small, same = told(each / 1024)
    assert (each / 1024).sum() < 1
    parts, _ = told(each, batch__gradient_accumulation=4)
    few, _ = told(each / 1024, batch__gradient_accumulation=4)
    np.testing.assert_allclose([loss, small, parts, few], expected, rtol=1e-5)
    same_moves(same, moved)


def test_dropout_is_drawn_anew_for_each_step_and_the_same_for_a_seed(base, batch):
    """Before its first step an adapter adds nothing, whatever is dropped; its first gradient shows the mask."""
    settings = {"lora__rank": 4, "lora__dropout": 0.5, "lora__targets": "attention"}
    _, told, *_ = run(base, batch, 2, **settings)
    _, again, *_ = run(base, batch, 2, **settings)
    assert told == again
    trainer, step = compiled(base, 1, (-1, 1, 1), tuple(sorted(settings.items())))
    norms = []
    for number in (0, 1):
        trainable, optimizer_state, frozen = trainer.start(open_model(str(base)).read(place=trainer.place))
        placed = meshes.to_devices(batch, trainer.mesh)
        norms.append(float(step(trainable, optimizer_state, frozen, placed, np.int32(number))[2]["gradient_norm"]))
    assert abs(norms[0] - norms[1]) > 3e-5 * norms[0]


def test_adapters_on_eight_devices_learn_what_they_learn_on_one(base, batch):
    _, one, *_, single = run(base, batch, 3, **ADAPTERS)
    _, many, *_, sharded = run(base, batch, 3, devices=8, mesh=(2, 2, 2), **ADAPTERS)
    np.testing.assert_allclose(many, one, atol=1e-4)
    same_moves(sharded, single)


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_adapters_on_a_quantised_base_learn_what_they_learn_on_the_values_it_stands_for(base, batch, kind):
    settings = {**ADAPTERS, "model__quantise": kind}
    _, told, _, _, (packed, _), moves = run(base, batch, 3, **settings)
    code = quantised.CODES[kind]
    assert any(path.endswith(f"/{code}") for path in packed)

    def unpacked(path, kernel):
        codes = packed.get(f"{path}/{code}")
        if codes is None:
            return kernel
        scales = jnp.asarray(packed[f"{path}/scales"])
        values = np.asarray(quantised.dequantise(jnp.asarray(codes), scales, kind, kernel.shape[-2]))
        assert 0 < np.abs(values - kernel[...]).max() < np.abs(kernel[...]).max()
        return values

    _, plain, *_, expected = run(base, batch, 3, values=unpacked, **{**settings, "model__quantise": "none"})
    np.testing.assert_allclose(told, plain, rtol=1e-5)
    same_moves(moves, expected)


def test_a_step_whose_loss_is_not_finite_changes_nothing_but_the_place_in_the_schedule(base, batch):
    trainer, step = compiled(base, 1, (-1, 1, 1), tuple(sorted(ADAPTERS.items())))
    state = trainer.start(open_model(str(base)).read(place=trainer.place))
    stored = jax.device_get(state[:2])
    broken = dataclasses.replace(batch, loss_weights=np.where(batch.loss_weights > 0, np.inf, 0).astype(np.float32))
    *after, metrics = step(*state, meshes.to_devices(broken, trainer.mesh), np.int32(0))
    assert not np.isfinite(float(metrics["loss"]))

    def place(leaf):
        return isinstance(leaf, optax.ScaleByScheduleState)

    before, after = (jax.tree.leaves(jax.device_get(tree), is_leaf=place) for tree in (stored, after))
    for one, other in zip(before, after, strict=True):
        if place(one):  # the learning rate that is told is the one that is applied
            assert other.count == one.count + 1
        else:
            np.testing.assert_array_equal(one, other)
    assert any(map(place, before))


def stacked(jaxpr, shapes):
    """Shapes of what any loop of a program hands out anew, of those asked for."""
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            for whole, one in zip(equation.outvars, equation.params["jaxpr"].jaxpr.outvars, strict=True):
                anew = whole.aval.shape != one.aval.shape  # otherwise it is carried
                found += [whole.aval.shape] if anew and whole.aval.shape in shapes else []
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    found += stacked(inner, shapes)
    return found


@pytest.mark.parametrize(("remat", "quantise"), [("none", "none"), ("dots", "nf4"), ("full", "nf4")])
def test_the_step_keeps_no_copy_of_the_base_for_its_backward_pass(base, remat, quantise, monkeypatch):
    monkeypatch.setattr(vlm_jax.training.trainer, "SHALLOW", 0)  # a loop, as other platforms have for any depth
    settings = {"lora__rank": 4, "lora__targets": "attention+mlp+vision", "train__remat": remat}
    trainer = make_trainer(base, 1, (-1, 1, 1), {**settings, "model__quantise": quantise})
    whole = {leaf.shape for path, leaf in trainer.abstract.items() if path.endswith(("kernel", "nibbles"))}
    # A tower of two blocks, windowed and global: both are one slice of the loop.
    whole |= {(1, *shape) for shape in whole}
    shapes = RowSpec(CAPACITY, trainer.model.vision.patch_dim, 4).batch(ROWS)
    assert stacked(trainer.trace(shapes).jaxpr, whole) == []


def test_what_is_to_be_recomputed_is_not_kept(base):
    """A CPU's compiler keeps it where layers are unrolled, so that such a step must not be."""
    trainers = [make_trainer(base, 1, (-1, 1, 1), {"train__remat": remat}) for remat in ("none", "full")]
    shapes = RowSpec(Size(160, 128, 96), trainers[0].model.vision.patch_dim, 4).batch(ROWS)
    kept, recomputed = (one.compile(shapes).memory_analysis().temp_size_in_bytes for one in trainers)
    assert recomputed < 0.75 * kept
