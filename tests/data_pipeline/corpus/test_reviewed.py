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


def test_a_corpus_that_is_made_again_follows_its_reviewers(tmp_path):
    folder = tmp_path / "corpus"
    generating.generate(folder, _settings(), Options(), say=lambda text: None)
    items = sorted(read_items(folder), key=lambda item: item.record.id)
    actions = {
        items[0].record.id: ("reject", {"reason": "wrong_answer", "note": ""}),
        items[1].record.id: ("edit", {"question": "What is it, then?", "answer": "a new answer"}),
    }
    with log.opened(folder) as opened:
        review = reviewing.Review(folder, read_items(folder), opened, reviewing.Options(shared=1.0))
        for reviewer in REVIEWERS:
            item = review.step(reviewer, "", "undecided")["item"]
            while item:
                action, more = actions.get(item["id"], ("accept", {}))
                if action == "edit":
                    more = {**more, "reasoning": item.get("reasoning")}
                sent = {"reviewer": reviewer, "action": action, "token": f"{reviewer} {item['id']}"}
                item = review.act({**sent, "key": item["key"], "content": item["content"], **more})["item"]
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
    # Once more is as once: the log still says the same.
    before = (folder / "train.jsonl").read_bytes()
    generating.generate(folder, _settings(), Options(), say=lambda text: None)
    assert (folder / "train.jsonl").read_bytes() == before
    assert json.loads((folder / "manifest.json").read_text()) == manifest


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
