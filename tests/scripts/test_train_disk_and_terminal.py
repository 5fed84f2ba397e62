"""A training where the disk is full, in a terminal with workers, and from a converted model."""

import os
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest

import vlm_jax
from tests.scripts.test_train import command, train
from tests.started import environment
from vlm_jax.checkpoint import run_folder
from vlm_jax.errors import InputError


def test_a_converted_model_is_started_from_and_not_gone_on_with(base, tmp_path):
    vlm_jax.export(base, tmp_path / "orbax", "orbax")
    refused = train(base, tmp_path / "orbax")
    assert refused.returncode == 1 and "give it as config.model.path" in refused.stderr
    done = train(tmp_path / "orbax", tmp_path / "run", "--config.train.steps=1")
    assert done.returncode == 0, done.stderr


def test_a_full_disk_is_told_before_anything_is_written(tmp_path, monkeypatch):
    checkpoints = run_folder.Checkpoints(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(InputError, match="a checkpoint takes 0 MB and the disk has 0 MB left; free some room"):
        checkpoints.save(1, {"a": np.zeros(100)}, {})
    assert checkpoints.latest() is None


@pytest.mark.evidence
def test_ctrl_c_in_a_terminal_reaches_the_workers_too_and_still_saves(base, tmp_path):
    workdir = tmp_path / "run"
    process = subprocess.Popen(
        command(base, workdir, "--config.data.workers=2", "--config.train.steps=400", "--config.data.cache_mb=0"),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a group of its own, as a terminal's foreground job is
    )
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        if (workdir / "metrics.jsonl").exists() and len((workdir / "metrics.jsonl").read_text().splitlines()) >= 4:
            os.killpg(process.pid, signal.SIGINT)
            break
        time.sleep(0.05)
    output, complained = process.communicate(timeout=120)
    assert process.returncode == 130, output + complained
    assert "stopped at step" in output + complained and "Traceback" not in complained
    assert run_folder.latest_step(workdir) is not None
