"""The loop of a run: batches in, checkpoints and metrics out, until the end or until a person interrupts.

Where batches come from is the caller's (`scripts/train.py` connects `data_pipeline`); what a step is, `trainer`'s. A
run killed at any moment goes on from its last checkpoint with the same losses and the same weights.
"""

import contextlib
import copy
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import jax
import numpy as np

from vlm_jax.checkpoint.run_folder import Checkpoints
from vlm_jax.checkpoint.workdir import Workdir
from vlm_jax.errors import InputError
from vlm_jax.models.parameters import Flat
from vlm_jax.parallel import hosts
from vlm_jax.parallel.mesh import to_devices
from vlm_jax.training import compile_report
from vlm_jax.training.flops import peak_flops, step_flops
from vlm_jax.training.log import Console, RunLog
from vlm_jax.training.optimizer import set_back
from vlm_jax.training.trainer import Shapes, Stage, State, Trainer

PROFILED = 3
"""Steps that a profile covers."""
GB = 1 << 30


def run(
    trainer: Trainer,
    workdir: Workdir,
    batches: grain.DatasetIterator,
    state: State,
    *,
    shapes: Sequence[Shapes],
    checkpoints: Checkpoints,
    settings: dict[str, Any],
    done: int = 0,
    name_batch: Callable[[int], list[str]] = lambda number: [],
    measure: Callable[[Flat], float] | None = None,
    sample: Callable[[int, Flat], None] | None = None,
    epochs: Callable[[], float] | None = None,
    console: Console | None = None,
) -> int:
    """Trains from step `done` to the end, or until a person interrupts. Returns the steps that are done.

    Args:
      batches: each of one of the `shapes`, for which the step is compiled before the first.
      name_batch: the records of a batch, counted from 0, that has just been worked on.
      measure: the loss on held-out examples, from all parameters; taken every `held_out.every` steps.
      sample: writes answers of the model down, after so many steps; called every `samples.every` steps and at the end.
      epochs: how often the data was seen with the batch that was taken last.
      console: what is said goes there.

    Raises:
      InputError: `train.skip_at_most` steps in a row had a loss or gradient that is not finite. Where memory is short
        the device's own error goes through to the caller (`compile_report.explained_memory`).
    """
    return _Run(
        trainer,
        workdir,
        batches,
        state,
        shapes,
        checkpoints,
        settings,
        done,
        name_batch,
        measure,
        sample,
        epochs,
        console or Console(silent=not hosts.is_first()),
    ).to_the_end()


class _NotFinite(InputError):
    """Steps whose loss or gradient is not finite, too many in a row."""


class _Run:
    def __init__(
        self,
        trainer,
        workdir,
        batches,
        state,
        shapes,
        checkpoints,
        settings,
        done,
        name_batch,
        measure,
        sample,
        epochs,
        console,
    ):
        self.trainer, self.workdir, self.batches, self.shapes = trainer, workdir, batches, shapes
        self.trainable, self.moments, self.frozen = state
        self.checkpoints, self.settings, self.name_batch = checkpoints, settings, name_batch
        self.measure, self.sample, self.epochs = measure, sample, epochs
        self.config, self.steps, self.done = trainer.config, trainer.steps, done
        self.log = RunLog(workdir.folder, steps=self.steps, done=done, every=self.config.log.every, console=console)
        self.saved = done if done else None
        self.skipped = 0  # steps in a row
        self.losses: list[float] = []  # since the last checkpoint
        self.held_out: float | None = None
        self.measured: int | None = None  # the step after which held_out is
        self.owed = False  # whether a checkpoint was due at a step that was skipped
        self.compiles = 0
        self.profiled_from: int | None = None  # the step, counted from 0, at which a trace under way began
        self.pending: tuple | None = None  # a step whose metrics were not read yet
        self.noted = done
        self.sound = done  # the last step whose loss was finite: what came after it changed no weights
        self.positions: dict[int, dict] = {}  # in the data, after that step and those since
        devices = trainer.mesh.local_devices
        self.peak = peak_flops(devices[0].device_kind)
        self.devices = devices

    def to_the_end(self) -> int:
        with _asked_to_stop(self.log.say) as asked, contextlib.closing(self.log), contextlib.ExitStack() as at_end:
            at_end.callback(self.checkpoints.wait)  # a save under way is finished, whatever stops the run
            try:
                step = self._take_steps(asked)
                self._end_profile()
                if step > self.done or self.saved is None:
                    # One who asks a run to stop does not wait for all held-out examples.
                    self._save(step, measured=step == self.steps)
                if self.sample is not None and step == self.steps > self.done:
                    self.sample(step, self._parameters())
                self.checkpoints.wait()
            except InputError as error:
                if jax.process_count() == 1 or isinstance(error, _NotFinite):  # of several hosts one alone cannot save
                    self._save_sound()
                raise
            if step < self.steps:
                self.log.say(f"stopped at step {step} of {self.steps}; the same command goes on from there")
        return step

    def _take_steps(self, asked: list[int]) -> int:
        """Trains until the end, or until a person asks. Returns the steps that are done."""
        together = hosts.StopTogether(self.trainer.mesh)
        step, stage, compiled = self.done, None, {}
        programs = self._compile_all(step)
        while step < self.steps:
            self.positions[step] = copy.deepcopy(self.batches.get_state())
            if together.now(bool(asked)):
                break
            asking = time.perf_counter()
            host = next(self.batches)
            waited = time.perf_counter() - asking
            if stage is not self.trainer.stage(step):
                self._note_pending()
                entered, stage = stage is not None, self.trainer.stage(step)
                compiled = programs[stage.start]
                self._enter(stage, entered)
                self.clock = time.perf_counter()
            with self._profile(step):
                batch = to_devices(host, self.trainer.mesh)
                take_step = compiled[_key({name: array.shape for name, array in batch.items()})]
                self.trainable, self.moments, metrics = take_step(
                    self.trainable, self.moments, self.frozen, batch, np.int32(step)
                )
                step += 1
                told = {"data_wait": waited, "flops": self.flops.of_batch(host)}
                if self.epochs is not None:
                    told["epoch"] = self.epochs()
                self._note_pending((step, metrics, told))
                due = {section for section in ("checkpoint", "held_out", "samples") if self._due(section, step)}
                if self.owed:
                    due.add("checkpoint")
                if due:
                    self._note_pending()  # nothing is saved before its loss was looked at
                    self._pause(step, due)
        self._note_pending()
        return step

    def _note_pending(self, following: tuple | None = None) -> None:
        """Notes the step before, whose metrics are read while the devices work on `following`."""
        before, self.pending = self.pending, following
        if before is not None:
            self._note(*before)

    def _save_sound(self) -> None:
        """Saves the last step whose loss was finite, before a fault ends the run: what followed changed no weights."""
        with contextlib.suppress(_NotFinite):
            self._note_pending()  # a step that was taken meanwhile
        self.moments = set_back(self.moments, self.noted - self.sound)
        # Where it ended the stage before, its moments are no longer there.
        if self.sound > max(self.saved or 0, self.done) and self.trainer.stage(self.sound - 1) is self.stage:
            self._save(self.sound, measured=False)
            self.checkpoints.wait()
            self.log.say(f"saved at step {self.sound} of {self.steps}; the same command goes on from there")

    def _due(self, section: str, step: int) -> bool:
        """Whether something is to be done after a step that is not the last."""
        every = self.config[section].every
        return bool(every) and step % every == 0 and step < self.steps

    def _compile_all(self, step: int) -> dict[int, dict]:
        """The programs of every stage that is still to come, by its first step: what does not fit is known at once."""
        if self.peak:
            kind = self.devices[0].device_kind
            self.log.say(f"MFU is of {self.peak / 1e12:,.0f} TFLOP/s a device ({kind}, dense bfloat16)")
        held = {}
        for stage in self.trainer.stages:
            if stage.end > step or stage is self.trainer.stages[-1]:
                held[stage.start] = self._compile(stage)
        self.log.start_clock()
        return held

    def _compile(self, stage: Stage) -> dict:
        """The step of a stage for every shape of batch."""
        shapes, started = self.shapes, time.perf_counter()
        what = f" of steps {stage.start + 1} to {stage.end}" if len(self.trainer.stages) > 1 else ""
        count = "" if len(shapes) == 1 else f" for {len(shapes)} shapes"
        self.log.say(f"compiling the step{what}{count} (the first time takes a minute or more) …")
        compiled, reports = {}, []
        limit = (self.devices[0].memory_stats() or {}).get("bytes_limit")
        for one in shapes:
            traced = self.trainer.trace(one, stage)
            with self.log.waiting("still compiling"):
                program = traced.lower().compile()
            compiled[_key({name: shape for name, (shape, _) in one.items()})] = program
            reports.append(compile_report.report(self.trainer, traced, program, limit, stage))
        self.compiles += len(compiled)
        for line in max(reports, key=lambda one: one.memory.total).summary():
            self.log.say(line)
        self.log.say(f"compiled in {time.perf_counter() - started:.0f} s")
        return compiled

    def _enter(self, stage: Stage, entered: bool) -> None:
        """Makes the state ready for a stage; where another one was before, its parameters go on in it."""
        if entered:
            self.trainable, self.moments, self.frozen = self.trainer.enter(stage, self._parameters())
        self.stage = stage
        self.flops = step_flops(self.trainer.model, stage.trainable, self.trainer.selection.attach)

    def _parameters(self) -> Flat:
        return {**self.trainable, **self.frozen}

    def _pause(self, step: int, due: set[str]) -> None:
        """What is done between two steps."""
        if "held_out" in due and self.measure is not None:
            self._measure(step)
        if "samples" in due and self.sample is not None:
            self.sample(step, self._parameters())
        if "checkpoint" in due:
            self.owed = bool(self.skipped)  # not while steps are skipped, but after the first that is sound
            if not self.owed:
                self._save(step)
        self.clock = time.perf_counter()

    def _save(self, step: int, *, measured: bool = True) -> None:
        if step == self.saved:
            return
        loss = float(np.mean(self.losses)) if self.losses else None
        if self.measure is not None:
            if measured and self.measured != step:
                self._measure(step)
            loss = self.held_out if self.measured == step else None
        self.workdir.sync()  # a checkpoint is never ahead of the metrics
        self.checkpoints.save(
            step,
            self.trainer.saved(self._parameters()),
            {**self.settings, "step": step, "steps": self.steps, "first_stage": self._first_stage()},
            optimizer=self.moments,
            data=self.positions.get(step) or self.batches.get_state(),  # of a step before: a batch more was read
            loss=loss,
        )
        self.saved, self.losses = step, []

    def _first_stage(self) -> int:
        return self.trainer.stages[0].end if len(self.trainer.stages) > 1 else 0

    def _measure(self, step: int) -> None:
        self.held_out, self.measured = self.measure(self._parameters()), step
        self.log.held_out(step, self.held_out)

    def _note(self, step: int, metrics: dict[str, jax.Array], told: dict[str, float]) -> None:
        """Writes a step down, and stops the run where too many in a row were not finite."""
        self.noted = step
        values: dict[str, Any] = {name: float(value) for name, value in metrics.items()}
        sound = math.isfinite(values["loss"]) and math.isfinite(values["gradient_norm"])
        self.skipped = 0 if sound else self.skipped + 1
        if sound:
            self.losses.append(values["loss"])
            self.sound = step
            self.positions = {at: held for at, held in self.positions.items() if at >= step}
        else:
            self.log.skipped(step, self.name_batch(step - 1))
        now = time.perf_counter()
        seconds, self.clock = now - self.clock, now
        flops = told.pop("flops")
        values |= told | {
            "seconds": seconds,
            "tokens_per_second": values["tokens"] / seconds,
            "text_tokens_per_second": (values["tokens"] - values["visual_tokens"]) / seconds / self.trainer.mesh.size,
            "visual_tokens_per_second": values["visual_tokens"] / seconds / self.trainer.mesh.size,
            "mfu": flops / seconds / self.peak / len(self.devices) if self.peak else None,
            "compiles": self.compiles,
            "memory_gib": _memory(self.devices),
        }
        scales = self.config.optimizer.scales
        if any(scale != 1 for scale in scales.values()):
            values |= {f"learning_rate/{part}": values["learning_rate"] * scale for part, scale in scales.items()}
        if not sound:
            told_loss = (values["loss"], values["gradient_norm"])
            values |= {"loss": None, "gradient_norm": None, "skipped": True}
        self.log.step(step, values)
        if self.skipped >= self.config.train.skip_at_most:
            raise _NotFinite(
                f"step {step}: the loss is {told_loss[0]}, its gradient norm {told_loss[1]}, and so it was for "
                f"{self.skipped} step(s) in a row; nothing of them is saved. Look at the records in "
                f"{self.workdir.home / 'skipped.jsonl'}, go on with a lower --config.optimizer.learning_rate, or start "
                f"another --workdir from this one's last checkpoint (--config.model.path={self.workdir})"
            )

    @contextlib.contextmanager
    def _profile(self, step: int):
        """Traces a few steps for XLA's profiler, where `log.profile` asks for it."""
        if step + 1 == self.config.log.profile:
            jax.profiler.start_trace(str(self.workdir.folder / "profile"))
            self.profiled_from = step
        yield
        if self.profiled_from is not None and step + 1 == self.profiled_from + PROFILED:
            self._end_profile()

    def _end_profile(self) -> None:
        """Writes down what was traced; also where a run ends or stops in the middle of it."""
        if self.profiled_from is not None:
            jax.block_until_ready(self.trainable)
            jax.profiler.stop_trace()
            self.profiled_from = None
            self.log.say(f"profile: {self.workdir.home / 'profile'}, for XProf or a TensorBoard with its plugin")


def _memory(devices: Sequence) -> float | None:
    """The most that any of these devices has held at one time, in GiB; None where the platform does not tell."""
    held = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in devices]
    return None if None in held else max(held) / GB


def _key(shapes: dict[str, tuple[int, ...]]) -> tuple:
    return tuple(sorted(shapes.items()))


@contextlib.contextmanager
def _asked_to_stop(say: Callable[[str], None]) -> Iterator[list[int]]:
    """A list that fills when the run is asked to stop; a second Ctrl-C stops at once, a second SIGTERM does not."""
    asked: list[int] = []

    def note(number, frame):
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not asked:  # in a thread: what the signal interrupted may be in the middle of a line itself
            line = "stopping after this step, and saving; Ctrl-C again leaves at once …"
            threading.Thread(target=say, args=(line,), daemon=True).start()
        asked.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
