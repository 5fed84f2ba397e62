r"""MPA on OK-VQA: Qwen2-VL-7B teaches the 2B what an image does not show, without the labels.

    .venv/bin/python scripts/align_parity.py --config=configs/parity/okvqa.py --workdir=runs/okvqa \
        --config.images.path=OpenEnded_mscoco_train2014_questions.json --config.images.image_root=train2014 \
        --config.evaluate.data=OpenEnded_mscoco_val2014_questions.json --config.evaluate.image_root=val2014

Five kinds of outside knowledge, answered in one word. Tested on the official validation split.
`:qwen2_5_vl_3b` takes Qwen2.5-VL-3B and 7B.
"""

from data_pipeline.parity.published import published
from data_pipeline.parity.settings import parity_config


def get_config(student="qwen2_vl_2b"):
    return parity_config(
        parity="okvqa",
        annotate={
            "prompt": "okvqa",
            "types": (
                "It asks what something is used for, or how it works.",
                "It asks about history, or where something comes from.",
                "It asks about people, customs, food or festivities.",
                "It asks about nature: animals, plants, weather or materials.",
                "It asks about brands, sports, vehicles or places.",
            ),
        },
        identify={"matcher": "vqa"},
        **published(student, benchmark="okvqa"),
    )
