"""The training step of a config compiled for a TPU that is not there: `scripts/compile_check.py` calls it.

Shapes of batches come from the settings alone, as no data is looked at. What is told of a compiled step is
`vlm_jax.training.compile_report`'s.
"""

import copy
import dataclasses
import time
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from data_pipeline.buckets import rows_of
from data_pipeline.packing import Bucket
from vlm_jax import terminal
from vlm_jax.checkpoint import starting_model
from vlm_jax.errors import InputError
from vlm_jax.models.config import VLMConfig
from vlm_jax.models.presets import PRESETS
from vlm_jax.models.token_reduction import learned
from vlm_jax.parallel import mesh as meshes
from vlm_jax.parallel.topology import Topology
from vlm_jax.processing import visual_tokens
from vlm_jax.processing.example import Size
from vlm_jax.processing.rows import Batch, RowSpec
from vlm_jax.processing.visual_tokens import VisualTokens
from vlm_jax.training.compile_report import Report, advice, report
from vlm_jax.training.config import check_config
from vlm_jax.training.remat_choice import trainer_of_run
from vlm_jax.training.trainer import Stage, Trainer


@dataclasses.dataclass(frozen=True)
class Compiled:
    """The step of a stage of the training for a shape of batch.

    Attributes:
      topology: the name of the slice.
      bucket: the shape: rows, and the size of each.
      stage: the steps that it is for.
      seconds: how long compiling took.
      report: what it takes.
    """

    topology: str
    bucket: Bucket
    stage: Stage
    seconds: float
    report: Report

    def lines(self) -> list[str]:
        return [*self.report.lines(), f"compiled in {self.seconds:.0f} s"]

    def as_json(self) -> dict[str, Any]:
        return {
            "topology": self.topology,
            "rows": self.bucket.rows,
            "size": list(self.bucket.size.columns),
            "steps": [self.stage.start, self.stage.end],
            "seconds": self.seconds,
            **self.report.as_json(),
        }


def check(
    config: ConfigDict,
    topology: Topology,
    *,
    preset: str | None = None,
    show: Callable[[Compiled], None] = lambda compiled: None,
    say: Callable[[str], None] = terminal.say,
) -> list[Compiled]:
    """Compiles the step of every stage for every shape of batch. Returns them, where all fit.

    Args:
      config: of a run; its data need not be named, nor with a `preset` its model. It is left as it is.
      topology: `vlm_jax.parallel.topology.prepare` was called with it, before JAX was loaded.
      preset: a key of `PRESETS`, in place of the model of `config`.
      show: called with each, as soon as it is compiled.
      say: called with what is compiled, a line each.

    Raises:
      InputError: settings, a model or a slice that cannot be used; or a step does not fit into a chip's memory.
    """
    config = _with_names(config, preset)
    check_config(config)
    model, devices = _shapes(config, preset), topology.devices()
    mesh = meshes.make_mesh(meshes.MeshShape(**config.mesh), devices)
    meshes.check_rows(mesh, config.batch.rows, config.batch.gradient_accumulation)
    meshes.check_heads(mesh, model)
    tokens = visual_tokens.of_settings(config.model, config.train.seed)
    multiple = meshes.row_shards(mesh) * config.batch.gradient_accumulation
    buckets = _buckets(config.batch, model, tokens, multiple)
    specs = [RowSpec.of(bucket.size, model.vision, tokens.widest) for bucket in buckets]

    def shapes() -> list[Batch]:
        return [spec.batch(bucket.rows) for spec, bucket in zip(specs, buckets, strict=True)]

    trainer = trainer_of_run(config, model, mesh, config.train.steps or 1000, shapes, limit=topology.memory, say=say)
    say(f"{len(devices)} × {devices[0].device_kind}: {trainer.describe()}")
    found = []
    for bucket, spec in zip(buckets, specs, strict=True):
        for stage in trainer.stages:
            say(_described(bucket, stage if len(trainer.stages) > 1 else None))
            found.append(_compiled(config, trainer, bucket, spec, stage, topology))
            show(found[-1])
    most = max(one.report.memory.total for one in found)
    if not all(one.report.fits for one in found):
        raise InputError(
            f"--topology={topology.name}: {most / 2**30:.1f} GiB a chip are more than may be used of "
            f"{topology.memory / 2**30:.0f}; {advice(config, mesh)}"
        )
    return found


def _with_names(config: ConfigDict, preset: str | None) -> ConfigDict:
    """A copy in which what a run needs the names of, and this does not look at, has some."""
    config = copy.deepcopy(config)
    if not config.data.path and not config.data.mixture:
        config.data.path = "-"
    model, parts = config.model, config.assemble
    if preset is not None and not (model.path or parts.encoder or parts.decoder):
        model.path = preset
    return config


def _shapes(config: ConfigDict, preset: str | None) -> VLMConfig:
    """The shapes of the model: by name, or of the one that a run would start from."""
    if preset is not None and preset not in PRESETS:
        raise InputError(f"--preset={preset}: known are {', '.join(PRESETS)}")
    if preset is None:
        shapes = starting_model.shapes(config.model.path, config.assemble.to_dict())
    else:
        shapes = PRESETS[preset]
    return learned.with_parameters(shapes, config.model.token_reduction)


def _buckets(batch: ConfigDict, model: VLMConfig, visual: VisualTokens, rows_multiple: int) -> list[Bucket]:
    """The shapes of batches: the first, and where examples may be longer, the last, whose rows are longest."""
    block, budget = model.vision.block_slots, visual.widest
    tokens, longest = batch.sequence_length, batch.max_sequence_length
    share = budget.visual_tokens if isinstance(budget.visual_tokens, float) and budget.chooses else 1.0
    slots = batch.patches or model.vision.typical_slots(int(tokens // 2 / share))
    if slots % block:
        raise InputError(f"config.batch.patches is {slots}; wanted a multiple of {block}, one attention window")

    def above(tokens: int) -> tuple[int, ...]:
        counts = visual.counts_above(tokens // 2) if budget.cuts else []
        return tuple(tokens - tokens // 2 + count for count in counts)

    buckets = [Bucket(batch.rows, Size(tokens, slots, batch.supervised or tokens // 4, above(tokens)))]
    if longest > tokens:
        slots = slots * longest // tokens // block * block
        size = Size(longest, slots, batch.supervised or longest // 4, above(longest))
        buckets.append(Bucket(rows_of(longest, batch.rows, tokens, rows_multiple), size))
    return buckets


def _described(bucket: Bucket, stage: Stage | None) -> str:
    size = bucket.size
    of = "" if stage is None else f"steps {stage.start + 1} to {stage.end}: "
    above = "".join(f", then {tokens}" for tokens in size.above)
    inside = f"{size.patches} patch slots, {size.supervised} supervised positions"
    return f"{of}{bucket.rows} rows of {size.tokens} tokens{above}, {inside}"


def _compiled(
    config: ConfigDict, trainer: Trainer, bucket: Bucket, spec: RowSpec, stage: Stage, topology: Topology
) -> Compiled:
    """Raises InputError where the compiler itself finds no way to fit the step."""
    started = time.perf_counter()
    traced = trainer.trace(spec.batch(bucket.rows), stage)
    try:
        program = traced.lower().compile()
    except Exception as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"--topology={topology.name}: the compiler finds no way to fit the step into a chip ({reason}); "
            f"{advice(config, trainer.mesh)}"
        ) from None
    seconds = time.perf_counter() - started
    taken = report(trainer, traced, program, topology.memory, stage, (bucket.size, bucket.rows))
    return Compiled(topology.name, bucket, stage, seconds, taken)
