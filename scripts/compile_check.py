"""Compiles the training step of a config for a TPU that is not there, and says what it would take.

    .venv/bin/python scripts/compile_check.py --config=configs/qwen2_5_vl_3b_full.py --topology=v5e:2x4
    .venv/bin/python scripts/compile_check.py --config=configs/qwen2_5_vl_7b_lora.py --topology=v5p:4x4x4 --preset=72b \
        --config.batch.rows=64 --config.mesh.fsdp=-1

Needs libtpu (pip install 'vlm-jax[tpu]', Linux on x86_64) and no TPU. Prints the memory a chip needs by kind, whether
that fits, the multiplications of a step, and what chips send each other, loops multiplied out. Exit status 1 where it
does not fit. --preset takes published shapes (3b, 7b, 32b, 72b) where config.model.path is not at hand.

Where the config leaves batch.patches or batch.supervised to the data, rows are assumed to be half images: as many patch
slots as so many visual tokens take (for windows that do not fill their block an eighth more; of a model with views of
fixed size whole views, one at least), and a supervised position for 4 tokens. With a share of the visual tokens
(config.model.visual_tokens, where a method chooses behind the tower) as many more images are assumed; where tokens are
left out within the decoder, that the images of a row are one.
"""

import interrupts  # noqa: F401 - first of all

import dataclasses
import json
import math
import time
from typing import Any

from absl import flags
from ml_collections import ConfigDict

import command_line
from vlm_jax import terminal

flags.DEFINE_string("topology", None, "generation and bounds: v5e:2x4, v5e:1x1, v5p:2x2x2, …", required=True)
flags.DEFINE_string(
    "preset", None, "shapes by name instead of those of config.model.path: 3b, 7b, siglip-qwen2.5-3b, …"
)
flags.DEFINE_boolean("json", False, "print one JSON object instead of a table")


def main(config: ConfigDict) -> None:
    from vlm_jax.errors import InputError
    from vlm_jax.parallel import topology

    target = topology.parse(flags.FLAGS.topology)
    topology.prepare(target)

    from vlm_jax.parallel import mesh as meshes
    from vlm_jax.training.compile_report import advice
    from vlm_jax.training.config import check_config
    from vlm_jax.training.trainer import Trainer

    if not config.data.path and not config.data.mixture:
        config.data.path = "-"  # the data is not looked at
    check_config(config)
    model, devices = shapes_of(config), target.devices()
    mesh = meshes.make_mesh(meshes.MeshShape(**config.mesh), devices)
    meshes.check_rows(mesh, config.batch.rows, config.batch.gradient_accumulation)
    meshes.check_heads(mesh, model)
    buckets = buckets_of(config, model, meshes.row_shards(mesh) * config.batch.gradient_accumulation)
    trainer = Trainer(config, model, mesh, config.train.steps or 1000)
    terminal.say(f"{len(devices)} × {devices[0].device_kind}: {trainer.describe()}")
    found = [compiled(trainer, bucket, stage, target) for bucket in buckets for stage in trainer.stages]
    most = max(one.memory.total for one in found)
    if not all(one.fits for one in found):
        raise InputError(
            f"--topology={target.name}: {most / 2**30:.1f} GiB a chip are more than may be used of "
            f"{target.memory / 2**30:.0f}; {advice(config, mesh)}"
        )


def shapes_of(config: ConfigDict):
    """The shapes of the model: by name, or of the one that a run would start from."""
    from vlm_jax.checkpoint import starting_model
    from vlm_jax.errors import InputError
    from vlm_jax.models.presets import PRESETS
    from vlm_jax.processing.token_budget import LEARNED

    name = flags.FLAGS.preset
    if name is not None and name not in PRESETS:
        raise InputError(f"--preset={name}: known are {', '.join(PRESETS)}")
    if name is None:
        shapes = starting_model.shapes(config.model.path, config.assemble.to_dict())
    else:
        shapes = PRESETS[name]
    method = config.model.token_reduction
    return dataclasses.replace(shapes, reducer=method if method in LEARNED else "")


def buckets_of(config: ConfigDict, model, rows_multiple: int) -> list:
    """The shapes of batches: the first, and where examples may be longer, the last, whose rows are longest."""
    from data_pipeline.buckets import rows_of
    from data_pipeline.packing import Bucket
    from vlm_jax.errors import InputError
    from vlm_jax.processing.example import Size

    batch, block = config.batch, model.vision.block_slots
    tokens, longest = batch.sequence_length, batch.max_sequence_length
    budget = budget_of(config)
    share = budget.visual_tokens if isinstance(budget.visual_tokens, float) and budget.chooses else 1.0
    slots = batch.patches or model.vision.typical_slots(int(tokens // 2 / share))
    if slots % block:
        raise InputError(f"config.batch.patches is {slots}; wanted a multiple of {block}, one attention window")

    def above(tokens: int) -> tuple[int, ...]:
        counts = kept_above(config, tokens // 2) if budget.cuts else []
        return tuple(tokens - tokens // 2 + count for count in counts)

    buckets = [Bucket(batch.rows, Size(tokens, slots, batch.supervised or tokens // 4, above(tokens)))]
    if longest > tokens:
        slots = slots * longest // tokens // block * block
        size = Size(longest, slots, batch.supervised or longest // 4, above(longest))
        buckets.append(Bucket(rows_of(longest, batch.rows, tokens, rows_multiple), size))
    return buckets


def budget_of(config: ConfigDict):
    """How many visual tokens of an image the decoder sees; of a schedule the fewest, which take most patch slots."""
    from vlm_jax.processing import token_budget, token_schedule

    if (schedule := token_schedule.schedule_of(config.model, config.train.seed)) is not None:
        return min(schedule.budgets, key=lambda budget: budget.count(10_000))
    return token_budget.of_settings(config.model, config.train.seed)


def kept_above(config: ConfigDict, tokens: int) -> list[int]:
    """Of so many visual tokens, how many are left above each cut within the decoder; of a schedule, as the mean."""
    from vlm_jax.processing import token_schedule
    from vlm_jax.processing.token_budget import of_settings

    schedule = token_schedule.schedule_of(config.model, config.train.seed)
    budgets = (of_settings(config.model, config.train.seed),) if schedule is None else schedule.budgets
    shares = (1.0,) if schedule is None else schedule.shares
    counts = zip(*(budget.counts_above(tokens) for budget in budgets), strict=True)
    return [math.ceil(sum(share * one for share, one in zip(shares, each, strict=True))) for each in counts]


def compiled(trainer, bucket, stage, target) -> Any:
    """Compiles the step of a stage for a shape of batch, and prints what it takes."""
    from vlm_jax.errors import InputError
    from vlm_jax.processing.rows import RowSpec
    from vlm_jax.training.compile_report import advice, report

    rows, size, vision = bucket.rows, bucket.size, trainer.model.vision
    of = f"steps {stage.start + 1} to {stage.end}: " if len(trainer.stages) > 1 else ""
    above = "".join(f", then {tokens}" for tokens in size.above)
    inside = f"{size.patches} patch slots, {size.supervised} supervised positions"
    terminal.say(f"{of}{rows} rows of {size.tokens} tokens{above}, {inside}")
    started = time.perf_counter()
    traced = trainer.trace(RowSpec.of(size, vision, budget_of(trainer.config)).batch(rows), stage)
    try:
        program = traced.lower().compile()
    except Exception as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"--topology={target.name}: the compiler finds no way to fit the step into a chip ({reason}); "
            f"{advice(trainer.config, trainer.mesh)}"
        ) from None
    seconds = time.perf_counter() - started
    result = report(trainer, traced, program, target.memory, stage)
    if flags.FLAGS.json:
        lengths = list(size.columns)
        more = {"topology": target.name, "rows": rows, "size": lengths, "steps": [stage.start, stage.end]}
        print(json.dumps({**more, "seconds": seconds, **result.as_json()}))
    else:
        print("\n".join(result.lines()))
        print(f"compiled in {seconds:.0f} s")
    return result


if __name__ == "__main__":
    command_line.run(main, config=True)
