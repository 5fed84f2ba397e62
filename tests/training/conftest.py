"""The tiny model and batch of `tiny_run`, made once for a file."""

import pytest

from tests.training import tiny_run


@pytest.fixture(scope="module")
def batch(base):
    """Eight rows of unequal lengths, with unequal numbers of supervised tokens."""
    return tiny_run.make_batch(base)
