"""How long the chat page takes to be there and to answer, and its images in docs/.

    .venv/bin/python benchmarks/chat_page.py --quickstart=runs/quickstart --output=docs

Starts the page twice, with nothing compiled and with what the first start compiled, and asks in a browser: from Enter
to the first letters of the answer. Needs a finished `make quickstart`, Chromium and Thai fonts (Debian: apt
install chromium fonts-thai-tlwg) and the extra `test`.
"""

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import PIL.Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.app.page_in_browser import Visitor, free_port, started, wait_for
from tests.browser import launched

ROOT = Path(__file__).resolve().parents[1]
PHOTOS = ROOT / "data_pipeline" / "corpus" / "drawn" / "photographs"
WIDE, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
COLOURS = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quickstart", default="runs/quickstart", help="folder of a finished quickstart")
    parser.add_argument("--output", help="folder of the images; none are taken without it")
    options = parser.parse_args()
    quickstart = Path(options.quickstart).resolve()
    playwright, browser = launched()
    try:
        with tempfile.TemporaryDirectory() as folder:
            for name in ("nothing compiled", "second start"):
                measure(name, quickstart, Path(folder), browser, Path(options.output) if options.output else None)
    finally:
        browser.close()
        playwright.stop()


def measure(name: str, quickstart: Path, folder: Path, browser, output: Path | None) -> None:
    port, start = free_port(), time.monotonic()
    env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}
    models = (f"--model={quickstart / 'run'}", f"--model={ROOT / 'vlm_jax' / 'assets' / 'tiny_base'}")
    with open(folder / "log.txt", "w", encoding="utf-8") as log:
        process = started(*models, "--models_in_memory=2", port=port, log=log, env=env)
        try:
            wait_for(log, "ready", process)
            visitor = Visitor(browser, f"http://127.0.0.1:{port}", viewport=WIDE)
            print(f"{name}: the page is there after {time.monotonic() - start:.1f} s")
            ask(visitor, "first question, a photograph", "What is on the left?", PHOTOS / "chelsea.jpg")
            ask(visitor, "follow-up", "And on the right?")
            ask(visitor, "another photograph", "And here?", PHOTOS / "rocket.jpg")
            ask(visitor, "its follow-up", "What colour is it?")
            visitor.context.close()
            if output is not None and name == "second start":
                take_images(browser, f"http://127.0.0.1:{port}", quickstart, output)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def ask(visitor: Visitor, name: str, question: str, *files: Path) -> None:
    """Prints the seconds from Enter to the first letters, and to the end of the answer."""
    if files:
        visitor.attach(*files)
    place = 2 * (visitor.page.locator("[data-testid=stChatMessage]").count() // 2) + 1
    start = time.monotonic()
    visitor.ask(question)
    visitor.message(place).locator("[data-testid=stText]").wait_for()
    first = time.monotonic() - start
    visitor.answered(place)
    print(f"  {name}: first letters after {first:.2f} s, answered after {time.monotonic() - start:.2f} s")


def take_images(browser, address: str, quickstart: Path, output: Path) -> None:
    images = quickstart / "objects" / "images"
    for name, window, colours in (("chat", WIDE, "light"), ("chat-dark", WIDE, "dark"), ("chat-phone", PHONE, "light")):
        visitor = Visitor(browser, address, viewport=window, color_scheme=colours)
        if name == "chat":
            visitor.toggle("Compare with another model")
        visitor.attach(images / "photo-talumo-0000-name.jpg")
        visitor.ask("Tell me the name of this thing.")
        visitor.answered(1)
        if name == "chat-dark":
            visitor.toggle("As the model was trained")
            visitor.page.get_by_label("Chosen by").first.click()
            visitor.page.get_by_role("option", name="divprune").click()
            visitor.idle()
            visitor.toggle("Show which tokens stay")
            visitor.page.get_by_text("visual tokens, by divprune").wait_for()
        else:
            visitor.ask("สิ่งนี้มาจากที่ใด" if name == "chat-phone" else "Where is it from?")
            visitor.answered(3)
        time.sleep(1)
        path = output / f"{name}.png"
        with PIL.Image.open(io.BytesIO(visitor.page.screenshot())) as shot:  # in few colours: a third of the bytes
            shot.convert("RGB").quantize(COLOURS, dither=PIL.Image.Dither.NONE).save(path, optimize=True)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
        visitor.context.close()


if __name__ == "__main__":
    main()
