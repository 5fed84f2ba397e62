r"""MPA on ChartQA: Qwen2-VL-7B teaches the 2B to read charts, without the labels.

    .venv/bin/python scripts/align_parity.py --config=configs/parity/chartqa.py --workdir=runs/chartqa \
        --config.images.path=train_human.json,train_augmented.json --config.images.image_root=train/png \
        --config.evaluate.data=test_human.json,test_augmented.json --config.evaluate.image_root=test/png

Four kinds of question, as published: lookup, comparison, trend, inference. Tested on the official test split.
`:qwen2_5_vl_3b` takes Qwen2.5-VL-3B and 7B.
"""

from data_pipeline.parity.published import published
from data_pipeline.parity.settings import parity_config


def get_config(student="qwen2_vl_2b"):
    return parity_config(
        parity="chartqa",
        annotate={
            "prompt": "chartqa",
            "types": (
                "Ask for a single value or label that can be read off.",
                "Compare two or more values or groups.",
                "Ask how something changes over time or from one category to the next.",
                "Ask for what follows from several values, such as a sum, a difference or a share.",
            ),
        },
        identify={"matcher": "relaxed"},
        **published(student, benchmark="chartqa"),
    )
