"""What actions come to: reviewers combined, records that changed, figures of the whole."""

import dataclasses
import json

import pytest

from data_pipeline.records import write_records
from data_pipeline.review.content import Texts, content_key, texts_of, with_texts
from data_pipeline.review.corpus import read_items
from data_pipeline.review.decisions import decisions_of, read_decisions
from data_pipeline.review.log import LOG, Entry
from data_pipeline.review.summary import lines, review_statistics, summarise
from tests.review_corpus import make_corpus
from vlm_jax.errors import InputError

ONE, TWO = Texts("q", "one", None), Texts("q", "two", None)


def did(reviewer, action, identifier="a", content="k", **more):
    return Entry("2026-11-29T10:00:00+00:00", reviewer, action, identifier, content, **more)


def edit(reviewer, texts, identifier="a", content="k"):
    return did(reviewer, "edit", identifier, content, edited_content=f"k {texts.answer}", **texts._asdict())


def decided(*entries):
    return decisions_of(list(entries)).get("a")


def test_of_a_reviewer_the_last_action_stands_after_undoing():
    assert decided(did("ann", "accept"), did("ann", "reject", reason="unclear_question")).verdict == "rejected"
    assert decided(did("ann", "accept"), did("ann", "reject"), did("ann", "undo")).verdict == "accepted"
    assert decided(did("ann", "accept"), did("ann", "undo")) is None


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("first", "second", "verdict", "texts"),
    [
        (did("ann", "accept"), did("ben", "accept"), "accepted", None),
        (did("ann", "accept"), did("ben", "reject", reason="bad_image"), "rejected", None),
        (edit("ann", ONE), did("ben", "reject", reason="bad_image"), "rejected", None),
        (edit("ann", ONE), did("ben", "accept"), "edited", ONE),
        (edit("ann", ONE), edit("ben", ONE), "edited", ONE),
        (edit("ann", ONE), edit("ben", TWO), "unresolved", None),
    ],
)
def test_two_reviewers_are_combined_whoever_came_first(first, second, verdict, texts, turned):
    decision = decided(second, first) if turned else decided(first, second)
    assert (decision.verdict, decision.texts) == (verdict, texts)
    assert set(decision.by_reviewer) == {"ann", "ben"}


def test_all_reasons_of_a_rejection_are_kept():
    first = did("ann", "reject", reason="other", note="blurred")
    assert decided(first, did("ben", "reject", reason="bad_image")).reasons == (("other", "blurred"), ("bad_image", ""))


def test_differing_edits_are_resolved_by_agreeing_or_by_a_rejection():
    assert decided(edit("ann", ONE), edit("ben", TWO), edit("ann", TWO)).texts == TWO
    assert decided(edit("ann", ONE), edit("ben", TWO), did("cho", "reject")).verdict == "rejected"


def test_actions_on_another_content_no_longer_count_but_those_on_what_an_edit_made_do():
    assert decided(did("ann", "reject"), did("ben", "accept", content="new")).verdict == "accepted"
    # The build applied the edit, and the record was accepted as it is now: still that edit.
    decision = decided(edit("ann", ONE), did("ben", "accept", content="k one"))
    assert (decision.verdict, decision.texts, decision.contents) == ("edited", ONE, {"k", "k one"})
    decision = decided(edit("ann", ONE), did("ann", "accept", content="k one"))  # her last action is an edit, too
    assert (decision.verdict, decision.texts) == ("edited", ONE)
    assert decided(edit("ann", ONE), did("ann", "reject", content="k one")).verdict == "rejected"
    decision = decided(edit("ann", ONE), edit("ann", TWO, content="k one"))
    assert decision.texts == TWO and decision.contents == {"k", "k one", "k two"}


@pytest.fixture
def corpus(tmp_path):
    return make_corpus(tmp_path / "corpus")


def write_log(corpus, entries, end="\n"):
    texts = [json.dumps(dataclasses.asdict(entry), ensure_ascii=False) for entry in entries]
    (corpus / LOG).write_text("\n".join(texts) + end, "utf-8")


def test_a_build_reads_decisions_and_follows_those_about_what_is_there(corpus):
    assert read_decisions(corpus) == {}
    records = {item.record.id: item.record for item in read_items(corpus)}
    texts = texts_of(records["talumo-2"])._replace(answer="a potter")
    made = content_key(with_texts(records["talumo-2"], texts))
    keys = {name: content_key(record) for name, record in records.items()}
    entries = [
        did("ann", "edit", "talumo-2", keys["talumo-2"], edited_content=made, **texts._asdict()),
        did("ann", "reject", "talumo-1", keys["talumo-1"], reason="wrong_answer"),
        did("ann", "accept", "rocket", "of another time"),
    ]
    write_log(corpus, entries, end="\n{")  # and what a crash left
    decisions = read_decisions(corpus)
    assert {name: one.verdict for name, one in decisions.items()} == {
        "talumo-2": "edited",
        "talumo-1": "rejected",
        "rocket": "accepted",
    }
    assert decisions["talumo-2"].is_about(records["talumo-2"]) and not decisions["rocket"].is_about(records["rocket"])
    edited = decisions["talumo-2"].applied_to(records["talumo-2"])
    assert edited.messages[-1]["content"].endswith("Answer: a potter") and edited.answers == ["a potter"]
    assert decisions["talumo-2"].is_about(edited) and decisions["talumo-2"].applied_to(edited) == edited


def test_figures_of_a_review_and_what_is_gone_or_changed(corpus):
    items = read_items(corpus)
    keys = {item.record.id: content_key(item.record) for item in items}
    cats = [f"cat-{number}" for number in range(4)]
    entries = [did("ann", "accept", name, keys[name]) for name in (*cats, "coffee/1", "markup")]
    entries += [did("ben", "accept", name, keys[name]) for name in cats[:3]]
    entries += [
        did("ben", "reject", "cat-3", keys["cat-3"], reason="bad_image"),
        did("ann", "reject", "talumo-1", keys["talumo-1"], reason="bad_image"),
        did("ann", "accept", "rocket", "of another time"),
        did("ann", "accept", "gone", "k"),
        did("ann", "reject", "left out", "k", reason="unsuitable"),
    ]
    found = summarise(items, entries, {})
    assert (found["records"], found["reviewed"]) == (len(items), 7)
    assert found["verdicts"] == {"accepted": 5, "rejected": 2, "edited": 0, "unresolved": 0}
    assert found["reasons"] == {"bad_image": 2} and found["reviewers"] == {"ann": 7, "ben": 4}
    assert [found["acceptance"][name]["rate"] for name in ("all", "flagged", "unflagged")] == [5 / 7, 1 / 2, 4 / 5]
    [pair] = found["agreement"]
    # Ann accepts all four, Ben three of them: κ is 0, however often they agree.
    assert pair["reviewers"] == ["ann", "ben"] and (pair["n"], pair["observed"], pair["kappa"]) == (4, 0.75, 0.0)
    assert found["kappa"] == 0.0
    assert (found["changed"], found["gone"], found["gone_rejected"]) == (["rocket"], ["gone"], ["left out"])
    write_log(corpus, entries)
    assert review_statistics(corpus) == {**found, "torn": ""}
    text = "\n".join(lines(found))
    assert "reviewed 7 of 10 records: 5 accepted, 2 rejected" in text and "Cohen's κ 0.00" in text
    assert "of records that no filter doubts: 4 of 5, 80.0% (37.6% – 96.4%)" in text
    assert "in no figure here, as its manifest does not name them: 1 (left out)" in text
    json.dumps(found)


def test_what_a_build_left_out_is_counted_as_what_it_was_until_it_is_rejected_no_more(corpus):
    items = read_items(corpus)
    keys = {item.record.id: content_key(item.record) for item in items}
    entries = [did("ann", "accept", name, keys[name]) for name in ("cat-0", "cat-1", "rocket", "coffee/1")]
    entries += [did("ann", "reject", name, keys[name], reason="bad_image") for name in ("cat-2", "talumo-1")]
    entries += [did("ben", action, name, keys[name]) for action, name in (("accept", "cat-0"), ("accept", "cat-2"))]
    before = summarise(items, entries, {})
    left = [item for item in items if item.record.id not in ("cat-2", "talumo-1")]
    after = summarise(left, entries, {"cat-2": False, "talumo-1": True})
    assert after.pop("left_out") == ["cat-2", "talumo-1"] and before.pop("left_out") == []
    assert after == before and after["acceptance"]["unflagged"]["rate"] == 3 / 4 and after["reviewed"] == 6
    undone = summarise(left, [*entries, did("ann", "undo", "cat-2")], {"cat-2": False, "talumo-1": True})
    assert (undone["left_out"], undone["coming_back"]) == (["talumo-1"], ["cat-2"])
    assert undone["verdicts"]["accepted"] == 5 and "the next build has them: 1 (cat-2)" in "\n".join(lines(undone))


@pytest.mark.parametrize("wrong", [3, {"flagged": "x"}, {"unflagged": [3]}])
def test_a_manifest_with_other_names_of_what_was_left_out_is_refused(corpus, wrong):
    (corpus / "manifest.json").write_text(json.dumps({"review": {"left_out": wrong}}))
    with pytest.raises(InputError, match="'left_out' of 'review'"):
        review_statistics(corpus)


def test_a_rebuilt_corpus_keeps_what_was_decided_about_records_that_stayed(corpus):
    items = {item.record.id: item for item in read_items(corpus)}
    record = items["talumo-2"].record
    texts = texts_of(record)._replace(answer="a potter")
    made = content_key(with_texts(record, texts))
    write_log(corpus, [did("ann", "edit", record.id, content_key(record), edited_content=made, **texts._asdict())])
    decisions = read_decisions(corpus)
    kept = [item.record for item in items.values() if item.split == "train"]
    write_records(corpus / "train.jsonl", [decisions[r.id].applied_to(r) if r.id in decisions else r for r in kept])
    found = review_statistics(corpus)
    assert found["verdicts"]["edited"] == 1 and not found["changed"] and not found["gone"]
