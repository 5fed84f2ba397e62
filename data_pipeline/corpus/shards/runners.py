"""What runs the stages of all shards: this process, several on this machine, or Ray. The bytes are equal.

An array job (Slurm, replicas of a Vertex job) calls `stages.run` itself, a job a stage and `shard` of `of` its pieces.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import resource_tracker
from pathlib import Path

from data_pipeline.corpus.shards import merging, stages
from data_pipeline.corpus.shards.plan import load
from vlm_jax.errors import InputError


def in_one_process(folder: Path) -> merging.Merged:
    """Shard after shard, here."""
    return _staged(folder, lambda stage, of: [stages.run(folder, stage, shard=shard, of=of) for shard in range(of)])


def in_processes(folder: Path, workers: int) -> merging.Merged:
    """So many shards at a time, each in a process of this machine that is started anew (spawned).

    As with everything that is spawned, a program that calls this must be guarded by `if __name__ == "__main__"`.
    """
    # What a process blocks, those that it starts block too: Ctrl-C is for this one, which ends them.
    resource_tracker.ensure_running()
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_uninterrupted)
    with pool:

        def stage_of_all(stage: str, of: int) -> None:
            tasks = [pool.submit(stages.run, folder, stage, shard=shard, of=of) for shard in range(of)]
            try:
                for task in tasks:
                    task.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

        return _staged(folder, stage_of_all)


def on_ray(folder: Path, *, cpus: int | None = None) -> merging.Merged:
    """A task a shard, on the Ray cluster at RAY_ADDRESS, or on one that is started on this machine and ended again.

    The folder must be the same on all machines. A Ray that runs in this process already is taken, and left running.
    One that is started here listens on all interfaces for as long as it runs, and takes only what shows the token that
    Ray writes into the home folder (RAY_AUTH_MODE).

    Args:
      cpus: of a cluster that is started here; all of this machine's if None.

    Raises:
      InputError: ray is not installed, which the extra ray is for.
    """
    ray = _ray()
    started = not ray.is_initialized()
    if started:
        elsewhere = os.environ.get("RAY_ADDRESS")
        options = {} if elsewhere else {"num_cpus": cpus, "include_dashboard": False}
        ray.init(log_to_driver=False, **options)
    try:
        task = ray.remote(num_cpus=1, max_retries=2)(stages.run)

        def stage_of_all(stage: str, of: int) -> None:
            pending = [task.remote(folder.absolute(), stage, shard=shard, of=of) for shard in range(of)]
            try:
                ray.get(pending)
            except ray.exceptions.RayTaskError as error:
                cause = error.cause if isinstance(getattr(error, "cause", None), InputError) else None
                raise (cause or error) from None

        return _staged(folder, stage_of_all)
    finally:
        if started:
            ray.shutdown()


def _staged(folder: Path, stage_of_all: Callable[[str, int], object]) -> merging.Merged:
    of = load(folder).of
    for stage in stages.STAGES:
        stage_of_all(stage, of)
    return merging.merge(folder)


def _ray():
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ModuleNotFoundError as error:
        raise InputError(
            "ray is not installed: pip install 'vlm-jax[ray]'; or take processes of one machine"
        ) from error
    return ray


def _uninterrupted() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
