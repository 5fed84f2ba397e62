"""Makes the tiny model that can see: a small Qwen2.5-VL trained from nothing on drawn scenes.

    make tiny_base

draws the scenes, makes random weights with a tokenizer, trains with this file, and writes the model that
`make quickstart` starts from. On 2 cores it takes between one and two hours.
"""

from vlm_jax.training.config import default_config


def get_config():
    config = default_config()
    config.model.path = "runs/tiny_base/start"
    config.model.max_visual_tokens = 16
    config.data.path = "runs/tiny_base/scenes/train.jsonl"
    config.data.decode_check = False  # drawn a moment ago
    config.batch.rows = 12
    config.batch.tokens = 256
    config.train.steps = 3200
    config.train.remat = "none"
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 3e-3
    config.optimizer.weight_decay = 0.01
    config.optimizer.warmup = 0.03
    config.checkpoint.every = 500
    return config
