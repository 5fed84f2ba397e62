"""Which visual tokens of an image stay, drawn over it: one drawing and one page for several methods side by side."""

import base64
import dataclasses
import html
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
from jaxtyping import Bool, Int

from vlm_jax.processing.example import PatchedImage
from vlm_jax.processing.image_processors import ImageProcessor
from vlm_jax.processing.token_budget import TokenBudget

WIDTH = 320
"""Pixels of one panel."""
_TITLE, _GAP = 22, 8


@dataclasses.dataclass(frozen=True)
class Panel:
    """What one method keeps.

    Attributes:
      method: its name.
      view: the image as the tower sees it: resized, cropped or with borders; of one in tiles, the whole view.
      grid: rows and columns of its visual tokens.
      kept: which of them stay, row by row.
    """

    method: str
    view: PIL.Image.Image
    grid: tuple[int, int]
    kept: Int[np.ndarray, " kept"]

    @property
    def title(self) -> str:
        return f"{self.method}: {len(self.kept)} of {self.grid[0] * self.grid[1]}"

    def mask(self) -> Bool[np.ndarray, "rows columns"]:
        mask = np.zeros(self.grid[0] * self.grid[1], bool)
        mask[self.kept] = True
        return mask.reshape(self.grid)


def panels(model: Any, image: PIL.Image.Image, question: str, budgets: Sequence[TokenBudget]) -> list[Panel]:
    """What a loaded model keeps of an image, with each budget.

    Args:
      model: a `vlm_jax.inference.engine.LoadedModel`.
      question: asked about it; some methods follow it.
    """
    content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}]
    everything, found = model.processor, []
    try:
        for budget in budgets:
            model.processor = everything.with_reduction(budget)
            (shown,) = model.encode(messages).images
            (kept,) = model.kept_tokens(messages)
            grid, places = _in_grid(shown, kept)
            found.append(Panel(budget.method, _view(shown, grid, everything.images), grid, places))
    finally:
        model.processor = everything
    return found


def _in_grid(image: PatchedImage, kept: Int[np.ndarray, " kept"]) -> tuple[tuple[int, int], Int[np.ndarray, " shown"]]:
    """Rows and columns of an image, and which of its places stay; of one in tiles, those of the whole view."""
    if len(image.grid) == 2:
        rows, columns = image.grid
        return (rows, columns), kept
    coords = image.layout.coords[image.layout.slot_of_token, 0]
    first = (image.layout.image_ids[image.layout.slot_of_token] == 1) & (coords[:, 0] >= 0)
    first &= image.layout.slot_of_token >= 0
    side = int(coords[first].max()) + 1
    mine = np.intersect1d(kept, np.flatnonzero(first))
    return (side, side), coords[mine, 0] * side + coords[mine, 1]


def _view(image: PatchedImage, grid: tuple[int, int], images: ImageProcessor) -> PIL.Image.Image:
    """Patches put together again, as `images.patchify` took them apart."""
    (rows, columns), size, merge = grid, images.patch_size, images.merge_size
    pixels = image.patches[: rows * columns].reshape(rows, columns, merge, merge, 3, size, size)
    pixels = pixels.transpose(0, 2, 5, 1, 3, 6, 4)
    return PIL.Image.fromarray(np.ascontiguousarray(pixels).reshape(rows * merge * size, columns * merge * size, 3))


def drawn(panel: Panel) -> PIL.Image.Image:
    """The image with what is left out dark, and a thin line around each token that stays."""
    image = panel.view
    height = max(1, round(WIDTH * image.height / image.width))
    shown = np.asarray(image.convert("RGB").resize((WIDTH, height), PIL.Image.Resampling.BICUBIC), np.float32)
    rows, columns = panel.grid
    mask = panel.mask()
    row = np.minimum(np.arange(height) * rows // height, rows - 1)
    column = np.minimum(np.arange(WIDTH) * columns // WIDTH, columns - 1)
    light = np.where(mask[row][:, column], 1.0, 0.22)[..., None]
    drawing = PIL.Image.fromarray((shown * light).astype(np.uint8))
    pen = PIL.ImageDraw.Draw(drawing)
    for at in panel.kept.tolist():
        top, left = divmod(at, columns)
        box = [left * WIDTH // columns, top * height // rows]
        pen.rectangle(
            [*box, (left + 1) * WIDTH // columns - 1, (top + 1) * height // rows - 1], outline=(255, 255, 255)
        )
    return drawing


def side_by_side(panels: Sequence[Panel], *, columns: int = 4) -> PIL.Image.Image:
    """All panels, each under its title, as one drawing."""
    drawings = [drawn(panel) for panel in panels]
    height = max(drawing.height for drawing in drawings) + _TITLE
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    sheet = PIL.Image.new("RGB", (columns * (WIDTH + _GAP) + _GAP, rows * (height + _GAP) + _GAP), (255, 255, 255))
    pen = PIL.ImageDraw.Draw(sheet)
    for number, (panel, drawing) in enumerate(zip(panels, drawings, strict=True)):
        left = _GAP + number % columns * (WIDTH + _GAP)
        top = _GAP + number // columns * (height + _GAP)
        pen.text((left, top + 4), panel.title, fill=(0, 0, 0))
        sheet.paste(drawing, (left, top + _TITLE))
    return sheet


def _data_uri(drawing: PIL.Image.Image) -> str:
    buffer = io.BytesIO()
    drawing.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def page(panels: Sequence[Panel], *, title: str) -> str:
    """The same as one HTML file that needs no network."""
    figures = "\n".join(
        f'<figure><img alt="" src="{_data_uri(drawn(panel))}"><figcaption>{html.escape(panel.title)}'
        "</figcaption></figure>"
        for panel in panels
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>body{{font:16px system-ui;margin:1rem}}"
        "main{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:0}img{max-width:100%}</style>"
        f"<h1>{html.escape(title)}</h1><main>\n{figures}\n</main></html>\n"
    )
