"""State dicts of PyTorch: read without running anything, written so that PyTorch reads them, full and of adapters."""

import json
import pickle
import zipfile

import numpy as np
import peft
import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

import vlm_jax
from tests.tiny_models import PHOTOS, assistant, save_tiny, user
from vlm_jax.checkpoint import pth
from vlm_jax.errors import InputError

QUESTION = [user("What is it?", str(PHOTOS / "chelsea.jpg")), assistant("A cat.")]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    return folder, save_tiny(folder, layers=2, depth=2, global_blocks=(1,))


def test_tensors_of_every_dtype_and_layout_are_read_as_pytorch_has_them(tmp_path):
    whole = torch.arange(24).reshape(4, 6).float()
    stored = {
        "plain": whole,
        "turned": whole.T,
        "part": whole[1:3, ::2],
        "scalar": torch.tensor(3.5),
        "none": torch.zeros(0, 4),
        "parameter": torch.nn.Parameter(whole.bfloat16()),
        **{
            str(dtype): whole.to(dtype)
            for dtype in (torch.float16, torch.float64, torch.int64, torch.uint8, torch.bool)
        },
    }
    torch.save(stored, tmp_path / "a.pth")
    read = pth.read(tmp_path / "a.pth")
    assert read.keys() == stored.keys()
    for name, tensor in stored.items():
        expected = tensor.detach().float().numpy()
        np.testing.assert_array_equal(read[name].astype(np.float32), expected, err_msg=name)
        assert read[name].dtype.name == str(tensor.dtype).removeprefix("torch.")


def test_what_is_written_pytorch_reads_with_weights_only(tmp_path):
    rng = np.random.default_rng(0)
    stored = {
        "a.weight": rng.normal(size=(3, 5)).astype(np.float32),
        "b": np.arange(6).reshape(1, 2, 3),
        "ก": np.ones((), np.float16),
    }
    pth.write(tmp_path / "a.pth", stored.items())
    read = torch.load(tmp_path / "a.pth", weights_only=True)
    assert list(read) == list(stored)
    for name, array in stored.items():
        np.testing.assert_array_equal(read[name].numpy(), array)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda stored: stored,
        lambda stored: {"state_dict": stored},
        lambda stored: {"model": {f"module.{k}": v for k, v in stored.items()}},
        lambda stored: {f"base_model.model.{k}": v for k, v in stored.items()},
    ],
)
def test_a_full_state_dict_is_the_model_it_was_taken_of(base, tmp_path, wrap):
    folder, model = base
    torch.save(wrap(model.state_dict()), tmp_path / "full.pth")
    vlm_jax.export(tmp_path / "full.pth", tmp_path / "hf", base=folder)
    expected = vlm_jax.load(folder).logits(QUESTION)
    np.testing.assert_array_equal(vlm_jax.load(tmp_path / "hf").logits(QUESTION), expected)
    vlm_jax.export(folder, tmp_path / "back.pth", "pth")
    again = Qwen2_5_VLForConditionalGeneration(model.config)
    again.load_state_dict(torch.load(tmp_path / "back.pth", weights_only=True))
    for (name, mine), theirs in zip(again.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), name


def test_adapters_in_a_state_dict_are_those_of_their_folder(base, tmp_path):
    folder, _ = base
    made = peft.get_peft_model(
        Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32),
        peft.LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "v_proj"], init_lora_weights=False),
    )
    made.save_pretrained(tmp_path / "adapter")
    state = {name: tensor for name, tensor in made.state_dict().items() if "lora_" in name}
    expected = vlm_jax.load(tmp_path / "adapter").logits(QUESTION)
    torch.save(state, tmp_path / "adapter" / "adapter.pth")
    other = vlm_jax.load(folder, adapter=tmp_path / "adapter" / "adapter.pth")
    np.testing.assert_array_equal(other.logits(QUESTION), expected)
    torch.save(made.state_dict(), tmp_path / "adapter" / "whole.pth")  # its base is in there too
    whole = vlm_jax.load(folder, adapter=tmp_path / "adapter" / "whole.pth")
    np.testing.assert_array_equal(whole.logits(QUESTION), expected)
    (tmp_path / "adapter" / "adapter_config.json").unlink()
    with pytest.raises(InputError, match="without their adapter_config.json"):
        vlm_jax.load(folder, adapter=tmp_path / "adapter" / "adapter.pth")


@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json", None])
def test_image_limits_of_the_folder_of_a_state_dict_count_before_the_bases(base, tmp_path, name):
    folder, model = base
    own = tmp_path / "trained"
    own.mkdir()
    torch.save(model.state_dict(), own / "full.pth")
    rules = json.loads((folder / "preprocessor_config.json").read_text())
    expected = (rules["min_pixels"], rules["max_pixels"])
    if name is not None:
        rules |= {"min_pixels": 8 * 28 * 28, "max_pixels": 16 * 28 * 28, "image_mean": [0.4, 0.5, 0.6]}
        rules.pop("size", None)
        expected = (8 * 28 * 28, 16 * 28 * 28)
        (own / name).write_text(json.dumps({"image_processor": rules} if name.startswith("processor") else rules))
    vlm_jax.export(own / "full.pth", tmp_path / "hf", base=folder)
    written = json.loads((tmp_path / "hf" / "preprocessor_config.json").read_text())
    assert (written["min_pixels"], written["max_pixels"]) == expected
    assert written["image_mean"] == rules["image_mean"]


def test_an_image_processor_of_another_model_beside_a_state_dict_is_refused(base, tmp_path):
    folder, model = base
    torch.save(model.state_dict(), tmp_path / "full.pth")
    rules = json.loads((folder / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(rules | {"patch_size": 16}))
    with pytest.raises(
        InputError, match=r"the image processor has patch and merge size \(16, 2\), the base .* \(14, 2\)"
    ):
        vlm_jax.export(tmp_path / "full.pth", tmp_path / "hf", base=folder)


def test_adapters_alone_of_which_more_was_trained_are_refused(base, tmp_path):
    folder, _ = base
    made = peft.get_peft_model(
        Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32),
        peft.LoraConfig(r=3, target_modules=["q_proj"], modules_to_save=["visual.merger"]),
    )
    made.save_pretrained(tmp_path)
    state = {name: tensor for name, tensor in made.state_dict().items() if "lora_" in name}
    torch.save(state, tmp_path / "adapter.pth")
    with pytest.raises(InputError, match="says that visual.merger was trained beside them; give the folder"):
        vlm_jax.load(folder, adapter=tmp_path / "adapter.pth")


class Evil:
    def __reduce__(self):
        return (open, ("/tmp/vlm_jax_was_here", "w"))


def test_a_pickle_that_does_anything_is_refused_and_does_nothing(tmp_path):
    torch.save({"a": torch.ones(2), "b": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="holds .*open, and only tensors are read"):
        pth.read(tmp_path / "evil.pth")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(InputError, match="torch.nn.modules.linear.Linear, and only tensors"):
        pth.read(tmp_path / "module.pth")


def test_what_is_no_state_dict_is_one_line(base, tmp_path):
    folder, model = base
    path = tmp_path / "a.pth"

    def error(**how):
        with pytest.raises(InputError) as caught:
            vlm_jax.export(path, tmp_path / "out", **how)
        assert all("\n" not in line and str(path) in line for line in caught.value.lines)
        return str(caught.value)

    torch.save(model.state_dict(), path)
    assert "name the model they belong to" in error()
    path.write_bytes(path.read_bytes()[:5000])
    assert "is cut short" in error(base=folder)
    path.write_bytes(pickle.dumps({"a": 1}))
    assert "is no archive of torch.save" in error(base=folder)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.txt", "x")
    assert "not one that torch.save wrote" in error(base=folder)
    torch.save({"a": torch.ones(2), "step": 3}, path)
    assert "holds more than tensors: step" in error(base=folder)
    torch.save({"a.weight": torch.ones(2), "a.weight.absmax": torch.ones(2)}, path)
    assert "bitsandbytes quantised (a.weight.absmax" in error(base=folder)
    stored = dict(model.state_dict())
    name = next(iter(stored))
    torch.save({**{k: v for k, v in stored.items() if k != name}, "odd": torch.ones(1)}, path)
    reported = error(base=folder)
    assert "is missing" in reported and "odd" in reported
