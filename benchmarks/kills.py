"""Stops a training run again and again, from its first millisecond to its last, and goes on each time.

    .venv/bin/python benchmarks/kills.py --output=runs/kills --rounds=40

A run of the model that ships, on the photographs of the tests, is taken to its end once without being stopped. Then
every round takes another from its start to its end: it is stopped (SIGKILL, SIGTERM and SIGINT in turns; at any moment
of the whole program, while it starts, or in the middle of a save, in turns) and started again with the same command
until it ends. Prints a line a round: where it was stopped, with which status, from which step it went on, and whether
every loss and every weight is that of the first run, bit for bit. Exit status 1 where one is not, where it went on from
another step than its newest whole checkpoint, or where a signal ended it with a traceback or another status than it
should.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np

from vlm_jax.checkpoint import run_folder

ROOT = Path(__file__).resolve().parents[1]
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
MOMENTS = ("at any moment", "while it starts", "in a save")
STATUS = {"SIGKILL": (-9,), "SIGTERM": (-15, 130), "SIGINT": (130,)}
"""Of the program: of SIGTERM before it trains the system's own; both save and stop a run that trains."""


def command(workdir: Path, steps: int) -> list[str]:
    return [
        sys.executable,
        str(ROOT / "scripts" / "train.py"),
        f"--config={ROOT / 'configs' / 'photos.py'}",
        f"--workdir={workdir}",
        f"--config.model.path={ROOT / 'vlm_jax' / 'assets' / 'tiny_base'}",
        f"--config.data.path={ROOT / 'tests' / 'data' / 'photos' / 'photos.json'}",
        "--config.model.max_visual_tokens=16",
        "--config.batch.sequence_length=256",
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


def stop(process: subprocess.Popen, workdir: Path, name: str, moment: str, after: float, seconds: float = 300) -> bool:
    """Sends a signal `after` seconds, and then as soon as `moment` says; False where the program ended before."""
    begun = time.monotonic()
    while process.poll() is None and time.monotonic() < begun + seconds:
        if time.monotonic() >= begun + after and (moment != "in a save" or is_saving(workdir)):
            process.send_signal(getattr(signal, name))
            process.wait()
            return True
        time.sleep(0.0005)
    return False


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


def round_of(workdir: Path, steps: int, name: str, moment: str, after: float, wanted) -> tuple[str, bool] | None:
    """Takes a run to its end through one stop; what happened, and whether it came out as `wanted`.

    None where it ended before it could be stopped.
    """
    process = run(workdir, steps)
    stopped = stop(process, workdir, name, moment, after)
    output = process.communicate()[1].decode()
    if not stopped or process.returncode == 0:
        return None
    where = f"step {steps_told(workdir)}, status {process.returncode}"
    if process.returncode not in STATUS[name] or "Traceback" in output:
        return f"{where}: {output.strip()[-300:]}", False
    newest = run_folder.latest_step(workdir)
    again = run(workdir, steps)
    output = again.communicate()[1].decode()
    if again.returncode:
        return f"{where}: did not go on: {output.strip().splitlines()[-1]}", False
    went_on = "going on" not in output if newest is None else f"going on from step {newest}" in output
    if newest == steps:
        went_on = "finished: all" in output
    good = went_on and same(outcome(workdir), wanted)
    begun = "began anew" if newest is None else f"went on from step {newest}"
    return f"stopped after {after:.3f} s at {where}, {begun}", good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder to work in; it is emptied")
    parser.add_argument("--rounds", type=int, default=40, help="runs that are stopped (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=40, help="of each run (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments (default: %(default)s)")
    options = parser.parse_args()
    shutil.rmtree(options.output, ignore_errors=True)
    options.output.mkdir(parents=True)
    whole, rng, bad = options.output / "whole", random.Random(options.seed), 0
    for name in ("compiling", "whole"):  # the second start is what every other is like
        begun = time.monotonic()
        process = run(options.output / name, options.steps)
        errors = process.communicate()[1].decode()
        if process.returncode:
            sys.exit(errors)
        length = time.monotonic() - begun
    wanted = outcome(whole)
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    starting = length - sum(line["seconds"] for line in lines)
    for number in range(options.rounds):
        name, moment = SIGNALS[number % 3], MOMENTS[number // 3 % 3]
        workdir = options.output / f"round{number}"
        latest = starting if moment == "while it starts" else length
        while (result := round_of(workdir, options.steps, name, moment, rng.uniform(0, latest), wanted)) is None:
            shutil.rmtree(workdir, ignore_errors=True)  # it ended before it could be stopped: another moment
        happened, good = result
        print(f"{number + 1:3} {name:8} {moment:16} {happened}: {'equal' if good else 'NOT EQUAL'}", flush=True)
        bad += not good
        shutil.rmtree(workdir, ignore_errors=True)
    print(
        f"{options.rounds - bad} of {options.rounds} runs of {options.steps} steps equal the one that was never stopped"
    )
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
