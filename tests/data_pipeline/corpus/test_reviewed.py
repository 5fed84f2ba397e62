"""What people said of a corpus is in it when it is made again: rejected ones are gone, edited ones are as edited."""

import json

import pytest

from data_pipeline import sources
from data_pipeline.corpus import generating
from data_pipeline.corpus.generating import Options
from data_pipeline.corpus.settings import corpus_config
from data_pipeline.records import images_of
from data_pipeline.review import log
from data_pipeline.review import session as reviewing
from data_pipeline.review.corpus import read_items
from data_pipeline.review.summary import review_statistics

DRAWN = {"kind": "drawn", "seed": 0, "side": 56}
REVIEWERS = ("ann", "bob")


def _settings():
    return corpus_config(
        subject="crafts",
        topics={"domains": ("potters",), "each": 1},
        questions={"pairs_per_fact": 4, "steps": 0.25},
        held_out={"questions": 1},
        teachers={"text": DRAWN, "image": DRAWN},
    ).to_dict()


def _review(folder, items):
    """Two accept all but the second, which they edit, and at last reject the first. Returns κ as the page has it."""
    edit = {"question": "What is it, then?", "answer": "a new answer", "reasoning": None}
    with log.opened(folder) as opened:
        review = reviewing.Review(folder, read_items(folder), opened, reviewing.Options(shared=1.0))
        for reviewer in REVIEWERS:
            item = review.step(reviewer, "", "undecided")["item"]
            while item:
                action, more = ("edit", edit) if item["id"] == items[1].record.id else ("accept", {})
                sent = {"reviewer": reviewer, "action": action, "token": f"{reviewer} {item['id']}"}
                item = review.act({**sent, "key": item["key"], "content": item["content"], **more})["item"]
        for reviewer in REVIEWERS:
            item = review.step(reviewer, items[0].key, "here")["item"]
            sent = {"reviewer": reviewer, "action": "reject", "reason": "wrong_answer", "token": f"{reviewer} anew"}
            review.act({**sent, "key": item["key"], "content": item["content"]})
        return review.step("ann", items[0].key, "here")["progress"]["kappa"]


def _undone(folder):
    """(what both are told who undo their last decision, the progress before)."""
    with log.opened(folder) as opened:
        review = reviewing.Review(folder, read_items(folder), opened, reviewing.Options(shared=1.0))
        progress = review.step("ann", "", "here")["progress"]
        undo = [{"reviewer": reviewer, "action": "undo", "token": f"{reviewer} undo"} for reviewer in REVIEWERS]
        return [review.act(sent)["words"] for sent in undo], progress


def test_a_corpus_that_is_made_again_follows_its_reviewers(tmp_path):
    folder = tmp_path / "corpus"
    generating.generate(folder, _settings(), Options(), say=lambda text: None)
    items = sorted(read_items(folder), key=lambda item: item.record.id)
    kappa = _review(folder, items)
    reviewed = review_statistics(folder)
    line = generating.generate(folder, _settings(), Options(), say=lambda text: None)
    assert "4 in synthetic.jsonl, 20 in train.jsonl" in line
    after = {item.record.id: item.record for item in read_items(folder)}
    assert items[0].record.id not in after and len(after) == len(items) - 1
    edited = after[items[1].record.id]
    assert edited.messages[0]["content"][1]["text"].startswith("What is it, then?")
    assert edited.messages[1]["content"].endswith("a new answer")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["review"]["verdicts"] == {"accepted": 23, "edited": 1, "rejected": 1, "unresolved": 0}
    assert manifest["review"]["kappa"] == 1.0 and manifest["review"]["reviewers"] == 2
    card = (folder / "README.md").read_text()
    assert "25 of 25 questions were looked at by 2 people" in card and "Nobody has reviewed" not in card
    # The figures are those of before, though what was rejected is gone.
    assert manifest["review"]["left_out"] == {"flagged": [], "unflagged": [items[0].record.id]}
    found = review_statistics(folder)
    assert found.pop("left_out") == [items[0].record.id] and reviewed.pop("left_out") == []
    assert found["acceptance"] == manifest["review"]["acceptance"]
    assert "of records that no filter doubts: 23 of 25, 92.0% (75.0% – 97.8%)" in card
    assert found == reviewed and found["records"] == 25 and found["acceptance"]["all"]["accepted"] == 23
    # Once more is as once: the log still says the same.
    before = (folder / "train.jsonl").read_bytes()
    generating.generate(folder, _settings(), Options(), say=lambda text: None)
    assert (folder / "train.jsonl").read_bytes() == before
    assert json.loads((folder / "manifest.json").read_text()) == manifest
    # What was rejected last is what is undone, though it is gone; the next build has it again.
    words, progress = _undone(folder)
    assert progress["kappa"] == kappa == 1.0
    assert all(one.startswith(f"Undone: your decision on {items[0].record.id}, which is left out") for one in words)
    assert "rejected still" in words[0] and words[1].endswith("the next build has it again.")
    generating.generate(folder, _settings(), Options(), say=lambda text: None)
    assert {item.record.id for item in read_items(folder)} == {item.record.id for item in items}
    assert review_statistics(folder)["verdicts"] == {"accepted": 24, "edited": 1, "rejected": 0, "unresolved": 0}


def test_a_corpus_is_read_by_the_name_of_its_folder(tmp_path):
    folder = tmp_path / "corpus"
    generating.generate(folder, _settings(), Options(), say=lambda text: None)
    for name, count in ((str(folder), 20), (f"{folder}#train", 20), (f"{folder}#synthetic", 5)):
        opened = sources.open_source(name)
        assert len(opened) == count and images_of(opened[0])[0].startswith(f"{folder}/images/")
    with pytest.raises(ValueError, match="the corpus has no split 'val'; the splits are synthetic, train"):
        sources.open_source(f"{folder}#val")
    (folder / "manifest.json").unlink()
    with pytest.raises(ValueError, match="is a corpus that is not finished"):
        sources.open_source(str(folder))
