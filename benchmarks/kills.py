"""Kills a training run again and again, at random moments and in the middle of saves, and goes on each time.

    .venv/bin/python benchmarks/kills.py --output=runs/kills --rounds=20

A run of the model that ships, on the photographs of the tests, is taken to its end once without a kill. Then every
round takes another from its start to its end: it is stopped (in turns SIGKILL at a random moment, SIGTERM at a random
moment, SIGKILL in the middle of a save, SIGTERM in the middle of a save) and started again with the same command until
it ends. Prints a line a round: where it was stopped, from which step it went on, and whether every loss and every
weight is that of the first run, bit for bit. Exit status 1 where one is not, or where it went on from another step than
its newest whole checkpoint.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from vlm_jax.checkpoint import run_folder

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("SIGKILL", "SIGTERM", "SIGKILL in a save", "SIGTERM in a save")


def command(workdir: Path, steps: int) -> list[str]:
    return [
        sys.executable,
        str(ROOT / "scripts" / "train.py"),
        f"--config={ROOT / 'configs' / 'photos.py'}",
        f"--workdir={workdir}",
        f"--config.model.path={ROOT / 'vlm_jax' / 'assets' / 'tiny_base'}",
        f"--config.data.path={ROOT / 'tests' / 'data' / 'photos' / 'photos.json'}",
        "--config.model.max_visual_tokens=16",
        "--config.batch.tokens=256",
        f"--config.train.steps={steps}",
        "--config.checkpoint.every=3",
    ]


def is_saving(workdir: Path) -> bool:
    """Whether a checkpoint is being written: Orbax gives it another name until it is whole."""
    folder = workdir / "checkpoints"
    return folder.is_dir() and any("tmp" in path.name for path in folder.iterdir())


def steps_told(workdir: Path) -> int:
    path = workdir / "metrics.jsonl"
    return len(path.read_bytes().splitlines()) if path.is_file() else 0


def stop(process: subprocess.Popen, workdir: Path, kind: str, after: float, seconds: float = 300) -> str | None:
    """Stops a run as `kind` says; what it was doing, or None where it ended before.

    Args:
      after: seconds from its first step of this start, before which it is left alone.
    """
    before, deadline = steps_told(workdir), time.monotonic() + seconds
    stepping = None
    while process.poll() is None and time.monotonic() < deadline:
        if stepping is None and steps_told(workdir) > before:
            stepping = time.monotonic()
        late = stepping is not None and time.monotonic() - stepping >= after
        if late and ("save" not in kind or is_saving(workdir)):
            process.send_signal(getattr(signal, kind.split()[0]))
            process.wait()
            return f"step {steps_told(workdir)}"
        time.sleep(0.001)
    return None


def outcome(workdir: Path) -> tuple[list, dict[str, np.ndarray]]:
    """(losses, weights) of a finished run."""
    losses = [json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    with run_folder.newest(workdir) as (checkpoints, step):
        weights = checkpoints.restore_parameters(step, None)
    return losses, {path: np.asarray(array) for path, array in weights.items()}


def same(one, other) -> bool:
    return one[0] == other[0] and all(np.array_equal(array, other[1][path]) for path, array in one[1].items())


def run(workdir: Path, steps: int) -> subprocess.Popen:
    return subprocess.Popen(command(workdir, steps), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def round_of(workdir: Path, steps: int, kind: str, after: float, wanted) -> tuple[str, bool] | None:
    """Takes a run to its end through one stop; what happened, and whether it came out as `wanted`.

    None where it ended before it could be stopped.
    """
    process = run(workdir, steps)
    where = stop(process, workdir, kind, after)
    process.communicate()
    if where is None:
        return None
    held = run_folder.latest_step(workdir)
    again = run(workdir, steps)
    said = again.communicate()[1].decode()
    if again.returncode:
        return f"{where}: did not go on: {said.strip().splitlines()[-1]}", False
    went_on = f"going on from step {held}" in said if held else "going on" not in said
    good = went_on and same(outcome(workdir), wanted)
    return f"stopped at {where}, went on from step {held or 0}", good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder to work in; it is emptied")
    parser.add_argument("--rounds", type=int, default=20, help="runs that are stopped (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=40, help="of each run (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments (default: %(default)s)")
    given = parser.parse_args()
    shutil.rmtree(given.output, ignore_errors=True)
    given.output.mkdir(parents=True)
    whole = given.output / "whole"
    process = run(whole, given.steps)
    told = process.communicate()[1].decode()
    if process.returncode:
        sys.exit(told)
    wanted, rng, bad = outcome(whole), random.Random(given.seed), 0
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    length = sum(line["seconds"] for line in lines)
    for number in range(given.rounds):
        kind = KINDS[number % len(KINDS)]
        workdir = given.output / f"round{number}"
        while (told := round_of(workdir, given.steps, kind, rng.uniform(0, length), wanted)) is None:
            shutil.rmtree(workdir)  # it ended before it could be stopped: another moment
        happened, good = told
        print(f"{number + 1:3} {kind:18} {happened}: {'equal' if good else 'NOT EQUAL'}", flush=True)
        bad += not good
        shutil.rmtree(workdir)
    print(f"{given.rounds - bad} of {given.rounds} runs of {given.steps} steps equal the one that was never stopped")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
