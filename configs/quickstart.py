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
    config.data.path = "runs/quickstart/objects/train.jsonl,runs/quickstart/scenes/drill.jsonl"
    # Small batches: what is short here is steps, and each token costs the same.
    config.batch.rows = 6
    config.batch.sequence_length = 256
    config.batch.patches = 256
    config.train.epochs = 1
    config.train.remat = "none"
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 1.7e-3
    config.optimizer.weight_decay = 0.01
    config.optimizer.warmup_fraction = 0.05
    config.checkpoint.every = 100
    return config
