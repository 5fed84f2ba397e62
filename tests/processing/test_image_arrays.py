"""NumPy arrays as images."""

import numpy as np
import PIL.Image
import pytest

from vlm_jax.errors import InputError
from vlm_jax.processing.images import open_image

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)


@pytest.mark.parametrize(
    "pixels",
    [COLOURS, COLOURS[:, :, 0], COLOURS[::-1, ::2], COLOURS[:, :, ::-1]],
    ids=["rgb", "grey", "strided", "bgr"],
)
def test_an_array_is_the_image_of_its_values(pixels):
    expected = PIL.Image.fromarray(pixels.copy()).convert("RGB")
    opened = open_image(pixels)
    assert opened.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(opened), np.asarray(expected))


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (COLOURS / 255, "float64: pixels of an array are uint8"),
        (COLOURS.astype(np.int64), "int64: pixels of an array are uint8"),
        (COLOURS > 9, "bool: pixels of an array are uint8"),
        (COLOURS.transpose(2, 0, 1), r"\(3, 6, 8\) of uint8: an array is"),
        (np.zeros((6, 8, 4), np.uint8), r"\(6, 8, 4\) of uint8: an array is"),
        (np.zeros((6, 8, 1), np.uint8), r"\(6, 8, 1\) of uint8: an array is"),
        (COLOURS[None], r"\(1, 6, 8, 3\) of uint8: an array is"),
        (np.zeros((0, 8, 3), np.uint8), r"\(0, 8, 3\) of uint8: an array is"),
        (COLOURS.tolist(), "an object of type builtins.list: no image; give a path"),
        (7, "an object of type builtins.int: no image; give a path"),
    ],
)
def test_what_could_mean_several_images_or_none_is_refused_with_the_reason(pixels, reason):
    with pytest.raises(InputError, match=reason):
        open_image(pixels)
