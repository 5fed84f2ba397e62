"""Answers that columns hold as numbers: as they were written, and classes by name."""

import decimal
import io
import json
import tarfile

import msgpack
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from data_pipeline import sources
from tests.data_pipeline.source_files import error_of, errors_of, write_arrayrecord
from tests.data_pipeline.test_sources_folders import save

CLASSES = {"_type": "ClassLabel", "names": ["cat", "dog"]}


def table_of(column, features=None, **others):
    columns = {"image": ["a.png"] * len(column), "question": ["Which?"] * len(column), "answer": column, **others}
    table = pyarrow.table(columns)
    if features is not None:
        text = features if isinstance(features, str) else json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({b"huggingface": text.encode()})
    return table


def written(folder, table, kind):
    if kind == "parquet":
        pyarrow.parquet.write_table(table, folder / "a.parquet")
        return folder / "a.parquet"
    with pyarrow.OSFile(str(folder / "a.arrow"), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return folder / "a.arrow"


def answers_of(path, **settings):
    records, errors = sources.read(path, **settings)
    assert errors == []
    return [record.messages[-1]["content"] for record in records]


KINDS = pytest.mark.parametrize("kind", ["parquet", "arrow"])

# --- numbers ----------------------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("type_", [pyarrow.float16(), pyarrow.float32(), pyarrow.float64()])
def test_a_number_is_the_shortest_text_of_its_own_precision(tmp_path, kind, type_):
    values = [0.1, 2.5, 3.0, -0.25, 1000.0]
    column = pyarrow.array(np.array(values, type_.to_pandas_dtype()), type_)
    assert answers_of(written(tmp_path, table_of(column), kind)) == ["0.1", "2.5", "3.0", "-0.25", "1000.0"]


@KINDS
@pytest.mark.parametrize(
    "type_",
    [pyarrow.list_(pyarrow.float32()), pyarrow.large_list(pyarrow.float32()), pyarrow.list_(pyarrow.float32(), 2)],
)
def test_so_are_numbers_in_lists(tmp_path, kind, type_):
    column = pyarrow.array([[0.1, 0.7]], type_)
    path = written(tmp_path, table_of([""], answers=column), kind)
    assert sources.read(path)[0][0].answers == ["0.1", "0.7"]


@KINDS
@pytest.mark.parametrize(
    "value, text",
    [("3.10", "3.10"), ("3", "3"), ("-0.5", "-0.5"), ("12345678901234567890.10", "12345678901234567890.10")],
)
def test_a_decimal_is_the_text_that_it_is(tmp_path, kind, value, text):
    assert answers_of(written(tmp_path, table_of(pyarrow.array([decimal.Decimal(value)])), kind)) == [text]


@KINDS
def test_a_number_that_is_none_is_no_answer(tmp_path, kind):
    column = pyarrow.array([None, float("nan"), 1.5], pyarrow.float32())
    first, second = errors_of(written(tmp_path, table_of(column), kind))
    assert "row 1: the answer is empty" in first and "row 2: the answer is NaN" in second


@pytest.mark.parametrize("answer", ["3.10", "-0.50", "1e5"])
def test_numbers_of_json_within_other_files_keep_their_text(tmp_path, answer):
    entry = f'{{"image": "a.png", "question": "How many?", "answer": {answer}}}'.encode()
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        member = tarfile.TarInfo("x.json")
        member.size = len(entry)
        tar.addfile(member, io.BytesIO(entry))
    assert answers_of(tmp_path / "a.tar") == [answer]
    assert answers_of(write_arrayrecord(tmp_path / "a.array_record", [entry], msgpack.packb)) == [answer]
    (tmp_path / "a.csv").write_text(f'image,question,answers\na.png,How many?,"[{answer}, 2]"\n')
    assert answers_of(tmp_path / "a.csv") == [answer]


@pytest.mark.parametrize("twice", ["question", "answer", "image"])
def test_a_key_that_is_there_twice_is_refused_in_every_file_of_json(tmp_path, twice):
    entry = json.dumps({"image": "a.png", "question": "q", "answer": "a"}).replace("}", f', "{twice}": "z"}}').encode()
    (tmp_path / "a.jsonl").write_bytes(entry)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        member = tarfile.TarInfo("x.json")
        member.size = len(entry)
        tar.addfile(member, io.BytesIO(entry))
    write_arrayrecord(tmp_path / "a.array_record", [entry])
    for name in ("a.jsonl", "a.tar", "a.array_record"):
        assert f"the key '{twice}' is there twice in one object" in error_of(tmp_path / name)


# --- classes ----------------------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize(
    "feature, column, name",
    [
        (CLASSES, [1, 0], "answer"),
        ({"_type": "Sequence", "feature": CLASSES}, [[1], [0]], "answers"),
        ({"_type": "List", "feature": CLASSES}, [[1], [0]], "answers"),
        ([CLASSES], [[1], [0]], "answers"),
    ],
)
def test_classes_are_read_by_the_names_in_the_file(tmp_path, kind, feature, column, name):
    columns = {"answer": ["", ""], name: column}
    table = table_of(columns.pop("answer"), {name: feature}, **columns)
    assert answers_of(written(tmp_path, table, kind)) == ["dog", "cat"]


@pytest.mark.parametrize(
    "feature", [CLASSES, {"_type": "List", "feature": CLASSES}, {"_type": "Sequence", "feature": CLASSES}]
)
def test_and_by_those_of_the_folder(tmp_path, feature):
    label = 1 if feature is CLASSES else [1]
    rows = [{"image": None, "question": "Which?", "answer": "", "label": label}]
    folder = save(tmp_path / "d", rows, features={"label": feature})
    columns = {"answer" if feature is CLASSES else "answers": "label"}
    if feature is not CLASSES:
        columns["answer"] = "answer"
    for path in (folder, folder / "data-00000-of-00001.arrow"):
        assert answers_of(path, columns=columns) == ["dog"]


def test_classes_within_objects_are_named(tmp_path):
    features = {"meta": {"kind": CLASSES, "many": {"_type": "Sequence", "feature": {"one": CLASSES}}}}
    meta = [{"kind": 1, "many": {"one": [0, 1]}}]
    path = written(tmp_path, table_of(["x"], features, meta=meta), "parquet")
    assert sources.open_source(path)._entries[0].value["meta"] == {"kind": "dog", "many": {"one": ["cat", "dog"]}}


@KINDS
@pytest.mark.parametrize("number", [-1, 2, 10**9])
def test_a_class_without_a_name_is_no_answer(tmp_path, kind, number):
    path = written(tmp_path, table_of([number, 1], {"answer": CLASSES}), kind)
    assert f"row 1: the answer is the class {number}, where the 2 classes that have names begin with 0" in error_of(
        path
    )
    unused = table_of(["x"], {"label": CLASSES}, label=[number])  # a test split has -1 where it keeps the labels back
    assert answers_of(written(tmp_path, unused, kind)) == ["x"]


@KINDS
@pytest.mark.parametrize(
    "features, words",
    [
        ({"answer": {**CLASSES, "names": "cat"}}, "the column 'answer' is of classes whose names are no list of texts"),
        (
            {"answer": {**CLASSES, "names": [1, 2]}},
            "the column 'answer' is of classes whose names are no list of texts",
        ),
        ({"answer": {**CLASSES, "names": []}}, "the column 'answer' is of classes whose names are no list of texts"),
        ("{", "the features that its schema describes cannot be read"),
        ("[" * 100_000, "the features that its schema describes cannot be read"),
        (
            '{"info": {"features": ' + '{"answer": ' + '{"a": ' * 50 + "1" + "}" * 53,
            "features that are nested too deeply",
        ),
    ],
)
def test_features_that_cannot_be_read_are_one_line(tmp_path, kind, features, words):
    assert words in error_of(written(tmp_path, table_of([1], features), kind))


@pytest.mark.parametrize(
    "features", ["[]", '{"info": null}', '{"info": {"features": 3}}', '{"info": {"features": {"answer": 1}}}']
)
def test_features_that_say_nothing_change_nothing(tmp_path, features):
    assert answers_of(written(tmp_path, table_of([1], features), "parquet")) == ["1"]


def test_classes_and_numbers_of_tfds_are_read_alike():
    import tensorflow_datasets as tfds

    from data_pipeline.sources.tfds_folders import _plain
    from data_pipeline.values import UnnamedClass

    label = tfds.features.ClassLabel(names=["cat", "dog"])
    assert _plain(np.int64(1), label) == "dog" and _plain(np.int64(-1), label) == UnnamedClass(-1, 2)
    assert _plain(np.array([1, 0]), tfds.features.Sequence(label)) == ["dog", "cat"]
    assert _plain(np.float32(0.1), tfds.features.Scalar(np.float32)) == 0.1
