r"""A person's own images, without a question: Qwen2.5-VL-7B writes them, and the 3B learns what it lacks.

    .venv/bin/python scripts/align_parity.py --config=configs/parity/images.py --workdir=runs/aligned \
        --config.images.path=photographs --config.evaluate.benchmark=questions.jsonl

`photographs` is a folder with images, at any depth. `questions.jsonl` are a few questions that people have answered, to
see what it did; without them nothing is evaluated. Another teacher:

        --config.teachers.text.model=Qwen/Qwen2.5-VL-32B-Instruct
"""

from data_pipeline.parity.published import published
from data_pipeline.parity.settings import parity_config


def get_config(student="qwen2_5_vl_3b"):
    return parity_config(
        annotate={
            "pairs": 4,
            "types": (
                "Ask what something is, or is called.",
                "Ask for a colour, a number or a position.",
                "Ask what is written somewhere, or what something says.",
                "Ask what something is for, or what is going on.",
            ),
        },
        **published(student),
    )
