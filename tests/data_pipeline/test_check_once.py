"""Images are looked at once: over starts, by what is kept of them, and over processes, which divide them."""

import os
import threading
import time

import numpy as np
import PIL.Image
import pytest

from data_pipeline import check
from data_pipeline.check import Division, check_images
from data_pipeline.dataset import open_dataset
from data_pipeline.records import Record
from tests.tiny_models import PHOTOS, save_tiny
from vlm_jax.checkpoint import description
from vlm_jax.processing.image_cache import ImageCache
from vlm_jax.training.config import default_config


@pytest.fixture
def folder(tmp_path):
    """Twelve images that were written long ago."""
    (tmp_path / "images").mkdir()
    for number in range(12):
        path = tmp_path / "images" / f"{number}.png"
        PIL.Image.new("RGB", (8 + number, 8), (number, 0, 0)).save(path)
        aged(path)
    return tmp_path


def aged(path):
    os.utime(path, (time.time() - 1000,) * 2)


def records(folder):
    paths = sorted((folder / "images").iterdir())
    content = [[{"type": "image", "image": str(path)}] for path in paths]
    return [Record(path.stem, [{"role": "user", "content": one}]) for path, one in zip(paths, content, strict=True)]


@pytest.fixture
def opened(monkeypatch):
    """The images that are opened, by name."""
    names: list[str] = []
    for name in ("with_image", "header"):
        real = getattr(check, name)

        def noted(source, *more, real=real):
            names.append(source if isinstance(source, bytes) else os.path.basename(source))
            return real(source, *more)

        monkeypatch.setattr(check, name, noted)
    return names


def test_a_second_start_opens_nothing_and_a_changed_image_is_noticed(folder, opened):
    cache = ImageCache(folder / "cache.sqlite3")
    first = check_images(records(folder), cache=cache)
    assert len(opened) == 12 and len(first[0]) == 12
    opened.clear()
    assert check_images(records(folder), cache=ImageCache(folder / "cache.sqlite3")) == first and opened == []
    path = folder / "images" / "3.png"
    PIL.Image.new("RGB", (99, 50)).save(path)
    aged(path)
    sizes, errors = check_images(records(folder), cache=cache)
    assert opened == ["3.png"] and sizes[str(path)] == (99, 50) and errors == []
    path.write_bytes(path.read_bytes()[:60])
    aged(path)
    (error,) = check_images(records(folder), cache=cache)[1]
    assert error.startswith(f"{path}: ")


def test_an_errory_image_is_looked_at_every_time_and_a_removed_one_is_missing(folder, opened):
    cache = ImageCache(folder / "cache.sqlite3")
    (folder / "images" / "5.png").write_bytes(b"no image")
    aged(folder / "images" / "5.png")
    for _ in range(2):
        opened.clear()
        assert len(check_images(records(folder), cache=cache)[1]) == 1 and "5.png" in opened
    known = records(folder)
    (folder / "images" / "7.png").unlink()
    assert any("7.png: no such image" in error for error in check_images(known, cache=cache)[1])


def test_a_header_that_was_read_is_no_image_that_was_decoded(folder, opened):
    cache = ImageCache(folder / "cache.sqlite3")
    check_images(records(folder), decode=False, cache=cache)
    opened.clear()
    check_images(records(folder), decode=False, cache=cache)
    assert opened == []
    check_images(records(folder), decode=True, cache=cache)
    assert len(opened) == 12
    opened.clear()
    check_images(records(folder), decode=False, cache=cache)
    assert opened == []


def test_an_image_that_was_written_a_moment_ago_is_looked_at_again(folder, opened):
    cache = ImageCache(folder / "cache.sqlite3")
    PIL.Image.new("RGB", (9, 9)).save(folder / "images" / "0.png")
    check_images(records(folder), cache=cache)
    opened.clear()
    check_images(records(folder), cache=cache)
    assert opened == ["0.png"]


def test_embedded_images_are_known_by_their_bytes(folder, opened):
    content = (folder / "images" / "1.png").read_bytes()
    record = Record("a", [{"role": "user", "content": [{"type": "image", "image": content}]}])
    cache = ImageCache(folder / "cache.sqlite3")
    first = check_images([record], cache=cache)
    opened.clear()
    assert check_images([record], cache=cache) == first == ({content: (9, 8)}, []) and opened == []


def test_processes_divide_the_images_and_all_say_the_same(folder, opened):
    (folder / "images" / "4.png").write_bytes(b"no image")
    count, arrays, barrier = 3, {}, threading.Barrier(3)

    def total(index, array):
        arrays[index] = array
        barrier.wait()
        whole = sum(arrays.values())
        barrier.wait()
        return whole

    found = {}

    def process(index):
        division = Division(index, count, lambda array: total(index, array))
        found[index] = check_images(records(folder), division=division)

    threads = [threading.Thread(target=process, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = check_images(records(folder))
    assert all(found[index] == alone for index in range(count)) and len(alone[1]) == 1
    # Each image once, and the faulty one by all.
    assert len(opened) - 12 == 12 + count - 1


@pytest.mark.parametrize(("limit", "decodes"), [(10**6, True), (3, False)])
def test_above_a_number_of_examples_only_headers_are_read_and_that_is_said(tmp_path, limit, decodes):
    save_tiny(tmp_path / "model", layers=1, depth=1, global_blocks=(0,))
    processor = description.read_processor(tmp_path / "model", description.read_config(tmp_path / "model"), (4, 16))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for number in range(4):
        PIL.Image.fromarray(noise).save(tmp_path / f"{number}.jpg")
    whole = (tmp_path / "2.jpg").read_bytes()
    (tmp_path / "2.jpg").write_bytes(whole[: len(whole) // 2])  # a header that is in order, and half of the pixels
    rows = "".join(f"{number}.jpg,What?,It.\n" for number in range(4))
    (tmp_path / "t.csv").write_text("image,question,answer\n" + rows)
    reported: list[str] = []
    settings = {**default_config().data.to_dict(), "path": str(tmp_path / "t.csv"), "decode_check_up_to": limit}
    dataset = open_dataset(settings, processor, seed=0, say=reported.append)
    assert len(dataset.errors) == int(decodes)
    assert reported == ([] if decodes else [
        "4 examples are more than data.decode_check_up_to=3: only the headers of their images are read now; each is "
        "decoded as training comes to it"
    ])  # fmt: skip


def test_the_photographs_have_the_same_sizes_with_and_without_a_cache(tmp_path):
    paths = [str(path) for path in sorted(PHOTOS.glob("*.jpg"))]
    shown = [Record("a", [{"role": "user", "content": [{"type": "image", "image": path} for path in paths]}])]
    cache = ImageCache(tmp_path / "cache.sqlite3")
    plain = check_images(shown)
    assert check_images(shown, cache=cache) == check_images(shown, cache=cache) == plain and len(plain[0]) == len(paths)
