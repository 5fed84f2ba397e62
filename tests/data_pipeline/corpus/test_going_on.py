"""What a run does with a folder that it finds: its own, a person's, another process's, and one with parts missing."""

import json

import pytest

from data_pipeline.corpus.settings import corpus_config
from data_pipeline.corpus.stages import questions
from data_pipeline.corpus.stages.topics import slug
from tests.data_pipeline.corpus.generated import made, settings_of
from tests.data_pipeline.teachers.teacher_server import error
from vlm_jax.checkpoint.files import alone


def test_what_was_looked_at_in_a_preview_may_be_changed_and_what_was_made_may_not(tmp_path, server):
    made(tmp_path / "corpus", settings_of(server), preview=1)
    other = settings_of(server, facts={"each": 3})
    made(tmp_path / "corpus", other, until="facts")
    # Behind facts nothing was made: it may still be otherwise. A default that is written out is no change.
    other = settings_of(server, facts={"each": 3}, questions={"pairs_per_fact": 4, "steps": 0.25})
    other["teachers"]["text"]["temperature"] = 1.0
    made(tmp_path / "corpus", other)
    with pytest.raises(ValueError, match="config.facts.each differs from what the stage facts"):
        made(tmp_path / "corpus", settings_of(server))


def test_a_persons_own_files_among_the_images_stay_and_a_lost_image_is_asked_for_again(tmp_path, server):
    made(tmp_path / "corpus", settings_of(server))
    (tmp_path / "corpus" / "images" / "mine.png").write_bytes(b"mine")
    (tmp_path / "corpus" / "images" / f"{'a' * 64}.png").write_bytes(b"of an earlier corpus")
    lost = next(path for path in (tmp_path / "corpus" / "store" / "images").rglob("*.png"))
    (tmp_path / "corpus" / "images" / lost.name).unlink()
    content = lost.read_bytes()
    lost.unlink()
    asked = len(server.calls)
    made(tmp_path / "corpus", settings_of(server))
    assert len(server.calls) == asked + 1 and lost.read_bytes() == content
    assert (tmp_path / "corpus" / "images" / lost.name).is_file()
    assert (tmp_path / "corpus" / "images" / "mine.png").is_file()
    assert not (tmp_path / "corpus" / "images" / f"{'a' * 64}.png").exists()


def test_parts_run_beside_each_other_and_not_beside_the_whole(tmp_path, server):
    made(tmp_path / "corpus", settings_of(server), until="topics")
    with alone(tmp_path / "corpus", "generating"), pytest.raises(ValueError, match="another process is generating"):
        made(tmp_path / "corpus", settings_of(server), shard="0/2")
    with alone(tmp_path / "corpus", "generating", together=True):
        made(tmp_path / "corpus", settings_of(server), shard="0/2")
        with pytest.raises(ValueError, match="another process is generating"):
            made(tmp_path / "corpus", settings_of(server))


def test_one_refused_request_among_answered_ones_is_left_out_and_the_first_one_ends_the_run(tmp_path, server):
    server.faults.append(error(400, "INVALID_ARGUMENT"))
    with pytest.raises(ValueError, match="test: bad request: 400"):
        made(tmp_path / "first", settings_of(server), until="topics")
    made(tmp_path / "corpus", settings_of(server), until="image_prompts")
    server.faults.extend([None] * 6 + [error(400, "INVALID_ARGUMENT")])
    made(tmp_path / "corpus", settings_of(server), until="images")
    notes = (tmp_path / "corpus" / "stages" / "07-images.left_out.txt").read_text()
    assert notes.count("\n") == 1 and "bad request (400" in notes
    asked = len(server.calls)
    made(tmp_path / "corpus", settings_of(server), until="images")
    assert len(server.calls) == asked


def test_an_image_that_is_made_for_training_and_to_evaluate_on_alike_is_trained_on(tmp_path, server):
    settings = settings_of(server)
    made(tmp_path / "corpus", settings, until="image_prompts")
    image = None

    def repeat(answer):
        nonlocal image
        image = image or answer
        return image

    server.faults.extend([repeat] * 12)
    made(tmp_path / "corpus", settings)
    manifest = json.loads((tmp_path / "corpus" / "manifest.json").read_text())
    assert manifest["images"] == 1 and set(manifest["splits"]) == {"train"}
    assert {one["filter"]: one["dropped"] for one in manifest["filters"]}[
        "held-out question about a training image"
    ] == 24


def test_topics_in_other_scripts_keep_apart_in_their_ids():
    assert slug("Khao Soi") == "khao-soi" and slug("Crème brûlée") == "creme-brulee"
    assert len({slug("Пирог 2"), slug("Блины 2"), slug("ข้าวซอย"), slug("ข้าวต้ม")}) == 4
    assert slug("ข้าวซอย").isascii()


def test_what_is_left_over_goes_to_one_language_after_the_other():
    settings = corpus_config(languages=("en", "th"), held_out={"questions": 1}).to_dict()
    assert [questions.counts(settings, "synthetic", turn)[0][0] for turn in (0, 1)] == ["en", "th"]


def test_a_language_without_prompts_of_its_own_is_refused_before_anything_is_asked(tmp_path, server):
    with pytest.raises(ValueError, match="there is no prompt simple.fr.txt: write one into the folder config.prompts"):
        made(tmp_path / "corpus", settings_of(server, languages=("en", "fr")))
    assert not server.calls


def test_a_key_in_the_place_of_its_name_is_not_shown(tmp_path, server):
    settings = settings_of(server)
    settings["teachers"]["text"]["api_key_env"] = "sk-abc123"
    with pytest.raises(ValueError, match="api_key_env is no name of an environment variable") as caught:
        made(tmp_path / "corpus", settings)
    assert "sk-abc123" not in str(caught.value)
