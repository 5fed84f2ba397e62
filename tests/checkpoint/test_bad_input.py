"""What is wrong with a model is said in one line each, all of it together, before anything is written."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import vlm_jax
from tests.checkpoint.folders import change_json, change_tensors, save_folder
from vlm_jax.adapters.lora import Lora, is_adapter
from vlm_jax.checkpoint import description, peft_folder
from vlm_jax.models.parameters import abstract_parameters


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    save_folder(folder / "model")
    save_folder(folder / "sharded", shard="20KB")
    config, lora = description.read_config(folder / "model"), Lora(4, 8.0)
    shapes = abstract_parameters(config, attach=[lora.attach])
    held = {path: np.ones(leaf.shape, np.float32) for path, leaf in shapes.items() if is_adapter(path)}
    peft_folder.write(folder / "adapter", config, lora, held, base=str(folder / "model"))
    return folder


@pytest.fixture
def copy(made, tmp_path):
    return lambda name: Path(shutil.copytree(made / name, tmp_path / "source"))


def errors(source, target, form="hf", **settings) -> list[str]:
    """What is wrong, each in one line; nothing is left at the target, nor beside it."""
    before = sorted(target.parent.iterdir())
    with pytest.raises(vlm_jax.InputError) as caught:
        vlm_jax.export(source, target, form, **settings)
    assert sorted(target.parent.iterdir()) == before
    assert all(line and "\n" not in line for line in caught.value.lines)
    return caught.value.lines


FORMATS = pytest.mark.parametrize("form", ["hf", "orbax", "pth"])


@FORMATS
def test_missing_shards_truncated_ones_and_tensors_of_integers(copy, tmp_path, form):
    source = copy("sharded")
    shards = sorted(source.glob("*.safetensors"))
    shards[0].unlink()
    shards[1].write_bytes(shards[1].read_bytes()[:-1])
    missing, cut = errors(source, tmp_path / "out", form)
    assert missing == f"{shards[0]}: missing shard, named in model.safetensors.index.json; copy or download it again"
    assert cut.startswith(f"{shards[1]}: unreadable or truncated safetensors (") and cut.endswith("download it again")


@FORMATS
def test_a_tensor_of_integers(copy, tmp_path, form):
    source = copy("model")
    change_tensors(source, lambda held: held.update({"model.norm.weight": held["model.norm.weight"].to(torch.int32)}))
    assert errors(source, tmp_path / "out", form) == [
        f"{source}: model.norm.weight is I32; this reads F32, BF16 and F16 weights; save it again with one of these "
        "as dtype"
    ]


def test_another_architecture(copy, tmp_path):
    source = copy("model")
    change_json(source / "config.json", lambda held: held.update(model_type="mllama"))
    (line,) = errors(source, tmp_path / "out")
    assert line.startswith(f"{source / 'config.json'}: model_type is 'mllama'; this version reads 'qwen2_5_vl'")


def test_errors_of_settings_target_tokenizer_and_weights_are_told_together(copy, tmp_path):
    source, target = copy("model"), tmp_path / "out"
    change_json(source / "config.json", lambda held: held.update(image_token_id=5))
    change_tensors(source, lambda held: held.pop("model.norm.weight"))
    target.mkdir()
    (target / "mine").write_text("kept")
    found = errors(source, target, "gguf", dtype="int8")
    assert found[:3] == [
        "format 'gguf': known are hf, peft, pth, orbax",
        "dtype 'int8': known are keep, float32, bfloat16",
        f"{target}: exists and is not empty; remove it or name another target",
    ]
    assert found[3].startswith(f"{source}: the tokenizer gives <|image_pad|> the id ")
    assert found[3].endswith("config.json says 5; one of them is of another model: copy both from one")
    assert found[4:] == [f"{source}: tensor model.norm.weight is missing"]
    assert (target / "mine").read_text() == "kept"


def test_loading_tells_errors_of_tokenizer_and_weights_together(copy):
    source = copy("model")
    (source / "tokenizer.json").unlink()
    (source / "vocab.json").unlink()
    change_tensors(source, lambda held: held.pop("model.norm.weight"))
    with pytest.raises(vlm_jax.InputError) as caught:
        vlm_jax.load(source)
    assert [line.split(": ")[1].split(" (")[0] for line in caught.value.lines] == [
        "tensor model.norm.weight is missing",
        "no tokenizer.json",
    ]
    with pytest.raises(vlm_jax.InputError) as caught:
        vlm_jax.load(source, dtype="int8", quantise="nf5", quantise_tables=True)
    assert len(caught.value.lines) == 2


@pytest.mark.parametrize(
    "change", [{"num_hidden_layers": 1, "layer_types": ["full_attention"]}, {"intermediate_size": 40}]
)
def test_an_adapter_for_another_base(copy, made, tmp_path, change):
    source = copy("adapter")
    other = tmp_path / "other"
    shutil.copytree(made / "model", other)
    change_json(other / "config.json", lambda held: held["text_config"].update(change))

    def cut(held):
        for name, tensor in list(held.items()):
            if "num_hidden_layers" in change and name.startswith("model.layers.1"):
                del held[name]
            elif "intermediate_size" in change and name.startswith("model.layers") and ".mlp." in name:
                held[name] = (tensor[:, :40] if "down" in name else tensor[:40]).contiguous()

    change_tensors(other, cut)
    found = errors(source, tmp_path / "out", base=other)
    weights = source / "adapter_model.safetensors"
    for line in found:
        assert line.startswith(f"{weights}: tensor base_model.model.model.language_model.layers.")
        assert line.endswith("was it trained on another base?")
    settings = json.loads((source / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(made / "model")


def test_a_disk_without_room_is_named_before_anything_is_written(made, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    for form in ("hf", "orbax", "pth"):
        (line,) = errors(made / "model", tmp_path / "out", form)
        assert "the disk has 0 MB left; free some room, or name a target elsewhere" in line


@FORMATS
def test_a_failure_in_the_middle_leaves_nothing(made, tmp_path, monkeypatch, form):
    from vlm_jax.deferred import Deferred

    read, count = Deferred.__getitem__, []

    def fails(self, key):
        count.append(key)
        if len(count) == 7:
            raise OSError("no space left on device")
        return read(self, key)

    monkeypatch.setattr(Deferred, "__getitem__", fails)
    (tmp_path / "a").mkdir()
    with pytest.raises((OSError, vlm_jax.InputError), match="no space left"):
        vlm_jax.export(made / "model", tmp_path / "a" / "out", form)
    assert list((tmp_path / "a").iterdir()) == []
