"""What the tests of model folders share: folders that transformers saved, each made once."""

import shutil
from pathlib import Path

import pytest

from tests.checkpoint.folders import SHARD, save_folder


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Folders by their properties, made once; tests that change one copy it."""
    stored = {}

    def make(**properties) -> Path:
        key = tuple(sorted(properties.items(), key=str))
        if key not in stored:
            stored[key] = tmp_path_factory.mktemp("made") / "source"
            save_folder(stored[key], **properties)
        return stored[key]

    return make


@pytest.fixture
def folder(made, tmp_path) -> Path:
    """A tied, single-file folder of the test's own."""
    return Path(shutil.copytree(made(), tmp_path / "model"))


@pytest.fixture
def sharded(made, tmp_path) -> Path:
    return Path(shutil.copytree(made(shard=SHARD), tmp_path / "sharded"))
