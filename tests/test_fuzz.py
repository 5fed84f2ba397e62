"""The small version of benchmarks/fuzz.py: broken files of every kind are read or refused in a line, nothing else."""

import re
import subprocess
import sys
from pathlib import Path

from tests.started import environment

ROOT = Path(__file__).resolve().parents[1]
PER_KIND = 4


def fuzz(*arguments):
    command = [sys.executable, ROOT / "benchmarks" / "fuzz.py", "--processes=1", *arguments]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=280)


def test_broken_files_are_read_or_refused_in_a_line():
    done = fuzz(f"--count={PER_KIND * 30}", "--start=1000000")
    table = re.findall(r"^(\S+) +(\d+) +(\d+) +(\d+)", done.stdout, re.M)
    counts = {name: (int(read), int(refused), int(other)) for name, read, refused, other in table}
    assert done.returncode == 0 and counts["all"][2] == 0, done.stdout
    assert len(counts) > 28 and all(sum(count) for count in counts.values())
    assert counts["all"][0] > 25 and counts["all"][1] > 25  # neither is all there is


def test_what_is_neither_is_told_with_its_seed():
    done = fuzz("--count=4", "--kinds=png", "--seconds=0.000001")
    assert done.returncode == 1
    assert len(re.findall(r"^png, seed \d+: took more than 1e-06 s", done.stdout, re.M)) == 4


def test_kinds_that_are_not_known_are_named():
    done = fuzz("--kinds=png,word")
    assert done.returncode == 1 and "--kinds=word: known are array_record" in done.stderr
