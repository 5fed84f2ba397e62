r"""Context-augmented training: with and without the article, and what its filters are worth (SK-VQA's rows).

    for filters in none IR IR_CAP; do
        .venv/bin/python scripts/generate_corpus.py --config=configs/corpus/sk_vqa.py --output=runs/context/$filters \
            --config.context.images=photographs …
    done
    .venv/bin/python scripts/sweep.py --config=configs/ablations/contexts.py --output=runs/contexts \
        --config.benchmark=runs/context/IR_CAP/synthetic.jsonl

The three corpora come of the same answers: `filters.image_mention` leaves out articles that mention an image (IR), and
`filters.answer_in_article` answers that do not stand in the article (CAP). IR_CAP has both on, IR the first alone. All
are asked what the benchmark asks, with its `context` where the cell was trained with one; scripts/retrieve.py puts
retrieved passages there instead (docs/retrieval.md).
"""

from vlm_jax.evaluation.sweep import sweep_config

HERE = "runs/context"
WITH = "{context}\n\n{question}"


def get_config():
    cells = {
        "no context": {"data.path": f"{HERE}/IR_CAP/train.jsonl", "data.template": ""},
        "context": {"data.path": f"{HERE}/none/train.jsonl", "data.template": WITH},
        "context, IR": {"data.path": f"{HERE}/IR/train.jsonl", "data.template": WITH},
        "context, IR and CAP": {"data.path": f"{HERE}/IR_CAP/train.jsonl", "data.template": WITH},
    }
    return sweep_config(
        train="configs/qwen2_5_vl_3b_qlora.py",
        set={
            "model.path": "Qwen/Qwen2.5-VL-3B-Instruct",
            "train.epochs": 0,
            "train.steps": 2000,  # equal steps, however much the filters left
            "batch.rows": 8,
            "batch.gradient_accumulation": 8,  # one row at a time
        },
        axes={"trained on": cells},
        seeds=(0, 1, 2),
        benchmark="",  # questions that need an article, with their `context`
        metric="squad_em",
        max_new_tokens=32,
    )
