"""The README's own commands: five photographs and a table, to an answered question."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vlm_jax
from tests.started import as_shipped
from tests.tiny_models import PHOTOS
from vlm_jax.inference.engine import LoadedModel

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ("chelsea.jpg", "coffee.jpg", "rocket.jpg", "temple.jpg", "dahlia.jpg")


def block(heading, language):
    """The first code block of a language under a heading of the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)[1]
    return re.search(rf"^```{language}\n(.*?)^```", section, re.M | re.S)[1]


@pytest.mark.evidence
def test_four_commands_lead_from_five_photographs_to_an_answer(tmp_path):
    (tmp_path / "photos").mkdir()
    for name in IMAGES:
        shutil.copy(PHOTOS / name, tmp_path / "photos" / name)
    table = block("Your own images", "csv")
    assert sum(name in table for name in IMAGES) == len(IMAGES)
    (tmp_path / "questions.csv").write_text(table, encoding="utf-8")
    for name in ("configs", "scripts"):  # the commands are given from the checkout
        (tmp_path / name).symlink_to(ROOT / name)

    commands = [shlex.split(line) for line in block("Your own images", "bash").replace("\\\n", " ").splitlines()]
    assert len(commands) <= 4
    assert commands[0] == ["make", "setup"]
    for command in commands[1:]:
        assert command[0] == ".venv/bin/python"
        command[0] = sys.executable  # loading what it needs by itself
        done = subprocess.run(command, cwd=tmp_path, env=as_shipped(), capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr
    assert done.stdout == "Chelsea\n"


def test_every_name_of_the_python_example_exists():
    example = block("From Python", "python")
    for name in re.findall(r"vlm_jax\.(\w+)", example):
        assert hasattr(vlm_jax, name), name
    for name in re.findall(r"model\.(\w+)\(", example):
        assert hasattr(LoadedModel, name), name
