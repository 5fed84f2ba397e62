"""One server for the tests of a file, in this process."""

from pathlib import Path

import pytest

import vlm_jax
from tests.serving.served import client_of, eventually, served


@pytest.fixture(scope="module")
def model():
    return vlm_jax.load(Path(vlm_jax.__file__).parent / "assets" / "tiny_base")


@pytest.fixture(scope="module")
def server(model):
    with served(model) as server:
        yield server
        # An answer is whole a moment before its place is free.
        assert eventually(lambda: server.places.requests == server.places.bytes == 0) and server.reports == []


@pytest.fixture(scope="module")
def client(server):
    with client_of(server) as client:
        yield client
