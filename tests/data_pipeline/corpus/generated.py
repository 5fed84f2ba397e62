"""Small corpora as tests make them: a subject, and the teachers that a server of the tests stands for."""

import pytest

from data_pipeline.corpus import generating
from data_pipeline.corpus.generating import Options
from data_pipeline.corpus.settings import corpus_config

pytest.importorskip("google.genai")
DRAWN = {"kind": "drawn", "seed": 0, "side": 56}
CHANGES = {
    "subject": "things",
    "topics": {"domains": ("food", "dress"), "each": 2},
    "facts": {"each": 4},
    "image_prompts": {"each": 2},
    "questions": {"pairs_per_fact": 12, "steps": 0.25},
    "held_out": {"questions": 2},
}


def settings_of(server, **changes):
    text = server.openai(at_once=4)
    image = server.vertex(api_key_env="TEST_TOKEN", at_once=4, model="image-model")
    judge = server.openai(model="judge")
    teachers = {"text": text, "image": image, "judge": judge}
    return corpus_config(**{**CHANGES, "teachers": teachers, **changes}).to_dict()


def made(folder, settings, **options):
    return generating.generate(folder, settings, Options(**options), say=lambda text: None)


def files_of(folder):
    """What is in a corpus, the store aside: it knows when an answer came."""
    paths = [
        path for path in sorted(folder.rglob("*")) if path.is_file() and path.relative_to(folder).parts[0] != "store"
    ]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.name != ".lock"}
