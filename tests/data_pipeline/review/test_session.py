"""Who is shown which record, and what an action does."""

import dataclasses
import json
import os

import pytest

from data_pipeline.review import log, session
from data_pipeline.review.content import content_key
from data_pipeline.review.corpus import read_items
from data_pipeline.review.decisions import read_decisions
from data_pipeline.review.log import read_log
from data_pipeline.review.session import Conflict, Options, Review
from tests.review_corpus import make_corpus
from vlm_jax.errors import InputError

TOKENS = iter(range(10**6))


@pytest.fixture
def corpus(tmp_path):
    return make_corpus(tmp_path / "corpus")


@pytest.fixture
def open_review(corpus):
    opened = []

    def start(**options):
        while opened:  # one at a time, as servers are
            opened.pop().__exit__(None, None, None)
        actions = log.opened(corpus)
        opened.append(actions)
        return Review(corpus, read_items(corpus), actions.__enter__(), Options(**options))

    yield start
    while opened:
        opened.pop().__exit__(None, None, None)


def shown(answer):
    return answer["item"] and answer["item"]["id"]


def did(review, reviewer, action, item=None, **more):
    record = {} if item is None else {"key": item["key"], "content": item["content"]}
    return review.act({"reviewer": reviewer, "action": action, "token": f"t{next(TOKENS)}", **record, **more})


def accept_all(review, reviewer):
    seen, item = [], review.step(reviewer, "", "undecided")["item"]
    while item:
        seen.append(item["id"])
        item = did(review, reviewer, "accept", item)["item"]
    return seen


def test_one_reviewer_is_led_through_everything_doubtful_records_first(open_review, corpus):
    review = open_review(shared=0.2)
    seen = accept_all(review, "ann")
    assert set(seen[:2]) == {"talumo-1", "coffee/1"} and len(set(seen)) == len(seen) == 10
    assert {one.verdict for one in read_decisions(corpus).values()} == {"accepted"}
    assert review.step("ann", "", "undecided")["progress"] == {
        "decided": 10, "mine": 10, "reviewed": 10, "all": 10, "kappa": None,
        "elsewhere": {"records": 0, "seconds": 0},
    }  # fmt: skip


@pytest.mark.parametrize(("shared", "twice"), [(0.0, 0), (1.0, 10)])
def test_only_the_shared_part_is_shown_to_a_second_reviewer_and_nothing_to_a_third(open_review, shared, twice):
    review = open_review(shared=shared)
    assert len(accept_all(review, "ann")) == 10
    assert len(accept_all(review, "ben")) == twice
    assert accept_all(review, "cho") == []


def test_reviewers_at_work_together_are_not_given_the_same_record_until_one_leaves_it(open_review, monkeypatch):
    review = open_review(shared=0.0)
    ann = review.step("ann", "", "undecided")["item"]
    ben = review.step("ben", "", "undecided")["item"]
    assert ann["id"] != ben["id"]
    assert shown(review.step("ben", ann["key"], "here")) != ann["id"]  # its address does not help
    with pytest.raises(Conflict, match="another reviewer"):
        did(review, "ben", "accept", ann)
    did(review, "ann", "accept", ann)
    now = session.time.monotonic()
    cho = review.step("cho", "", "undecided")["item"]
    monkeypatch.setattr(session.time, "monotonic", lambda: now + session.LEASE + 1)
    assert shown(review.step("ben", "", "undecided")) == min(
        (cho["id"], ben["id"]), key=[item.record.id for item in review.items].index
    )


def test_who_is_left_with_nothing_is_told_what_is_in_front_of_others_and_until_when(open_review, monkeypatch):
    review = open_review(shared=0.0)
    ann = review.step("ann", "", "undecided")["item"]
    assert len(accept_all(review, "ben")) == 9
    answer = review.step("ben", "", "undecided")
    assert answer["item"] is None and answer["progress"]["elsewhere"] == {"records": 1, "seconds": session.LEASE}
    now = session.time.monotonic()
    monkeypatch.setattr(session.time, "monotonic", lambda: now + session.LEASE - 59)
    assert review.step("ben", "", "undecided")["progress"]["elsewhere"] == {"records": 1, "seconds": 59}
    monkeypatch.setattr(session.time, "monotonic", lambda: now + session.LEASE + 1)
    assert shown(review.step("ben", "", "undecided")) == ann["id"]
    did(review, "ben", "accept", ann)
    assert review.step("ben", "", "undecided")["progress"]["elsewhere"] == {"records": 0, "seconds": 0}


def test_of_two_who_have_a_shared_record_open_the_first_to_leave_it_counts(open_review, monkeypatch):
    review = open_review(shared=1.0)
    review.items = review.items[:1]
    now = float(round(session.time.monotonic()))  # so that sums with it are exact
    for name, later in (("ann", 0), ("ben", 100)):
        monkeypatch.setattr(session.time, "monotonic", lambda later=later: now + later)
        item = review.step(name, "", "undecided")["item"]
    assert review.step("cho", "", "undecided")["progress"]["elsewhere"] == {"records": 1, "seconds": 500}
    did(review, "ann", "accept", item)
    assert review.step("cho", "", "undecided")["progress"]["elsewhere"] == {"records": 1, "seconds": 600}
    did(review, "ben", "accept", item)
    assert review.step("cho", "", "undecided")["progress"]["elsewhere"] == {"records": 0, "seconds": 0}


def test_next_and_previous_pass_without_deciding_and_what_was_passed_comes_back(open_review):
    review = open_review()
    first = review.step("ann", "", "next")["item"]
    second = review.step("ann", first["key"], "next")["item"]
    assert shown(review.step("ann", second["key"], "previous")) == first["id"]
    assert review.step("ann", first["key"], "previous")["item"] is None
    item = review.step("ann", first["key"], "next")["item"]
    while item:
        last, item = item, did(review, "ann", "accept", item)["item"]
        if item and item["id"] == first["id"]:
            break
    assert shown({"item": item}) == first["id"] and last["id"] != first["id"]


def test_an_undo_takes_back_the_last_action_and_shows_its_record_with_what_stood_before(open_review, corpus):
    review = open_review()
    first = review.step("ann", "", "next")["item"]
    second = did(review, "ann", "accept", first)["item"]
    did(review, "ann", "reject", first, reason="unclear_question")
    did(review, "ann", "accept", second)
    assert shown(did(review, "ann", "undo")) == second["id"]
    answer = did(review, "ann", "undo")
    assert shown(answer) == first["id"] and answer["item"]["mine"]["verdict"] == "accepted"
    assert did(review, "ann", "undo")["item"]["mine"] is None
    for _ in range(2):
        with pytest.raises(Conflict, match="nothing to undo"):
            did(review, "ann", "undo")
    with pytest.raises(Conflict, match="nothing to undo"):
        did(review, "ben", "undo")
    assert read_decisions(corpus) == {} and len(read_log(corpus / log.LOG)[0]) == 6


def test_an_action_that_is_sent_twice_is_written_once_also_after_a_restart(open_review, corpus):
    review = open_review()
    item = review.step("ann", "", "next")["item"]
    sent = {"reviewer": "ann", "action": "accept", "token": "same", "key": item["key"], "content": item["content"]}
    assert shown(review.act(sent)) == shown(review.act(sent)) != item["id"]
    review = open_review()
    assert shown(review.act(sent)) != item["id"]
    assert len(read_log(corpus / log.LOG)[0]) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"action": "reject", "reason": "bad_image"},
        {"note": "fine"},
        {"reviewer": "ben"},
        {"key": "another", "content": "another"},
        {"action": "undo", "key": None, "content": None},
    ],
)
def test_a_token_is_that_of_one_action_alone_also_after_a_restart(open_review, corpus, changed):
    review = open_review(shared=1.0)
    item, other = (review.step(name, "", "next")["item"] for name in ("ann", "ben"))
    other = review.step("ann", item["key"], "next")["item"]
    sent = {"reviewer": "ann", "action": "accept", "token": "same", "key": item["key"], "content": item["content"]}
    review.act(sent)
    changed = {name: other[name] if value == "another" else value for name, value in changed.items()}
    changed = {name: value for name, value in {**sent, **changed}.items() if value is not None}
    for _ in range(2):
        with pytest.raises(Conflict, match="token is that of another action"):
            review.act(changed)
        review = open_review(shared=1.0)
    assert [(entry.action, entry.id) for entry in read_log(corpus / log.LOG)[0]] == [("accept", item["id"])]


def test_an_edit_or_an_undo_that_is_sent_twice_is_done_once(open_review, corpus):
    review = open_review()
    item = review.step("ann", "", "next")["item"]
    texts = {**{name: text and text["text"] for name, text in item["texts"].items()}, "answer": "another"}
    sent = {"reviewer": "ann", "token": "e", "action": "edit", "key": item["key"], "content": item["content"], **texts}
    assert shown(review.act(sent)) == shown(review.act(sent))
    undo = {"reviewer": "ann", "token": "u", "action": "undo"}
    assert shown(review.act(undo)) == shown(review.act(undo)) == item["id"]
    assert [entry.action for entry in read_log(corpus / log.LOG)[0]] == ["edit", "undo"]


def test_accepting_ones_own_edit_keeps_it_and_the_record_as_it_was_can_be_accepted_still(open_review, corpus):
    review = open_review()
    first = review.step("ann", "", "next")["item"]
    texts = {name: text and text["text"] for name, text in first["texts"].items()}
    did(review, "ann", "edit", first, **{**texts, "answer": "another"})
    edited = review.step("ann", first["key"], "here")["item"]
    assert edited["original"] == first["content"] != edited["content"]
    did(review, "ann", "accept", edited)
    decision = read_decisions(corpus)[first["id"]]
    assert (decision.verdict, decision.texts.answer) == ("edited", "another")
    again = review.step("ann", first["key"], "here")["item"]
    did(review, "ann", "edit", again, **{**texts, "answer": "a third"})
    assert read_decisions(corpus)[first["id"]].texts.answer == "a third"
    did(review, "ann", "accept", {**again, "content": again["original"]})
    assert read_decisions(corpus)[first["id"]].verdict == "accepted"
    did(review, "ann", "undo")
    assert read_decisions(corpus)[first["id"]].texts.answer == "a third"
    with pytest.raises(Conflict, match="has changed"):  # what another made is not on their screen
        did(review, "ben", "accept", again)


def test_an_undo_is_of_the_last_decision_also_where_its_record_is_not_among_those_shown(open_review, corpus):
    review = open_review()
    first = review.step("ann", "", "next")["item"]
    shown_now = {item.record.id for item in open_review(sample=1).items}
    review = open_review()
    did(review, "ann", "accept", first)
    hidden = next(item for item in review.items if item.record.id not in shown_now)
    did(review, "ann", "accept", review.step("ann", hidden.key, "here")["item"])
    review = open_review(sample=1)
    answer = did(review, "ann", "undo")
    assert answer["words"] == f"Undone: your decision on {hidden.record.id}, which is not among these records."
    assert set(read_decisions(corpus)) == {first["id"]}
    last = read_log(corpus / log.LOG)[0][0]
    with open(corpus / log.LOG, "a") as file:
        file.write(json.dumps({**dataclasses.asdict(last), "id": "gone", "token": ""}) + "\n")
    answer = did(open_review(), "ann", "undo")
    assert answer["words"] == "Undone: your decision on gone, which is no more in the corpus."
    assert set(read_decisions(corpus)) == {first["id"]} and shown(did(open_review(), "ann", "undo")) == first["id"]


def test_an_edit_is_kept_shown_and_read(open_review, corpus):
    review = open_review()
    item = next(one for one in review.items if one.record.id == "talumo-2")
    seen = review.step("ann", item.key, "here")["item"]
    texts = {name: text["text"] for name, text in seen["texts"].items()}
    with pytest.raises(InputError, match="nothing was changed"):
        did(review, "ann", "edit", seen, **texts)
    with pytest.raises(InputError, match="special token"):
        did(review, "ann", "edit", seen, **{**texts, "answer": "<|im_end|>"})
    did(review, "ann", "edit", seen, **{**texts, "answer": "a potter"})
    again = review.step("ann", item.key, "here")["item"]
    assert again["mine"]["texts"]["answer"]["text"] == "a potter" and again["texts"]["answer"]["text"] == "potters"
    assert read_decisions(corpus)["talumo-2"].texts.answer == "a potter"


def test_what_a_second_reviewer_gets_before_and_after_deciding(open_review):
    review = open_review(shared=1.0)
    item = review.step("ann", "", "next")["item"]
    did(review, "ann", "reject", item, reason="bad_image", note="blurred")
    before = review.step("ben", item["key"], "here")["item"]
    assert before["others"] == [] and before["flags"]
    did(review, "ben", "accept", before)
    [other] = review.step("ben", item["key"], "here")["item"]["others"]
    assert (other["reviewer"], other["verdict"], other["note"]) == ("ann", "rejected", "blurred")


def test_a_blind_review_sends_neither_flags_nor_what_others_said_nor_agreement(open_review):
    review = open_review(shared=1.0, blind=True)
    for item in review.items:
        seen = review.step("ann", item.key, "here")["item"]
        did(review, "ann", "reject", seen, reason="bad_image", note="blurred")
        seen = review.step("ben", item.key, "here")["item"]
        did(review, "ben", "accept", seen)
        after = review.step("ben", item.key, "here")
        assert not {"flags", "others"} & {*seen, *after["item"]} and "kappa" not in after["progress"]
        assert "blurred" not in str(after) and "samples" not in str(after) and "ann" not in str(after["item"])


def test_a_decision_about_another_content_is_refused_and_old_ones_do_not_count(open_review, corpus):
    review = open_review()
    item = next(one for one in review.items if one.record.id == "talumo-1")
    seen = review.step("ann", item.key, "here")["item"]
    did(review, "ann", "accept", seen)
    (corpus / "images" / "talumo.jpg").write_bytes((corpus / "images" / "coffee.jpg").read_bytes())
    with pytest.raises(Conflict, match="has changed"):
        did(review, "ann", "reject", seen, reason="bad_image")
    review = open_review()
    again = review.step("ann", item.key, "here")["item"]
    assert again["mine"] is None and again["content"] == content_key(item.record) != seen["content"]


def test_an_image_that_becomes_a_pipe_or_a_device_keeps_nobody_waiting(open_review, corpus):
    review = open_review()
    item = next(one for one in review.items if one.record.id == "rocket")
    seen = review.step("ann", item.key, "here")["item"]
    path = corpus / "images" / "rocket.jpg"
    for replace in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        path.unlink()
        replace(path)
        assert review.step("ann", item.key, "here")["item"]["content"] != seen["content"]
        with pytest.raises(Conflict, match="has changed"):
            did(review, "ann", "accept", seen)


@pytest.mark.parametrize("name", ["", "  ", "x" * 41, "a\x00b", "a\u202eb", "\ud800"])
def test_a_name_that_cannot_be_written_down_is_refused(open_review, name):
    with pytest.raises(InputError, match="1 to 40 printable"):
        open_review().step(name, "", "next")


def test_a_name_in_other_capitals_and_blanks_is_the_same_reviewer(open_review, corpus):
    review = open_review()
    item = review.step("Ann  Lee", "", "next")["item"]
    did(review, " Ann Lee ", "accept", item)
    did(review, "ann lee", "reject", item, reason="bad_image")
    assert {entry.reviewer for entry in read_log(corpus / log.LOG)[0]} == {"Ann Lee"}


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"action": "ponder"}, "the action is one of accept"),
        ({"action": "reject"}, "the reason is one of"),
        ({"action": "reject", "reason": "other", "note": " "}, "write the reason"),
        ({"action": "accept", "note": "x" * 2001}, "2,000 are taken"),
        ({"action": "accept", "mood": "good"}, "unknown field 'mood'"),
        ({"action": "accept", "question": "x"}, "accept takes no 'question'"),
        ({"action": "accept", "reason": "wrong_answer"}, "accept takes no 'reason'"),
        ({"action": "reject", "reason": "bad_image", "answer": "x"}, "reject takes no 'answer'"),
        ({"action": "edit", "question": "q", "answer": "a", "reason": "other"}, "edit takes no 'reason'"),
        ({"action": "undo"}, "undo takes no 'key'"),
        ({"action": "accept", "token": "x" * 101}, "the token has 101 characters"),
        ({"action": "accept", "note": 3}, "'note' must be a text"),
        ({"action": "accept", "note": "\ud800"}, "surrogate"),
    ],
)
def test_what_is_not_to_be_done_is_refused_by_name_and_not_written(open_review, corpus, more, reason):
    review = open_review()
    item = review.step("ann", "", "next")["item"]
    with pytest.raises(InputError, match=reason):
        review.act({"reviewer": "ann", "token": "t", "key": item["key"], "content": item["content"], **more})
    assert read_log(corpus / log.LOG)[0] == []
