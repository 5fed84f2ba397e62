r"""MPA on ST-VQA, task 1: Qwen2-VL-7B teaches the 2B to read text in scenes, without the labels.

    .venv/bin/python scripts/align_parity.py --config=configs/parity/stvqa.py --workdir=runs/stvqa \
        --config.images.path=train_task_1.json --config.images.image_root=images

The official test set has no answers: 15 % of the images are tested on, and 15 % of the others are dev; the rest is
written about, and its labels are shown to no model. `:qwen2_5_vl_3b` takes Qwen2.5-VL-3B and 7B.
"""

from data_pipeline.parity.published import published
from data_pipeline.parity.settings import parity_config


def get_config(student="qwen2_vl_2b"):
    return parity_config(
        parity="stvqa",
        annotate={
            "prompt": "stvqa",
            "types": (
                "Ask for a name or a title.",
                "Ask for a number, a date, a time or a price.",
                "Ask what a sign or label says.",
            ),
        },
        identify={"matcher": "anls"},
        **published(student),
    )
