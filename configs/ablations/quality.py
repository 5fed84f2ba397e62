r"""What each stage of quality is worth: the same training on a corpus with planted faults, with and without the stage.

    for form in clean faults faults-support faults-judged faults-support-judged faults-near_image faults-language \
        faults-chain_of_thought faults-all; do
        .venv/bin/python scripts/generate_corpus.py --config=configs/corpus/crafts.py:$form --output=runs/crafts/$form
    done
    .venv/bin/python scripts/sweep.py --config=configs/ablations/quality.py --output=runs/quality

Every cell trains for equal steps, whatever its stages left of the corpus, and is asked the held-out questions of the
clean one.
"""

from vlm_jax.evaluation.sweep import sweep_config

HERE = "runs/crafts"
CORPORA = {
    "no faults": "clean",
    "faults, every stage": "faults",
    "without support": "faults-support",
    "without judged": "faults-judged",
    "without support and judged": "faults-support-judged",
    "without near_image": "faults-near_image",
    "without language": "faults-language",
    "without chain_of_thought": "faults-chain_of_thought",
    "faults, no stage": "faults-all",
}


def get_config():
    return sweep_config(
        train="configs/quickstart.py",
        set={"batch.rows": 3, "checkpoint.every": 10_000, "train.epochs": 0, "train.steps": 180},
        axes={"corpus": {label: {"data.path": f"{HERE}/{name}/train.jsonl"} for label, name in CORPORA.items()}},
        seeds=(0, 1, 2),
        benchmark=f"{HERE}/clean/synthetic.jsonl",
        max_new_tokens=16,
    )
