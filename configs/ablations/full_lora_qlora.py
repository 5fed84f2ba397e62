r"""What trains: the whole model, LoRA, or LoRA on a base in 4 bits, each with settings that suit it.

    .venv/bin/python scripts/sweep.py --config=configs/ablations/full_lora_qlora.py --output=runs/full_lora_qlora \
        --config.set.data.path=mine.jsonl --config.benchmark=held_out.jsonl

Published settings where there are any. Full: 1e-5 for decoder and connector, 2e-6 for the vision tower. LoRA: rank 64,
alpha 128, dropout 0.05 on the attention's four layers, 5e-5. All: one epoch, a cosine with 3 % of warm-up, sixteen
examples a step, which are eight rows of about two. The QLoRA of this grid has no published rate; it takes that of
configs/qwen2_5_vl_3b_qlora.py. So rows compare recipes, rates and all: for the precision of the base alone, copy this
page and give both adapters one rate. Full fine-tuning needs a slice of accelerators; all there are share every cell.
"""

from vlm_jax.evaluation.sweep import sweep_config

ADAPTER = {"lora.rank": 64, "lora.alpha": 128.0, "lora.targets": "attention", "lora.dropout": 0.05}


def get_config():
    return sweep_config(
        train="configs/qwen2_5_vl_3b_full.py",
        set={
            "model.path": "Qwen/Qwen2.5-VL-3B-Instruct",
            "data.path": "",
            "train.epochs": 1,
            "optimizer.warmup_fraction": 0.03,
            "batch.rows": 8,
            "batch.gradient_accumulation": 1,
        },
        axes={
            "training": {
                "full": {"optimizer.learning_rate": 1e-5, "optimizer.lr_multipliers.vision": 0.2},
                "LoRA": {**ADAPTER, "optimizer.learning_rate": 5e-5},
                "QLoRA": {**ADAPTER, "model.quantise": "nf4", "optimizer.learning_rate": 2e-4},
            }
        },
        seeds=(0, 1, 2),
        benchmark="",
        max_new_tokens=32,
    )
