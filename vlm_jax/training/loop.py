"""The loop of a run: batches in, checkpoints and metrics out, until the end or until a person interrupts.

Where batches come from is the caller's (`data_pipeline.training_run`); what a step is, `trainer`'s; what is done
between steps, `hooks`'. A run killed at any moment goes on from its last checkpoint with the same losses and the same
weights.
"""

import contextlib
import copy
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import grain
import jax
import numpy as np
from ml_collections import ConfigDict

from vlm_jax import stop_signals
from vlm_jax.checkpoint.run_folder import Checkpoints
from vlm_jax.checkpoint.workdir import Workdir
from vlm_jax.errors import InputError
from vlm_jax.models.parameters import Flat
from vlm_jax.parallel import hosts
from vlm_jax.parallel.hlo_text import UnknownForm
from vlm_jax.parallel.mesh import to_devices
from vlm_jax.processing.rows import Batch
from vlm_jax.training import compile_report, trackers
from vlm_jax.training.hooks import EarlyStop, Hook, Measures, Profile, Samples, Saving, Validation
from vlm_jax.training.log import Console, RunLog
from vlm_jax.training.optimizer import set_back
from vlm_jax.training.run_state import RunState
from vlm_jax.training.throughput import Throughput
from vlm_jax.training.trainer import Stage, State, Trainer


def run(
    config: ConfigDict,
    trainer: Trainer,
    workdir: Workdir,
    batches: grain.DatasetIterator,
    state: State,
    *,
    shapes: Sequence[Batch],
    checkpoints: Checkpoints,
    settings: dict[str, Any],
    done: int = 0,
    name_batch: Callable[[int], list[str]] = lambda number: [],
    measures: Measures | None = None,
    sample: Callable[[int, Flat], None] | None = None,
    epochs: Callable[[], float] | None = None,
    validation_losses: Sequence[float] = (),
    validation_scores: Sequence[float] = (),
    console: Console | None = None,
) -> "Loop":
    """Trains from step `done` to the end, or until a person interrupts. Returns the loop, which says how far it came.

    Args:
      config: of the run, for which the trainer was made.
      batches: each of one of the `shapes`, for which the step is compiled before the first.
      name_batch: the records of a batch, counted from 0, that has just been worked on.
      measures: of validation examples; taken every `validation.every` steps.
      sample: writes answers of the model down, after so many steps; called every `samples.every` steps and at the end.
      epochs: how often the data was seen with the batch that was taken last.
      validation_losses, validation_scores: of an earlier part of the run.
      console: what is said goes there.

    Raises:
      InputError: `train.max_skipped_steps` steps in a row had a loss or gradient that is not finite. Where memory is
        short the device's own error goes through to the caller (`compile_report.explained_memory`).
    """
    console = console or Console(silent=not hosts.is_first())
    log = RunLog(workdir.folder, steps=trainer.steps, done=done, every=config.log.every, console=console)
    known = {"earlier": validation_losses, "earlier_scores": validation_scores}
    validation = None if measures is None else Validation(measures, every=config.validation.every, log=log, **known)
    samples = None if sample is None else Samples(sample, every=config.samples.every)
    saving = Saving(
        checkpoints, trainer, workdir, settings, every=config.checkpoint.every, done=done, validation=validation
    )
    patience = config.validation.patience
    stop = EarlyStop(validation, patience=patience, log=log) if validation is not None and patience else None
    profile = Profile(config.log.profile, workdir.folder / "profile", log, workdir.home / "profile")
    loop = Loop(
        config,
        trainer,
        batches,
        RunState(done, *state),
        log=log,
        hooks=[hook for hook in (validation, samples, saving, stop, profile) if hook is not None],
        saving=saving,
        name_batch=name_batch,
        epochs=epochs,
        place=(workdir.home, str(workdir)),
    )
    with trackers.tracked(config, workdir, console) as tracker:
        loop.run(shapes)
        if tracker is not None:
            tracker.state = "stopped" if loop.stopped else "finished"
    return loop


class _NotFinite(InputError):
    """Steps whose loss or gradient is not finite, too many in a row."""


class Loop:
    """The steps of a run. `state.step` says how many are done; `stopped`, whether a person asked for the end.

    `saving` is one of the hooks, and what an error leaves is saved by it too.
    """

    def __init__(
        self,
        config: ConfigDict,
        trainer: Trainer,
        batches: grain.DatasetIterator,
        state: RunState,
        *,
        log: RunLog,
        hooks: Sequence[Hook],
        saving: Saving,
        name_batch: Callable[[int], list[str]],
        epochs: Callable[[], float] | None,
        place: tuple[Any, str],
    ):
        self.config, self.trainer, self.batches, self.state, self.log = config, trainer, batches, state, log
        self.hooks, self.saving = hooks, saving
        self.name_batch, self.epochs, self.place = name_batch, epochs, place
        self.steps, self.done, self.stopped = trainer.steps, state.step, False
        self.throughput = Throughput(trainer)
        self.compiles = 0
        self._programs: dict[int, dict] = {}
        self.stage: Stage | None = None
        self._pending: tuple | None = None  # a step whose metrics were not read yet
        self._noted = self._finite = self.done  # the last step that was noted; the last whose loss was finite
        self._positions: dict[int, dict] = {}  # in the data, after that step and those since

    def run(self, shapes: Sequence[Batch]) -> None:
        """To the end, or until a person asks, or a hook."""
        state = self.state
        with (
            stop_signals.noted(first=self._announce_stop, insists=True) as signals,
            contextlib.closing(self.log),
            contextlib.ExitStack() as at_end,
        ):
            at_end.callback(self.saving.wait)  # a save under way is finished, whatever stops the run
            try:
                self._take_steps(shapes, signals)
                for hook in reversed(self.hooks):
                    hook.end(state, stopped=self.stopped)
                self.saving.wait()
            except InputError as error:
                if jax.process_count() == 1 or isinstance(error, _NotFinite):  # of several hosts one alone cannot save
                    self._save_last_finite()
                raise
            if self.stopped:
                self.log.say(f"stopped at step {state.step} of {self.steps}; the same command goes on from there")

    def _announce_stop(self) -> None:
        # In a thread: what the signal interrupted may be in the middle of a line itself.
        when = "after this step, and saving" if self._programs else "when the step is compiled"
        line = f"stopping {when}; Ctrl-C again leaves at once …"
        threading.Thread(target=self.log.say, args=(line,), daemon=True).start()

    def _take_steps(self, shapes: Sequence[Batch], signals: list[int]) -> None:
        state, together = self.state, hosts.StopTogether(self.trainer.mesh)
        for hook in self.hooks:
            hook.begin(state)
        programs = self._programs = self._compile_all(shapes) if not state.ended else {}
        while state.step < self.steps and not state.ended:
            self._positions[state.step] = state.position = copy.deepcopy(self.batches.get_state())
            if together.now(bool(signals)):
                self.stopped = True
                break
            asking = time.perf_counter()
            host = next(self.batches)
            waited = time.perf_counter() - asking
            self._enter(self.trainer.stage(state.step))
            for hook in self.hooks:
                hook.before(state)
            self._take_step(programs[self.stage.start], host, waited)
            if state.step < self.steps:
                self._run_hooks()
        self._note_pending()
        state.position = self.batches.get_state()

    def _take_step(self, programs: dict, host: Batch, waited: float) -> None:
        state = self.state
        batch = to_devices(host, self.trainer.mesh)
        state.trainable, state.optimizer_state, metrics = programs[batch.shape](
            state.trainable, state.optimizer_state, state.frozen, batch, np.int32(state.step)
        )
        state.step += 1
        known = {"data_wait": waited, "flops": self.throughput.flops_of(host)}
        if self.epochs is not None:
            known["epoch"] = self.epochs()
        self._note_pending((state.step, metrics, known))

    def _run_hooks(self) -> None:
        """Those that are due, in order; whether one is may follow from what another has just done."""
        state, paused = self.state, False
        for hook in self.hooks:
            if not hook.due(state.step):
                continue
            if not paused:
                self._note_pending()  # nothing is saved before its loss was looked at
                state.position, paused = self.batches.get_state(), True
            hook(state)
        if paused:
            self.throughput.restart()

    def _note_pending(self, following: tuple | None = None) -> None:
        """Notes the step before, whose metrics are read while the devices work on `following`."""
        before, self._pending = self._pending, following
        if before is not None:
            self._note(*before)

    def _save_last_finite(self) -> None:
        """Saves the last step whose loss was finite, before an error ends the run: what followed changed no weights."""
        state = self.state
        with contextlib.suppress(_NotFinite):
            self._note_pending()  # a step that was taken meanwhile
        last = self._finite
        state.optimizer_state = set_back(state.optimizer_state, self._noted - last)
        # Where it ended the stage before, its optimizer state is no longer there.
        if last > max(self.saving.saved or 0, self.done) and self.trainer.stage(last - 1) is self.stage:
            state.step = last
            state.position = self._positions.get(last) or self.batches.get_state()  # a batch more was read since
            self.saving.save(state, measured=False)
            self.saving.wait()
            self.log.say(f"saved at step {last} of {self.steps}; the same command goes on from there")

    def _compile_all(self, shapes: Sequence[Batch]) -> dict[int, dict]:
        """The programs of every stage that is still to come, by its first step: what does not fit is known at once."""
        if line := self.throughput.describe():
            self.log.say(line)
        programs = {}
        for stage in self.trainer.stages:
            if stage.end > self.state.step or stage is self.trainer.stages[-1]:
                programs[stage.start] = self._compile(stage, shapes)
        self.log.start_clock()
        return programs

    def _compile(self, stage: Stage, shapes: Sequence[Batch]) -> dict:
        """The step of a stage for every shape of batch."""
        started = time.perf_counter()
        what = f" of steps {stage.start + 1} to {stage.end}" if len(self.trainer.stages) > 1 else ""
        count = "" if len(shapes) == 1 else f" for {len(shapes)} shapes"
        self.log.say(f"compiling the step{what}{count} (the first time takes a minute or more) …")
        compiled, reports = {}, []
        limit = (self.trainer.mesh.local_devices[0].memory_stats() or {}).get("bytes_limit")
        for one in shapes:
            traced = self.trainer.trace(one, stage)
            with self.log.waiting("still compiling"):
                program = traced.lower().compile()
            compiled[one.shape] = program
            rows, size = one.shape
            try:
                reports.append(compile_report.report(self.trainer, traced, program, limit, stage, (size, rows)))
            except UnknownForm as error:  # the run needs no report
                self.log.say(f"what the step takes cannot be told: {error}")
        self.compiles += len(compiled)
        for line in max(reports, key=lambda one: one.memory.total).summary() if reports else ():
            self.log.say(line)
        self.log.say(f"compiled in {time.perf_counter() - started:.0f} s")
        return compiled

    def _enter(self, stage: Stage) -> None:
        """Makes the state ready for a stage; where another one was before, its parameters go on in it."""
        if stage is self.stage:
            return
        self._note_pending()
        if self.stage is not None:
            state = self.state
            state.trainable, state.optimizer_state, state.frozen = self.trainer.enter(stage, state.parameters)
        self.stage = stage
        self.throughput.enter(stage)

    def _note(self, step: int, metrics: dict[str, jax.Array], known: dict[str, float]) -> None:
        """Writes a step down, and stops the run where too many in a row were not finite."""
        self._noted, state = step, self.state
        values: dict[str, Any] = {name: float(value) for name, value in metrics.items()}
        loss, norm = values["loss"], values["gradient_norm"]
        finite = math.isfinite(loss) and math.isfinite(norm)
        state.skipped = 0 if finite else state.skipped + 1
        if finite:
            state.losses.append(loss)
            self._finite = step
            self._positions = {at: position for at, position in self._positions.items() if at >= step}
        else:
            self.log.skipped(step, self.name_batch(step - 1))
            values |= {"loss": None, "gradient_norm": None, "skipped": True}
        flops = known.pop("flops")
        values |= known | self.throughput.after(values["tokens"], values["visual_tokens"], flops)
        values["compiles"] = self.compiles
        multipliers = self.config.optimizer.lr_multipliers
        if any(multiplier != 1 for multiplier in multipliers.values()):
            values |= {f"learning_rate/{part}": values["learning_rate"] * one for part, one in multipliers.items()}
        self.log.step(step, values)
        if state.skipped >= self.config.train.max_skipped_steps:
            home, workdir = self.place
            raise _NotFinite(
                f"step {step}: the loss is {loss}, its gradient norm {norm}, and so it was for {state.skipped} step(s) "
                f"in a row; nothing of them is saved. Look at the records in {home / 'skipped.jsonl'}, go on with a "
                f"lower --config.optimizer.learning_rate, or start another --workdir from this one's last checkpoint "
                f"(--config.model.path={workdir})"
            )
