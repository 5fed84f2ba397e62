"""The batch of `tiny_run`, and a model for tests of what a run does around its steps; each made once for a file."""

import pytest

from tests.tiny_models import ONE_LAYER, PHOTOS, assistant, save_tiny, user
from tests.training.tiny_run import CAPACITY, ROWS
from vlm_jax.inference.loading import load
from vlm_jax.processing.rows import RowSpec, assemble, stack


@pytest.fixture(scope="module")
def batch(base):
    """Eight rows of unequal lengths, with unequal numbers of supervised tokens."""
    model = load(base, dtype="float32", visual_tokens=16)
    rows = []
    for number in range(ROWS):
        words = " ".join(["one two three"] * (1 + 3 * (number % 4)))
        shown = [str(PHOTOS / "chelsea.jpg")] if number % 3 else []
        rows.append(
            assemble(
                [model.encode([user(f"What is number {number}?", *shown), assistant(words)])],
                RowSpec(CAPACITY, model.config.vision.patch_dim, 4),
            )
        )
    return stack(rows)


@pytest.fixture(scope="module")
def one_layer(tmp_path_factory):
    """The smallest model: half as long to trace and compile."""
    folder = tmp_path_factory.mktemp("one_layer") / "model"
    save_tiny(folder, **ONE_LAYER)
    return folder
