r"""What is learned with an article in front of the question that without it cannot be known, in small.

    for form in one one-held_out two two-held_out; do
        .venv/bin/python scripts/generate_corpus.py --config=configs/corpus/pieces.py:$form --output=runs/pieces/$form
    done
    .venv/bin/python scripts/sweep.py --config=configs/ablations/articles.py:one --output=runs/articles/one
    .venv/bin/python scripts/sweep.py --config=configs/ablations/articles.py:two --output=runs/articles/two

The shipped tiny base, equal steps on the same questions, with and without their article; asked likewise of other images
with other articles. `configs/ablations/contexts.py` is the same for large models and real articles.
"""

from vlm_jax.evaluation.sweep import sweep_config

HERE = "runs/pieces"
STEPS = {"one": 200, "two": 400}


def get_config(form="one"):
    return sweep_config(
        train="configs/quickstart.py",
        set={
            "data.path": f"{HERE}/{form}/train.jsonl",
            "batch.rows": 6,
            "train.epochs": 0,
            "train.steps": STEPS[form],
            "checkpoint.every": 10_000,
        },
        axes={
            "article": {
                "none": {"data.template": ""},
                "in front of the question": {"data.template": "{context}\n\n{question}"},
            }
        },
        seeds=(0, 1, 2),
        benchmark=f"{HERE}/{form}-held_out/train.jsonl",
        max_new_tokens=16,
    )
