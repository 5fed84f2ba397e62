"""Images that are nearly the same are found through recompression and flips; different ones stay apart."""

import io
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageFilter
import PIL.ImageOps
import pytest
import scipy.fft

from data_pipeline.corpus.filters import Pair, apply
from data_pipeline.corpus.filters.near_images import image_hash, image_hashes, near_images, near_pairs
from vlm_jax.errors import InputError

PHOTOS = Path(__file__).resolve().parents[2] / "data" / "photos"
NAMES = ("astronaut.jpg", "chelsea.jpg", "coffee.jpg", "coins.png", "dahlia.jpg", "rocket.jpg", "temple.jpg")


def encoded(image, **options):
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", **options)
    return buffer.getvalue()


def opened(name):
    with PIL.Image.open(PHOTOS / name) as image:
        return image.convert("RGB")


def bits(one, other):
    return int(np.bitwise_count(image_hash(one)[0] ^ image_hash(other)).min())


@pytest.mark.parametrize("name", NAMES)
def test_what_changes_little_stays_near(name):
    image, original = opened(name), PHOTOS / name
    half = image.resize((image.width // 2, image.height // 2))
    changed = {
        "recompressed": encoded(image, quality=40),
        "half the size": encoded(half),
        "blurred": encoded(image.filter(PIL.ImageFilter.GaussianBlur(1))),
        "brighter": encoded(image.point(lambda value: min(255, int(value * 1.1)))),
        "mirrored": encoded(PIL.ImageOps.mirror(image)),
        "upside down": encoded(PIL.ImageOps.flip(image)),
        "turned by half": encoded(image.rotate(180)),
    }
    assert {kind: bits(original, other) for kind, other in changed.items() if bits(original, other) > 6} == {}


def test_different_photographs_are_far_apart():
    every = [PHOTOS / name for name in NAMES]
    far = [bits(one, other) for place, one in enumerate(every) for other in every[:place]]
    assert min(far) > 12
    assert near_pairs(np.stack([image_hash(one) for one in every])) == []


def test_flips_without_a_second_transform_are_those_of_flipped_images():
    grey = opened("chelsea.jpg").convert("L").resize((32, 32))  # so that no resampling differs
    flipped = [grey, PIL.ImageOps.mirror(grey), PIL.ImageOps.flip(grey), grey.rotate(180)]
    for variant, image in zip(_saved(grey), flipped, strict=True):
        frequencies = scipy.fft.dctn(np.asarray(image, np.float64))[:8, :8]
        plain = np.packbits((frequencies > np.median(frequencies)).ravel()).view(">u8")[0]
        assert np.bitwise_count(variant ^ np.uint64(plain)) == 0


def _saved(grey):
    buffer = io.BytesIO()
    grey.save(buffer, "PNG")
    return image_hash(buffer.getvalue())


def test_pairs_in_blocks_are_all_pairs(monkeypatch):
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, (50, 4)).astype(np.uint64)
    hashes[30] = hashes[7] ^ np.uint64(0b101)
    hashes[41, 2] = hashes[3, 0]
    expected = near_pairs(hashes)
    assert (7, 30, 2) in expected
    monkeypatch.setattr("data_pipeline.corpus.filters.near_images._BLOCK", 8)
    assert near_pairs(hashes) == expected
    assert near_pairs(hashes[:10], hashes[30:31]) == [(7, 0, 2)]


def test_pairs_of_an_image_that_gives_way_are_dropped_whatever_the_order(tmp_path):
    (tmp_path / "again.jpg").write_bytes(encoded(PIL.ImageOps.mirror(opened("temple.jpg")), quality=60))
    images = [str(PHOTOS / "temple.jpg"), str(tmp_path / "again.jpg"), str(PHOTOS / "coffee.jpg")]
    hashes = image_hashes(images)
    given_way = near_images(hashes)
    assert given_way == near_images(dict(reversed(hashes.items()))) and len(given_way) == 1
    pairs = [Pair(str(number), f"What is {number}?", "it", image=images[number % 3]) for number in range(6)]
    outcome = apply({"near_image": True}, pairs, {"image_hashes": hashes})
    assert {one.pair.image for one in outcome.dropped} == set(given_way) and len(outcome.dropped) == 2
    assert outcome.dropped[0].reason == f"near-duplicate image: of {next(iter(given_way.values()))}"


def test_images_that_cannot_be_read_are_all_named(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(InputError) as error:
        image_hashes([str(tmp_path / "broken.jpg"), str(tmp_path / "missing.jpg"), str(PHOTOS / "coins.png")])
    assert len(error.value.lines) == 2
