"""A token reduction that is learned: as `mmr` with these scores, with a gradient, and kept with the model."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import vlm_jax
from data_pipeline.training_run import run
from tests.checkpoint.test_reduction_file import config_of, losses
from tests.models.token_reduction.references import mmr, scaled
from tests.tiny_models import PHOTOS, assistant, noise, user
from vlm_jax.checkpoint.model_source import open_model
from vlm_jax.errors import InputError
from vlm_jax.models.parameters import abstract_model, replace
from vlm_jax.models.token_reduction.learned import gated, initial
from vlm_jax.processing.example import Size
from vlm_jax.processing.rows import assemble, stack
from vlm_jax.processing.token_budget import TokenBudget
from vlm_jax.training.step import make_loss

SETTINGS = {"visual_tokens": 0.4, "token_reduction": "mmr_learned"}


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    """A run whose scorer has learned something."""
    workdir = tmp_path_factory.mktemp("runs") / "learned"
    run(config_of(base, **SETTINGS), str(workdir))
    return workdir


@pytest.mark.parametrize("base", ["qwen2_5_vl", "qwen3_vl"], indirect=True)
def test_it_keeps_what_mmr_keeps_by_the_learned_scores_and_they_have_a_gradient(base, tmp_path):
    model = vlm_jax.load(base, dtype="float32")
    config = dataclasses.replace(model.config, reducer="mmr_learned")
    weight = np.random.default_rng(0).normal(size=config.decoder.hidden).astype(np.float32)
    parameters = {**model.parameters, "reducer/weight": jnp.asarray(weight)}
    own = model.processor.with_reduction(TokenBudget(0.4, "mmr_learned"))
    conversations = [
        [user("What is the cat called?", str(PHOTOS / "chelsea.jpg")), assistant("Chelsea")],
        [user("Which?", noise(tmp_path, 28 * 4, 28 * 3)), assistant("First")],
    ]
    examples = [own.encode(one) for one in conversations]
    batch = jax.tree.map(jnp.asarray, stack([assemble(examples, own.row_spec(Size(128, 256, 16)))]))
    graph, state = nnx.split(abstract_model(config))
    net = nnx.merge(graph, replace(state, parameters))
    features, _ = net.vision(batch.patches, batch.patch_coords, batch.image_ids, batch.window_ids)
    visual = net.connector(features)
    main, deep = visual if isinstance(visual, tuple) else (visual, ())
    visual = np.asarray(main)[0]
    embedded = net.embed(batch)
    # Features that go behind the first layers are those of the tokens that stay.
    pairs = [(embedded.x, main), *zip(() if embedded.deep is None else embedded.deep, deep, strict=True)]
    start = place = 0
    for example in examples:
        (image,) = example.images
        slots = image.layout.slot_of_token + start
        importance = scaled(visual[slots].astype(np.float64) @ weight)
        expected = mmr(visual[slots], image.tokens, importance=importance)
        mine = place + np.flatnonzero(example.input_ids == example.image_token)
        for x, features in pairs:
            np.testing.assert_array_equal(np.asarray(x)[0, mine], np.asarray(features)[0][slots][expected])
        start, place = start + len(image.layout.token_of_slot), place + len(example.input_ids)
    loss = make_loss(config, dtype=jnp.float32, implementation="chunked", remat="none")
    gradient = jax.jit(jax.grad(lambda w: loss({"reducer/weight": w}, model.parameters, batch)[0]))(jnp.asarray(weight))
    assert np.linalg.norm(gradient) > 1e-6 and np.isfinite(gradient).all()


def test_the_gate_is_one_to_the_bit_and_its_gradient_that_of_the_scores():
    visual = jnp.asarray(np.random.default_rng(1).normal(size=(5, 3)), jnp.bfloat16)
    scores = jnp.asarray([0.0, 1e6, -3.7, 0.1, 1e-9])
    np.testing.assert_array_equal(gated(visual, scores), visual)
    visual = visual.astype(jnp.float32)
    gradient = jax.grad(lambda scores: (gated(visual, scores) * 2).sum())(scores)
    np.testing.assert_allclose(gradient, 2 * visual.sum(axis=-1), rtol=1e-5)


def test_a_projection_of_blocks_is_learned_and_kept(base, tmp_path):
    """By a schedule, of which the last part sees all tokens, as the model is used: what was learned stays with it."""
    config = config_of(base, token_reduction="pool_learned", token_schedule="0.25: 0.5, 1.0: 0.5")
    config.train.steps = 2
    run(config, str(tmp_path / "run"))
    kernel = np.asarray(open_model(str(tmp_path / "run")).read()["reducer/kernel"])
    begun = np.asarray(initial("reducer/kernel", kernel.shape))
    assert 0 < np.abs(kernel - begun).max() < 0.1
    vlm_jax.export(tmp_path / "run", tmp_path / "hf")
    messages = [user("What is the cat called?", str(PHOTOS / "chelsea.jpg"))]
    models = [vlm_jax.load(tmp_path / name, dtype="float32", visual_tokens=0.25) for name in ("run", "hf")]
    assert models[0].processor.budget == models[1].processor.budget == TokenBudget(0.25, "pool_learned")
    assert vlm_jax.load(tmp_path / "hf").processor.budget.takes_all
    np.testing.assert_allclose(models[1].logits(messages), models[0].logits(messages), atol=1e-5)


def test_a_run_learns_it_goes_on_exactly_and_its_export_knows_it(base, trained, tmp_path):
    weight = np.asarray(open_model(str(trained)).read()["reducer/weight"])
    assert np.abs(weight).max() > 0
    shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")
    run(config_of(base, **SETTINGS), str(tmp_path / "run"))
    assert losses(tmp_path / "run")[-2:] == losses(trained)[-2:]
    np.testing.assert_array_equal(open_model(str(tmp_path / "run")).read()["reducer/weight"], weight)

    messages = [user("What is the cat called?", str(PHOTOS / "chelsea.jpg"))]
    vlm_jax.export(trained, tmp_path / "hf")
    assert json.loads((tmp_path / "hf" / "token_reduction.json").read_text())["method"] == "mmr_learned"
    models = [vlm_jax.load(path, dtype="float32") for path in (trained, tmp_path / "hf")]
    assert models[0].config.reducer == models[1].config.reducer == "mmr_learned"
    np.testing.assert_allclose(models[1].logits(messages), models[0].logits(messages), atol=1e-5)
    vlm_jax.export(trained, tmp_path / "model.pth", "pth")
    vlm_jax.export(tmp_path / "model.pth", tmp_path / "orbax", "orbax", base=base)
    again = vlm_jax.load(tmp_path / "orbax", dtype="float32", visual_tokens=0.4)
    np.testing.assert_allclose(again.logits(messages), models[0].logits(messages), atol=1e-5)


@pytest.mark.evidence
def test_with_adapters_it_is_kept_beside_them_and_another_method_leaves_it_behind(base, tmp_path):
    config = config_of(base, **SETTINGS)
    config.lora.rank, config.train.steps = 2, 2
    run(config, str(tmp_path / "adapters"))
    source = open_model(str(tmp_path / "adapters"))
    assert source.trained_beside_adapters() == ["reducer/weight"]
    assert np.abs(source.read_beside_adapters()["reducer/weight"]).max() > 0
    assert np.isfinite(vlm_jax.load(tmp_path / "adapters").logits([user("What?", str(PHOTOS / "coffee.jpg"))])).all()
    with pytest.raises(InputError, match="such as reducer/weight were trained"):
        vlm_jax.export(tmp_path / "adapters", tmp_path / "peft", "peft")
    vlm_jax.export(tmp_path / "adapters", tmp_path / "hf")
    after = config_of(tmp_path / "hf", visual_tokens=0.4, token_reduction="uniform")
    after.lora.rank, after.train.steps = 2, 1
    run(after, str(tmp_path / "after"))
    vlm_jax.export(tmp_path / "after", tmp_path / "whole", "orbax")
    for folder in ("after", "whole"):
        source = open_model(str(tmp_path / folder))
        assert source.config.reducer == "" and "reducer/weight" not in source.read()


def test_a_model_that_has_not_learned_it_is_refused(base):
    with pytest.raises(InputError, match="has not learned to choose by mmr_learned.*take mmr"):
        vlm_jax.load(base, **SETTINGS)
    with pytest.raises(InputError, match="weighs tokens as a model has learned to; take mmr"):
        vlm_jax.keep_tokens("mmr_learned", np.zeros((4, 2), np.float32), 1)
