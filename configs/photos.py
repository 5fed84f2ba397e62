r"""Fine-tunes a Qwen2.5-VL folder on your own images and questions, on one small machine.

    .venv/bin/python scripts/train.py --config=configs/photos.py --workdir=runs/photos \
        --config.model.path=FOLDER --config.data.path=QUESTIONS.csv

The data: a table with the columns image, question, answer (CSV or JSONL), LLaVA JSON, or records JSONL. These settings
suit a handful to some hundreds of images and a model of a few million parameters; for a published checkpoint lower
the learning rate (1e-5) and raise `batch.sequence_length` and `max_visual_tokens`. What does not belong here: anything
that depends on one machine (pass it on the command line).
"""

from vlm_jax.training.config import default_config


def get_config():
    config = default_config()
    config.model.path = "runs/tiny"  # scripts/init_model.py makes one from nothing
    config.model.max_visual_tokens = 32
    config.data.path = "tests/data/photos/photos.json"
    config.batch.rows = 2
    config.batch.sequence_length = 512
    config.train.steps = 140
    config.train.remat = "none"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup_fraction = 0.05
    config.checkpoint.every = 100
    return config
