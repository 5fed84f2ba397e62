"""Folders of other tools: `save_to_disk` of Hugging Face's datasets, and images in folders by class."""

import json
import pickle

import pyarrow
import pytest

from data_pipeline import sources
from data_pipeline.records import images_of
from tests.data_pipeline.source_files import error_of, errors_of, messages, png


def save(folder, rows, *, shards=1, state=None, features=None):
    """A data set as `Dataset.save_to_disk` writes it: Arrow streams, `state.json`, `dataset_info.json`."""
    folder.mkdir(parents=True)
    names = [f"data-{number:05}-of-{shards:05}.arrow" for number in range(shards)]
    for number, name in enumerate(names):
        table = pyarrow.Table.from_pylist(rows[number::shards])
        with pyarrow.OSFile(str(folder / name), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    described = {"_data_files": [{"filename": name} for name in names], "_format_columns": None, **(state or {})}
    (folder / "state.json").write_text(json.dumps(described))
    (folder / "dataset_info.json").write_text(json.dumps({"features": features or {}}))
    return folder


ROWS = [{"image": {"bytes": png(n), "path": None}, "question": f"Who {n}?", "answer": "I"} for n in range(5)]


def test_a_saved_data_set_is_read_from_its_arrow_files(tmp_path):
    source = pickle.loads(pickle.dumps(sources.open_source(save(tmp_path / "d", ROWS, shards=2))))
    assert len(source) == 5 and images_of(source[1]) == [png(2)]
    assert source[3].where.endswith("data-00001-of-00002.arrow, row 1")
    one = sources.open_source(tmp_path / "d" / "data-00001-of-00002.arrow")
    assert len(one) == 2 and one[0].messages == source[3].messages


def test_a_saved_dictionary_of_splits_is_read_by_split(tmp_path):
    for split, count in (("train", 4), ("test", 1)):
        save(tmp_path / "d" / split, ROWS[:count])
    (tmp_path / "d" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    assert len(sources.open_source(f"{tmp_path}/d#train")) == 4 and len(sources.open_source(f"{tmp_path}/d#test")) == 1
    assert error_of(tmp_path / "d").endswith(f"has the splits train, test; name one: {tmp_path}/d#train")
    assert error_of(f"{tmp_path}/d#val").endswith("has no split 'val'; the splits are train, test")


def test_classes_are_read_by_name_and_a_format_keeps_its_columns(tmp_path):
    rows = [{"image": None, "label": n, "question": "Which?", "answer": "x"} for n in (1, 0)]
    features = {"label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    state = {"_format_columns": ["image", "label"], "_output_all_columns": False}
    path = save(tmp_path / "d", rows, features=features, state=state)
    records, _ = sources.read(path, columns={"answer": "label"}, question="What?")
    assert [record.messages for record in records] == [messages("What?", "dog"), messages("What?", "cat")]


@pytest.mark.parametrize(
    "state, words",
    [
        ({"_indices_data_files": [{"filename": "indices.arrow"}]}, "its rows are chosen by an index"),
        ({"_data_files": []}, "'_data_files' names no files of this folder"),
        ({"_data_files": [{"filename": "../x.arrow"}]}, "'_data_files' names no files of this folder"),
        ({"_data_files": [{"filename": "data-1.arrow"}]}, "data-1.arrow: no such file"),
    ],
)
def test_a_saved_data_set_that_cannot_be_read_is_one_line(tmp_path, state, words):
    assert words in error_of(save(tmp_path / "d", ROWS, state=state))


def test_a_part_of_an_arrow_file_is_refused(tmp_path):
    path = save(tmp_path / "d", ROWS) / "data-00000-of-00001.arrow"
    path.write_bytes(path.read_bytes()[:300])
    assert "is no Arrow file, or a part of one" in error_of(tmp_path / "d")


@pytest.mark.parametrize(
    "row, words",
    [
        ({"file_name": "a.png", "image": "b.png"}, "has 'file_name' 'a.png' and 'image' 'b.png', which differ"),
        (
            {"file_name": "a.png", "image": ["a.png", "b.png"]},
            "has 'file_name' 'a.png' and 'image' ['a.png', 'b.png'],",
        ),
        ({"file_name": "a.png", "file_names": ["b.png"]}, "has 'file_name' 'a.png' and 'file_names' ['b.png'], which"),
        ({"file_names": ["a.png"], "image": "b.png"}, "has 'file_names' ['a.png'] and 'image' 'b.png', which differ"),
        ({"file_name": "a.png", "image": "a.png"}, ""),
        ({"file_name": "a.png", "image": ["a.png"]}, ""),
        ({"file_name": "a.png", "image": ""}, ""),
        ({"file_name": "a.png", "image": None, "file_names": []}, ""),
    ],
)
def test_an_image_folder_names_an_image_once_or_says_the_same_twice(tmp_path, row, words):
    (tmp_path / "metadata.jsonl").write_text(json.dumps({**row, "question": "Who?", "answer": "I"}) + "\n")
    if words:
        assert words in error_of(tmp_path)
    else:
        assert images_of(sources.open_source(tmp_path)[0]) == [str(tmp_path / "a.png")]


def class_folder(folder):
    for name in ("cat", "hot dog"):
        (folder / name).mkdir()
        for number in range(2):
            (folder / name / f"{number}.PNG").write_bytes(png(number))
    return folder


def test_folders_by_class_are_asked_the_question_that_is_set(tmp_path):
    records, errors = sources.read(class_folder(tmp_path), question="What is this?")
    assert errors == [] and [record.messages[1]["content"] for record in records] == ["cat"] * 2 + ["hot dog"] * 2
    assert images_of(records[3]) == [str(tmp_path / "hot dog" / "1.PNG")] and records[3].id == "hot dog/1.PNG"


def test_folders_by_class_without_a_question_are_refused_with_the_remedy(tmp_path):
    error = error_of(class_folder(tmp_path))
    assert "by class (cat, hot dog)" in error and "data.question='What is this?'" in error


def test_what_is_no_image_among_classes_is_refused_by_name(tmp_path):
    class_folder(tmp_path)
    (tmp_path / "cat" / "a.mp4").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("x")
    errors = errors_of(tmp_path, question="What?")
    assert "a.mp4: is no image" in errors[0] and "notes.txt: is no folder of images" in errors[1]
