"""Faults that the built-in teacher makes on purpose: each is found by the stage that is for it, and by no accident."""

import json

import pytest

from data_pipeline.corpus import generating
from data_pipeline.corpus.drawn.faults import FAULTS
from data_pipeline.corpus.generating import Options
from data_pipeline.corpus.settings import check, corpus_config
from vlm_jax import InputError

SHARE = 0.4


def settings_of(faults, *, judge=True, **filters):
    drawn = {"kind": "drawn", "seed": 0, "side": 56}
    teacher = {**drawn, "faults": faults}
    own = {
        name: {"on": name in filters} for name in ("judged", "near_image", "language", "chain_of_thought", "consistent")
    }
    return corpus_config(
        subject="crafts",
        languages=("en", "th"),
        topics={"domains": ("potters", "smiths"), "each": 2},
        image_prompts={"each": 6},
        questions={"pairs_per_fact": 12, "steps": 0.25},
        held_out={"questions": 2},
        # Without the form of a question, which half of those in another language have not.
        filters={**own, "near_duplicate": {"on": False}, "schema": {"on": False}},
        teachers={"text": teacher, "image": teacher, **({"judge": drawn} if judge else {})},
        own_judge=True,
    ).to_dict()


def made(folder, settings, **options):
    generating.generate(folder, settings, Options(**options), say=lambda text: None)
    manifest = json.loads((folder / "manifest.json").read_text())
    records = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    return {one["filter"]: one for one in manifest["filters"]}, manifest["stages"], records


def test_wrong_facts_are_not_supported(tmp_path):
    _, stages, _ = made(tmp_path, settings_of({"facts": SHARE}))
    assert stages["facts"]["items"] == 20 and 4 <= stages["support"]["left_out"] <= 12
    notes = (tmp_path / "stages" / "05-support.left_out.txt").read_text().splitlines()
    assert len(notes) == stages["support"]["left_out"] and all("the catalogue says otherwise" in one for one in notes)
    # Without the stage none of them is left out, and nothing of it stays in the folder.
    settings = settings_of({"facts": SHARE})
    settings["facts"]["checked"] = False
    _, stages, kept = made(tmp_path, settings, restart_from="support")
    assert "support" not in stages and len(kept) == 240 and not list((tmp_path / "stages").glob("*support*"))
    assert "Facts were not checked by another model" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    ("fault", "stage", "kind"),
    [
        ("questions", "judged", "asks for something else"),
        ("images", "judged", "shows another thing"),
        ("images", "consistent", ""),
        ("language", "language", ""),
        ("steps", "chain_of_thought", "two answers"),
        ("repeated_images", "near_image", ""),
    ],
)
def test_a_fault_is_left_out_by_its_stage_and_by_no_other(tmp_path, fault, stage, kind):
    # A wrong image is seen by the judge, and by whoever is asked the question again.
    every = ("consistent" if stage == "consistent" else "judged", "near_image", "language", "chain_of_thought")
    share = 2 * SHARE if fault == "repeated_images" else SHARE  # the first of them stays
    filters, _, kept = made(tmp_path / "all", settings_of({fault: share}, **dict.fromkeys(every)))
    count = filters[stage]["dropped"]
    asked = 4 * 5 * 3 if fault == "steps" else 4 * 5 * 12  # a quarter of the questions have steps
    assert 0.2 * asked < count < 0.6 * asked
    others = {name for name in every if name != stage and filters[name]["dropped"]}
    assert others == set(), filters
    assert len(kept) == 240 - count
    left_out = (tmp_path / "all" / "stages" / "10-quality.left_out.jsonl").read_text()
    assert kind in left_out
    without = [name for name in every if name != stage]
    filters, _, kept = made(tmp_path / "without", settings_of({fault: share}, **dict.fromkeys(without)))
    assert sum(filters[name]["dropped"] for name in without) == 0 and len(kept) == 240


def test_without_faults_nothing_is_left_out_and_with_them_what_is_held_out_is_right(tmp_path):
    every = dict.fromkeys(("judged", "near_image", "language", "chain_of_thought"))
    filters, stages, kept = made(tmp_path / "none", settings_of({}, **every))
    assert len(kept) == 240 and not any(one["dropped"] for one in filters.values()) and stages["facts"]["items"] == 20
    shares = dict.fromkeys([name for name in FAULTS if name != "facts"], 1.0)
    made(tmp_path / "all", settings_of(shares))
    assert (tmp_path / "all" / "train.jsonl").read_bytes() != (tmp_path / "none" / "train.jsonl").read_bytes()
    held_out = [
        [json.loads(line) for line in (tmp_path / name / "synthetic.jsonl").read_text().splitlines()]
        for name in ("all", "none")
    ]
    told = [[(one["id"], one["answers"]) for one in split] for split in held_out]
    assert told[0] == told[1] and len(told[0]) == 40


def test_faults_that_are_none_are_refused():
    settings = settings_of({"language": 1.5, "stepps": 0.1, "images": True})
    with pytest.raises(InputError) as error:
        check(settings)
    text = str(error.value)
    assert "no fault 'stepps'; did you mean 'steps'?" in text
    assert "config.teachers.text.faults.language is 1.5; wanted a share from 0 to 1" in text
    assert "config.teachers.image.faults.images is True" in text
