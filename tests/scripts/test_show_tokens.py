"""scripts/show_tokens.py as a person starts it: a drawing, a page, and every error before a model is loaded."""

import dataclasses
import subprocess
import sys

import PIL.Image
import pytest

from tests.started import ROOT, environment, run
from tests.tiny_models import PHOTOS
from vlm_jax.errors import InputError
from vlm_jax.evaluation.token_drawing import Drawing, draw


def command(base, output, *more):
    options = [f"--model={base}", f"--image={PHOTOS / 'chelsea.jpg'}", f"--output={output}", *more]
    return [sys.executable, str(ROOT / "scripts" / "show_tokens.py"), *options]


def test_methods_are_drawn_side_by_side_and_one_that_a_model_cannot_take_is_left_out(base, tmp_path):
    done = subprocess.run(
        command(base, tmp_path / "tokens", "--visual_tokens=0.5"),
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    for left_out in ("mmr_learned", "pool_learned", "fastv", "pyramiddrop"):  # of two layers, without a scorer
        assert f"{left_out} is left out: " in done.stderr
    *drawn, last = done.stdout.splitlines()
    assert [line.split(":")[0] for line in drawn] == [
        *("resize", "random", "uniform", "pool", "divprune", "mmr", "cdpruner", "visionzip")
    ]
    assert last.startswith("drawn: ")
    assert PIL.Image.open(tmp_path / "tokens" / "tokens.png").width > 1000
    assert (tmp_path / "tokens" / "tokens.html").read_text(encoding="utf-8").count("<figure>") == len(drawn)


def test_without_a_question_methods_that_follow_it_are_left_out_or_refused(base, tmp_path):
    said = []
    drawing = Drawing(base, str(PHOTOS / "chelsea.jpg"), tmp_path / "tokens", 0.5, " ")
    drawn = draw(drawing, say=said.append)
    assert "cdpruner is left out: cdpruner follows --question, which is empty" in said
    assert len(drawn) == 7 and "divprune" in drawn[4].title
    with pytest.raises(InputError, match="cdpruner follows --question"):
        draw(dataclasses.replace(drawing, methods=["cdpruner"]), say=said.append)
    with pytest.raises(InputError, match="--token_reduction_layer=1: is of fastv, and --method is mmr, pool"):
        draw(dataclasses.replace(drawing, methods=["mmr", "pool"], layer=1), say=said.append)


def test_everything_that_is_wrong_is_told_at_once(base, tmp_path):
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens" / "mine.txt").write_text("mine")
    wrong = command(base, tmp_path / "tokens", "--method=divprun", "--method=mmr")
    done = run([*wrong[:3], "--image=nowhere.jpg", *wrong[4:]], env=environment(), cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    for line in ("'divprun': known are", "did you mean divprune?", "nowhere.jpg", "--output="):
        assert line in done.stderr, done.stderr
