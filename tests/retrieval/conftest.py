"""A small CLIP and passages for the tests of this folder."""

from pathlib import Path

import pytest

import vlm_jax
from tests.retrieval_world import write_passages
from tests.tiny_encoders import save_clip


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clip") / "tiny-clip"
    save_clip(folder)
    return folder


@pytest.fixture(scope="session")
def clip(clip_folder):
    return vlm_jax.load_encoder(clip_folder)


@pytest.fixture
def passages_file(tmp_path) -> Path:
    return write_passages(tmp_path / "knowledge")
