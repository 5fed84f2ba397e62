r"""Thai culture for a model that knows little of it: topics, facts, images, simple and reasoned questions.

    .venv/bin/python scripts/generate_corpus.py --config=configs/corpus/thai_culture.py --output=runs/thai --dry_run
    .venv/bin/python scripts/generate_corpus.py --config=configs/corpus/thai_culture.py --output=runs/thai --preview=10
    .venv/bin/python scripts/generate_corpus.py --config=configs/corpus/thai_culture.py --output=runs/thai \
        --max_cost=200

Needs `gcloud auth application-default login` and a project with Vertex AI. `thai_culture.py:5` makes 5×, fifty
questions a fact; also 1, 10 and 15. Real images to evaluate on, in a folder with a folder a topic, are named by
`--config.held_out.photographs=DIR`; `--until=topics` tells before which topics there are. Models and prices change:
both are of the day that stands beside them.
"""

from data_pipeline.corpus.settings import corpus_config
from vlm_jax import InputError

DOMAINS = (
    "festivals and ceremonies",
    "food and sweets",
    "dress and textiles",
    "handicrafts",
    "temples and religious art",
    "music, dance and theatre",
    "games and sports",
    "vehicles and boats",
    "houses and tools",
    "plants and fruit",
)


def get_config(factor: str = "1"):
    if not factor.isdigit() or not int(factor):
        raise InputError(
            f"thai_culture.py:{factor}: wanted how often ten questions a fact are written, as thai_culture.py:5"
        )
    text = {"kind": "vertex", "model": "gemini-3.5-flash", "project": "", "thinking_level": "LOW"}
    return corpus_config(
        subject="Thai culture",
        languages=("en", "th"),
        topics={"domains": DOMAINS, "each": 20},
        questions={"pairs_per_fact": 10 * int(factor), "steps": 0.3},
        # Two sets to evaluate on, as published: on generated images, and on real ones once there are some.
        held_out={"questions": 1, "images": 1, "photographs": "", "synthetic": 150, "photo": 164},
        card={"title": "Thai culture in pictures"},
        teachers={
            "text": text,
            "image": {"kind": "vertex", "model": "gemini-3.1-flash-image", "project": ""},
            "judge": {"kind": "vertex", "model": "gemini-3.8-flash", "project": "", "thinking_level": "LOW"},
            "student": {"kind": "local", "model": "Qwen/Qwen2.5-VL-3B-Instruct", "temperature": 0.0},
        },
        prices={
            "date": "2026-10-07",  # of these prices
            "gemini-3.5-flash": {"input": 1.50, "output": 9.00, "batch": 0.5},  # dollars for a million tokens
            "gemini-3.8-flash": {"input": 0.75, "output": 3.75, "batch": 0.5},  # dollars for a million tokens
            "gemini-3.1-flash-image": {"input": 0.5, "output": 3.0, "image": 60.0, "batch": 0.5},  # likewise
        },
    )
