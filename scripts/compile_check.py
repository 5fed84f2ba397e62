"""Compiles the training step of a config for a TPU that is not there, and says what it would take.

    .venv/bin/python scripts/compile_check.py --config=configs/qwen2_5_vl_3b_full.py --topology=v5e:2x4
    .venv/bin/python scripts/compile_check.py --config=configs/qwen2_5_vl_7b_lora.py --topology=v5p:4x4x4 --preset=72b \
        --config.batch.rows=64 --config.mesh.fsdp=-1

Needs libtpu (pip install 'vlm-jax[tpu]', Linux on x86_64) and no TPU. Prints the memory a chip needs by kind, whether
that fits, the multiplications of a step, and what chips send each other, loops multiplied out. Exit status 1 where it
does not fit. --preset takes published shapes (3b, 7b, 32b, 72b) where config.model.path is not at hand.

Where the config leaves batch.patches or batch.supervised to the data, rows of half pictures are assumed: 9 patch slots
for 4 tokens (an eighth of them for windows that do not fill their block; of an assembled model as many views as fill
half a row, one at least), and a supervised position for 4 tokens.
"""

import interrupts  # noqa: F401 - first of all

import json
import sys
import time

from absl import flags
from ml_collections import ConfigDict

import command_line

flags.DEFINE_string("topology", None, "generation and bounds: v5e:2x4, v5e:1x1, v5p:2x2x2, …", required=True)
flags.DEFINE_string(
    "preset", None, "shapes by name instead of those of config.model.path: 3b, 7b, siglip-qwen2.5-3b, …"
)
flags.DEFINE_boolean("json", False, "print one JSON object instead of a table")


def main(config: ConfigDict) -> None:
    from vlm_jax.errors import InputError
    from vlm_jax.models.presets import PRESETS
    from vlm_jax.parallel import topology

    given = flags.FLAGS
    target = topology.parse(given.topology)
    topology.prepare(target)

    from data_pipeline.buckets import rows_of
    from vlm_jax.parallel import mesh as meshes
    from vlm_jax.processing.rows import Size, batch_shapes
    from vlm_jax.training.compile_report import advice, report
    from vlm_jax.training.config import check_config
    from vlm_jax.training.trainer import Trainer

    if not config.data.path and not config.data.mixture:
        config.data.path = "-"  # the data is not looked at
    check_config(config)
    if given.preset is None:
        from vlm_jax.checkpoint import assembly
        from vlm_jax.checkpoint.model_source import open_model

        model = (
            assembly.plan(assembly.Assembly(**config.assemble)).config
            if config.assemble.encoder
            else open_model(config.model.path).config
        )
    elif given.preset in PRESETS:
        model = PRESETS[given.preset]
    else:
        raise InputError(f"--preset={given.preset}: known are {', '.join(PRESETS)}")
    devices = target.devices()
    mesh = meshes.make_mesh(meshes.MeshShape(**config.mesh), devices)
    batch = config.batch
    meshes.check_rows(mesh, batch.rows, batch.accumulate)
    meshes.check_heads(mesh, model)
    block = model.vision.block_slots
    views = model.vision.view_tokens if model.assembled else 0
    half = max(1, batch.tokens // 2 // views) * block if views else batch.tokens * 9 // 4 // block * block
    patches = batch.patches or half
    if patches % block:
        raise InputError(f"config.batch.patches is {patches}; wanted a multiple of {block}, one attention window")
    longer = []
    if batch.context > batch.tokens:
        # The last bucket, whose rows are longest.
        rows = rows_of(batch.context, batch.rows, batch.tokens, meshes.row_shards(mesh) * batch.accumulate)
        longer = [(rows, batch.context, patches * batch.context // batch.tokens // block * block)]
    trainer = Trainer(config, model, mesh, config.train.steps or 1000)
    say(f"{len(devices)} × {devices[0].device_kind}: {trainer.describe()}")
    found = []
    for rows, tokens, slots in [(batch.rows, batch.tokens, patches), *longer]:
        size = Size(tokens, slots, batch.supervised or tokens // 4)
        for stage in trainer.stages:
            of = f"steps {stage.start + 1} to {stage.end}: " if len(trainer.stages) > 1 else ""
            say(f"{of}{rows} rows of {tokens} tokens, {slots} patch slots, {size.supervised} supervised positions")
            shapes = batch_shapes(
                rows, size, patch_values=model.vision.patch_values, merge_unit=model.vision.merge_unit
            )
            started = time.perf_counter()
            traced = trainer.trace(shapes, stage)
            try:
                compiled = traced.lower().compile()
            except Exception as error:
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                reason = " ".join(str(error).split())[:160]
                raise InputError(
                    f"--topology={target.name}: the compiler finds no way to fit the step into a chip ({reason}); "
                    f"{advice(config, mesh)}"
                ) from None
            seconds = time.perf_counter() - started
            found.append(report(trainer, traced, compiled, target.memory, stage))
            if given.json:
                lengths = [size.tokens, size.patches, size.supervised]
                more = {"topology": target.name, "rows": rows, "size": lengths, "steps": [stage.start, stage.end]}
                print(json.dumps({**more, "seconds": seconds, **found[-1].as_json()}))
            else:
                print("\n".join(found[-1].lines()))
                print(f"compiled in {seconds:.0f} s")
    most = max(one.memory.total for one in found)
    if not all(one.fits for one in found):
        raise InputError(
            f"--topology={target.name}: {most / 2**30:.1f} GiB a chip are more than may be used of "
            f"{target.memory / 2**30:.0f}; {advice(config, mesh)}"
        )


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    command_line.run(main, config=True)
