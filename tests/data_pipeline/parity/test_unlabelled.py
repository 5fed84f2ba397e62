"""Images without questions: found wherever they lie, known by what they hold, and told of where they cannot be used."""

import json
import os
import shutil
from pathlib import Path

import pytest

from data_pipeline.parity import unlabelled
from data_pipeline.parity.unlabelled import found
from data_pipeline.records import Record, write_records
from tests.tiny_models import PHOTOS
from vlm_jax.errors import InputError

SETTINGS = {"path": "", "format": "auto", "image_root": "", "most": 0}


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "images"
    (place / "deep").mkdir(parents=True)
    for name in ("chelsea.jpg", "coffee.jpg", "moon.png"):
        shutil.copy(PHOTOS / name, place)
    shutil.copy(PHOTOS / "chelsea.jpg", place / "deep" / "again.jpg")
    return place


def test_each_image_is_found_once_whatever_it_is_called(folder, tmp_path):
    images, notes = found({**SETTINGS, "path": str(folder)}, tmp_path)
    assert len(images) == 3 and not notes
    assert [image.file.digest for image in images] == sorted(image.file.digest for image in images)
    assert {image.file.media_type for image in images} == {"image/jpeg", "image/png"}
    assert all(image.file.read() for image in images) and len({image.id for image in images}) == 3
    some, _ = found({**SETTINGS, "path": str(folder), "most": 2}, tmp_path)
    assert len(some) == 2 and set(some) < set(images)


def test_what_cannot_be_used_is_told_and_the_rest_is(folder, tmp_path):
    (folder / "notes.txt").write_text("no image")
    (folder / "broken.jpg").write_bytes((PHOTOS / "chelsea.jpg").read_bytes()[:5000])
    (folder / "gone.png").symlink_to("/nowhere/at/all.png")
    shutil.copy(PHOTOS / "rocket.jpg", os.fsencode(folder) + b"/a\xff.jpg")
    images, notes = found({**SETTINGS, "path": str(folder)}, tmp_path)
    assert len(images) == 3
    assert notes == [
        "a\udcff.jpg: has a name that is not UTF-8, which no file here can hold; rename it",
        "broken.jpg: cannot be opened, or is no JPEG, PNG or WebP",
        "gone.png: cannot be read (No such file or directory)",
        "notes.txt: cannot be opened, or is no JPEG, PNG or WebP",
    ]


def test_folders_that_are_not_looked_into_are_told(folder, tmp_path, monkeypatch):
    (folder / "elsewhere").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.jpg")
    once = os.scandir

    def refused(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return once(path)

    monkeypatch.setattr(unlabelled.os, "scandir", refused)
    images, notes = found({**SETTINGS, "path": str(folder)}, tmp_path)
    assert len(images) == 3 and notes == [
        "deep: cannot be read (Permission denied)",
        "elsewhere: is a link to a folder, which is not followed",
    ]


def test_a_permission_that_is_taken_away_later_is_told_though_the_image_is_known(folder, tmp_path, monkeypatch):
    found({**SETTINGS, "path": str(folder)}, tmp_path)
    once = os.open

    def refused(path, *args, **more):
        if str(path).endswith("moon.png"):
            raise PermissionError(13, "Permission denied")
        return once(path, *args, **more)

    monkeypatch.setattr(unlabelled.os, "open", refused)
    images, notes = found({**SETTINGS, "path": str(folder)}, tmp_path)
    assert len(images) == 2 and notes == ["moon.png: cannot be read (Permission denied)"]


def test_a_later_start_reads_what_changed_alone(folder, tmp_path, monkeypatch):
    first, _ = found({**SETTINGS, "path": str(folder)}, tmp_path)
    read, once = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path.name) or once(path))
    assert found({**SETTINGS, "path": str(folder)}, tmp_path)[0] == first and not read
    shutil.copy(PHOTOS / "rocket.jpg", folder / "moon.png")
    second, _ = found({**SETTINGS, "path": str(folder)}, tmp_path)
    assert read == ["moon.png"] and second != first


def test_images_of_records_are_taken_without_their_questions(folder, tmp_path):
    shown = [{"type": "image", "image": str(folder / "moon.png")}, {"type": "text", "text": "What?"}]
    write_records(tmp_path / "records.jsonl", [Record("1", [{"role": "user", "content": shown}], answers=["moon"])])
    (image,), notes = found({**SETTINGS, "path": str(tmp_path / "records.jsonl")}, tmp_path)
    assert not notes and image.truth == ("What?", "moon") and image.file.path == folder / "moon.png"


def test_questions_where_images_are_wanted_are_refused(tmp_path):
    messages = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ada"}]
    write_records(tmp_path / "q.jsonl", [Record("1", messages)])
    with pytest.raises(InputError, match="q.jsonl has 1 questions and no image; wanted a folder of images"):
        found({**SETTINGS, "path": str(tmp_path / "q.jsonl")}, tmp_path)


def test_a_folder_without_images_is_refused_with_reasons(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.md").write_text("nothing")
    with pytest.raises(InputError) as caught:
        found({**SETTINGS, "path": str(tmp_path / "empty")}, tmp_path)
    assert "no image of" in caught.value.lines[0] and "readme.md" in caught.value.lines[1]
    json.dumps(caught.value.lines)
