"""vlm_jax's side of `train_step.py`: packed rows through the step that `scripts/train.py` runs."""

import heapq
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from data_pipeline.mixture import Component, Mixture
from data_pipeline.packing import Bucket, Plan, as_array
from train_step_data import (
    BETAS,
    CLIP_NORM,
    EPSILON,
    LEARNING_RATE,
    LORA_ALPHA,
    LORA_RANK,
    Settings,
    examples,
    model_of,
)
from vlm_jax.checkpoint import hf_folder
from vlm_jax.models.config import VLMConfig
from vlm_jax.models.parameters import abstract_parameters, multiplications
from vlm_jax.parallel import chips
from vlm_jax.parallel import mesh as meshes
from vlm_jax.processing.example import Example, Size
from vlm_jax.processing.rows import Batch, RowSpec, assemble, stack
from vlm_jax.training.config import default_config
from vlm_jax.training.flops import step_flops
from vlm_jax.training.trainer import Trainer, unrolled


class Side:
    def __init__(self, settings: Settings):
        self.model, self.settings = model_of(settings.preset), settings
        self.examples = examples(settings)
        self.samples = len(self.examples)
        counts = {1, len(jax.devices())} if settings.device == "cpu" else {1}
        tried = {count: self._seconds(count) for count in sorted(counts)} if len(counts) > 1 else {1: 0.0}
        self.tried = {f"{count} device(s)": seconds for count, seconds in tried.items()}
        self._begin(min(tried, key=tried.get))

    def _seconds(self, count: int) -> float:
        """Of a turn on so many devices; the first step, whose memory is taken anew, is not counted."""
        self._begin(count)
        self._one(0)
        jax.block_until_ready(self.state)
        return min(self.turn() for _ in range(2))

    def _begin(self, count: int) -> None:
        """Everything up to the first step, on so many devices."""
        settings, self.state = self.settings, None
        devices = jax.devices()[:count]
        self.bucket, self.plan = plan_of(self.examples, settings, self.model, len(devices))
        self.orders = [[index for row in batch.rows for _, index in row] for batch in self.plan]
        self.batches = [
            self._batch([[self.examples[index] for _, index in row] for row in batch.rows]) for batch in self.plan
        ]
        config = default_config()
        config.model.path, config.data.path = "benchmark", "benchmark"
        config.train.remat = remat(settings)
        config.optimizer.update(learning_rate=LEARNING_RATE, warmup_fraction=0.0, end_lr_fraction=1.0, weight_decay=0.0)
        config.optimizer.update(b1=BETAS[0], b2=BETAS[1], eps=EPSILON, clip_norm=CLIP_NORM)
        if settings.mode != "full":
            config.lora.update(rank=LORA_RANK, alpha=LORA_ALPHA)
        if settings.mode == "qlora":
            config.model.quantise = "nf4"
        mesh = meshes.make_mesh(meshes.MeshShape(fsdp=-1, data=1), devices)
        self.trainer = Trainer(config, self.model, mesh, len(self.batches))
        self.state = self.trainer.start(self._parameters(settings))
        begun = time.perf_counter()
        self.step = self.trainer.compile(self.batches[0])
        self.compiling = time.perf_counter() - begun

    def _batch(self, rows: list[list[Example]]) -> Batch:
        vision = self.model.vision
        spec = RowSpec(self.bucket.size, vision.patch_dim, vision.patches_per_token)
        return stack([assemble(row, spec) for row in rows])

    def _parameters(self, settings: Settings) -> dict[str, jax.Array]:
        place = self.trainer.place
        if settings.folder:
            return hf_folder.read_parameters(Path(settings.folder), self.model, place=place)
        parameters = {}
        for number, (path, leaf) in enumerate(abstract_parameters(self.model).items()):
            # What will be packed is drawn in bfloat16: of 3 B shapes, a kernel of all layers takes 1.6 GB.
            kept = self.trainer.abstract.get(path)
            dtype = jnp.bfloat16 if kept is None else kept.dtype
            parameters |= place(path, _drawn(number, path, leaf.shape, dtype))
        return parameters

    def losses(self) -> tuple[list[int], list[float]]:
        """The samples of the first batch; its loss, and its loss after a step on it."""
        found = [self._one(0)["loss"] for _ in range(2)]
        return self.orders[0], [float(loss) for loss in found]

    def _one(self, number: int) -> dict[str, jax.Array]:
        trainable, optimizer_state, frozen = self.state
        batch = meshes.to_devices(self.batches[number], self.trainer.mesh)
        trainable, optimizer_state, metrics = self.step(trainable, optimizer_state, frozen, batch, np.int32(number))
        self.state = trainable, optimizer_state, frozen
        return metrics

    def turn(self) -> float:
        """Seconds of a pass through the data."""
        begun = time.perf_counter()
        for number in range(len(self.batches)):
            metrics = self._one(number)
        jax.block_until_ready((self.state, metrics))
        return time.perf_counter() - begun

    def facts(self) -> dict:
        selection, trainer = self.trainer.selection, self.trainer
        flops = step_flops(self.model, selection.trainable, selection.attach)
        rows, size = self.bucket.rows, self.bucket.size
        tokens = sum(int((batch.segment_ids > 0).sum()) for batch in self.batches)
        patches = sum(int((batch.image_ids > 0).sum()) for batch in self.batches)
        room = len(self.batches) * rows
        device = jax.devices()[0]
        memory = device.memory_stats() or {}
        return {
            "how": f"{rows} packed rows of {size.tokens} tokens, {size.patches} patch slots, "
            f"{trainer.attention} attention, fsdp={trainer.mesh.shape['fsdp']}",
            "precision": precision(trainer),
            "tokens": tokens,
            "patches": patches,
            "padding": 1 - tokens / (room * size.tokens),
            "patch_padding": 1 - patches / (room * size.patches),
            "steps": len(self.batches),
            "parameters": sum(leaf.size for leaf in abstract_parameters(self.model).values()),
            "trained": sum(trainer.abstract[path].size for path in selection.trainable),
            "flops": sum(flops.of_batch(batch) for batch in self.batches),
            "peak": chip.flops if (chip := chips.of_kind(device.device_kind)) else None,
            "products": room * float(np.dot(slot_costs(self.settings, self.model), size.columns)),
            "costs": multiplications(self.model),
            "device": device.device_kind,
            "memory": memory.get("peak_bytes_in_use"),
            **({"tried": self.tried} if len(self.tried) > 1 else {}),
            "compiling": self.compiling,
            "library": f"jax {jax.__version__}",
        }


def remat(settings: Settings) -> str:
    return "full" if settings.remat else "none"


def slot_costs(settings: Settings, model: VLMConfig) -> tuple[float, float, float]:
    """Multiplications of the forward pass for a token, a patch and a supervised position, without attention's."""
    token, patch, supervised = multiplications(model)
    if unrolled(remat(settings), model, settings.device):  # the last MLP answers where something is supervised alone
        mlp = 3 * model.decoder.hidden * model.decoder.mlp
        token, supervised = token - mlp, supervised + mlp
    return token, patch, supervised


def precision(trainer: Trainer) -> str:
    frozen = {str(leaf.dtype) for path, leaf in trainer.abstract.items() if path not in trainer.selection.trainable}
    in_memory = f", frozen in {'/'.join(sorted(frozen))}" if frozen else ""
    return f"masters in float32{in_memory}, computed in {trainer.dtype}"


def _drawn(number: int, path: str, shape: tuple[int, ...], dtype) -> jax.Array:
    """A random parameter, on the device."""
    if path.endswith("scale"):
        return jnp.ones(shape, dtype)
    if path.endswith("bias"):
        return jnp.zeros(shape, dtype)
    draw = jax.jit(lambda key: 0.02 * jax.random.normal(key, shape, dtype))
    return draw(jax.random.key(number))


def plan_of(examples: list[Example], settings: Settings, model: VLMConfig, devices: int) -> tuple[Bucket, list]:
    """Rows so large that the data take `settings.steps` batches: on a CPU one a device, as its attention skips what
    segments hide; else as short as the longest sample allows. The size is the cheapest whose rows suffice: all
    are tried, where `data_pipeline.buckets`, which has a run's whole data before it, tries a few on a sample."""
    sizes = as_array([example.size for example in examples])
    total, longest = sizes.sum(axis=0), sizes.max(axis=0)
    rows = devices
    if settings.device == "gpu":
        rows = max(1, min(settings.samples, int(total[0] // (settings.steps * longest[0]))))
    costs, share = slot_costs(settings, model), settings.steps * rows
    block = model.vision.block_slots

    def planned(tokens: int, patches: int, supervised: int) -> list | None:
        bucket = Bucket(rows, Size(tokens, patches, supervised))
        plan = Plan(
            Mixture([Component("all", len(examples))], seed=0).take,
            lambda places: sizes[places[:, 1]],
            [bucket],
            seed=0,
            examples=len(examples),
        )
        return [plan[number] for number in range(len(plan))] if len(plan) <= settings.steps else None

    def sizes_of(kind: int, step: int) -> range:
        step *= max(1, settings.threads // rows)  # the same part of a row, however few rows there are
        wanted = max(int(longest[kind]), -(-int(total[kind]) // share))
        # As large as the largest samples would need, or they take half as much again as they would with nothing empty.
        most = max(1.5 * wanted, -(-len(examples) // share) * int(longest[kind]))
        return range(max(step, -(-wanted // step) * step), int(most) + 2 * step, step)

    tried = cheapest_first([sizes_of(kind, step) for kind, step in enumerate((16, block, 32))], costs)
    size, plan = next((size, plan) for size in tried if (plan := planned(*size)))
    return Bucket(rows, Size(*size)), plan


def cheapest_first(kinds: Sequence[range], costs: Sequence[float]) -> Iterator[tuple[int, ...]]:
    """Every combination of one of each, by what they cost together; no more are held than have been asked for."""
    first = (0,) * len(kinds)
    waiting, known = [(0.0, first)], {first}
    while waiting:
        _, places = heapq.heappop(waiting)
        yield tuple(kind[place] for kind, place in zip(kinds, places, strict=True))
        for axis, kind in enumerate(kinds):
            more = (*places[:axis], places[axis] + 1, *places[axis + 1 :])
            if more[axis] < len(kind) and more not in known:
                known.add(more)
                cost = sum(one[place] * each for one, place, each in zip(kinds, more, costs, strict=True))
                heapq.heappush(waiting, (cost, more))
