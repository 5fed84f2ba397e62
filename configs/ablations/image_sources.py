r"""Real and generated images, and where real ones come from: the same number of steps on each (SK-VQA's rows).

    .venv/bin/python scripts/sweep.py --config=configs/ablations/image_sources.py --output=runs/image_sources \
        --config.benchmark=runs/context/held_out.jsonl

Each source is a corpus of its own, made by configs/corpus/sk_vqa.py from a folder of images (`image_source` of its
records says which), or by configs/corpus/thai_culture.py from generated ones. Mixtures draw from two of them by weight.
"""

from vlm_jax.evaluation.sweep import sweep_config

HERE = "runs/context"
PHOTOGRAPHS, GENERATED, ENCYCLOPEDIA = (f"{HERE}/{name}/train.jsonl" for name in ("photographs", "generated", "wiki"))


def mixture(**weights: float) -> dict:
    """Parts by weight; those of weight 0 are left out."""
    paths = {"photographs": PHOTOGRAPHS, "generated": GENERATED}
    return {name: {"path": paths[name], "weight": weight} for name, weight in weights.items() if weight}


def get_config():
    ratios = {
        f"{real} photographs to {generated} generated": {
            "data.mixture": mixture(photographs=float(real), generated=float(generated))
        }
        for real, generated in ((3, 1), (1, 1), (1, 3))
    }
    alone = {
        "photographs": {"data.path": PHOTOGRAPHS},
        "an encyclopedia's": {"data.path": ENCYCLOPEDIA},
        "generated": {"data.path": GENERATED},
    }
    return sweep_config(
        train="configs/qwen2_5_vl_3b_qlora.py",
        set={
            "model.path": "Qwen/Qwen2.5-VL-3B-Instruct",
            "data.template": "{context}\n\n{question}",
            "train.epochs": 0,
            "train.steps": 2000,
            "batch.rows": 8,
            "batch.gradient_accumulation": 8,
        },
        axes={"images": {**alone, **ratios}},
        seeds=(0, 1, 2),
        benchmark="",
        metric="squad_em",
        max_new_tokens=32,
    )
