"""The whole pipeline on this machine: the built-in teacher knows two dozen invented objects, and draws them.

    .venv/bin/python scripts/generate_corpus.py --config=configs/corpus/offline.py --output=runs/offline

Nothing is asked over a network. What comes of it has the form of any corpus that teachers make.
"""

from data_pipeline.corpus.settings import corpus_config


def get_config():
    drawn = {"kind": "drawn", "seed": 0, "side": 112}
    return corpus_config(
        subject="the crafts of twelve invented towns",
        languages=("en", "th"),
        topics={"domains": ("weavers", "potters", "smiths", "carvers", "painters", "sailors", "bakers", "singers")},
        image_prompts={
            "styles": ("a drawing", "a photograph"),
            "views": ("a close view", "from the side"),
            "settings": ("in daylight", "indoors"),
        },
        held_out={"questions": 4, "images": 2},
        teachers={"text": drawn, "image": drawn, "judge": drawn},
        own_judge=True,  # who invented the objects knows them best
    )
