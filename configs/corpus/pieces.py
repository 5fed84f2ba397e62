r"""Questions that only an article answers: images of the invented objects, each with one on that very piece.

    .venv/bin/python scripts/generate_corpus.py --config=configs/corpus/pieces.py:one --output=runs/pieces/one
    .venv/bin/python scripts/generate_corpus.py --config=configs/corpus/pieces.py:one-held_out \
        --output=runs/pieces/one-held_out

Where a piece is from, who made it, what for and when it is used is drawn for it, so that nothing learned by heart
answers. `two` has articles on two pieces, of which the image says which is meant. `held_out` are other images and other
articles, to be asked (`configs/ablations/articles.py`).
"""

from data_pipeline.corpus.settings import corpus_config
from vlm_jax import InputError

PIECES = {"one": 1, "two": 2}


def get_config(form="one"):
    count, _, held_out = form.partition("-")
    if count not in PIECES or held_out not in ("", "held_out"):
        raise InputError(f"{form!r}: wanted one, two, one-held_out or two-held_out")
    drawn = {"kind": "drawn", "seed": 1 if held_out else 0, "side": 112}
    return corpus_config(
        subject="single pieces of invented objects",
        topics={"domains": ("weavers", "potters", "smiths", "carvers", "painters", "sailors", "bakers", "singers")},
        facts={"checked": False},  # of the objects; an article has its own
        image_prompts={
            "each": 3 if held_out else 50,
            "styles": ("a drawing",),
            "views": ("a close view", "from the side"),
            "settings": ("in daylight", "indoors"),
        },
        questions={"pairs_per_fact": 0},
        context={"questions": 4},
        # Of so many small drawings some look alike by chance; and the same is asked of each.
        filters={"near_image": {"on": False}, "near_duplicate": {"on": False}},
        teachers={"text": {**drawn, "pieces": PIECES[count]}, "image": drawn},
    )
