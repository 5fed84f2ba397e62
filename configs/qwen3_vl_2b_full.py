r"""Full fine-tuning of Qwen3-VL-2B, for a slice of accelerators.

    .venv/bin/python scripts/train.py --config=configs/qwen3_vl_2b_full.py --workdir=runs/full \
        --config.data.path=mine.jsonl

No published recipe gives its settings; these are those of configs/qwen2_5_vl_3b_full.py. What does not belong here:
anything that depends on one machine (pass rows and mesh on the command line, for example `--config.mesh.fsdp=8`).
"""

from vlm_jax.training.config import default_config


def get_config():
    config = default_config()
    config.model.path = "Qwen/Qwen3-VL-2B-Instruct"
    config.model.max_visual_tokens = 1024
    config.batch.rows = 8
    config.batch.sequence_length = 2048
    config.train.epochs = 1
    config.mesh.data = 1
    config.mesh.fsdp = -1
    config.optimizer.learning_rate = 1e-5
    config.optimizer.warmup_fraction = 0.03
    return config
