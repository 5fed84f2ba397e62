"""What is learned from fewer visual tokens: every method at three shares, on the quickstart's world in larger images.

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
whatever the share: rows are as long for all, and there are fewer of them where examples take fewer tokens. Cells are
compared twice: after STEPS steps, at a checkpoint, which is equal steps on equal data; and at their end, when each has
taken as many rows as STEPS steps take with all tokens, which is more steps of fewer rows. That is about equal time: the
tower's work an image is not counted, and the tables have the seconds of each training. The rate does not fall, so that
a checkpoint is what a run of that length would end with.
"""

from vlm_jax.evaluation.sweep import sweep_config
from vlm_jax.processing.token_budget import CUTS, TokenBudget, cut_layers

HERE = "runs/fewer_tokens"
WHOLE, TEXT = 64, 36
"""Tokens of an image, and of the words of an example, as the mean."""
ROWS = 6
"""A step, with all tokens."""
STEPS = 100
"""With all tokens; of the others until they are compared first."""
LAYERS = 4
"""Of the base's decoder."""
METHODS = (
    *("resize", "random", "uniform", "pool", "pool_learned"),
    *("divprune", "mmr", "mmr_learned", "cdpruner", "visionzip"),
    *("fastv", "pyramiddrop"),
)

MIXED = ("resize", "uniform", "divprune")
"""Also with a last part that sees all tokens, as they are used then."""


def length(share: float) -> float:
    return WHOLE * share + TEXT


def mean_length(method: str, share: float) -> float:
    """Tokens of an example that a layer of the decoder sees, as the mean over layers, of a method of `CUTS`."""
    counts = (WHOLE, *TokenBudget(share, method).counts_above(WHOLE))
    stops = (0, *cut_layers(method, 0, LAYERS), LAYERS)
    seen = sum(count * (stop - start) for count, start, stop in zip(counts, stops, stops[1:], strict=False))
    return seen / LAYERS + TEXT


def get_config():
    cells = {"100 %": {"model.visual_tokens": 1.0, "batch.rows": ROWS, "train.steps": STEPS}}
    for share in (50, 25, 10):
        for method in METHODS:
            # Where tokens are left out within the decoder, rows are as long as with all of them below the first cut.
            rows = ROWS if method in CUTS else round(ROWS * length(share / 100) / length(1.0))
            saved = mean_length(method, share / 100) / length(1.0) if method in CUTS else rows / ROWS
            settings = {"model.visual_tokens": share / 100, "model.token_reduction": method}
            settings |= {"batch.rows": rows, "train.steps": round(STEPS / saved)}
            cells[f"{share} %, {method}"] = settings
            if share == 25 and method in MIXED:
                mixed = {"model.token_schedule": "0.25: 0.9, 1.0: 0.1"}
                cells[f"25 % and, for the last tenth, all, {method}"] = {**settings, **mixed}
    return sweep_config(
        train="configs/quickstart.py",
        set={
            "model.path": f"{HERE}/base",
            "model.max_visual_tokens": WHOLE,
            "data.path": f"{HERE}/objects/train.jsonl",
            "batch.patches": 0,
            "train.epochs": 0,
            "optimizer.end_lr_fraction": 1.0,
            "checkpoint.every": STEPS,
            "checkpoint.keep": 9,
        },
        axes={"visual tokens": cells},
        seeds=(0, 1, 2),
        benchmark=f"{HERE}/objects/synthetic.jsonl,{HERE}/objects/photo.jsonl",
        max_new_tokens=16,
    )
