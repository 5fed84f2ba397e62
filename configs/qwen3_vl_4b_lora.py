r"""LoRA on Qwen3-VL-4B's decoder, for one accelerator or a slice.

    .venv/bin/python scripts/train.py --config=configs/qwen3_vl_4b_lora.py --workdir=runs/lora \
        --config.data.path=mine.jsonl

Settings as in configs/qwen2_5_vl_3b_lora.py. What does not belong here: anything that depends on one machine (rows,
mesh: pass them on the command line).
"""

from vlm_jax.training.config import default_config


def get_config():
    config = default_config()
    config.model.path = "Qwen/Qwen3-VL-4B-Instruct"
    config.model.max_visual_tokens = 1024
    config.batch.sequence_length = 2048
    config.train.epochs = 1
    config.lora.rank = 16
    config.lora.alpha = 32.0
    config.lora.dropout = 0.05
    config.optimizer.learning_rate = 1e-4
    config.optimizer.warmup_fraction = 0.03
    return config
