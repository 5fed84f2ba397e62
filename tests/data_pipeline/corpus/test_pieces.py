"""Articles on single pieces: what they say is a piece's own, and the image alone says which of them is meant."""

import json
import re

import pytest

from data_pipeline.corpus import generating
from data_pipeline.corpus.drawn.catalogue import CATALOGUE
from data_pipeline.corpus.generating import Options
from data_pipeline.corpus.settings import corpus_config
from data_pipeline.teachers import settings as teacher_settings
from vlm_jax import InputError

SENTENCE = re.compile(r"This (\w+) was made in (\w+) by (\w+), for ([\w ]+), and is used in (\w+)\.")


def made(folder, *, pieces, seed=0):
    drawn = {"kind": "drawn", "seed": seed, "side": 56}
    config = corpus_config(
        subject="pieces",
        topics={"domains": ("potters", "smiths"), "each": 2},
        facts={"each": 1, "checked": False},
        image_prompts={"each": 5},
        questions={"pairs_per_fact": 0},
        context={"questions": 4},
        filters={"near_duplicate": {"on": False}, "near_image": {"on": False}},
        teachers={"text": {**drawn, "pieces": pieces}, "image": drawn},
    )
    generating.generate(folder, config.to_dict(), Options(), say=lambda text: None)
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def answers(records):
    """{image: (context, {question: answer})}."""
    found = {}
    for record in records:
        image, question = (part.get("image") or part["text"] for part in record["messages"][0]["content"])
        found.setdefault(image, (record["context"], {}))[1][question] = record["messages"][1]["content"]
    return found


@pytest.mark.parametrize("pieces", [1, 3])
def test_the_article_answers_for_the_thing_that_the_image_shows(tmp_path, pieces):
    names = {thing.key: thing.facts["name"][0] for thing in CATALOGUE}
    records = made(tmp_path, pieces=pieces)
    for record in records:
        facts = {name: rest for name, *rest in SENTENCE.findall(record["context"])}
        assert len(facts) == pieces
        assert record["messages"][1]["content"] in facts[names[record["provenance"]["topic"]]]
    by_image = answers(records)
    assert len(by_image) == 20 and all(len(each) == 4 for _, each in by_image.values())
    # The thing shown stands in every place, and its facts differ from piece to piece.
    shown = names[records[0]["provenance"]["topic"]]
    own = [context for context, _ in by_image.values() if f"This {shown} " in context]
    places = {[name for name, *_ in SENTENCE.findall(context)].index(shown) for context in own}
    assert len(set(own)) > 1 and (pieces == 1 or len(places) > 1)


def test_another_seed_makes_other_pieces(tmp_path):
    contexts = [{record["context"] for record in made(tmp_path / f"{seed}", pieces=1, seed=seed)} for seed in (0, 1)]
    assert not contexts[0] & contexts[1]


@pytest.mark.parametrize("pieces", [-1, len(CATALOGUE) + 1, 1.0, True])
def test_a_count_that_cannot_be_is_refused(pieces):
    with pytest.raises(InputError, match="config.teachers.text.pieces is"):
        teacher_settings.checked({"kind": "drawn", "pieces": pieces}, "config.teachers.text", wanted="text")
