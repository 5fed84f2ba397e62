"""Takes the images of the review page in docs/: wide, on a phone, dark, and a Thai record.

    .venv/bin/python benchmarks/review_screenshots.py --output=docs

Needs Chromium and Thai fonts (Debian: apt install chromium fonts-thai-tlwg) and the extra `test`.
"""

import argparse
import io
import sys
import tempfile
from pathlib import Path

import PIL.Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_pipeline.review.session import Options
from tests.browser import launched
from tests.review_corpus import make_corpus
from tests.review_server import serving

WIDE, PHONE = {"width": 1120, "height": 720}, {"width": 390, "height": 844}
SHOTS = {
    "review": ("coffee/1", WIDE, "light", ()),
    "review-dark": ("talumo-2", WIDE, "dark", ("a", "p")),
    "review-phone": ("talumo-1", PHONE, "light", ()),
    "review-thai": ("talumo-th", PHONE, "light", ()),
}
"""Name: the record, the window, the colours, keys that are pressed."""
COLOURS = 96


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", required=True, help="folder of the images")
    output = Path(parser.parse_args().output)
    started, browser = launched()
    try:
        with tempfile.TemporaryDirectory() as folder:
            corpus = make_corpus(Path(folder) / "objects-of-orvane", side=448, plain=37)
            with serving(corpus, Options()) as (address, review):
                for name, shot in SHOTS.items():
                    size = take(browser, address, review, shot, output / f"{name}.png")
                    print(f"{output / name}.png: {size / 1000:.0f} kB")
    finally:
        browser.close()
        started.stop()


def take(browser, address: str, review, shot: tuple, path: Path) -> int:
    """One image; returns its bytes."""
    identifier, window, colours, keys = shot
    key = next(item.key for item in review.items if item.record.id == identifier)
    page = browser.new_page(viewport=window, color_scheme=colours)
    page.goto(f"{address}/?reviewer=Ann#{key}")
    page.locator("#images img").evaluate("image => image.decode()")
    for pressed in keys:
        page.keyboard.press(pressed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with PIL.Image.open(io.BytesIO(page.screenshot())) as shot:  # in few colours: a third of the bytes
        shot.convert("RGB").quantize(COLOURS, dither=PIL.Image.Dither.NONE).save(path, optimize=True)
    page.close()
    return path.stat().st_size


if __name__ == "__main__":
    main()
