"""Curves for TensorBoard: event files, which are drawn beside a run and never stop it.

Written as they come, without the thread and the queue of tensorboardX's own writer: on a full disk that dies with a
traceback, and once more when the program ends.
"""

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path

FLUSHED = 30.0
"""Seconds after which what was drawn is on disk at the latest."""


class Events:
    """An event file of its own for each start of a run."""

    def __init__(self, folder: Path, *, purge_from: int, say: Callable[[str], None]):
        """
        Args:
          purge_from: the step from which on a reader forgets what an earlier start drew.
          say: called with a line when no more can be written; training goes on.
        """
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._folder, self._say, self._writer, self._flushed = folder, say, None, time.monotonic()
        with self._reported_errors():
            folder.mkdir(parents=True, exist_ok=True)
            self._writer = EventsWriter(str(folder / "events"))
            begun = SessionLog(status=SessionLog.SessionStatus.Value("START"))
            self._writer.write_event(Event(wall_time=time.time(), step=purge_from, session_log=begun))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Draws a point of each curve."""
        if self._writer is None or not values:
            return
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        with self._reported_errors():
            self._writer.write_event(Event(wall_time=time.time(), step=step, summary=Summary(value=points)))
            if time.monotonic() - self._flushed > FLUSHED:
                self._flushed = time.monotonic()
                self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            with self._reported_errors():
                self._writer.close()
        self._writer = None

    @contextlib.contextmanager
    def _reported_errors(self):
        try:
            yield
        except OSError as error:
            self._writer = None
            self._say(f"{self._folder}: no more curves are drawn ({error.strerror or error})")
