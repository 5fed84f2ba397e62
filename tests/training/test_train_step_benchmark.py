"""The benchmark of a training step, in small: both sides do the same work, and every row of the table is there."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_both_sides_agree_and_every_row_is_there():
    command = [sys.executable, str(ROOT / "benchmarks" / "train_step.py"), "--preset=tiny", "--modes=full"]
    small = ["--samples=3", "--steps=1", "--rounds=1", "--turns=1", "--visual_tokens=16"]
    small += ["--lengths=ragged", "--layouts=padded", "--allocators=glibc"]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}  # tests share the cores
    done = subprocess.run([*command, *small], env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    (full,) = re.split(r"^tiny ragged ", done.stdout, flags=re.MULTILINE)[1:]
    assert "losses agree: before a step" in full and "ratio of medians" in full
    assert re.search(r"^  transformers +[\d.]+ samples/s, +[\d,]+ tokens/s, padding", full, re.MULTILINE)
    assert re.search(r"^  vlm_jax +[\d.]+ samples/s, .*% of patch slots", full, re.MULTILINE)
    tried = re.search(r"tried: (padded.*)", full)[1]
    assert re.fullmatch(r"(padded (sdpa|eager) [\d.]+ s(, )?){2}", tried)
