"""The forms in which people have a model folder: prompts, pixels, logits and greedy answers equal transformers'.

`benchmarks/published_metadata.py` holds the metadata of published checkpoints against transformers in the same way.
"""

import json

import pytest
from transformers import AutoModelForImageTextToText

from tests.resaved import FORMS, compare, make_metadata, save, small_config
from tests.tiny_models import PHOTOS, assistant, noise, user
from vlm_jax.models.presets import PRESETS

SIZES = {"qwen2_5_vl": "7b", "qwen2_vl": "qwen2-7b", "qwen3_vl": "qwen3-vl-8b"}


@pytest.fixture(scope="module", params=SIZES)
def metadata(request, tmp_path_factory):
    """(folder of small files, config.json) in the published form."""
    folder = tmp_path_factory.mktemp(request.param)
    return folder, small_config(make_metadata(folder, PRESETS[SIZES[request.param]]))


@pytest.mark.parametrize("form", FORMS)
def test_a_folder_gives_what_transformers_gives_in_every_form(metadata, form, tmp_path):
    files, config_json = metadata
    deep = form == FORMS[1]  # whose files leave out the default depth
    if not deep:  # a few blocks are as good, and quicker
        tower = config_json["vision_config"] | {"depth": 3}
        tower |= {key: [1] for key in ("fullatt_block_indexes", "deepstack_visual_indexes") if key in tower}
        config_json = config_json | {"vision_config": tower}
    save(tmp_path / "model", form, files, config_json)
    written = json.loads((tmp_path / "model" / "config.json").read_text())
    assert ("depth" in written["vision_config"]) == (not deep)
    theirs = AutoModelForImageTextToText.from_pretrained(tmp_path / "model", dtype="float32").eval()
    question = [user("Which is larger?", str(PHOTOS / "coffee.jpg"), noise(tmp_path, 140, 84))]
    words = [{"role": "user", "content": "What is it called?"}, assistant("A cat")]
    conversations = [[*question, assistant("The first"), user("Why?")], words]
    found = compare(tmp_path / "model", theirs, conversations, [question], scanned=deep)
    assert not found.prompts and found.pixels <= 1e-5 and found.logits <= 1e-4 and not found.answers
