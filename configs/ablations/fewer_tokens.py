r"""What is learned from fewer visual tokens: every method at three shares, on the quickstart's world in larger images.

    .venv/bin/python scripts/generate_corpus.py --config=configs/corpus/objects.py --output=runs/fewer_tokens/objects \
        --config.side=224 --config.factor=3
    .venv/bin/python scripts/generate_corpus.py --config=configs/corpus/scenes.py --output=runs/fewer_tokens/scenes \
        --config.side=224 --config.train=0 --config.drill=4000 --config.things=6000 --config.finding=0
    .venv/bin/python scripts/train.py --config=configs/tiny_base.py:drill --workdir=runs/fewer_tokens/base \
        --config.model.path=vlm_jax/assets/tiny_base --config.model.max_visual_tokens=64 --config.train.steps=300 \
        --config.data.path=runs/fewer_tokens/scenes/drill.jsonl,runs/fewer_tokens/scenes/things.jsonl
    .venv/bin/python scripts/sweep.py --config=configs/ablations/fewer_tokens.py --output=runs/fewer_tokens/sweep
    .venv/bin/python benchmarks/fewer_tokens.py --sweep=runs/fewer_tokens/sweep \
        --results=runs/fewer_tokens/results.jsonl

Images have 64 tokens. The shipped base knows 16 an image, so it is trained on first, at that size. Every cell then
learns the invented objects and is asked about views of them that it has not seen. A step shows about as many examples
whatever the share: there are as many rows for all, and they are shorter where examples take fewer tokens. Cells are
compared twice: after STEPS steps, which is equal steps on equal data, and after as many as take the time that STEPS
steps take with all tokens, by `TIMES`. The first of the two is a checkpoint of the run and the other its end. The rate
does not fall, so that a checkpoint is what a run of that length would end with.
"""

from vlm_jax.evaluation.sweep import sweep_config
from vlm_jax.processing.token_budget import CUTS

HERE = "runs/fewer_tokens"
WHOLE, TEXT = 64, 36
"""Tokens of an image, and of the words of an example, as the mean."""
ROWS, LENGTH = 2, 768
"""A step, with all tokens: rows, and tokens of each."""
STEPS = 200
SHARES = (50, 25, 10)
TIMES = {
    "resize": (0.56, 0.33, 0.30),
    "random": (0.93, 0.84, 0.84),
    "uniform": (0.92, 0.86, 0.78),
    "pool": (0.92, 0.85, 0.80),
    "pool_learned": (0.94, 0.89, 0.79),
    "divprune": (0.89, 0.80, 0.78),
    "mmr": (1.04, 1.04, 0.91),
    "mmr_learned": (0.89, 0.82, 0.79),
    "cdpruner": (0.92, 0.82, 0.78),
    "visionzip": (1.04, 0.94, 0.90),
    "fastv": (0.96, 0.95, 0.96),
    "pyramiddrop": (1.06, 0.97, 0.94),
}
"""By method, what a step takes of the time of one with all tokens, at each share. Of an idle machine with two cores:

    .venv/bin/python benchmarks/token_reduction.py --visual_tokens=64 --text_tokens=36 --rows=15 --shares=0.5,0.25,0.1
"""

MIXED = ("resize", "uniform", "divprune")
"""Also with a last part that sees all tokens, as they are used then."""


def cell(method: str, share: int) -> dict:
    """What differs of a cell, to be compared after equal steps and after equal time."""
    # Where tokens are left out within the decoder, rows are as long as with all of them below the first cut.
    tokens = LENGTH if method in CUTS else round(LENGTH * (WHOLE * share / 100 + TEXT) / (WHOLE + TEXT))
    in_time = round(STEPS / TIMES[method][SHARES.index(share)])
    return {
        "model.visual_tokens": share / 100,
        "model.token_reduction": method,
        "batch.sequence_length": tokens,
        "checkpoint.every": min(STEPS, in_time),
        "train.steps": max(STEPS, in_time),
    }


def get_config():
    cells = {"100 %": {"model.visual_tokens": 1.0, "batch.sequence_length": LENGTH, "train.steps": STEPS}}
    for share in SHARES:
        for method in TIMES:
            cells[f"{share} %, {method}"] = settings = cell(method, share)
            if share == 25 and method in MIXED:
                mixed = {"model.token_schedule": "0.25: 0.9, 1.0: 0.1"}
                cells[f"25 % and, for the last tenth, all, {method}"] = {**settings, **mixed}
    return sweep_config(
        train="configs/quickstart.py",
        set={
            "model.path": f"{HERE}/base",
            "model.max_visual_tokens": WHOLE,
            "data.path": f"{HERE}/objects/train.jsonl",
            "batch.rows": ROWS,
            "batch.patches": 0,
            "train.epochs": 0,
            "optimizer.end_lr_fraction": 1.0,
            "checkpoint.keep": 9,
        },
        axes={"visual tokens": cells},
        seeds=(0, 1, 2),
        benchmark=f"{HERE}/objects/synthetic.jsonl,{HERE}/objects/photo.jsonl",
        max_new_tokens=16,
    )
