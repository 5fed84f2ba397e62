"""Sends what a run writes to `metrics.jsonl` and `validation.jsonl` to a tracker, from a thread of its own.

The files are what counts. A tracker is asked which step it has last and is sent the rest, whatever happened before: a
run that was killed, a network that was gone, another tracker in between. What a client does with a row is its own
file's.
"""

import dataclasses
import json
import logging
import math
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from vlm_jax.checkpoint.files import read_json, write_json
from vlm_jax.checkpoint.workdir import TRACKER_RUNS

EVERY = 2.0
"""Seconds between two looks into the files."""
AGAIN = 60.0
"""Seconds after which a tracker that failed is tried again."""
CLOSING = 30.0
"""Seconds that the end of a run waits for its tracker; a client has to give up before."""
ROWS = 25
"""Rows that are sent together at most."""

Row = tuple[int, dict[str, float]]
"""A step, and what is known of it."""


@dataclasses.dataclass(frozen=True)
class RunToTrack:
    """What a tracker is to know of a run.

    Attributes:
      folder: of the run, on this machine; the tracker's id of the run is kept in it.
      config_json: the resolved settings.
      project: of Weights & Biases, or experiment of MLflow; "" follows the client's environment variables.
      name: that a person sees.
    """

    folder: Path
    config_json: str
    project: str
    name: str

    @property
    def settings(self) -> dict[str, Any]:
        """The resolved settings; a password in an address stays here."""
        return json.loads(without_passwords(self.config_json))

    def known_id(self, tracker: str) -> str | None:
        """What the tracker calls this run, if it has begun there in the same project."""
        known = self._known_ids().get(tracker, {})
        return known.get("id") if known.get("project") == self.project else None

    def keep_id(self, tracker: str, run_id: str) -> None:
        """Writes it down, so that a run that goes on is the same run there."""
        write_json(self.folder / TRACKER_RUNS, {**self._known_ids(), tracker: {"project": self.project, "id": run_id}})

    def _known_ids(self) -> dict[str, Any]:
        path = self.folder / TRACKER_RUNS
        return read_json(path) if path.is_file() else {}


class Tracker(Protocol):
    """One run in a tracker. Any method may raise whatever the client raises, and `open` is then called again."""

    name: str

    def open(self) -> int:
        """Begins the run there, or goes on with it. Returns the last step that it has; 0 for none."""

    def place(self) -> str:
        """Where a person finds it, once it is open."""

    def send(self, rows: list[Row]) -> None:
        """Rows of ascending steps, none of which it has."""

    def close(self, state: str) -> None:
        """The run is "finished", "stopped" by a person, or "failed"."""

    def rest(self) -> str:
        """Where what it did not get by the end of the run is, or how it is sent."""


class Rows:
    """The rows of a run's two files that were not sent yet.

    The validation of a step is written before the metrics of the next, so a row is whole once there is a later one.
    """

    def __init__(self, folder: Path):
        self._lines = [(_Lines(folder / "metrics.jsonl"), ""), (_Lines(folder / "validation.jsonl"), "validation_")]
        self._rows: dict[int, dict[str, float]] = {}
        self._newest = self._sent = 0

    def read(self, *, ended: bool) -> list[Row]:
        """Those that are whole, the first first; all of them where the run has ended."""
        for lines, prefix in self._lines:
            for line in lines.read():
                step = line.pop("step")
                if step > self._sent:
                    self._rows.setdefault(step, {}).update(numbers(line, prefix))
                if not prefix:
                    self._newest = max(self._newest, step)
        return [(step, self._rows[step]) for step in sorted(self._rows) if ended or step < self._newest]

    def forget(self, step: int) -> None:
        """What is known of the steps up to this one, and what comes of them: it is sent."""
        self._sent = step
        self._rows = {at: row for at, row in self._rows.items() if at > step}


class _Lines:
    """The lines of a file that grows."""

    def __init__(self, path: Path):
        self._path, self._at = path, 0

    def read(self) -> list[dict[str, Any]]:
        """Those that were written whole since the last call."""
        if not self._path.is_file():
            return []
        with self._path.open("rb") as file:
            file.seek(self._at)
            whole = file.read()
        whole = whole[: whole.rfind(b"\n") + 1]
        self._at += len(whole)
        return [json.loads(line) for line in whole.splitlines()]


class Follower:
    """The thread, until `close`. Says once that a tracker fails, and once that it answers again.

    Attributes:
      state: of the run, for `close` to tell.
    """

    def __init__(self, folder: Path, tracker: Tracker, say: Callable[[str], None]):
        self.state = "failed"
        self._tracker, self._say, self._rows = tracker, say, Rows(folder)
        self._ended, self._failing, self._open, self._announced = threading.Event(), False, False, False
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="tracker", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Sends what is left and the state; leaves what takes longer than `CLOSING` seconds."""
        self._ended.set()
        self._thread.join(CLOSING)
        if not self._closed:
            self._say(f"{self._tracker.name}: did not get all of the run; {self._tracker.rest()}")

    def _work(self) -> None:
        while True:
            ended = self._ended.wait(AGAIN if self._failing else EVERY)
            try:
                self._send(ended=ended)
                if ended:
                    self._tracker.close(self.state)
                    self._closed = True
                self._tell_again()
            except Exception as error:  # of the client, which may raise anything: the run goes on
                self._open = False  # and is asked anew what it has
                self._tell_failing(error)
            if ended:
                return

    def _send(self, *, ended: bool) -> None:
        if not self._open:
            self._rows.forget(self._tracker.open())
            self._open = True
            if not self._announced:
                self._announced = True
                self._say(f"{self._tracker.name}: {without_passwords(self._tracker.place())}")
        rows = self._rows.read(ended=ended)
        for first in range(0, len(rows), ROWS):
            some = rows[first : first + ROWS]
            self._tracker.send(some)
            self._rows.forget(some[-1][0])

    def _tell_failing(self, error: Exception) -> None:
        if not self._failing and not self._ended.is_set():
            text = without_passwords(" ".join(str(error).split())[:200])
            self._say(
                f"WARNING: {self._tracker.name}: {type(error).__name__}: {text}; training goes on, "
                "what is missing there is sent when it answers again"
            )
        self._failing = True

    def _tell_again(self) -> None:
        if self._failing:
            self._say(f"{self._tracker.name}: answers again")
        self._failing = False


def numbers(line: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """What of a line a tracker can draw, by the names that TensorBoard has."""
    return {
        prefix + key: float(value)
        for key, value in line.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def without_passwords(text: str) -> str:
    """A text with what stands before the @ of an address left out."""
    return re.sub(r"(://)[^/@\s\"']+@", r"\1…@", text)


def quiet(*loggers: str) -> None:
    """What a client writes to the console by `logging` is left out: what matters of it, an error is raised for."""
    for name in loggers:
        logging.getLogger(name).setLevel(logging.CRITICAL)
