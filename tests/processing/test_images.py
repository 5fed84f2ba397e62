"""Images become what transformers makes of them, bit for bit; what is no image is refused in one line."""

import base64
import io
import random
import shutil
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
    """transformers' pixels before normalisation, [tokens, patches_per_token, C · ph · pw], and the grid in patches."""
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
    assert error(path) == (
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


def error(source) -> str:
    with pytest.raises(InputError) as caught:
        open_image(source)
    (line,) = caught.value.lines
    assert "\n" not in line
    return line


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
