"""What else lies in an adapter's folder: read as peft and the trainers that write it read it, or refused by name."""

import json
import shutil
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText as Model

import vlm_jax
from tests.tiny_models import PHOTOS, reference_inputs, save_tiny, user
from vlm_jax.checkpoint import description, peft_folder
from vlm_jax.checkpoint.model_source import open_model
from vlm_jax.errors import InputError

QUESTION = [user("What is it?", str(PHOTOS / "chelsea.jpg"))]
SETTINGS = {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"], "exclude_modules": ".*visual.*"}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    save_tiny(folder, layers=2, depth=2, global_blocks=(1,), tied=True)
    return folder


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("qwen3")
    save_tiny(folder, family="qwen3_vl", layers=2, depth=2, global_blocks=(0, 1), tied=True)
    return folder


@pytest.fixture(scope="module")
def untied(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("untied")
    save_tiny(folder, layers=1, depth=2, global_blocks=(1,), tied=False)
    return folder


def moved(model, names) -> None:
    """Some training of the parameters whose names hold one of these."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in names):
                parameter.add_(0.1 * torch.randn_like(parameter))


def made(base: Path, folder: Path, **settings):
    """An adapter that was trained, with what was trained beside it; peft's model of it."""
    model = peft.get_peft_model(Model.from_pretrained(base), peft.LoraConfig(**(SETTINGS | settings))).eval()
    moved(model, ["lora_", "modules_to_save"])
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def plain(base, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("adapters") / "plain"
    made(base, folder)
    return folder


@pytest.fixture
def adapter(plain, tmp_path) -> Path:
    return Path(shutil.copytree(plain, tmp_path / "adapter"))


def logits(model, base: Path) -> np.ndarray:
    tokenizer = description.read_tokenizer(base)
    with torch.no_grad():
        return model(**reference_inputs(base, tokenizer, QUESTION)).logits[0].numpy()


def close(one: np.ndarray, other: np.ndarray) -> None:
    assert np.abs(one - other).max() <= 1e-4 * np.abs(other).max()


def errors(base: Path, folder: Path) -> list[str]:
    with pytest.raises(InputError) as caught:
        open_model(str(folder), base=str(base)).check()
    assert all("\n" not in line for line in caught.value.lines)
    return caught.value.lines


@pytest.mark.parametrize(
    "modules", [["visual.merger"], ["merger"], ["mlp.2", "model.norm"], ["input_layernorm", "merger"], ["visual"]]
)
def test_modules_that_peft_saved_whole_compute_the_same(base, tmp_path, modules):
    expected = logits(made(base, tmp_path / "adapter", modules_to_save=modules), base)
    close(vlm_jax.load(base, adapter=tmp_path / "adapter").logits(QUESTION), expected)
    trained = open_model(str(tmp_path / "adapter"), base=str(base)).trained_beside_adapters()
    assert trained and (modules != ["merger"] or all(path.startswith("connector/") for path in trained))


@pytest.mark.parametrize(
    "modules",
    [
        ["merger"],
        ["deepstack_merger_list.0", "deepstack_merger_list.1"],
        ["linear_fc2", "model.norm", "q_norm"],
        ["visual"],
    ],
)
def test_modules_of_qwen3_that_peft_saved_whole_compute_the_same(qwen3, tmp_path, modules):
    expected = logits(made(qwen3, tmp_path / "adapter", modules_to_save=modules), qwen3)
    close(vlm_jax.load(qwen3, adapter=tmp_path / "adapter").logits(QUESTION), expected)


@pytest.mark.parametrize("modules", [["lm_head"], ["embed_tokens", "lm_head"]])
def test_tables_of_a_model_that_does_not_tie_them_are_read_where_peft_saved_them_whole(untied, tmp_path, modules):
    expected = logits(made(untied, tmp_path / "adapter", modules_to_save=modules), untied)
    close(vlm_jax.load(untied, adapter=tmp_path / "adapter").logits(QUESTION), expected)


@pytest.mark.parametrize("modules", [["lm_head"], ["embed_tokens"]])
def test_tables_of_a_model_that_ties_them_are_refused(base, tmp_path, modules):
    made(base, tmp_path / "adapter", modules_to_save=modules)
    (error,) = errors(base, tmp_path / "adapter")
    assert "the model ties its output layer to its embeddings; merge the adapter with peft" in error


def test_a_saved_module_that_is_not_whole_is_refused(base, adapter):
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"modules_to_save": ["visual.merger"]}))
    (error,) = errors(base, adapter)
    assert "modules_to_save names visual.merger" in error or "tensors are missing" in error
    tensors = load_file(adapter / "adapter_model.safetensors")
    tensors["base_model.model.model.visual.merger.ln_q.weight"] = torch.ones(32)
    save_file(tensors, adapter / "adapter_model.safetensors")
    (error,) = errors(base, adapter)
    assert "tensors are missing: visual.merger.mlp.0.weight" in error


def test_an_adapter_in_pytorchs_file_is_the_one_in_safetensors(base, adapter):
    source = open_model(str(adapter), base=str(base))
    expected = source.read_adapters()
    tensors = load_file(adapter / "adapter_model.safetensors")
    torch.save({name: tensor + 1 for name, tensor in tensors.items()}, adapter / "adapter_model.bin")
    of_both = open_model(str(adapter), base=str(base)).read_adapters()  # as in peft the safetensors count
    (adapter / "adapter_model.safetensors").unlink()
    torch.save(tensors, adapter / "adapter_model.bin")
    for found in (of_both, open_model(str(adapter), base=str(base)).read_adapters()):
        assert found.keys() == expected.keys()
        for path, array in expected.items():
            np.testing.assert_array_equal(found[path], array)


def test_an_adapter_in_a_pickle_that_holds_anything_else_is_refused(base, adapter):
    (adapter / "adapter_model.safetensors").unlink()
    torch.save({"a": torch.optim.SGD}, adapter / "adapter_model.bin")
    assert "only tensors are read" in errors(base, adapter)[0]
    (adapter / "adapter_model.bin").unlink()
    (error,) = errors(base, adapter)
    missing = f"{adapter / 'adapter_model.safetensors'}: is missing, and so is adapter_model.bin"
    assert error == f"{missing}; copy the whole adapter folder"


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("non_lora_state_dict.bin", "base_model.model."),
        ("non_lora_trainables.bin", "base_model.model.model."),
        ("non_lora_state_dict.bin", ""),
    ],
)
def test_what_a_trainer_keeps_beside_its_adapters_is_in_the_model(base, adapter, name, prefix):
    model = Model.from_pretrained(base)
    moved(model, ["visual.merger", "visual.blocks"])
    held = {key: value for key, value in model.named_parameters() if "merger" in key or "visual.blocks" in key}
    old = {key.removeprefix("model."): value for key, value in held.items()}  # as transformers before 4.52 has them
    torch.save(
        {prefix + key: value for key, value in (old if prefix.endswith("model.model.") else held).items()},
        adapter / name,
    )
    expected = logits(peft.PeftModel.from_pretrained(model, adapter).eval(), base)
    close(vlm_jax.load(base, adapter=adapter).logits(QUESTION), expected)


def test_a_state_dict_without_tensors_adds_nothing(base, adapter, plain):
    torch.save({}, adapter / "non_lora_state_dict.bin")
    assert open_model(str(adapter), base=str(base)).trained_beside_adapters() == []


@pytest.mark.parametrize(
    ("held", "error"),
    [
        (
            {"model.visual.blocks.0.norm1.weight": (32,)},
            "1 of the 2 layers of visual.blocks.{}.norm1.weight are missing",
        ),
        ({"model.visual.merger.ln_q.weight": (31,)}, "visual.merger.ln_q.weight has shape (31,)"),
        ({"value_head.weight": (3,)}, "tensors no part of the model takes: value_head.weight"),
        ({"model.language_model.embed_tokens.weight": (640, 64)}, "ties its output layer to its embeddings"),
    ],
)
def test_what_does_not_fit_beside_an_adapter_is_refused(base, adapter, held, error):
    torch.save({name: torch.zeros(shape) for name, shape in held.items()}, adapter / "non_lora_state_dict.bin")
    (found,) = errors(base, adapter)
    assert error in found and "non_lora_state_dict.bin" in found


@pytest.mark.parametrize("name", ["mm_projector.bin", "final_connector.pth"])
def test_the_connector_of_a_llava_is_refused_beside_an_adapter_of_a_qwen(base, adapter, name):
    torch.save({"model.mm_projector.0.weight": torch.zeros(2, 2)}, adapter / name)
    assert errors(base, adapter) == [
        f"{adapter / name}: is the connector of a LLaVA with a Qwen2 or Qwen3 decoder, and the base of this "
        "adapter is a Qwen2.5-VL; move it"
    ]


@pytest.mark.parametrize("name", ["vit.safetensors", "value_head.bin", "extra.pt", "model.ckpt"])
def test_weights_under_a_name_that_is_not_known_are_refused(base, adapter, name):
    (adapter / name).write_bytes(b"anything")
    (error,) = errors(base, adapter)
    assert error.startswith(f"{adapter / name}: weights beside an adapter under a name that is not known here")


@pytest.mark.parametrize(
    "name", ["training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "rng_state_3.pth"]
)
def test_what_a_trainer_keeps_to_go_on_is_left_aside(base, adapter, name):
    (adapter / name).write_bytes(b"anything")
    assert open_model(str(adapter), base=str(base)).trained_beside_adapters() == []


def test_a_parameter_in_two_files_is_refused(base, adapter):
    for name in ("non_lora_state_dict.bin", "non_lora_trainables.bin"):
        torch.save({"model.visual.merger.ln_q.weight": torch.ones(32)}, adapter / name)
    (error,) = errors(base, adapter)
    assert "non_lora_trainables.bin: holds connector/norm/scale, and so does" in error


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"target_modules": ["q_proj", "lm_head"]}, "lm_head.lora_A.weight is of an adapter on the output layer"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "is of an adapter on the token embeddings"),
        (
            {"target_modules": r".*(q_proj|patch_embed.proj)", "exclude_modules": None},
            "on a convolution (patch embedding)",
        ),
    ],
)
def test_an_adapter_on_what_has_none_here_is_refused_with_that_reason(untied, tmp_path, settings, reason):
    made(untied, tmp_path / "adapter", **settings)
    found = errors(untied, tmp_path / "adapter")
    assert any(reason in error and "merge_and_unload" in error for error in found), found
    assert not any("another base" in error for error in found)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("q_proj.lora_magnitude_vector", "is DoRA's"),
        ("q_proj.lora_B.bias", "is the bias of an adapter"),
        ("q_proj.lora_diag", "is of a kind of adapter that is not read"),
        ("q_proj2.lora_A.weight", "belongs to no linear layer of the model; was it trained on another base?"),
    ],
)
def test_a_tensor_that_is_no_adapters_is_refused_with_its_reason(base, adapter, name, reason):
    tensors = load_file(adapter / "adapter_model.safetensors")
    name = f"base_model.model.model.language_model.layers.0.self_attn.{name}"
    save_file(tensors | {name: torch.ones(2)}, adapter / "adapter_model.safetensors")
    assert any(f"tensor {name} {reason}" in error for error in errors(base, adapter))


def test_embeddings_that_were_saved_with_the_adapter_are_refused_with_that_reason(base, adapter):
    tensors = load_file(adapter / "adapter_model.safetensors")
    tensors["base_model.model.model.language_model.embed_tokens.weight"] = torch.zeros(640, 64)
    save_file(tensors, adapter / "adapter_model.safetensors")
    assert any("whole table that was saved with the adapter" in error for error in errors(base, adapter))


@pytest.mark.parametrize("modules", [["visual.merger"], ["merger.mlp.0"]])
def test_an_adapter_with_a_connector_is_written_so_that_peft_reads_it(base, tmp_path, modules):
    expected = logits(made(base, tmp_path / "adapter", modules_to_save=modules), base)
    vlm_jax.export(tmp_path / "adapter", tmp_path / "again", "peft", base=base)
    again = peft.PeftModel.from_pretrained(Model.from_pretrained(base), tmp_path / "again").eval()
    close(logits(again, base), expected)
    close(vlm_jax.load(base, adapter=tmp_path / "again").logits(QUESTION), expected)


def test_an_adapter_with_all_mergers_of_qwen3_is_written_so_that_peft_reads_it(qwen3, tmp_path):
    modules = ["visual.merger", "visual.deepstack_merger_list.0", "visual.deepstack_merger_list.1"]
    expected = logits(made(qwen3, tmp_path / "adapter", modules_to_save=modules), qwen3)
    trained = open_model(str(tmp_path / "adapter"), base=str(qwen3)).trained_beside_adapters()
    assert {path.split("/")[1] for path in trained} == {"norm", "fc1", "fc2", "deep"}
    vlm_jax.export(tmp_path / "adapter", tmp_path / "again", "peft", base=qwen3)
    again = peft.PeftModel.from_pretrained(Model.from_pretrained(qwen3), tmp_path / "again").eval()
    close(logits(again, qwen3), expected)
    close(vlm_jax.load(qwen3, adapter=tmp_path / "again").logits(QUESTION), expected)


@pytest.mark.parametrize("modules", [["model.norm"], ["visual"], ["visual.merger", "input_layernorm"]])
def test_more_than_adapters_and_connector_is_not_written_for_peft(base, tmp_path, modules):
    made(base, tmp_path / "adapter", modules_to_save=modules)
    with pytest.raises(InputError, match="adapters and the connector alone; take format hf, which holds everything"):
        vlm_jax.export(tmp_path / "adapter", tmp_path / "again", "peft", base=base)
    vlm_jax.export(tmp_path / "adapter", tmp_path / "merged", base=base)
    expected = vlm_jax.load(base, adapter=tmp_path / "adapter").logits(QUESTION)
    close(vlm_jax.load(tmp_path / "merged").logits(QUESTION), expected)


def test_a_connector_with_adapters_and_trained_whole_is_refused_for_peft(base, adapter, tmp_path):
    config = description.read_config(base)
    lora, parameters = peft_folder.read(adapter, config)
    shape = open_model(str(base)).read()["connector/fc1/kernel"].shape
    parameters |= {"connector/fc1/adapter/a": np.ones((shape[0], 2)), "connector/fc1/adapter/b": np.ones((2, shape[1]))}
    peft_folder.write(tmp_path / "both", config, lora, parameters, base=str(base))
    torch.save({"model.visual.merger.ln_q.weight": torch.ones(32)}, tmp_path / "both" / "non_lora_state_dict.bin")
    with pytest.raises(InputError, match="was trained as a whole and has adapters besides"):
        vlm_jax.export(tmp_path / "both", tmp_path / "again", "peft", base=base)


@pytest.mark.parametrize("where", ["adapter", "state dict"])
def test_image_limits_beside_trained_weights_count(base, adapter, tmp_path, where):
    limits = {"min_pixels": 4 * 28 * 28, "max_pixels": 9 * 28 * 28}
    rules = json.loads((base / "preprocessor_config.json").read_text())
    (adapter / "preprocessor_config.json").write_text(json.dumps(rules | limits))
    if where == "state dict":
        torch.save(load_file(adapter / "adapter_model.safetensors"), adapter / "adapter.pth")
    path = adapter if where == "adapter" else adapter / "adapter.pth"
    assert vlm_jax.load(base, adapter=path).processor.images.token_range == (4, 9)
    vlm_jax.export(path, tmp_path / "out", base=base)
    written = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())
    assert {key: written[key] for key in limits} == limits
    assert vlm_jax.load(tmp_path / "out").processor.images.token_range == (4, 9)
