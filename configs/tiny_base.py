"""Makes the tiny model that can see: a small Qwen2.5-VL trained from nothing on drawn images, in two stages.

    make tiny_base

draws the images, makes random weights with a tokenizer, and trains with this file: first on captions and a few
questions of every scene, then (`configs/tiny_base.py:drill`) on questions one a record, which it learns quickly once it
sees: of scenes, and of things made of several shapes, some of which have a name and facts in the model's small world.
It writes the model that `make quickstart` starts from, on 2 cores in under two hours.
"""

from vlm_jax.training.config import default_config


def get_config(stage="see"):
    if stage not in ("see", "drill"):
        raise ValueError(f"configs/tiny_base.py:{stage}: the stages are see and drill")
    config = default_config()
    config.model.max_visual_tokens = 16
    config.data.decode_check_up_to = 0  # drawn a moment ago
    config.batch.rows = 12
    config.batch.sequence_length = 256
    config.train.remat = "none"
    config.optimizer.name = "muon"
    config.optimizer.weight_decay = 0.01
    config.optimizer.warmup_fraction = 0.03
    config.checkpoint.every = 500
    if stage == "see":
        config.model.path = "runs/tiny_base/start"
        config.data.path = "runs/tiny_base/scenes/train.jsonl"
        config.optimizer.learning_rate = 3e-3
        config.train.steps = 3200
    else:
        config.model.path = "runs/tiny_base/see"
        config.data.path = "runs/tiny_base/scenes/drill.jsonl,runs/tiny_base/scenes/things.jsonl"
        config.optimizer.learning_rate = 2.5e-3
        config.train.steps = 2800
    return config
