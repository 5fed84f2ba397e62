"""The tiny model and batch of `tiny_run`, made once for a file."""

import pytest

from tests.tiny_models import save_tiny
from tests.training import tiny_run


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    save_tiny(folder, layers=2, depth=2, global_blocks=(1,), max_visual_tokens=16)
    return folder


@pytest.fixture(scope="module")
def batch(base):
    """Eight rows of unequal lengths, with unequal numbers of supervised tokens."""
    return tiny_run.make_batch(base)
