"""Teaches the tiny base model the invented objects: what `make quickstart` trains with, in minutes on two cores.

make quickstart
"""

from pathlib import Path

from vlm_jax.training.config import default_config

BASE = Path(__file__).resolve().parents[1] / "vlm_jax" / "assets" / "tiny_base"


def get_config():
    config = default_config()
    config.model.path = str(BASE)
    config.model.max_visual_tokens = 16
    # A few plain scenes among the objects keep what the base could do.
    config.data.path = "runs/quickstart/objects/train.jsonl,runs/quickstart/scenes/train.jsonl"
    config.batch.rows = 8
    config.batch.tokens = 512
    config.train.epochs = 1
    config.train.remat = "none"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup = 0.05
    config.checkpoint.every = 100
    return config
