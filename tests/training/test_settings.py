"""Settings that are unknown, missing or called as they were once: in a config, and in a checkpoint."""

import pytest
from ml_collections import ConfigDict

from vlm_jax.errors import InputError
from vlm_jax.training.config import RENAMED, check_config, default_config, renamed
from vlm_jax.training.resume_settings import earlier_settings


@pytest.fixture
def config():
    config = default_config()
    config.model.path, config.data.path = "model", "data"
    return config


def values(config, key):
    for name in key.split("."):
        config = config[name]
    return config


@pytest.mark.parametrize("old", RENAMED)
def test_a_setting_by_its_earlier_name_is_refused_with_the_one_it_has_now(config, old):
    group, name = config, old
    while "." in name:
        first, _, name = name.partition(".")
        if first not in group:
            group[first] = ConfigDict()
        group = group[first]
    group[name] = 1
    with pytest.raises(InputError) as refused:
        check_config(config)
    key = old if old.split(".")[0] in default_config() else old.split(".")[0]
    assert any(line.startswith(f"config.{key}: no such setting") for line in refused.value.lines)
    if key == old:
        assert refused.value.lines == [f"config.{old}: no such setting; it is config.{RENAMED[old]} now"]
    values(default_config(), RENAMED[old])  # the new name is a setting's


def test_names_below_a_renamed_group_and_others(config):
    assert renamed("optimizer.scales.vision") == "optimizer.lr_multipliers.vision"
    assert renamed("optimizer.scales_of") is None and renamed("train.steps") is None
    check_config(config)


def test_unknown_and_missing_settings_and_groups_that_are_none_are_told_together(config):
    config.train.speed = 3
    config.mine = 1
    del config.optimizer["eps"]
    del config["samples"]
    config.samples = 4
    with pytest.raises(InputError) as refused:
        check_config(config)
    assert sorted(refused.value.lines) == [
        "config.mine: no such setting",
        "config.optimizer.eps: is missing; start from default_config()",
        "config.samples is 4; it is a group of settings",
        "config.train.speed: no such setting; did you mean config.train.seed?",
    ]


def test_mappings_whose_keys_are_a_persons_may_hold_anything(config):
    config.data.path, config.data.mixture = "", {"mine": {"path": "a"}}
    config.data.columns = {"image": "img"}
    check_config(config)


def test_settings_of_an_earlier_checkpoint_are_known_by_their_names_now():
    stored = {"optimizer": {"scales": {"vision": 0.5}}, "train.what": "full", "batch.tokens": 64, "held_out": "ab"}
    assert earlier_settings(stored) == earlier_settings({}) | {
        "optimizer.lr_multipliers.vision": 0.5,
        "train.trainable": "full",
        "batch.sequence_length": 64,
        "validation": "ab",
    }
