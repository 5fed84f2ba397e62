"""What is no image is refused in one line, and no more is decoded at once than is said."""

import base64
import io
import os
import random
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from tests.processing.test_images import (
    EPS,
    NO_IMAGE,
    PHOTOS,
    encoded,
    error,
    noise,
)
from vlm_jax.errors import InputError
from vlm_jax.processing import images
from vlm_jax.processing.images import open_image


def test_a_missing_image_is_one_line(tmp_path):
    assert error(tmp_path / "cat.jpg") == f"{tmp_path}/cat.jpg: no such image"


def test_a_folder_is_no_image(tmp_path):
    assert error(str(tmp_path)) == f"{tmp_path}: is a folder, not an image"


@pytest.mark.parametrize("held", [b"", b"these are words, not pixels\n" * 40, b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_no_image_is_one_line(held, tmp_path):
    path = tmp_path / "cat.jpg"
    path.write_bytes(held)
    assert error(path) == f"{path}: {NO_IMAGE}"
    assert error(held) == f"image of {len(held)} bytes: {NO_IMAGE}"


@pytest.mark.parametrize("share", [0.3, 0.9])
@pytest.mark.parametrize("name", ["chelsea.jpg", "coins.png"])
def test_an_image_cut_short_is_refused(name, share, tmp_path):
    whole = next(path for path in PHOTOS if path.name == name).read_bytes()
    path = tmp_path / name
    path.write_bytes(whole[: int(len(whole) * share)])
    assert error(path).startswith(f"{path}: unreadable (")
    assert "truncated" in error(path)


@pytest.mark.parametrize("address", ["http://h/cat.png", "https://h/cat.png", "ftp://h/cat.png", "s3://bucket/cat.png"])
def test_a_remote_image_is_refused_and_not_fetched(address, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was touched"))
    assert error(address) == f"{address}: remote images are not fetched; download it and give its path"


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("data:image/png;base64", "a data URI must read data:image/…;base64,…"),
        ("data:image/png,abc", "a data URI must read data:image/…;base64,…"),
        ("data:image/svg+xml;utf8,<svg/>", "a data URI must read data:image/…;base64,…"),
        ("data:image/png;base64,", NO_IMAGE),
        ("data:image/png;base64,????", NO_IMAGE),
        ("data:image/png;base64,abc", NO_IMAGE),
        ("data:image/png;base64,aGVsbG8=", NO_IMAGE),
    ],
)
def test_a_broken_data_uri_is_one_line(uri, reason):
    assert error(uri) == f"{uri}: {reason}"


def test_a_long_data_uri_is_not_printed_whole():
    line = error("data:image/png;base64," + "A" * 10_000)
    assert line.endswith(f"…: {NO_IMAGE}")
    assert len(line) < 200


def test_an_image_larger_than_pillows_limit_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "poster.png"
    PIL.Image.new("L", (2000, 1500)).save(path)
    opened = PIL.Image.open(path)
    for limit in (2_900_000, 1_000_000):  # beyond twice its limit Pillow refuses by itself
        monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", limit)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            line = error(path)
            assert error(opened).startswith(str(path))
        assert line == f"{path}: more than {limit // 10**6} million pixels; scale it down first"
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 3_000_000)
    assert open_image(path).size == (2000, 1500)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_which_frame_of_an_animation_is_meant_is_not_guessed(kind, tmp_path):
    frames = [PIL.Image.fromarray(noise(40, 30, seed=number)) for number in range(3)]
    path = tmp_path / "moving"
    frames[0].save(path, kind, save_all=True, append_images=frames[1:])
    expected = f"{path}: unreadable (it has 3 frames or pages; save the one that is meant as an image)"
    assert error(path) == expected
    with PIL.Image.open(path) as opened:  # whoever opened it chose the frame
        opened.seek(1)
        assert open_image(opened).size == (40, 30)


def test_a_photograph_with_a_second_image_behind_it_is_an_image(tmp_path):
    path = tmp_path / "phone.jpg"
    photo = PIL.Image.fromarray(noise(90, 60))
    photo.save(path, "MPO", save_all=True, append_images=[photo.resize((30, 20))])
    assert open_image(path).size == (90, 60)


def test_corrupted_bytes_are_an_image_or_an_error_and_nothing_else():
    chance = random.Random(0)
    exif = PIL.Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    photo = PIL.Image.fromarray(noise(60, 40))
    for kind, settings in {"JPEG": {"exif": exif}, "WEBP": {"exif": exif}, "PNG": {"exif": exif}, "GIF": {}}.items():
        whole = encoded(photo, kind, **settings)
        for _ in range(300):
            broken = bytearray(whole)
            for _ in range(chance.randint(1, 6)):
                broken[chance.randrange(len(broken))] = chance.randrange(256)
            broken = bytes(broken[: chance.randrange(len(broken))] if chance.random() < 0.2 else broken)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    assert open_image(broken).mode == "RGB"
            except InputError as error:
                assert len(error.lines) == 1
                assert "\n" not in str(error)


def test_a_decoder_that_fails_in_an_unforeseen_way_is_one_line(monkeypatch):
    def fails(image, **_):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(PIL.ImageOps, "exif_transpose", fails)
    assert error(encoded(PIL.Image.new("L", (9, 9)), "PNG")).endswith("bytes: unreadable (two lines)")


@pytest.mark.parametrize("give", ["path", "bytes", "uri", "header"])
def test_postscript_is_no_image_under_any_name(give, tmp_path, monkeypatch):
    """Pillow would have Ghostscript run it."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/called\nexit 1\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    (tmp_path / "evil.jpg").write_bytes(EPS)
    uri = f"data:image/jpeg;base64,{base64.b64encode(EPS).decode()}"
    source = {"path": tmp_path / "evil.jpg", "bytes": EPS, "uri": uri, "header": tmp_path / "evil.jpg"}[give]
    if give == "header":
        with pytest.raises(PIL.UnidentifiedImageError):
            images.header(source)
    else:
        with pytest.raises(InputError, match="not an image of a format that is read"):
            open_image(source)
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize("kind", ["ICNS", "TGA", "PCX", "IM", "SGI", "DDS"])
def test_formats_that_are_not_named_are_refused(kind, tmp_path):
    held = io.BytesIO()
    PIL.Image.new("RGB", (32, 32)).save(held, kind)
    with pytest.raises(InputError, match="JPEG, PNG, WEBP"):
        open_image(held.getvalue())


@pytest.mark.parametrize("kind", images.FORMATS)
def test_formats_that_are_named_are_read(kind):
    held = io.BytesIO()
    PIL.Image.new("RGB", (32, 16), (10, 20, 30)).save(held, kind)
    assert open_image(held.getvalue()).size == (32, 16)


def test_a_pipe_is_no_image(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(InputError, match="is a named pipe, where a file is expected"):
        open_image(tmp_path / "a.png")


def test_no_more_pixels_are_decoded_at_once_than_is_said(monkeypatch):
    """Twelve threads with images of 100 pixels, where 250 may be: two at a time; and one of 400, alone."""
    monkeypatch.setattr(images, "_turns", images._Turns(250))
    now, most, lock = set(), [], threading.Lock()

    def use(image):
        with lock:
            now.add(id(image))
            most.append((len(now), image.size))
        time.sleep(0.01)
        with lock:
            now.discard(id(image))

    sizes = [(10, 10)] * 11 + [(20, 20)]
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda size: images.with_image(PIL.Image.new("RGB", size), use), sizes))
    assert len(most) == 12 and max(count for count, _ in most) == 2
    assert all(count == 1 for count, size in most if size == (20, 20))


def test_what_fails_gives_its_turn_back(monkeypatch):
    monkeypatch.setattr(images, "_turns", images._Turns(250))
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            images.with_image(PIL.Image.new("RGB", (20, 20)), lambda image: 1 / 0)
    assert open_image(PIL.Image.new("RGB", (20, 20))).size == (20, 20)


def test_white_below_a_tall_image_is_laid_in_strips(monkeypatch):
    monkeypatch.setattr(images, "_STRIP", 50)
    pixels = np.random.default_rng(0).integers(0, 256, (33, 7, 4), dtype=np.uint8)
    image = PIL.Image.fromarray(pixels, "RGBA")
    whole = PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, (255,) * 4), image).convert("RGB")
    np.testing.assert_array_equal(np.asarray(open_image(image)), np.asarray(whole))
