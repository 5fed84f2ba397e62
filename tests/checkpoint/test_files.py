"""One writer at a time, and files that appear whole."""

import os
import subprocess
import sys

import pytest

from vlm_jax.checkpoint.files import alone, file_written_whole, read_json, write_json, written_whole
from vlm_jax.errors import InputError

HOLD = """
import sys
from pathlib import Path
from vlm_jax.checkpoint.files import alone
with alone(Path(sys.argv[1]), "training"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_told_what_is_going_on(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    with pytest.raises(InputError, match="another process is drawing in this folder"), alone(tmp_path, "drawing"):
        pass
    other.communicate("")
    with alone(tmp_path, "drawing"):
        pass


def test_a_value_that_cannot_be_written_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "held.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert path.read_text() == '{\n  "a": 1\n}\n'


@pytest.mark.parametrize("written", [written_whole, file_written_whole])
def test_of_two_writers_of_one_target_one_says_that_it_came_late(tmp_path, written):
    target = tmp_path / "model"

    def fill(path, text):
        (path if path.is_file() else path / "a").write_text(text)

    with pytest.raises(InputError, match="another process wrote it meanwhile; that is left"), written(target) as late:
        fill(late, "late")
        with written(target) as first:
            assert first != late
            fill(first, "first")
    assert (target if target.is_file() else target / "a").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_small_file_that_never_ends_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(InputError, match="is a named pipe, where a file is expected"):
        read_json(tmp_path / "config.json")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="nested too deeply"):
        read_json(tmp_path / "deep.json")
