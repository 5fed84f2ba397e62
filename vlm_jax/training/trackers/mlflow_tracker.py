"""A run in MLflow, by its client alone (`mlflow-skinny`): a server, or a database of this machine.

Where it goes is the client's own affair: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, MLFLOW_TRACKING_TOKEN …
"""

import os
import time
from urllib.parse import urlsplit

import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from vlm_jax.errors import InputError
from vlm_jax.training.resume_settings import flat
from vlm_jax.training.trackers.following import Row, RunToTrack, quiet, without_passwords

LAST = "tokens"
"""Of every row, and logged behind the rest of it: the rows that have it are whole."""
STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
LONGEST = 6000
"""Characters of a parameter's value."""
PARAMETERS_AT_ONCE, METRICS_AT_ONCE = 100, 1000
"""How many MLflow takes in a call."""
LOGGERS = ("mlflow", "alembic", "urllib3.connectionpool")


def check() -> None:
    """Raises InputError for an address that the client cannot use; whether a server answers is not asked."""
    quiet(*LOGGERS)
    uri = mlflow.get_tracking_uri()
    parts = urlsplit(uri)
    try:
        if parts.scheme in ("http", "https") and not parts.hostname:
            raise MlflowException("the address names no host")
        # Of a database on another machine nobody knows how long it takes to say that it is not there.
        if not _is_database(uri):
            MlflowClient()
    except Exception as error:  # of MLflow, or of what it opens a database with
        line = without_passwords(" ".join(str(error).split()))[:300]
        raise InputError(f"MLFLOW_TRACKING_URI={without_passwords(uri)}: {line}") from error


def _is_database(uri: str) -> bool:
    return urlsplit(uri).scheme.partition("+")[0] in ("mysql", "mssql", "postgresql")


class MlflowTracker:
    """As `following.Tracker`. Parameters of a run cannot change: what one that goes on has otherwise becomes a tag."""

    name = "mlflow"

    def __init__(self, run: RunToTrack):
        self._run, self._client, self._id = run, None, ""

    def open(self) -> int:
        quiet(*LOGGERS)
        self._client = MlflowClient()
        known = self._run.known_id(self.name)
        found = self._found(known) if known else None
        if found is None:
            found = self._client.create_run(self._experiment(), run_name=self._run.name)
            self._run.keep_id(self.name, found.info.run_id)
        self._id = found.info.run_id
        self._client.update_run(self._id, status="RUNNING", name=self._run.name)
        self._log_settings(found.data.params)
        return max((metric.step for metric in self._client.get_metric_history(self._id, LAST)), default=0)

    def place(self) -> str:
        return f"run {self._id} at {mlflow.get_tracking_uri()}"

    def send(self, rows: list[Row]) -> None:
        now = int(time.time() * 1000)
        metrics = [
            Metric(name, values[name], now, step)
            for step, values in rows
            for name in sorted(values, key=lambda name: name == LAST)
        ]
        for first in range(0, len(metrics), METRICS_AT_ONCE):
            self._client.log_batch(self._id, metrics=metrics[first : first + METRICS_AT_ONCE])

    def close(self, state: str) -> None:
        self._client.set_terminated(self._id, STATUS[state])

    def rest(self) -> str:
        return "metrics.jsonl and validation.jsonl have it"

    def _found(self, run_id: str):
        """The run by the id that it had; None where this server does not know it or has deleted it."""
        try:
            found = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return found if found.info.lifecycle_stage == "active" else None

    def _experiment(self) -> str:
        """The id of the experiment, which is made where it is not there."""
        name = self._run.project or os.environ.get("MLFLOW_EXPERIMENT_NAME", "")
        if not name:
            return os.environ.get("MLFLOW_EXPERIMENT_ID", "0")
        known = self._client.get_experiment_by_name(name)
        return self._client.create_experiment(name) if known is None else known.experiment_id

    def _log_settings(self, logged: dict[str, str]) -> None:
        settings = {key: str(value)[:LONGEST] for key, value in flat(self._run.settings).items()}
        new = [Param(key, value) for key, value in settings.items() if key not in logged]
        for first in range(0, len(new), PARAMETERS_AT_ONCE):
            self._client.log_batch(self._id, params=new[first : first + PARAMETERS_AT_ONCE])
        changed = {key: value for key, value in settings.items() if logged.get(key, value) != value}
        self._client.log_batch(self._id, tags=[RunTag(f"now.{key}", value) for key, value in changed.items()])
