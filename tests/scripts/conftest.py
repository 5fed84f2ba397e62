"""What the tests of scripts start from: a model of one layer, for most of their time goes into compiling layers."""

import pytest


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny model as transformers saves it, with its tokenizer."""
    from tests.tiny_models import ONE_LAYER, save_tiny

    folder = tmp_path_factory.mktemp("base") / "model"
    save_tiny(folder, **ONE_LAYER)
    return folder
