r"""QLoRA on Qwen3-VL-8B: adapters on a base in 4 bits, for one accelerator.

    .venv/bin/python scripts/train.py --config=configs/qwen3_vl_8b_qlora.py --workdir=runs/qlora \
        --config.data.path=mine.jsonl

Settings as in configs/qwen2_5_vl_3b_qlora.py. A merged export (`scripts/convert_checkpoint.py --format=hf`) reads the
original base again.
"""

from vlm_jax.training.config import default_config


def get_config():
    config = default_config()
    config.model.path = "Qwen/Qwen3-VL-8B-Instruct"
    config.model.max_visual_tokens = 1024
    config.model.quantise = "nf4"
    config.batch.sequence_length = 2048
    config.train.epochs = 1
    config.lora.rank = 16
    config.lora.alpha = 32.0
    config.lora.dropout = 0.05
    config.optimizer.learning_rate = 2e-4
    config.optimizer.warmup_fraction = 0.03
    return config
