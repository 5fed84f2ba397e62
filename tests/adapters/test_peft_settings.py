"""`adapter_config.json`: what peft writes today is read, and nothing that might change what is computed is let pass."""

import dataclasses
import json

import peft
import pytest

from vlm_jax.checkpoint.peft_settings import read_settings
from vlm_jax.errors import InputError


@pytest.fixture
def adapter(tmp_path):
    """Writes an adapter_config.json as this peft does, with changes; gives its folder."""

    def write(**changes):
        peft.LoraConfig(
            r=4, lora_alpha=6, target_modules=["q_proj"], base_model_name_or_path="org/base"
        ).save_pretrained(tmp_path)
        path = tmp_path / "adapter_config.json"
        settings = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: value for key, value in settings.items() if value != "REMOVED"}))
        return tmp_path

    return write


def errors(folder):
    with pytest.raises(InputError) as caught:
        read_settings(folder)
    assert all("\n" not in line and str(folder) in line for line in caught.value.lines)
    return caught.value.lines


def test_what_peft_writes_by_default_is_read(adapter):
    settings = read_settings(adapter())
    assert (settings.lora.rank, settings.lora.alpha, settings.base) == (4, 6.0, "org/base")
    assert settings.modules_to_save == ()


def test_a_setting_left_out_is_its_default(adapter):
    names = [field.name for field in dataclasses.fields(peft.LoraConfig)]
    left_out = {name: "REMOVED" for name in names if name not in ("peft_type", "r", "lora_alpha")}
    assert read_settings(adapter(**left_out)).base == ""


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("task_type", "CAUSAL_LM"),
        ("auto_mapping", {"base_model_class": "Qwen2_5_VLForConditionalGeneration", "unsloth_fixed": True}),
        ("inference_mode", False),
        ("lora_dropout", 0.3),
        ("exclude_modules", ".*visual.*"),
        ("layers_to_transform", [1]),
        ("loftq_config", {"loftq_bits": 4}),  # beside another initialisation peft leaves it aside too
        ("eva_config", {"rho": 2.0}),
        ("qalora_group_size", 32),
        ("ensure_weight_tying", True),
        ("runtime_config", {"ephemeral_gpu_offload": True}),
        ("lora_dtype", "fp32"),
        ("lorap_emb_lr", 1e-6),
        ("peft_version", "9.0"),
    ],
)
def test_what_does_not_change_an_adapter_is_read_whatever_it_is(adapter, key, value):
    assert read_settings(adapter(**{key: value})).lora.rank == 4


@pytest.mark.parametrize("value", [None, False, [], {}])
def test_a_setting_of_a_later_peft_is_read_where_it_is_empty(adapter, value):
    assert read_settings(adapter(new_method=value)).lora.rank == 4


@pytest.mark.parametrize("value", [True, 0, 0.0, 1, "", "fast", [1], {"rank": 2}])
def test_a_setting_of_a_later_peft_is_refused_by_name_where_it_says_something(adapter, value):
    (error,) = errors(adapter(new_method=value))
    assert f"new_method is {value!r}, a setting that is not known here" in error and "merge_and_unload" in error


USED = {
    "bias": "all",
    "use_dora": True,
    "rank_pattern": {"q_proj": 2},
    "alpha_pattern": {"q_proj": 2},
    "fan_in_fan_out": True,
    "lora_bias": True,
    "trainable_token_indices": [1, 2],
    "target_parameters": ["weight"],
    "layer_replication": [[0, 2], [1, 2]],
    "use_qalora": True,
    "alora_invocation_tokens": [1, 2],
    "velora_config": {"num_groups": 64},
    "monteclora_config": {"num_samples": 8},
    "kasa_config": {"beta": 1e-4},
    "arrow_config": {"top_k": 3},
    "use_bdlora": {"nblocks": 2},
    "megatron_config": {"a": 1},
}


@pytest.mark.parametrize("key", USED)
def test_a_method_that_is_not_computed_is_refused_by_name(adapter, key):
    (error,) = errors(adapter(**{key: USED[key]}))
    assert f"{key} is {USED[key]!r}, which is not read; merge the adapter with peft" in error


def test_every_setting_that_peft_knows_is_decided_on(adapter):
    """Given a value that is not its default, a setting is read, without effect, or refused as one that is known."""
    for name in (field.name for field in dataclasses.fields(peft.LoraConfig)):
        try:
            read_settings(adapter(**{name: "a value that peft has not"}))
        except InputError as error:
            assert "not known here and may change what is computed" not in str(error), name


@pytest.mark.parametrize("value", [True, False, None, "gaussian", "Gaussian", "eva", "orthogonal", "mica"])
def test_an_initialisation_that_leaves_the_base_as_it_is_does_not_matter(adapter, value):
    assert read_settings(adapter(init_lora_weights=value)).lora.rank == 4


@pytest.mark.parametrize(
    "value", ["pissa", "pissa_niter_16", "olora", "OLoRA", "corda", "lora_ga", "loftq", "sunrise", 1, ["pissa"]]
)
def test_an_initialisation_that_changed_the_base_or_is_unknown_is_refused(adapter, value):
    (error,) = errors(adapter(init_lora_weights=value))
    assert f"init_lora_weights is {value!r}" in error and "merge_and_unload" in error


def test_an_adapter_converted_for_the_untouched_base_is_told_how(adapter):
    assert "path_initial_model_for_weight_conversion" in errors(adapter(init_lora_weights="pissa"))[0]


@pytest.mark.parametrize("value", ["SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS"])
def test_an_adapter_of_a_classifier_is_refused(adapter, value):
    assert "another kind of model" in errors(adapter(task_type=value))[0]


def test_errors_are_told_together(adapter):
    found = errors(
        adapter(r=0, lora_alpha="8", use_rslora="yes", use_dora=True, later=1, revision=3, modules_to_save="merger")
    )
    for part in ("r is 0", "lora_alpha is '8'", "use_rslora", "use_dora", "later", "revision is 3", "modules_to_save"):
        assert sum(part in error for error in found) == 1, part
    assert len(found) == 7


@pytest.mark.parametrize(
    ("base", "revision", "expected"),
    [("org/base", "v2", "org/base@v2"), ("org/base", None, "org/base"), ("org/base@v1", "v2", "org/base@v1")],
)
def test_the_revision_of_a_base_on_the_hub_is_kept(adapter, base, revision, expected):
    assert read_settings(adapter(base_model_name_or_path=base, revision=revision)).base == expected


def test_the_revision_of_a_base_that_is_a_folder_says_nothing(adapter, tmp_path):
    settings = read_settings(adapter(base_model_name_or_path=str(tmp_path), revision="main"))
    assert settings.base == str(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("target_modules", 5, "a list of names of modules"),
        ("target_modules", [1], "a list of names of modules"),
        ("target_modules", "(q_proj", "no regular expression"),
        ("exclude_modules", {"a": 1}, "a list of names of modules"),
        ("layers_to_transform", ["1"], "a list of numbers of layers"),
        ("layers_to_transform", True, "a list of numbers of layers"),
        ("layers_pattern", [3], "a list of names of lists of layers"),
    ],
)
def test_targets_of_another_type_are_refused(adapter, key, value, wanted):
    (error,) = errors(adapter(**{key: value}))
    assert f"{key} is {value!r}" in error and wanted in error
