r"""ViT-B/32-384 and Qwen2.5-3B-Instruct joined by a two-layer connector: LoRA on the decoder, the connector in full.

    .venv/bin/python scripts/train.py --config=configs/vit_qwen2_5_3b_lora.py --workdir=runs/vit \
        --config.data.mixture.llava.path=llava_instruct_150k.json \
        --config.data.mixture.textvqa.path=TextVQA_0.5.1_train.json --config.data.mixture.vizwiz.path=train.json

The recipe of the Qwen2.5-VQA project: rank 64, alpha 128, dropout 0.05 on q, k, v and o; 5e-5; 64 samples a step; one
epoch over LLaVA-Instruct, TextVQA and VizWiz; images letter-boxed on black, 145 visual tokens each (144 patches and
the class token, through the encoder's last norm). Where it cut conversations at 128 tokens and learned the prompt,
nothing is cut here and answers alone are learned. `image_root` of each part is the folder of its images.
"""

from vlm_jax.training.config import default_config


def get_config():
    config = default_config()
    config.assemble.encoder = "google/vit-base-patch32-384"
    config.assemble.decoder = "Qwen/Qwen2.5-3B-Instruct"
    config.assemble.image_mode = "letterbox"
    config.assemble.background = "black"
    config.assemble.final_norm = True
    config.assemble.keep_class = True
    config.data.mixture = {
        "llava": {"path": "llava_instruct_150k.json", "weight": 0.75, "image_root": ""},
        "textvqa": {"path": "TextVQA_0.5.1_train.json", "weight": 0.15, "image_root": ""},
        "vizwiz": {"path": "train.json", "weight": 0.1, "image_root": ""},
    }
    config.batch.sequence_length = 2048  # about six samples a row
    config.batch.rows = 11
    config.lora.rank = 64
    config.lora.alpha = 128.0
    config.lora.targets = "attention"
    config.lora.dropout = 0.05
    config.train.trainable = "adapter+connector"
    config.train.epochs = 1
    config.optimizer.learning_rate = 5e-5
    return config
