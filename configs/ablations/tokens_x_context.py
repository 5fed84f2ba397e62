r"""How many visual tokens an image, chosen how, in how long a context: four shares by four lengths of row.

    .venv/bin/python scripts/sweep.py --config=configs/ablations/tokens_x_context.py --output=runs/tokens_x_context \
        --config.set.data.path=mine.jsonl --config.benchmark=held_out.jsonl

The grid is a published one: 25, 50, 75 and 100 % of the visual tokens, contexts of 128, 1,024, 2,048 and 4,096 tokens.
100 % are 1,024 tokens, as in the other configs of this model, and the shares are of that: 256, 512 and 768 an image at
most. What was published made images smaller (`resize`); two methods that choose among the tokens of the whole image
stand beside it, at equal numbers. Evaluation shows an image as training did.

The context is the length of a row, `batch.sequence_length`, which several examples share. Rows a step are chosen so
that every cell has as many tokens in a step. Two things are not as they were published. Where an image does not fit
its row it is made smaller (`shrink_images`) and no answer is cut off, which was what a context of 128 did; all budgets
come to nearly the same there. And a record's `context`, an article that belongs to an image, is no part of the prompt.
"""

from vlm_jax.evaluation.sweep import sweep_config

WHOLE = 1024
TOKENS = 16384  # of a step
METHODS = ("resize", "divprune", "visionzip")


def get_config():
    budgets = {
        f"{share} %, {method}": {"model.visual_tokens": WHOLE * share // 100, "model.token_reduction": method}
        for share in (25, 50, 75)
        for method in METHODS
    }
    budgets["100 %"] = {"model.visual_tokens": 1.0}
    lengths = {
        f"{length}": {"batch.sequence_length": length, "batch.rows": TOKENS // length}
        for length in (128, 1024, 2048, 4096)
    }
    return sweep_config(
        train="configs/qwen2_5_vl_3b_qlora.py",
        set={
            "model.path": "Qwen/Qwen2.5-VL-3B-Instruct",
            "data.path": "",
            "data.too_large": "shrink_images",
            "batch.gradient_accumulation": 4,  # 4,096 tokens at a time
        },
        axes={"visual tokens": budgets, "context": lengths},
        seeds=(0, 1, 2),
        benchmark="",
        max_new_tokens=32,
        x_axis="context",
    )
