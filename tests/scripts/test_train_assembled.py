"""scripts/train.py on models it assembles from an encoder and a text model."""

import shutil

import numpy as np
import pytest

import vlm_jax
from tests.scripts.test_train import STEPS, losses, train
from tests.tiny_assembled import save_encoder, save_text_model
from tests.tiny_models import PHOTOS, assistant, user
from vlm_jax.checkpoint.model_source import open_model
from vlm_jax.errors import InputError

QUESTION = [user("What is it called?", str(PHOTOS / "chelsea.jpg")), assistant("Chelsea")]
TRAINED = ["--config.lora.rank=4", "--config.train.trainable=adapter+connector", "--config.checkpoint.keep=9"]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    root = tmp_path_factory.mktemp("parts")
    text = save_text_model(root / "text")
    return {family: save_encoder(root / family, family) for family in ("vit", "clip")} | {"text": text}


def assemble(parts, family, **how):
    settings = {"encoder": parts[family], "decoder": parts["text"], **how}
    return [f"--config.assemble.{key}={value}" for key, value in settings.items()]


@pytest.fixture(scope="module")
def run(parts, tmp_path_factory):
    """Like `configs/vit_qwen2_5_3b_lora.py`, the connector first for a part of the steps."""
    how = assemble(parts, "vit", image_mode="letterbox", background="black", final_norm=True, keep_class=True)
    settings = [*how, *TRAINED, "--config.train.first.share=0.25", "--config.model.max_visual_tokens=64"]
    workdir = tmp_path_factory.mktemp("runs") / "vit"
    done = train("", workdir, *settings)
    assert done.returncode == 0, done.stderr
    return workdir, settings


def test_the_connector_and_adapters_learn_and_the_parts_stay_as_they_were(run, parts):
    workdir, _ = run
    reported = losses(workdir)
    assert len(reported) == STEPS and np.mean(reported[-3:]) < np.mean(reported[:3])
    source, base = open_model(str(workdir)), open_model(str(workdir / "model"))
    assert source.base.name == str(workdir / "model")
    moved = source.trained_beside_adapters()
    assert {path.split("/")[0] for path in moved} == {"connector"}
    before, after = base.read(), source.read()
    for path, array in before.items():
        assert np.array_equal(array, after[path]) != (path in moved), path
    assert not (workdir / "model" / "model.safetensors").exists(), "the parts are copied"


def test_a_run_goes_on_with_the_same_losses(run, tmp_path):
    workdir, settings = run
    shutil.copytree(workdir, tmp_path / "run")
    for step in sorted(int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir())[1:]:
        shutil.rmtree(tmp_path / "run" / "checkpoints" / str(step))
    again = train("", tmp_path / "run", *settings)
    assert again.returncode == 0, again.stderr
    assert losses(tmp_path / "run") == losses(workdir)


def test_a_peft_folder_with_its_connector_beside_it_gives_the_same_model(run, tmp_path):
    workdir, _ = run
    expected = vlm_jax.load(workdir).logits(QUESTION)
    vlm_jax.export(workdir, tmp_path / "peft", "peft")
    assert (tmp_path / "peft" / "final_connector.pth").is_file()
    again = vlm_jax.load(workdir / "model", adapter=tmp_path / "peft").logits(QUESTION)
    scale = np.abs(expected).max()
    assert np.abs(again - expected).max() < 1e-5 * scale
    assert np.abs(vlm_jax.load(workdir / "model").logits(QUESTION) - expected).max() > 1e-3 * scale
    vlm_jax.export(workdir, tmp_path / "orbax", "orbax")
    assert np.abs(vlm_jax.load(tmp_path / "orbax").logits(QUESTION) - expected).max() < 1e-5 * scale


def test_a_run_that_moved_finds_the_model_it_assembled(run, tmp_path):
    workdir, settings = run
    expected = vlm_jax.load(workdir).logits(QUESTION)
    shutil.copytree(workdir, tmp_path / "moved")
    hidden = workdir.rename(workdir.with_name("hidden"))
    try:
        np.testing.assert_array_equal(vlm_jax.load(tmp_path / "moved").logits(QUESTION), expected)
        again = train("", tmp_path / "moved", *settings)
        assert again.returncode == 0 and f"finished: all {STEPS} steps" in again.stderr, again.stderr
    finally:
        hidden.rename(workdir)


def test_what_llava_cannot_hold_is_refused_with_the_reason(run, tmp_path):
    with pytest.raises(InputError, match=r"letter-boxed on \(0, 0, 0\), and transformers' LLaVA pads with .* orbax"):
        vlm_jax.export(run[0], tmp_path / "hf", "hf")
    assert not (tmp_path / "hf").exists()


def test_tiles_train_in_full_and_open_in_transformers(parts, tmp_path):
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    how = assemble(parts, "clip", image_mode="anyres", feature_layer=-2)
    done = train("", tmp_path / "run", *how, "--config.model.max_visual_tokens=100", "--config.train.steps=3")
    assert done.returncode == 0, done.stderr
    ours = vlm_jax.load(tmp_path / "run")
    fresh = vlm_jax.load(tmp_path / "run" / "model")
    moved = {path for path, array in ours.parameters.items() if not np.array_equal(array, fresh.parameters[path])}
    assert "newline" in moved and not any(path.startswith("vision/unused/") for path in moved)
    vlm_jax.export(tmp_path / "run", tmp_path / "hf", "hf")
    adapted = train(
        "", tmp_path / "lora", *how, *TRAINED, "--config.model.max_visual_tokens=100", "--config.train.steps=2"
    )
    assert adapted.returncode == 0, adapted.stderr
    vlm_jax.export(tmp_path / "lora", tmp_path / "peft", "peft")  # the row separator goes with the connector
    again = vlm_jax.load(tmp_path / "lora" / "model", adapter=tmp_path / "peft")
    stored = vlm_jax.load(tmp_path / "lora").logits(QUESTION)
    assert np.abs(again.logits(QUESTION) - stored).max() < 1e-5 * np.abs(stored).max()
    theirs = AutoModelForImageTextToText.from_pretrained(tmp_path / "hf", dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "hf")
    text = processor.apply_chat_template(QUESTION, tokenize=False)
    images = [processor.image_processor.fetch_images(QUESTION[0]["content"][0]["image"])]
    inputs = processor(images=images, text=text, return_tensors="pt")
    with torch.no_grad():
        expected = theirs(**inputs).logits[0].numpy()
    assert np.abs(ours.logits(QUESTION) - expected).max() <= 1e-4


def test_an_error_of_the_parts_is_one_line_and_leaves_nothing(parts, tmp_path):
    done = train("", tmp_path / "run", *assemble(parts, "vit", encoder="nowhere", connector="qformer"))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "nowhere: no such folder" in done.stderr and "connector is 'qformer'; known are mlp, linear" in done.stderr
    assert not (tmp_path / "run" / "model").exists()
