"""Kept tokens drawn over an image: what is light stays, the rest is dark, one panel a method."""

import numpy as np
import PIL.Image
import pytest

import vlm_jax
from tests.tiny_assembled import save_assembled
from tests.tiny_models import PHOTOS
from vlm_jax.errors import InputError
from vlm_jax.evaluation.kept_tokens import WIDTH, Panel, drawn, page, panels, side_by_side
from vlm_jax.evaluation.token_drawing import Drawing, draw
from vlm_jax.processing.token_budget import LEARNED, METHODS, TokenBudget

# The decoder here has two layers, of which pyramiddrop has no quarters.
SHOWN = [method for method in METHODS if method not in (*LEARNED, "pyramiddrop")]


def budget_of(method):
    return TokenBudget(0.5, method, layer=int(method == "fastv"))


@pytest.fixture(scope="module")
def photo():
    return PIL.Image.open(PHOTOS / "chelsea.jpg").convert("RGB")


def test_light_places_are_those_that_stay():
    white = PIL.Image.new("RGB", (40, 20), (255, 255, 255))
    panel = Panel("divprune", white, (2, 4), np.array([0, 6]))
    drawing = np.asarray(drawn(panel))[..., 0]
    assert drawing.shape == (WIDTH // 2, WIDTH)
    light = drawing > 128
    cells = light.reshape(2, WIDTH // 4, 4, WIDTH // 4).mean(axis=(1, 3))
    assert (cells > 0.9).ravel().nonzero()[0].tolist() == [0, 6] and cells[cells < 0.9].max() < 0.1
    assert panel.title == "divprune: 2 of 8"


def test_every_method_has_a_panel_of_its_own_count(base, photo):
    model = vlm_jax.load(base, dtype="float32")
    found = panels(model, photo, "What is it?", [budget_of(method) for method in SHOWN])
    assert [panel.method for panel in found] == SHOWN
    count = found[1].grid[0] * found[1].grid[1]
    assert {len(panel.kept) for panel in found[1:]} == {int(count * 0.5 + 0.5)}
    assert found[0].grid != found[1].grid and len(found[0].kept) == found[0].grid[0] * found[0].grid[1]
    assert len({tuple(panel.kept) for panel in found[1:]}) > 2
    assert model.processor.budget.takes_all
    width, height = found[1].view.size
    there = np.asarray(photo.resize((width, height), PIL.Image.Resampling.BICUBIC), np.int16)
    assert np.abs(np.asarray(found[1].view, np.int16) - there).max() <= 1
    sheet = side_by_side(found)
    assert sheet.width > 3 * WIDTH
    html = page(found, title="<chelsea>")
    assert html.count("<figure>") == len(SHOWN) and "&lt;chelsea&gt;" in html and "<chelsea>" not in html


@pytest.mark.parametrize("image_mode", ["anyres", "letterbox"])
def test_class_tokens_and_ends_of_rows_stay_in_assembled_models(tmp_path, photo, image_mode):
    options = {"keep_class": True, "final_norm": True} if image_mode == "letterbox" else {}
    folder = save_assembled(tmp_path, "vit" if options else "clip", image_mode=image_mode, **options)
    model = vlm_jax.load(folder, dtype="float32")
    messages = [{"role": "user", "content": [{"type": "image", "image": photo}, {"type": "text", "text": "What?"}]}]
    (complete,) = model.encode(messages).images
    layout = complete.layout
    for method in ("uniform", "visionzip") if options else ("divprune", "cdpruner"):
        reduced = vlm_jax.load(folder, dtype="float32", visual_tokens=0.25, token_reduction=method)
        (kept,) = reduced.kept_tokens(messages)
        always = np.flatnonzero(~layout.optional)
        assert len(always) and np.isin(always, kept).all(), method
        assert len(kept) - len(always) == int(layout.optional.sum() * 0.25 + 0.5), method
        example = reduced.encode(messages)
        assert (example.input_ids == example.image_token).sum() == len(kept)
        assert isinstance(reduced.generate(messages, max_new_tokens=3), str)
    everything = vlm_jax.load(folder, dtype="float32", visual_tokens=10_000, token_reduction="divprune")
    np.testing.assert_allclose(everything.logits(messages), model.logits(messages), atol=1e-4)
    (panel,) = panels(model, photo, "What?", [TokenBudget(0.25, "divprune")])
    assert panel.grid[0] == panel.grid[1] and 0 < len(panel.kept) < panel.grid[0] * panel.grid[1]


def test_the_folder_of_a_drawing_may_be_given_as_text(tmp_path):
    (tmp_path / "mine.txt").write_text("")
    drawing = Drawing("nowhere", str(tmp_path / "gone.png"), str(tmp_path), 0.5, "What?")
    with pytest.raises(InputError) as caught:
        draw(drawing)
    image, folder = caught.value.lines
    assert "gone.png" in image and folder.startswith(f"--output={tmp_path}: holds files that are not a drawing's")
