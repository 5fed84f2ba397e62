"""The built-in corpus: 24 invented objects, five facts each, drawn here and asked about in English and Thai.

.venv/bin/python scripts/generate_corpus.py --config=configs/corpus/objects.py --output=runs/objects
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        {
            "corpus": "objects",  # which of the built-in corpora
            "factor": 10,  # 1: ten question-answer pairs a fact; 5, 10 and 15 scale the data
            "held_out": 4,  # questions a fact in each of the splits synthetic and photo
            "seed": 0,  # of what is drawn
            "side": 112,  # pixels of an image: 28 for each row of visual tokens, so 224 for 64 of them
        }
    )
