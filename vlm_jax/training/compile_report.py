"""What a step will take, reported before it runs: memory by kind, multiplications, what devices send each other.

`scripts/compile_check.py` tells it of a machine that is not there, the loop of its own. Where memory is short, `advice`
names the settings that would help most.
"""

import contextlib
import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from vlm_jax.errors import InputError
from vlm_jax.parallel import chips, program_cost
from vlm_jax.parallel.collectives import collectives
from vlm_jax.parallel.memory_traffic import hbm_bytes
from vlm_jax.parallel.mesh import row_shards, slice_count
from vlm_jax.processing.example import Size
from vlm_jax.processing.token_budget import cut_layers
from vlm_jax.training.bounds import Bounds, bounds, full_rows
from vlm_jax.training.flops import step_flops
from vlm_jax.training.fsdp_needs import needed_bytes
from vlm_jax.training.remat_choice import AUTO, FULL
from vlm_jax.training.trainer import Stage, Trainer

GB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Report:
    """Of one compiled step.

    Attributes:
      limit: bytes a device has; None where that is not known.
      flops: of the products of a step, all devices together, recomputation included.
      frozen, trained: bytes of parameters and of what trains with its optimizer, on one device.
      kernels: names of the attention kernels in the program, with how often each stands there.
      remat: what layers keep (`models.remat.POLICIES`).
      needed: bytes that dividing the parameters asks a device to send (`fsdp_needs`); traffic: bytes from and to a
        device's main memory (`memory_traffic`).
      model_flops: what the mathematics asks for, padding and recomputation left out, of all devices together.
      bounds: the least time that a step takes; None where nothing is known of the device.
    """

    memory: program_cost.Memory
    limit: int | None
    flops: float
    collectives: dict[str, tuple[int, int]]
    frozen: int
    trained: int
    kernels: dict[str, int]
    devices: int
    remat: str
    needed: int
    traffic: int
    model_flops: float
    bounds: Bounds | None

    @property
    def fits(self) -> bool | None:
        return None if self.limit is None else self.memory.total <= FULL * self.limit

    def lines(self) -> list[str]:
        memory = self.memory
        parts = {
            "trained, with optimizer": self.trained,
            "frozen": self.frozen,
            "batch": max(memory.arguments - self.trained - self.frozen, 0),
            "outputs": memory.outputs,
            "temporaries": memory.temporaries,
            "program": memory.program,
            "total": memory.total,
        }
        lines = [f"{name:<24}{size / GB:9.3f} GiB a chip" for name, size in parts.items()]
        if self.limit is not None:
            verdict = "fits" if self.fits else f"DOES NOT FIT ({FULL:.0%} of it may be used)"
            lines.append(f"{'of':<24}{self.limit / GB:9.3f} GiB: {memory.total / self.limit:.1%}, {verdict}")
        lines.append(f"{'products':<24}{self.flops / self.devices / 1e12:9.2f} TFLOP a chip and step")
        for kind, (count, size) in self.collectives.items():
            lines.append(f"{kind:<24}{size / GB:9.3f} GiB a chip and step, in {count:,}")
        if self.needed:
            sent, needed = self.sent / GB, self.needed / GB
            lines.append(f"{'sent':<24}{sent:9.3f} GiB a chip and step, {sent / needed:.2f} × the {needed:.3f} needed")
        lines.append(f"{'main memory':<24}{self.traffic / GB:9.3f} GiB read and written, a chip and step")
        lines += self.bounds.lines() if self.bounds else []
        kernels = ", ".join(f"{name} × {count}" for name, count in self.kernels.items()) or "none: plain products"
        lines.append(f"{'attention kernels':<24}{kernels}")
        return lines

    @property
    def sent(self) -> int:
        """Bytes that a device sends."""
        return sum(size for _, size in self.collectives.values())

    def summary(self) -> list[str]:
        """In a few lines, for the start of a run."""
        memory, of = self.memory, "" if self.limit is None else f" of {_words(self.limit)}"
        lines = [
            f"a step takes {_words(memory.total)}{of} a device: {_words(self.trained)} trained with its optimizer, "
            f"{_words(self.frozen)} frozen, {_words(memory.temporaries)} while it computes"
        ]
        if self.fits is False:
            lines.append(f"WARNING: that is more than {FULL:.0%} of a device's memory")
        work = f"and multiplies {self.flops / self.devices / 1e12:,.3g} TFLOP a device"
        sent = [f"{_words(size)} by {kind}" for kind, (_, size) in self.collectives.items()]
        lines.append(work + (f"; devices exchange {', '.join(sent)}" if sent else ""))
        if self.bounds:
            lines.append(f"by the makers' figures, {self.bounds.summary()} (an estimate)")
        return lines

    def as_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "total": self.memory.total, "fits": self.fits}


def report(
    trainer: Trainer, traced, compiled, limit: int | None, stage: Stage | None, shape: tuple[Size, int]
) -> Report:
    """Of a step that `trainer` traced and compiled, for devices with `limit` bytes each.

    Args:
      stage: the last one where none is given.
      shape: size of a row, and rows.
    """
    text, mesh = compiled.as_text(), trainer.mesh
    trained, frozen = _state_bytes(trainer, stage)
    kernels = re.findall(r"(splash_m[hq]a_\w+|mha_(?:forward|backward)\w*)", text)
    sent, flops, traffic = collectives(text), program_cost.flops(traced.jaxpr), hbm_bytes(text)
    model, chip = _model_flops(trainer, stage, *shape), chips.of_kind(mesh.devices.flat[0].device_kind)
    return Report(
        program_cost.memory(compiled),
        limit,
        flops,
        sent,
        frozen,
        trained,
        {name: kernels.count(name) for name in sorted(set(kernels))},
        mesh.size,
        trainer.remat,
        needed_bytes(trainer, stage),
        traffic,
        model,
        chip and bounds(chip, mesh.size, products=flops, traffic=traffic, sent=sent, model=model),
    )


def _model_flops(trainer: Trainer, stage: Stage | None, size: Size, rows: int) -> float:
    """Of rows that are full."""
    model, settings = trainer.model, trainer.config.model
    method, layer, layers = settings.token_reduction, settings.token_reduction_layer, model.decoder.layers
    cuts = cut_layers(method, layer, layers) if size.above else ()
    costs = step_flops(model, (stage or trainer.stages[-1]).trainable, trainer.selection.attach)
    return costs.of(full_rows(size, rows, model, cuts))


def _words(size: int) -> str:
    return f"{size / GB:.1f} GiB" if size >= GB else f"{size / (1 << 20):.0f} MiB"


def _state_bytes(trainer: Trainer, stage: Stage | None) -> tuple[int, int]:
    """Bytes on a device of what trains with its optimizer, and of what is frozen."""
    trainable, optimizer_state, frozen = trainer.abstract_state(stage)
    return _bytes(trainable) + _bytes(optimizer_state), _bytes(frozen)


def _bytes(tree) -> int:
    """Of a tree of shapes with shardings, on one device."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)


@contextlib.contextmanager
def explained_memory(config: ConfigDict, mesh: Mesh) -> Iterator[None]:
    """Puts a device's want of memory into one line, with what would help most."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error) and "Out of memory" not in str(error):
            raise
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"the run does not fit into the memory of a device ({reason}); {advice(config, mesh)}"
        ) from None


def advice(config: ConfigDict, mesh: Mesh) -> str:
    """Up to three settings that would help most where memory is short, the most helpful first."""
    found = []
    rows_a_device = config.batch.rows // (row_shards(mesh) * config.batch.gradient_accumulation)
    full = not config.lora.rank and config.train.trainable in ("auto", "full", "frozen_vision")
    if config.train.remat not in ("full", AUTO):
        found.append("train.remat=full (layers keep nothing for the backward pass)")
    if rows_a_device > 1:
        parts = config.batch.gradient_accumulation * rows_a_device
        found.append(f"batch.gradient_accumulation={parts} (one row a device at a time; the same gradient)")
    if mesh.shape["data"] > (slices := slice_count(mesh)):
        found.append(f"mesh.fsdp=-1 --config.mesh.data={slices} (parameters are divided among the devices)")
    if full:
        what = "" if config.train.trainable == "auto" else " --config.train.trainable=auto"
        found.append(f"lora.rank=16{what} (adapters: no gradient and no optimizer state of the rest)")
    elif config.model.quantise == "none":
        found.append("model.quantise=nf4 (frozen kernels in 4 bits)")
    found.append(f"batch.sequence_length={config.batch.sequence_length // 2} (shorter rows)")
    if full and config.optimizer.name == "adamw":
        found.append("optimizer.name=adafactor (little state)")
    if config.model.max_visual_tokens > 128:
        found.append(f"model.max_visual_tokens={config.model.max_visual_tokens // 2} (smaller images)")
    return "try " + "; or ".join(f"--config.{one}" for one in found[:3])
