r"""Context-augmented questions about your own images: for each an article, and questions that need image and article.

    .venv/bin/python scripts/generate_corpus.py --config=configs/corpus/sk_vqa.py --output=runs/context \
        --config.context.images=photographs --dry_run

`context.images` is a folder, or records of any form that scripts/train.py reads; what a folder within it is called is
kept as the source of its images. Needs `gcloud auth application-default login` and a project with Vertex AI.
"""

from data_pipeline.corpus.settings import corpus_config


def get_config():
    return corpus_config(
        context={"questions": 7, "held_out": 0.02},
        card={"title": "Questions that need an image and an article"},
        teachers={"text": {"kind": "vertex", "model": "gemini-3.5-flash", "project": "", "thinking_level": "LOW"}},
        prices={
            "date": "2026-10-07",  # of these prices
            "gemini-3.5-flash": {"input": 1.50, "output": 9.00, "batch": 0.5},  # dollars for a million tokens
        },
    )
