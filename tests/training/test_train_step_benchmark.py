"""The benchmark of a training step, in small: both sides do the same work, and every row of the table is there."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_both_sides_agree_and_every_row_is_there():
    command = [sys.executable, str(ROOT / "benchmarks" / "train_step.py"), "--preset=tiny", "--modes=full,lora,qlora"]
    small = ["--samples=3", "--steps=1", "--turns=1", "--visual_tokens=16", "--lengths=ragged", "--layouts=padded,flat"]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}  # tests share the cores: PyTorch's threads must not spin
    done = subprocess.run([*command, *small], env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    full, lora, qlora = re.split(r"^tiny ragged ", done.stdout, flags=re.MULTILINE)[1:]
    for part in (full, lora):
        assert "losses agree: before a step" in part and "ratio of medians" in part
        assert re.search(r"^  transformers +[\d.]+ samples/s, +[\d,]+ tokens/s, padding", part, re.MULTILINE)
        assert re.search(r"^  vlm_jax +[\d.]+ samples/s, .*% of patch slots", part, re.MULTILINE)
        tried = re.search(r"tried: (.*)", part)[1]
        assert re.fullmatch(r"((padded|flat) (sdpa|eager) [\d.]+ s(, )?){4}", tried)
    assert re.search(r"^  vlm_jax ", qlora, re.MULTILINE)
    assert "left out: transformers + peft QLoRA: bitsandbytes is not installed" in qlora or "ratio" in qlora
