"""What models answer that is of the right form and yet of no use; settings between two runs; many topics."""

import json
import time

import pytest

from data_pipeline.corpus.settings import corpus_config
from data_pipeline.corpus.stages import images, questions, topics
from tests.data_pipeline.corpus import prompted
from tests.data_pipeline.corpus.generated import DRAWN, made, settings_of
from tests.data_pipeline.teachers import teacher_server

pytest.importorskip("google.genai")


def test_an_image_prompt_that_is_empty_or_there_twice_is_left_out(tmp_path, server):
    def answer(prompt):
        found = json.loads(prompted.answer(prompt))
        if "prompts" in found:
            found["prompts"] = [found["prompts"][0], " ", found["prompts"][0]]
        return json.dumps(found)

    server.answer = answer
    made(tmp_path / "corpus", settings_of(server), until="image_prompts")
    notes = (tmp_path / "corpus" / "stages" / "06-image_prompts.left_out.txt").read_text()
    assert notes.count("train-001: an empty prompt") == notes.count("synthetic-002: the same prompt again") == 4


def test_an_image_that_cannot_be_opened_is_asked_for_again_and_then_left_out(tmp_path, server, monkeypatch):
    whole = teacher_server.image_for
    monkeypatch.setattr(teacher_server, "image_for", lambda prompt: whole(prompt)[: 100 if "2. " in prompt else None])
    assert "train.jsonl" in made(tmp_path / "corpus", settings_of(server))
    notes = (tmp_path / "corpus" / "stages" / "07-images.left_out.txt").read_text()
    assert notes.count("train-001: not what was asked for (the image cannot be opened") == 4


def test_records_of_a_split_that_is_no_longer_made_are_removed(tmp_path, server):
    made(tmp_path / "corpus", settings_of(server))
    assert (tmp_path / "corpus" / "synthetic.jsonl").is_file()
    made(tmp_path / "corpus", settings_of(server, held_out={"questions": 0}), restart_from="questions")
    assert [path.name for path in (tmp_path / "corpus").glob("*.jsonl")] == ["train.jsonl"]


def test_a_language_that_is_named_twice_and_a_cost_that_is_no_number_are_refused(tmp_path, server):
    with pytest.raises(ValueError, match="config.languages names one twice: en, en"):
        made(tmp_path / "corpus", settings_of(server, languages=("en", "en")))
    with pytest.raises(ValueError, match="--max_cost=nan: wanted dollars"):
        made(tmp_path / "corpus", settings_of(server), max_cost=float("nan"))
    made(tmp_path / "corpus", settings_of(server), until="topics")
    (tmp_path / "corpus" / "run.json").write_text('{"topics": null}')
    with pytest.raises(ValueError, match="config.subject differs"):
        made(tmp_path / "corpus", settings_of(server))


def test_five_thousand_topics_take_no_longer_each_than_a_few():
    settings = corpus_config(held_out={"questions": 2}).to_dict()
    found = [
        {"id": f"t-{n}", "name": f"T {n}", "local_name": f"L {n}", "domain": "d", "description": ""}
        for n in range(5000)
    ]
    facts = [
        {**topic, "id": f"{topic['id']}/{n}", "topic": topic["id"], "visible": ""} for topic in found for n in range(5)
    ]
    drawn = [{"topic": topic["id"], "split": split, "image": ""} for topic in found for split in ("train", "synthetic")]
    begun = time.process_time()
    assert topics.finish(found) == (found, [])
    assert len(images.with_facts(found, facts, settings)) == 5000
    assert len(questions.wanted(facts, drawn, settings)) == 75_000
    assert time.process_time() - begun < 5.0


def test_what_is_noted_of_a_topic_that_is_two_earlier_ones_is_about_its_name():
    def topic(name, local_name):
        return {"id": name.lower(), "name": name, "local_name": local_name, "domain": "d"}

    for other in "bcdefghij":  # by the order of a set, some of these would be told of the other
        notes = topics.finish([topic("Aa", ""), topic(other, ""), topic("A a", other)])[1]
        assert notes == ["A a (d): is Aa again"]


def test_a_teacher_that_cannot_give_what_is_wanted_is_refused_before_anything_is_asked(tmp_path, server):
    teachers = {**settings_of(server)["teachers"], "image": server.openai(), "embedding": DRAWN}
    with pytest.raises(ValueError) as caught:
        made(tmp_path / "corpus", settings_of(server, teachers=teachers))
    assert "config.teachers.image: a teacher of kind openai_compatible has no image to give" in str(caught.value)
    assert "config.teachers.embedding: a teacher of kind drawn has no embedding to give" in str(caught.value)
    assert not server.calls
