"""Image processors as checkpoints store them: read back as they were, those of earlier versions too."""

import dataclasses
import json

import pytest

from vlm_jax.errors import InputError
from vlm_jax.processing.image_processors import stored
from vlm_jax.processing.image_processors.dynamic_resolution import DynamicResolution
from vlm_jax.processing.image_processors.fixed_views import FixedViews

VIEWS = FixedViews(28, 14, True, False, "anyres", (0.5,) * 3, (0.5,) * 3, pinpoints=((28, 56), (56, 28)))


@pytest.mark.parametrize("images", [DynamicResolution(max_pixels=28 * 28 * 9), VIEWS])
def test_an_image_processor_is_read_back_as_it_was_with_or_without_its_kind(images):
    content = json.loads(json.dumps(stored.to_json(images)))
    assert stored.read(content) == images and type(stored.read(content)) is type(images)
    del content[stored.KIND]  # as earlier versions stored it
    assert stored.read(content) == images


@pytest.mark.parametrize(
    "change", [{"colours": 3}, {"kind": "Another"}, {"image_size": 28}], ids=["a newer field", "a newer kind", "mixed"]
)
def test_settings_that_no_implementation_has_are_refused(change):
    content = {**stored.to_json(DynamicResolution()), **change}
    with pytest.raises(InputError, match="no image processor of this version has the settings"):
        stored.read(content)
    with pytest.raises(InputError, match="no image processor"):
        stored.read({})


def test_one_that_could_not_be_read_back_is_not_stored():
    class Another(DynamicResolution):
        pass

    with pytest.raises(TypeError, match="Another is no image processor of stored.IMPLEMENTATIONS"):
        stored.to_json(Another(**dataclasses.asdict(DynamicResolution())))
