"""The server that answers as teachers of a corpus."""

import pytest

from tests.data_pipeline.corpus import prompted
from tests.data_pipeline.teachers.teacher_server import TeacherServer


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("TEST_TOKEN", "secret-token")
    with TeacherServer(prompted.answer) as server:
        yield server
