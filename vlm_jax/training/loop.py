"""A training run: from loaded parameters and an iterator of batches to checkpoints and metrics.

Where batches come from is the caller's (`scripts/train.py` connects `data_pipeline`); what a step computes is in
`step`. A run killed at any moment goes on from its last checkpoint with the same losses and the same weights.
"""

import contextlib
import dataclasses
import functools
import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from vlm_jax.adapters import lora, quantised
from vlm_jax.checkpoint.run_folder import Checkpoints
from vlm_jax.errors import InputError
from vlm_jax.models.attention import choose
from vlm_jax.models.config import VLMConfig
from vlm_jax.models.parameters import Flat, abstract_parameters
from vlm_jax.parallel.compiler import compiler_options
from vlm_jax.parallel.mesh import batch_sharding, replicated, to_devices
from vlm_jax.parallel.rules import parameter_shardings, partition
from vlm_jax.training.log import RunLog
from vlm_jax.training.optimizer import learning_rate, make_optimizer, optimizer_shardings
from vlm_jax.training.selection import select
from vlm_jax.training.step import make_loss, make_step


def compute_dtype(name: str, platform: str):
    """auto: float32 on a CPU, whose bfloat16 is emulated; bfloat16 elsewhere."""
    if name == "auto":
        name = "float32" if platform == "cpu" else "bfloat16"
    return jnp.dtype(name)


@dataclasses.dataclass
class Trainer:
    """Everything of a run that is decided before its first batch: shapes, shardings, the step."""

    config: ConfigDict
    model: VLMConfig
    mesh: Mesh
    steps: int

    def __post_init__(self):
        settings = self.config
        platform = self.mesh.devices.flat[0].platform
        self.dtype = compute_dtype(settings.model.dtype, platform)
        self.attention = choose(settings.model.attention, platform)
        self.selection = select(settings, self.model, self.dtype)
        self.abstract, self.trainable = self.selection.abstract, self.selection.trainable
        self.shardings = parameter_shardings(self.abstract, self.mesh)
        self.schedule = learning_rate(settings.optimizer, self.steps)
        self.optimizer = make_optimizer(settings.optimizer, self.schedule, self._part(self.abstract))
        self._moment_shardings = optimizer_shardings(
            self.optimizer, self._part(self.abstract), self._part(self.shardings), self.mesh
        )
        loss = make_loss(
            self.model,
            dtype=self.dtype,
            implementation=self.attention,
            remat=settings.train.remat,
            attach=self.selection.attach,
        )
        whole = replicated(self.mesh)
        part, frozen = self._part(self.shardings), self._part(self.shardings, trains=False)
        self._step = jax.jit(
            make_step(
                loss,
                self.optimizer,
                self.schedule,
                draw=functools.partial(lora.seeds, self.selection.seeds),
                seed=settings.train.seed,
                accumulate=settings.batch.accumulate,
            ),
            in_shardings=(part, self._moment_shardings, frozen, batch_sharding(self.mesh), whole),
            out_shardings=(part, self._moment_shardings, whole),
            donate_argnums=(0, 1),
            compiler_options=compiler_options(platform),
        )

    def describe(self) -> str:
        trained = sum(self.abstract[path].size for path in self.trainable)
        adapters = sum(leaf.size for path, leaf in self.abstract.items() if lora.is_adapter(path))
        total = adapters + sum(leaf.size for leaf in abstract_parameters(self.model).values())
        return (
            f"training {trained:,} of {total:,} parameters, computing in {self.dtype} with {self.attention} attention"
        )

    def _part(self, flat: Flat, trains: bool = True) -> Flat:
        return {path: leaf for path, leaf in flat.items() if (path in self.trainable) == trains}

    def place(self, path: str, array: np.ndarray | jax.Array) -> Flat:
        """Puts a parameter that was read on its devices, as it is trained or held frozen."""
        if path in self.selection.packed:
            return quantised.packed(path, jnp.asarray(array), self.selection.quantise, self.shardings)
        return {path: jax.device_put(array.astype(self.abstract[path].dtype), self.shardings[path])}

    def sharding(self, path: str, shape: tuple[int, ...]) -> NamedSharding:
        """Where a parameter is read to, before it is packed or not."""
        return NamedSharding(self.mesh, partition(path, shape, self.mesh))

    def abstract_state(self) -> tuple[Flat, Any, Flat]:
        """(trainable, moments, frozen) as shapes with shardings."""

        def placed(leaf, sharding):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        moments = jax.eval_shape(self.optimizer.init, self._part(self.abstract))
        parameters = jax.tree.map(placed, self.abstract, self.shardings)
        moments = jax.tree.map(placed, moments, self._moment_shardings)
        return self._part(parameters), moments, self._part(parameters, trains=False)

    def trace(self, shapes: dict[str, tuple[tuple[int, ...], np.dtype]]):
        """The step for the shapes of a batch, over all hosts, to be compiled."""
        sharding = batch_sharding(self.mesh)
        batch = {name: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding) for name, (shape, dtype) in shapes.items()}
        number = jax.ShapeDtypeStruct((), jnp.int32)
        with jax.set_mesh(self.mesh):  # attention's kernels are divided over it by hand
            return self._step.trace(*self.abstract_state(), batch, number)

    def compile(self, shapes: dict[str, tuple[tuple[int, ...], np.dtype]]):
        """The step for the shapes of a batch, ready to be taken."""
        return self.trace(shapes).lower().compile()

    def start(self, parameters: Flat):
        """(trainable, moments, frozen) of a fresh run; adapters that `parameters` has not begin as they should."""
        fresh = {
            path: jax.device_put(lora.initial(path, leaf.shape, self.config.train.seed), self.shardings[path])
            for path, leaf in self.abstract.items()
            if path not in parameters and lora.is_adapter(path)
        }
        parameters = {**parameters, **fresh}
        trainable = self._part(parameters)
        moments = jax.jit(self.optimizer.init, out_shardings=self._moment_shardings)(trainable)
        return trainable, moments, self._part(parameters, trains=False)

    def restore(
        self, checkpoints: Checkpoints, step: int, data: grain.DatasetIterator, base: Callable[[], Flat] | None
    ):
        """(trainable, moments, frozen) of a checkpoint; the data iterator is set to where it was.

        Args:
          base: reads what is frozen, where checkpoints do not hold it (`saves_base`).
        """
        trainable, moments, frozen = self.abstract_state()
        saved = {**trainable, **frozen} if self.saves_base else trainable
        parameters, moments, position = checkpoints.restore_training(step, saved, moments)
        data.set_state(position)
        held = parameters if self.saves_base else base()
        return self._part(parameters), moments, self._part(held, trains=False)

    @property
    def saves_base(self) -> bool:
        """Whether checkpoints hold all parameters: they do, but for adapters of a base that stays as it was."""
        return self.selection.lora is None and not self.selection.packed

    def run(
        self,
        workdir: Path,
        batches: grain.DatasetIterator,
        state: tuple[Flat, Any, Flat],
        *,
        shapes: Sequence[dict[str, tuple[tuple[int, ...], np.dtype]]],
        checkpoints: Checkpoints,
        settings: dict[str, Any],
        done: int = 0,
        name_batch: Callable[[int], list[str]] = lambda number: [],
    ) -> int:
        """Trains from step `done` to the end, or until a person interrupts. Returns the steps that are done.

        Args:
          batches: each of one of the `shapes`, for which the step is compiled before the first.
          name_batch: the records of a batch, counted from 0, that has just been worked on.

        Raises:
          InputError: `train.skip_at_most` steps in a row had a loss or gradient that is not finite.
        """
        trainable, moments, frozen = state
        log = RunLog(workdir / "metrics.jsonl", steps=self.steps, done=done, every=self.config.log.every)
        saved = done if done else None

        def save(step: int) -> None:
            nonlocal saved
            if step != saved:
                checkpoints.save(
                    step,
                    {**trainable, **frozen} if self.saves_base else trainable,
                    {**settings, "step": step},
                    optimizer=moments,
                    data=batches.get_state(),
                )
                saved = step

        pending = None  # metrics of the step before, read while the devices work on this one
        skipped = 0  # steps in a row

        def note(step: int, metrics: dict[str, jax.Array], told: dict[str, float], clock: float) -> float:
            nonlocal skipped
            now, sound = _note(log, step, metrics, told, clock)
            skipped = 0 if sound else skipped + 1
            if not sound:
                with (workdir / "skipped.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"step": step, "records": name_batch(step - 1)}, ensure_ascii=False) + "\n")
            if skipped >= self.config.train.skip_at_most:
                raise InputError(
                    f"step {step}: the loss is {float(metrics['loss'])}, its gradient norm "
                    f"{float(metrics['gradient_norm'])}, and so it was for {skipped} step(s) in a row; nothing of them "
                    f"is saved. Lower optimizer.learning_rate, or look at the records in {workdir / 'skipped.jsonl'}"
                )
            return now

        with _asked_to_stop() as asked, contextlib.closing(log), contextlib.ExitStack() as at_end:
            at_end.callback(checkpoints.wait)  # a save under way is finished, whatever stops the run
            step, clock = done, time.perf_counter()
            compiled = {}
            if step < self.steps:
                log.say(
                    "compiling the step …" if len(shapes) == 1 else f"compiling the step for {len(shapes)} shapes …"
                )
                for one in shapes:
                    if asked:
                        break
                    compiled[_key({name: shape for name, (shape, _) in one.items()})] = self.compile(one)
                log.say(f"compiled in {time.perf_counter() - clock:.0f} s")
                clock = time.perf_counter()
                log.start_clock()
            while step < self.steps and not asked:
                asking = time.perf_counter()
                host = next(batches)
                waited = time.perf_counter() - asking
                batch = to_devices(host, self.mesh)
                take_step = compiled[_key({name: array.shape for name, array in batch.items()})]
                trainable, moments, metrics = take_step(trainable, moments, frozen, batch, np.int32(step))
                step += 1
                if pending is not None:
                    clock = note(*pending, clock)
                pending = (step, metrics, {**_slots(host), "data_wait": waited})
                if step % self.config.checkpoint.every == 0 and step < self.steps:
                    clock = note(*pending, clock)  # nothing is saved before its loss was looked at
                    pending = None
                    if not skipped:
                        save(step)
            if pending is not None:
                note(*pending, clock)
            if step > done or saved is None:
                save(step)
            checkpoints.wait()
            if asked and step < self.steps:
                log.say(f"stopped at step {step} of {self.steps}; the same command goes on from there")
        return step


def _key(shapes: dict[str, tuple[int, ...]]) -> tuple:
    return tuple(sorted(shapes.items()))


def _slots(batch: dict[str, np.ndarray]) -> dict[str, float]:
    """Tokens and patches of a batch that are no padding, as counts and shares."""
    tokens, patches = int((batch["segment_ids"] > 0).sum()), int((batch["image_ids"] > 0).sum())
    return {
        "tokens": tokens,
        "patches": patches,
        "padding": 1 - tokens / batch["segment_ids"].size,
        "patch_padding": 1 - patches / batch["image_ids"].size,
    }


def _note(
    log: RunLog, step: int, metrics: dict[str, jax.Array], told: dict[str, float], clock: float
) -> tuple[float, bool]:
    """Writes a step down; the time, and whether its loss and gradient were finite."""
    values: dict[str, float | None] = {name: float(value) for name, value in metrics.items()}
    sound = math.isfinite(values["loss"]) and math.isfinite(values["gradient_norm"])
    if not sound:
        values |= {"loss": None, "gradient_norm": None, "skipped": True}
        log.say(f"step {step} is skipped: its loss or gradient is not finite")
    now = time.perf_counter()
    log.step(step, {**values, **told, "seconds": now - clock, "tokens_per_second": told["tokens"] / (now - clock)})
    return now, sound


@contextlib.contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """A list that fills when the run is asked to stop; a second Ctrl-C stops at once."""
    asked: list[int] = []

    def note(number, frame):
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check_resumable(held: dict[str, Any], now: dict[str, Any], where: Path) -> None:
    """Raises InputError, listing what differs, where a run folder was started with other settings.

    What `now` leaves out is not compared.
    """
    if "resume" not in held:
        raise InputError(f"{where}: holds a converted model, not a run; give it as config.model.path to start from it")
    held, now = held["resume"], now["resume"]
    differing = [key for key in now if key in held and held[key] != now[key]]
    if differing:
        raise InputError(
            [
                f"{where}: was started with {key} = {held[key]!r}, this run has {now[key]!r}; "
                "go on with the same settings, or take another --workdir"
                for key in differing
            ]
        )
