"""Splits by whole images: exact shares, the same in any order and place, and of the official files."""

import dataclasses
import hashlib
import os
import random

import pytest

from data_pipeline import sources
from data_pipeline.parity.splits import SPLITS, Splits, make, write
from data_pipeline.records import Record, images_of
from tests.data_pipeline import official_files
from vlm_jax.errors import InputError
from vlm_jax.evaluation.benchmarks import BENCHMARKS


def record(image, number=0, question=None, **fields):
    shown = [] if image is None else [{"type": "image", "image": image}]
    words = question or f"What is {number}?"
    messages = [{"role": "user", "content": [*shown, {"type": "text", "text": words}]}]
    return Record(f"{image if isinstance(image, str) else '-'}-{number}", messages, **fields)


def records_of(images, questions=2, root="/data/set"):
    return [record(f"{root}/{image:04d}.jpg", number) for image in range(images) for number in range(questions)]


def split(records, *, test=0.15, dev=0.15, one_question_an_image=False, seed=0, **settings):
    return make(records, test=test, dev=dev, one_question_an_image=one_question_an_image, seed=seed, **settings)


def images_in(splits):
    return {name: {images_of(one)[0] for one in records} for name, records in splits.named().items()}


def ids(splits):
    return {name: {one.id for one in records} for name, records in splits.named().items()}


def errors_of(call, *args, **settings):
    with pytest.raises(InputError) as caught:
        call(*args, **settings)
    assert all("\n" not in line for line in caught.value.lines)
    return caught.value.lines


@pytest.mark.parametrize(
    ("images", "test", "dev", "counts"),
    [
        (200, 0.15, 0.15, (144, 26, 30)),  # 85:15 twice: 0.15 of 170 is 25.5, and a half goes up
        (200, 0.0, 0.15, (170, 30, 0)),
        (7, 0.15, 0.15, (5, 1, 1)),
        (10, 0.0, 0.0, (10, 0, 0)),
    ],
)
def test_shares_are_exact_counts_of_whole_images(images, test, dev, counts):
    records = records_of(images)
    splits = split(records, test=test, dev=dev)
    found = images_in(splits)
    assert tuple(len(found[name]) for name in ("train", "dev", "test")) == counts
    assert set.union(*found.values()) == {images_of(one)[0] for one in records}
    for name, kept in splits.named().items():
        assert len(kept) == 2 * len(found[name]) and kept == [one for one in records if one.id in ids(splits)[name]]


def test_the_order_of_the_records_changes_nothing_but_the_order():
    records = records_of(60, 3)
    for one_question in (False, True):
        expected = split(records, one_question_an_image=one_question)
        shuffled = random.Random(1).sample(records, len(records))
        assert ids(split(shuffled, one_question_an_image=one_question)) == ids(expected)


def test_another_seed_gives_other_splits_and_another_dev_share_the_same_test():
    records = records_of(60)
    first = ids(split(records))
    assert ids(split(records, seed=1)) != first
    assert ids(split(records, dev=0.3))["test"] == first["test"]


def test_a_data_set_that_is_moved_has_the_same_splits():
    names = [f"{folder}/{file}" for folder in ("train/png", "val/png", "1") for file in ("a.png", "b.png", "c.png")]
    names += [f"train/png/{number}.png" for number in range(20)]
    found = []
    for root in ("/data/charts", "/elsewhere", "gs://bucket/x"):
        made = split([record(f"{root}/{name}") for name in names])
        found.append([[images_of(one)[0].removeprefix(f"{root}/") for one in part] for part in made.named().values()])
    assert found[0] == found[1] == found[2]


def test_images_that_differ_in_their_folders_alone_are_split_at_random_too():
    made = split([record(f"/data/{number:03d}/image.png") for number in range(100)], test=0.0, dev=0.5)
    dev = sorted(images_in(made)["dev"])
    assert len(dev) == 50 and dev != [f"/data/{number:03d}/image.png" for number in range(50)]
    assert 15 < sum(image < "/data/050" for image in dev) < 35


def test_an_image_named_in_two_ways_is_one_image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    absolute = records_of(20, 1, str(tmp_path / "images"))
    relative = [record(f"images/../images/{number:04d}.jpg", 1) for number in range(20)]
    content = [record(b"first", 0), record(b"first", 1), record(b"second", 2)]
    splits = split([*absolute, *relative, *content])
    found = images_in(splits)
    assert sum(map(len, found.values())) == 22
    assert all(os.path.isabs(image) for images in found.values() for image in images if isinstance(image, str))
    assert sum(map(len, splits.named().values())) == len(absolute) + len(relative) + len(content)


def test_one_question_an_image_is_of_the_train_split_alone_and_goes_by_the_words():
    records = records_of(40, 5)
    every, one = split(records), split(records, one_question_an_image=True)
    assert (every.dev, every.test) == (one.dev, one.test)
    assert images_in(every) == images_in(one) and len(one.train) == len(images_in(one)["train"])
    assert set(ids(one)["train"]) < set(ids(every)["train"])
    assert len({kept.id.rpartition("-")[2] for kept in one.train}) > 2  # not always the first, or the last
    renamed = [dataclasses.replace(kept, id=f"r{number}") for number, kept in enumerate(reversed(records))]
    words = [[kept.messages for kept in made.train] for made in (one, split(renamed, one_question_an_image=True))]
    assert words[0] == words[1][::-1]


def test_a_record_without_one_image_is_named_and_all_errors_come_together():
    two = record("/a.jpg", 1)
    two.messages[0]["content"].insert(0, {"type": "image", "image": "/b.jpg"})
    records = [
        record(None, 5),
        record(None, 6, where="q.json, entry 3 (id '6')"),
        two,
        record("/c.jpg"),
        record("/c.jpg"),
    ]
    assert errors_of(split, records, test=1.0, dev=float("nan")) == [
        "the share test is 1.0; it must be at least 0 and below 1",
        "the share dev is nan; it must be at least 0 and below 1",
        "record '--5': shows no image; what is split are questions about one image each",
        "q.json, entry 3 (id '6'): shows no image; what is split are questions about one image each",
        "record '/a.jpg-1': shows 2 images; what is split are questions about one image each",
        "the id '/c.jpg-0' is that of 2 records; give each its own",
    ]


@pytest.mark.parametrize(
    ("images", "shares", "line"),
    [
        (9, (0.5, 0.5), "the shares test 0.5 and dev 0.5 sum to 1; they must sum to less than 1"),
        (9, (-0.1, 0.5), "the share test is -0.1; it must be at least 0 and below 1"),
        (0, (0.1, 0.1), "there are no records to split"),
        (2, (0.1, 0.0), "test: a share of 0.1 of 2 images is none; give more images, or a larger share"),
        (3, (0.0, 0.1), "dev: a share of 0.1 of 3 images is none; give more images, or a larger share"),
        (1, (0.0, 0.9), "train: none of 1 image is left (test 0 and dev 1); give more images, or smaller shares"),
        (2, (0.3, 0.5), "train: none of 2 images is left (test 1 and dev 1); give more images, or smaller shares"),
    ],
)
def test_shares_that_leave_a_split_empty_are_one_clear_line(images, shares, line):
    assert errors_of(split, records_of(images), test=shares[0], dev=shares[1]) == [line]


def test_an_official_test_set_is_taken_as_it_is_and_has_no_image_of_the_others():
    records, official = records_of(20), records_of(5, 3, "/data/test")
    splits = split(records, test=0.0, official_test=official)
    assert splits.test == official and len(images_in(splits)["dev"]) == 3
    (line,) = errors_of(split, records, official_test=official)
    assert line == "test is 0.15, and there is an official test set too; set test to 0, or leave that set out"
    shared = [*official, record("/data/./set/0003.jpg", 9)]
    (line,) = errors_of(split, records, test=0.0, official_test=shared)
    assert line in [
        f"the image /data/set/0003.jpg is in {x} and in test; leave it out of one" for x in ("train", "dev")
    ]
    errors_of(Splits, records, records[:1], [])


def test_written_splits_are_read_back_equal_and_written_again_to_the_byte(tmp_path):
    records = [*records_of(20), record(b"\x89PNG", 1, task="stvqa", answers=["ผ้าซิ่น"], provenance={"a": 1})]
    splits = split(records)
    paths = write(splits, tmp_path / "splits")
    assert list(paths) == ["train", "dev", "test"] and paths["dev"] == tmp_path / "splits" / "dev.jsonl"
    contents = {name: path.read_bytes() for name, path in paths.items()}
    assert b'"/data/set/00' in contents["train"]
    for name, kept in splits.named().items():
        assert sources.read(paths[name], training=False) == (kept, [])
    write(split(records), tmp_path / "splits")
    assert {name: path.read_bytes() for name, path in paths.items()} == contents


def test_splits_are_what_they_were_when_this_was_written():
    """A changed hash would put questions that a model has learned into the test of a run that goes on."""
    made = split(records_of(40, 3), one_question_an_image=True, seed=3)
    named = "\n".join(one.id for records in made.named().values() for one in records)
    assert hashlib.sha256(named.encode()).hexdigest()[:16] == "37418a4034e61944"


def test_a_test_file_of_an_earlier_split_is_not_left_beside_new_ones(tmp_path):
    write(split(records_of(20)), tmp_path)
    before = (tmp_path / "train.jsonl").read_bytes()
    (line,) = errors_of(write, split(records_of(30), test=0.0), tmp_path)
    assert line == f"{tmp_path}/test.jsonl: is there, and this split has no records; remove the file"
    assert (tmp_path / "train.jsonl").read_bytes() == before
    (tmp_path / "test.jsonl").unlink()
    assert list(write(split(records_of(30), test=0.0), tmp_path)) == ["train", "dev"]


def official(name, folder, images=20):
    """Small official files with two questions an image, and how many questions of an image the train split keeps."""
    if name == "textvqa":
        entries = [
            {"question": f"what {n}?", "question_id": n, "image_id": f"0a{n // 2}", "answers": ["x"] * 10}
            for n in range(2 * images)
        ]
        content = {"data": [{**entry, "set_name": "train"} for entry in entries]}
        return [official_files.write_json(folder / "TextVQA_0.5.1_train.json", content)]
    if name == "stvqa":
        entries = [
            {"question": f"what {n}?", "question_id": n, "file_path": f"coco-text/{n // 2}.jpg", "answers": ["x"]}
            for n in range(2 * images)
        ]
        content = {"data": [{**entry, "dataset": "coco-text"} for entry in entries]}
        return [official_files.write_json(folder / "train_task_1.json", content)]
    if name == "chartqa":
        # People and a program ask about the same chart, in files of their own.
        return [
            official_files.write_json(
                folder / f"{part}_{source}.json",
                [{"imgname": f"{part}{n}.png", "query": f"what {source}?", "label": "x"} for n in range(images // 2)],
            )
            for part in ("train", "val")
            for source in ("human", "augmented")
        ]
    asked = [{"image_id": n // 2 + 1, "question": f"what {n}?", "question_id": n} for n in range(2 * images)]
    answered = [{**one, "answers": official_files.ten("x")} for one in asked]
    header = {"info": {"description": "This is v1.0 of the OK-VQA dataset."}, "data_subtype": "train2014"}
    official_files.write_json(folder / "mscoco_train2014_annotations.json", {**header, "annotations": answered})
    questions = {**header, "questions": asked}
    return [official_files.write_json(folder / "OpenEnded_mscoco_train2014_questions.json", questions)]


@pytest.mark.parametrize(
    ("name", "train", "dev", "test", "tested"),
    [
        ("textvqa", 34, 6, 0, 5_000),  # 17 images, two questions each; 3 images
        ("stvqa", 14, 6, 6, None),  # 85:15 twice: 17 and 3 images, then 14 and 3; one question each to train on
        ("chartqa", 17, 6, 0, 2_500),
        ("okvqa", 34, 6, 0, 5_046),
    ],
)
def test_each_data_set_is_split_from_its_official_files_as_mpa_split_it(tmp_path, name, train, dev, test, tested):
    rule, benchmark = SPLITS[name], BENCHMARKS[SPLITS[name].benchmark]
    files = official(name, tmp_path)
    assert [os.path.basename(file) for file in files] == list(rule.files)
    notes = []
    records, errors = sources.read_several(files, notes, format=benchmark.form)
    assert errors == notes == [] and len(records) == 40
    splits = rule.make(records, seed=0)
    assert tuple(len(kept) for kept in splits.named().values()) == (train, dev, test)
    if tested is None:
        assert rule.official_test == ""
    else:
        assert benchmark.splits[rule.official_test].size == tested and f"{tested:,} questions" in rule.tested_on
    paths = write(splits, tmp_path / "splits")
    assert all(sources.read(path)[0] == splits.named()[name] for name, path in paths.items())
