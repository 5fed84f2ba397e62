"""Images of any size go through programs compiled once a shape: the benchmark, in small."""

import re
import sys
from pathlib import Path

from tests.started import environment, run

ROOT = Path(__file__).resolve().parents[2]


def test_no_size_of_image_compiles_a_step_anew():
    command = [sys.executable, str(ROOT / "benchmarks" / "any_size.py"), "--batches=10", "--images=120"]
    more = ["--tokens=256", "--context=320", "--buckets=2", "--visual_tokens=128"]
    done = run([*command, *more], env=environment())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "compiled 2 times for 2 shapes, 0 times more in 10 batches" in done.stdout
    shapes = re.findall(r"^ +(\d+) of \d+ × (\d+) tokens", done.stdout, re.MULTILINE)
    assert [tokens for _, tokens in shapes] == ["256", "320"] and all(int(count) > 0 for count, _ in shapes)
