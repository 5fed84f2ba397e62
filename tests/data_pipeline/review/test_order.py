"""Which records are shown, in what order, and what a corpus must not name."""

import dataclasses
import json
import os
from collections import Counter

import pytest

from data_pipeline.records import Record, write_records
from data_pipeline.review.corpus import Item, read_items
from data_pipeline.review.order import ordered, shared_keys
from tests.review_corpus import make_corpus
from vlm_jax.errors import InputError


def items(counts, doubtful=0):
    made = []
    for (topic, language), count in counts.items():
        for number in range(count):
            record = Record(f"{topic}-{language}-{number}", [{"role": "user", "content": "?"}], task="t")
            flags = ("x",) if number < doubtful else ()
            made.append(Item(f"k{len(made)}", record, "train", flags, "", topic, language))
    return made


COUNTS = {("big", "en"): 600, ("big", "th"): 300, ("small", "en"): 100, ("rare", "en"): 1}


def topics(shown):
    return Counter((item.topic, item.language) for item in shown)


def test_doubtful_records_come_first_and_all_of_them():
    everything = items(COUNTS, doubtful=3)
    shown = ordered(everything, sample=20, seed=0, blind=False)
    assert len(shown) == 10 + 20
    assert [bool(item.flags) for item in shown] == [True] * 10 + [False] * 20
    assert len(ordered(everything, sample=0, seed=0, blind=False)) == len(everything)


@pytest.mark.parametrize("sample", [10, 50, 100, 500])
def test_every_beginning_of_the_sample_has_the_corpus_shares(sample):
    found = topics(ordered(items(COUNTS), sample=sample, seed=3, blind=False))
    for stratum, count in COUNTS.items():
        assert abs(found[stratum] - sample * count / 1001) <= 1.0, stratum


def test_order_follows_from_ids_and_seed_alone_and_a_smaller_sample_begins_a_larger_one():
    everything = items(COUNTS, doubtful=2)
    ids = lambda shown: [item.record.id for item in shown]  # noqa: E731
    shown = ids(ordered(everything, sample=100, seed=0, blind=False))
    assert ids(ordered(everything[::-1], sample=100, seed=0, blind=False)) == shown
    assert ids(ordered(everything, sample=200, seed=0, blind=False))[: len(shown)] == shown
    assert ids(ordered(everything, sample=100, seed=1, blind=False)) != shown


def test_a_blind_review_has_the_same_records_in_an_order_that_tells_nothing():
    everything = items({("a", "en"): 400}, doubtful=100)
    seen, blind = (ordered(everything, sample=100, seed=0, blind=blind) for blind in (False, True))
    assert {item.key for item in seen} == {item.key for item in blind} and len(blind) == 200
    first = sum(bool(item.flags) for item in blind[:100])
    assert 35 <= first <= 65  # half of them, give or take three standard deviations of 5


def test_every_record_is_as_likely_in_the_sample():
    everything = items({("a", "en"): 12, ("b", "en"): 4})
    times = Counter(item.key for seed in range(2000) for item in ordered(everything, sample=4, seed=seed, blind=False))
    assert all(abs(times[item.key] - 500) < 100 for item in everything)  # standard deviation 19


def test_the_share_for_two_reviewers_is_about_what_was_asked_and_the_same_each_time():
    everything = items(COUNTS)
    shared = shared_keys(everything, 0.2, 0)
    assert abs(len(shared) - 200) < 40 and shared == shared_keys(everything[::-1], 0.2, 0)
    assert not shared_keys(everything, 0.0, 0) and len(shared_keys(everything, 1.0, 0)) == len(everything)


def test_a_corpus_is_read_with_all_its_splits_and_what_filters_said(tmp_path):
    found = {item.record.id: item for item in read_items(make_corpus(tmp_path / "corpus"))}
    assert len(found) == 10 and found["rocket"].split == "test" and len({one.key for one in found.values()}) == 10
    assert found["talumo-1"].flags[0].startswith("2 of 5") and found["talumo-2"].flags == ()
    assert found["talumo-th"].stratum == ("Objects of Orvane", "maker", "th")
    assert found["cat-1"].stratum == ("Cats", "name", "") and found["talumo-1"].fact.startswith("A talumo")


def bad(tmp_path, image="images/chelsea.jpg", **provenance):
    corpus = make_corpus(tmp_path / "corpus")
    content = [{"type": "image", "image": image}, {"type": "text", "text": "?"}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "!"}]
    entry = {"id": "bad", "messages": messages, "provenance": provenance}
    (corpus / "more.jsonl").write_text(json.dumps(entry) + "\n")
    (corpus / "manifest.json").unlink()  # without one, all files are its splits
    return corpus


@pytest.mark.parametrize(
    "image", ["../secret.jpg", "images/../../secret.jpg", "/etc/passwd", "file:///etc/passwd", "images/../..//x"]
)
def test_an_image_outside_the_corpus_is_refused_when_read(tmp_path, image):
    with pytest.raises(InputError, match=r"more.jsonl.*'bad'.*is not in the corpus"):
        read_items(bad(tmp_path, image))


def test_a_link_out_of_the_corpus_is_refused_when_read_and_one_within_is_not(tmp_path):
    corpus = bad(tmp_path, "images/link.jpg")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (corpus / "images" / "link.jpg").symlink_to("chelsea.jpg")
    assert len(read_items(corpus)) == 11
    (corpus / "images" / "link.jpg").unlink()
    (corpus / "images" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(InputError, match="is a link out of the corpus"):
        read_items(corpus)


def test_an_image_that_is_a_named_pipe_is_refused_when_read(tmp_path):
    corpus = bad(tmp_path, "images/pipe.jpg")
    os.mkfifo(corpus / "images" / "pipe.jpg")
    with pytest.raises(InputError, match=r"images/pipe.jpg' is a folder, a pipe or a device"):
        read_items(corpus)


def test_a_linked_folder_that_leads_out_is_refused_as_well(tmp_path):
    corpus = bad(tmp_path, "images/deep/secret.jpg")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (corpus / "images" / "deep").symlink_to(tmp_path)
    with pytest.raises(InputError, match="is a link out of the corpus"):
        read_items(corpus)


def test_all_errors_of_a_corpus_are_told_together(tmp_path):
    corpus = bad(tmp_path, "../x.jpg", flags="doubtful", fact=3)
    twice = read_items(make_corpus(tmp_path / "other"))[0].record
    write_records(corpus / "twice.jsonl", [dataclasses.replace(twice, messages=[{"role": "user", "content": "?"}])])
    with pytest.raises(InputError) as caught:
        read_items(corpus)
    reasons = ["is already that of", "is not in the corpus", "'flags' of 'provenance'", "'fact' of 'provenance'"]
    assert len(caught.value.lines) == 4
    for reason in reasons:
        assert sum(reason in line for line in caught.value.lines) == 1, reason


def test_the_manifest_says_which_files_are_splits_and_names_no_other_place(tmp_path):
    corpus = make_corpus(tmp_path / "corpus")
    (corpus / "left_out.jsonl").write_text("no record\n")
    assert len(read_items(corpus)) == 10
    for splits in (["train"], {"../train": 1}, {"/train": 1}):
        (corpus / "manifest.json").write_text(json.dumps({"splits": splits}))
        with pytest.raises(InputError, match="'splits' must be an object"):
            read_items(corpus)
    (corpus / "manifest.json").write_text('{"splits": {"none": 1}}')
    with pytest.raises(InputError, match=r"none\.jsonl"):
        read_items(corpus)


@pytest.mark.parametrize(("name", "reason"), [("nowhere", "is not a folder"), ("empty", "holds no records")])
def test_what_is_no_corpus_is_one_line(tmp_path, name, reason):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=reason) as caught:
        read_items(tmp_path / name)
    assert len(caught.value.lines) == 1
    with pytest.raises(InputError, match="is in a store"):
        read_items("gs://bucket/corpus")
