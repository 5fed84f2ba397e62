"""What was measured of a data set is taken again only where all that it follows from is the same."""

import json
import os
import time

import numpy as np
import PIL.Image
import pytest

from data_pipeline import check
from data_pipeline.dataset import open_dataset
from data_pipeline.measured import MeasuredSets
from data_pipeline.sources.source import Source
from tests.tiny_models import save_tiny
from vlm_jax.checkpoint import description
from vlm_jax.processing.image_cache import ImageCache
from vlm_jax.training.config import default_config


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_tiny(folder, layers=1, depth=1, global_blocks=(0,))
    return folder


def aged(path):
    os.utime(path, (time.time() - 1000,) * 2)


def write_table(folder, words="What"):
    rows = [f"images/{number % 6}.png,{words} {'so ' * number}?,{number}." for number in range(20)]
    (folder / "t.csv").write_text("image,question,answer\n" + "\n".join(rows) + "\n")
    aged(folder / "t.csv")


@pytest.fixture
def data(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(6):
        PIL.Image.new("RGB", (60 + 30 * number, 60), (number, 0, 0)).save(tmp_path / "images" / f"{number}.png")
        aged(tmp_path / "images" / f"{number}.png")
    write_table(tmp_path)
    return tmp_path


@pytest.fixture
def read(monkeypatch):
    """How many records were read, and images opened, since it was last cleared."""
    counts = {"records": 0, "images": 0}
    get, decode = Source.__getitem__, check.with_image

    def record(self, index):
        counts["records"] += 1
        return get(self, index)

    def image(source, *more):
        counts["images"] += 1
        return decode(source, *more)

    monkeypatch.setattr(Source, "__getitem__", record)
    monkeypatch.setattr(check, "with_image", image)
    return counts


def start(model, data, read, *, budget=(4, 16), most=None, sets=True, **settings):
    """Opens the data as a run does; with the sizes and what was read for them."""
    processor = description.read_processor(model, description.read_config(model), budget)
    processor.most_tokens = most
    read.update(records=0, images=0)
    settings = {**default_config().data.to_dict(), "path": str(data / "t.csv"), **settings}
    more = {"sets": MeasuredSets(data / "sets")} if sets else {}
    dataset = open_dataset(settings, processor, seed=0, cache=ImageCache(data / "cache.sqlite3"), **more)
    found = [dataset.examples.sizes[0].copy(), dataset.examples.visual[0].copy(), dataset.records()]
    return dataset, found, dict(read)


def same(one, other):
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_array_equal(one[1], other[1])
    assert one[2] == other[2]


def test_a_second_start_reads_no_record_and_opens_no_image(model, data, read):
    first, found, counts = start(model, data, read)
    assert counts["images"] == 6 and counts["records"] >= 20
    second, again, counts = start(model, data, read)
    assert counts == {"records": 0, "images": 0}
    same(found, again)
    assert first.examples.image_sizes == second.examples.image_sizes
    assert first.examples.visual_tokens == second.examples.visual_tokens
    assert first.fingerprint() == second.fingerprint()


@pytest.mark.parametrize(
    "changed",
    [
        {"budget": (4, 8)},
        {"most": 10},
        {"question": "Why?"},
        {"answer": "first"},
        {"share": 0.5},
    ],
    ids=str,
)
def test_other_settings_are_measured_anew_and_as_without(model, data, read, changed):
    start(model, data, read)
    _, found, counts = start(model, data, read, **changed)
    assert counts["records"] > 0
    same(found, start(model, data, read, sets=False, **changed)[1])


def test_another_template_or_tokenizer_is_another_measure(model, data, read, tmp_path_factory):
    start(model, data, read)
    other = tmp_path_factory.mktemp("other")
    save_tiny(other, layers=1, depth=1, global_blocks=(0,))
    template = other / "chat_template.jinja"
    if not template.is_file():
        stored = json.loads((other / "tokenizer_config.json").read_text())
        template.write_text(stored.pop("chat_template"))
        (other / "tokenizer_config.json").write_text(json.dumps(stored))
    template.write_text("Hello. " + template.read_text())
    _, found, counts = start(other, data, read)
    assert counts["records"] > 0 and (found[0][:, 0] > start(model, data, read)[1][0][:, 0]).all()


def test_data_that_changed_is_measured_anew(model, data, read):
    before = start(model, data, read)[1]
    write_table(data, words="What is it then")
    _, found, counts = start(model, data, read)
    assert counts["records"] >= 20 and counts["images"] == 0 and (found[0][:, 0] > before[0][:, 0]).all()
    same(found, start(model, data, read, sets=False)[1])


def test_of_an_image_that_changed_its_own_examples_are_measured_anew(model, data, read):
    start(model, data, read)
    PIL.Image.new("RGB", (60, 300)).save(data / "images" / "2.png")
    aged(data / "images" / "2.png")
    dataset, found, counts = start(model, data, read)
    assert counts["images"] == 1
    same(found, start(model, data, read, sets=False)[1])
    assert dataset.examples.image_sizes[str(data / "images" / "2.png")] == (60, 300)
    assert start(model, data, read)[2] == {"records": 0, "images": 0}  # and that is kept


def test_an_image_that_is_broken_or_gone_by_now_is_an_error(model, data, read):
    start(model, data, read)
    (data / "images" / "1.png").write_bytes(b"no image")
    aged(data / "images" / "1.png")
    (data / "images" / "4.png").unlink()
    errors = start(model, data, read)[0].errors
    assert len(errors) == 2 and any("4.png: no such image" in error for error in errors)


def test_data_with_an_error_or_a_remark_is_never_kept(model, data, read):
    (data / "images" / "1.png").unlink()
    for on_error in ("stop", "drop"):
        for _ in range(2):
            assert start(model, data, read, on_error=on_error)[2]["records"] >= 20
    assert not (data / "sets").exists()


def test_data_that_was_written_a_moment_ago_is_not_kept(model, data, read):
    os.utime(data / "t.csv")
    start(model, data, read)
    assert not (data / "sets").exists()


@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_a_damaged_file_is_as_if_it_were_not_there(model, data, read, damage):
    found = start(model, data, read)[1]
    (path,) = (data / "sets").glob("*.npz")
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "other": b"x" * 999}[damage])
    _, again, counts = start(model, data, read)
    assert counts["records"] >= 20
    same(found, again)


def test_formats_that_look_into_other_files_are_not_kept(model, data, read):
    entries = [
        {
            "question_id": number,
            "question": "What?",
            "image_id": str(number),
            "answers": ["a"] * 10,
            "image": f"{number}.png",
        }
        for number in range(3)
    ]
    (data / "v.json").write_text(json.dumps({"data": entries}))
    aged(data / "v.json")
    start(
        model, data, read, path=str(data / "v.json"), format="textvqa", image_root=str(data / "images"), on_error="drop"
    )
    assert not (data / "sets").exists()
