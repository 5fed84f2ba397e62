"""Adapters go to PEFT folders and come from them: peft, in PyTorch, computes the same logits."""

import json
import re

import numpy as np
import peft
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForImageTextToText

from tests.tiny_models import PHOTOS, assistant, noise, reference_inputs, save_tiny, user
from vlm_jax.adapters import lora as adapters
from vlm_jax.adapters.lora import Lora
from vlm_jax.checkpoint import description, peft_folder
from vlm_jax.errors import InputError
from vlm_jax.inference.engine import LoadedModel
from vlm_jax.inference.loading import load
from vlm_jax.models.parameters import abstract_parameters

KINDS = [
    Lora(4, 8.0),
    Lora(3, 5.0, targets="attention", rslora=True),
    Lora(2, 1.0, targets="vision+connector"),
    Lora(5, 16.0, targets="attention+mlp+vision+connector", rslora=True),
    Lora(4, 4.0, targets=r"decoder/.*(q|v)_proj"),
]


@pytest.fixture(scope="module")
def base(request, tmp_path_factory):
    """Of the family that a test is for; Qwen2.5-VL unless said otherwise."""
    family = getattr(request, "param", "qwen2_5_vl")
    folder = tmp_path_factory.mktemp(family)
    save_tiny(folder, family=family)
    return folder


@pytest.fixture(scope="module")
def loaded(base):
    return load(base, dtype="float32")


@pytest.fixture(scope="module")
def question(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    return [user("What is it?", str(PHOTOS / "chelsea.jpg"), noise(folder, 84, 56)), assistant("A cat.")]


def drawn(config, lora, seed=0):
    """Random adapter parameters, b as well, so that they change something."""
    rng = np.random.default_rng(seed)
    shapes = abstract_parameters(config, attach=[lora.without_dropout().attach])
    return {
        path: rng.normal(0, 0.3 if path.endswith("/a") else 0.2 / lora.scale, leaf.shape).astype(np.float32)
        for path, leaf in sorted(shapes.items())
        if adapters.is_adapter(path)
    }


def ours(loaded, parameters, lora, question):
    """Logits with the adapters beside the base."""
    return put_together(loaded, {**loaded.parameters, **parameters}, [lora.attach]).logits(question)


def put_together(loaded, parameters, attach=()):
    return LoadedModel(loaded.config, parameters, loaded.processor, loaded.stop_tokens, dtype=np.float32, attach=attach)


def seen(base, loaded, question):
    return reference_inputs(base, loaded.processor.tokenizer, question)


def theirs(base, folder, loaded, question):
    model = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(model, folder).eval()
    with torch.no_grad():
        return model(**seen(base, loaded, question)).logits[0].numpy()


def close(one, other):
    assert np.abs(one - other).max() <= 1e-4 * np.abs(other).max()


@pytest.mark.parametrize(
    ("base", "lora"),
    [*(("qwen2_5_vl", kind) for kind in KINDS), ("qwen3_vl", KINDS[3])],
    indirect=["base"],
    ids=lambda value: value if isinstance(value, str) else f"{value.targets}-{value.rank}",
)
def test_peft_computes_the_same_with_an_adapter_that_is_written_here(base, loaded, question, lora, tmp_path):
    parameters = drawn(loaded.config, lora)
    peft_folder.write(tmp_path / "adapter", loaded.config, lora, parameters, base=str(base))
    expected = theirs(base, tmp_path / "adapter", loaded, question)
    close(ours(loaded, parameters, lora, question), expected)
    assert np.abs(expected - loaded.logits(question)).max() > 0.02 * np.abs(expected).max()  # it changes something
    again, held = peft_folder.read(tmp_path / "adapter", loaded.config)
    assert (again.rank, again.alpha, again.rslora) == (lora.rank, lora.alpha, lora.rslora)
    assert held.keys() == parameters.keys()
    for path, array in parameters.items():
        np.testing.assert_array_equal(held[path], array)


OF_PEFT = {
    "names": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    "all linear": {"r": 2, "lora_alpha": 3, "target_modules": "all-linear", "use_rslora": True},
    "expression": {"r": 3, "lora_alpha": 16, "target_modules": r".*language_model.*(up_proj|o_proj)"},
    "one layer": {"r": 2, "lora_alpha": 8, "target_modules": ["down_proj"], "layers_to_transform": [1]},
}


@pytest.mark.parametrize(
    ("base", "settings"),
    [*(("qwen2_5_vl", name) for name in OF_PEFT), ("qwen3_vl", "all linear")],
    indirect=["base"],
)
def test_an_adapter_of_peft_computes_the_same_here(base, loaded, question, settings, tmp_path):
    torch.manual_seed(1)
    model = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
    made = peft.get_peft_model(model, peft.LoraConfig(**OF_PEFT[settings]))
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.2)
    made.save_pretrained(tmp_path / "adapter")
    lora, parameters = peft_folder.read(tmp_path / "adapter", loaded.config)
    with torch.no_grad():
        expected = made.eval()(**seen(base, loaded, question)).logits[0].numpy()
    close(ours(loaded, parameters, lora, question), expected)
    merged = adapters.merged({**loaded.parameters, **parameters}, lora)
    merged = {path: np.asarray(array) for path, array in merged.items()}
    close(put_together(loaded, merged).logits(question), expected)


def test_errors_of_an_adapter_are_told_together(base, loaded, tmp_path):
    lora = Lora(4, 8.0, targets="attention")
    folder = tmp_path / "adapter"
    peft_folder.write(folder, loaded.config, lora, drawn(loaded.config, lora), base=str(base))
    held = load_file(folder / "adapter_model.safetensors")
    names = sorted(held)
    del held[names[0]]
    held[names[2]] = held[names[2]][:, :-1].copy()
    held["base_model.model.model.layers.77.self_attn.q_proj.lora_A.weight"] = held[names[3]]
    save_file(held, folder / "adapter_model.safetensors")
    with pytest.raises(InputError) as caught:
        peft_folder.read(folder, loaded.config)
    told = str(caught.value)
    assert "is missing for" in told and "has shape" in told and "layers.77" in told and "another base" in told

    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**settings, "use_dora": True, "r": 0}))
    with pytest.raises(InputError) as caught:
        peft_folder.read(folder, loaded.config)
    assert len(caught.value.lines) == 2 and "use_dora" in str(caught.value) and "r is 0" in str(caught.value)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "IA3"}))
    with pytest.raises(InputError, match="only LORA"):
        peft_folder.read(folder, loaded.config)


@pytest.fixture
def cut(base, tmp_path):
    """Writes an adapter with peft, and then without the tensors whose names match; gives its folder."""

    def write(pattern, **settings):
        model = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
        folder = tmp_path / "adapter"
        peft.get_peft_model(model, peft.LoraConfig(r=2, **settings)).save_pretrained(folder)
        held = load_file(folder / "adapter_model.safetensors")
        kept = {name: tensor for name, tensor in held.items() if not re.search(pattern, name)}
        assert pattern == "^$" or len(kept) < len(held)
        save_file(kept, folder / "adapter_model.safetensors")
        return folder

    return write


NAMES = ["q_proj", "v_proj"]
ONE = r"language_model\.layers\.1\.self_attn\.q_proj"


@pytest.mark.parametrize(
    ("pattern", "settings", "error"),
    [
        (ONE, {"target_modules": NAMES}, r"covers .*layers\.1\.self_attn\.q_proj, and there are no tensors for it;"),
        (r"layers\.0\.", {"target_modules": NAMES}, r"covers .*layers\.0\.self_attn\.\w_proj, .*no tensors for them;"),
        (ONE, {"target_modules": r".*language_model.*\.[qv]_proj"}, r"covers .*layers\.1\.self_attn\.q_proj"),
        (ONE, {"target_modules": "all-linear"}, r"covers .*layers\.1\.self_attn\.q_proj"),
        (r"\.q_proj", {"target_modules": NAMES}, r"names q_proj, of which there are no tensors"),
        (
            r"\.0\.mlp\.up",
            {"target_modules": ["up_proj"], "layers_to_transform": [0, 1]},
            r"covers .*\.0\.mlp\.up_proj",
        ),
    ],
)
def test_covered_layers_without_tensors_are_refused(cut, loaded, pattern, settings, error):
    with pytest.raises(InputError, match=error) as caught:
        peft_folder.read(cut(pattern, **settings), loaded.config)
    assert len(caught.value.lines) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["up_proj"], "layers_to_transform": [1]},
        {"target_modules": ["up_proj"], "layers_to_transform": 0, "layers_pattern": "layers"},
        {"target_modules": ["qkv", "q_proj"], "layers_to_transform": [1], "layers_pattern": ["blocks"]},
        {"target_modules": r".*layers\.1\..*up_proj"},
        {"target_modules": ["up_proj", "wq"], "exclude_modules": r".*layers\.0\..*"},
        {"target_modules": ["up_proj", "down_proj"], "exclude_modules": ["down_proj"]},
    ],
)
def test_layers_that_settings_leave_out_are_not_missed(cut, loaded, settings):
    assert peft_folder.read(cut("^$", **settings), loaded.config)[1]


def test_targets_that_match_nothing_are_an_error_with_the_numbers(loaded):
    with pytest.raises(InputError, match=r"matches none of the 14 linear layers"):
        abstract_parameters(loaded.config, attach=[Lora(4, 8.0, targets="decoder/.*gate").attach])
    with pytest.raises(InputError, match="nor a regular expression"):
        abstract_parameters(loaded.config, attach=[Lora(4, 8.0, targets="(").attach])


def test_a_fresh_adapter_changes_nothing(base, loaded, question):
    lora = Lora(4, 8.0)
    shapes = abstract_parameters(loaded.config, attach=[lora.attach])
    fresh = {path: adapters.initial(path, leaf.shape, 0) for path, leaf in shapes.items() if adapters.is_adapter(path)}
    assert all(np.abs(array).max() > 0 for path, array in fresh.items() if path.endswith("/a"))
    np.testing.assert_array_equal(ours(loaded, fresh, lora, question), loaded.logits(question))
    assert description.read_config(base) == loaded.config
