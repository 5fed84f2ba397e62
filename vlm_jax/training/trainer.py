"""What a run decides before its first batch: stages, shapes, shardings, the compiled step.

A run has one stage, or a first one in which other parameters train (the connector, say). All stages share one set of
arrays; what trains in each, its optimizer and its schedule are its own. The loop over batches is `loop`'s.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from vlm_jax.adapters import lora, quantised
from vlm_jax.checkpoint.run_folder import Checkpoints
from vlm_jax.deferred import Deferred
from vlm_jax.errors import InputError
from vlm_jax.models.attention import choose
from vlm_jax.models.config import VLMConfig
from vlm_jax.models.parameters import Flat, abstract_parameters
from vlm_jax.models.stack import SHALLOW
from vlm_jax.models.token_reduction import learned
from vlm_jax.parallel.compiler import compiler_options
from vlm_jax.parallel.mesh import batch_sharding, replicated, spread, to_devices
from vlm_jax.parallel.rules import parameter_shardings, partition
from vlm_jax.processing.rows import Batch
from vlm_jax.training.objectives import Objective
from vlm_jax.training.objectives.sft import sft
from vlm_jax.training.optimizer import learning_rate, make_optimizer, optimizer_shardings
from vlm_jax.training.resume import first_stage
from vlm_jax.training.selection import select
from vlm_jax.training.step import make_loss, make_step

State = tuple[Flat, Any, Flat]
"""(trainable, optimizer_state, frozen)."""


def compute_dtype(name: str, platform: str):
    """auto: float32 on a CPU, whose bfloat16 is emulated; bfloat16 elsewhere."""
    if name == "auto":
        name = "float32" if platform == "cpu" else "bfloat16"
    return jnp.dtype(name)


def unrolled(remat: str, model: VLMConfig, platform: str) -> bool:
    """Whether layers are not scanned: on CPUs, where it was measured, in shallow stacks that recompute nothing.

    Of layers that are unrolled a CPU's compiler recomputes what it is told to, and keeps all of it nevertheless.
    """
    return platform == "cpu" and remat == "none" and max(model.vision.depth, model.decoder.layers) <= SHALLOW


def check_remat(remat: str, platform: str) -> None:
    """Raises InputError where the devices have no other memory to keep activations in."""
    if remat == "offload" and platform not in ("tpu", "gpu"):
        raise InputError(
            f"train.remat=offload keeps activations in the memory of the host beside an accelerator, and this is a "
            f"{platform.upper()}: take none, products, projections, attention or full"
        )


@dataclasses.dataclass(frozen=True)
class Stage:
    """Steps [start, end), counted from 0, in which the same parameters train."""

    start: int
    end: int
    trainable: frozenset[str]
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    optimizer_shardings: Any
    step: Any
    """The jitted step (`step.make_step`)."""


class Trainer:
    """A run of `steps` steps with these settings of this model on this mesh.

    Args:
      change: where the first of two stages ends, if not where its share says.
      objective: what is minimised, and measured on validation examples.
      remat: what layers keep, where `train.remat` leaves it open (`remat_choice`).

    Attributes:
      abstract: {path: shape and dtype} of every parameter; shardings: where each lies.
      stages: one, or two.
    """

    def __init__(
        self,
        config: ConfigDict,
        model: VLMConfig,
        mesh: Mesh,
        steps: int,
        *,
        change: int | None = None,
        objective: Objective = sft,
        remat: str = "",
    ):
        self.config, self.model, self.mesh, self.steps = config, model, mesh, steps
        platform = mesh.devices.flat[0].platform
        self.remat = remat or config.train.remat
        check_remat(self.remat, platform)
        self.dtype = compute_dtype(config.model.dtype, platform)
        self.attention = choose(config.model.attention, platform)
        self.selection = select(config, model, self.dtype)
        self.abstract = self.selection.abstract
        self.shardings = parameter_shardings(self.abstract, mesh)
        unroll = unrolled(self.remat, model, platform)
        options = {
            "dtype": self.dtype,
            "implementation": self.attention,
            "remat": self.remat,
            "unroll": unroll,
            "objective": objective,
        }
        loss = make_loss(model, **options, attach=self.selection.attach)
        whole = replicated(mesh)
        self._measure = jax.jit(
            functools.partial(make_loss(model, **options, attach=self.selection.still), {}),
            in_shardings=(self.shardings, batch_sharding(mesh)),
            out_shardings=(whole, whole),
            compiler_options=compiler_options(platform),
        )
        first = config.train.first
        change = (change or first_stage(first.share, steps)) if self.selection.first else 0
        stage_arguments = [(0, change, self.selection.first, first.learning_rate)] if change else []
        stage_arguments.append((change, steps, self.selection.trainable, config.optimizer.learning_rate))
        self.stages = [self._stage(loss, platform, *one) for one in stage_arguments]

    def _stage(self, loss, platform: str, start: int, end: int, trainable: frozenset[str], rate: float) -> Stage:
        settings, whole = self.config, replicated(self.mesh)
        schedule = learning_rate(settings.optimizer, end - start, peak=rate, start=start)
        trained = {path: self.abstract[path] for path in trainable}
        part = {path: self.shardings[path] for path in trainable}
        frozen = {path: sharding for path, sharding in self.shardings.items() if path not in trainable}
        optimizer = make_optimizer(settings.optimizer, lambda count: schedule(count + start), trained)
        state_shardings = optimizer_shardings(optimizer, trained, part, self.mesh)
        step = jax.jit(
            make_step(
                loss,
                optimizer,
                schedule,
                draw=functools.partial(lora.seeds, self.selection.seeds),
                seed=settings.train.seed,
                gradient_accumulation=settings.batch.gradient_accumulation,
            ),
            in_shardings=(part, state_shardings, frozen, batch_sharding(self.mesh), whole),
            out_shardings=(part, state_shardings, whole),
            donate_argnums=(0, 1),
            compiler_options=compiler_options(platform),
        )
        return Stage(start, end, trainable, schedule, optimizer, state_shardings, step)

    def stage(self, number: int) -> Stage:
        """The one that takes step `number`, counted from 0; the last one when all are done."""
        return next((stage for stage in self.stages if number < stage.end), self.stages[-1])

    def describe(self) -> str:
        trained = sum(self.abstract[path].size for path in self.stages[-1].trainable)
        adapters = sum(leaf.size for path, leaf in self.abstract.items() if lora.is_adapter(path))
        total = adapters + sum(leaf.size for leaf in abstract_parameters(self.model).values())
        before = ""
        if len(self.stages) > 1:
            first = self.stages[0]
            count = sum(self.abstract[path].size for path in first.trainable)
            before = f"{count:,} parameters for {first.end} steps, then "
        return (
            f"training {before}{trained:,} of {total:,} parameters, computing in {self.dtype} with {self.attention} "
            "attention"
        )

    def place(self, path: str, array: np.ndarray | jax.Array | Deferred) -> Flat:
        """Puts a parameter that was read, or is now, on its devices, as it is trained or held frozen.

        What an earlier run learned of a token reduction that this one does not use is left behind.
        """
        if path.startswith(learned.PREFIX) and path not in self.abstract:
            return {}
        if path in self.selection.quantised:
            wide = spread(array, self.sharding(path, array.shape))
            return quantised.quantised(path, wide, self.selection.quantise, self.shardings)
        return {path: spread(array, self.shardings[path], self.abstract[path].dtype)}

    def sharding(self, path: str, shape: tuple[int, ...]) -> NamedSharding:
        """Where a parameter is read to, before it is quantised or not."""
        return NamedSharding(self.mesh, partition(path, shape, self.mesh))

    def abstract_state(self, stage: Stage | None = None) -> State:
        """Shapes with shardings, of the last stage where none is given."""
        stage = stage or self.stages[-1]

        def placed(leaf, sharding):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        optimizer_state = jax.eval_shape(stage.optimizer.init, {path: self.abstract[path] for path in stage.trainable})
        trainable, frozen = split(jax.tree.map(placed, self.abstract, self.shardings), stage)
        return trainable, jax.tree.map(placed, optimizer_state, stage.optimizer_shardings), frozen

    def trace(self, batch: Batch, stage: Stage | None = None):
        """The step for the shapes of a batch, to be compiled; of the last stage where none is given."""
        stage = stage or self.stages[-1]
        sharding = batch_sharding(self.mesh)
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), batch)
        number = jax.ShapeDtypeStruct((), jnp.int32)
        with jax.set_mesh(self.mesh):  # attention's kernels are divided over it by hand
            return stage.step.trace(*self.abstract_state(stage), like, number)

    def compile(self, batch: Batch, stage: Stage | None = None):
        """The step for the shapes of a batch, ready to be taken."""
        return self.trace(batch, stage).lower().compile()

    def measure(self, parameters: Flat, batches: Iterable[Batch]) -> float:
        """The mean loss per supervised token over all batches, without dropout."""
        total = weight = 0.0
        with jax.set_mesh(self.mesh):
            for batch in batches:
                mean, count = self._measure(parameters, to_devices(batch, self.mesh))
                total, weight = total + float(mean) * float(count), weight + float(count)
        return total / weight

    def start(self, parameters: Flat) -> State:
        """Of a fresh run; adapters, and a learned token reduction, that `parameters` has not begin as they should."""
        fresh = {
            path: spread(lora.initial(path, leaf.shape, self.config.train.seed), self.shardings[path])
            for path, leaf in self.abstract.items()
            if path not in parameters and lora.is_adapter(path)
        }
        fresh |= {
            path: spread(learned.initial(path, leaf.shape), self.shardings[path])
            for path, leaf in self.abstract.items()
            if path not in parameters and path.startswith(learned.PREFIX)
        }
        return self.enter(self.stages[0], {**parameters, **fresh})

    def enter(self, stage: Stage, parameters: Flat) -> State:
        """The state at the start of a stage, around parameters as they are."""
        trainable, frozen = split(parameters, stage)
        return trainable, jax.jit(stage.optimizer.init, out_shardings=stage.optimizer_shardings)(trainable), frozen

    def restore(
        self, checkpoints: Checkpoints, step: int, data: grain.DatasetIterator, base: Callable[[], Flat] | None
    ) -> State:
        """Of a checkpoint, ready for step number `step`; the data iterator is set to where it was.

        Args:
          base: reads what is frozen, where checkpoints do not hold it (`saves_base`).
        """
        before, stage = self.stage(step - 1), self.stage(step)
        trainable, optimizer_state, frozen = self.abstract_state(before)
        parameters, optimizer_state, position = checkpoints.restore_training(
            step, self.saved({**trainable, **frozen}), optimizer_state
        )
        data.set_state(position)
        everything = parameters if self.saves_base else {**base(), **parameters}
        if stage is not before:
            return self.enter(stage, everything)
        trainable, frozen = split(everything, stage)
        return trainable, optimizer_state, frozen

    @property
    def saves_base(self) -> bool:
        """Whether checkpoints hold all parameters: they do, but where what moves is kept beside a base."""
        return not self.selection.beside_base

    def saved(self, parameters: Flat) -> Flat:
        """Of all parameters, those that a checkpoint holds."""
        if self.saves_base:
            return parameters
        return {path: leaf for path, leaf in parameters.items() if path in self.selection.moves}


def split(parameters: Flat, stage: Stage) -> tuple[Flat, Flat]:
    """(what trains in a stage, the rest)."""
    trainable = {path: leaf for path, leaf in parameters.items() if path in stage.trainable}
    return trainable, {path: leaf for path, leaf in parameters.items() if path not in stage.trainable}
