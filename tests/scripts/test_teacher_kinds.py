"""The kind of a teacher on the command line, which brings the settings of that kind."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "scripts"))  # where programs find the modules beside them

from config_file import load_config  # noqa: E402
from data_pipeline.teachers.settings import SETTINGS, checked  # noqa: E402
from vlm_jax.errors import InputError  # noqa: E402

IMAGES = str(ROOT / "configs" / "parity" / "images.py")
ADDRESS = "http://127.0.0.1:8000/v1"


def teachers(*overrides):
    return load_config(IMAGES, list(overrides)).teachers


def test_a_teacher_of_another_kind_has_the_settings_of_that_kind_whatever_the_order():
    kind, endpoint = ("teachers.text.kind", "openai_compatible"), ("teachers.text.endpoint", ADDRESS)
    before = teachers().text
    for order in ([kind, endpoint], [endpoint, kind]):
        text = teachers(*order).text.to_dict()
        assert checked(text, "config.teachers.text") == text
        assert set(text) == {"kind", *SETTINGS["openai_compatible"]}
        assert (text["kind"], text["endpoint"], text["model"]) == ("openai_compatible", ADDRESS, before.model)


def test_the_same_kind_keeps_what_the_file_sets():
    assert teachers(("teachers.text.kind", "local")) == teachers()


def test_a_teacher_that_the_file_leaves_out_is_had_by_its_kind():
    judge = teachers(("teachers.judge.kind", "local"), ("teachers.judge.model", "large")).judge
    assert (judge.kind, judge.model) == ("local", "large")
    assert judge.is_locked


@pytest.mark.parametrize(
    "wrong", [("teachers.text.endpoint", ADDRESS), ("teachers.txt.kind", "local"), ("teachers.judge.kind", "locl")]
)
def test_what_no_teacher_has_is_refused(wrong):
    with pytest.raises(InputError, match=f"--config.{wrong[0]}: no such setting"):
        teachers(wrong)


def test_help_lists_the_settings_of_the_kind_that_is_named():
    command = [sys.executable, str(ROOT / "scripts" / "align_parity.py"), f"--config={IMAGES}", "--help"]
    command.append("--config.teachers.text.kind=openai_compatible")
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60).stdout
    assert "config.teachers.text.endpoint = ''" in said and "config.teachers.text.rows" not in said
