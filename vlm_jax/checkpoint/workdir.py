"""The folder that a run writes into, on a disk or in a store.

A store cannot append: there, what grows (metrics, TensorBoard's events, the ledger) lies in a folder of this machine,
and is sent whole now and then. No host needs to see another's disk. Checkpoints go to their place directly, from all
hosts; what a run folder holds, and they, are `run_folder`'s.
"""

import contextlib
import json
import os
import socket
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path, PurePath

from vlm_jax import locations, output_folder
from vlm_jax.checkpoint import run_folder
from vlm_jax.checkpoint.assembled_folder import PARTS
from vlm_jax.checkpoint.files import alone, check_free
from vlm_jax.errors import InputError

EVERY = 60.0
"""Seconds between two times that what has changed is sent to a store."""
MODEL = "model"
"""Below the run's folder: the model it assembled."""
TRACKER_RUNS = "trackers.json"
"""Below the run's folder: what experiment trackers call this run."""
WRITER = ".writer"
"""Names the run that writes to a folder in a store."""


class Workdir:
    """A run's folder on a disk.

    Attributes:
      home: the run folder, as a person and `run_folder` know it.
      folder: where this process writes, on this machine: the same.
    """

    def __init__(self, home: Path):
        self.home: PurePath = home
        self.folder = home

    def __str__(self) -> str:
        return str(self.home)

    @contextlib.contextmanager
    def writing(self, *, first: bool, done: int | None) -> Iterator[None]:
        """While a run writes. Makes the folder where it is not there.

        Args:
          first: whether this process is the one that writes for all.
          done: the step of the checkpoint that the run goes on from.

        Raises:
          InputError: another process trains in it, or saved a later checkpoint since `done` was read.
        """
        if not first:
            yield
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with alone(self.folder, "training"):
            self._check_newest(done)
            yield

    def check_free(self) -> None:
        """Raises InputError where another process trains in it now: its files come and go, and are not to be judged."""
        check_free(self.folder, "training")

    def _check_newest(self, done: int | None) -> None:
        """What was decided from the newest checkpoint must not be of one that is not the newest any more."""
        if (newest := run_folder.latest_step(self.home)) != done:
            raise InputError(f"{self.home}: another run saved step {newest} meanwhile; give the command again")

    def write_assets(self, source: Path) -> None:
        """Copies the small files of a model into it (`run_folder.write_assets`)."""
        run_folder.write_assets(self.folder, source)

    def sync(self) -> None:
        """Returns when what was written so far is where a run that goes on finds it."""


class StoreWorkdir(Workdir):
    """A run's folder in a store.

    The run that began last writes to it: a store has no lock that a killed run would let go. The one before finds out
    before its next checkpoint, and stops.

    Attributes:
      folder: a temporary one, for as long as the run is `writing`.
    """

    def __init__(self, home: PurePath):
        self.home = home
        self._writer = json.dumps({"host": socket.gethostname(), "process": os.getpid(), "run": uuid.uuid4().hex})
        self._sent: dict[str, tuple[int, int]] = {}  # name to the time and the size it was sent with
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def writing(self, *, first: bool, done: int | None) -> Iterator[None]:
        self._first = first
        with tempfile.TemporaryDirectory(prefix="vlm_jax-run-") as here:
            self.folder = Path(here)
            if first:
                with locations.answering(self.home):
                    self._check_newest(done)  # a start that is refused does not stop the run that is at work
                    (self.home / WRITER).write_text(self._writer)
                    self._check_newest(done)  # that run may have saved once more before it could know
                    self._bring_back()
            ended = threading.Event()
            sender = threading.Thread(target=self._send_now_and_then, args=(ended,), daemon=True)
            sender.start()
            try:
                yield
            except BaseException:
                self._end(ended, sender)
                with contextlib.suppress(InputError):  # what stopped the run is reported; what it wrote may explain it
                    self.sync()
                raise
            self._end(ended, sender)
            self.sync()

    def check_free(self) -> None:
        """A store has no lock; who began last writes."""

    def write_assets(self, source: Path) -> None:
        super().write_assets(source)
        self.sync()
        with locations.answering(self.home):
            for path in run_folder.files_below(self.home / "assets"):  # of a start with another model
                if not (self.folder / path.relative_to(self.home)).exists():
                    path.unlink()

    def sync(self) -> None:
        with self._lock, locations.answering(self.home):
            if self._first:
                self._check_writer()
            for path in sorted(self.folder.rglob("*")):
                name = path.relative_to(self.folder)
                if any(part.startswith(".") for part in name.parts) or not path.is_file():
                    continue  # the former are being written, and get another name
                status = path.stat()
                state = (status.st_mtime_ns, status.st_size)
                if self._sent.get(str(name)) != state:
                    (self.home / name).write_bytes(path.read_bytes())
                    self._sent[str(name)] = state

    def _check_writer(self) -> None:
        try:
            writer = (self.home / WRITER).read_text()
        except FileNotFoundError:
            raise InputError(f"{self.home}: was removed while the run wrote to it") from None
        if writer != self._writer:
            other = json.loads(writer)
            raise InputError(
                f"{self.home}: a later run (process {other['process']} on {other['host']}) goes on in this folder; "
                "this one stops, and the checkpoints are the other's"
            )

    def _bring_back(self) -> None:
        """What an earlier part of the run wrote line by line, which this part goes on with."""
        for path in self.home.iterdir():
            if path.suffix == ".jsonl" or path.name in ("log.txt", TRACKER_RUNS):
                (self.folder / path.name).write_bytes(path.read_bytes())

    def _send_now_and_then(self, ended: threading.Event) -> None:
        while not ended.wait(EVERY):
            with contextlib.suppress(InputError):  # raised again where the run itself waits for it
                self.sync()

    def _end(self, ended: threading.Event, sender: threading.Thread) -> None:
        ended.set()
        sender.join()


def check_usable(name: str) -> None:
    """A run may use a new or empty folder, or one it made: never somebody's model or other files.

    Raises:
      InputError: another folder, or a store that does not let this account in.
    """
    if not name:
        raise InputError("--workdir is empty; name the folder of the run")
    workdir = locations.folder(name)
    locations.check_bucket(workdir)
    begun = (f"{MODEL}/{PARTS}", "log.txt")  # a start that reached no checkpoint
    output_folder.check(workdir, f"--workdir={name}", owner="a run's", marks=("assets",), alone=begun)


def open_workdir(name: str) -> Workdir:
    """Raises InputError when the name is of no place that runs can be in."""
    home = locations.folder(name)
    return Workdir(home) if isinstance(home, Path) else StoreWorkdir(home)
