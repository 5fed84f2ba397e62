"""Which of several files of weights counts is transformers' choice; what is loaded is what it loads."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2_5_VLForConditionalGeneration

from tests.checkpoint.folders import SHARD, change_json, save_folder
from vlm_jax.checkpoint import hf_folder, weight_files
from vlm_jax.checkpoint.model_source import open_model
from vlm_jax.errors import InputError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
BIN, BIN_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"


def as_transformers_loads(folder: Path) -> None:
    """Every tensor is what transformers has after `from_pretrained`."""
    theirs = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder).state_dict()
    source = open_model(str(folder))
    source.check()
    ours = dict(hf_folder.to_tensors(source.config, source.read()))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(torch.tensor(ours[name]), tensor), name


def errors(folder: Path) -> list[str]:
    with pytest.raises(InputError) as caught:
        open_model(str(folder)).check()
    assert all(line and "\n" not in line for line in caught.value.lines)
    return caught.value.lines


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> Path:
    """Files of weights in every form, each of other values."""
    folder = tmp_path_factory.mktemp("others")
    tensors = save_folder(folder / "made", seed=1)
    write_shards(folder, tensors, ".safetensors")
    write_shards(folder, {name: tensor + 1 for name, tensor in tensors.items()}, ".bin")
    torch.save({name: tensor + 2 for name, tensor in tensors.items()}, folder / BIN)
    shutil.rmtree(folder / "made")
    return folder


def write_shards(folder: Path, tensors: dict[str, torch.Tensor], kind: str, count: int = 3) -> None:
    """Shards and their index as transformers 4 wrote them."""
    stem, weight_map = {".safetensors": "model", ".bin": "pytorch_model"}[kind], {}
    for number in range(count):
        part = dict(sorted(tensors.items())[number::count])
        name = f"{stem}-{number + 1:05d}-of-{count:05d}{kind}"
        (save_file if kind == ".safetensors" else torch.save)(part, folder / name)
        weight_map |= dict.fromkeys(part, name)
    index = folder / f"{stem}{kind}.index.json"
    index.write_text("{}")
    change_json(index, lambda stored: stored.update(weight_map=weight_map, metadata={}))


@pytest.mark.parametrize("first", [SINGLE, INDEX, BIN, BIN_INDEX])
def test_of_all_forms_the_first_in_transformers_order_is_loaded(folder, others, first):
    for path in others.iterdir():
        shutil.copy(path, folder)
    order = [SINGLE, INDEX, BIN, BIN_INDEX]
    for name in order[: order.index(first)]:
        (folder / name).unlink()
    as_transformers_loads(folder)


def test_an_index_whose_shards_are_gone_does_not_matter_beside_a_single_file(folder, sharded):
    shutil.copy(sharded / INDEX, folder)
    as_transformers_loads(folder)


def test_shards_of_an_earlier_save_that_the_index_does_not_name_are_never_loaded(sharded):
    shard = next(sharded.glob("model-*"))
    tensors = {name: torch.zeros_like(tensor) for name, tensor in load_file(shard).items()}
    save_file(tensors, sharded / "model-00001-of-00002.safetensors")
    as_transformers_loads(sharded)


def test_a_single_file_that_holds_too_little_is_not_filled_up_from_shards(folder, sharded):
    for path in sharded.glob("model*"):
        shutil.copy(path, folder)
    (missing, *_) = sorted(load_file(folder / SINGLE))
    tensors = load_file(folder / SINGLE)
    save_file({name: tensor for name, tensor in tensors.items() if name != missing}, folder / SINGLE)
    shutil.copy(sharded / INDEX, folder)
    (error,) = errors(folder)
    assert "is missing" in error


def test_a_digest_follows_the_file_that_is_loaded(folder, sharded, others):
    before = open_model(str(folder)).digest()
    for path in [*sharded.glob("model-*"), sharded / INDEX, *others.glob("pytorch_model*")]:
        shutil.copy(path, folder)
    assert open_model(str(folder)).digest() == before
    (folder / SINGLE).unlink()
    of_shards = open_model(str(folder)).digest()
    (folder / INDEX).unlink()
    of_bin = open_model(str(folder)).digest()
    (folder / BIN).unlink()
    assert len({before, of_shards, of_bin, open_model(str(folder)).digest()}) == 4


@pytest.fixture
def torch_shards(folder, others) -> Path:
    (folder / SINGLE).unlink()
    for path in [*others.glob("pytorch_model-*"), others / BIN_INDEX]:
        shutil.copy(path, folder)
    return folder


def test_shards_of_pytorch_that_are_missing_cut_short_or_no_tensors_are_told_together(torch_shards):
    one, two, three = sorted(torch_shards.glob("pytorch_model-*"))
    one.unlink()
    two.write_bytes(two.read_bytes()[:-100])
    torch.save({"optimizer": torch.optim.SGD}, three)
    found = errors(torch_shards)
    assert found[0] == f"{one}: missing shard, named in {BIN_INDEX}; copy or download it again"
    assert "is cut short" in found[1] and "torch.optim.sgd.SGD, and only tensors are read" in found[2]


def test_shards_of_pytorch_are_told_by_tensors_that_no_part_takes(torch_shards):
    path = next(torch_shards.glob("pytorch_model-*"))
    torch.save(torch.load(path) | {"model.layers.9.mlp.up_proj.weight": torch.ones(2)}, path)
    (error,) = errors(torch_shards)
    assert error == f"{torch_shards}: tensors no part of the model takes: model.layers.9.mlp.up_proj.weight"


@pytest.mark.parametrize("name", ["../pytorch_model.bin", "/etc/passwd", ""])
def test_an_index_of_pytorch_that_points_elsewhere_is_refused(torch_shards, name):
    change_json(torch_shards / BIN_INDEX, lambda stored: stored["weight_map"].update({"model.norm.weight": name}))
    assert errors(torch_shards) == [f"{torch_shards / BIN_INDEX}: shard names must be plain file names, got {name!r}"]


@pytest.mark.parametrize("kind", ["single", "index"])
def test_the_file_that_config_json_names_is_read_whatever_else_is_there(folder, others, kind):
    if kind == "single":
        tensors = {name: tensor + 5 for name, tensor in load_file(folder / SINGLE).items()}
        save_file(tensors, folder / "tuned.safetensors", metadata={"format": "pt"})
    else:
        for path in others.glob("model-*"):
            shutil.copy(path, folder)
        shutil.copy(others / INDEX, folder / "tuned.safetensors.index.json")
    name = "tuned.safetensors" + (".index.json" if kind == "index" else "")
    change_json(folder / "config.json", lambda stored: stored.update(transformers_weights=name))
    as_transformers_loads(folder)


@pytest.mark.parametrize("name", ["../x.safetensors", "pytorch_model.bin", 5, "", "gone.safetensors"])
def test_a_file_that_config_json_names_and_that_cannot_be_is_one_line(folder, name):
    change_json(folder / "config.json", lambda stored: stored.update(transformers_weights=name))
    (error,) = errors(folder)
    assert "transformers_weights" in error and ("missing" if name == "gone.safetensors" else "wanted") in error


def test_a_sharded_folder_is_loaded_as_transformers_loads_it(made):
    folder = made(shard=SHARD)
    assert len(weight_files.located(folder)[0]) > 3
    as_transformers_loads(folder)
