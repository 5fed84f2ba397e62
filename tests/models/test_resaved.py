"""The forms in which people have a model folder: prompts, pixels, logits and greedy answers equal transformers'.

`benchmarks/published_metadata.py` holds the metadata of published checkpoints against transformers in the same way.
"""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText

import vlm_jax
from tests.resaved import FORMS, make_metadata, reference, save, small_config
from tests.tiny_models import PHOTOS, assistant, noise, user
from vlm_jax.models.presets import PRESETS

SIZES = {"qwen2_5_vl": "7b", "qwen2_vl": "qwen2-7b"}


@pytest.fixture(scope="module", params=SIZES)
def metadata(request, tmp_path_factory):
    """(folder of small files, config.json) in the published form."""
    folder = tmp_path_factory.mktemp(request.param)
    preset = PRESETS[SIZES[request.param]]
    return folder, small_config(make_metadata(folder, preset))


@pytest.mark.parametrize("form", FORMS)
def test_a_folder_gives_what_transformers_gives_in_every_form(metadata, form, tmp_path):
    files, config_json = metadata
    if form != FORMS[1]:  # whose files leave out the default depth; elsewhere a few blocks are as good, and quicker
        tower = config_json["vision_config"] | {"depth": 3}
        tower |= {"fullatt_block_indexes": [1]} if "fullatt_block_indexes" in tower else {}
        config_json = config_json | {"vision_config": tower}
    theirs = save(tmp_path / "model", form, files, config_json)
    written = json.loads((tmp_path / "model" / "config.json").read_text())
    assert ("depth" in written["vision_config"]) == (form != FORMS[1])
    theirs = AutoModelForImageTextToText.from_pretrained(tmp_path / "model").eval()
    check(tmp_path / "model", theirs, tmp_path)


def check(folder, theirs, tmp_path):
    """Holds a folder against transformers' model of it."""
    ours = vlm_jax.load(folder, dtype="float32")
    images = [str(PHOTOS / "coffee.jpg"), noise(tmp_path, 140, 84)]
    for messages in (
        [user("Which is larger?", *images), assistant("The first"), user("Why?")],
        [{"role": "user", "content": "What is it called?"}, assistant("A cat")],
    ):
        inputs = reference(folder, messages)
        example = ours.encode(messages)
        assert example.input_ids.tolist() == inputs["input_ids"][0].tolist()
        if "pixel_values" in inputs:
            patches = np.concatenate([one.patches.reshape(-1, 3, 196) for one in example.pictures]).astype(np.float64)
            images_of = ours.processor.images
            values = (patches / 255 - np.reshape(images_of.mean, (3, 1))) / np.reshape(images_of.std, (3, 1))
            frames = np.repeat(values[:, :, None], 2, axis=2).reshape(len(values), -1)
            np.testing.assert_allclose(frames, inputs["pixel_values"], rtol=1e-5, atol=1e-5)
        with torch.no_grad():
            expected = theirs(**inputs).logits[0].numpy()
        assert np.abs(expected).max() > 1
        assert np.abs(ours.logits(messages) - expected).max() <= 1e-4 * np.abs(expected).max()
    question = [user("Which is larger?", *images)]
    inputs = reference(folder, question, generation_prompt=True)
    with torch.no_grad():
        tokens = theirs.generate(**inputs, max_new_tokens=16, do_sample=False, repetition_penalty=1.0)
    answer = ours.processor.decode(tokens[0, inputs["input_ids"].shape[1] :].tolist())
    assert ours.generate(question, max_new_tokens=16) == answer
