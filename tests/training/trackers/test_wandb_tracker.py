"""Runs in Weights & Biases by its real client, offline: its files are read with its own messages."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.trackers.conftest import SETTINGS
from vlm_jax.errors import InputError
from vlm_jax.training.trackers.following import Follower, RunToTrack

wandb_tracker = pytest.importorskip("vlm_jax.training.trackers.wandb_tracker")
from vlm_jax.training.trackers.wandb_files import records  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.usefixtures("wandb_offline")


def follow(folder, state="finished", lines=None):
    follower = Follower(
        folder,
        wandb_tracker.WandbTracker(RunToTrack(folder, SETTINGS, "food", "mine")),
        ([] if lines is None else lines).append,
    )
    follower.state = state
    follower.close()


def written(folder):
    """The records of all files of the run, by kind, in the order in which they were begun."""
    by_kind = {}
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_ctime_ns):
        for record in records(path):
            kind = record.WhichOneof("record_type")
            by_kind.setdefault(kind, []).append(getattr(record, kind))
    return by_kind


def rows(folder):
    """{name: value} of each row."""
    return [
        {(item.key or ".".join(item.nested_key)): json.loads(item.value_json) for item in row.item}
        for row in written(folder)["history"]
    ]


def test_metrics_validation_settings_and_state_are_in_its_file_and_no_password(tmp_path, write, capfd):
    write(range(1, 6), validated=[4])
    lines = []
    follow(tmp_path, lines=lines)
    found = rows(tmp_path)
    assert [row["_step"] for row in found] == [1, 2, 3, 4, 5]
    assert found[1]["loss"] == 5.0 and found[3]["validation_loss"] == 5.0 and found[3]["validation_score"] == 0.25
    assert "loss" not in found[2] and found[2]["skipped"] == 1
    run = written(tmp_path)["run"][0]
    assert (run.project, run.display_name) == ("food", "mine")
    updates = [*run.config.update, *(item for one in written(tmp_path)["config"] for item in one.update)]
    settings = {item.key: json.loads(item.value_json) for item in updates}
    assert settings["train"] == {"steps": 9} and settings["data"] == {"path": "https://…@host/data.jsonl"}
    summary = [item for one in written(tmp_path)["summary"] for item in one.update if item.key == "state"]
    assert [json.loads(item.value_json) for item in summary] == ["finished"]
    assert [one.exit_code for one in written(tmp_path)["exit"]] == [0]
    assert lines == [f"wandb: run {run.run_id} (offline) in {tmp_path / 'wandb'}"]
    assert not any(b"secret" in path.read_bytes() for path in (tmp_path / "wandb").rglob("*") if path.is_file())
    assert "".join(capfd.readouterr()) == ""


def test_a_run_that_goes_on_is_the_same_run_and_no_step_is_there_twice(tmp_path, write):
    write(range(1, 5))
    follow(tmp_path, "stopped")
    write(range(4, 8), done=3)
    follow(tmp_path)
    assert [row["_step"] for row in rows(tmp_path)] == [1, 2, 3, 4, 5, 6, 7]
    assert len({run.run_id for run in written(tmp_path)["run"]}) == 1


KILLED = """
import os, signal, sys, time
from pathlib import Path
from tests.training.trackers.conftest import SETTINGS
from vlm_jax.training.trackers.following import RunToTrack, Rows
from vlm_jax.training.trackers.wandb_tracker import WandbTracker
folder = Path(sys.argv[1])
tracker = WandbTracker(RunToTrack(folder, SETTINGS, "food", "mine"))
assert tracker.open() == 0
tracker.send(Rows(folder).read(ended=False))
time.sleep(0.5)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_after_a_kill_each_step_is_there_once_also_those_that_the_client_had_not_written(tmp_path, write):
    write(range(1, 400))
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, capture_output=True)
    assert killed.returncode == -9, killed.stderr
    before = len(rows(tmp_path))
    assert 0 < before < 398  # the client writes its file a block at a time
    write(range(301, 403), done=300)
    follow(tmp_path)
    assert [row["_step"] for row in rows(tmp_path)] == list(range(1, 403))


def test_a_server_that_is_not_there_is_reported_and_stops_nothing(tmp_path, write, monkeypatch, capfd):
    import wandb

    wandb.teardown()
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
    wandb_tracker.check()
    write(range(1, 4))
    lines = []
    follow(tmp_path, lines=lines)
    assert lines[-1] == "wandb: did not get all of the run; metrics.jsonl and validation.jsonl have it"
    assert "".join(capfd.readouterr()) == "" and "aaaa" not in "".join(lines)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"WANDB_MODE": "online"}, "nobody is logged in: run `wandb login`"),
        ({"WANDB_MODE": "sometimes"}, "refuses its environment variables: .*sometimes"),
        ({"WANDB_MODE": "online", "WANDB_API_KEY": "short"}, "refuses its environment variables: .*WANDB_API_KEY"),
    ],
)
def test_variables_that_it_cannot_use_are_refused(tmp_path, monkeypatch, variables, expected):
    import wandb

    wandb.teardown()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=expected) as caught:
        wandb_tracker.check()
    assert len(caught.value.lines) == 1 and os.environ.get("WANDB_API_KEY", "none") not in str(caught.value)
