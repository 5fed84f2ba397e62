r"""MPA on TextVQA: Qwen2-VL-7B teaches the 2B to read text in images, without the labels.

    .venv/bin/python scripts/align_parity.py --config=configs/parity/textvqa.py --workdir=runs/textvqa \
        --config.images.path=TextVQA_0.5.1_train.json --config.images.image_root=train_images \
        --config.evaluate.data=TextVQA_0.5.1_val.json --config.evaluate.image_root=train_images

The images of the training split are split 85:15; only those of the larger part are written about, and their labels are
shown to no model. Tested on the official validation split. `--config=configs/parity/textvqa.py:qwen2_5_vl_3b` takes
Qwen2.5-VL-3B and 7B.
"""

from data_pipeline.parity.published import published
from data_pipeline.parity.settings import parity_config


def get_config(student="qwen2_vl_2b"):
    return parity_config(
        parity="textvqa",
        annotate={
            "prompt": "textvqa",
            "types": (
                "Ask for a name or a title.",
                "Ask for a number, a date, a time or a price.",
                "Ask what a sign or label says.",
            ),
        },
        identify={"matcher": "anls"},
        **published(student, benchmark="textvqa"),
    )
