"""Settings whose keys are a person's own, on the command line: column by column, or as a whole."""

import pytest

import config_file
from vlm_jax.errors import InputError
from vlm_jax.training.config import default_config


def columns(*overrides, before=None):
    config = default_config()
    if before:
        config.data.columns = before
    config.lock()
    config_file.override(config, list(overrides))
    return config.data.columns.to_dict()


@pytest.mark.parametrize("before", [None, {"question": "q"}])
def test_a_column_is_named_like_any_setting(before):
    values = [("data.columns.image", "img_path"), ("data.columns.answer", "caption")]
    assert columns(*values, before=before) == {**(before or {}), "image": "img_path", "answer": "caption"}


@pytest.mark.parametrize("before", [None, {"question": "q", "image": "image"}])
def test_a_whole_mapping_stands_for_the_one_before(before):
    assert columns(("data.columns", "{'image': 'img_path'}"), before=before) == {"image": "img_path"}


def test_the_last_of_several_counts():
    whole = [("data.columns", "{'image': 'a'}"), ("data.columns", "{'image': 'b'}"), ("data.columns.image", "c")]
    assert columns(*whole) == {"image": "c"}


@pytest.mark.parametrize("text", ["img_path", "['image']", "{1: 'a'}", ""])
def test_what_is_no_mapping_is_one_line(text):
    with pytest.raises(InputError, match=r"--config.data.columns: needs a mapping such as \{'image': 'img_path'\}"):
        columns(("data.columns", text))
