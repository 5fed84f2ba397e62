"""Image processors of other people's folders: pixels as transformers makes them, or a refusal by name."""

import json

import numpy as np
import PIL.Image
import pytest
from transformers import CLIPImageProcessorPil
from transformers.image_processing_base import ImageProcessingMixin
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from vlm_jax.checkpoint import description
from vlm_jax.errors import InputError
from vlm_jax.processing.image_processors.dynamic_resolution import DynamicResolution
from vlm_jax.processing.image_processors.fixed_views import FixedViews

SMALL = {"shortest_edge": 4 * 784, "longest_edge": 16 * 784}
LARGER = {"shortest_edge": 4 * 784, "longest_edge": 30 * 784}
IMAGE = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (130, 190, 3), np.uint8))


def write(folder, **settings):
    """A folder whose image processor has these settings, and transformers' processor of it."""
    plain = DynamicResolution().to_json("Qwen2_5_VLProcessor")
    plain = {key: value for key, value in plain.items() if key not in ("min_pixels", "max_pixels")}
    (folder / "preprocessor_config.json").write_text(json.dumps(plain | {"size": SMALL} | settings))
    return Qwen2VLImageProcessorPil.from_pretrained(folder)


def pixels(settings: DynamicResolution) -> tuple[np.ndarray, tuple[int, int]]:
    """What a model of these settings is fed, [patches, C · T · ph · pw], and the grid in patches."""
    grid = settings.grid(*IMAGE.size)
    patches = settings.cut(IMAGE, grid).reshape(-1, 3, settings.patch_size**2).astype(np.float64)
    values = (patches / 255 - np.array(settings.mean)[:, None]) / np.array(settings.std)[:, None]
    frames = np.repeat(values[:, :, None], 2, axis=2)
    return frames.reshape(len(frames), -1), (grid[0] * settings.merge_size, grid[1] * settings.merge_size)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        *({"resample": number} for number in range(6)),
        {"do_normalize": False},
        {"do_rescale": False},
        {"do_rescale": False, "do_normalize": False},
        {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3},
        {"rescale_factor": 0.00392156862745098},
        {"image_mean": 0.5, "image_std": 0.25},
        {"do_normalize": None},
        {"do_rescale": None, "do_convert_rgb": None},
        {"min_pixels": 9 * 784, "max_pixels": 12 * 784},
        {"max_pixels": 30 * 784},
        {"min_pixels": None, "max_pixels": None, "crop_size": None, "data_format": "channels_first"},
        {"do_center_crop": True, "crop_size": {"height": 28, "width": 28}, "do_pad": True},
        {"image_processor_type": "Qwen2VLImageProcessorFast", "device": None, "disable_grouping": None},
    ],
    ids=str,
)
def test_every_setting_that_changes_pixels_is_honoured(tmp_path, settings):
    theirs = write(tmp_path, **settings)([IMAGE], return_tensors="np")
    ours, grid = pixels(description.image_processor_by(tmp_path, DynamicResolution.from_json))
    assert (1, *grid) == tuple(theirs["image_grid_thw"][0])
    np.testing.assert_allclose(ours, theirs["pixel_values"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"do_resize": False}, "do_resize is false, and images are always resized here; set it to true"),
        ({"do_resize": None}, "do_resize is null, and images are always resized here; set it to true"),
        ({"image_mean": None}, "image_mean is None; wanted three numbers"),
        ({"rescale_factor": None}, "rescale_factor is None; wanted a number above 0"),
        ({"do_convert_rgb": False}, "do_convert_rgb is false, and images are always converted to RGB here; set it to"),
        ({"do_normalize": "false"}, "do_normalize is 'false'; wanted true or false"),
        ({"resample": 7}, "resample is 7; known are 0 (nearest), 1 (lanczos), 2 (bilinear), 3 (bicubic)"),
        ({"rescale_factor": 0}, "rescale_factor is 0; wanted a number above 0"),
        ({"sharpen": 2}, "sharpen is 2, which is not a known setting of this image processor; remove it, or set it"),
        ({"do_flip": True}, "do_flip is True, which is not a known setting of this image processor"),
        ({"image_std": [1, 1]}, "image_std is [1, 1]; wanted three numbers"),
        ({"image_std": [1, 0, 1]}, "image_std is [1.0, 0.0, 1.0]; wanted numbers above 0"),
        ({"image_mean": ["a", 1, 1]}, "image_mean is ['a', 1, 1]; wanted three numbers"),
        ({"temporal_patch_size": 1}, "temporal_patch_size is 1; wanted 2"),
        ({"size": {"shortest_edge": 3136}}, "wanted shortest_edge and longest_edge, in pixels of area"),
        ({"size": 224}, "size is 224; wanted shortest_edge and longest_edge, in pixels of area"),
        ({"size": {"height": 28, "width": 28}}, "wanted shortest_edge and longest_edge, in pixels of area"),
    ],
    ids=str,
)
def test_a_setting_that_is_not_computed_is_refused_by_name(tmp_path, settings, line):
    write(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    with pytest.raises(InputError) as caught:
        description.image_processor_by(tmp_path, DynamicResolution.from_json)
    (error,) = caught.value.lines
    assert error.startswith(f"{path}: ") and line in error


def test_all_settings_that_are_not_computed_are_refused_together(tmp_path):
    write(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"do_resize": False, "resample": 9, "blur": 1}))
    with pytest.raises(InputError) as caught:
        description.image_processor_by(tmp_path, DynamicResolution.from_json)
    assert [line.split(": ")[1].split()[0] for line in caught.value.lines] == ["blur", "do_resize", "resample"]


@pytest.mark.parametrize(
    "processor_json",
    [
        {"image_processor": {"size": LARGER}},
        {"image_processor": {"size": LARGER, "image_processor_type": "Qwen2VLImageProcessor"}, "processor_class": "A"},
        {"image_processor": None},
        {"processor_class": "Qwen2_5_VLProcessor"},
        {"size": LARGER, "patch_size": 14},
        {},
    ],
    ids=str,
)
def test_of_two_files_the_one_counts_that_transformers_takes(tmp_path, processor_json):
    write(tmp_path)
    (tmp_path / "processor_config.json").write_text(json.dumps(processor_json))
    expected = ImageProcessingMixin.get_image_processor_dict(tmp_path)[0]["size"]
    assert expected == (LARGER if processor_json.get("image_processor") else SMALL)
    settings = description.image_processor_by(tmp_path, DynamicResolution.from_json)
    assert (settings.min_pixels, settings.max_pixels) == (expected["shortest_edge"], expected["longest_edge"])


CLIP = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": 40},
    "crop_size": {"height": 28, "width": 28},
}


def views(folder, settings):
    (folder / "preprocessor_config.json").write_text(json.dumps(CLIP | settings))
    encoder = {"image_size": 28, "patch_size": 14, "class_token": False, "keep_class": False}
    return description.image_processor_by(folder, lambda found: FixedViews.from_json(found, **encoder))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"resample": 0},
        {"resample": 1, "do_convert_rgb": None, "do_pad": None},
        {"image_mean": [0.1] * 3},
    ],
    ids=str,
)
def test_an_encoders_processor_has_the_defaults_of_its_class(tmp_path, settings):
    read = views(tmp_path, settings)
    theirs = CLIPImageProcessorPil.from_pretrained(tmp_path)([IMAGE], return_tensors="np")["pixel_values"][0]
    patches = read.cut(IMAGE, read.grid(*IMAGE.size)).reshape(2, 2, 3, 14, 14).transpose(2, 0, 3, 1, 4)
    ours = (patches.reshape(3, 28, 28) / 255 - np.reshape(read.mean, (3, 1, 1))) / np.reshape(read.std, (3, 1, 1))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"do_normalize": False}, "do_normalize is false"),
        ({"do_rescale": None}, "do_rescale is null"),
        ({"rescale_factor": 1.0}, "rescale_factor 1.0 is not 1/255"),
        (
            {"image_processor_type": "LlavaImageProcessor", "do_pad": True},
            "size 40 differs from the crop of 28, and padded images are not cropped",
        ),
        ({"do_pad": True}, "do_pad is True, which is not a known setting of this image processor"),
        ({"image_grid_pinpoints": [[56, 56]]}, "image_grid_pinpoints is [[56, 56]], which is not a known setting"),
        ({"crop_size": None}, "views are 224 × 224 pixels, config.json has image_size 28"),  # the class's own
        (
            {"image_processor_type": "SiglipImageProcessor", "crop_size": None, "size": {"shortest_edge": 28}},
            "size is {'shortest_edge': 28} and nothing is cropped, so images would not be square",
        ),
        ({"do_thumbnail": True}, "do_thumbnail is True, which is not a known setting of this image processor"),
    ],
    ids=str,
)
def test_an_encoders_setting_that_is_not_computed_is_refused_by_name(tmp_path, settings, line):
    with pytest.raises(InputError) as caught:
        views(tmp_path, settings)
    assert any(line in line and line.startswith(str(tmp_path)) for line in caught.value.lines)
