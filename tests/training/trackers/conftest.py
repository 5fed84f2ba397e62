"""Run folders as a run writes them, and the real clients, kept from any network."""

import json
import shutil

import pytest

from vlm_jax.training.log import Console, RunLog

SETTINGS = json.dumps(
    {"train": {"steps": 9}, "data": {"path": "https://me:secret@host/data.jsonl"}, "batch": {"rows": 2}}
)


class Lines(Console):
    """Not silent, so that a run writes; its lines are kept."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def say(self, line):
        self.lines.append(line)


@pytest.fixture
def write(tmp_path):
    """Writes what a run does: write(steps, done=…, validated=…)."""

    def write(steps, *, done=0, validated=()):
        log = RunLog(tmp_path, steps=99, done=done, every=1, console=Lines())
        for step in steps:
            metrics = {"loss": 10.0 / step, "learning_rate": 1e-3, "tokens_per_second": 5.0, "padding": 0.1}
            if step == 3:
                metrics |= {"loss": None, "gradient_norm": None, "skipped": True}
            log.step(step, {**metrics, "tokens": 64.0, "mfu": None})
            if step in validated:
                log.validation(step, 5.0, 0.25, "normalised")
        log.close()

    return write


@pytest.fixture
def wandb_offline(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    wandb.teardown()  # it reads its variables once
    yield
    wandb.teardown()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """MLflow takes seconds to make its tables."""
    from mlflow.tracking import MlflowClient

    from vlm_jax.training.trackers.following import quiet
    from vlm_jax.training.trackers.mlflow_tracker import LOGGERS

    quiet(*LOGGERS)
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def mlflow_database(empty_database, tmp_path, monkeypatch):
    """MLFLOW_TRACKING_URI of a database without runs; what was written to it."""
    import mlflow

    path = tmp_path / "tracked.db"
    shutil.copy(empty_database, path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    mlflow.set_tracking_uri(None)
    return mlflow.MlflowClient(f"sqlite:///{path}")
