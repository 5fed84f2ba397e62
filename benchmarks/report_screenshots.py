"""Takes the images of an evaluation's page in docs/: its top and some answers, on a phone too, and its parts numbered.

    .venv/bin/python benchmarks/report_screenshots.py --report=runs/quickstart/after/report.html --output=docs

The page is the quickstart's (`make quickstart`). For the images most of its tables are left out, and of its answers a
few are left. Needs Chromium and Thai fonts (Debian: apt install chromium fonts-thai-tlwg) and the extra `test`.
"""

import argparse
import io
import sys
from pathlib import Path

import PIL.Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.browser import launched

COLOURS = 256
FOLD = """(kept) => {
  document.querySelectorAll("img").forEach((image) => { image.loading = "eager"; });
  document.querySelectorAll("details").forEach((part) => {
    part.open = kept.open.includes(part.querySelector("summary").innerText);
  });
  const left = { ...kept.answers };
  document.querySelectorAll("article").forEach((card) => {
    left[card.className] > 0 ? left[card.className]-- : card.remove();
  });
  document.querySelectorAll(kept.without).forEach((part) => part.remove());
}"""
NUMBER = """(places) => places.forEach(([selector, number], index) => {
  const place = document.querySelector(selector).getBoundingClientRect(), sign = document.createElement("b");
  sign.textContent = number;
  sign.style.cssText = `position:absolute;left:8px;top:${place.top + scrollY + place.height / 2 - 14}px;width:28px;
    height:28px;border-radius:14px;background:#222;color:#fff;text-align:center;line-height:28px;font-size:16px`;
  document.body.append(sign);
})"""
PARTS = [
    ["body > .figures", 1],
    ["body > p", 2],
    ["img[alt=scores]", 3],
    ["details[open] .figures", 4],
    ["img[alt=calibration]", 5],
    ["main", 6],
]
"""What the numbers of docs/reading_the_report.md stand beside."""
_TABLES = "details, h2:has(+ details), h2:has(+ p + img[alt=calibration]), p:has(+ img[alt=calibration])"
_FOLDED = f"{_TABLES}, img[alt=calibration]"
SHOTS = {
    "quickstart-report": (
        {"width": 960, "height": 800},
        {"open": [], "answers": {"learned": 2, "lost": 1}, "without": _FOLDED},
    ),
    "quickstart-report-phone": (
        {"width": 390, "height": 844},
        {"open": [], "answers": {"learned": 1, "lost": 1}, "without": _FOLDED},
    ),
    "report-parts": (
        {"width": 1000, "height": 800},
        {"open": ["by split"], "answers": {"lost": 1, "wrong": 1, "learned": 1}, "without": "none"},
    ),
}
"""Name: the window, and what of the page is left."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", required=True, type=Path, help="report.html of a finished quickstart")
    parser.add_argument("--output", required=True, type=Path, help="folder of the images")
    options = parser.parse_args()
    started, browser = launched()
    try:
        for name, (window, kept) in SHOTS.items():
            path = options.output / f"{name}.png"
            size = take(browser, options.report, window, kept, path, numbered=name == "report-parts")
            print(f"{path}: {size / 1000:.0f} kB")
    finally:
        browser.close()
        started.stop()


def take(browser, report: Path, window: dict, kept: dict, path: Path, *, numbered: bool) -> int:
    """One image; returns its bytes."""
    page = browser.new_page(viewport=window, color_scheme="light")
    page.goto(report.resolve().as_uri())
    page.evaluate(FOLD, kept)
    page.wait_for_function("[...document.images].every((image) => image.complete)")
    if numbered:
        page.add_style_tag(content="body{padding-left:48px}")
        page.evaluate(NUMBER, PARTS)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = PIL.Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    image.quantize(COLOURS, dither=PIL.Image.Dither.NONE).save(path, optimize=True)
    page.close()
    return path.stat().st_size


if __name__ == "__main__":
    main()
