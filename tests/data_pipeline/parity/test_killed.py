"""An alignment that is killed at random moments comes to the same, and asks no model what it has answered."""

import json
import os
import random
import signal
import time
import traceback
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from data_pipeline.parity.aligning import Options, align
from data_pipeline.teachers.local import Local
from data_pipeline.teachers.store import Store
from tests import started
from tests.consoles import Lines

KILLS = 10
"""Of the long evidence; fewer show the same in less time."""
TOGETHER = 4
"""Requests that a model answers together: so many may be lost with one kill."""


def _aligned(folder: Path, config: dict, log: Path, why: Path) -> None:
    """In a process of its own: requests that are sent, and answers that are on the disk, are noted in their order."""
    sent, kept = Local._replies, Store.keep

    def note(what, keys):
        with log.open("a") as file:
            file.writelines(f"{what} {key}\n" for key in keys)

    def replies(self, requests):
        note("sent", [request.key(self.model, self.parameters(request.kind)) for request in requests])
        return sent(self, requests)

    def keep(self, key, *args, **more):
        kept(self, key, *args, **more)
        note("kept", [key])

    Local._replies, Store.keep = replies, keep
    try:
        align(folder, ConfigDict(config), Options(), say=lambda line: None, console=Lines())
    except BaseException:
        why.write_text(traceback.format_exc())
        raise


def outcome(folder: Path) -> dict[str, bytes]:
    """All files that say what came of it, and the weights."""
    names = ("annotated.jsonl", "compared.jsonl", "kept.jsonl", "agreement.json", "training_sets.json", "train.json")
    found = {name: next(folder.rglob(name)).read_bytes() for name in names}
    report = json.loads((folder / "report.json").read_text())
    found["report"] = json.dumps(report).encode()
    weights = folder / "round-1" / "kept" / "hf" / "model.safetensors"
    return {**found, "weights": weights.read_bytes(), "page": (folder / "report.html").read_bytes()}


@pytest.mark.parametrize("most", [4, pytest.param(KILLS, marks=pytest.mark.evidence)])
def test_killed_at_random_moments_it_comes_to_the_same_and_asks_nothing_again(world, config_of_world, tmp_path, most):
    config = config_of_world(
        annotate={"pairs": 2},
        level={"arms": ("kept",)},
        ask={"rows": TOGETHER},
        evaluate={"teacher": False},
        images={"most": 5},
        training={"checkpoint": {"every": 1}, "train": {"steps": 2, "epochs": 0, "remat": "none"}},
    )
    config.teachers.text.rows = TOGETHER
    why = tmp_path / "why"

    def begun(folder, log):
        process = started.context().Process(target=_aligned, args=(folder, config.to_dict(), log, why), daemon=True)
        process.start()
        return process

    loaded = started.context().Process(target=int)  # so that what is loaded once for all is not in the time
    loaded.start()
    loaded.join()
    first = time.monotonic()
    undisturbed = begun(tmp_path / "undisturbed", tmp_path / "undisturbed.log")
    undisturbed.join(120)
    assert undisturbed.exitcode == 0, why.read_text()
    whole = time.monotonic() - first
    chance, kills, finished, folders = random.Random(0), 0, False, 0
    while kills < most or not finished:
        folder, log = tmp_path / f"killed-{folders}" / "work", tmp_path / f"killed-{folders}.log"
        folder.parent.mkdir(exist_ok=True)
        process = begun(folder, log)
        process.join(chance.uniform(0.0, 0.35 * whole) if kills < most else 120)
        finished = process.exitcode is not None
        if not finished:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
            if folder.exists():
                started.wait_for_the_lock(folder)
        assert process.exitcode in (0, -signal.SIGKILL), why.read_text()
        if finished:
            assert outcome(folder) == outcome_of(tmp_path / "undisturbed", folder)
            check_log(log, tmp_path / "undisturbed.log", most)
            folders += 1


def outcome_of(undisturbed: Path, folder: Path) -> dict[str, bytes]:
    """As of the undisturbed one, its own folder's name aside."""
    found = outcome(undisturbed)
    return {name: text.replace(str(undisturbed).encode(), str(folder).encode()) for name, text in found.items()}


def check_log(log: Path, undisturbed: Path, kills: int) -> None:
    lines = [line.split() for line in log.read_text().splitlines()]
    answered: set[str] = set()
    for what, key in lines:
        if what == "kept":
            answered.add(key)
        else:
            assert key not in answered, "a model was asked what was answered and kept"
    sent = sum(what == "sent" for what, _ in lines)
    asked = sum(line.startswith("sent") for line in undisturbed.read_text().splitlines())
    assert asked <= sent <= asked + kills * TOGETHER
