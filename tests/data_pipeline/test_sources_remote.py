"""Data sets and images in a store (fsspec's `memory://` for `gs://`); what data names is still not fetched."""

import io
import json
import pickle

import fsspec
import numpy as np
import PIL.Image
import pyarrow
import pyarrow.parquet
import pytest

from data_pipeline import sources
from data_pipeline.check import check_images
from data_pipeline.image_loader import decode
from data_pipeline.records import images_of
from vlm_jax import locations
from vlm_jax.errors import InputError
from vlm_jax.processing.image_processors.dynamic_resolution import DynamicResolution
from vlm_jax.processing.images import open_image


@pytest.fixture
def store():
    """Puts files into an empty store."""
    system = fsspec.filesystem("memory")
    system.store.clear()

    def put(address, content):
        with fsspec.open(address, "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
        return address

    yield put
    system.store.clear()


def png(width=32):
    file = io.BytesIO()
    PIL.Image.new("RGB", (width, 40), "red").save(file, "PNG")
    return file.getvalue()


def entry(id, image):
    turns = [{"from": "human", "value": "<image>\nWho?"}, {"from": "gpt", "value": "I"}]
    return {"id": id, "image": image, "conversations": turns}


def error_of(path, **settings):
    with pytest.raises(InputError) as caught:
        sources.open_source(path, **settings)
    (error,) = caught.value.lines
    return error


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_a_data_set_in_a_store_is_read_on_demand_with_its_images(store, suffix):
    store("memory://bucket/set/images/a.png", png())
    entries = [entry(f"r{n}", "images/a.png") for n in range(20)]
    text = json.dumps(entries) if suffix == ".json" else "\n".join(map(json.dumps, entries))
    opened = sources.open_source(store(f"memory://bucket/set/data{suffix}", text))
    for source in (opened, pickle.loads(pickle.dumps(opened))):
        assert [source[n].id for n in (19, 0)] == ["r19", "r0"]
        assert images_of(source[5]) == ["memory://bucket/set/images/a.png"]
        assert source[5].where.startswith("memory://bucket/set/data")
    assert check_images([source[5]]) == ({"memory://bucket/set/images/a.png": (32, 40)}, [])
    assert check_images([source[5]], decode=False) == ({"memory://bucket/set/images/a.png": (32, 40)}, [])


def test_csv_parquet_and_imagefolder_are_read_from_a_store(store):
    rows = [{"image": {"bytes": png(), "path": None}, "question": "Who?", "answer": "I"}]
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    store("memory://bucket/p/train-00000-of-00001.parquet", file.getvalue())
    store("memory://bucket/t/a.csv", "image,question,answer\na.png,Who?,I\n")
    store("memory://bucket/f/metadata.jsonl", json.dumps({"file_name": "a.png", "question": "Who?", "answer": "I"}))
    assert images_of(sources.open_source("memory://bucket/p")[0]) == [png()]
    assert images_of(sources.open_source("memory://bucket/p/train-*.parquet")[0]) == [png()]
    assert images_of(sources.open_source("memory://bucket/t/a.csv")[0]) == ["memory://bucket/t/a.png"]
    source = sources.open_source("memory://bucket/f")
    assert images_of(source[0]) == ["memory://bucket/f/a.png"] and source[0].id == "f-1"


def test_a_local_file_may_have_its_images_in_a_store(store, tmp_path):
    store("memory://bucket/train_images/00a.jpg", png())
    question = {"question": "what?", "question_id": 1, "image_id": "00a", "answers": ["x"], "set_name": "train"}
    (tmp_path / "a.json").write_text(json.dumps({"data": [question]}))
    ((record,), errors) = sources.read(tmp_path / "a.json", image_root="memory://bucket")
    assert errors == [] and images_of(record) == ["memory://bucket/train_images/00a.jpg"]
    mpa = {"question_id": 1, "image_path": "/w/data/train_images/00a.jpg", "PA_question": "Q", "PA_answer": "A"}
    (tmp_path / "pi.json").write_text(json.dumps([mpa]))
    ((record,), _) = sources.read(tmp_path / "pi.json", image_root="memory://bucket/")
    assert images_of(record) == ["memory://bucket/train_images/00a.jpg"]


def test_what_data_names_is_neither_fetched_nor_taken_from_another_bucket(store):
    names = ["gs://other/a.png", "memory://other/a.png", "https://a.org/b.png", "../../../other/a.png"]
    path = store("memory://bucket/set/a.json", json.dumps([entry(str(n), name) for n, name in enumerate(names)]))
    records, errors = sources.read(path)
    assert len(errors) == 3 and all("addresses in data are not fetched" in error for error in errors)
    assert [images_of(record) for record in records] == [["memory://bucket/other/a.png"]]


def test_what_is_missing_in_a_store_is_one_line(store):
    assert error_of("memory://bucket/a.json") == "memory://bucket/a.json: no such file"
    store("memory://bucket/a.json", "")
    assert error_of("memory://bucket/a.json") == "memory://bucket/a.json: is empty (0 bytes); copy it again"
    path = store("memory://bucket/b.json", json.dumps([entry("a", "a.png"), entry("b", "b.png")]))
    assert "the image root of" in error_of(path, image_root="memory://bucket/none")
    store("memory://bucket/b.png", png()[:50])
    sizes, errors = check_images(sources.read(path)[0])
    assert sizes == {} and errors[0].startswith("memory://bucket/a.png: no such image; correct the path")
    assert errors[1].startswith("memory://bucket/b.png: ") and "entry 2 (id 'b')" in errors[1]
    missing = decode("memory://bucket/none.png", (1, 1), DynamicResolution())
    assert isinstance(missing, InputError) and "memory://bucket/none.png: cannot be read" in str(missing)


def test_arrayrecord_and_tfds_say_that_they_need_a_disk(store):
    store("memory://bucket/a.array_record", b"x")
    store("memory://bucket/tf/dataset_info.json", "{}")
    assert "ArrayRecord is read from a disk only" in error_of("memory://bucket/a.array_record")
    assert "TFDS is read from a disk only" in error_of("memory://bucket/tf")


def test_a_store_whose_package_is_missing_is_one_line(monkeypatch):
    def without(scheme):
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(fsspec, "filesystem", without)
    expected = "gs://bucket/a.json: gs:// needs gcsfs; pip install 'vlm-jax[gs]'"
    assert error_of("gs://bucket/a.json") == expected


def test_what_a_client_raises_is_one_line(monkeypatch):
    class Refusing:
        def __getattr__(self, name):
            raise RuntimeError("Anonymous caller\ndoes not have access")

    monkeypatch.setattr(fsspec, "filesystem", lambda scheme: Refusing())
    assert error_of("gs://bucket/a.json") == (
        "gs://bucket/a.json: cannot be read: Anonymous caller does not have access"
    )


def test_an_image_in_a_store_opens_like_one_on_disk(store, tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    address = store("memory://bucket/a.png", png())
    here = decode(str(tmp_path / "a.png"), (2, 1), DynamicResolution())
    np.testing.assert_array_equal(decode(address, (2, 1), DynamicResolution()), here)
    with pytest.raises(InputError, match="remote images are not fetched"):  # as a visitor of a page would name it
        open_image(address)


@pytest.mark.parametrize(
    ("folder", "name", "path"),
    [
        ("/data", "b/../a.jpg", "/data/a.jpg"),
        ("/data", "/x/a.jpg", "/x/a.jpg"),
        ("gs://bucket/set", "b/./a.jpg", "gs://bucket/set/b/a.jpg"),
        ("gs://bucket/set", "../a.jpg", "gs://bucket/a.jpg"),
        ("gs://bucket", "../../../other/a.jpg", "gs://bucket/other/a.jpg"),
        ("gs://bucket/set", "/x/a.jpg", "/x/a.jpg"),
    ],
)
def test_names_are_joined_to_their_folder(folder, name, path):
    assert locations.join(folder, name) == path
    assert locations.below(path, folder) == (path.removeprefix(f"{folder}/") if path.startswith(folder) else None)
