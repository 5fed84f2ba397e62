"""Pictures of any size go through programs compiled once a shape: the benchmark, in small."""

import re
import subprocess
import sys
from pathlib import Path

from tests.started import environment

ROOT = Path(__file__).resolve().parents[2]


def test_no_size_of_picture_compiles_a_step_anew():
    command = [sys.executable, str(ROOT / "benchmarks" / "any_size.py"), "--batches=14", "--pictures=120"]
    more = ["--tokens=384", "--context=512", "--buckets=2", "--visual_tokens=256"]
    done = subprocess.run([*command, *more], env=environment(), capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "compiled 2 times for 2 shapes, 0 times more in 14 batches" in done.stdout
    shapes = re.findall(r"^ +(\d+) of \d+ × (\d+) tokens", done.stdout, re.MULTILINE)
    assert [tokens for _, tokens in shapes] == ["384", "512"] and all(int(count) > 0 for count, _ in shapes)
