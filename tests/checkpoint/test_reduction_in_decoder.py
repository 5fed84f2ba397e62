"""Runs that leave tokens out within the decoder: packed at two lengths, by a schedule, gone on with, exported."""

import json
import shutil

import numpy as np
import pytest

import vlm_jax
from data_pipeline.training_run import run
from tests.checkpoint.test_reduction_file import config_of, losses, metrics
from tests.tiny_models import PHOTOS, user
from vlm_jax.errors import InputError
from vlm_jax.processing.token_budget import TokenBudget
from vlm_jax.training.config import check_config

SETTINGS = {"visual_tokens": 0.4, "token_reduction": "fastv", "token_reduction_layer": 1}


def scheduled(base):
    """Rows hold examples of which all stay beside others, on devices that share heads and rows; what is measured beside
    the steps sees all tokens."""
    schedule = {"token_schedule": "0.4: 0.5, 1.0: 0.5", "token_schedule_order": "drawn"}
    config = config_of(base, **{**SETTINGS, **schedule, "visual_tokens": 1.0})
    config.mesh.update(fsdp=4, tensor=2)
    config.validation.update(path=str(PHOTOS / "photos.json"), every=2)
    return config


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "fastv"
    run(scheduled(base), str(workdir))
    return workdir


def test_a_schedule_takes_one_program_with_shorter_rows_above_the_cut(trained):
    assert set(metrics(trained, "compiles")) == {1}
    shown = (trained / "log.txt").read_text()
    measured = [json.loads(line)["loss"] for line in (trained / "validation.jsonl").read_text().splitlines()]
    assert len(measured) == 2 and np.isfinite(measured).all()
    assert "8 rows × 192 tokens, then " in shown and "of the tokens above" in shown, shown


def test_a_run_that_goes_on_comes_to_the_same_losses(base, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")
    config = scheduled(base)
    run(config, str(tmp_path / "run"))
    assert losses(tmp_path / "run")[-2:] == losses(trained)[-2:]
    config.model.update(token_reduction="divprune", token_reduction_layer=0)
    with pytest.raises(InputError, match="was started with model.token_reduction = 'fastv'"):
        run(config, str(tmp_path / "run"))


@pytest.mark.evidence
def test_validation_data_that_are_mostly_text_have_rows_of_their_own(base, tmp_path):
    """Of rows that are as long above the cut as images leave them, an example that is all text would fit none."""
    config = config_of(base, **SETTINGS)
    config.model.update(visual_tokens=0.1, max_visual_tokens=64)
    image, words = str(PHOTOS / "chelsea.jpg"), " ".join(["word"] * 36)
    (tmp_path / "short.csv").write_text(f"image,question,answer\n{image},Cat?,Yes\n")
    (tmp_path / "long.csv").write_text(f"image,question,answer\n,{words}?,Yes\n")
    config.data.path = str(tmp_path / "short.csv")
    config.validation.update(path=str(tmp_path / "long.csv"), every=1)
    config.train.steps = 1
    run(config, str(tmp_path / "run"))
    assert " 192 tokens, then 128," in (tmp_path / "run" / "log.txt").read_text()
    (loss,) = (json.loads(line)["loss"] for line in (tmp_path / "run" / "validation.jsonl").read_text().splitlines())
    assert np.isfinite(loss)


def test_the_layer_travels_with_the_model_and_may_be_said_otherwise(base, tmp_path):
    own = TokenBudget(0.4, "fastv", layer=1)
    notes, trained = [], tmp_path / "run"
    config = config_of(base, **SETTINGS)
    config.train.steps = 1
    run(config, str(trained))
    vlm_jax.export(trained, tmp_path / "hf", say=notes.append)
    assert len(notes) == 1 and "by fastv: other programs show it all of them" in notes[0]
    assert json.loads((tmp_path / "hf" / "token_reduction.json").read_text())["layer"] == 1
    models = [vlm_jax.load(path, dtype="float32") for path in (trained, tmp_path / "hf")]
    assert [model.processor.budget for model in models] == [own, own]
    messages = [user("What is the cat called?", str(PHOTOS / "chelsea.jpg"))]
    np.testing.assert_allclose(models[1].logits(messages), models[0].logits(messages), atol=1e-5)
    assert vlm_jax.load(trained, visual_tokens=0.2).processor.budget == TokenBudget(0.2, "fastv", layer=1)
    other = vlm_jax.load(trained, visual_tokens=0.2, token_reduction="divprune").processor.budget
    assert other == TokenBudget(0.2, "divprune")
    with pytest.raises(InputError, match="token_reduction_layer is 2, and the decoder has 2 layers.*take 1 to 1"):
        vlm_jax.load(trained, token_reduction_layer=2)
    with pytest.raises(InputError, match="pyramiddrop leaves tokens out behind a quarter.*has 2 layers"):
        vlm_jax.load(trained, token_reduction="pyramiddrop")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"token_reduction_layer": 1}, "token_reduction_layer 1 needs visual_tokens too"),
        (
            {"visual_tokens": 0.5, "token_reduction_layer": 1},
            "is 1, which goes with fastv, and token_reduction is resize",
        ),
        (
            {"visual_tokens": 9, "token_reduction_layer": 1},
            "is 1, which goes with fastv, and token_reduction is resize",
        ),
        ({"visual_tokens": (4, 9), "token_reduction_layer": 1}, "token_reduction_layer 1 beside visual_tokens"),
        ({"visual_tokens": 0.5, "token_reduction": "fastv"}, "is 2, and the decoder has 2 layers"),
    ],
)
def test_a_layer_that_cannot_be_is_one_line(base, options, line):
    with pytest.raises(InputError, match=line):
        vlm_jax.load(base, **options)


def test_settings_of_a_run_are_checked_before_anything_is_measured(base, tmp_path):
    config = config_of(base, **{**SETTINGS, "token_reduction_layer": 5})
    with pytest.raises(InputError, match="token_reduction_layer is 5, and the decoder has 2 layers"):
        run(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    config.model.token_reduction = "mmr"
    with pytest.raises(InputError, match=r"config\.model\.token_reduction_layer is 5; wanted 0 where"):
        check_config(config)
