"""One writer at a time, and files that appear whole."""

import subprocess
import sys

import pytest

from vlm_jax.checkpoint.files import alone, write_json
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
