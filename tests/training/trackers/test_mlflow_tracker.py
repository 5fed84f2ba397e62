"""Runs in MLflow by its real client, read back from its database."""

import dataclasses
import socket

import pytest

from tests.training.trackers.conftest import SETTINGS
from vlm_jax.errors import InputError
from vlm_jax.training.trackers.following import Follower, RunToTrack

mlflow_tracker = pytest.importorskip("vlm_jax.training.trackers.mlflow_tracker")


def follow(folder, state="finished", lines=None, **changed):
    run = dataclasses.replace(RunToTrack(folder, SETTINGS, "food", "mine"), **changed)
    follower = Follower(folder, mlflow_tracker.MlflowTracker(run), ([] if lines is None else lines).append)
    follower.state = state
    follower.close()


def runs(client, name="food"):
    return client.search_runs([client.get_experiment_by_name(name).experiment_id])


def curve(client, run, name):
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]


def test_metrics_validation_settings_and_state_are_in_its_database(tmp_path, write, mlflow_database, capfd):
    write(range(1, 6), validated=[4])
    lines = []
    follow(tmp_path, lines=lines)
    (run,) = runs(mlflow_database)
    assert curve(mlflow_database, run, "loss") == [(1, 10.0), (2, 5.0), (4, 2.5), (5, 2.0)]
    assert curve(mlflow_database, run, "skipped") == [(3, 1.0)]
    assert curve(mlflow_database, run, "validation_score") == [(4, 0.25)]
    assert run.data.params == {"train.steps": "9", "data.path": "https://…@host/data.jsonl", "batch.rows": "2"}
    assert (run.info.status, run.info.run_name) == ("FINISHED", "mine")
    assert lines == [f"mlflow: run {run.info.run_id} at sqlite:///{tmp_path / 'tracked.db'}"]
    assert "".join(capfd.readouterr()) == ""


def test_a_run_that_goes_on_is_the_same_run_without_a_step_twice_and_says_what_changed(
    tmp_path, write, mlflow_database
):
    write(range(1, 7))
    follow(tmp_path, "stopped")
    assert runs(mlflow_database)[0].info.status == "KILLED"
    write(range(4, 9), done=3)  # killed at 6, gone on with from 3
    follow(tmp_path, "failed", config_json=SETTINGS.replace("9", "12"))
    (run,) = runs(mlflow_database)
    assert [step for step, _ in curve(mlflow_database, run, "tokens")] == list(range(1, 9))
    assert run.info.status == "FAILED" and run.data.params["train.steps"] == "9"
    assert run.data.tags["now.train.steps"] == "12" and "now.batch.rows" not in run.data.tags


def test_a_run_that_was_deleted_there_or_goes_to_another_experiment_is_a_new_run_with_all_steps(
    tmp_path, write, mlflow_database
):
    write([1, 2])
    follow(tmp_path)
    mlflow_database.delete_run(runs(mlflow_database)[0].info.run_id)
    follow(tmp_path)
    follow(tmp_path, project="drinks")
    for name in ("food", "drinks"):
        (run,) = runs(mlflow_database, name)
        assert [step for step, _ in curve(mlflow_database, run, "tokens")] == [1, 2]


def test_a_server_that_is_not_there_is_reported_and_stops_nothing(tmp_path, write, monkeypatch, capfd):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    mlflow_tracker.check()
    write([1, 2])
    lines = []
    follow(tmp_path, lines=lines)
    assert lines == ["mlflow: did not get all of the run; metrics.jsonl and validation.jsonl have it"]
    assert "secret" not in "".join([*lines, *capfd.readouterr()])


@pytest.mark.parametrize("address", ["htp://me:secret@host", "http://", "sqlite:////dev/null/x.db"])
def test_an_address_that_it_cannot_use_is_refused(monkeypatch, address):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI=") as caught:
        mlflow_tracker.check()
    assert len(caught.value.lines) == 1 and "secret" not in str(caught.value)
