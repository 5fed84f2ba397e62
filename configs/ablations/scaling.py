r"""How much data is enough: the same training on 1, 5, 10 and 15 parts of a corpus in fifteen.

    .venv/bin/python scripts/generate_corpus.py --config=configs/corpus/objects.py --config.factor=15 \
        --output=runs/objects
    .venv/bin/python scripts/sweep.py --config=configs/ablations/scaling.py --output=runs/scaling \
        --config.set.data.path=runs/objects/train.jsonl --config.benchmark=runs/objects/photo.jsonl

The corpus that is given stands for 15×: 150 question-answer pairs a fact, where published work on injecting knowledge
trained on 10 to 150 and gained nothing clear beyond 100 (10×). The smaller amounts are drawn from it by `data.share`,
each within the next, so nothing but the amount differs; of each seed other records are drawn. Every cell sees its data
for one epoch, so that less data is also fewer steps. For equal steps instead: `--config.set.train.steps=2000`.
"""

from vlm_jax.evaluation.sweep import sweep_config


def get_config():
    return sweep_config(
        train="configs/qwen2_5_vl_3b_qlora.py",
        set={
            "model.path": "Qwen/Qwen2.5-VL-3B-Instruct",
            "data.path": "",  # the whole corpus: what 15× sees
            "train.epochs": 1,
            "train.steps": 0,
            "batch.rows": 8,
            "batch.gradient_accumulation": 8,  # one row at a time
        },
        axes={"amount": {f"{times}×": {"data.share": times / 15} for times in (1, 5, 10, 15)}},
        seeds=(0, 1, 2),
        benchmark="",  # questions on images that are not in the corpus
        max_new_tokens=32,
    )
