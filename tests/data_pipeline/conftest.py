"""A tiny model's shapes and processor, made once for a file."""

import pytest

from tests.tiny_models import save_tiny
from vlm_jax.checkpoint import description


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """(shapes, processor)."""
    folder = tmp_path_factory.mktemp("model")
    save_tiny(folder)
    config = description.read_config(folder)
    return config, description.read_processor(folder, config, (4, 16))


@pytest.fixture(scope="module")
def processor(model):
    return model[1]
