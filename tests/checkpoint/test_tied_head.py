"""Whether the output layer is the embeddings: transformers' answer, whatever flags and files say of it."""

import json
import shutil

import numpy as np
import pytest
import torch

import vlm_jax
from tests.checkpoint.folders import IMAGES, change_json, change_tensors
from tests.checkpoint.test_weight_files import as_transformers_loads
from vlm_jax.adapters.lora import Lora, is_adapter
from vlm_jax.checkpoint import description, hf_folder, pth, run_folder
from vlm_jax.checkpoint.model_source import adapter_settings, open_model
from vlm_jax.errors import InputError
from vlm_jax.models.parameters import abstract_parameters

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
HEADS = {
    "none": lambda tensors: None,
    "equal": lambda tensors: tensors.update({HEAD: tensors[EMBEDDING].clone()}),
    "one value": lambda tensors: tensors.update({HEAD: changed(tensors[EMBEDDING])}),
    "another": lambda tensors: tensors.update({HEAD: tensors[EMBEDDING].flip(0).clone()}),
    "alone": lambda tensors: tensors.update({HEAD: tensors.pop(EMBEDDING)}),
}


def changed(table: torch.Tensor) -> torch.Tensor:
    """A copy whose very last value is another."""
    table = table.clone()
    table[-1, -1] += 1
    return table


def flags(folder, top, text) -> None:
    """Sets `tie_word_embeddings` at both places of config.json; None leaves it out."""

    def change(config_json):
        for level, value in ((config_json, top), (config_json["text_config"], text)):
            level.pop("tie_word_embeddings", None)
            if value is not None:
                level["tie_word_embeddings"] = value

    change_json(folder / "config.json", change)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("top", "text"), [(True, False), (False, True), (None, True), (True, None)])
def test_flags_that_disagree_and_stored_heads_are_read_as_transformers_reads_them(folder, top, text, head):
    flags(folder, top, text)
    change_tensors(folder, HEADS[head])
    as_transformers_loads(folder)
    assert open_model(str(folder)).config.decoder.tied == (head not in ("one value", "another"))


@pytest.mark.parametrize("head", ["equal", "another"])
def test_without_a_flag_the_stored_head_is_a_layer_of_its_own(folder, head):
    flags(folder, None, False)
    change_tensors(folder, HEADS[head])
    as_transformers_loads(folder)
    assert not open_model(str(folder)).config.decoder.tied


@pytest.fixture
def differing(folder):
    """A folder that says tied, with a head that differs."""
    change_tensors(folder, HEADS["another"])
    return folder


@pytest.mark.parametrize("form", ["hf", "orbax"])
def test_what_is_written_of_a_head_that_differs_says_that_it_is_not_tied(differing, tmp_path, form):
    vlm_jax.export(differing, tmp_path / "out", form)
    assets = tmp_path / "out" if form == "hf" else run_folder.assets_of(tmp_path / "out")
    config_json = json.loads((assets / "config.json").read_text())
    assert config_json["tie_word_embeddings"] is False
    assert not config_json["text_config"].get("tie_word_embeddings")
    expected, found = open_model(str(differing)).read(), open_model(str(tmp_path / "out")).read()
    assert "head" in found and found.keys() == expected.keys()
    for path, array in expected.items():
        np.testing.assert_array_equal(found[path], array)
    if form == "hf":
        as_transformers_loads(tmp_path / "out")


def test_an_export_of_flags_that_disagree_is_read_alike_by_all(folder, tmp_path):
    flags(folder, False, True)
    vlm_jax.export(folder, tmp_path / "out")
    config_json = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config_json["tie_word_embeddings"] and config_json["text_config"]["tie_word_embeddings"]


@pytest.mark.parametrize("head", ["equal", "one value", "alone"])
def test_a_state_dict_of_a_tied_base_keeps_the_head_it_holds(folder, tmp_path, head):
    tensors = dict(pth_tensors(folder))
    HEADS[head](tensors)
    torch.save(tensors, tmp_path / "a.pth")
    source = open_model(str(tmp_path / "a.pth"), base=str(folder))
    source.check()
    flat = source.read()
    assert ("head" in flat) == (head == "one value")
    table = np.asarray(flat["head"]).T if "head" in flat else np.asarray(flat["embedding"])
    np.testing.assert_array_equal(table, tensors[HEAD].numpy())
    vlm_jax.export(tmp_path / "a.pth", tmp_path / "out", base=folder)
    as_transformers_loads(tmp_path / "out")


def pth_tensors(folder):
    vlm_jax.export(folder, folder.parent / "whole.pth", "pth")
    for name, array in pth.read(folder.parent / "whole.pth").items():
        name = name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")
        if name != HEAD:
            yield name, torch.tensor(array)


def test_a_head_of_another_shape_is_told(folder):
    change_tensors(folder, lambda tensors: tensors.update({HEAD: tensors[EMBEDDING][:-1].clone()}))
    with pytest.raises(InputError, match=r"lm_head.weight has shape \(319, 32\)"):
        open_model(str(folder)).check()


def test_reading_by_a_config_that_says_tied_never_leaves_a_head_aside(differing):
    with pytest.raises(InputError, match="lm_head.weight differs from model.embed_tokens.weight"):
        hf_folder.read_parameters(differing, description.read_config(differing))


def test_the_digest_of_a_folder_counts_its_head(folder, differing, tmp_path):
    other = shutil.copytree(differing, tmp_path / "other")
    assert open_model(str(other)).digest() == open_model(str(differing)).digest()
    change_tensors(other, HEADS["equal"])
    assert open_model(str(other)).digest() != open_model(str(differing)).digest()


def test_adapters_of_a_run_that_left_the_head_aside_are_not_added_to_it(folder, tmp_path):
    config, lora = description.read_config(folder), Lora(2, 4.0)
    change_tensors(folder, HEADS["another"])
    shapes = abstract_parameters(config, attach=[lora.attach])
    parameters = {path: np.ones(leaf.shape, np.float32) for path, leaf in shapes.items() if is_adapter(path)}
    run_folder.write_assets(tmp_path / "run", folder)  # whose config.json says tied
    settings = run_folder.settings_json(IMAGES) | adapter_settings(open_model(str(folder)), lora, tmp_path / "run")
    checkpoints = run_folder.Checkpoints(tmp_path / "run")
    checkpoints.save(1, parameters, settings)
    checkpoints.close()
    with pytest.raises(InputError, match="was trained with the output layer tied to the embeddings"):
        open_model(str(tmp_path / "run"))
    run_folder.write_assets(tmp_path / "run", open_model(str(folder)).assets)  # as a run does today
    assert "head" in open_model(str(tmp_path / "run")).read_merged()
