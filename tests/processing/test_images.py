"""Images become what transformers makes of them, bit for bit; what is no image is refused in one line."""

import base64
import io
import os
import random
import shutil
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize as reference_resize

from vlm_jax.errors import InputError
from vlm_jax.processing import images
from vlm_jax.processing.images import open_image, patchify, smart_resize

FOLDER = Path(__file__).parents[1] / "data" / "photos"
PHOTOS = sorted(path for path in FOLDER.iterdir() if path.suffix in (".jpg", ".png"))
PATCH, MERGE = 14, 2
NO_IMAGE = f"not an image of a format that is read ({', '.join(images.FORMATS)})"
UNIT = PATCH * MERGE
# Small bounds keep the suite quick; both sides of every comparison get the same.
LOW, HIGH = 4 * UNIT**2, 256 * UNIT**2


def reference(image: PIL.Image.Image, low: int = LOW, high: int = HIGH) -> tuple[np.ndarray, tuple[int, int]]:
    """transformers' pixels before normalisation as [units, patches_per_token, C · ph · pw], and the grid in patches."""
    processor = Qwen2VLImageProcessorPil(size={"shortest_edge": low, "longest_edge": high})
    made = processor(images=[image], do_rescale=False, do_normalize=False, return_tensors="np")
    _, rows, columns = made["image_grid_thw"][0].tolist()
    slices = made["pixel_values"].reshape(rows * columns, 3, 2, PATCH * PATCH)
    assert np.array_equal(slices[:, :, 0], slices[:, :, 1])
    pixels = slices[:, :, 0]
    assert np.array_equal(pixels, pixels.astype(np.uint8))
    return pixels.astype(np.uint8).reshape(-1, MERGE**2, 3 * PATCH**2), (rows, columns)


def ours(source, low: int = LOW, high: int = HIGH) -> tuple[np.ndarray, tuple[int, int]]:
    image = open_image(source)
    tall, wide = smart_resize(image.height, image.width, UNIT, low, high)
    return patchify(image, tall, wide, PATCH, MERGE), (tall // PATCH, wide // PATCH)


def same(source, image: PIL.Image.Image, **bounds) -> None:
    mine, grid = ours(source, **bounds)
    theirs, their_grid = reference(image, **bounds)
    assert grid == their_grid
    assert mine.dtype == np.uint8
    assert np.array_equal(mine, theirs)


def noise(width: int, height: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Smooth in one channel and rough in the others, so that any slip of an axis or a filter shows."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    values[..., 0] = np.linspace(0, 255, width).astype(np.uint8)
    return values


def encoded(image: PIL.Image.Image, kind: str, **settings) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return stream.getvalue()


# --- the size ---------------------------------------------------------------------------------------------------------


def test_resized_sizes_equal_those_of_transformers():
    chance = random.Random(0)
    for _ in range(2000):
        short = int(2 ** chance.uniform(0, 12))
        long = min(int(short * 2 ** chance.uniform(0, 7.64)), 200 * short)
        height, width = chance.sample([short, long], 2)
        factor = chance.choice([14, 28, 28, 28, 32])
        low = chance.randint(1, 400) * factor**2
        high = low + chance.choice([0, 1, chance.randint(0, 4000)]) * factor**2
        if chance.random() < 0.2:  # bounds are pixels, and need not be whole units
            low, high = low + chance.randint(0, 99), high + chance.randint(99, 999)
        given = (height, width, factor, low, high)
        assert smart_resize(*given) == reference_resize(*given), given


@pytest.mark.parametrize(
    ("height", "width"),
    [(1, 1), (1, 200), (200, 1), (28, 5600), (14, 14), (42, 70), (13, 15), (4000, 6000), (1, 2), (30000, 150)],
)
def test_sizes_at_the_edges_equal_those_of_transformers(height, width):
    # 14, 42 and 70 are halves of a unit, where rounding must go to the even neighbour.
    for low, high in [(56 * 56, 28 * 28 * 1280), (LOW, HIGH), (28 * 28, 28 * 28), (28 * 28, 10**9)]:
        assert smart_resize(height, width, UNIT, low, high) == reference_resize(height, width, UNIT, low, high)


@pytest.mark.parametrize(("height", "width"), [(1, 201), (201, 1), (10, 2001), (5601, 28), (3, 601)])
def test_a_ratio_above_200_is_refused_by_both(height, width):
    with pytest.raises(ValueError):
        reference_resize(height, width, UNIT, LOW, HIGH)
    with pytest.raises(InputError, match=r"^aspect ratio \d+ is above 200$"):
        smart_resize(height, width, UNIT, LOW, HIGH)


# --- the pixels -------------------------------------------------------------------------------------------------------


MODES = ("RGB", "RGB", "L", "RGBA", "P", "CMYK", "LA")


def sizes() -> list[tuple[int, int]]:
    """200 sizes (width, height): from 1 × 1 to 4,000 pixels a side, ratios up to 200."""
    chance = random.Random(1)
    found = [(1, 1), (1, 150), (150, 2), (28, 28), (56, 56), (57, 55), (448, 448), (13, 400), (900, 31), (640, 480)]
    found += [(4000, 20), (20, 4000), (4000, 300), (3000, 4000)]
    while len(found) < 200:
        size = tuple(int(2 ** chance.uniform(0, 12)) for _ in range(2))
        if max(size) <= 4000 and max(size) <= 200 * min(size) and size[0] * size[1] < 1_500_000:
            found.append(size)
    return found


def test_patches_of_two_hundred_sizes_equal_those_of_transformers():
    for number, size in enumerate(sizes()):
        image = PIL.Image.fromarray(noise(*size, seed=number))
        mode = MODES[number % len(MODES)]
        image = image.quantize(16) if mode == "P" else image.convert(mode)
        if mode in ("RGBA", "LA"):
            image.putalpha(PIL.Image.fromarray(noise(*size, seed=number + 1)[..., 1]))
        same(image, image)


@pytest.mark.parametrize("bounds", [(56 * 56, 28 * 28 * 1280), (28 * 28, 28 * 28), (64 * 28 * 28, 64 * 28 * 28)])
def test_patches_equal_those_of_transformers_within_any_bounds(bounds):
    image = PIL.Image.fromarray(noise(517, 333))
    same(image, image, low=bounds[0], high=bounds[1])


def images_of_every_mode() -> dict[str, bytes]:
    rgba = PIL.Image.fromarray(noise(90, 70, 4))
    rgb = rgba.convert("RGB")
    palette = rgb.quantize(16)
    return {
        "RGB": encoded(rgb, "PNG"),
        "L": encoded(rgb.convert("L"), "PNG"),
        "LA": encoded(rgba.convert("LA"), "PNG"),
        "RGBA": encoded(rgba, "PNG"),
        "P": encoded(palette, "PNG"),
        "P with one transparent colour": encoded(palette, "PNG", transparency=3),
        "P with transparency by colour": encoded(palette, "PNG", transparency=bytes(range(0, 256, 16))),
        "RGB with a transparent colour": encoded(rgb, "PNG", transparency=rgb.getpixel((5, 5))),
        "L with a transparent grey": encoded(rgb.convert("L"), "PNG", transparency=77),
        "1": encoded(rgb.convert("1"), "PNG"),
        "CMYK": encoded(rgb.convert("CMYK"), "JPEG"),
        "YCbCr": encoded(rgb, "JPEG"),
        "GIF with transparency": encoded(palette, "GIF", transparency=2),
        "WEBP with alpha": encoded(rgba, "WEBP", lossless=True),
        "TIFF": encoded(rgb, "TIFF"),
    }


@pytest.mark.parametrize("name", images_of_every_mode())
def test_images_of_every_mode_equal_what_transformers_makes_of_them(name):
    file = images_of_every_mode()[name]
    same(file, PIL.Image.open(io.BytesIO(file)))


@pytest.mark.parametrize("path", PHOTOS, ids=lambda path: path.name)
def test_the_photographs_equal_what_transformers_makes_of_them(path):
    same(path, PIL.Image.open(path))


def test_transparent_parts_are_white():
    clear = encoded(PIL.Image.new("RGBA", (60, 60), (10, 20, 30, 0)), "PNG")
    assert np.asarray(open_image(clear)).min() == 255


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_taken_with_the_camera_turned_is_upright(orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    file = encoded(PIL.Image.fromarray(noise(120, 50)), "JPEG", exif=exif)
    upright = PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(file)))
    assert upright.size == ((120, 50) if orientation < 5 else (50, 120))
    assert np.array_equal(np.asarray(open_image(file)), np.asarray(upright))
    same(file, upright)


def test_sixteen_bit_grey_is_seen_as_viewers_show_it():
    # transformers clips here: everything above 255 of 65535 is white. Pillow takes the high byte of 16-bit colour.
    ramp = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    file = encoded(PIL.Image.fromarray(ramp), "PNG")
    assert PIL.Image.open(io.BytesIO(file)).mode == "I;16"
    assert np.array_equal(np.asarray(open_image(file)), np.repeat((ramp >> 8)[..., None], 3, axis=-1))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_numbers_beyond_eight_bits_are_refused_rather_than_clipped(dtype, tmp_path):
    path = tmp_path / "depth.tiff"
    PIL.Image.fromarray(np.linspace(0, 3000, 64 * 64).astype(dtype).reshape(64, 64)).save(path)
    assert fault(path) == (
        f"{path}: unreadable (its values run from 0 to 3000, which no rule maps to grey; save it with 8 bits a channel)"
    )
    PIL.Image.fromarray(np.linspace(0, 255, 64 * 64).astype(dtype).reshape(64, 64)).save(path)
    same(path, PIL.Image.open(path))


# --- where images come from -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "give",
    [
        str,
        Path,
        Path.read_bytes,
        PIL.Image.open,
        lambda path: "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode(),
        lambda path: "data:;base64," + base64.b64encode(path.read_bytes()).decode(),
        lambda path: "data:image/png;charset=utf-8;base64," + base64.b64encode(path.read_bytes()).decode(),
    ],
    ids=["text", "Path", "bytes", "PIL image", "data URI", "data URI without a type", "data URI with a parameter"],
)
def test_an_image_is_the_same_whichever_way_it_is_given(give):
    path = next(path for path in PHOTOS if path.name == "coins.png")
    with PIL.Image.open(path) as image:
        assert np.array_equal(np.asarray(open_image(give(path))), np.asarray(image.convert("RGB")))


def test_an_image_of_the_caller_is_left_as_it_was():
    image = PIL.Image.open(next(path for path in PHOTOS if path.suffix == ".jpg"))
    before, mode = image.size, image.mode
    opened = open_image(image)
    opened.paste((0, 0, 0), (0, 0, 5, 5))
    assert (image.size, image.mode) == (before, mode)
    assert np.asarray(image)[:5, :5].any()


@pytest.mark.parametrize("name", ["with space.png", "รูปภาพ.png", "http:cat.png", "data.png", "a,b;base64.png"])
def test_file_names_may_be_anything(name, tmp_path):
    shutil.copy(next(path for path in PHOTOS if path.name == "coins.png"), tmp_path / name)
    assert open_image(str(tmp_path / name)).size == open_image(tmp_path / name).size


# --- what is no image -----------------------------------------------------------------------------------------------


def fault(source) -> str:
    with pytest.raises(InputError) as caught:
        open_image(source)
    (line,) = caught.value.faults
    assert "\n" not in line
    return line


def test_a_missing_image_is_one_line(tmp_path):
    assert fault(tmp_path / "cat.jpg") == f"{tmp_path}/cat.jpg: no such image"


def test_a_folder_is_no_image(tmp_path):
    assert fault(str(tmp_path)) == f"{tmp_path}: is a folder, not an image"


@pytest.mark.parametrize("held", [b"", b"these are words, not pixels\n" * 40, b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_no_image_is_one_line(held, tmp_path):
    path = tmp_path / "cat.jpg"
    path.write_bytes(held)
    assert fault(path) == f"{path}: {NO_IMAGE}"
    assert fault(held) == f"image of {len(held)} bytes: {NO_IMAGE}"


@pytest.mark.parametrize("share", [0.3, 0.9])
@pytest.mark.parametrize("name", ["chelsea.jpg", "coins.png"])
def test_an_image_cut_short_is_refused(name, share, tmp_path):
    whole = next(path for path in PHOTOS if path.name == name).read_bytes()
    path = tmp_path / name
    path.write_bytes(whole[: int(len(whole) * share)])
    assert fault(path).startswith(f"{path}: unreadable (")
    assert "truncated" in fault(path)


@pytest.mark.parametrize("address", ["http://h/cat.png", "https://h/cat.png", "ftp://h/cat.png", "s3://bucket/cat.png"])
def test_a_remote_image_is_refused_and_not_fetched(address, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was touched"))
    assert fault(address) == f"{address}: remote images are not fetched; download it and give its path"


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
    assert fault(uri) == f"{uri}: {reason}"


def test_a_long_data_uri_is_not_printed_whole():
    line = fault("data:image/png;base64," + "A" * 10_000)
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
            line = fault(path)
            assert fault(opened).startswith(str(path))
        assert line == f"{path}: more than {limit // 10**6} million pixels; scale it down first"
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 3_000_000)
    assert open_image(path).size == (2000, 1500)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_which_frame_of_an_animation_is_meant_is_not_guessed(kind, tmp_path):
    frames = [PIL.Image.fromarray(noise(40, 30, seed=number)) for number in range(3)]
    path = tmp_path / "moving"
    frames[0].save(path, kind, save_all=True, append_images=frames[1:])
    expected = f"{path}: unreadable (it has 3 frames or pages; save the one that is meant as an image)"
    assert fault(path) == expected
    with PIL.Image.open(path) as opened:  # whoever opened it chose the frame
        opened.seek(1)
        assert open_image(opened).size == (40, 30)


def test_a_photograph_with_a_second_image_behind_it_is_an_image(tmp_path):
    path = tmp_path / "phone.jpg"
    photo = PIL.Image.fromarray(noise(90, 60))
    photo.save(path, "MPO", save_all=True, append_images=[photo.resize((30, 20))])
    assert open_image(path).size == (90, 60)


def test_corrupted_bytes_are_an_image_or_a_fault_and_nothing_else():
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
                assert len(error.faults) == 1
                assert "\n" not in str(error)


def test_a_decoder_that_fails_in_an_unforeseen_way_is_one_line(monkeypatch):
    def fails(image, **_):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(PIL.ImageOps, "exif_transpose", fails)
    assert fault(encoded(PIL.Image.new("L", (9, 9)), "PNG")).endswith("bytes: unreadable (two lines)")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"


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
