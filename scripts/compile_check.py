r"""Compiles the training step of a config for a TPU that is not there, and says what it would take.

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

import json

from absl import flags
from ml_collections import ConfigDict

import command_line

flags.DEFINE_string("topology", None, "generation and bounds: v5e:2x4, v5e:1x1, v5p:2x2x2, …", required=True)
flags.DEFINE_string(
    "preset", None, "shapes by name instead of those of config.model.path: 3b, 7b, siglip-qwen2.5-3b, …"
)
flags.DEFINE_boolean("json", False, "print one JSON object instead of a table")


def main(config: ConfigDict) -> None:
    from vlm_jax.parallel import topology

    target = topology.parse(flags.FLAGS.topology)
    topology.prepare(target)  # before JAX is loaded
    from data_pipeline.compile_check import check

    def show(compiled) -> None:
        print(json.dumps(compiled.as_json()) if flags.FLAGS.json else "\n".join(compiled.lines()))

    check(config, target, preset=flags.FLAGS.preset, show=show)


if __name__ == "__main__":
    command_line.run(main, config=True)
