"""What a corpus is not made of: settings, prompts, folders, costs and answers that are refused, in a line each."""

import json
import re

import pytest

from data_pipeline.corpus import generating, prompts
from data_pipeline.corpus.generating import Options
from data_pipeline.corpus.settings import check, corpus_config
from tests.data_pipeline.corpus.generated import DRAWN, made, settings_of
from tests.data_pipeline.teachers.teacher_server import error, gemini
from vlm_jax import InputError


def test_a_prompt_without_what_is_asked_about_is_refused_and_a_changed_one_is_told(tmp_path, server):
    own = tmp_path / "prompts"
    own.mkdir()
    (own / "simple.en.txt").write_text("Write $count questions about $statement.")
    (own / "judge.en.txt").write_text("")
    with pytest.raises(
        InputError, match=r"(?s)simple.en.txt: does not use \$answer.*judge.en.txt: does not use \$question"
    ):
        made(tmp_path / "corpus", settings_of(server, prompts=str(own)))
    (own / "judge.en.txt").unlink()
    made(tmp_path / "corpus", settings_of(server))
    text = (prompts.HERE / "simple.en.txt").read_text()
    (own / "simple.en.txt").write_text(f"{text}\nTake your time.")
    told = []
    generating.generate(tmp_path / "corpus", settings_of(server, prompts=str(own)), Options(), say=told.append)
    assert told[0] == "simple.en.txt: changed since this corpus was made; what depends on it is asked and paid for anew"
    told.clear()
    generating.generate(tmp_path / "corpus", settings_of(server, prompts=str(own)), Options(), say=told.append)
    assert told[0].startswith("topics: ")


def test_a_prompt_with_a_field_that_is_not_known_is_refused_before_anything_is_asked(tmp_path, server):
    (tmp_path / "topics.en.txt").write_text("List topics of $domain for $5")
    with pytest.raises(ValueError, match=r"topics.en.txt: a \$ that begins no field"):
        made(tmp_path / "corpus", settings_of(server, prompts=str(tmp_path)))
    (tmp_path / "topics.en.txt").write_text("List topics of $domian")
    with pytest.raises(ValueError, match=r"topics.en.txt: no field \$domian; did you mean \$domain\?"):
        made(tmp_path / "corpus", settings_of(server, prompts=str(tmp_path)))
    (tmp_path / "topics.en.txt").unlink()
    (tmp_path / "context.en.txt").write_text("$conut")
    (tmp_path / "stepps.en.txt").write_text("")
    with pytest.raises(
        ValueError, match=r"(?s)context.en.txt: no field \$conut.*stepps.en.txt: .*did you mean steps.en.t"
    ):
        made(tmp_path / "corpus", settings_of(server, prompts=str(tmp_path)))
    assert not server.calls


def test_other_settings_are_refused_unless_it_is_said_from_where(tmp_path, server):
    made(tmp_path / "corpus", settings_of(server), until="facts")
    other = settings_of(server, facts={"each": 3})
    with pytest.raises(
        ValueError, match="(?s)config.facts.each differs from what the stage facts .*--restart_from=facts"
    ):
        made(tmp_path / "corpus", other)
    with pytest.raises(ValueError, match="config.facts.each differs"):
        made(tmp_path / "corpus", other, restart_from="support")
    server.calls.clear()
    made(tmp_path / "corpus", other, restart_from="facts", until="facts")
    assert len(server.calls) == 4
    # How a teacher is asked is nobody's answer.
    faster = settings_of(server, facts={"each": 3})
    faster["teachers"]["text"]["at_once"] = 8
    made(tmp_path / "corpus", faster, until="facts")
    # A setting that came later has its default in what was made before it.
    run = json.loads((tmp_path / "corpus" / "run.json").read_text())
    del run["topics"]["text"]["extra"]
    (tmp_path / "corpus" / "run.json").write_text(json.dumps(run))
    made(tmp_path / "corpus", faster, until="facts")
    faster["teachers"]["text"]["temperature"] = 0.5
    with pytest.raises(ValueError) as refused:
        made(tmp_path / "corpus", faster, until="facts")
    first, last = str(refused.value).splitlines()
    assert "config.teachers.text.temperature differs" in first and "(1.0, and now 0.5)" in first
    assert last.startswith("--restart_from=topics makes that stage")
    assert len(server.calls) == 4
    with pytest.raises(ValueError, match="--until=fact: no such stage"):
        made(tmp_path / "corpus", faster, until="fact")


def test_what_may_not_be_spent_is_not_and_the_rest_follows(tmp_path, server):
    prices = {"date": "2026-10-07", "test": {"output": 100.0}, "judge": {"output": 0.0}, "image-model": {"image": 0.0}}
    settings = settings_of(server, prices=prices)
    settings["teachers"]["text"]["max_output_tokens"] = 100
    with pytest.raises(ValueError, match="--max_cost=0.015 is reached"):
        made(tmp_path / "corpus", settings, max_cost=0.015)
    paid = [body for _, body in server.calls if body.get("model") == "test"]
    assert 0.004 < len(paid) * 7e-4 <= 0.015
    made(tmp_path / "corpus", settings, max_cost=1.0)
    assert max(server.prompts.values()) <= 2
    del settings["prices"]["test"]
    with pytest.raises(ValueError, match="--max_cost needs the price of test .config.teachers.text."):
        made(tmp_path / "corpus", settings, max_cost=1.0)


def test_what_a_teacher_refuses_is_left_out_by_name(tmp_path, server):
    settings = settings_of(server)
    made(tmp_path / "corpus", settings, until="image_prompts")
    server.faults.append(lambda _: gemini(None, "IMAGE_SAFETY"))
    made(tmp_path / "corpus", settings, until="images")
    notes = (tmp_path / "corpus" / "stages" / "07-images.left_out.txt").read_text()
    assert re.fullmatch(r"\S+/(train|synthetic)-\d{3}: blocked answer \(IMAGE_SAFETY\)\n", notes)


def test_settings_that_cannot_be_are_all_told(tmp_path):
    settings = corpus_config(
        teachers={"text": {"kind": "vertex", "model": "m"}, "judge": {"kind": "vertex", "model": "m"}},
        facts={"each": 0},
        questions={"steps": 1.5},
        languages=("English!",),
        image_prompts={"views": ()},
    ).to_dict()
    with pytest.raises(ValueError) as caught:
        made(tmp_path / "corpus", settings)
    for line in (
        "config.subject is not set",
        "config.topics.domains is empty",
        "config.languages names 'English!'",
        "config.facts.each is 0; wanted at least 1",
        "config.questions.steps is 1.5; wanted a share",
        "config.image_prompts.views is empty",
        "config.teachers.image is not set",
        "config.teachers.judge is the teacher whose answers it judges",
    ):
        assert line in str(caught.value)
    assert not (tmp_path / "corpus").exists()
    with pytest.raises(ValueError, match="config.fact: no such setting"):
        corpus_config(fact={"each": 3})


def test_a_folder_with_other_files_and_one_in_use_are_refused(tmp_path, server):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds files that are not a corpus's"):
        made(tmp_path, settings_of(server))


def test_a_server_that_fails_leaves_the_corpus_to_be_gone_on_with(tmp_path, server, monkeypatch):
    from data_pipeline.teachers import sending

    monkeypatch.setattr(sending, "LONGEST_WAIT", 0.01)
    server.faults.extend([None] * 9 + [error(500)] * 8)
    with pytest.raises(ValueError, match=r"got no answer from \S+ .*the same command asks them again"):
        made(tmp_path / "corpus", settings_of(server, teachers=_one_at_a_time(server)))
    assert made(tmp_path / "corpus", settings_of(server, teachers=_one_at_a_time(server)))


def _one_at_a_time(server):
    teachers = settings_of(server)["teachers"]
    return {name: {**teacher, "at_once": 1} for name, teacher in teachers.items() if teacher}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"languages": "en"}, "config.languages is 'en'; wanted texts, as ('one', 'two')"),
        ({"topics": {"domains": (1, 2)}}, "config.topics.domains is (1, 2); wanted texts"),
        ({"topics": 3}, "config.topics is 3; wanted a mapping of settings"),
        ({"held_out": {"images": True}}, "config.held_out.images is True; wanted as 1"),
        ({"negatives": "many"}, "config.negatives is 'many'; wanted as 0.0"),
        ({"teachers": {"text": "drawn"}}, "config.teachers.text is 'drawn'; wanted a mapping of settings"),
        ({"filters": {"judged": True}}, "config.filters.judged is on and asks config.teachers.judge"),
        ({"filters": {"schema": {"required": ("imgae",)}}}, "did you mean 'image'?"),
        ({"prices": {"date": 3}}, "config.prices.date is not set"),
        ({"runner": "procesess"}, "config.runner is 'procesess'; did you mean 'processes'?"),
        ({"shards": -1}, "config.shards is -1"),
        (
            {
                "teachers": {
                    "text": {"kind": "openai_compatible", "model": "m", "endpoint": "http://h", "extra": {"seed": 1}}
                }
            },
            "config.teachers.text.extra has 'seed', which is the setting seed; leave it out",
        ),
    ],
)
def test_settings_of_another_type_are_refused_by_name(changes, line):
    teachers = {"text": DRAWN, "image": DRAWN}
    with pytest.raises(InputError) as error:
        check(
            corpus_config(
                **{"subject": "x", "topics": {"domains": ("potters",)}, "teachers": teachers, **changes}
            ).to_dict()
        )
    assert line in str(error.value)
