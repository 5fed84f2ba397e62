r"""Full fine-tuning of Qwen2.5-VL-3B on two slices of TPUs, which a data-centre network joins.

    .venv/bin/python scripts/train.py --config=configs/qwen2_5_vl_3b_two_slices.py --workdir=gs://bucket/two \
        --config.data.path=gs://bucket/mine.jsonl
    .venv/bin/python scripts/compile_check.py --config=configs/qwen2_5_vl_3b_two_slices.py --preset=3b \
        --topology='2*v5e:4x4'

Slices differ in the data axis alone: within a slice parameters are divided, and one sum of gradients a step crosses the
network. Start the same command on every host of both slices. What does not belong here: anything that depends on the
size of a slice (a row for each chip: `--config.batch.rows`).
"""

from vlm_jax.training.config import default_config


def get_config():
    config = default_config()
    config.model.path = "Qwen/Qwen2.5-VL-3B-Instruct"
    config.model.max_visual_tokens = 1024
    config.batch.rows = 32
    config.batch.sequence_length = 2048
    config.train.epochs = 1
    config.mesh.data = 2
    config.mesh.fsdp = -1
    config.optimizer.learning_rate = 1e-5
    config.optimizer.warmup_fraction = 0.03
    return config
