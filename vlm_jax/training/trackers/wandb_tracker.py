"""A run in Weights & Biases: its server, or files to be sent later (WANDB_MODE=offline, `wandb sync`).

Who pays and where it goes is the client's own affair: WANDB_API_KEY or `wandb login`, WANDB_ENTITY, WANDB_BASE_URL …
"""

import contextlib
import os
import uuid
from pathlib import Path

import wandb

from vlm_jax.errors import InputError
from vlm_jax.training.trackers.following import CLOSING, Row, RunToTrack
from vlm_jax.training.trackers.wandb_files import last_step

GIVES_UP = CLOSING - 10
"""Seconds after which it leaves at the end what it could not send."""


def check() -> None:
    """Raises InputError for a mode that is none, and where a server is asked for and nobody is logged in."""
    try:
        settings = _setup()
        signed_in = settings.mode != "online" or _signed_in(settings.base_url)
    except Exception as error:  # of pydantic or the client
        line = " ".join(str(error).split())[:300]
        raise InputError(f"config.log.tracker is 'wandb', which refuses its environment variables: {line}") from error
    if not signed_in:
        raise InputError(
            "config.log.tracker is 'wandb', and nobody is logged in: run `wandb login`, or set WANDB_API_KEY, or "
            "WANDB_MODE=offline to send the run later"
        )


def _signed_in(host: str) -> bool:
    """Whether there is a key for the server; that it is the right one only the server knows."""
    from wandb.sdk.lib import wbauth

    found = wbauth.authenticate_session(host=host, source="vlm_jax", prompt=False, update_session=False)
    return found is not None


def _setup() -> wandb.Settings:
    """Nothing on the console; no wait without end for a server, neither here nor when the program ends."""
    return wandb.setup(wandb.Settings(silent=True, finish_timeout=GIVES_UP, finish_timeout_raises=True)).settings


class WandbTracker:
    """As `following.Tracker`. Rows carry wandb's own step: it has none twice, and takes none of the past."""

    name = "wandb"

    def __init__(self, run: RunToTrack):
        self._run, self._wandb = run, None

    def open(self) -> int:
        _setup()
        if self._wandb is not None:
            with contextlib.suppress(Exception):  # it has failed before
                self._wandb.finish(exit_code=1)
        run_id = self._run.known_id(self.name)
        if run_id is None:
            run_id = uuid.uuid4().hex[:8]
            self._run.keep_id(self.name, run_id)
        self._wandb = wandb.init(
            project=self._run.project or None,
            name=self._run.name,
            id=run_id,
            resume="allow",
            dir=None if os.environ.get("WANDB_DIR") else str(self._run.folder),
            settings=wandb.Settings(console="off", save_code=False, reinit="create_new"),
        )
        self._wandb.config.update(self._run.settings, allow_val_change=True)
        if self._wandb.settings.mode == "offline":
            return last_step(Path(self._wandb.settings.wandb_dir), run_id)
        return self._wandb.starting_step - 1

    def place(self) -> str:
        return (
            self._wandb.url or f"run {self._wandb.id} ({self._wandb.settings.mode}) in {self._wandb.settings.wandb_dir}"
        )

    def send(self, rows: list[Row]) -> None:
        for step, values in rows:
            self._wandb.log(values, step=step)

    def close(self, state: str) -> None:
        self._wandb.summary["state"] = state
        self._wandb.finish(exit_code=1 if state == "failed" else 0)
        if wandb.run is None:  # nobody else in this process uses it
            # Its service was seen to write an empty file for a run that it had just finished and that went on.
            wandb.teardown()

    def rest(self) -> str:
        if self._wandb is None:
            return "metrics.jsonl and validation.jsonl have it"
        return f"`wandb sync {self._wandb.settings.sync_dir}` sends it"
