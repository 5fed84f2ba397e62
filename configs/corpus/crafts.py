r"""Twelve of the invented objects by the whole pipeline: of one form, or with planted faults and stages against them.

    .venv/bin/python scripts/generate_corpus.py --config=configs/corpus/crafts.py:simple --output=runs/crafts/simple
    .venv/bin/python scripts/generate_corpus.py --config=configs/corpus/crafts.py:faults-support \
        --output=runs/crafts/faults-support

`simple` and `steps` are 15×, 150 questions a fact, without a chain of thought and half of them with one; smaller
amounts are drawn from them (`configs/ablations/amounts.py`). `faults` is 5× of both forms by a teacher that makes
mistakes, with every stage of quality; `faults-STAGE-STAGE` is the same without these, `faults-all` without any, and
`clean` by the teacher as it is (`configs/ablations/quality.py`).
"""

from data_pipeline.corpus.settings import corpus_config
from vlm_jax import InputError

FAULTS = {"facts": 0.2, "questions": 0.2, "images": 0.2, "language": 0.2, "steps": 0.3, "repeated_images": 0.3}
"""What is planted (`data_pipeline/corpus/drawn/faults.py`): shares of facts, questions or images."""
STAGES = ("support", "judged", "near_image", "language", "chain_of_thought")
"""What each stage finds: wrong facts; wrong questions and images; repeated images; the other language; other steps."""


def get_config(form="simple"):
    kind, *without = form.split("-")
    without = STAGES if without == ["all"] else without
    if (
        kind not in ("simple", "steps", "faults", "clean")
        or set(without) - set(STAGES)
        or (without and kind != "faults")
    ):
        raise InputError(f"{form!r}: wanted simple, steps, clean, faults or faults-{'|'.join(STAGES)}|all")
    drawn = {"kind": "drawn", "seed": 0, "side": 112}
    teacher = {**drawn, "faults": FAULTS if kind == "faults" else {}}
    pairs = 150 if kind in ("simple", "steps") else 50
    filters = {name: {"on": name not in without} for name in STAGES if name != "support"}
    if kind in ("simple", "steps"):
        filters["near_image"] = {"on": False}  # of so many small drawings some look alike by chance
    if "language" in without:
        filters["schema"] = {"on": False}  # which finds some of the same: a question in Thai has no question mark
    return corpus_config(
        subject="the crafts of twelve invented towns",
        languages=("en", "th"),
        topics={"domains": ("weavers", "potters", "smiths", "carvers")},
        facts={"each": 3, "checked": "support" not in without},
        image_prompts={
            "each": pairs,
            "styles": ("a drawing",),
            "views": ("a close view", "from the side"),
            "settings": ("in daylight", "indoors"),
        },
        questions={"pairs_per_fact": pairs, "steps": 0.0 if kind == "simple" else 0.5 if kind == "steps" else 0.25},
        held_out={"questions": 8, "images": 8},
        filters=filters,
        teachers={"text": teacher, "image": teacher, "judge": drawn},
        own_judge=True,
    )
