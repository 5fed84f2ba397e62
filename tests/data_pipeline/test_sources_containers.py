"""ArrayRecord, Parquet, ImageFolder and TFDS: what they hold, shards, splits, and their errors."""

import io
import json
import pickle
import re
import shutil
import sys
import threading
from pathlib import Path

import pyarrow.parquet
import pytest

from data_pipeline import sources
from data_pipeline.records import images_of
from tests.data_pipeline.source_files import (
    error_of,
    errors_of,
    messages,
    png,
    write_arrayrecord,
    write_lines,
    write_parquet,
)

# --- ArrayRecord


def test_arrayrecord_entries_are_messagepack_with_bytes_or_json(tmp_path):
    image = png()
    path = write_arrayrecord(tmp_path / "a.array_record", [{"id": "a", "messages": messages(image=image)}])
    source = sources.open_source(path)
    assert source.format == "records" and images_of(source[0]) == [image]
    assert source[0].where == f"{path}, entry 1 (id 'a')"
    as_json = write_arrayrecord(
        tmp_path / "b.arrayrecord", [{"id": "a", "messages": messages()}], lambda entry: json.dumps(entry).encode()
    )
    assert sources.open_source(as_json)[0].messages == messages()


def test_arrayrecord_shards_are_one_source(tmp_path):
    for shard in range(3):
        entries = [{"id": f"{shard}-{n}", "messages": messages()} for n in range(shard + 1)]
        write_arrayrecord(tmp_path / f"train.array_record-{shard:05}-of-00003", entries)
    expected = ["0-0", "1-0", "1-1", "2-0", "2-1", "2-2"]
    for path in (tmp_path, f"{tmp_path}/train*"):
        source = pickle.loads(pickle.dumps(sources.open_source(path)))
        assert [source[index].id for index in range(len(source))] == expected
    assert source[4].where.endswith("train.array_record-00002-of-00003, entry 2 (id '2-1')")
    write_arrayrecord(tmp_path / "val.array_record", [{"id": "x", "messages": messages()}])
    assert "holds several sets (train.array_record, val.array_record)" in error_of(tmp_path)
    assert error_of(f"{tmp_path}/no-*") == f"{tmp_path}/no-*: no file fits the pattern"


def test_a_broken_arrayrecord_entry_is_one_error_and_the_rest_is_read(tmp_path):
    good = {"id": "a", "messages": messages()}
    path = write_arrayrecord(tmp_path / "a.array_record", [good, b"\xc1", b"{oops", 7, {**good, "id": "b"}])
    records, errors = sources.read(path)
    assert [record.id for record in records] == ["a", "b"] and len(errors) == 3
    assert errors[0].startswith(f"{path}, entry 2: holds neither a MessagePack nor a JSON object")
    assert errors[2] == f"{path}, entry 4: is a number where an object is expected"
    empty = write_arrayrecord(tmp_path / "b.array_record", [])
    assert error_of(empty) == f"{empty}: holds no entries"


# --- Parquet


def test_parquet_images_are_bytes_or_paths(tmp_path):
    images = [{"bytes": png(), "path": "x.png"}, {"bytes": None, "path": "b/c.png"}]
    rows = [{"image": image, "question": "Who?", "answer": "I"} for image in images]
    source = sources.open_source(write_parquet(tmp_path / "a.parquet", rows))
    assert source.format == "table" and images_of(source[0]) == [png()]
    assert images_of(source[1]) == [str(tmp_path / "b/c.png")]
    assert source[1].where == f"{tmp_path / 'a.parquet'}, row 2"


def test_parquet_rows_may_be_any_form(tmp_path):
    image = {"bytes": png(), "path": None}
    vqa = {"image": image, "image_id": 4, "question": "Who?", "question_id": 9, "answers": [{"answer": "I"}] * 10}
    source = sources.open_source(write_parquet(tmp_path / "vqa.parquet", [vqa]))
    assert (source.format, source[0].id, source[0].answers) == ("vqav2", "9", ["I"] * 10)
    turns = [{"from": "human", "value": "<image>\nWho?"}, {"from": "gpt", "value": "I"}]
    rows = [{"images": [image], "conversations": turns}]
    source = sources.open_source(write_parquet(tmp_path / "chat.parquet", rows), format="parquet")
    assert source.format == "sharegpt" and images_of(source[0]) == images_of(source[0]) == [png()]


def test_parquet_reads_a_row_group_once_for_rows_in_order(tmp_path, monkeypatch):
    rows = [{"image": None, "question": f"Q{n}?", "answer": "A"} for n in range(20)]
    path, reads = write_parquet(tmp_path / "a.parquet", rows, group=5), []
    original = pyarrow.parquet.ParquetFile.iter_batches

    def read(self, rows, row_groups):
        reads.extend(row_groups)
        return original(self, rows, row_groups=row_groups)

    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "iter_batches", read)
    source = sources.open_source(path)
    assert [source[n].messages[0]["content"] for n in range(20)] == [f"Q{n}?" for n in range(20)]
    assert reads == [0, 1, 2, 3]


def test_parquet_shards_are_one_source_and_splits_are_not_mixed(tmp_path):
    for shard in range(2):
        rows = [{"image": None, "question": f"{shard}.{n}", "answer": "A"} for n in range(4)]
        write_parquet(tmp_path / f"train-{shard:05}-of-00002.parquet", rows)
    source = sources.open_source(tmp_path)
    assert [source[n].messages[0]["content"] for n in range(8)] == [f"{s}.{n}" for s in range(2) for n in range(4)]
    assert source[5].where.endswith("train-00001-of-00002.parquet, row 2")
    write_parquet(tmp_path / "test-00000-of-00001.parquet", rows)
    assert "holds several sets (test.parquet, train.parquet)" in error_of(tmp_path)
    assert len(sources.open_source(f"{tmp_path}/train-*.parquet")) == 8
    write_parquet(tmp_path / "Odd.PARQUET", rows)
    assert len(sources.open_source(f"{tmp_path}/Odd.*")) == 4


def test_an_errory_parquet_row_or_column_is_one_line(tmp_path):
    rows = [{"image": None, "question": question, "answer": "A"} for question in ("Who?", None, "Why?")]
    path = write_parquet(tmp_path / "a.parquet", rows)
    assert error_of(path) == f"{path}, row 2: the question is empty; write it or remove the row"
    path = write_parquet(tmp_path / "b.parquet", [{"image": None, "caption": "A cat"}])
    assert error_of(path).startswith(f"{path}: cannot tell its format: the first entry has 'image', 'caption'")
    path = write_parquet(tmp_path / "c.parquet", [{"image": None, "question": "Who?"}])
    assert error_of(path).startswith(f"{path}: no column 'answer'; the columns found are 'image', 'question'")


# --- ImageFolder


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
def test_an_imagefolder_is_read_through_its_metadata(tmp_path, name):
    folder = tmp_path / "cats"
    (folder / "train").mkdir(parents=True)
    (folder / "train" / "a.png").write_bytes(png())
    row = {"file_name": "train/a.png", "question": "Who?", "answer": "Chelsea"}
    if name.endswith("csv"):
        (folder / name).write_text("file_name,question,answer\ntrain/a.png,Who?,Chelsea\n")
    else:
        write_lines(folder / name, [row])
    ((record,), errors) = sources.read(folder)
    assert errors == [] and images_of(record) == [str(folder / "train" / "a.png")] and record.id == "cats-1"
    assert record.where.startswith(f"{folder / name}, line ")


def test_an_imagefolder_may_hold_conversations(tmp_path):
    turns = [{"from": "human", "value": "<image>\nWho?"}, {"from": "gpt", "value": "I"}]
    write_lines(tmp_path / "metadata.jsonl", [{"file_name": "a.png", "conversations": turns}])
    source = sources.open_source(tmp_path)
    assert source.format == "llava" and images_of(source[0]) == [str(tmp_path / "a.png")]


def test_an_errory_imagefolder_is_told(tmp_path):
    assert "holds neither metadata.jsonl nor metadata.csv" in error_of(tmp_path, format="imagefolder")
    (tmp_path / "train").mkdir()
    path = tmp_path / "train" / "metadata.jsonl"
    row = {"question": "Who?", "answer": "I"}
    write_lines(path, [{"file_nam": "a.png", **row}])
    assert error_of(tmp_path, format="imagefolder").endswith("; name one of its folders: train")
    assert "no entry has 'file_name' or 'file_names'" in error_of(tmp_path / "train")
    assert "Is 'file_nam' meant?" in error_of(tmp_path / "train")
    write_lines(path, [{"file_name": "a.png", **row}, {"file_name": "", **row}, row])
    assert [re.sub(".*line ", "", error) for error in errors_of(tmp_path / "train")] == [
        "2: 'file_name' is empty; name the image, from this folder",
        "3: 'file_name' is nothing; name the image, from this folder",
    ]
    (tmp_path / "train" / "metadata.csv").write_text("file_name\n")
    assert "holds both metadata.jsonl and metadata.csv" in error_of(tmp_path / "train")


# --- TFDS


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data set as TFDS prepares it, in ArrayRecord."""
    import numpy as np
    import tensorflow_datasets as tfds

    class TinyVqa(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(encoding_format="png"),
                "question": tfds.features.Text(),
                "question_id": np.int64,
                "answers": tfds.features.Sequence(tfds.features.Text()),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, download_manager):
            return {"train": self._generate_examples(12), "test": self._generate_examples(2)}

        def _generate_examples(self, count):
            for n in range(count):
                answers = ["แมว", "cat", "แมว"]
                yield n, {"image": io.BytesIO(png(n)), "question": f"Q{n}?", "question_id": n, "answers": answers}

    # As in a script: for a class of a package TFDS asks for importlib_resources, which reading does without.
    TinyVqa.__module__ = "__main__"
    builder = TinyVqa(data_dir=str(tmp_path_factory.mktemp("tfds")), file_format="array_record")
    builder.download_and_prepare()
    return Path(builder.data_dir)


def test_tfds_is_read_without_tensorflow(prepared):
    assert "tensorflow" not in sys.modules
    opened = sources.open_source(f"{prepared}#train")
    for source in (opened, pickle.loads(pickle.dumps(opened))):
        records = {record.id: record for record in map(source.__getitem__, range(len(source)))}
        assert set(records) == {str(n) for n in range(12)} and source.format == "table"
        assert images_of(records["7"]) == [png(7)]  # the encoded file as it is
        assert records["7"].messages[0]["content"][1]["text"] == "Q7?" and records["7"].answers == ["แมว", "cat", "แมว"]
        assert records["7"].messages[1]["content"] == "แมว"
    assert len(sources.open_source(f"{prepared}#train[:25%]+test")) == 5


def test_tfds_reads_from_several_threads(prepared):
    source = sources.open_source(f"{prepared}#train")
    found, threads = [], []
    for _ in range(4):
        threads.append(threading.Thread(target=lambda: found.append({source[n].id for n in range(12)})))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert found == [{str(n) for n in range(12)}] * 4


def test_an_errory_tfds_folder_is_told(prepared, tmp_path):
    assert error_of(prepared) == f"{prepared}: has the splits train, test; name one: {prepared}#train"
    assert error_of(f"{prepared}#val") == f"{prepared}#val: has no split 'val'; the splits are train, test"
    assert error_of(prepared.parent, format="tfds").endswith("; name one of its versions: 1.0.0")
    assert error_of(tmp_path, format="tfds").endswith("; name the folder of its version")
    (tmp_path / "dataset_info.json").write_text("{}")
    assert error_of(tmp_path).startswith(f"{tmp_path}: cannot be opened as a TFDS data set (")
    assert "no such folder; did you mean" in error_of(f"{prepared}0#train")
    cut = tmp_path / "1.0.0"
    cut.mkdir()
    for path in prepared.iterdir():
        (cut / path.name).write_bytes(path.read_bytes()[:200] if "train" in path.name else path.read_bytes())
    assert all("train.array_record-00000-of-00001" in error for error in errors_of(f"{cut}#train"))


@pytest.mark.parametrize("key", ["pythonClassName", "python_class_name", "type"])
@pytest.mark.parametrize("inside", [False, True])
def test_tfds_features_name_no_class_but_tfds_own(prepared, tmp_path, monkeypatch, key, inside):
    """TFDS would import the module of any class that is named."""
    folder = tmp_path / "tiny_vqa" / "1.0.0"
    shutil.copytree(prepared, folder)
    (tmp_path / "evil_of_data.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Foo: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    stored = json.loads((folder / "features.json").read_text())
    stored["more"] = {"content": json.dumps({key: "evil_of_data.Foo"})} if inside else {key: "evil_of_data.Foo"}
    (folder / "features.json").write_text(json.dumps(stored))
    assert "names the class 'evil_of_data.Foo', which is not one of TFDS's own" in error_of(f"{folder}#train")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("claimed", ["1000000000000", "11", "0"])
def test_tfds_shards_hold_what_is_said_of_them(prepared, tmp_path, claimed):
    folder = tmp_path / "tiny_vqa" / "1.0.0"
    shutil.copytree(prepared, folder)
    stored = json.loads((folder / "dataset_info.json").read_text())
    train = next(split for split in stored["splits"] if split["name"] == "train")
    train["shardLengths"] = [claimed]
    (folder / "dataset_info.json").write_text(json.dumps(stored))
    error = error_of(f"{folder}#train")
    assert "holds 12 examples, and" in error or (claimed == "0" and "has no split 'train'" in error)
