r"""How much data is enough, in small: 1×, 5×, 10× and 15×, simple and with chains of thought.

    .venv/bin/python scripts/generate_corpus.py --config=configs/corpus/crafts.py:simple --output=runs/crafts/simple
    .venv/bin/python scripts/generate_corpus.py --config=configs/corpus/crafts.py:steps --output=runs/crafts/steps
    .venv/bin/python scripts/sweep.py --config=configs/ablations/amounts.py --output=runs/amounts

What was published for a model of 3B on real topics, here on twelve invented objects with the shipped tiny base
(`configs/ablations/scaling.py` is the same for large models). Each amount is trained on for an epoch, and for equal
steps. Amounts are drawn from 15×, each within the next. All are asked the same held-out questions, worded otherwise and
about images of their own, and answer in a few words.
"""

from vlm_jax.evaluation.sweep import sweep_config

HERE = "runs/crafts"
STEPS = 180
"""Of equal steps, about an epoch of 5×."""


def get_config():
    return sweep_config(
        train="configs/quickstart.py",
        set={"batch.rows": 3, "checkpoint.every": 10_000},
        axes={
            "amount": {f"{times}×": {"data.share": times / 15} for times in (1, 5, 10, 15)},
            "questions": {form: {"data.path": f"{HERE}/{form}/train.jsonl"} for form in ("simple", "steps")},
            "trained for": {
                "an epoch": {"train.epochs": 1},
                "equal steps": {"train.epochs": 0, "train.steps": STEPS},
            },
        },
        seeds=(0, 1, 2),
        benchmark=f"{HERE}/simple/synthetic.jsonl",
        max_new_tokens=16,
    )
