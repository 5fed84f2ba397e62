r"""SigLIP-SO400M/14-384 and Qwen2.5-3B-Instruct in tiles: the connector first, then connector and decoder's adapters.

    .venv/bin/python scripts/train.py --config=configs/siglip_qwen2_5_3b_two_stage.py --workdir=runs/siglip \
        --config.data.path=llava_instruct_150k.json --config.data.image_root=coco/train2017

LLaVA's two stages in one run: for a fifth of the steps the connector alone learns at 1e-3 (LLaVA-1.5's rate), then
adapters on all of the decoder's layers learn with it. An image is up to four tiles of 729 patches beside the whole of
it, so rows are long; `config.assemble.image_mode=squash` takes 729 tokens an image instead.
"""

from vlm_jax.training.config import default_config


def get_config():
    config = default_config()
    config.assemble.encoder = "google/siglip-so400m-patch14-384"
    config.assemble.decoder = "Qwen/Qwen2.5-3B-Instruct"
    config.assemble.image_mode = "anyres"
    config.assemble.tiles = 4
    config.model.max_visual_tokens = 4096
    config.batch.sequence_length = 8192
    config.lora.rank = 64
    config.lora.alpha = 128.0
    config.lora.targets = "attention+mlp"
    config.lora.dropout = 0.05
    config.train.first.share = 0.2
    config.train.first.trainable = "connector"
    config.train.first.learning_rate = 1e-3
    config.train.trainable = "adapter+connector"
    config.train.epochs = 1
    config.optimizer.learning_rate = 1e-4
    return config
