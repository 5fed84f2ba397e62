"""Images are checked before the first step, each once, and every error is told together."""

import os
from io import BytesIO
from pathlib import Path

import PIL.Image
import pytest

from data_pipeline import check
from data_pipeline.check import check_images
from data_pipeline.records import Record
from data_pipeline.sources import read

PHOTOS = Path(__file__).parents[1] / "data" / "photos"


def record_with(*images, where="t.csv, line 2"):
    content = [{"type": "image", "image": image if isinstance(image, bytes) else str(image)} for image in images]
    return Record("a", [{"role": "user", "content": content}, {"role": "assistant", "content": "b"}], where=where)


def error_of(image, **settings):
    sizes, (error,) = check_images([record_with(image)], **settings)
    assert sizes == {} and "\n" not in error and error.endswith(" (used by t.csv, line 2)")
    return error.removesuffix(" (used by t.csv, line 2)")


def encoded(image, **settings):
    stream = BytesIO()
    image.save(stream, **settings)
    return stream.getvalue()


NOISE = PIL.Image.effect_noise((64, 64), 50)


@pytest.mark.parametrize("decode", [True, False])
def test_the_photographs_are_in_order(decode):
    records, _ = read(PHOTOS / "photos.json")
    sizes, errors = check_images(records, decode=decode)
    assert errors == [] and len(sizes) == 11
    assert sizes[str(PHOTOS / "chelsea.jpg")] == (451, 300)
    assert sizes[str(PHOTOS / "page.png")] == (384, 191)


def test_each_image_is_opened_once(monkeypatch):
    opened = []
    original = check.with_image
    monkeypatch.setattr(check, "with_image", lambda source, then: opened.append(source) or original(source, then))
    image = str(PHOTOS / "coins.png")
    check_images([record_with(image, image), record_with(image)])
    assert opened == [image]


@pytest.mark.parametrize("decode", [True, False])
def test_sizes_are_those_of_the_upright_image(tmp_path, decode):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg", exif=exif)
    sizes, errors = check_images([record_with(tmp_path / "a.jpg")], decode=decode)
    assert errors == [] and sizes == {str(tmp_path / "a.jpg"): (30, 40)}


def test_a_missing_image_names_the_nearest_file(tmp_path):
    (tmp_path / "cat.JPG").write_bytes(encoded(NOISE, format="JPEG"))
    path = tmp_path / "cat.jpg"
    assert error_of(path) == (
        f"{path}: no such image; correct the path or the image root; did you mean {tmp_path / 'cat.JPG'}?"
    )
    assert error_of(tmp_path / "no" / "a.jpg").endswith(f"; there is no folder {tmp_path / 'no'}")
    assert "a part of the path is a file" in error_of(tmp_path / "cat.JPG" / "a.jpg")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_truncated_image_is_found_when_its_pixels_are_decoded(tmp_path, kind):
    path = tmp_path / "cut.img"
    content = encoded(NOISE, format=kind)
    path.write_bytes(content[: len(content) // 2])
    assert error_of(path).startswith(f"{path}: unreadable (")


def test_without_decoding_a_header_is_enough(tmp_path):
    path = tmp_path / "cut.jpg"
    path.write_bytes(encoded(NOISE, format="JPEG")[:1000])
    assert check_images([record_with(path)], decode=False) == ({str(path): (64, 64)}, [])


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", "is empty (0 bytes); copy it again"),
        (b"<html>404</html>", "not a"),
        (encoded(NOISE, format="GIF", save_all=True, append_images=[NOISE.rotate(9)]), ""),
        (encoded(PIL.Image.new("L", (201, 1)), format="PNG"), "is 201x1 pixels; one side may be at most 200 times"),
    ],
)
def test_a_file_that_is_no_usable_image_is_an_error(tmp_path, content, error, decode):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    assert error_of(path, decode=decode).startswith(f"{path}: {error}")


def test_the_widest_image_that_is_taken_is_200_to_1(tmp_path):
    PIL.Image.new("L", (200, 1)).save(tmp_path / "a.png")
    assert check_images([record_with(tmp_path / "a.png")]) == ({str(tmp_path / "a.png"): (200, 1)}, [])


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("limit", [3000, 1000])  # just over the limit Pillow warns, over twice the limit it refuses
def test_a_decompression_bomb_is_an_error(tmp_path, monkeypatch, decode, limit):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", limit)
    NOISE.save(tmp_path / "a.png")
    assert "pixels" in error_of(tmp_path / "a.png", decode=decode)


def test_a_folder_or_a_pipe_is_an_error(tmp_path):
    assert error_of(tmp_path) == f"{tmp_path}: is a folder where an image is expected"
    os.mkfifo(tmp_path / "pipe")
    assert error_of(tmp_path / "pipe") == f"{tmp_path / 'pipe'}: is not a regular file"


def test_an_image_that_may_not_be_read_is_an_error(tmp_path, monkeypatch):
    NOISE.save(tmp_path / "a.png")
    monkeypatch.setattr(check.os, "access", lambda path, mode: False)  # an administrator may read everything
    assert error_of(tmp_path / "a.png") == f"{tmp_path / 'a.png'}: permission denied; make it readable"


@pytest.mark.parametrize("name", ["a\0b.jpg", "x" * 300 + ".jpg", "\udcff.jpg"])
def test_a_name_that_no_file_can_have_is_an_error(tmp_path, name):
    assert error_of(tmp_path / name).startswith(f"{tmp_path / name}: ")


def test_an_error_of_a_decoder_does_not_hide_other_errors(tmp_path, monkeypatch):
    NOISE.save(tmp_path / "a.png")

    def broken(source, then):
        raise ZeroDivisionError

    monkeypatch.setattr(check, "with_image", broken)
    sizes, errors = check_images([record_with(tmp_path / "a.png", tmp_path / "b.png")])
    assert sizes == {} and len(errors) == 2
    assert errors[0].startswith(f"{tmp_path / 'a.png'}: cannot be opened as an image (ZeroDivisionError)")


def test_embedded_images_are_checked_too():
    good = encoded(NOISE, format="PNG")
    assert check_images([record_with(good)]) == ({good: (64, 64)}, [])
    assert error_of(good[:100]).startswith("embedded image of 100 bytes: ")
    assert error_of(good[:100]).count("image of") == 1


def test_an_error_names_three_records_and_counts_the_rest(tmp_path):
    records = [record_with(tmp_path / "a.jpg", where=f"t.csv, line {line}") for line in range(2, 9)]
    _, (error,) = check_images(records)
    assert error.endswith(" (used by t.csv, line 2; t.csv, line 3; t.csv, line 4; and 4 more)")


def test_all_errory_images_are_told_together_in_the_order_of_the_records(tmp_path):
    paths = [tmp_path / f"{number}.jpg" for number in range(30)]
    sizes, errors = check_images([record_with(*paths, PHOTOS / "moon.png")])
    assert list(sizes) == [str(PHOTOS / "moon.png")]
    assert [error.split(": ")[0] for error in errors] == [str(path) for path in paths]
