"""The checkpoints of a run, by Orbax: saved in the background, restored in part, each of their files known by a digest.

Orbax writes a checkpoint beside its place and renames it, so what has a step's name is whole. In a store, which cannot
rename, it writes in place and `commit_success.txt` last. Orbax is loaded where a checkpoint is met: most models lie in
other folders, and it takes a third of a second.
"""

import contextlib
import functools
import json
import logging
import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import absl.logging
import jax
import numpy as np

from vlm_jax import locations
from vlm_jax.checkpoint import digests
from vlm_jax.deferred import Deferred
from vlm_jax.errors import InputError
from vlm_jax.models.parameters import Flat, nest, unnest

PARAMETERS, OPTIMIZER, DATA, SETTINGS = "parameters", "optimizer", "data", "settings"
GROUP = 1 << 30
"""Bytes of parameters that are restored at one time; one that is larger is restored by itself."""


class Checkpoints:
    """The checkpoints of a run folder."""

    def __init__(
        self,
        workdir: PurePath,
        *,
        keep: int | None = None,
        best: int = 0,
        read_only: bool = False,
        deferred: bool = False,
    ):
        """
        Args:
          keep: newest checkpoints that are kept, None for all.
          best: those of the lowest loss that are kept besides.
          deferred: whether parameters that are saved are deferred.
        """
        import orbax.checkpoint as ocp

        from vlm_jax.checkpoint import deferred_orbax

        _quiet_threads()
        self._deferred = deferred
        self._saving: int | None = None
        self.path = (workdir.absolute() if isinstance(workdir, Path) else workdir) / "checkpoints"
        with self._reading_losses(), _quiet_absl(), locations.answering(self.path):  # it warns of read_only
            policies = ocp.checkpoint_managers.preservation_policy
            rules = [
                policies.LatestN(keep),
                policies.BestN(get_metric_fn=_goodness, n=best, keep_checkpoints_without_metrics=False),
            ]
            options = ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(rules) if keep else policies.PreserveAll(),
                best_fn=_goodness,  # without it losses are not written down, and a run that goes on forgets them
                best_mode="max",
                create=not read_only,
                read_only=read_only,
                async_options=ocp.AsyncOptions(post_finalization_callback=self._write_digests),
            )
            handlers = deferred_orbax.handlers(PARAMETERS) if deferred else None
            self._manager = ocp.CheckpointManager(self.path, options=options, handler_registry=handlers)

    @contextlib.contextmanager
    def _reading_losses(self) -> Iterator[None]:
        """Names the checkpoint whose loss cannot be read: the manager reads all of them when it is made."""
        try:
            yield
        except ValueError as error:
            for path in sorted(self.path.glob("*/metrics/metrics")):
                try:
                    json.loads(path.read_text())
                except (OSError, ValueError):
                    raise InputError(
                        f"{path}: is cut short or damaged; remove {path.parent}, and the checkpoint is kept as one "
                        "whose loss was not measured"
                    ) from error
            raise

    def latest(self) -> int | None:
        """The newest whole checkpoint, None where there is none; a copy that was cut short is passed over."""
        return max(filter(self.holds, self._manager.all_steps()), default=None)

    def holds(self, step: int) -> bool:
        """Whether a checkpoint is there and whole."""
        return not missing_items(self.path / str(step))

    def save(
        self,
        step: int,
        parameters: Flat,
        settings: dict[str, Any],
        *,
        optimizer=None,
        data: dict[str, Any] | None = None,
        loss: float | None = None,
    ) -> None:
        """Starts writing a checkpoint; returns once the arrays are copied off the devices.

        Args:
          parameters: arrays, or all deferred: then they are read and written piece by piece.
          optimizer: any tree of arrays.
          data: the position in the data, as JSON can hold it. All hosts have the same, so that a run can go on with
            another number of them; Grain's own checkpoint handler writes one file a host.
          loss: by which the best are chosen.
        """
        import orbax.checkpoint as ocp

        from vlm_jax.checkpoint import deferred_orbax

        items = {
            PARAMETERS: deferred_orbax.arguments(parameters)
            if self._deferred
            else ocp.args.StandardSave(nest(parameters)),
            SETTINGS: ocp.args.JsonSave(settings),
        }
        if optimizer is not None:
            items[OPTIMIZER] = ocp.args.StandardSave(optimizer)
        if data is not None:
            items[DATA] = ocp.args.JsonSave(data)
        arrays = [leaf for leaf in jax.tree.leaves((parameters, optimizer)) if hasattr(leaf, "nbytes")]
        size = sum(leaf.nbytes for leaf in arrays)
        if isinstance(self.path, Path) and size > (free := shutil.disk_usage(self.path).free):
            raise InputError(
                f"{self.path}: a checkpoint takes {size / 1e6:,.0f} MB and the disk has {free / 1e6:,.0f} MB left; "
                "free some room, and the same command goes on from the last checkpoint"
            )
        with self._explained_errors(step, writing=True), _quiet_absl():  # it warns of a loss that is not given
            self._manager.wait_until_finished()  # the one before: `_saving` is its, until it has its name
            self._saving = step
            metrics = None if loss is None else {"loss": loss}
            self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics, force=True)

    def _write_digests(self) -> None:
        """Called by Orbax when all of a checkpoint is written, by one host, before the folder gets its name."""
        if isinstance(self.path, Path):
            for folder in self.path.glob(f"{self._saving}.orbax-checkpoint-tmp*"):
                digests.write(folder)

    def _check(self, step: int, *items: str) -> None:
        """Raises InputError where a file of these items is not what was written. On one host: all read the same."""
        if isinstance(self.path, Path) and jax.process_index() == 0:
            digests.check(self.path / str(step), items)

    def restore_training(self, step: int, parameters: Flat, optimizer) -> tuple[Flat, Any, dict[str, Any]]:
        """Parameters, optimizer and the position in the data of a step.

        Args:
          parameters, optimizer: trees of ShapeDtypeStruct with shardings.
        """
        import orbax.checkpoint as ocp

        items = {
            PARAMETERS: ocp.args.StandardRestore(nest(parameters)),
            OPTIMIZER: ocp.args.StandardRestore(optimizer),
            DATA: ocp.args.JsonRestore(),
        }
        with self._explained_errors(step):
            self._check(step, *items)
            restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        return unnest(restored[PARAMETERS]), restored[OPTIMIZER], restored[DATA]

    def restore_parameters(self, step: int, expected: Mapping[str, Any] | None, *, sharding=None) -> Flat:
        """Parameters alone.

        Args:
          expected: {path: anything with a shape} of what must be held, or None for whatever is.
          sharding: `sharding(path, shape)`; None for the first device.
        """
        return dict(self.each_parameter(step, expected, sharding=sharding))

    def each_parameter(
        self, step: int, expected: Mapping[str, Any] | None, *, sharding=None
    ) -> Iterator[tuple[str, Any]]:
        """As `restore_parameters`, one after the other: who lets go of each holds few of them at a time."""
        import orbax.checkpoint as ocp

        metadata = self._metadata(step, expected)
        single = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        for paths in _grouped(metadata):
            restore_args = {
                path: ocp.ArrayRestoreArgs(
                    sharding=sharding(path, metadata[path].shape) if sharding else single,
                    global_shape=metadata[path].shape,
                    dtype=metadata[path].dtype,
                )
                for path in paths
            }
            arrays = self._restore_some(step, metadata, restore_args)
            for path in paths:
                yield path, arrays.pop(path)

    def deferred_parameters(self, step: int, expected: Mapping[str, Any] | None) -> dict[str, Deferred]:
        """As `restore_parameters`, none of them read yet."""
        from vlm_jax.checkpoint import deferred_orbax

        metadata = self._metadata(step, expected)
        abstract = {path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for path, leaf in metadata.items()}
        with self._explained_errors(step), _quiet_absl():
            saved = self.path / str(step) / PARAMETERS
            return deferred_orbax.restore(saved, abstract, functools.partial(self._explained_errors, step))

    def _metadata(self, step: int, expected: Mapping[str, Any] | None) -> dict[str, Any]:
        """{path: shape and dtype} of the parameters of a checkpoint."""
        import orbax.checkpoint as ocp

        with self._explained_errors(step):
            self._check(step, PARAMETERS)
            metadata = unnest(ocp.StandardCheckpointHandler().metadata(self.path / str(step) / PARAMETERS).tree)
        if expected is not None and {path: leaf.shape for path, leaf in metadata.items()} != {
            path: leaf.shape for path, leaf in expected.items()
        }:
            raise InputError(f"{self.path / str(step)}: does not hold the parameters that assets/config.json implies")
        return metadata

    def _restore_some(self, step: int, metadata: Mapping[str, Any], restore_args: Mapping[str, Any]) -> Flat:
        import orbax.checkpoint as ocp

        abstract = {path: jax.ShapeDtypeStruct(metadata[path].shape, metadata[path].dtype) for path in restore_args}
        request = ocp.args.PyTreeRestore(nest(abstract), restore_args=nest(restore_args), partial_restore=True)
        with self._explained_errors(step), _quiet_absl():
            return unnest(ocp.PyTreeCheckpointHandler().restore(self.path / str(step) / PARAMETERS, args=request))

    def settings(self, step: int) -> dict[str, Any]:
        import orbax.checkpoint as ocp

        with self._explained_errors(step):
            self._check(step, SETTINGS)
            return self._manager.restore(step, args=ocp.args.Composite(**{SETTINGS: ocp.args.JsonRestore()}))[SETTINGS]

    def position(self, step: int) -> dict[str, Any]:
        """The position in the data of a step; empty where a checkpoint holds parameters alone."""
        if not (self.path / str(step) / DATA).exists():
            return {}
        import orbax.checkpoint as ocp

        with self._explained_errors(step):
            self._check(step, DATA)
            return self._manager.restore(step, args=ocp.args.Composite(**{DATA: ocp.args.JsonRestore()}))[DATA]

    def best(self) -> tuple[int, float] | None:
        """The checkpoint of the lowest loss, and that loss; None where none was saved with one."""
        all_metrics = {step: self._manager.metrics(step) for step in self._manager.all_steps()}
        losses = {step: metrics["loss"] for step, metrics in all_metrics.items() if metrics}
        return min(losses.items(), key=lambda item: item[1], default=None)

    def wait(self) -> None:
        """Returns when everything started is on disk."""
        with self._explained_errors(None, writing=True):
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _explained_errors(self, step: int | None, *, writing: bool = False):
        """Puts what Orbax and TensorStore raise (any of several types, many lines) into one line with the place."""
        place = self.path if step is None else self.path / str(step)
        try:
            yield
        except (InputError, jax.errors.JaxRuntimeError):  # the latter is a device's, not the checkpoint's
            raise
        except Exception as error:
            text = " ".join(str(error).split())
            if "RESOURCE_EXHAUSTED" in text or "No space left" in text:
                advice = "the disk is full; free some room, and the same command goes on from the last checkpoint"
                raise InputError(f"{place}: {advice}") from error
            if not isinstance(place, Path) and (advice := locations.refusal(place, error)):
                raise InputError(f"{place}: {advice}") from error
            if writing:
                raise InputError(
                    f"{place}: a checkpoint cannot be written ({type(error).__name__}: {text[:160]}); the same command "
                    "goes on from the last one"
                ) from error
            raise InputError(
                f"{place}: damaged or unreadable checkpoint ({type(error).__name__}: {text[:160]}); "
                "remove that folder to go on from the one before"
            ) from error

    def close(self) -> None:
        self._manager.close()


def missing_items(checkpoint: PurePath) -> list[str]:
    parts = ["_CHECKPOINT_METADATA", PARAMETERS, SETTINGS]
    if not isinstance(checkpoint, Path):
        parts.append("commit_success.txt")
    return [part for part in parts if not (checkpoint / part).exists()]


def _goodness(metrics: dict[str, float]) -> float:
    return -metrics["loss"]


def _grouped(metadata: Mapping[str, Any]) -> Iterator[list[str]]:
    """Paths whose parameters are at most `GROUP` bytes together, or one that is more."""
    group, size = [], 0
    for path, leaf in metadata.items():
        nbytes = math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize
        if group and size + nbytes > GROUP:
            yield group
            group, size = [], 0
        group.append(path)
        size += nbytes
    if group:
        yield group


def _is_raised_too(record: logging.LogRecord) -> bool:
    """Whether a line of a log is Orbax's on an error that it raises as well, in a thread or a task of its own."""
    text = f"{record.pathname} {record.getMessage()}"
    return record.levelno >= logging.ERROR and "orbax" in text


@functools.cache
def _quiet_threads() -> None:
    """Keeps tracebacks of a save that fails off the console: `Checkpoints` says why, in one line."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(lambda record: not _is_raised_too(record))


@contextlib.contextmanager
def _quiet_absl():
    before = absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.ERROR)
    try:
        yield
    finally:
        absl.logging.set_verbosity(before)
