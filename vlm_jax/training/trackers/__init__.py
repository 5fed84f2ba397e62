"""Experiment trackers: a run's metrics, settings and state in Weights & Biases or MLflow, by `config.log.tracker`.

A tracker is sent what the files of the run folder hold (`following`), by a thread of its own: it neither stops nor
slows training. Each client is in a file of its own, loaded only where a run asks for it.
"""

import contextlib
import importlib.util
import sys
from collections.abc import Iterator

from ml_collections import ConfigDict

from vlm_jax.checkpoint.workdir import Workdir
from vlm_jax.errors import InputError
from vlm_jax.training.log import Console
from vlm_jax.training.trackers.following import Follower, RunToTrack, Tracker


def check(log: ConfigDict, *, writes: bool) -> None:
    """To be called before anything is loaded, by each process.

    Args:
      log: the group of settings.
      writes: whether this is the process that writes; the others need no account.

    Raises:
      InputError: the client is not installed, or refuses the settings that its environment variables hold.
    """
    if not log.tracker:
        return
    if importlib.util.find_spec(log.tracker) is None:
        raise InputError(
            f"config.log.tracker is {log.tracker!r}, which is not installed: "
            f"{sys.executable} -m pip install 'vlm-jax[{log.tracker}]'"
        )
    if not writes:
        return
    if log.tracker == "wandb":
        from vlm_jax.training.trackers import wandb_tracker

        wandb_tracker.check()
    else:
        from vlm_jax.training.trackers import mlflow_tracker

        mlflow_tracker.check()


@contextlib.contextmanager
def tracked(config: ConfigDict, workdir: Workdir, console: Console) -> Iterator[Follower | None]:
    """While a run trains: sends its lines, and in the end its state, where a tracker is set and this process writes.

    Yields:
      Whose `state` the caller sets: "finished" or "stopped". It is "failed" where it does not.
    """
    if not config.log.tracker or console.silent:
        yield None
        return
    follower = Follower(workdir.folder, _tracker(config, workdir), console.say)
    try:
        yield follower
    finally:
        follower.close()


def _tracker(config: ConfigDict, workdir: Workdir) -> Tracker:
    """Not opened yet."""
    home = workdir.home
    named = home.parent.name if home.name == "run" else home.name  # as the cells of a sweep are called
    run = RunToTrack(
        folder=workdir.folder,
        config_json=config.to_json(),
        project=config.log.project,
        name=config.log.run_name or named,
    )
    if config.log.tracker == "wandb":
        from vlm_jax.training.trackers.wandb_tracker import WandbTracker

        return WandbTracker(run)
    from vlm_jax.training.trackers.mlflow_tracker import MlflowTracker

    return MlflowTracker(run)
