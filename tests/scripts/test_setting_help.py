"""What --help says of settings, and which setting is meant by the names that others give it."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "scripts"))  # where programs find the modules beside them

from config_file import load_config, settings_of  # noqa: E402
from setting_comments import comments, comments_of  # noqa: E402
from setting_words import MEANT, nearest  # noqa: E402

SOURCE = """
def get_config():
    config = ConfigDict({
        "a": 1,  # beside
        # above,
        # in two lines
        "b": "# no comment",
        "group": {  # of the group
            "c": (
                1,
            ),  # at its end
            "d": 2,
        },
        # Of a group in one line.
        "flat": {"e": 1, "f": 2},
    })
    config.a = 2  # a value for this config
    return config

def with_keywords():
    return made(
        x=1,  # by keyword
        y={"z": 2},
    )
"""


def test_comments_beside_above_and_at_the_end_are_those_of_theirsettings_of():
    source = SOURCE.replace("config = ConfigDict", "return ConfigDict", 1)
    assert comments(source) == {
        "a": "beside",
        "b": "above, in two lines",
        "group": "of the group",
        "group.c": "at its end",
        "flat": "Of a group in one line.",
        "x": "by keyword",
    }


@pytest.mark.parametrize(
    "path", [path for place in (".", "corpus", "parity") for path in sorted((ROOT / "configs" / place).glob("*.py"))]
)
def test_every_setting_of_a_config_is_explained_by_itself_or_with_its_group(path):
    explained = comments_of(path)
    keys = [key.removeprefix("config.") for key, *_ in settings_of(load_config(str(path)))]
    groups = {key: [key[:end] for end, letter in enumerate(key) if letter == "." and "." in key[:end]] for key in keys}
    groups |= {key: [key.partition(".")[0]] for key in keys if key.count(".") == 1}
    assert [key for key in keys if not any(name in explained for name in (key, *groups[key]))] == []


@pytest.fixture(scope="module")
def settings():
    config = load_config(str(ROOT / "configs" / "photos.py"))
    return {key: parent for key, parent, _ in settings_of(config)}


@pytest.mark.parametrize(
    ("word", "setting"),
    [
        ("optimizer.lr", "optimizer.learning_rate"),
        ("lr", "optimizer.learning_rate"),
        ("batch.size", "batch.rows"),
        ("batch_size", "batch.rows"),
        ("train.per_device_train_batch_size", "batch.rows"),
        ("num_train_epochs", "train.epochs"),
        ("max-steps", "train.steps"),
        ("lora.r", "lora.rank"),
        ("lora.target_modules", "lora.targets"),
        ("max_length", "batch.sequence_length"),
        ("gradient_accumulation_steps", "batch.gradient_accumulation"),
        ("warmup_ratio", "optimizer.warmup_fraction"),
        ("optim.b2", "optimizer.b2"),
        ("training.seed", "train.seed"),
        ("optimizer.learning_rat", "optimizer.learning_rate"),
    ],
)
def test_a_name_that_others_give_a_setting_leads_to_ours(settings, word, setting):
    assert nearest(f"config.{word}", settings) == f"config.{setting}"


def test_every_setting_that_is_suggested_exists_and_each_name_means_one(settings):
    names = [name for text in MEANT.values() for name in text.split()]
    assert [key for key in MEANT if f"config.{key}" not in settings] == []
    assert sorted(names) == sorted(set(names))
